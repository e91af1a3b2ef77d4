import time
from itertools import pairwise

import pytest

from pipeline.errors import UserError
from pipeline.sandbox.search import ApiError, Index, Query, SearchQuirks
from pipeline.sandbox.texts import normalised_tag, stem, words_of
from pipeline.sandbox.world import World, WorldConfig

WORLD = World(WorldConfig(seed=2, num_videos=600, shared_tag="everyone"))
ASCENDING = "date-posted-asc"


def index(**quirks: object) -> Index:
    return Index(WORLD, SearchQuirks(**quirks))  # type: ignore[arg-type]


def is_video(video_id: str) -> bool:
    video = WORLD.find(video_id)
    return video is not None and video.media == "video"


def ids(found: object) -> list[str]:
    return [video.video_id for video in found.videos]  # type: ignore[attr-defined]


def test_all_words_must_match_in_title_description_or_tags() -> None:
    found = index().search(Query(text="jumping jack", per_page=500)).videos
    assert len(found) > 20
    for video in found:
        texts = video.texts
        everything = " ".join((texts.title, texts.description, *texts.tags)).lower()
        assert "jumping jack" in everything
    missed = [video for video in WORLD if "jumping jack" in video.labels and video not in found]
    assert missed == []


@pytest.mark.parametrize(
    ("query", "label"),
    [("juggle ball", "juggling balls"), ("push up", "push ups"), ("bike", "biking"), ("row", "rowing")],
)
def test_lemmas_find_inflected_texts(query: str, label: str) -> None:
    found = set(ids(index().search(Query(text=query, per_page=500))))
    assert {video.video_id for video in WORLD if label in video.labels} <= found
    plain = set(ids(index(stemming=False).search(Query(text=query, per_page=500))))
    assert plain < found


def test_a_minus_excludes() -> None:
    found = index().search(Query(text="everyone -swing", per_page=500)).videos
    assert found
    assert not any("swing" in video.labels for video in found)


def test_window_bounds_are_inclusive() -> None:
    posted = sorted(video.posted for video in WORLD)
    found = index().search(Query(text="everyone", since=posted[10], until=posted[20], per_page=500)).videos
    assert sorted(video.posted for video in found) == posted[10:21]


def test_pages_cover_everything_once_in_order() -> None:
    all_of_it = [
        video
        for page in range(1, 7)
        for video in index().search(Query(text="everyone", sort=ASCENDING, page=page)).videos
    ]
    assert len(all_of_it) == 600
    assert [video.posted for video in all_of_it] == sorted(video.posted for video in WORLD)


def test_past_the_cap_the_last_allowed_page_repeats() -> None:
    engine = index(cap=300)
    third, fourth = (engine.search(Query(text="everyone", page=page)) for page in (3, 4))
    assert ids(third) == ids(fourth)
    assert int(fourth.total) == 600
    assert fourth.pages == 6


def test_past_the_cap_can_be_an_error() -> None:
    with pytest.raises(ApiError, match="Excessive photo offset") as raised:
        index(cap=300, past_cap="error").search(Query(text="everyone", page=4))
    assert raised.value.code == 20


def test_past_the_end_repeats_or_is_empty() -> None:
    assert ids(index().search(Query(text="everyone", page=9))) == ids(index().search(Query(text="everyone", page=6)))
    assert ids(index(past_end="empty").search(Query(text="everyone", page=9))) == []


def test_unstable_order_changes_between_calls_but_not_for_oldest_first() -> None:
    engine = index(unstable="descending")
    assert ids(engine.search(Query(text="everyone"))) != ids(engine.search(Query(text="everyone")))
    oldest = Query(text="everyone", sort=ASCENDING)
    assert ids(engine.search(oldest)) == ids(engine.search(oldest))


def test_oldest_first_can_be_unstable_too_by_few_seats() -> None:
    engine = index(unstable="always", unstable_seats=8)
    asked = Query(text="everyone", sort=ASCENDING, per_page=500)
    honest = ids(index().search(asked))
    first, second = ids(engine.search(asked)), ids(engine.search(asked))
    assert first != second
    seats = {video_id: seat for seat, video_id in enumerate(honest)}
    moved = [abs(seats[video_id] - seat) for seat, video_id in enumerate(first) if video_id in seats]
    assert 1 < max(moved) < 8


def test_unstable_pages_overlap_and_miss() -> None:
    engine = index(unstable="always")
    seen = [v for page in range(1, 7) for v in ids(engine.search(Query(text="everyone", sort=ASCENDING, page=page)))]
    assert len(seen) == 600
    assert 500 < len(set(seen)) < 600


def test_thinned_rows_leave_pages_short_and_are_never_found() -> None:
    engine = index(thinned=0.1)
    pages = [engine.search(Query(text="everyone", sort=ASCENDING, page=page)) for page in range(1, 7)]
    assert all(80 <= len(page.videos) < 100 for page in pages)
    assert {int(page.total) for page in pages} == {600}
    seen = {video_id for page in pages for video_id in ids(page)}
    again = {v for page in range(1, 7) for v in ids(engine.search(Query(text="everyone", sort=ASCENDING, page=page)))}
    assert again == seen
    assert engine.findable(Query(text="everyone")) == {i for i in seen if is_video(i)}
    assert ids(pages[1]) == [
        i for i in ids(index().search(Query(text="everyone", sort=ASCENDING, page=2))) if i in seen
    ]


def test_hidden_dates_keep_their_places_and_are_never_found() -> None:
    posted = sorted(video.posted for video in WORLD)
    hidden = index(hidden_from=posted[100], hidden_until=posted[299], total_type="int")
    pages = [hidden.search(Query(text="everyone", sort=ASCENDING, per_page=200, page=page)) for page in (1, 2, 3)]
    assert [len(page.videos) for page in pages] == [100, 100, 200]
    assert {page.total for page in pages} == {600}
    assert hidden.findable(Query(text="everyone")).isdisjoint(
        video.video_id for video in WORLD if posted[100] <= video.posted <= posted[299]
    )
    assert ids(index(hidden_from=posted[0]).search(Query(text="everyone"))) == []


def test_rows_thinned_per_call_come_back() -> None:
    engine = index(thinned_per_call=0.1)
    asked = Query(text="everyone", sort=ASCENDING)
    calls = [set(ids(engine.search(asked))) for _ in range(8)]
    assert all(75 < len(call) < 100 for call in calls)
    assert set.union(*calls) == set(ids(index().search(asked)))
    assert set.intersection(*calls) < calls[0]


def windows(pieces: int) -> list[tuple[int, int]]:
    start, end = 1207699200, 1735603200
    edges = [start + (end + 1 - start) * n // pieces for n in range(pieces + 1)]
    return [(a, b - 1) for a, b in pairwise(edges)]


def test_fuzzy_bounds_give_rows_from_outside_the_window() -> None:
    month = 30 * 86400
    engine = index(fuzzy_seconds=month)
    outside = []
    for since, until in windows(12):
        asked = Query(text="everyone", since=since, until=until, per_page=500)
        found, exact = engine.search(asked), index().search(asked)
        assert set(ids(exact)) <= set(ids(found))
        assert ids(found) == ids(engine.search(asked))
        outside += [v.posted for v in found.videos if not since <= v.posted <= until]
        assert all(since - month <= v.posted <= until + month for v in found.videos)
    assert len(outside) > 20


def test_fuzzy_bounds_can_lose_rows_too_and_narrow_windows_lose_more() -> None:
    engine = index(fuzzy_seconds=30 * 86400, fuzzy_inwards=True)

    def unique(pieces: int) -> int:
        asked = [Query(text="everyone", since=a, until=b, per_page=500) for a, b in windows(pieces)]
        return len({video_id for query in asked for video_id in ids(engine.search(query))})

    assert unique(6) > unique(200)
    assert unique(6) < 600


def test_new_uploads_push_newest_first_pages_and_spare_closed_windows() -> None:
    newest = index(growing=5)
    first, second = (newest.search(Query(text="everyone", page=page)) for page in (1, 2))
    assert int(first.total) == 540
    assert int(second.total) == 545
    assert ids(second)[:5] == ids(first)[-5:]
    closed = index(growing=5)
    asked = [Query(text="everyone", sort=ASCENDING, until=closed.present_until, page=page) for page in range(1, 7)]
    assert len({video_id for query in asked for video_id in ids(closed.search(query))}) == 540
    assert {int(closed.search(asked[0]).total) for _ in range(30)} == {540}
    assert int(closed.search(Query(text="everyone")).total) == 600


def test_totals_can_be_short_by_chance() -> None:
    engine = index(under_reported=0.4, under_reporting="per_call")
    totals = {int(engine.search(Query(text="everyone")).total) for _ in range(40)}
    assert len(totals) > 10
    assert min(totals) >= 360
    assert max(totals) <= 600


def test_only_safe_videos_are_found_unless_the_index_is_stale() -> None:
    world = World(WorldConfig(seed=2, num_videos=400, shared_tag="everyone", unsafe_rate=0.2, num_photos=2))
    asked = Query(text="everyone", per_page=500)
    found = Index(world, SearchQuirks()).search(asked).videos
    assert {video.safety_level for video in found} == {0}
    assert 290 < len(found) < 350
    stale = Index(world, SearchQuirks(stale_safety=0.5)).search(asked).videos
    assert {video.safety_level for video in stale} == {0, 1, 2}
    safe = {video.video_id for video in world if video.safety_level == 0 and video.media == "video"}
    assert Index(world, SearchQuirks(stale_safety=0.5)).findable(asked) == safe


def test_findable_is_the_truth_whatever_search_shows() -> None:
    honest, odd = index(), index(cap=100, fuzzy_seconds=10**7, unstable="always", under_reported=0.5, growing=1)
    posted = sorted(video.posted for video in WORLD)
    asked = Query(text="juggle ball", since=posted[100], until=posted[500], licenses=frozenset({0}), per_page=500)
    found = {video_id for video_id in ids(honest.search(asked)) if is_video(video_id)}
    assert len(found) > 10
    assert honest.findable(asked) == odd.findable(asked) == found
    assert len(odd.findable(Query(text="everyone"))) == 599


def test_a_member_under_several_licences_can_be_nothing() -> None:
    owner = WORLD.video(3).owner.nsid
    asked = Query(owner=owner, licenses=frozenset({0, 4, 5}))
    assert index().search(asked).videos
    odd = index(owner_needs_one_license=True)
    assert int(odd.search(asked).total) == 0
    assert odd.search(Query(owner=owner, licenses=frozenset({0}))).videos


def test_more_in_one_second_than_search_shows_can_be_told_apart_by_licence_only() -> None:
    world = World(WorldConfig(seed=6, num_videos=5200, same_second=4800, shared_tag="everyone", trouble_rate=0.0))
    second = world.video(0).posted
    engine = Index(world, SearchQuirks(unstable="always"))

    def seen(licenses: frozenset[int] | None) -> set[str]:
        pages = [
            engine.search(
                Query(
                    text="everyone", since=second, until=second, licenses=licenses, page=p, per_page=500, sort=ASCENDING
                )
            )
            for p in range(1, 13)
        ]
        assert int(pages[0].total) > 4000 or licenses is not None
        return {video_id for page in pages for video_id in ids(page)}

    assert len(seen(None)) < 4400
    parts = [seen(frozenset({one})) for one in (*range(17), 99)]
    assert sum(map(len, parts)) > 4500
    assert len(set.union(*parts)) > 4500


def test_totals_are_under_reported_and_of_mixed_types() -> None:
    assert index(under_reported=0.5).search(Query(text="everyone")).total == 300
    totals = [index().search(Query(text="everyone", page=page)).total for page in (1, 2)]
    assert totals == [600, "600"]


def test_shift_repeats_rows_of_the_page_before() -> None:
    engine = index()
    first, second = (engine.search(Query(text="everyone", page=page, shift=page * 5 - 5)) for page in (1, 2))
    assert ids(second)[:5] == ids(first)[-5:]


def test_licences_owner_tags_and_geo_filter() -> None:
    engine = index()
    assert {
        v.license for v in engine.search(Query(text="everyone", licenses=frozenset({4, 5}), per_page=500)).videos
    } == {4, 5}
    owner = WORLD.video(3).owner.nsid
    assert {v.owner.nsid for v in engine.search(Query(owner=owner)).videos} == {owner}
    assert all(v.place for v in engine.search(Query(text="everyone", has_geo=True)).videos)
    both = engine.search(Query(tags=("New York", "video"), all_tags=True, per_page=500)).videos
    assert all({"New York", "video"} <= set(v.texts.tags) for v in both)
    assert len(engine.search(Query(tags=("New York", "video"), per_page=500)).videos) > len(both) > 0


def test_photos_slip_in_among_videos() -> None:
    assert "photo" in {
        video.media for video in index().search(Query(text="everyone", media="videos", per_page=500)).videos
    } | {video.media for video in index().search(Query(text="everyone", media="videos", per_page=500, page=2)).videos}


def test_twenty_thousand_matches_page_quickly() -> None:
    world = World(WorldConfig(seed=3, num_videos=20_000, shared_tag="everyone"))
    start = time.perf_counter()
    engine = Index(world, SearchQuirks(cap=1_000_000))
    seen = {
        video_id
        for page in range(1, 41)
        for video_id in ids(engine.search(Query(text="everyone", page=page, per_page=500)))
    }
    assert len(seen) == 20_000
    assert time.perf_counter() - start < 15


@pytest.mark.parametrize(
    ("raw", "stored"),
    [
        ("New York", "newyork"),
        ("Body-weight squats", "bodyweightsquats"),
        ("🎉", "🎉"),
        ("été", "été"),
        ("geo:lat=5", "geo:lat=5"),
    ],
)
def test_tags_are_normalised(raw: str, stored: str) -> None:
    assert normalised_tag(raw) == stored


def test_words_leave_out_markup_and_stems_agree() -> None:
    assert words_of('<a href="x">Push-ups</a> &amp; GO') == ["push", "ups", "amp", "go"]
    assert {stem(word) for word in ("juggle", "juggling", "juggles", "juggled")} == {"juggl"}
    assert stem("swing") == "swing"


@pytest.mark.parametrize(
    ("quirks", "message"),
    [
        ({"cap": 0}, "need cap, unstable_seats >= 1"),
        ({"growing": -1}, "growing >= 0"),
        ({"thinned": 1.0}, "thinned must be at least 0 and below 1, got 1.0"),
        ({"unstable": True}, "unstable must be one of never, descending, always, got True"),
    ],
)
def test_quirks_that_make_no_sense_are_refused(quirks: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SearchQuirks(**quirks)  # type: ignore[arg-type]
