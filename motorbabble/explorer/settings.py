"""What the explorer may be told: where it listens, who may come, which folders it shows."""

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from motorbabble.errors import ConfigurationError


@dataclass(frozen=True)
class ExplorerConfig:
    """The web explorer: watch a life, go through what was recorded, ask what if."""

    host: str = "127.0.0.1"  # only this machine; another address needs a password
    port: int = 7860  # 0: any that is free
    password: str = ""  # asked of everybody who opens the page; the environment variable BABBLE_PASSWORD does the same
    open: bool = False  # open the page in this machine's browser
    sessions: Path = Path("saved/sessions")  # what was recorded, a folder per robot type in it
    checkpoints: Path = Path("saved/checkpoints")  # what was learned, likewise
    cards: Path = Path("saved/cards")  # where cards go

    def __post_init__(self):
        if not 0 <= self.port <= 65535:
            raise ConfigurationError(f"port is {self.port}; give a number from 1 to 65535, or 0 for any that is free")
        if not is_loopback(self.host) and not self.secret:
            raise ConfigurationError(
                f"host {self.host} can be reached from other machines, and there is no password; set BABBLE_PASSWORD, or leave --host out"
            )

    @property
    def secret(self) -> str:
        return self.password or os.environ.get("BABBLE_PASSWORD", "")


def is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
