import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.budget import count_results, estimate, search_calls
from pipeline.crawl import FLICKR_VIDEO_LAUNCH, SearchWorker, Window, query_unit
from pipeline.flickr import Flickr, FlickrSettings
from pipeline.limits import LocalPermits
from pipeline.sandbox.server import serve
from pipeline.sandbox.world import World, WorldConfig
from pipeline.store import FolderStore
from pipeline.units import Ledger
from pipeline.vocabulary import Query

ALWAYS = Window(start=FLICKR_VIDEO_LAUNCH, end=1_735_700_000)


@pytest.mark.usefixtures("sandbox_key")
@pytest.mark.parametrize("num_videos", [300, 2600, 5200])
def test_calls_reckoned_are_the_calls_made(
    num_videos: int, permits: LocalPermits, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("budget")
    world = World(WorldConfig(num_videos=num_videos, shared_tag="sharedtag"), cache=folder)
    queries = [Query(kind="concept", concept=text, text=text) for text in ("sharedtag", "swing", "nothingatall")]
    with serve(world) as server:
        flickr = Flickr(FlickrSettings(rest_url=server.rest_url, contact="a@b.c", calls_per_hour=1e6), permits)
        totals = count_results(flickr, queries, ALWAYS)
        assert server.counters.count("flickr.photos.search") == len(queries)
        search = SearchWorker(Ledger(FolderStore(folder), "crawl", {}), flickr)
        used = [search(query_unit(query, ALWAYS)).counts["calls"] for query in queries]
    assert totals[0] == num_videos
    assert totals[2] == 0
    assert sum(search_calls(total, ALWAYS) for total in totals) == pytest.approx(sum(used), rel=0.25, abs=1)


@given(total=st.integers(0, 10**6))
def test_more_results_never_cost_less_than_their_pages(total: int) -> None:
    calls = search_calls(total, ALWAYS)
    assert calls >= max(1, total / 500)
    assert calls <= 1 + total / 500 * 1.9


def test_the_papers_crawl_costs_what_was_reckoned_by_hand() -> None:
    totals = [8_000_000 // 7000] * 7000  # 2 million videos, each under 4 of 7000 queries
    plans = {e.plan: e for e in estimate(totals, ALWAYS, labels_per_video=4.0, calls_per_hour=3600)}
    videos = plans["B"].videos
    assert videos == pytest.approx(2_000_000, rel=0.01)
    assert plans["A"].calls == pytest.approx(6.02e6, rel=0.01)
    assert plans["B"].calls == pytest.approx(4.25e6, rel=0.01)
    assert plans["C"].calls == pytest.approx(2.25e6, rel=0.01)
    assert plans["D"].calls == pytest.approx(0.25e6, rel=0.02)
    assert plans["B"].hours == plans["B"].calls / 3600
    assert plans["B"].media_requests == 2 * videos
    assert plans["B"].media_bytes == pytest.approx(22e12, rel=0.01)
