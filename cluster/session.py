"""Connecting to Ray: a cluster's head, or a small Ray of our own on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import ray

from pipeline.errors import UserError

_TREE = Path(__file__).parents[1]
_LEFT_BEHIND = [".venv", ".git", "demo", "**/__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis"]


@contextlib.contextmanager
def connected(*, workers: int, address: str | None = None) -> Iterator[None]:
    """A Ray session for the length of the block; one that is there already is used and left alone.

    `address` is a cluster's (`auto`, `host:6379`, `ray://host:10001`): it gets the tree as its working directory.
    Without one, Ray starts on this machine, on loopback only, with a slot per worker.

    Raises:
        UserError: nothing answers at the address.
    """
    if ray.is_initialized():
        yield
        return
    _start(workers, address)
    try:
        yield
    finally:
        ray.shutdown()


def _start(workers: int, address: str | None) -> None:
    if address is None:
        ray.init(
            address="local",
            num_cpus=max(workers, os.cpu_count() or 1),
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            _node_ip_address="127.0.0.1",
        )
        return
    try:
        environment = {"working_dir": str(_TREE), "excludes": _LEFT_BEHIND}
        ray.init(address=address, runtime_env=environment, log_to_driver=False, logging_level=logging.WARNING)
    except ConnectionError as error:
        raise UserError(f"no Ray cluster answers at {address!r}: start one, or leave --ray-address out") from error
