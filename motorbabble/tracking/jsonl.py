"""The record that is always there: one line of JSON for each entry, flushed at once, and the settings beside it.

A number that is not finite is null. A life that goes on appends: what it learns again was logged already, and is left out.
"""

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any, Self, TextIO

from motorbabble.tracking.metrics import Entry


class JsonlTracker:
    """Metrics in `path`; `settings`, where there are any, in settings.json beside it."""

    def __init__(self, path: str | Path, goes_on: bool = False, settings: dict[str, Any] | None = None):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if settings is not None:
            self.path.with_name("settings.json").write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        before = self.path.read_text(encoding="utf-8", errors="replace") if goes_on and self.path.exists() else ""
        self._known = _last_update(before)
        self._file: TextIO = self.path.open("a" if goes_on else "w", encoding="utf-8")
        if before and not before.endswith("\n"):
            self._file.write("\n")  # a torn last line must not swallow the next one

    def log(self, entry: Entry) -> None:
        if entry.update <= self._known:
            return
        finite = {name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in entry.values.items()}
        self._file.write(json.dumps(finite, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()


def _last_update(text: str) -> int:
    """The newest update in lines of metrics; 0 when there is none. A torn last line does not count."""
    newest = 0
    for line in text.splitlines():
        with suppress(ValueError, KeyError, TypeError):
            newest = max(newest, json.loads(line)["training_step"])
    return newest
