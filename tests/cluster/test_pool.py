"""The pool on a real local Ray, with actors that really die."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from cluster.limits import start_permits
from cluster.pool import PoolSettings, run_units
from cluster.session import connected
from pipeline.errors import Transient, UserError
from pipeline.limits import Permits, Rate
from pipeline.units import Finished, SetAside, Unit

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.filterwarnings("default"),  # Ray warns of its own future
]


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    with connected(workers=2):
        yield


class _Worker:
    """Does what its unit says, and remembers across deaths in a folder."""

    def __init__(self, folder: Path, permits: Permits) -> None:
        self.folder = folder
        self.permits = permits

    def __call__(self, unit: Unit) -> Finished:
        marks = self.folder / unit.name
        with marks.open("a") as file:
            file.write("x")
        tries = marks.stat().st_size
        action, times = unit.payload or ("none", 0)
        if tries <= times:
            if action == "die":
                os._exit(1)
            if action == "hang":
                time.sleep(60)
            if action == "user":
                raise UserError("the key is refused")
            if action == "fail":
                raise Transient("connection reset")
        added = (Unit("added"),) if unit.name == "parent" else ()
        return Finished(unit.name, Counter(ok=1), added)

    def close(self) -> None:
        """Nothing is held."""


def run(units: list[Unit], folder: Path, **settings: float) -> dict[str, Finished | SetAside]:
    folder.mkdir(exist_ok=True)
    permits = start_permits({}, default=Rate(per_second=1000.0))
    pool = PoolSettings(workers=2, **settings)  # type: ignore[arg-type]
    found = list(run_units(units, partial(_Worker, folder), permits=permits, settings=pool))
    assert len({r.unit for r in found}) == len(found)
    return {r.unit: r for r in found}


def test_deaths_and_failures_cost_a_retry_and_too_many_set_aside(tmp_path: Path) -> None:
    units = [Unit("parent"), Unit("dies", ("die", 1)), Unit("fails", ("fail", 2)), Unit("poison", ("die", 9))]
    results = run(units + [Unit(f"u{i}") for i in range(10)], tmp_path)
    assert len(results) == 15
    aside = {name: r for name, r in results.items() if isinstance(r, SetAside)}
    assert set(aside) == {"poison"}
    assert aside["poison"].attempts == 3
    assert "ActorDiedError" in aside["poison"].error
    assert (tmp_path / "fails").stat().st_size == 3


def test_a_unit_past_its_time_has_its_actor_killed(tmp_path: Path) -> None:
    began = time.monotonic()
    results = run([Unit("hangs", ("hang", 1)), Unit("calm")], tmp_path, unit_seconds=2.0)
    assert all(isinstance(r, Finished) for r in results.values())
    assert time.monotonic() - began < 40


def test_a_users_mistake_stops_the_job_as_itself(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the key is refused"):
        run([Unit("bad", ("user", 1)), Unit("u")], tmp_path)


def test_one_budget_for_all_workers() -> None:
    permits = start_permits({"flickr": Rate(per_second=10.0)}, default=Rate(per_second=1000.0))
    waits = [permits.reserve("flickr") for _ in range(5)]
    assert waits == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5], abs=0.09)
    permits.throttled("flickr", 30.0)
    assert permits.reserve("flickr") > 25
