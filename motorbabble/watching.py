"""A run's own trackers: what to look at inside a model while it lives, wired to who is told.

Looking changes nothing: a life that is tracked is, bit for bit, the life nobody tracked.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from motorbabble.analysis.attention import attention_numbers
from motorbabble.analysis.card import picturing, thinking
from motorbabble.analysis.counterfactuals import counterfactual_numbers
from motorbabble.analysis.scores import candidates_of, tally, trials_of
from motorbabble.analysis.view import View
from motorbabble.experience import Step
from motorbabble.learning.state import architecture_of
from motorbabble.tracking import Tracker, Tracking, TrackingConfig
from motorbabble.tracking.metrics import Values

if TYPE_CHECKING:
    import numpy as np

    from motorbabble.agents import Run

MOMENTS, PICTURES = 16, 64  # the newest transitions that a look inside the model is taken on; fewer where so many pictures would not do


def tracked(
    run: "Run",
    folder: Path | None,
    config: TrackingConfig = TrackingConfig(),
    title: str = "",
    also: Sequence[Callable[[], Tracker]] = (),
    **settings: Any,
) -> Tracking:
    """Trackers for `run`; the metrics' file goes into `folder` (None: there is none). `settings` are logged beside the run's own.

    `also` makes trackers of your own; each call is made in the thread that its tracker will work in.
    """
    view = View()

    def picture(step: Step) -> "np.ndarray":
        view.watch(step, run.situation)
        return view.picture()

    def measure() -> Values:
        with torch.random.fork_rng(devices=[]):
            return measurements(run)

    return Tracking(
        folder,
        config,
        run.action_space,
        settings={**settings_of(run), **settings},
        title=title,
        goes_on=run.resumed,
        status=lambda: {"lookahead": run.lookahead},
        measure=measure,
        picture=picture,
        foresee=lambda step: view.watch(step, run.situation),
        also=also,
    )


def settings_of(run: "Run") -> dict[str, Any]:
    """Everything a run was set up with, in plain values."""
    learner = run.learner
    said = {name: value for name, value in run.about.items() if name != "settings"}
    return {
        **said,
        "robot_type": run.robot.robot_type,
        "actions": str(run.action_space),
        "steps": run.steps,
        "time_limit": run.seconds,
        "device": str(learner.trained.device),
        "parameters": sum(weight.numel() for weight in learner.trained.parameters()),
        **architecture_of(learner.trained),
        **run.about.get("settings", {}),
    }


def measurements(run: "Run") -> dict[str, float]:
    """What a look inside the model tells, on the newest moments of this life; what cannot be told yet is left out."""
    model, space = run.world_model, run.action_space
    moments = max(4, min(MOMENTS, PICTURES // len(candidates_of(space))))
    trials = trials_of(list(run.lived)[-moments - 1 :], space, model.history)
    if not trials:
        return {}
    with thinking(model):
        imagine = picturing(model)
        scored = tally(imagine, trials, space)
        gaps = counterfactual_numbers({"model": imagine}, {"model": scored}, trials, space, None)["scores"]["model"]
        attention = attention_numbers(model, trials)
    told = {f"predictor/counterfactual/{name}": gaps[name] for name in ("asg", "azg")}
    told["predictor/action_sensitivity/variance"] = scored.to_json()["action_sensitivity"]
    if attention:
        names = {"apa": "apa_mean", "alf": "alf_mean", "ttar": "ttar_mean", "ri16": "ri16_mean", "entropy": "attn_entropy_mean"}
        told |= {f"predictor/attn/{name}": attention["all_layers"][ours] for ours, name in names.items()}
        told["predictor/attn/uniform_baseline_mean"] = attention["uniform"]["apa"]
    return {name: value for name, value in told.items() if value is not None}
