"""Who may ask the explorer, and what of: strangers change nothing, names lead nowhere, hostile files run nothing."""

import asyncio
import base64
import math
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import numpy as np
import pytest
from brief_lives import forged
from durability import event_of, recorded
from explorers import Page, Served, Visitor, settings_in
from test_hostile_checkpoints import HOSTILE_FILES, HOSTILE_MANIFESTS, UNPICKLED, replaced, sealed
from test_workshop import Counts

from motorbabble.errors import CheckpointError, ConfigurationError, MotorbabbleError, RecordingError
from motorbabble.explorer import places as places_module
from motorbabble.explorer.places import Places
from motorbabble.explorer.server import Guard
from motorbabble.explorer.sessions_tab import Browser
from motorbabble.explorer.settings import ExplorerConfig, is_loopback
from motorbabble.explorer.workshop import Busy
from motorbabble.learning.checkpoint import Checkpoints
from motorbabble.recording.reader import RecordingReader

CANARY, SECRET = "canary", "what-nobody-may-see-8d1f"  # the name of what lies outside, and what it says
STARTER = Path(places_module.__file__).parent / "starter"
MB = 2**20


# Where it listens


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.20", "example.org", "", "127.0.0.1.example.org", "localhost.example.org"])
def test_where_others_could_reach_it_there_is_a_password_or_no_explorer(host, monkeypatch):
    monkeypatch.delenv("BABBLE_PASSWORD", raising=False)
    with pytest.raises(ConfigurationError, match="there is no password"):
        ExplorerConfig(host=host)
    assert ExplorerConfig(host=host, password="a word").secret == "a word"
    monkeypatch.setenv("BABBLE_PASSWORD", "another")
    assert ExplorerConfig(host=host).secret == "another"


@pytest.mark.parametrize("host", ["127.0.0.1", "127.5.5.5", "localhost", "::1"])
def test_on_this_machine_alone_no_password_is_needed(host):
    assert is_loopback(host) and ExplorerConfig(host=host).host == host


def test_the_command_refuses_in_a_sentence(tmp_path):
    command = [sys.executable, "-m", "motorbabble", "explore", "--host", "0.0.0.0", "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if name != "BABBLE_PASSWORD"}
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=60)
    said = " ".join(ended.stderr.replace("│", " ").split())
    assert ended.returncode == 2 and "Traceback" not in said
    assert "host 0.0.0.0 can be reached from other machines, and there is no password; set BABBLE_PASSWORD" in said
    assert not list(tmp_path.iterdir())


# Who asks


def laid_out(folder: Path) -> Path:
    """Sessions and checkpoints of one's own, links out of them, and what lies outside."""
    ours, outside = folder / "ours", folder / "outside"
    recorded(ours / "sessions" / "counting", *(event_of(number) for number in range(4)))
    recorded(outside / "counting", *(event_of(number) for number in range(4)))
    shutil.copytree(STARTER / "checkpoints" / "toroidal_dot", ours / "checkpoints" / "toroidal_dot")
    shutil.copytree(STARTER / "checkpoints" / "toroidal_dot", outside / "toroidal_dot")
    (outside / "counting" / "life").rename(outside / "counting" / CANARY)
    (outside / "canary.txt").write_text(SECRET)
    (ours / "sessions" / "linked_kind").symlink_to(outside / "counting")
    (ours / "sessions" / "counting" / "linked").symlink_to(outside / "counting" / CANARY)
    (ours / "checkpoints" / "linked_kind").symlink_to(outside / "toroidal_dot")
    (ours / "checkpoints" / "toroidal_dot" / "linked").symlink_to(next((outside / "toroidal_dot").iterdir()))
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return laid_out(tmp_path_factory.mktemp("place"))


@pytest.fixture(scope="module")
def served(place) -> Iterator[Served]:
    with Served(settings_in(place / "ours")) as explorer:
        yield explorer


@pytest.fixture
def working(served) -> Iterator[Counts]:
    """Something that a stranger would like to stop."""
    job, late = Counts(), time.monotonic() + 10
    while served.workshop.job is not job:
        served.workshop.close()  # what strangers who were let in asked for may begin after the test that let them in
        try:
            served.workshop.start(job)
        except Busy:
            assert time.monotonic() < late
    assert job.is_working.wait(10)
    yield job
    served.workshop.close()


HOSTS = ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "192.168.1.9", "evil.example:{port}", "127.0.0.1@evil.example", "", "0"]
ORIGINS = ["null", "http://evil.example", "https://127.0.0.1", "http://127.0.0.1:1", "http://127.0.0.1:{port}.evil.example", "file://", "{port}"]


def strangers(port: int) -> Iterator[Visitor]:
    """By another name, from another page, or both."""
    hosts = [text.format(port=port) for text in HOSTS]
    origins = [text.format(port=port) for text in ORIGINS]
    yield from (Visitor(port, host) for host in hosts)
    yield from (Visitor(port, Origin=origin) for origin in origins)
    yield Visitor(port, Sec_Fetch_Site="cross-site")
    yield Visitor(port, hosts[0], Origin=f"http://{hosts[0]}")  # a name that was bent to lead here


def by_strangers(served: Served, working: Counts) -> tuple[int, int]:
    """How many of their requests were let in, and how many there were."""
    page = Page(served.port)
    join = {"data": ["stub", 5, 0, True, "", ""], "event_data": None, "fn_index": page.handler("start", "click")["id"], "session_hash": "stranger"}
    asked = [("/stop", None), ("/gradio_api/queue/join", join), ("/gradio_api/cancel", {"session_hash": "visitor", "fn_index": 0, "event_id": "x"})]
    answers = [stranger.post(path, body) for stranger in strangers(served.port) for path, body in asked]
    return sum(answer.status not in (400, 403) for answer in answers), len(answers)


def test_strangers_change_nothing(served, working):
    let_in, asked = by_strangers(served, working)
    assert asked >= 50 and let_in == 0
    assert not working.halted and served.workshop.status.state == "running" and served.workshop.job is working
    before = working.count
    time.sleep(0.05)
    assert working.count > before


def test_strangers_read_nothing(served):
    for host in HOSTS:
        for path in ("/config", "/moment?session=counting/life&moment=1"):
            answer = Visitor(served.port, host.format(port=served.port)).get(path)
            assert answer.status in (400, 403) and b"components" not in answer.body and b"<img" not in answer.body


def test_a_guard_that_lets_strangers_in_is_noticed(served, working, monkeypatch):
    """The broken variant: it looks at names and forgets who asks."""
    monkeypatch.setattr(Guard, "_is_ours", lambda guard, host: True)
    monkeypatch.setattr(Guard, "_refusal", lambda guard, scope, headers: None)
    let_in, _ = by_strangers(served, working)
    assert let_in and working.halted


def test_the_page_itself_and_scripts_without_a_page_may_ask(served, working):
    port = served.port
    assert Visitor(port).get("/").status == 200
    for visitor in (Visitor(port, f"localhost:{port}"), Visitor(port, Origin=f"http://127.0.0.1:{port}", Sec_Fetch_Site="same-origin")):
        assert visitor.post("/stop").status == 200
    assert working.halted


def test_every_answer_forbids_the_page_to_fetch_from_elsewhere(served):
    for path in ("/", "/config", "/theme.css"):
        head = Visitor(served.port).get(path).head.lower()
        assert "content-security-policy: default-src 'self'" in head and "frame-ancestors 'none'" in head and "nosniff" in head


# The password


def asked(config: ExplorerConfig, **headers: str) -> int:
    """The status a guard answers, or 200 where it passed the request on."""
    told: list[dict] = []

    async def inside(scope: dict, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: dict) -> None:
        told.append(message)

    named = {"host": "127.0.0.1:7860", **headers}
    wire = [(name.encode(), value.encode("utf-8", "surrogateescape")) for name, value in named.items()]
    scope = {"type": "http", "method": "POST", "path": "/stop", "headers": wire}
    asyncio.run(Guard(inside, config)(scope, None, send))  # type: ignore[arg-type]
    return told[0]["status"]


def basic(password: str, user: str = "x") -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.mark.parametrize("password", ["a word", "wört mit Straße ✓", "with:colons:", " ", "x" * 5000])
def test_who_knows_the_password_may_ask_and_nobody_else(password):
    config = ExplorerConfig(password=password)
    assert asked(config, authorization=basic(password)) == 200
    assert asked(config, authorization=basic(password, user="")) == 200
    wrong = ["", "x", password + "x", password[:-1], password.swapcase() + "!", password.encode("utf-16").decode("latin-1"), "\0", "é" * 100]
    for guess in wrong:
        assert asked(config, authorization=basic(guess)) == 401
    for header in (
        "",
        "Basic",
        "Basic ",
        "Basic !!!",
        "Basic w6k=w6k",
        "Bearer " + basic(password)[6:],
        "basic",
        "Basic " + "A" * 9999,
        "ü",
        "Basic \udcff",
    ):
        assert asked(config, authorization=header) == 401
    assert asked(config) == 401


def test_the_password_is_asked_for_before_anything_is_said(place):
    assert asked(ExplorerConfig(password="a word"), host="evil.example", authorization=basic("a word")) == 403
    beyond = ExplorerConfig(host="0.0.0.0", password="a word")
    assert asked(beyond, host="192.168.1.9:7860", authorization=basic("a word")) == 200
    assert asked(beyond, host="evil.example", authorization=basic("a word")) == 403
    assert asked(beyond, host="192.168.1.9:7860") == 401


# What is asked for


CLOSED = [
    *(
        "upload",
        "upload_progress?upload_id=x",
        "file=/etc/passwd",
        "file/etc/passwd",
        "proxy=http://127.0.0.1:1/x",
        "call/x",
        "api/x",
        "run/x",
        "info",
    ),
    *(
        "openapi.json",
        "component_server",
        "stream/x",
        "process_recording",
        "run-history/connect",
        "monitoring",
        "custom_component/x/client/component/y",
    ),
    *("deep_link", "login", "token", "user", "dev/reload", "vibe-code", "profiling/traces", "mcp/x", "pwa_icon", "logout"),
]


def test_nothing_is_uploaded_and_no_file_is_answered(served):
    for path in CLOSED:
        for method in ("GET", "POST", "PUT", "DELETE"):
            for root in ("/gradio_api/", "/"):
                assert Visitor(served.port).ask(method, root + path).status in (400, 403), (method, root + path)
    assert not list(Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*.*"))


# Names


def names(seed: int, place: Path) -> Iterator[str]:
    """Names of things outside, as people write them who want to get there."""
    draw = random.Random(seed)
    outside = str(place / "outside")
    aims = [
        f"counting/{CANARY}",
        "canary.txt",
        "toroidal_dot/dot-on-a-ring",
        "../outside/canary.txt",
        "linked",
        "linked_kind",
        CANARY,
        "life",
        ".",
        "",
    ]
    ways = [
        "../",
        "..",
        "..\\",
        "/",
        "//",
        "./",
        "~/",
        "\0",
        "%2e%2e/",
        "%2e%2e%2f",
        "..%2f",
        "..%5c",
        "%00",
        "..;/",
        "....//",
        "\u202e",
        "\u2066",
        "\uff0e\uff0e/",
    ]
    ways += [
        f"{outside}/",
        "C:\\",
        "file://",
        "\\\\host\\share\\",
        "counting/",
        "linked_kind/",
        "COUNTING/",
        "counting/../",
        "toroidal_dot/",
        "starter/",
        "../" * 30,
    ]
    ways += ["\ud800", "\n", "\r\n", " ", "a" * 4096, "́", "/proc/self/root/", "/dev/fd/0/", "counting/life/../linked/"]
    aimed = ["../../outside/", "counting/../../../outside/", f"{outside}/", "", "counting/", "linked_kind/", "linked_kind/../", "toroidal_dot/"]
    ends = ["", "", "/", "/..", "\0", "%00", " ", ".", ":0"]
    while True:
        if draw.random() < 0.3:
            yield draw.choice(aimed) + draw.choice(aims)
            continue
        name = "".join(draw.choices(ways, k=draw.randrange(0, 6))) + draw.choice(aims) + draw.choice(ends)
        yield draw.choice([str, str, str.upper, str.swapcase, lambda text: text[:4096].ljust(4096, "x")])(name)


REAL = {"counting/life", "toroidal_dot/dot-on-a-ring", "starter/dot-on-a-ring"}


def leaks(places: Places, place: Path, count: int) -> list[str]:
    """Names that led to anything but what is on the list."""
    found, generated = [], names(1, place)
    reader = RecordingReader(next((STARTER / "sessions" / "toroidal_dot").iterdir()))
    for _ in range(count):
        name = next(generated)
        for ask in (places.session, places.entry, places.checkpoint, lambda text: places.mind(text, reader)):
            try:
                ask(name)
            except (RecordingError, CheckpointError) as refusal:
                assert "\n" not in str(refusal) and len(str(refusal)) < 400
                assert SECRET not in str(refusal)
            else:
                if name not in REAL:
                    found.append(name)
    return found


def test_two_thousand_names_lead_nowhere(tmp_path):
    place = laid_out(tmp_path)
    ours = Places(place / "ours/sessions", place / "ours/checkpoints")
    assert not leaks(ours, place, 2000)
    assert {name for name, _ in ours.sessions()} == REAL - {"toroidal_dot/dot-on-a-ring"}
    assert set(ours.checkpoints()) == REAL - {"counting/life"}
    assert len(ours.session("counting/life")) == 4


def test_places_that_join_names_to_paths_are_noticed(tmp_path):
    place = laid_out(tmp_path)

    class Joining(Places):
        def session(self, session: str) -> RecordingReader:
            try:
                return RecordingReader(self.folder / session)
            except (ValueError, OSError, RecordingError):
                raise RecordingError("there is none") from None

    assert leaks(Joining(place / "ours/sessions", place / "ours/checkpoints"), place, 400)


def test_five_hundred_names_in_addresses_answer_nothing_of_the_disk(served, place):
    generated, roots = (
        names(2, place),
        ["/", "/assets/", "/static/", "/gradio_api/", "/gradio_api/queue/", "/file=", "/assets/%2e%2e/", "/theme.css/"],
    )
    known = {Visitor(served.port).get(path).body for path in ("/", "/theme.css", "/config")}
    for i in range(500):
        name = next(generated).encode("utf-8", "surrogatepass")
        raw = bytes(c for c in name if c > 32) or b"/"  # a space or line end would end the address
        answer = Visitor(served.port).get(roots[i % len(roots)].encode() + raw)
        assert SECRET.encode() not in answer.body and b"root:" not in answer.body, raw
        assert answer.status in (0, 400, 403, 404, 405, 414, 431) or answer.body in known or len(answer.body) < 200, (answer.status, raw)


def test_names_that_the_page_sends_lead_nowhere_either(served, place):
    """Through the queue, into the handlers of the tabs, as a page that was tampered with would send them."""
    page, generated = Page(served.port, "tampered"), names(3, place)
    strange: list[Any] = [None, [], {}, {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}, 5, True, -1e308, [[5]], "linked_kind/x"]
    for value in [*strange, *(next(generated).encode("utf-8", "replace").decode() for _ in range(40))]:
        for control, more in (("session", ["toroidal_dot/dot-on-a-ring"]), ("checkpoint", [])):
            given = [value, *more] if control == "session" else ["counting/life", value]
            try:
                told = str(page.call(control, "change", *given))
            except RuntimeError as refusal:
                told = str(refusal)
            assert "<img" not in told and SECRET not in told and "root:" not in told, value
    assert "<img" in str(page.call("session", "change", "counting/life", None))  # it still answers


def test_a_moment_beside_the_queue_is_the_one_on_the_list_or_a_sentence(served, place):
    def told(session: str, moment: object) -> list[str]:
        return Visitor(served.port).get("/moment?" + urlencode({"session": session, "moment": moment})).json()

    ours = Browser(Places(place / "ours/sessions", place / "ours/checkpoints"))
    assert [told("counting/life", moment) for moment in (1, 3)] == [list(ours.shown("counting/life", moment)) for moment in (1, 3)]
    assert told("counting/life", 1) != told("counting/life", 3) and "has no moment" in told("counting/life", 10**30)[0]
    generated = names(4, place)
    for name in (next(generated).encode("utf-8", "replace").decode() for _ in range(100)):
        picture, known = told(name, 1)
        assert (
            ("<img" in picture) == (name in REAL - {"toroidal_dot/dot-on-a-ring"})
            and SECRET not in picture + known
            and "root:" not in picture + known
        ), name
    assert "Traceback" not in Visitor(served.port).get("/moment").body.decode()


@pytest.mark.parametrize("moment", [-1, 10**30, 2.5, math.nan, math.inf, "2", "../1", None, [], {"path": "/etc/passwd"}, True, "1" * 5000])
def test_a_moment_that_cannot_be_is_a_sentence_or_another_moment(place, moment):
    picture, known = Browser(Places(place / "ours/sessions", place / "ours/checkpoints")).shown("counting/life", moment)
    assert isinstance(picture, str) and isinstance(known, str) and "root:" not in picture + known


# Hostile checkpoints


def peak() -> int:
    """Bytes this process has used at most since `forget_peak`."""
    told = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]
    return int(told) * 1024


def forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


@pytest.fixture
def hostile(tmp_path) -> tuple[Places, Path, RecordingReader]:
    """A checkpoint on the list that a stranger may change, and a session it would fit."""
    shutil.copytree(STARTER / "checkpoints", tmp_path / "checkpoints")
    reader = RecordingReader(next((STARTER / "sessions" / "toroidal_dot").iterdir()))
    return Places(tmp_path / "sessions", tmp_path / "checkpoints"), tmp_path / "checkpoints/toroidal_dot/dot-on-a-ring", reader


def refused(places: Places, reader: RecordingReader) -> None:
    """In a sentence, within 2 s and 200 MiB, without unpickling or running anything."""
    UNPICKLED.clear()
    measured = os.access("/proc/self/clear_refs", os.W_OK)
    if measured:
        forget_peak()
    before, began = peak() if measured else 0, time.process_time()
    with pytest.raises(MotorbabbleError) as refusal:
        places.mind("toroidal_dot/dot-on-a-ring", reader)
    assert time.process_time() - began < 2
    assert not measured or peak() - before < 200 * MB
    assert not UNPICKLED and not Path("exploded").exists()
    assert "\n" not in str(refusal.value) and 20 < len(str(refusal.value)) < 1500


@pytest.mark.parametrize("what", HOSTILE_FILES)
def test_hostile_weights_are_refused(what, hostile, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    places, folder, reader = hostile
    replaced(folder, "autoencoder.safetensors", HOSTILE_FILES[what](tmp_path))
    refused(places, reader)


@pytest.mark.parametrize("what", HOSTILE_MANIFESTS)
def test_hostile_manifests_are_refused(what, hostile):
    places, folder, reader = hostile
    sealed(Checkpoints(folder).path(Checkpoints(folder).generations()[0]), HOSTILE_MANIFESTS[what])
    refused(places, reader)


HOSTILE_STATES = {
    "nothing": {},
    "a million levels": {"levels": {"records": [0] * 10**6}},
    "levels in a number": {"levels": 5},
    "levels in a word": {"levels": {"records": "many"}},
    "levels without records": {"levels": {}},
}


@pytest.mark.parametrize("what", HOSTILE_STATES)
def test_a_hostile_state_is_refused_or_does_no_harm(what, hostile):
    places, folder, reader = hostile
    forged(folder, lambda tensors, told: (told.clear(), told.update(HOSTILE_STATES[what])))
    if what != "nothing":
        refused(places, reader)
    else:
        assert np.isfinite(next(places.mind("toroidal_dot/dot-on-a-ring", reader).parameters()).numpy()).all()
