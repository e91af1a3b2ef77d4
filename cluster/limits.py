"""The request budgets of a whole cluster: one named actor that grants every permit, to every job.

The actor is detached: it outlives the job that started it, and Ray begins it anew where it died, with empty buckets
(pipeline.limits tells why no hour is over the ceiling even so). It keeps no rates: each job sends its own with each
question, so two jobs that differ are each served at their own pace, under the same ceiling and the same pauses.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError

import pipeline.limits
from pipeline.errors import UserError
from pipeline.limits import MAX_PAUSE_SECONDS, Buckets, Rate, rate_of, state_folder

logger = logging.getLogger(__name__)

_NAME = "request-budgets"
_NAMESPACE = "noisyactions"
_IDLE_SECONDS = MAX_PAUSE_SECONDS + 300.0
"""An actor that nobody asked for so long serves no job: workers that are told to wait ask again after a pause."""

_ATTEMPTS = 20


class _Office:
    """The actor. `about` stays as it is in all versions."""

    def __init__(self) -> None:
        self._version = _version()
        self._buckets = Buckets(folder=state_folder())  # a Ray of one machine shares with the other processes there
        self._asked = time.monotonic()

    def about(self) -> tuple[str, float]:
        """The version of its code, and the seconds since somebody asked for a permit."""
        return self._version, time.monotonic() - self._asked

    def take(self, name: str, rate: Rate) -> float:
        """See pipeline.limits.Permits.reserve."""
        self._asked = time.monotonic()
        return self._buckets.take(name, rate)

    def pause(self, name: str, rate: Rate, seconds: float, slower: bool) -> None:
        """See pipeline.limits.Permits.throttled."""
        self._buckets.pause(name, rate, seconds, slower=slower)


@dataclass(frozen=True, slots=True)
class ClusterPermits:
    """pipeline.limits.Permits asked of the actor, one round trip each; picklable, one for all workers."""

    actor: Any
    rates: Mapping[str, Rate]
    default: Rate

    def reserve(self, name: str) -> float:
        """See pipeline.limits.Permits. The wait counts from the answer, so a slow answer only waits longer."""
        seconds: float = ray.get(self.actor.take.remote(name, rate_of(name, self.rates, self.default)))
        return seconds

    def throttled(self, name: str, seconds: float, *, slower: bool = True) -> None:
        """See pipeline.limits.Permits."""
        ray.get(self.actor.pause.remote(name, rate_of(name, self.rates, self.default), seconds, slower))


def start_permits(rates: Mapping[str, Rate], *, default: Rate) -> ClusterPermits:
    """The cluster's budgets at this job's rates; the actor is started by whichever job comes first.

    Raises:
        UserError: a job of another version of the tree is using the budgets.
    """
    for _ in range(_ATTEMPTS):
        office: Any = ray.remote(_Office).options(
            name=_NAME, namespace=_NAMESPACE, get_if_exists=True, lifetime="detached",
            num_cpus=0, max_restarts=-1, max_task_retries=-1,
        ).remote()  # fmt: skip
        try:
            version, idle = ray.get(office.about.remote())
        except RayActorError:  # ended by another job that started now and replaces it, too
            time.sleep(0.5)
            continue
        if version == _version():
            return ClusterPermits(office, dict(rates), default)
        if idle < _IDLE_SECONDS:
            raise UserError(
                f"another version of this tree used the cluster's request budgets {idle:.0f} s ago: end its jobs, or "
                f"run this tree's version of them; once unused for {_IDLE_SECONDS / 60:.0f} minutes they are replaced"
            )
        logger.info("the cluster's request budgets are of another version and unused: replaced")
        ray.kill(office, no_restart=True)
    raise UserError("the cluster's request budgets cannot be started: look at `ray status`, then run this again")


def _version() -> str:
    """Of the code that grants: two that differ must not grant side by side."""
    sources = (Path(__file__), Path(pipeline.limits.__file__))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]
