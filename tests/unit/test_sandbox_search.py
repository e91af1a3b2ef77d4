import time

import pytest

from pipeline.errors import UserError
from pipeline.sandbox.search import ApiError, Index, Query, SearchQuirks
from pipeline.sandbox.texts import normalised_tag, stem, words_of
from pipeline.sandbox.world import World, WorldConfig

WORLD = World(WorldConfig(seed=2, num_videos=600, shared_tag="everyone"))
ASCENDING = "date-posted-asc"


def index(**quirks: object) -> Index:
    return Index(WORLD, SearchQuirks(**quirks))  # type: ignore[arg-type]


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
    engine = index(unstable=True)
    assert ids(engine.search(Query(text="everyone"))) != ids(engine.search(Query(text="everyone")))
    oldest = Query(text="everyone", sort=ASCENDING)
    assert ids(engine.search(oldest)) == ids(engine.search(oldest))


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


def test_quirks_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="cap >= 1"):
        SearchQuirks(cap=0)
