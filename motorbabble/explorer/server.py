"""The application: one page on this machine, behind a guard that knows who may ask.

Decisions: loopback unless told otherwise, and then only with a password. A page of another site that a person has open reaches
loopback too, so a foreign Host or Origin is refused before anything is done. Nothing is uploaded, no file is served but the page's own,
and the page may fetch nothing from elsewhere. Ctrl+C and a polite kill stop the robot first.
"""

import asyncio
import base64
import ipaddress
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from motorbabble.errors import ConfigurationError
from motorbabble.explorer.settings import ExplorerConfig, is_loopback
from motorbabble.explorer.workshop import Workshop

# What the page needs of Gradio's routes, by the first part of their path; the others let files in, answer with files, or call without the page.
OPEN = {"", "config", "theme.css", "assets", "static", "favicon.ico", "robots.txt", "stop", "moment"}
OPEN_TO_THE_PAGE = {"queue", "heartbeat", "startup-events", "reset", "cancel", "app_id"}  # below gradio_api
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'; base-uri 'self'; form-action 'self'"
Send = Callable[[dict], Awaitable[None]]


class Guard:
    """In front of the application: refuses before anything is done, and says why in a sentence."""

    def __init__(self, app: Any, config: ExplorerConfig):
        self.app, self.secret, self.local = app, config.secret, is_loopback(config.host)

    async def __call__(self, scope: dict, receive: Callable, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope, headers)
        if refusal is None:
            return await self.app(scope, receive, self._marked(send))
        if scope["type"] == "websocket":
            return await send({"type": "websocket.close", "code": 1008})
        status, words = refusal
        extra = [(b"www-authenticate", b'Basic realm="motorbabble", charset="UTF-8"')] if status == 401 else []
        body = words.encode()
        start = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode()), *extra]
        await send({"type": "http.response.start", "status": status, "headers": start})
        await send({"type": "http.response.body", "body": body})

    def _refusal(self, scope: dict, headers: dict[str, str]) -> tuple[int, str] | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            return 403, "This page answers only under this machine's own name or address; open it as it was printed when it started.\n"
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return 403, "Another page asked for this, and other pages may ask for nothing here.\n"
        if headers.get("sec-fetch-site") == "cross-site" and scope.get("method") != "GET":
            return 403, "Another page asked for this, and other pages may ask for nothing here.\n"
        if self.secret and not self._knows(headers.get("authorization", "")):
            return 401, "A password is needed.\n"
        first, *rest = [part for part in scope["path"].split("/") if part] or [""]
        is_open = rest[0] in OPEN_TO_THE_PAGE if first == "gradio_api" and rest else first in OPEN
        if not is_open or ".." in rest:
            return 403, "Nothing is uploaded here, and no files are served.\n"
        return None

    def _is_ours(self, host: str) -> bool:
        """Names that nobody else can point at this machine: its addresses, and, on loopback, localhost."""
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
        name = name.strip("[]")
        if self.local:
            return is_loopback(name)
        if name in ("localhost", socket.gethostname()):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _knows(self, authorization: str) -> bool:
        kind, _, told = authorization.partition(" ")
        try:
            _, _, password = base64.b64decode(told, validate=True).decode().partition(":") if kind.lower() == "basic" else ("", "", "")
        except ValueError:
            return False
        return secrets.compare_digest(password.encode(), self.secret.encode())

    @staticmethod
    def _marked(send: Send) -> Send:
        async def marked(message: dict) -> None:
            if message["type"] == "http.response.start":
                told = [(b"content-security-policy", POLICY.encode()), (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message.get("headers", []), *told]}
            await send(message)

        return marked


def application(config: ExplorerConfig, workshop: Workshop) -> Any:
    """The ASGI application, guard included."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # Else Gradio makes a table of its last 10,000 events after every single one, and forgets an event only if that went well.
    os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", str(10**12))
    os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
    os.environ.setdefault("GRADIO_TEMP_DIR", tempfile.mkdtemp(prefix="babble-explore-"))
    import gradio
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    from motorbabble.explorer.page import CSS, HEAD, build, theme
    from motorbabble.explorer.places import Places
    from motorbabble.explorer.sessions_tab import Browser

    browser = Browser(Places(config.sessions, config.checkpoints))
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def stop() -> PlainTextResponse:
        began = time.monotonic()
        workshop.stop()
        return PlainTextResponse(f"stopped in {1000 * (time.monotonic() - began):.0f} ms\n")

    def moment(session: str = "", moment: str = "") -> tuple[str, str]:
        return browser.shown(session, moment)

    # Beside the queue, so that neither stands behind anything that was asked for before.
    app.add_api_route("/stop", stop, methods=["POST"])
    app.add_api_route("/moment", moment, methods=["GET"])
    app = gradio.mount_gradio_app(
        app,
        build(config, workshop, browser),
        path="",
        server_name=config.host,
        server_port=config.port,
        footer_links=[],
        show_error=True,
        ssr_mode=False,
        enable_monitoring=False,
        pwa=False,
        theme=theme(),
        css=CSS,
        head=HEAD,
    )
    return Guard(app, config)


def serve(config: ExplorerConfig, say: Callable[[str], Any] = partial(print, flush=True)) -> None:
    """Until Ctrl+C. ConfigurationError where the address cannot be had, or the extra is missing."""
    listening = _bound(config)
    port = listening.getsockname()[1]
    try:
        import uvicorn
    except ImportError:
        listening.close()
        raise ConfigurationError("the explorer needs Gradio, which is not installed; install it with pip install 'motorbabble[explorer]'") from None
    say("The explorer is starting; this takes some seconds ...")
    workshop = Workshop()

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            workshop.stop()  # the robot first
            super().handle_exit(sig, frame)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await asyncio.to_thread(workshop.close)
            await super().shutdown(sockets)

    try:
        app = application(config, workshop)
        shown = f"[{config.host}]" if ":" in config.host else config.host
        url = f"http://{shown}:{port}/"
        who = "Only this machine can open it" if is_loopback(config.host) else "Other machines can open it, with the password"
        say(f"Open {url} in a browser. {who}; Ctrl+C ends it, the robot first.")
        if config.open:
            import webbrowser

            webbrowser.open(url)
        server = Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, access_log=False))
        server.run(sockets=[listening])
    finally:
        workshop.close()
        listening.close()


def _bound(config: ExplorerConfig) -> socket.socket:
    try:
        family = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family[0], socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(family[4])
        listening.listen(128)
    except (OSError, UnicodeError) as error:
        why = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"{config.host}, port {config.port}, cannot be listened on: {why}; give another --port (0: any that is free)"
        ) from None
    return listening
