from collections import Counter
from pathlib import Path

import pytest

from pipeline.errors import Transient, UserError
from pipeline.limits import LocalPermits, Permits, Rate
from pipeline.store import FolderStore
from pipeline.units import Finished, Ledger, SetAside, Unit, judge, output_of, work_here

PERMITS = LocalPermits({}, default=Rate(per_second=1000.0))


def test_only_a_committed_unit_is_done(tmp_path: Path) -> None:
    ledger = Ledger(FolderStore(tmp_path), "job", {"size": 3})
    assert ledger.open() == set()
    data = b"result"
    ledger.store.write("out/one", data)
    assert ledger.open() == set()
    assert ledger.commit(Unit("one"), {"ok": 2}, (output_of("out/one", data),))
    assert ledger.open() == {"one"}
    (commit,) = ledger.commits()
    assert (commit.unit, commit.counts, commit.outputs[0].size) == ("one", {"ok": 2}, 6)


def test_the_second_of_two_workers_cannot_commit(tmp_path: Path) -> None:
    ledger = Ledger(FolderStore(tmp_path), "job", {})
    assert ledger.commit(Unit("one"), {"ok": 1}, ())
    assert not ledger.commit(Unit("one"), {"ok": 9}, ())
    assert next(ledger.commits()).counts == {"ok": 1}


def test_other_settings_on_the_same_root_are_refused_by_name(tmp_path: Path) -> None:
    Ledger(FolderStore(tmp_path), "job", {"size": 3, "codec": "x"}).open()
    with pytest.raises(UserError, match=r"size was 3, now 4.*another root"):
        Ledger(FolderStore(tmp_path), "job", {"size": 4, "codec": "x"}).open()


class _Flaky:
    """Fails as often as the unit's payload says, and adds a unit once."""

    def __init__(self, permits: Permits) -> None:
        self.tries: Counter[str] = Counter()
        self.closed = False

    def __call__(self, unit: Unit) -> Finished:
        self.tries[unit.name] += 1
        if unit.payload == "user":
            raise UserError("the key is refused")
        if self.tries[unit.name] <= (unit.payload or 0):
            raise Transient("connection reset")
        added = (Unit("added"),) if unit.name == "parent" else ()
        return Finished(unit.name, Counter(ok=1), added)

    def close(self) -> None:
        self.closed = True


def test_failed_units_are_tried_again_then_set_aside_and_the_others_go_on() -> None:
    units = [Unit("parent"), Unit("once", 1), Unit("always", 9), Unit("last")]
    results = list(work_here(units, _Flaky, permits=PERMITS, max_attempts=2))
    assert [r.unit for r in results] == ["parent", "added", "once", "always", "last"]
    (aside,) = [r for r in results if isinstance(r, SetAside)]
    assert (aside.unit, aside.attempts, aside.error) == ("always", 2, "Transient: connection reset")


def test_a_users_mistake_stops_the_job() -> None:
    with pytest.raises(UserError, match="the key is refused"):
        list(work_here([Unit("bad", "user"), Unit("never")], _Flaky, permits=PERMITS))


class _Full:
    """Writes where there is no room."""

    def __init__(self, permits: Permits) -> None:
        self.tries = 0

    def __call__(self, unit: Unit) -> Finished:
        self.tries += 1
        assert self.tries == 1
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"data")
        return Finished(unit.name)

    def close(self) -> None:
        pass


def test_a_full_disk_stops_the_job_at_once() -> None:
    with pytest.raises(UserError, match=r"takes no more \(No space left on device\): make room.*TMPDIR"):
        list(work_here([Unit("one"), Unit("two")], _Full, permits=PERMITS))


@pytest.mark.parametrize("spoilt", [b"", b'{"unit": "one", "settings', b"[]", b'{"unit": "one"}', b"\xff"])
def test_a_damaged_commit_or_settings_is_told_by_name(tmp_path: Path, spoilt: bytes) -> None:
    ledger = Ledger(FolderStore(tmp_path), "job", {"size": 3})
    ledger.commit(Unit("one"), {"ok": 1}, ())
    ledger.store.write("job/commits/one.json", spoilt)
    told = r"job/commits/one.json is damaged .*: delete it and run the same command again"
    with pytest.raises(UserError, match=told):
        list(ledger.commits())
    with pytest.raises(UserError, match=told):
        ledger.commit_of("one")
    ledger.store.write("job/settings.json", spoilt)
    with pytest.raises(UserError, match=r"settings.json is damaged|built with other settings"):
        ledger.open()


@pytest.mark.parametrize(("attempts", "verdict"), [(1, "retry"), (2, "retry"), (3, "set_aside")])
def test_verdicts(attempts: int, verdict: str) -> None:
    assert judge(Transient("x"), attempts=attempts, max_attempts=3) == verdict
    assert judge(UserError("x"), attempts=attempts, max_attempts=3) == "stop"
