"""What a unit costs the driver when the units themselves do nothing: how many actors one driver can keep busy."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from jobs.benches.contest import Report
from jobs.launch import Where, run_units, session
from pipeline.errors import UserError
from pipeline.limits import Permits
from pipeline.units import Finished, SetAside, Unit

_WARM_UP = 100


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many units, on how many actors."""

    units: int = 3000
    workers: int = 2
    ray_address: str | None = None
    """A cluster's head; without one, Ray starts on this machine."""
    json: bool = False
    """End with the ratios as one line of JSON."""

    def __post_init__(self) -> None:
        if self.units < 100 or self.workers < 1:
            raise ValueError("units must be at least 100 and workers at least 1: the pool is what is measured")


@dataclass(frozen=True, slots=True)
class _Cost:
    units_per_second: float
    cpu_ms_per_unit: float
    """Of this process."""


class Idler:
    """Does nothing with a unit."""

    def __call__(self, unit: Unit) -> Finished:
        """See pipeline.units.Worker."""
        return Finished(unit.name)

    def close(self) -> None:
        """Nothing is held."""


def make_idler(permits: Permits) -> Idler:
    """A worker for one process."""
    return Idler()


def measure(config: Config) -> Report:
    """CPU time of the driver per unit, and units per second, after the actors have started."""
    units = [Unit(f"{number:06d}") for number in range(config.units + _WARM_UP)]
    here = _timed(run_units(units, make_idler, where=Where()))
    where = Where(workers=config.workers, ray_address=config.ray_address)
    with session(where):
        there = _timed(run_units(units, make_idler, where=where))
    return Report(
        title=f"pool: {config.units:,} empty units",
        columns=("where", "units per second", "driver CPU ms per unit"),
        rows=[
            ("in this process: the limit", f"{here.units_per_second:,.0f}", f"{here.cpu_ms_per_unit:.4f}"),
            (f"{config.workers} Ray actors", f"{there.units_per_second:,.0f}", f"{there.cpu_ms_per_unit:.4f}"),
        ],
        ratios={
            "driver_cpu_ms_per_unit": there.cpu_ms_per_unit,
            "units_per_second": there.units_per_second,
            "times_in_process_cpu": there.cpu_ms_per_unit / here.cpu_ms_per_unit,
        },
        limit=f"The driver's CPU alone would allow {1000 / there.cpu_ms_per_unit:,.0f} units a second; the rest is "
        "waiting for Ray's calls and for a core. Units take minutes. How the cost grows with the number of actors, "
        "two cannot show.",
    )


def _timed(results: Iterable[Finished | SetAside]) -> _Cost:
    """From the end of the first hundred units to that of the last."""
    count, cpu, wall = 0, 0.0, 0.0
    for result in results:
        if isinstance(result, SetAside):
            raise UserError(f"unit {result.unit} failed: {result.error}")
        count += 1
        if count == _WARM_UP:
            cpu, wall = time.process_time(), time.perf_counter()
        last_cpu, last_wall = time.process_time(), time.perf_counter()
    timed = count - _WARM_UP
    return _Cost(timed / (last_wall - wall), (last_cpu - cpu) * 1000 / timed)
