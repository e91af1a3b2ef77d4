"""One budget for a whole cluster: on a real local Ray, with jobs and an actor that really die."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster import limits
from cluster.limits import start_permits
from cluster.session import connected
from pipeline.errors import UserError
from pipeline.limits import Permits, Rate, wait

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("default"),  # Ray warns of its own future
]
TREE = Path(__file__).parents[2]
PER_SECOND, BURST = 20.0, 5
LATE_SECONDS = 0.5
"""From a permit to the line that notes it, on a busy machine."""

JOB = """
import sys, threading, time
from cluster.environment import stay_on_loopback
stay_on_loopback()
from cluster.limits import start_permits
from cluster.session import connected
from pipeline.limits import Rate, wait

address, path, name, seconds = sys.argv[1:]
rate = Rate(per_second=20.0, burst=5, per_hour=10**6)
with connected(workers=1, address=address), open(path, "w", buffering=1) as file:
    permits = start_permits({name: rate}, default=Rate(per_second=1e-9))
    ends = time.monotonic() + float(seconds)
    def work():
        while time.monotonic() < ends:
            wait(permits, name)
            file.write(f"{time.monotonic()}\\n")
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


@pytest.fixture(scope="module", autouse=True)
def ray_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))  # Ray's processes begin with it
    try:
        with connected(workers=2):
            yield
    finally:
        del os.environ["XDG_STATE_HOME"]
        if before is not None:
            os.environ["XDG_STATE_HOME"] = before


def start_job(path: Path, name: str, *, seconds: float) -> "subprocess.Popen[bytes]":
    address = ray.get_runtime_context().gcs_address
    return subprocess.Popen([sys.executable, "-c", JOB, address, str(path), name, str(seconds)], cwd=TREE)


def times_in(*paths: Path) -> list[float]:
    lines = [line for path in paths for line in path.read_text().splitlines(keepends=True)]
    return sorted(float(line) for line in lines if line.endswith("\n"))


def until_there(path: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() or len(times_in(path)) < count:
        assert time.monotonic() < deadline, f"{path} has not {count} lines"
        time.sleep(0.05)


def assert_within_budget(times: list[float]) -> None:
    """No sliding window, from a tenth of a second to all the time, holds more than the pace and one burst."""
    for length in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0):
        for start, first in enumerate(times):
            inside = sum(1 for time_ in times[start:] if time_ < first + length)
            assert inside <= PER_SECOND * (length + LATE_SECONDS) + BURST, length


def test_two_jobs_that_start_at_once_share_one_budget(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    jobs = [start_job(path, "key:shared:0a1b2c3d", seconds=8) for path in paths]
    assert [job.wait() for job in jobs] == [0, 0]
    one, other = map(times_in, paths)
    both = times_in(*paths)
    assert_within_budget(both)
    together = [t for t in both if max(one[0], other[0]) <= t <= min(one[-1], other[-1])]
    assert len(together) >= 0.6 * PER_SECOND * (together[-1] - together[0])
    assert min(sum(t in some for t in together) for some in (set(one), set(other))) > len(together) / 5


def test_the_budget_outlives_the_job_that_began_it(tmp_path: Path) -> None:
    ray.kill(start_permits({}, default=Rate(per_second=1.0)).actor, no_restart=True)
    job = start_job(tmp_path / "a", "key:outlives:0a1b2c3d", seconds=60)
    until_there(tmp_path / "a", 10)
    permits = start_permits({"host": Rate(per_second=1.0)}, default=Rate(per_second=1.0))
    permits.throttled("host", 200.0)
    job.send_signal(signal.SIGKILL)
    job.wait()
    time.sleep(3.0)  # Ray ends what belonged to the job
    again = start_permits({"host": Rate(per_second=9.0)}, default=Rate(per_second=1.0))
    assert 150 < again.reserve("host") < 200  # an actor begun anew would not know of the pause
    assert times_in(tmp_path / "a")


@pytest.mark.parametrize("rate", [Rate(per_second=PER_SECOND, burst=BURST, per_hour=10**6),
                                  Rate(per_second=PER_SECOND, burst=BURST)], ids=["kept", "forgotten"])  # fmt: skip
def test_an_actor_that_dies_again_and_again_keeps_the_ceiling(rate: Rate) -> None:
    name = f"key:dies:{rate.per_hour or 0:08d}"
    permits = start_permits({name: rate}, default=Rate(per_second=1e-9))
    times: list[float] = []
    ends = time.monotonic() + 8

    def work(permits: Permits) -> None:
        while time.monotonic() < ends:
            wait(permits, name)
            times.append(time.monotonic())

    threads = [threading.Thread(target=work, args=(permits,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(1.5)
        ray.kill(permits.actor, no_restart=False)
    for thread in threads:
        thread.join()
    assert_within_budget(sorted(times))
    assert len(times) > 30
    assert max(times) > ends - 1  # it came back each time


class _Other:
    """An actor of another version of the tree."""

    def __init__(self, idle: float) -> None:
        self.idle = idle

    def about(self) -> tuple[str, float]:
        return "00000000", self.idle


def replace_office(idle: float) -> Any:
    ray.kill(start_permits({}, default=Rate(per_second=1.0)).actor, no_restart=True)
    for _ in range(100):
        try:
            other: Any = ray.remote(_Other).options(
                name=limits._NAME, namespace=limits._NAMESPACE, lifetime="detached", num_cpus=0
            ).remote(idle)  # fmt: skip
        except ValueError:  # the name is not free yet
            time.sleep(0.1)
        else:
            ray.get(other.about.remote())
            return other
    raise AssertionError("the name did not become free")


def test_another_versions_budgets_are_refused_while_used_and_replaced_afterwards() -> None:
    used = replace_office(idle=60.0)
    with pytest.raises(UserError, match=r"another version of this tree used .* budgets 60 s ago: end its jobs"):
        start_permits({}, default=Rate(per_second=1.0))
    ray.kill(used, no_restart=True)
    time.sleep(1.0)
    replace_office(idle=5000.0)
    permits = start_permits({}, default=Rate(per_second=100.0))
    wait(permits, "host")
    assert ray.get(permits.actor.about.remote())[0] == limits._version()


def test_a_key_that_no_job_spoke_of_gets_flickrs_rate_and_a_wait_costs_one_round_trip() -> None:
    permits = start_permits({}, default=Rate(per_second=1e6))
    assert permits.reserve("key:flickr.com:ffffffff") > 1.0
    began, count = time.monotonic(), 200
    for _ in range(count):
        wait(permits, "host")
    assert (time.monotonic() - began) / count < 0.02
