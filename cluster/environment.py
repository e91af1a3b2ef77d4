"""The environment that a Ray of our own starts with. Ray reads it when it is imported, so this module does not."""

from __future__ import annotations

import os
import secrets
import sys


def stay_on_loopback() -> None:
    """Make a Ray on this machine listen on loopback only, behind a token of its own. Call before importing Ray.

    Raises:
        RuntimeError: Ray has been imported already.
    """
    if "RAY_AUTH_TOKEN" in os.environ and os.environ.get(_LOOPBACK) == "0":
        return
    if "ray" in sys.modules:
        raise RuntimeError("stay_on_loopback comes before the first import of ray")
    os.environ[_LOOPBACK] = "0"
    os.environ.setdefault("RAY_AUTH_MODE", "token")
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


# Despite its name it decides, on Linux too, whether the machine's own address is looked up or loopback taken for it.
_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
