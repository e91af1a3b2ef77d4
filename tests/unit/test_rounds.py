from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.rounds import begin_round, finish_round, moment, rounds
from pipeline.store import FolderStore
from pipeline.windows import FLICKR_VIDEO_LAUNCH


def test_a_crawl_keeps_the_bounds_that_it_began_with(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    first = begin_round(store, since=None, until=1_600_000_000)
    assert (first.since, first.until) == (FLICKR_VIDEO_LAUNCH, 1_600_000_000)
    assert begin_round(store, since=None, until=None) == first
    assert str(first) == "uploads from 2008-04-01 00:00 to 2020-09-13 12:26"


def test_the_next_round_begins_where_the_last_one_ended_once_that_is_finished(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    first = begin_round(store, since=None, until=1_600_000_000)
    assert begin_round(store, since="last", until=None) == first
    finish_round(store, first)
    second = begin_round(store, since="last", until=1_700_000_000)
    assert (second.since, second.until) == (1_600_000_001, 1_700_000_000)
    assert begin_round(store, since="last", until=None) == second
    assert [r.finished for r in rounds(store)] == [True, False]


def test_other_bounds_are_another_round(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    one = begin_round(store, since=1_500_000_000, until=1_600_000_000)
    other = begin_round(store, since=1_500_000_000, until=1_650_000_000)
    assert one.key != other.key
    assert len(rounds(store)) == 2


def test_bounds_that_make_no_round_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no crawl to go on from"):
        begin_round(FolderStore(tmp_path), since="last", until=None)
    with pytest.raises(UserError, match="--since must come before --until"):
        begin_round(FolderStore(tmp_path), since=1_600_000_000, until=1_500_000_000)
    assert rounds(FolderStore(tmp_path)) == []


def test_times_are_dates_or_seconds() -> None:
    assert moment("1600000000") == 1_600_000_000
    assert moment("2020-09-13") == 1_599_955_200
    assert moment("2020-09-13T12:26:40") == moment("2020-09-13T14:26:40+02:00") == 1_600_000_000
    with pytest.raises(UserError, match="'yesterday' is no time: write 2026-01-31"):
        moment("yesterday")
