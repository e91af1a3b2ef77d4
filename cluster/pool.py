"""Supervised Ray actors over units: a death costs its unit a retry, one that fails too often is set aside.

The driver holds the queue and hands out one unit at a time; all that matters is in the commits that the workers write.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from pipeline.errors import UserError
from pipeline.limits import Permits
from pipeline.units import MAX_ATTEMPTS, Finished, MakeWorker, SetAside, Unit, Worker, judge, raise_stop, told

logger = logging.getLogger(__name__)

_POLL_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PoolSettings:
    """How many actors, and how much patience."""

    workers: int
    """Actors at most, one CPU each; those that find no room wait for the cluster to grow."""
    max_attempts: int = MAX_ATTEMPTS
    unit_seconds: float = 4 * 3600.0
    """A unit that takes longer has its actor killed."""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.max_attempts < 1 or self.unit_seconds <= 0:
            raise ValueError(f"workers and max_attempts must be at least 1 and unit_seconds positive, got {self}")


class _Actor:
    """One worker process; the worker is made on the spot, so that nothing it holds has to travel."""

    def start(self, make_worker: MakeWorker, permits: Permits) -> None:
        # Not in __init__: what it raises would reach the driver as text only.
        self._worker: Worker = make_worker(permits)

    def run(self, unit: Unit) -> Finished:
        return self._worker(unit)


@dataclass(frozen=True, slots=True)
class _Running:
    actor: Any
    unit: Unit
    since: float


@dataclass(slots=True)
class _Crew:
    """The actors, by what they are doing."""

    settings: PoolSettings
    make_worker: MakeWorker
    permits: Permits
    starting: dict[Any, Any] = field(default_factory=dict)
    """Readiness -> actor."""
    idle: list[Any] = field(default_factory=list)
    running: dict[Any, _Running] = field(default_factory=dict)
    """Result -> what runs."""
    failed_starts: int = 0

    def __len__(self) -> int:
        return len(self.starting) + len(self.idle) + len(self.running)

    def hire(self) -> None:
        actor: Any = ray.remote(_Actor).options(num_cpus=1).remote()
        self.starting[actor.start.remote(self.make_worker, self.permits)] = actor

    def begin(self, unit: Unit) -> None:
        actor = self.idle.pop()
        self.running[actor.run.remote(unit)] = _Running(actor, unit, time.monotonic())

    def admit(self, ready: Any) -> None:
        """An actor has started, or failed to."""
        actor = self.starting.pop(ready)
        try:
            ray.get(ready)
        except RayError as error:
            ray.kill(actor)
            failure = error.cause if isinstance(error, RayTaskError) else error
            self.failed_starts += 1
            logger.warning("a worker could not start, try %d: %s", self.failed_starts, told(failure))
            if judge(failure, attempts=self.failed_starts, max_attempts=self.settings.max_attempts) != "retry":
                raise UserError(f"workers cannot start: {failure}") from error
        else:
            self.failed_starts = 0
            self.idle.append(actor)

    def overdue(self) -> list[Any]:
        limit = time.monotonic() - self.settings.unit_seconds
        return [result for result, running in self.running.items() if running.since < limit]

    def dismiss(self) -> None:
        for actor in [*self.starting.values(), *self.idle, *(r.actor for r in self.running.values())]:
            ray.kill(actor)


def run_units(
    units: Iterable[Unit], make_worker: MakeWorker, *, permits: Permits, settings: PoolSettings
) -> Iterator[Finished | SetAside]:
    """Run units on actors and yield what became of each, in the order in which they end.

    Raises:
        UserError: as soon as a unit raises it, or when no worker can start.
    """
    queue = deque(units)
    attempts: dict[str, int] = {}
    crew = _Crew(settings, make_worker, permits)
    try:
        while queue or crew.running:
            while len(crew) < min(settings.workers, len(queue) + len(crew.running)):
                crew.hire()
            while queue and crew.idle:
                crew.begin(queue.popleft())
            for result in _ended(crew):
                yield from _settle(crew, result, queue, attempts)
    finally:
        crew.dismiss()


def _ended(crew: _Crew) -> list[Any]:
    """Results that are there or overdue; actors that became ready are admitted on the way."""
    waited = [*crew.starting, *crew.running]
    done, _ = ray.wait(waited, num_returns=1, timeout=_POLL_SECONDS)
    for ready in [ref for ref in done if ref in crew.starting]:
        crew.admit(ready)
    return [ref for ref in done if ref in crew.running] + [ref for ref in crew.overdue() if ref not in done]


def _settle(crew: _Crew, result: Any, queue: deque[Unit], attempts: dict[str, int]) -> Iterator[Finished | SetAside]:
    running = crew.running.pop(result)
    name = running.unit.name
    attempts[name] = attempts.get(name, 0) + 1
    try:
        finished: Finished = ray.get(result, timeout=0)
    except RayTaskError as error:  # the worker raised; its actor lives
        crew.idle.append(running.actor)
        failure: BaseException = error.cause
    except RayError as error:  # it died, or is overdue and shall
        ray.kill(running.actor)
        failure = error
    else:
        crew.idle.append(running.actor)
        queue.extend(finished.added)
        yield finished
        return
    verdict = judge(failure, attempts=attempts[name], max_attempts=crew.settings.max_attempts)
    logger.warning("unit %s, try %d: %s: %s", name, attempts[name], verdict, told(failure))
    if verdict == "stop":
        raise_stop(failure)
    if verdict == "retry":
        queue.append(running.unit)
    else:
        yield SetAside(name, told(failure), attempts[name])
