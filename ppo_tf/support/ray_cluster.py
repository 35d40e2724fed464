"""The connection to a Ray cluster. Needs no TensorFlow."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

from ppo_tf.support.extras import needs


def connect(address: str, cpus: float = 1.0) -> Any:
    """Connects this process to a Ray cluster, if it is not connected yet; returns the module ray.

    Args:
        address: "local" for a new cluster of this machine alone, which ends with this process;
            "auto" for the one that runs here or that RAY_ADDRESS names; or HOST:PORT.
        cpus: that are to be used, which a local cluster has at least, in Ray's accounting.

    Raises:
        ImportError: the extra "ray" is not installed.
        ConnectionError: there is no cluster at the address.
    """
    with _signal_handlers_kept():  # Ray's own would end a run without its checkpoint
        try:
            import ray
        except ImportError as error:
            raise ImportError(needs(f"ray_address={address!r}", "ray")) from error
        if ray.is_initialized():
            return ray
        options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
        if address == "local":
            count = max(os.cpu_count() or 1, int(-(-cpus // 1)))
            options |= {"num_cpus": count, "include_dashboard": False}
        try:
            with _environment(
                RAY_USAGE_STATS_ENABLED="0",
                RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
            ):
                ray.init(address, **options)
        except Exception as error:
            what = " ".join(str(error).split()) or type(error).__name__
            raise ConnectionError(
                f"no Ray cluster answers. Received: ray_address={address!r} ({what[:200]})"
            ) from None
        # Ray prints a paragraph for each actor that is killed, which has no setting; a line about
        # it is printed by who replaces the actor.
        ray._private.worker._worker_logs_enabled = False
    return ray


@contextlib.contextmanager
def _signal_handlers_kept() -> Iterator[None]:
    """Context after which signals have the handlers that they had before."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # they can't be changed from here
    before = {number: signal.getsignal(number) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Context with environment variables, where the user has not set them."""
    new = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(new)
    try:
        yield
    finally:
        for name in new:
            del os.environ[name]
