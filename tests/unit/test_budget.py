import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.budget import (
    FirstPage,
    Probe,
    Size,
    different_share,
    estimate,
    first_page,
    page_of,
    probe,
    search_calls,
    size_of,
    together,
)
from pipeline.catalogue import Keep
from pipeline.crawl import SearchWorker, search_unit
from pipeline.flickr import Flickr, FlickrSettings
from pipeline.limits import LocalPermits
from pipeline.records import VideoRecord
from pipeline.sandbox.server import serve
from pipeline.sandbox.world import World, WorldConfig
from pipeline.store import FolderStore
from pipeline.units import Finished, Ledger, work_here
from pipeline.vocabulary import Query
from pipeline.windows import FLICKR_VIDEO_LAUNCH, Window

ALWAYS = Window(start=FLICKR_VIDEO_LAUNCH, end=1_735_700_000)
SEARCH = "flickr.photos.search"


def concept(text: str) -> Query:
    return Query(kind="concept", concept=text, text=text)


@pytest.mark.usefixtures("sandbox_key")
@pytest.mark.parametrize("num_videos", [300, 2600, 5200])
def test_calls_reckoned_are_the_calls_made_and_pages_asked_for_the_plan_are_the_crawls(
    num_videos: int, permits: LocalPermits, tmp_path: Path
) -> None:
    world = World(WorldConfig(num_videos=num_videos, shared_tag="sharedtag"), cache=tmp_path / "world")
    queries = [concept("sharedtag"), concept("swing"), concept("nothingatall")]
    with serve(world) as server:
        flickr = Flickr(FlickrSettings(rest_url=server.rest_url, contact="a@b.c", calls_per_hour=1e7), permits)
        search = SearchWorker(Ledger(FolderStore(tmp_path / "root"), "crawl", {}), flickr)
        pages = [first_page(search, query, ALWAYS, keep=Keep()) for query in queries]
        assert server.counters.count(SEARCH) == len(queries)
        results = list(work_here([search_unit(q, ALWAYS) for q in queries], lambda permits: search, permits=permits))
        used = sum(result.counts["calls"] for result in results if isinstance(result, Finished))
        assert server.counters.count(SEARCH) == used
        again = [first_page(search, query, ALWAYS, keep=Keep()) for query in queries]
        assert server.counters.count(SEARCH) == used
    assert again == pages
    assert [page.whole for page in pages] == [page.total < 450 for page in pages]
    assert pages[0].total == num_videos
    assert pages[2].total == 0
    assert sum(search_calls(page.total, ALWAYS) for page in pages) == pytest.approx(used, rel=0.1, abs=1)


@given(total=st.integers(0, 10**6))
def test_more_results_never_cost_less_than_their_pages(total: int) -> None:
    calls = search_calls(total, ALWAYS)
    assert calls >= max(1, total / 500)
    assert calls <= 2 + total / 500 * 1.6


def page(text: str, total: int, records: list[VideoRecord], *, whole: bool, keep: Keep = Keep()) -> FirstPage:  # noqa: B008
    return page_of(concept(text), total, records, keep=keep, whole=whole)


def _pages(labels: np.ndarray, *, sampled: int, rng: np.random.Generator) -> list[FirstPage]:
    """First pages of some of the queries of a made-up world; `labels[v, q]` says whether query q finds video v."""
    pages = []
    for query in rng.permutation(labels.shape[1])[:sampled]:
        videos = np.flatnonzero(labels[:, query])  # numbered by their upload dates
        shown = [VideoRecord(video_id=str(v), posted=1_300_000_000 + int(v)) for v in videos[:500]]
        pages.append(page(f"q{query}", len(videos), shown, whole=len(videos) < 450))
    return pages


def _made_up(mean: float, seed: int, *, sampled: int) -> tuple[list[FirstPage], int]:
    """8,000 videos under 1 + Poisson(mean) of 40 queries of very different sizes: first pages, and all hits."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((8000, 40), bool)
    popularity = rng.dirichlet(np.full(40, 1.5))
    for row in labels:
        row[rng.choice(40, size=min(40, 1 + rng.poisson(mean)), replace=False, p=popularity)] = True
    return _pages(labels, sampled=sampled, rng=rng), int(labels.sum())


@pytest.mark.parametrize("mean", [0.0, 0.3, 3.0])
def test_how_many_different_videos_there_are_is_told_from_first_pages(mean: float) -> None:
    errors = []
    for seed in range(5):
        pages, hits = _made_up(mean, seed, sampled=40)
        size = size_of(pages, ALWAYS, num_queries=40, min_videos=1, check_queries=0)
        assert (size.hits, size.error) == (hits, 0)
        errors.append(size.videos / 8000 - 1)
    assert abs(float(np.mean(errors))) < 0.05
    assert max(map(abs, errors)) < 0.1


@pytest.mark.parametrize("mean", [0.0, 1.0, 3.0])
def test_a_sample_of_the_queries_tells_how_far_off_it_may_be(mean: float) -> None:
    off = []
    for seed in range(10):
        pages, _ = _made_up(mean, seed, sampled=20)
        size = size_of(pages, ALWAYS, num_queries=40, min_videos=1, check_queries=0)
        assert 0 < size.error < 0.6
        off.append((size.videos / 8000 - 1) / size.error)
    assert sum(abs(o) > 1 for o in off) <= 3  # one in twenty would be the ideal


def test_a_video_is_not_compared_with_queries_whose_first_page_ends_before_it() -> None:
    early, late = VideoRecord(video_id="1", posted=100), VideoRecord(video_id="2", posted=900)
    crowded = page("a", 5000, [early], whole=False)
    small = [page(name, 2, [early, late], whole=True) for name in "bc"]
    # The late one is in both queries that reach it, which are 4 of the 5,004 hits: too little to tell, and not wrong.
    assert different_share([crowded, *small], 3) < 0.6
    alone = page("d", 5000, [VideoRecord(video_id="3", posted=100)], whole=False)
    assert different_share([crowded, alone], 2) == 1
    assert different_share([crowded], 1) == 1


def test_filters_and_small_classes_are_left_out_of_what_is_asked_after() -> None:
    records, keep = [VideoRecord(video_id=str(n), license=n % 2, posted=n) for n in range(100)], Keep(licenses=(1,))
    pages = [page("a", 100, records, whole=True, keep=keep), page("b", 3, records[:3], whole=True, keep=keep)]
    size = size_of(pages, ALWAYS, num_queries=2, min_videos=11, check_queries=20)
    assert (size.hits, size.searches) == (103, 2 + 2 * 2)
    assert size.videos == pytest.approx(100, abs=3)
    assert size.wanted == pytest.approx(50, abs=3)
    both = together([size, size])
    assert (both.hits, both.videos, both.error) == (206, 2 * size.videos, 0)
    assert both.commented is None


def test_the_papers_crawl_costs_what_was_reckoned_by_hand() -> None:
    searches = 7000 * search_calls(8_000_000 // 7000, ALWAYS)
    size = Size(hits=8e6, videos=2e6, wanted=2e6, searches=searches, error=0.0, commented=0.115)
    probed = Probe(asked=0, alive=1.0, commented=0.115, mean_seconds=123.0)
    plans = {e.plan: e for e in estimate(size, probed, calls_per_hour=3600)}
    assert plans["A"].calls == pytest.approx(6.02e6, rel=0.01)
    assert plans["B"].calls == pytest.approx(4.25e6, rel=0.01)
    assert plans["C"].calls == pytest.approx(2.25e6, rel=0.01)
    assert plans["D"].calls == pytest.approx(0.25e6, rel=0.02)
    assert plans["B"].hours == plans["B"].calls / 3600
    assert plans["B"].media_requests == 4e6
    assert plans["B"].media_bytes == pytest.approx(22e12, rel=0.01)
    assert 5e12 < plans["B"].stored_bytes < 15e12


@pytest.mark.usefixtures("sandbox_key")
def test_a_probe_tells_who_is_alive_and_how_long(world: World, permits: LocalPermits, tmp_path: Path) -> None:
    with serve(world) as server:
        flickr = Flickr(FlickrSettings(rest_url=server.rest_url, contact="a@b.c", calls_per_hour=1e7), permits)
        search = SearchWorker(Ledger(FolderStore(tmp_path), "crawl", {}), flickr)
        pages = [first_page(search, concept("swing"), ALWAYS, keep=Keep())]
        found = set(pages[0].ids)
        probed = probe(flickr, pages, 1000)
        nobody = probe(flickr, pages, 0)
    there = [v for v in world if v.video_id in found]
    alive = [v for v in there if v.trouble not in ("deleted", "private", "processing", "failed")]
    assert probed.asked == len(there)
    assert probed.alive == pytest.approx(len(alive) / len(there))
    assert probed.commented == pytest.approx(sum(bool(v.comments) for v in alive) / len(alive))
    assert 0 < probed.mean_seconds < 5
    assert (nobody.asked, nobody.alive, nobody.mean_seconds) == (0, 1.0, 123.0)
    assert math.isclose(nobody.commented, 0.115)
    assert pages[0].commented == sum(bool(v.comments) for v in there)
