from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pipeline.completeness import (
    Estimate,
    combined,
    estimate,
    read_completeness,
    recapture_units,
    sample_queries,
    write_completeness,
)
from pipeline.crawl import commit_answers, search_unit
from pipeline.records import VideoRecord
from pipeline.store import FolderStore
from pipeline.units import Ledger
from pipeline.vocabulary import Query
from pipeline.windows import Window

WINDOW = Window(start=0, end=9_999)
SWING = Query(kind="concept", concept="swing", text="swing")


def test_two_partial_passes_tell_how_many_there_are() -> None:
    there, errors = 5000, []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        first, second = rng.random(there) < 0.9, rng.random(there) < 0.8
        told = Estimate(
            query="q", found=int(first.sum()), found_again=int(second.sum()), found_by_both=int((first & second).sum())
        )
        assert told.completeness == pytest.approx(0.9, abs=0.02)
        errors.append((told.there_are - there) / told.deviation)
    assert abs(np.mean(errors)) < 0.5
    assert 0.6 < np.std(errors) < 1.5


def test_equal_passes_are_complete_and_of_nothing_there_is_no_share() -> None:
    assert Estimate(query="q", found=7, found_again=7, found_by_both=7).completeness == 1
    nothing = Estimate(query="q", found=0, found_again=0, found_by_both=0)
    assert (nothing.completeness, nothing.there_are, nothing.deviation) == (None, 0, 0)
    lost = Estimate(query="q", found=0, found_again=9, found_by_both=0)
    assert lost.completeness == 0


def test_what_both_passes_committed_is_compared_within_the_window(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    for job, videos in (("crawl", "1 2 3 4 6"), ("recapture", "3 4 5")):
        records = [VideoRecord(video_id=i, posted=100 if i < "6" else 10_500) for i in videos.split()]
        commit_answers(Ledger(store, job, {}), search_unit(SWING, WINDOW), records, [], {})
    (told,) = estimate(store, [SWING], WINDOW)
    assert (told.found, told.found_again, told.found_by_both) == (4, 3, 2)
    kept = write_completeness(store, WINDOW, [told])
    assert read_completeness(store) == [kept]
    assert (kept["since"], kept["until"], kept["there_are"]) == (0, 9_999, 5.7)
    assert kept["completeness"] == pytest.approx(4 / (5 * 4 / 3 - 1), abs=1e-4)


@dataclass(frozen=True, slots=True)
class _Noting(FolderStore):
    """A folder that notes what is read."""

    reads: list[str] = field(default_factory=list)

    def read(self, key: str) -> bytes:
        self.reads.append(key)
        return self.path(key).read_bytes()


def test_only_the_commits_of_the_sample_are_read(tmp_path: Path) -> None:
    store = _Noting(tmp_path)
    for word in ("swing", "swim"):
        query = Query(kind="concept", concept=word, text=word)
        for piece in WINDOW.cut(2):
            commit_answers(Ledger(store, "crawl", {}), search_unit(query, piece), [VideoRecord(video_id=word)], [], {})
    store.reads.clear()
    (told,) = estimate(store, [SWING], WINDOW)
    assert told.found == 1
    assert len(store.reads) == 4
    assert all(key.rpartition("/")[2].startswith("swing-") for key in store.reads)


def test_each_round_has_its_estimates_and_all_have_one_together(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert read_completeness(store) == []
    assert combined([]) == {"found": 0, "there_are": 0, "completeness": None, "deviation": 0}
    first = Estimate(query="q", found=90, found_again=80, found_by_both=72)
    later = Estimate(query="q", found=10, found_again=20, found_by_both=10)
    windows = [Window(start=1_000, end=9_999), Window(start=10_000, end=20_000), Window(start=20_001, end=30_000)]
    write_completeness(store, windows[1], [later])
    write_completeness(store, windows[0], [first])
    nothing = write_completeness(store, windows[2], [Estimate(query="q", found=0, found_again=0, found_by_both=0)])
    assert nothing["completeness"] is None
    rounds = read_completeness(store)
    assert [one["until"] for one in rounds] == [9_999, 20_000, 30_000]
    assert [one["found"] for one in rounds] == [90, 10, 0]
    told = combined(rounds)
    assert (told["found"], told["there_are"]) == (100, pytest.approx(first.there_are + later.there_are, abs=0.2))
    assert told["completeness"] == pytest.approx(100 / (first.there_are + later.there_are), abs=1e-3)
    assert told["deviation"] == pytest.approx(first.deviation, abs=0.1)


def test_the_sample_does_not_depend_on_the_order_and_the_second_pass_is_cut_otherwise() -> None:
    queries = [Query(kind="concept", concept=f"c{n}", text=f"c{n}") for n in range(50)]
    assert sample_queries(queries, 5) == sample_queries(queries[::-1], 5)
    assert sample_queries(queries, 5) == sample_queries(queries, 9)[:5]
    units = recapture_units([SWING], WINDOW)
    bounds = [(u.payload["window"]["start"], u.payload["window"]["end"]) for u in units]
    assert bounds == [(0, 3800), (3801, 9999)]
