from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.answers import utc_now
from pipeline.errors import UserError
from pipeline.rounds import Round, begin_rounds, finish_round, moment, new_rounds, rounds
from pipeline.store import FolderStore
from pipeline.windows import FLICKR_VIDEO_LAUNCH


def begun(store: FolderStore, *, since: str | None = None, until: str | None = None) -> list[Round]:
    added = new_rounds(rounds(store), since=since, until=until)
    begin_rounds(store, added)
    return added


def test_a_crawl_keeps_the_bounds_that_it_began_with(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    (first,) = begun(store)
    assert first.since == FLICKR_VIDEO_LAUNCH
    assert utc_now() - 3700 < first.until <= utc_now() - 3600
    assert begun(store) == []
    assert rounds(store) == [first]


def test_the_next_round_begins_where_the_last_one_ended_once_all_are_finished(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    (first,) = begun(store, until="1600000000")
    assert begun(store, since="last", until="1700000000") == []
    finish_round(store, first)
    (second,) = begun(store, since="last", until="1700000000")
    assert (second.since, second.until) == (1_600_000_001, 1_700_000_000)
    assert begun(store, since="last") == []
    assert [r.finished for r in rounds(store)] == [True, False]
    finish_round(store, second)
    (third,) = begun(store, since="last")
    assert third.since == 1_700_000_001
    finish_round(store, third)
    assert begun(store, since="last") == [] or utc_now() > third.until + 3600


def test_only_what_no_round_covers_is_asked_for(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    begun(store, since="2015-01-01", until="2015-12-31")
    begun(store, since="2017-01-01", until="2017-12-31")
    gaps = begun(store, since="2014-01-01", until="2018-12-31")
    assert [str(gap)[13:23] for gap in gaps] == ["2014-01-01", "2015-12-31", "2017-12-31"]
    assert begun(store, since="2014-06-01", until="2018-06-01") == []
    known = rounds(store)
    assert all(one.until + 1 == other.since for one, other in pairwise(known))


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=6))
def test_rounds_never_overlap_and_cover_what_was_asked(asked: list[tuple[int, int]]) -> None:
    known: list[Round] = []
    days: set[int] = set()
    first = 1_500_000_000
    for one, other in asked:
        start, end = first + min(one, other), first + max(one, other)
        known += new_rounds(known, since=str(start), until=str(end))
        days |= set(range(start, end + 1))
    covered = [second for r in known for second in range(r.since, r.until + 1)]
    assert len(covered) == len(set(covered))
    assert set(covered) == days


def test_the_future_is_left_to_later(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    (only,) = begun(store, until="2999-01-01")
    assert only.until <= utc_now() - 3600


def test_bounds_that_make_no_round_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no crawl on this root to go on from"):
        begun(FolderStore(tmp_path), since="last")
    with pytest.raises(UserError, match="--since 2020-09-13 12:26 is not before --until 2017-07-14 02:40"):
        begun(FolderStore(tmp_path), since="1600000000", until="1500000000")
    assert rounds(FolderStore(tmp_path)) == []


def test_other_files_are_no_rounds(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write("crawl/rounds/notes.txt", b"hello")
    assert rounds(store) == []


def test_times_are_dates_or_seconds() -> None:
    assert moment("1600000000") == 1_600_000_000
    assert moment("2020-09-13") == moment("20200913") == 1_599_955_200
    assert moment("2020-09-13T12:26:40") == moment("2020-09-13T14:26:40+02:00") == 1_600_000_000


@pytest.mark.parametrize("text", ["yesterday", "2020", "1700000000000", "-5", "", "\u0661" * 10])
def test_what_is_no_time_is_told(text: str) -> None:
    with pytest.raises(UserError, match="is no time: write 2026-01-31"):
        moment(text)
    with pytest.raises(UserError, match="before Flickr took its first video, on 2008-04-01"):
        moment("1999-12-31")
