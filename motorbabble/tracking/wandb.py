"""Weights & Biases: off unless a project is named; offline, without asking anybody, where there is no key.

Nothing is sent that was not measured here: no code, git state, list of packages, terminal output or load of the machine. Reports about itself,
which the library sends home even where it is told to be offline, are switched off, unless WANDB_ERROR_REPORTING asks for them.
"""

import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from motorbabble.errors import ConfigurationError
from motorbabble.exchange.extras import extra
from motorbabble.figures import fit
from motorbabble.tracking.metrics import Entry

LONGEST = 1280  # pixels of a picture's longer side; larger ones are shrunk
PATIENCE = 15  # seconds for what is still to be sent when a run ends; the rest stays in its folder


def check_project(project: str) -> None:
    """ConfigurationError, in a sentence, where this is no name of a project or the library is missing."""
    odd = sorted({letter for letter in project if letter in "/\\#?%:" or not letter.isprintable()})
    if not project.strip() or len(project) > 128 or odd:
        raise ConfigurationError(
            f"{project!r} is no name of a W&B project; give 1 to 128 letters, without any of / \\ # ? % :, or leave --wandb out for no tracking there"
        )
    _library()


class WandbTracker:
    """One run in `project`; its files lie in `folder`/wandb. Where it can be looked at, or how it is sent later, is in `notes`."""

    wants_pictures = True

    def __init__(self, project: str, folder: Path, settings: Mapping[str, Any], title: str = ""):
        wandb = _library()
        self._image = wandb.Image
        folder.mkdir(parents=True, exist_ok=True)
        quiet = dict(
            silent=True,
            console="off",
            program="motorbabble",
            host="motorbabble",
            disable_git=True,
            disable_code=True,
            save_code=False,
            disable_job_creation=True,
            init_timeout=PATIENCE,
            finish_timeout=PATIENCE,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        mode, lost = wanted_mode(wandb.Settings().base_url), ""
        about: dict[str, Any] = {"project": project, "dir": str(folder), "name": title or None, "config": dict(settings)}
        wandb.setup(wandb.Settings(**quiet))  # or it would greet people in the terminal
        try:
            self.run = wandb.init(**about, mode=mode, settings=wandb.Settings(**quiet))
        except wandb.errors.CommError:  # a laptop without a network keeps its metrics all the same
            mode, lost = "offline", "W&B cannot be reached. "
            self.run = wandb.init(**about, mode=mode, settings=wandb.Settings(**quiet))
        self.run.define_metric("*", step_metric="training_step")
        if mode == "offline":
            kept = _short(Path(self.run.settings.sync_dir))
            self.notes = [f"{lost}W&B works offline, in {kept}; `wandb sync {kept}` sends it."]
        else:
            self.notes = ["W&B is disabled by WANDB_MODE." if mode == "disabled" else f"W&B: {self.run.url}"]

    def log(self, entry: Entry) -> None:
        pictures = {name: self._image(_shrunk(picture)) for name, picture in entry.pictures.items()}
        self.run.log({**entry.values, **pictures})

    def close(self) -> None:
        self.run.finish()


def _library() -> Any:
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # read when it is imported, and by the process that it starts
    return extra("wandb", "wandb")


def wanted_mode(server: str) -> str:
    """What WANDB_MODE says; without it, or without a key, online only where a key lies ready for this server."""
    asked = os.environ.get("WANDB_MODE", "online")
    return "offline" if asked == "dryrun" or (asked == "online" and not _has_key(server)) else asked


def _has_key(server: str) -> bool:
    """Whether there is one; nobody is asked for it, and it is not looked at."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    hosts = [urlsplit(server).netloc] + ([] if os.environ.get("WANDB_BASE_URL") else ["api.wandb.ai"])  # its name for most of its life
    files = [Path(named)] if (named := os.environ.get("NETRC")) else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in files:
        try:
            known = netrc.netrc(str(file.expanduser())).hosts
        except (OSError, netrc.NetrcParseError):
            continue
        if any(host in known for host in hosts):
            return True
    return False


def _short(folder: Path) -> Path:
    """As a person here would write it."""
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _shrunk(picture: Any) -> Any:
    return fit(picture, LONGEST) if max(picture.shape[:2]) > LONGEST else picture
