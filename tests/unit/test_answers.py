import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import flickr
from pipeline.answers import (
    comments_of_list,
    hashed_authors,
    nameless_info,
    nameless_search,
    nameless_sizes,
    renditions_of_sizes,
    video_of_search,
    with_info,
)
from pipeline.records import Found, VideoRecord, from_parquet, to_parquet
from pipeline.sandbox import answers as sandbox
from pipeline.sandbox.world import World

FOUND = Found(query="walk", window="0-9", page=1, crawled=5)
EXTRAS = frozenset(flickr.EXTRAS.split(","))


def test_every_video_of_the_sandbox_is_read_as_it_was_made(world: World) -> None:
    for video in world:
        if video.media == "photo":
            continue
        row = json.loads(json.dumps(sandbox.search_row(video, EXTRAS, "http://h")))
        info = json.loads(json.dumps(sandbox.info_answer(video, "http://h")))
        record = with_info(video_of_search(row, FOUND), info)
        assert (record.video_id, record.title) == (video.video_id, video.texts.title)
        assert (record.description, record.tags) == (video.texts.description, tuple(filter(None, video.texts.tags)))
        assert (record.posted, record.license, record.views) == (video.posted, video.license, video.views)
        assert record.taken == (video.taken.replace(" ", "T") if video.taken else None)
        assert record.duration_seconds == max(round(video.form.seconds), 1)
        known = video.place is not None and video.place.accuracy and (video.place.latitude or video.place.longitude)
        assert (record.latitude is not None) == bool(known)
        assert record.dropped == {"processing": "still_processing", "failed": "never_playable"}.get(video.trouble or "")
        assert record.num_comments == len(video.comments)
        sizes = renditions_of_sizes(json.loads(json.dumps(sandbox.sizes_answer(video, "http://h"))))
        assert [r.label for r in sizes] == sandbox.labels_of(video)
        assert all("/play/" in r.url for r in sizes)


@pytest.mark.parametrize(
    ("given", "column", "read"),
    [
        ({"title": 700}, "title", "700"),
        ({"title": {"_content": "x"}}, "title", "x"),
        ({"title": None}, "title", ""),
        ({"title": "cut \ud83d"}, "title", "cut ?"),
        ({"views": "70"}, "views", 70),
        ({"views": "many"}, "views", None),
        ({"views": "1e999"}, "views", None),
        ({"views": float("nan")}, "views", None),
        ({"license": 2**40}, "license", None),
        ({"datetaken": "2010-00-00 00:00:00"}, "taken", None),
        ({"datetaken": "2010-05-06 07:08:09"}, "taken", "2010-05-06T07:08:09"),
        ({"datetaken": "2010-05-06 07:08:09", "datetakenunknown": "1"}, "taken", None),
        ({"latitude": 0, "longitude": 0, "accuracy": 16}, "latitude", None),
        ({"latitude": "NaN", "longitude": 5, "accuracy": 16}, "latitude", None),
        ({"latitude": "91", "longitude": 5, "accuracy": 16}, "latitude", None),
        ({"latitude": "-22.5", "longitude": "17", "accuracy": "16"}, "latitude", -22.5),
        ({"latitude": 5, "longitude": 5, "accuracy": 0}, "latitude", None),
        ({"latitude": 0, "longitude": 5, "accuracy": 9}, "latitude", 0.0),
        ({"tags": ""}, "tags", ()),
        ({"tags": 2009}, "tags", ("2009",)),
    ],
)
def test_whatever_type_a_value_comes_in_it_is_read_or_none(given: dict[str, Any], column: str, read: Any) -> None:
    record = video_of_search({"id": 7, **given}, FOUND)
    assert record.video_id == "7"
    assert getattr(record, column) == read


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=()), max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["_content", "tag", "raw"]), inner),
    max_leaves=6,
)
NAMES = "title description tags dateupload datetaken latitude longitude accuracy license views owner media video dates"


@settings(max_examples=150, deadline=None)
@given(photo=st.dictionaries(st.sampled_from([*NAMES.split(), "location", "comments", "secret"]), JSON))
def test_no_answer_is_too_odd_to_be_stored(photo: dict[str, Any]) -> None:
    record = with_info(video_of_search({"id": "1", **photo}, FOUND), {"photo": photo})
    assert list(from_parquet(to_parquet([record]))) == [record]


def test_posters_and_the_dead_player_are_no_renditions() -> None:
    sizes = [
        {"label": "Square", "source": "http://h/s.jpg", "media": "photo", "width": 75, "height": 75},
        {"label": "Video Player", "source": "http://h/p.swf", "media": "video", "width": "640", "height": 360},
        {"label": 700, "source": "http://h/700", "media": "video", "width": None, "height": None},
        {"label": "360p", "source": "http://h/360", "media": "video", "width": "640", "height": 360},
        {"label": "lost", "media": "video"},
    ]
    found = renditions_of_sizes({"sizes": {"size": sizes}})
    assert [(r.label, r.width, r.height) for r in found] == [("700", None, None), ("360p", 640, 360)]
    assert renditions_of_sizes({"sizes": {}}) == ()


def test_a_comments_author_is_a_hash_that_only_this_root_can_make(world: World) -> None:
    video = next(v for v in world if len(v.comments) > 1)
    answer = sandbox.comments_answer(video, "http://h")
    kept = hashed_authors(answer, hash_key=b"one root")
    one = comments_of_list(kept)
    assert [(c.text, c.posted) for c in one] == [(c.text, c.posted) for c in video.comments]
    other = comments_of_list(hashed_authors(answer, hash_key=b"another root"))
    assert {c.author_hash for c in one}.isdisjoint(c.author_hash for c in other)
    assert len({c.author_hash for c in one}) == len({c.author.nsid for c in video.comments})
    for comment in video.comments:
        assert comment.author.nsid not in json.dumps(kept)
        assert comment.author.nsid.partition("@")[0] not in json.dumps(kept)
    assert comments_of_list(hashed_authors({"comments": {}}, hash_key=b"")) == ()


def test_answers_are_kept_without_names_and_read_as_before(world: World) -> None:
    videos = [v for v in world if v.media == "video"]
    everything = frozenset((*EXTRAS, "owner_name", "path_alias", "realname", "icon_server"))
    rows = [sandbox.search_row(video, everything, "http://h") for video in videos]
    search = {"photos": {"total": "60", "photo": rows}, "stat": "ok"}
    kept = nameless_search(search)
    assert kept["photos"]["total"] == "60"
    for video, row, slim in zip(videos, rows, kept["photos"]["photo"], strict=True):
        assert video_of_search(slim, FOUND) == video_of_search(row, FOUND)
        info, sizes = sandbox.info_answer(video, "http://h"), sandbox.sizes_answer(video, "http://h")
        info["photo"]["notes"] = {"note": [{"author": "9@N01", "authorname": "Some Body", "_content": "hi"}]}
        assert with_info(VideoRecord(video_id="1"), nameless_info(info)) == with_info(VideoRecord(video_id="1"), info)
        assert renditions_of_sizes(nameless_sizes(sizes)) == renditions_of_sizes(sizes)
        told = json.dumps([slim, nameless_info(info)], ensure_ascii=False)
        owner = video.owner
        for name in (owner.username, owner.realname, owner.path_alias, owner.location, "Some Body", "9@N01"):
            assert not name or name not in told
        assert owner.nsid in told
    assert nameless_info({"photo": {}}) == {"photo": {}}


def test_a_record_keeps_what_details_do_not_tell() -> None:
    record = VideoRecord(video_id="1", tags=("a",), posted=5, owner="o@N1", secret="s")
    enriched = with_info(record, {"photo": {"tags": {"tag": [{"raw": ""}]}}})
    assert (enriched.tags, enriched.posted, enriched.owner, enriched.secret) == (("a",), 5, "o@N1", "s")
    assert io.BytesIO(to_parquet([enriched])).getbuffer().nbytes > 0
