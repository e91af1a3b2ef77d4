import json
import logging
import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Dropped, Transient, UserError
from pipeline.limits import (
    FLICKR_CALLS_PER_HOUR,
    LATE_SECONDS,
    LocalPermits,
    Rate,
    backoff_seconds,
    state_folder,
    wait,
)

KEY = "key:flickr.com:0a1b2c3d"
NEVER = Rate(per_second=1e-9)


@dataclass
class Clock:
    """The time of a machine, for what is told to go by it."""

    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def permits_at(clock: Clock, rate: Rate, *, folder: Path | None = None) -> LocalPermits:
    return LocalPermits({KEY: rate}, default=NEVER, folder=folder, clock=clock)


def drain(permits: LocalPermits, clock: Clock, *, seconds: float, name: str = KEY) -> list[float]:
    """When one worker that always wants to ask has its permits."""
    ends, times = clock.now + seconds, []
    while clock.now < ends:
        waited = permits.reserve(name)
        if waited:
            clock.now += waited + 1e-6
        else:
            times.append(clock.now)
    return times


def most_within(times: Iterable[float], seconds: float) -> int:
    """The most that any sliding window holds."""
    ordered, start, most = sorted(times), 0, 0
    for end, time_ in enumerate(ordered):
        while ordered[start] <= time_ - seconds:
            start += 1
        most = max(most, end - start + 1)
    return most


def test_a_bucket_begins_empty_and_silence_earns_its_burst() -> None:
    clock = Clock()
    permits = permits_at(clock, Rate(per_second=2.0, burst=3))
    assert permits.reserve(KEY) == pytest.approx(0.5)
    clock.now += 100
    assert [permits.reserve(KEY) for _ in range(3)] == [0, 0, 0]
    assert permits.reserve(KEY) == pytest.approx(0.5)


def test_those_who_wait_are_told_turns_of_their_own() -> None:
    clock = Clock()
    permits = permits_at(clock, Rate(per_second=2.0))
    assert [permits.reserve(KEY) for _ in range(4)] == pytest.approx([0.5, 1.0, 1.5, 2.0])
    clock.now += 1.0
    assert permits.reserve(KEY) == 0
    assert permits.reserve(KEY) == pytest.approx(1.5)  # behind those who were told before


@pytest.mark.parametrize("workers", [1, 8, 40])
def test_the_pace_is_reached_however_many_ask(workers: int) -> None:
    clock = Clock()
    permits = permits_at(clock, Rate(per_second=0.9, burst=5, per_hour=3600))
    comes, granted = [clock.now] * workers, 0
    while min(comes) < 1000 + 7200:
        worker = comes.index(min(comes))
        clock.now = comes[worker]
        waited = permits.reserve(KEY)
        granted += not waited
        comes[worker] += waited + 0.01 if waited else 0.3  # the call itself takes 0.3 s
    assert 0.97 * 6480 <= granted <= 6480 + 5


def test_a_ceiling_holds_whatever_pace_was_asked_for() -> None:
    clock = Clock()
    permits = permits_at(clock, Rate(per_second=50.0, burst=20, per_hour=3600))
    permits.reserve(KEY)
    clock.now += 7200
    times = drain(permits, clock, seconds=4 * 3600)
    assert most_within(times, 3600 + LATE_SECONDS) <= 3600
    assert len(times) > 4 * 3450


@dataclass
class Flickr:
    """What reaches the server from workers that share permits, are late, are told to slow down, and lose everything."""

    clock: Clock = field(default_factory=Clock)
    arrivals: list[float] = field(default_factory=list)

    def run(self, permits: LocalPermits, *, seconds: float, lateness: float, gap: float) -> None:
        """One life: requests come `gap` after each other at least, and arrive up to `lateness` after their permit."""
        ends, early = self.clock.now + seconds, True
        while self.clock.now < ends:
            waited = permits.reserve(KEY)
            if not waited:
                early = not early
                self.arrivals.append(self.clock.now + (0.0 if early else lateness))
            self.clock.now += max(waited + 1e-6, gap)


lives = st.lists(
    st.fixed_dictionaries({
        "seconds": st.sampled_from([0.5, 1.2, 30.0, 700.0, 3700.0, 9000.0]),
        "silence": st.sampled_from([0.0, 0.0, 1.0, 60.0, 4000.0]),
        "gap": st.sampled_from([0.0, 0.0, 0.5, 20.0]),
        "lateness": st.floats(0, LATE_SECONDS),
        "rate": st.sampled_from([(0.9, 5), (1.0, 20), (50.0, 1), (0.1, 20)]),
        "throttled": st.one_of(st.none(), st.tuples(st.sampled_from([0.1, 30.0, 5000.0]), st.booleans())),
        "repeat": st.sampled_from([1, 1, 1, 40]),
    }),
    min_size=1,
    max_size=6,
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(lives=lives, kept=st.booleans())
def test_no_sliding_hour_at_the_server_is_over_the_ceiling(
    tmp_path_factory: pytest.TempPathFactory, lives: list[dict[str, object]], kept: bool
) -> None:
    """Random silences, storms, rates and crash loops, with and without a memory that survives them."""
    folder = tmp_path_factory.mktemp("state") if kept else None
    server = Flickr()
    for life in lives:
        for _ in range(min(life["repeat"], int(1 + 10_000 / life["seconds"]))):  # type: ignore[call-overload,operator]
            per_second, burst = life["rate"]  # type: ignore[misc]
            rate = Rate(per_second=per_second, burst=burst, per_hour=FLICKR_CALLS_PER_HOUR)
            permits = permits_at(server.clock, rate, folder=folder)
            if life["throttled"]:
                seconds, slower = life["throttled"]  # type: ignore[misc]
                permits.throttled(KEY, seconds, slower=slower)
            server.run(permits, seconds=life["seconds"], lateness=life["lateness"], gap=life["gap"])  # type: ignore[arg-type]
        server.clock.now += life["silence"]  # type: ignore[operator]
    assert most_within(server.arrivals, 3600) <= FLICKR_CALLS_PER_HOUR


def test_a_crash_loop_earns_nothing() -> None:
    server = Flickr()
    for _ in range(3000):
        rate = Rate(per_second=50.0, burst=20, per_hour=3600)
        server.run(permits_at(server.clock, rate), seconds=0.9, lateness=0.0, gap=0.0)
    assert server.arrivals == []


def test_the_next_process_goes_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    clock, rate = Clock(), Rate(per_second=1.0, burst=10, per_hour=3600)
    permits_at(clock, rate, folder=tmp_path).throttled(KEY, 300.0)
    clock.now += 100
    again = permits_at(clock, rate, folder=tmp_path)
    assert again.reserve(KEY) == pytest.approx(200)
    clock.now += 200.1
    assert again.reserve(KEY) == 0
    assert again.reserve(KEY) == pytest.approx(1.9)  # at half the rate
    assert permits_at(clock, rate).reserve(KEY) == pytest.approx(3720 / 3580)  # without the folder: all forgotten


def kept_file(folder: Path) -> Path:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    return folder / f"key_flickr.com_0a1b2c3d_{boot[:8]}.json"


@pytest.mark.parametrize(
    "kept", ["", "{", "[]", "null", "7", '{"paced": 0}', '{"key": 1}', '{"paced": 0, "capped": null}', "\xff" * 600]
)
def test_a_file_that_tells_nothing_is_an_empty_bucket(tmp_path: Path, kept: str) -> None:
    kept_file(tmp_path).write_text(kept)
    clock = Clock()
    permits = permits_at(clock, Rate(per_second=0.5, per_hour=3600), folder=tmp_path)
    assert permits.reserve(KEY) == pytest.approx(2.0)
    clock.now += 2.1
    assert permits.reserve(KEY) == 0
    assert json.loads(kept_file(tmp_path).read_text())["share"] == 1.0


def test_only_the_budgets_of_keys_are_kept(tmp_path: Path) -> None:
    permits = LocalPermits({KEY: Rate(per_second=1.0, per_hour=3600)}, default=Rate(per_second=9.0), folder=tmp_path)
    permits.reserve("live.staticflickr.com")
    assert list(tmp_path.iterdir()) == []
    permits.reserve(KEY)
    assert list(tmp_path.iterdir()) == [kept_file(tmp_path)]


def ask_and_note(folder: Path, name: str, seconds: float) -> None:
    permits = LocalPermits({KEY: Rate(per_second=200.0, burst=10, per_hour=10**7)}, default=NEVER, folder=folder)
    with (folder / name).open("w", buffering=1) as file:
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            wait(permits, KEY)
            file.write(f"{time.monotonic()}\n")


def test_processes_of_one_machine_share_a_keys_budget_even_when_one_is_killed(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=ask_and_note, args=(tmp_path, f"p{i}", 3.0)) for i in range(3)]
    for process in processes:
        process.start()
    deadline = time.monotonic() + 60
    while not (tmp_path / "p0").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(1.0)
    assert processes[0].pid is not None
    os.kill(processes[0].pid, signal.SIGKILL)
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [-signal.SIGKILL, 0, 0]
    lines = [(tmp_path / f"p{i}").read_text().splitlines() for i in range(3)]
    assert all(len(times) > 30 for times in lines)
    times = [float(line) for some in lines for line in some if line.count(".") == 1]
    for seconds in (0.2, 0.5, 1.0, 2.0):  # 50 ms: from the permit to the line
        assert most_within(times, seconds) <= 200 * (seconds + 0.05) + 10


def test_where_nothing_can_be_written_the_process_goes_on_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gone"
    permits = LocalPermits({KEY: Rate(per_second=1e6, per_hour=10**9)}, default=NEVER, folder=folder)
    for _ in range(3):
        wait(permits, KEY)
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "request budgets are kept in this process only, other processes are not counted "
        f"({folder}: [Errno 2] No such file or directory: '{kept_file(folder)}')"
    ]


def test_the_folder_is_the_users_else_a_temporary_one_else_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert state_folder() == tmp_path / "state" / "noisyactions"
    assert (tmp_path / "state" / "noisyactions").stat().st_mode & 0o077 == 0
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert state_folder() == tmp_path / "home" / ".local" / "state" / "noisyactions"
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    assert state_folder() == tmp_path / "temporary" / f"noisyactions-{os.getuid()}"
    assert caplog.text == ""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "file"))
    assert state_folder() is None
    assert "request budgets are kept in this process only" in caplog.text
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "trap").mkdir()
    (tmp_path / "trap" / f"noisyactions-{os.getuid()}").symlink_to(tmp_path / "nowhere")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "trap"))
    assert state_folder() is None


def test_a_bucket_of_a_key_costs_little(tmp_path: Path) -> None:
    permits = LocalPermits({KEY: Rate(per_second=1e9, burst=20, per_hour=10**12)}, default=NEVER, folder=tmp_path)
    began = time.process_time()
    for _ in range(2000):
        permits.reserve(KEY)
    assert (time.process_time() - began) / 2000 < 0.0003  # 15 us on an idle machine


def test_throttling_pauses_everyone_then_halves_the_rate_which_creeps_back() -> None:
    clock = Clock()
    permits = permits_at(clock, Rate(per_second=1.0))
    drain(permits, clock, seconds=5)
    permits.throttled(KEY, 30.0)
    assert permits.reserve(KEY) == pytest.approx(30.0)
    clock.now += 30.01
    assert len(drain(permits, clock, seconds=58)) == 29  # half the rate for the first minute
    clock.now += 10
    assert len(drain(permits, clock, seconds=50)) == pytest.approx(0.6 * 50, abs=1)
    clock.now += 600
    assert len(drain(permits, clock, seconds=100)) == pytest.approx(100, abs=1)


def test_a_long_pause_is_no_quiet_time() -> None:
    clock = Clock()
    permits = permits_at(clock, Rate(per_second=1.0))
    permits.throttled(KEY, 900.0)
    clock.now += 900.1
    assert len(drain(permits, clock, seconds=50)) == pytest.approx(25, abs=1)


def test_an_isolated_failure_pauses_but_does_not_slow_down() -> None:
    clock = Clock()
    permits = permits_at(clock, Rate(per_second=1.0))
    permits.throttled(KEY, 30.0, slower=False)
    assert permits.reserve(KEY) == pytest.approx(30.0)
    clock.now += 30.01
    assert len(drain(permits, clock, seconds=50)) == pytest.approx(50, abs=1)


def test_no_pause_is_longer_than_a_quarter_of_an_hour() -> None:
    clock = Clock()
    permits = permits_at(clock, Rate(per_second=1.0))
    permits.throttled(KEY, 1e9)
    assert permits.reserve(KEY) == 900


def test_a_storm_of_429s_is_one_throttling() -> None:
    clock = Clock()
    permits = permits_at(clock, Rate(per_second=8.0))
    drain(permits, clock, seconds=1)
    for _ in range(10):
        permits.throttled(KEY, 1.0)
        clock.now += 0.01
    clock.now += 1.0
    assert len(drain(permits, clock, seconds=10)) == pytest.approx(40, abs=1)


def test_a_host_that_is_down_for_an_hour_is_still_asked_now_and_then() -> None:
    clock = Clock()
    permits = permits_at(clock, Rate(per_second=1.0))
    comes, asked = [clock.now] * 32, []
    while min(comes) < 1000 + 3600:
        worker = comes.index(min(comes))
        clock.now = comes[worker]
        waited = permits.reserve(KEY)
        if waited:
            comes[worker] += waited + 1e-6
        else:
            asked.append(clock.now)
            comes[worker] += 0.1
            permits.throttled(KEY, 30.0)  # the answer is a 503
    gaps = [b - a for a, b in pairwise(asked)]
    assert max(gaps) < 60
    assert len(asked) <= 3600 / 30 + 1


def test_names_have_budgets_of_their_own_and_a_key_nobody_spoke_of_has_flickrs() -> None:
    clock = Clock()
    permits = LocalPermits({"a": Rate(per_second=0.001)}, default=Rate(per_second=1000.0), clock=clock)
    assert permits.reserve("a") == pytest.approx(1000)
    assert permits.reserve("live.example.org") == pytest.approx(0.001)
    assert permits.reserve("sandbox:127.0.0.1:80:0a1b2c3d") == pytest.approx(0.001)
    assert len(drain(permits, clock, seconds=3600, name="key:flickr.com:ffffffff")) <= 3240


def test_a_permit_that_was_long_on_its_way_is_thrown_away(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    answers = [(0.0, 31.0), (0.0, 29.0), (7.0, 0.0), (0.0, 0.0)]
    slept = []

    class Slow:
        def reserve(self, name: str) -> float:
            seconds, delay = answers.pop(0)
            clock.now += delay
            return seconds

        def throttled(self, name: str, seconds: float, *, slower: bool = True) -> None:
            raise AssertionError

    monkeypatch.setattr("pipeline.limits.time.monotonic", clock)
    monkeypatch.setattr("pipeline.limits.time.sleep", slept.append)
    wait(Slow(), KEY)
    assert len(answers) == 2
    wait(Slow(), KEY)
    assert (answers, slept) == ([], [0.0, 7.0])


@pytest.mark.parametrize(
    "rate",
    [
        {"per_second": 0.0},
        {"per_second": 1.0, "burst": 0},
        {"per_second": 1.0, "per_hour": 20},
        {"per_second": 1.0, "per_hour": 3600, "burst": 21},
    ],
)
def test_rates_that_hold_no_ceiling_are_refused(rate: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"needs per_second > 0|needs per_hour > 20 and burst <= 20"):
        Rate(**rate)  # type: ignore[arg-type]


def test_backoff_honours_what_was_asked_and_grows_otherwise() -> None:
    assert backoff_seconds(1, asked=17.0) == 17.0
    assert backoff_seconds(1, asked=1e9) == 900.0
    assert backoff_seconds(1, asked=0.0) >= 0.25  # `Retry-After: 0`
    assert 2.0 <= backoff_seconds(4) <= 4.0
    assert backoff_seconds(20) <= 60.0
    assert 30.0 <= backoff_seconds(1, base=60.0, ceiling=900.0) <= 60.0
    assert 450.0 <= backoff_seconds(9, base=60.0, ceiling=900.0) <= 900.0


@pytest.mark.parametrize(
    "error", [UserError("a"), Dropped("gone", "404"), Transient("slow", "timeout", retry_after_seconds=3.0)]
)
def test_errors_survive_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.args) == (type(error), str(error), error.args)
