"""A contest: several ways of doing the same work, taken in turns in one run, so that a busy machine slows all alike.

What is compared is work per second of CPU time, children included, for the machine may be shared.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal

from pipeline.errors import UserError

Clock = Literal["cpu", "wall"]

_MIN_ROUNDS = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a benchmark found: a table to read, and ratios to compare with other runs and machines."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[object]]
    ratios: Mapping[str, float | None]
    """Under fixed names; None where a peer is not installed."""
    limit: str
    """What limits it, in a sentence."""
    notes: tuple[str, ...] = ()
    """What was left out or stood in for something else."""


@dataclass(frozen=True, slots=True)
class Score:
    """How one contender did."""

    cpu: list[float] = field(default_factory=list)
    """Work per second of CPU time, a number for each round."""
    wall: list[float] = field(default_factory=list)
    """Work per second on the wall clock."""

    def rate(self, clock: Clock = "cpu") -> float:
        """The median over rounds."""
        return median(self.cpu if clock == "cpu" else self.wall)

    def spread(self, clock: Clock = "cpu") -> str:
        """The slowest and the fastest round."""
        rates = self.cpu if clock == "cpu" else self.wall
        return f"{shown(min(rates))}-{shown(max(rates))}"


def compete(
    contenders: Mapping[str, Callable[[], float]], *, seconds: float, ignored_pids: Collection[int] = ()
) -> dict[str, Score]:
    """Let each contender do its work, which returns how much it was, in turns: A B, B A, A B, ...

    At least three rounds, then more while `seconds` have not passed. `ignored_pids` are children (a server) whose
    time is nobody's.
    """
    scores = {name: Score() for name in contenders}
    names, ends = list(contenders), time.monotonic() + seconds
    rounds = 0
    while rounds < _MIN_ROUNDS or time.monotonic() < ends:
        for name in names if rounds % 2 == 0 else reversed(names):
            cpu, wall = cpu_seconds(ignored_pids), time.perf_counter()
            work = contenders[name]()
            wall = time.perf_counter() - wall
            scores[name].cpu.append(work / max(cpu_seconds(ignored_pids) - cpu, 1e-9))
            scores[name].wall.append(work / wall)
        rounds += 1
    return scores


def score_rows(scores: Mapping[str, Score], *, limit: str, clock: Clock = "cpu") -> list[tuple[object, ...]]:
    """Table rows: contender, median rate, its spread, share of the contender called `limit`."""
    whole = scores[limit].rate(clock)
    return [(n, shown(s.rate(clock)), s.spread(clock), f"{s.rate(clock) / whole:.2f}") for n, s in scores.items()]


def shown(rate: float) -> str:
    """Three figures are as many as such a number bears."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def cpu_seconds(ignored_pids: Collection[int] = ()) -> float:
    """CPU time of this process and everything it has started, living or reaped, however deep.

    Raises:
        UserError: there is no /proc to read the children's time from.
    """
    if not Path("/proc/self/stat").exists():
        raise UserError("bench reads the CPU time of child processes from /proc: run it on Linux")
    times = os.times()  # of other processes only 10 ms ticks are told
    total = time.process_time() + times.children_user + times.children_system
    return total + sum(_ticks(pid) for pid in _descendants(ignored_pids)) / os.sysconf("SC_CLK_TCK")


def _descendants(ignored: Collection[int]) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (stat := _stat(int(entry.name))):
            children.setdefault(int(stat[1]), []).append(int(entry.name))
    found: list[int] = []
    left = [os.getpid()]
    while left:
        fresh = [pid for pid in children.get(left.pop(), []) if pid not in ignored]
        found += fresh
        left += fresh
    return found


def _ticks(pid: int) -> int:
    # utime, stime and those of its reaped children: fields 14 to 17 of proc(5), the state being field 3.
    return sum(map(int, _stat(pid)[11:15]))


def _stat(pid: int) -> list[str]:
    """The fields from the state on; none if the process has just ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
