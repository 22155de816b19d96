"""The explorer as its visitors meet it: a real server on a free port, asked over real sockets.

`Served` runs it in this process, where a test can look at its workshop; `Program` is `babble explore` as a process of its own. Both note
every connection that does not stay on this machine. `Visitor` talks to it as the page does, without a browser.
"""

import asyncio
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from motorbabble.explorer.server import _bound, application
from motorbabble.explorer.settings import ExplorerConfig
from motorbabble.explorer.workshop import Workshop

ROOT = Path(__file__).parent.parent
LEFT: list[str] = []  # addresses off this machine that this process connected to, or asked the way to
PATIENCE = 60.0  # seconds that a slow machine may take


def leaves(event: str, arguments: Sequence[Any]) -> str | None:
    """Where a socket is about to go, if that is not on this machine."""
    if event == "socket.connect" and isinstance(arguments[1], tuple):
        host = arguments[1][0]
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return None
    name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    with suppress(ValueError):
        return None if ipaddress.ip_address(name).is_loopback or name in ("0.0.0.0", "::") else name
    return None if name == "localhost" else name


def watch_connections() -> None:
    sys.addaudithook(lambda event, arguments: LEFT.append(away) if (away := leaves(event, arguments)) else None)


def settings_in(folder: Path, **more: Any) -> ExplorerConfig:
    return ExplorerConfig(port=0, sessions=folder / "sessions", checkpoints=folder / "checkpoints", cards=folder / "cards", **more)


class Served:
    """The application in a thread. Its `workshop` is the one the page sees."""

    def __init__(self, config: ExplorerConfig):
        import uvicorn

        self.workshop = Workshop()
        listening = _bound(config)
        self.port = listening.getsockname()[1]

        async def built() -> Any:  # where no event loop runs, Gradio makes one for each of its locks, and never closes them
            return application(config, self.workshop)

        app = asyncio.run(built())
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listening]}, daemon=True)

    def __enter__(self) -> "Served":
        self._thread.start()
        late = time.monotonic() + PATIENCE
        while not self._server.started:
            assert time.monotonic() < late, "it never started"
            time.sleep(0.01)
        return self

    def __exit__(self, *_) -> None:
        self.workshop.close()
        self._server.should_exit = True
        self._thread.join(PATIENCE)


class Program:
    """`babble explore` in a process of its own; `left` are the addresses off this machine that it went to. Ctrl+C ends it."""

    CODE = """
import sys
sys.path.insert(0, {tests!r})
import explorers
explorers.watch_connections()
import atexit
atexit.register(lambda: open({report!r}, "w").write("\\n".join(explorers.LEFT)))
from motorbabble.cli import main
sys.argv = ["babble", "explore", *sys.argv[1:]]
main()
"""

    def __init__(self, folder: Path, *flags: str, env: dict[str, str] | None = None):
        self.folder, self.report = folder, folder / "left.txt"
        where = [f"--{name}={folder / name}" for name in ("sessions", "checkpoints", "cards")]
        code = self.CODE.format(tests=str(ROOT / "tests"), report=str(self.report))
        self.began = time.monotonic()
        with (folder / "stderr.txt").open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", code, "--port=0", *where, *flags],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=folder,
                env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
            )
        self.port = 0

    def __enter__(self) -> "Program":
        assert self.process.stdout
        late = threading.Timer(2 * PATIENCE, self.process.kill)  # one that never says where it is
        late.start()
        for line in self.process.stdout:
            if "http://" in line:
                self.port = int(line.split("http://")[1].split("/")[0].rpartition(":")[2])
                break
        late.cancel()
        assert self.port, (self.folder / "stderr.txt").read_text()
        self._hearing = threading.Thread(target=self.process.stdout.read, daemon=True)  # whatever else it says must not block it
        self._hearing.start()
        late = time.monotonic() + PATIENCE
        while True:  # the address is printed before the first request can be answered
            with suppress(OSError):
                Visitor(self.port).get("/config")
                return self
            assert time.monotonic() < late, "it never answered"
            time.sleep(0.05)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def resident(self) -> int:
        """Bytes of memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def end(self) -> int:
        """Ctrl+C; answers its exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(PATIENCE)

    @property
    def left(self) -> list[str]:
        """After its end."""
        return [line for line in self.report.read_text().splitlines() if line]

    def __exit__(self, *_) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)
        self._hearing.join(PATIENCE)
        assert self.process.stdout
        self.process.stdout.close()


class Answer:
    def __init__(self, raw: bytes):
        head, _, self.body = raw.partition(b"\r\n\r\n")
        self.status = int(head.split()[1]) if head.startswith(b"HTTP/") else 0
        self.head, self.raw = head.decode("latin-1"), raw

    def json(self) -> Any:
        return json.loads(self.body)


class Visitor:
    """Asks as a browser would, or as none would. `host` and `headers` as they go over the wire."""

    def __init__(self, port: int, host: str | None = None, **headers: str):
        self.port, self.host, self.headers = port, host if host is not None else f"127.0.0.1:{port}", headers

    def ask(self, method: str, path: str | bytes, body: Any = None, seconds: float = PATIENCE) -> Answer:
        """One request on a connection of its own; `path` is sent as it is."""
        data = b"" if body is None else json.dumps(body).encode()
        named = {"Host": self.host, "Connection": "close", "Content-Type": "application/json", **self.headers}
        if method == "POST":
            named["Content-Length"] = str(len(data))
        told = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items())
        line = method.encode() + b" " + (path.encode() if isinstance(path, str) else path) + b" HTTP/1.1\r\n"
        with socket.create_connection(("127.0.0.1", self.port), seconds) as wire:
            wire.sendall(line + told.encode("utf-8", "surrogateescape") + b"\r\n" + data)
            parts = []
            with suppress(ConnectionResetError):
                while part := wire.recv(65536):
                    parts.append(part)
        return Answer(b"".join(parts))

    def get(self, path: str | bytes) -> Answer:
        return self.ask("GET", path)

    def post(self, path: str, body: Any = None) -> Answer:
        return self.ask("POST", path, body)


class Page(Visitor):
    """One open page, without a browser: it knows which handler belongs to which control, and calls it through the queue."""

    def __init__(self, port: int, session: str = "visitor", **headers: str):
        super().__init__(port, **headers)
        self.session = session
        config = self.get("/config").json()
        self.parts = {part["id"]: part["props"] for part in config["components"]}
        self.handlers = config["dependencies"]

    def named(self, name: str) -> int:
        """The number of the control with this elem_id or label."""
        for number, props in self.parts.items():
            if name in (props.get("elem_id"), props.get("label")):
                return number
        raise KeyError(name)

    def handler(self, control: str, event: str) -> dict:
        number = self.named(control)
        return next(one for one in self.handlers if [number, event] in [list(target) for target in one["targets"]])

    def call(self, control: str, event: str, *data: Any) -> list[Any]:
        """What the handler of a control answers, when it was given `data`; what it also wants to know is nothing."""
        handler = self.handler(control, event)
        return self.run(handler["id"], [*data, *[None] * (len(handler["inputs"]) - len(data))])

    def run(self, handler: int, data: list[Any]) -> list[Any]:
        asked = {"data": data, "event_data": None, "fn_index": handler, "trigger_id": None, "session_hash": self.session}
        joined = self.post("/gradio_api/queue/join", asked)
        if joined.status != 200:
            raise PermissionError(f"{joined.status} {joined.body!r:.200}")
        event = joined.json()["event_id"]
        for line in self.get(f"/gradio_api/queue/data?session_hash={self.session}").body.split(b"\n"):
            if line.startswith(b"data:") and b"process_completed" in line:
                told = json.loads(line[5:])
                if told["event_id"] == event:
                    if not told["success"]:
                        raise RuntimeError(str(told["output"])[:500])
                    return told["output"]["data"]
        raise AssertionError("the queue never answered")
