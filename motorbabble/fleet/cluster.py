"""Ray, private and quiet: where the fleet's actors run.

Decisions: a cluster that we start ourselves listens on the loopback only, wants a token that nobody else has, reports nothing to anybody, has
no dashboard, and keeps its files in a folder that goes with it. One that is there already was set up by somebody, and stays as it is.
"""

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from motorbabble.errors import ConfigurationError
from motorbabble.exchange.extras import extra

STORE = 512 * 2**20  # bytes of shared memory for weights and frames under way


@contextmanager
def cluster(address: str | None = None, cpus: int | None = None) -> Iterator[Any]:
    """The module ray, connected: to the cluster that this program has already, to the one at `address`, or else to one of this machine's own.

    That one has so many `cpus` (None: all there are), and ends with the block. ConfigurationError where there is none.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = extra("ray", "fleet")
    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        try:
            if address is None:
                _keep_to_itself()
                quiet |= {"include_dashboard": False, "_node_ip_address": "127.0.0.1", "_temp_dir": folder}
                ray.init("local", num_cpus=cpus or os.cpu_count(), object_store_memory=STORE, **quiet)
            else:
                ray.init(address, **quiet)
        except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
            told = " ".join(str(error).split())
            raise ConfigurationError(f"Ray cannot be had at {address or 'this machine'} ({told:.300}); look at its address and version") from error
        try:
            yield ray
        finally:
            ray.shutdown()


def _keep_to_itself() -> None:
    """Ray read its environment when it was imported; and it takes 127.0.0.1 for the address by which others reach this machine,
    but where its clusters of several machines are off, as on a Mac.
    """
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    extra("ray._raylet", "fleet").Config.initialize("")
    extra("ray._private.ray_constants", "fleet").ENABLE_RAY_CLUSTER = False
