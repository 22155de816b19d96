"""Weights & Biases and rerun, as a user without a network, a key or the library meets them. Skipped where a library is missing."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from events import SPACE, a_step, a_study

from motorbabble.errors import ConfigurationError
from motorbabble.tracking import Tracking, TrackingConfig
from motorbabble.tracking.wandb import wanted_mode

ROOT = Path(__file__).parent.parent
CANARY = "canary0" * 6
SERVER = "https://wandb.example"

# A process that tells at its very end what it imported and where it connected to.
WATCHED = """
import atexit, sys
connects = []
def watch(name, about):
    if name == "socket.getaddrinfo" or (name == "socket.connect" and not isinstance(about[1], str)):  # a str: a file here
        connects.append(str(about))
        raise OSError("there is no network in a test")
sys.addaudithook(watch)
atexit.register(lambda: print("connects", connects))
atexit.register(lambda: print("imported", [name for name in ("wandb", "rerun") if name in sys.modules]))
"""
LIFE = """
from pathlib import Path
import numpy as np
from motorbabble.tracking import Tracking, TrackingConfig
from events import SPACE, a_step, a_study
picture = lambda step: np.full((40, 60, 3), 200, np.uint8)
config = TrackingConfig(2, 2, *{trackers})
with Tracking(Path("saved"), config, SPACE, settings=dict(learning_rate=0.5), title="dot", picture=picture) as tracking:
    for i in range(6):
        tracking(a_study(i + 1))
        tracking(a_step(i))
    tracking.flush()
for note in tracking.notes:
    print(note)
"""


def process(code: str, folder: Path, **environment: str) -> subprocess.CompletedProcess:
    """Run `code` in `folder`, with nobody at the keyboard and nothing of W&B in the environment but what is given."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WANDB") and name != "NETRC"}
    settings = {**clean, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "OMP_NUM_THREADS": "1", "HOME": str(folder), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=settings | environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done


def told(done: subprocess.CompletedProcess, what: str) -> str:
    return next(line.partition(" ")[2] for line in done.stdout.splitlines() if line.startswith(what))


def test_nobody_is_told_unless_asked(tmp_path):
    """A key in the environment is not a request."""
    done = process(WATCHED + LIFE.format(trackers=(None, None)), tmp_path, WANDB_API_KEY=CANARY)
    assert told(done, "imported") == "[]" and told(done, "connects") == "[]"
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["metrics.jsonl", "settings.json"]


# Weights & Biases


COMMAND = """
from motorbabble.cli import main
main("run toroidal_dot_latent --robot.image-size 32 --robot.dot-radius 2 --robot.move-pixels 5 --model.patch-size 8 --steps 6 --exam-steps 2 "
     "--no-record --wandb my-experiment --log-interval 3 --visualization-interval 3".split())
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    """`babble run ... --wandb my-experiment` without a key."""
    pytest.importorskip("wandb", reason="W&B was not tested; pip install motorbabble[wandb]")
    folder = tmp_path_factory.mktemp("offline")
    done = process(WATCHED + COMMAND, folder, COLUMNS="300")
    return folder / "saved" / "cards" / "toroidal_dot" / "toroidal_dot_latent-seed0", done


def test_without_a_key_it_stays_here_and_says_how_to_sync(offline):
    folder, done = offline
    (run,) = (folder / "wandb").glob("offline-run-*")
    place = run.relative_to(folder.parents[3])
    said = [line for line in done.stdout.splitlines() if "W&B" in line or "wandb" in line.replace("'wandb'", "")]
    assert said == [
        f"{said[0].partition(' All of it')[0]} All of it stays on this machine but for metrics and pictures, which go to W&B where it is online.",
        f"W&B works offline, in {place}; `wandb sync {place}` sends it.",
    ]
    assert done.stderr == "", "and nothing else"
    assert told(done, "connects") == "[]", "not even for the library's own statistics"


def test_the_librarys_own_statistics_would_have_been_noticed(tmp_path):
    """The broken variant: with them switched on, the process that is watched is seen to look for a server."""
    pytest.importorskip("wandb", reason="W&B was not tested; pip install motorbabble[wandb]")
    done = process(WATCHED + LIFE.format(trackers=("my-experiment", None)), tmp_path, WANDB_ERROR_REPORTING="true")
    assert "443" in told(done, "connects")


def test_what_was_logged_is_in_its_folder(offline):
    folder, _ = offline
    (run,) = (folder / "wandb").glob("offline-run-*")
    (kept,) = run.glob("*.wandb")
    data = kept.read_bytes()
    for name in (b"predictor_patch_loss", b"action_count/move", b"training_step", b"weight_decay", b"my-experiment", b"predictions_visualization"):
        assert name in data, name
    assert len(list((run / "files").rglob("*.png"))) == 2
    sent = {path.name for path in (run / "files").rglob("*") if path.is_file() and path.suffix != ".png"}
    assert not sent, "no list of packages, no code, no metadata"
    assert str(Path.home()).encode() not in data and os.uname().nodename.encode() not in data
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["selector"] == "uncertainty" and settings["robot.dot_radius"] == 2 and settings["seed"] == 0


def test_a_key_is_written_nowhere(tmp_path):
    pytest.importorskip("wandb", reason="W&B was not tested; pip install motorbabble[wandb]")
    done = process(LIFE.format(trackers=("my-experiment", None)), tmp_path, WANDB_API_KEY=CANARY[:40], WANDB_MODE="offline")
    assert CANARY[:20] not in done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    assert not [path for path in files if CANARY[:20].encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("environment", "netrc", "mode"),
    [
        ({}, "", "offline"),
        ({"WANDB_API_KEY": ""}, "", "offline"),
        ({"WANDB_API_KEY": CANARY}, "", "online"),
        ({"WANDB_API_KEY": CANARY, "WANDB_MODE": "offline"}, "", "offline"),
        ({"WANDB_API_KEY": CANARY, "WANDB_MODE": "dryrun"}, "", "offline"),
        ({"WANDB_MODE": "disabled"}, "", "disabled"),
        ({"WANDB_MODE": "online"}, "", "offline"),
        ({}, "machine wandb.example login user password x\n", "online"),
        ({}, "machine api.wandb.ai login user password x\n", "online"),
        ({"WANDB_BASE_URL": SERVER}, "machine api.wandb.ai login user password x\n", "offline"),
        ({}, "machine elsewhere.example login user password x\n", "offline"),
        ({}, "default login user password x\n", "offline"),
        ({}, "machine machine machine\n", "offline"),
    ],
)
def test_it_is_online_only_where_a_key_lies_ready(tmp_path, monkeypatch, environment, netrc, mode):
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("NETRC", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    if netrc:
        (tmp_path / ".netrc").write_text(netrc)
        (tmp_path / ".netrc").chmod(0o600)
    assert wanted_mode(SERVER) == mode


def test_where_it_cannot_be_reached_the_run_is_kept_offline(tmp_path, monkeypatch):
    """The library's own errors, without its server: it connects in its thread, and nobody waits for it."""
    wandb = pytest.importorskip("wandb", reason="W&B was not tested; pip install motorbabble[wandb]")
    asked, honest = [], wandb.init
    monkeypatch.setenv("WANDB_API_KEY", CANARY[:40])
    monkeypatch.setenv("WANDB_MODE", "online")

    def unreachable(**settings):
        asked.append((settings["mode"], threading.current_thread() is threading.main_thread()))
        if settings["mode"] == "online":
            raise wandb.errors.CommError("no such host")
        return honest(**{**settings, "mode": "disabled"})

    monkeypatch.setattr(wandb, "init", unreachable)
    with Tracking(tmp_path, TrackingConfig(log_interval=1, wandb="mine"), SPACE) as tracking:
        tracking(a_study(1))
        tracking.flush()
    assert asked == [("online", False), ("offline", False)]
    assert len(tracking.notes) == 1 and tracking.notes[0].startswith("W&B cannot be reached. W&B works offline")


@pytest.mark.parametrize("project", ["", "  ", "my/experiment", "what?", "50%", "a\nb", "x" * 129])
def test_a_name_that_is_none_is_refused_in_a_sentence(project, tmp_path):
    with pytest.raises(ConfigurationError, match="no name of a W&B project; give"):
        Tracking(tmp_path / "saved", TrackingConfig(wandb=project))
    assert not (tmp_path / "saved").exists()


@pytest.mark.parametrize(("library", "config"), [("wandb", TrackingConfig(wandb="mine")), ("rerun", TrackingConfig(rerun=Path("life.rrd")))])
def test_a_missing_library_is_named_with_its_extra(monkeypatch, library, config):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigurationError, match=rf"needs {library}.*pip install motorbabble\[{library}\]"):
        Tracking(None, config)


# Rerun


def test_rerun_writes_one_file_and_opens_no_port(tmp_path):
    pytest.importorskip("rerun")
    watched = WATCHED.replace('name == "socket.getaddrinfo"', 'name in ("socket.getaddrinfo", "socket.bind", "subprocess.Popen")')
    done = process(watched + LIFE.format(trackers='(None, Path("deep/life.rrd"))'), tmp_path)
    assert told(done, "connects") == "[]" and done.stderr == ""
    assert "Rerun writes deep/life.rrd; `rerun deep/life.rrd` opens it." in done.stdout
    assert [path.name for path in tmp_path.rglob("*.*") if path.is_file()].count("life.rrd") == 1


def test_what_rerun_was_told_can_be_read_back(tmp_path):
    chunk = pytest.importorskip("rerun.chunk")
    config = TrackingConfig(log_interval=2, visualization_interval=3, rerun=tmp_path / "life.rrd")
    for _ in range(2):
        with Tracking(None, config, SPACE, settings={"a": 1}, picture=lambda step: np.zeros((8, 8, 3), np.uint8)) as tracking:
            for i in range(6):
                tracking(a_study(i + 1))
                tracking(a_step(i))
    assert {path.name for path in tmp_path.iterdir()} == {"life.rrd", "life-2.rrd"}, "a recording is never written over"
    rows: dict[str, int] = {}
    for piece in chunk.RrdReader(tmp_path / "life.rrd").stream():
        rows[piece.entity_path] = rows.get(piece.entity_path, 0) + piece.num_rows
    assert rows["/metrics/predictor_patch_loss"] == 3 and rows["/metrics/gate"] == 3
    assert rows["/pictures/predictions_visualization"] == 2 and rows["/now"] == rows["/action"] == 5
    assert rows["/settings"] == 1


def test_flags_by_their_plain_names(tmp_path):
    from motorbabble.commands.flags import parse
    from motorbabble.commands.living import Replay
    from motorbabble.commands.train import Train
    from motorbabble.recipes import RECIPES

    flags = ["--wandb", "mine", "--rerun", "life.rrd", "--log-interval", "7", "--visualization-interval", "9"]
    for default in (RECIPES["toroidal_dot_latent"], Replay(), Train()):
        assert parse(default, flags, "babble").track == TrackingConfig(7, 9, "mine", Path("life.rrd"))
    assert RECIPES["mission"].track.log_interval == 100
