"""`babble sessions`, as a person uses it: what it prints, what it changes, and how it says no."""

import re
from pathlib import Path

import numpy as np
import pytest
from counting import Counting
from quota_machine import Quick, crash, step
from rich.console import Console

from motorbabble.cli import main
from motorbabble.commands import sessions as command
from motorbabble.commands.sessions import _COMMANDS, _picture, sessions
from motorbabble.recording.format import Continues
from motorbabble.recording.reader import RecordingReader
from motorbabble.recording.shelf import Shelf, duration, find_session
from motorbabble.recording.writer import RecordingWriter


def begin(root: Path, name: str, steps: int = 3, **settings) -> RecordingWriter:
    writer = RecordingWriter.create(root / "counting", "counting", Counting().action_space, name=name, disk=Quick(), sync_seconds=3600, **settings)
    for number in range(steps):
        writer.record(step(number))
    return writer


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Three sessions: `first` is closed and pinned, `second` was cut short, `third` is closed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")
    root = tmp_path / "saved" / "sessions"
    about = {"recipe": "stub", "settings": {"model": {"preset": "tiny"}}}
    begin(root, "first", about=about, continues=Continues("zeroth", 7, True)).close()
    crash(begin(root, "second"))
    begin(root, "third", 4).close()
    Shelf(root / "counting", Quick()).pin("first", "checkpoint-stub", "saved/checkpoints/stub")
    return root


def said(capsys, *words: str, code: int = 0) -> str:
    """What `babble sessions words` prints; it must end with this exit code."""
    ended = 0
    try:
        main(["sessions", *words])
    except SystemExit as end:
        ended = end.code
    out, err = capsys.readouterr()
    assert ended == code, out + err
    assert "Traceback" not in err
    return (out + err).strip()


# What it shows


def test_the_list_tells_what_is_there(root, capsys):
    lines = said(capsys, "list").splitlines()
    assert re.fullmatch(r"counting  3 sessions, [\d.]+ kB of 10 GB \(0%\)", lines[0].strip())
    rows = [re.split(r"\s{2,}", line.strip()) for line in lines[2:]]
    assert [row[:3] for row in rows] == [["first", "closed", "3"], ["second", "cut short", "3"], ["third", "closed", "4"]]
    assert rows[0][-1] == "checkpoint-stub" and len(rows[1]) == 5
    assert said(capsys, "list", "--robot", "counting") == "\n".join(lines).strip()
    assert "(25%)" in said(capsys, "list", "--max-gb", str(Shelf(root / "counting").usage() * 4 / 1e9))


def test_the_list_shows_what_cannot_be_read(root, capsys):
    for path in (root / "counting" / "third").iterdir():
        path.write_bytes(b"\0")
    with begin(root, "fourth"):
        text = said(capsys, "list")
    assert re.search(r"third +unreadable", text) and re.search(r"fourth +live +3", text)
    assert "third: " in text.splitlines()[-1], "and says why"


def test_an_empty_shelf_says_how_to_fill_it(tmp_path, capsys):
    assert "babble run" in said(capsys, "list", "--sessions", str(tmp_path / "none"))


def test_a_session_is_shown(root, capsys):
    facts = dict(re.split(r"\s{2,}", line.strip(), maxsplit=1) for line in said(capsys, "show", "first").splitlines())
    assert facts["session"] == "first" and facts["robot"] == "counting, can one, two" and facts["state"] == "closed"
    assert facts["continues"] == "zeroth, from step 7" and facts["pinned by checkpoint-stub"] == "saved/checkpoints/stub"
    assert facts["recipe"] == "stub" and facts["settings.model.preset"] == "tiny"
    assert facts["executed"] == "one 2 (67%), two 1 (33%)"
    assert facts["holds"].startswith("3 moments in ")
    assert "third" in said(capsys, "show", "latest") and "second" in said(capsys, "show", "counting/second")


def test_frames_are_shown_in_the_terminal(root):
    console = Console(record=True, force_terminal=True, color_system="truecolor", width=100, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        command._show_frames(console, RecordingReader(find_session("first", root)), side=8)
        text = console.export_text()
    assert "moment 0" in text and "moment 2" in text and text.count("▀") == 2 * 4 * 8


def test_a_picture_keeps_its_colours():
    image = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [1, 2, 3]], [[9, 9, 9], [8, 8, 8]]], np.uint8)
    styles = [str(span.style) for span in _picture(image).spans]
    assert styles[:2] == ["rgb(255,0,0) on rgb(0,0,255)", "rgb(0,255,0) on rgb(1,2,3)"]
    assert len(styles) == 4, "a last row without another below it is shown too"


@pytest.mark.parametrize(("seconds", "text"), [(None, ""), (-1, ""), (3.21, "3.2 s"), (59.99, "60.0 s"), (245, "4:05"), (3723, "1:02:03")])
def test_times_are_short(seconds, text):
    assert duration(seconds) == text


# Checks


def test_a_check_has_three_outcomes(root, capsys):
    assert "Intact: 4 moments" in said(capsys, "check", "third")
    pack = root / "counting" / "third" / "frames_shard_000.pack"
    pack.write_bytes(pack.read_bytes()[:-10])
    assert "1 of 4 moments damaged and skipped by readers: 3." in said(capsys, "check", "third", code=5)
    pack.write_bytes(b"")
    assert "4 of 4 moments damaged" in said(capsys, "check", "third", code=1)
    (root / "counting" / "third" / "events_shard_000.jsonl").write_bytes(b"")
    (root / "counting" / "third" / "session_meta.json").write_bytes(b"")
    assert "holds nothing" in said(capsys, "check", "third", code=1)


def test_a_repair_cuts_what_is_torn_and_nothing_else(root, capsys):
    lines = root / "counting" / "second" / "events_shard_000.jsonl"
    whole = lines.read_bytes()
    lines.write_bytes(whole + b'{"moment":')
    assert "10 bytes at the end never finished" in said(capsys, "check", "second")
    text = said(capsys, "check", "second", "--repair")
    assert "Repaired: 3 moments are left; what was torn is cut off." in text and "Intact: 3 moments" in text and "recovered" in text
    assert lines.read_bytes() == whole
    with begin(root, "fourth"):
        assert "being recorded" in said(capsys, "check", "fourth", "--repair", code=1)


# What it changes


def test_pins_are_made_and_taken_away(root, capsys):
    assert "third is pinned by person" in said(capsys, "pin", "third", "--why", "the best one")
    assert Shelf(root / "counting").find("third").pins == {"person": "the best one"}
    assert "third is no longer pinned" in said(capsys, "unpin", "third")
    said(capsys, "pin", "first")
    assert "still pinned by checkpoint-stub" in said(capsys, "unpin", "first")
    assert "not pinned by person (its pins: checkpoint-stub)" in said(capsys, "unpin", "first", code=1)


def test_pruning_says_what_goes_and_what_stays(root, capsys):
    tiny = "0.000000001"
    dry = said(capsys, "prune", "--dry-run", "--max-gb", tiny)
    assert re.search(r"counting/second +\S+ kB +would go", dry) and "counting/third" in dry
    assert "first stays: it is pinned by checkpoint-stub" in dry
    assert len(Shelf(root / "counting").list()) == 3
    assert "nothing" not in said(capsys, "prune")  # 10 GB are enough
    assert len(Shelf(root / "counting").list()) == 3
    assert "removed" in said(capsys, "prune", "--max-gb", tiny)
    assert [entry.name for entry in Shelf(root / "counting").list()] == ["first"]


def test_exports_and_imports_go_through(root, capsys, tmp_path):
    assert "Exported 2 sessions to" in said(capsys, "export", "first", "counting/third", "--to", "png", "--out", str(tmp_path / "pictures"))
    assert list((tmp_path / "pictures").rglob("*.png"))
    (tmp_path / "stranger").mkdir()
    assert "stranger" in said(capsys, "import", str(tmp_path / "stranger"), code=1)
    assert "stranger" in said(capsys, "import", str(tmp_path / "stranger"), "--format", "original", code=1)


def test_an_import_knows_a_dataset_by_its_info(root, capsys, tmp_path, monkeypatch):
    from motorbabble.exchange import imports

    heard = []
    monkeypatch.setattr(imports, "import_lerobot", lambda *given: heard.append(("lerobot", *given)) or ["a", "b"])
    monkeypatch.setattr(imports, "import_original", lambda *given: heard.append(("original", *given)) or "c")
    (tmp_path / "dataset" / "meta").mkdir(parents=True)
    (tmp_path / "dataset" / "meta" / "info.json").write_text("{}")
    text = said(capsys, "import", "dataset", "--camera", "front")
    assert "Imported a" in text and "Imported b" in text
    said(capsys, "import", "dataset", "--format", "original", "--robot", "bird")
    assert heard == [
        ("lerobot", Path("dataset"), Path("saved/sessions"), "front"),
        ("original", Path("dataset"), Path("saved/sessions"), "bird"),
    ]


# Mistakes


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["fly"], 2, "choose one of list, show, check"),
        (["show"], 2, "SESSION"),
        (["show", "thirt"], 1, "did you mean"),
        (["show", "../../first"], 1, "no session"),
        (["check", "nothing-like-it"], 1, "babble sessions list"),
        (["pin", "first", "--owner", "../x"], 1, "cannot own a pin"),
        (["list", "--robot", "bird"], 1, "counting"),
        (["prune", "--max-gb", "0"], 2, "--no-record"),
        (["prune", "--max-gb", "nan"], 2, "--no-record"),
        (["prune", "--max-gb", "-3"], 2, "--no-record"),
        (["prune", "--max-gb", "10GB"], 2, "10GB"),
        (["export", "--to", "png", "--out", "x"], 2, "needs a session"),
        (["export", "first", "--to", "avi", "--out", "x"], 2, "avi"),
        (["export", "first", "--to", "png"], 2, "--out"),
        (["import", "nowhere"], 1, "no folder nowhere"),
        (["import", ".", "--robot", "../up"], 1, "no session name"),
    ],
)
def test_mistakes_end_in_a_sentence(root, capsys, words, code, says):
    text = said(capsys, *words, code=code)
    assert says in text or (says == "SESSION" and "Missing" in text)
    if text.startswith("babble: "):
        assert "\n" not in text


def test_a_shelf_that_cannot_be_written_is_said_in_a_sentence(root, capsys, monkeypatch):
    def denied(*given, **named):
        raise PermissionError(13, "Permission denied", str(root))

    monkeypatch.setattr(Shelf, "pin", denied)
    assert f"{root} cannot be used: Permission denied" in said(capsys, "pin", "third", code=1)


def test_help_names_every_command(capsys):
    text = said(capsys)
    assert all(f"babble sessions {word}" in text for word in _COMMANDS) and text == said(capsys, "--help")
    assert sessions.__doc__ and "\n" not in sessions.__doc__.strip()
    for word in _COMMANDS:
        assert "--sessions" in said(capsys, word, "--help")
