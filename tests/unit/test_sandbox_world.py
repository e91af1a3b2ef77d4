import hashlib
import io
import time
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import av
import pytest

from pipeline.errors import UserError
from pipeline.sandbox.actions import ACTIONS
from pipeline.sandbox.videos import UNSERVED
from pipeline.sandbox.world import World, WorldConfig

SMALL = WorldConfig(seed=4, num_videos=12, max_seconds=2.0)


def test_same_seed_gives_the_same_metadata() -> None:
    assert list(World(WorldConfig(seed=7, num_videos=60))) == list(World(WorldConfig(seed=7, num_videos=60)))


def test_another_seed_gives_other_metadata() -> None:
    first, second = World(WorldConfig(seed=7)), World(WorldConfig(seed=8))
    assert {video.video_id for video in first}.isdisjoint(video.video_id for video in second)
    assert [video.texts for video in first] != [video.texts for video in second]


def test_same_seed_gives_the_same_bytes_and_another_other_bytes(tmp_path: Path) -> None:
    def content(config: WorldConfig, folder: str) -> bytes:
        world = World(config, cache=tmp_path / folder)
        return world.media(world.video(1).video_id).read_bytes()

    assert content(SMALL, "a") == content(SMALL, "b")
    assert content(SMALL, "a") != content(WorldConfig(seed=5, num_videos=12, max_seconds=2.0), "c")


def test_two_processes_render_what_one_does(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    one, two = World(SMALL, cache=tmp_path / "one"), World(SMALL, cache=tmp_path / "two")
    one.render_all(processes=1)
    two.render_all(processes=2, progress=lambda done, total: told.append((done, total)))
    videos = [video for video in one if video.media == "video" and video.trouble not in UNSERVED]
    assert told == [(done, len(videos)) for done in range(1, len(videos) + 1)]
    for video in videos:
        assert one.media_path(video).read_bytes() == two.media_path(video).read_bytes()
    leftovers = [path for path in (tmp_path / "two").rglob("*") if ".part" in path.name]
    assert leftovers == []


def test_media_is_rendered_once(tmp_path: Path) -> None:
    world = World(SMALL, cache=tmp_path)
    path = world.media(world.video(0).video_id)
    written = path.stat().st_mtime_ns
    assert world.media(world.video(0).video_id) == path
    assert path.stat().st_mtime_ns == written


def test_files_are_what_their_form_says(tmp_path: Path) -> None:
    world = World(WorldConfig(seed=1, num_videos=60, max_seconds=2.0, trouble_rate=0.0), cache=tmp_path)
    seen = set()
    for video in world:
        form = video.form
        if video.media == "photo" or (form.codec, form.container) in seen:
            continue
        seen.add((form.codec, form.container))
        with av.open(io.BytesIO(world.media(video.video_id).read_bytes())) as container:
            stream = container.streams.video[0]
            stored = (form.height, form.width) if form.rotated else (form.width, form.height)
            assert (stream.width, stream.height) == stored
            assert stream.codec_context.name == form.codec
            assert bool(container.streams.audio) == form.audio
            frames = sum(1 for _ in container.decode(video=0))
        left_out = sum(number % 23 in (7, 8, 9) for number in range(form.num_frames)) if form.irregular else 0
        assert frames == form.num_frames - left_out
    assert len(seen) >= 5


def test_broken_files_are_broken(tmp_path: Path) -> None:
    world = World(WorldConfig(num_videos=40, trouble_rate=1.0, troubles=("zero_length", "html_file")), cache=tmp_path)
    bodies = {video.trouble: world.media(video.video_id).read_bytes() for video in world if video.media == "video"}
    assert bodies["zero_length"] == b""
    assert bodies["html_file"].startswith(b"<!DOCTYPE html>")


def test_labels_are_wrong_as_often_as_asked() -> None:
    world = World(WorldConfig(num_videos=3000, wrong_label_rate=0.2))
    told = [(label, video) for video in world for label in video.labels]
    wrong = sum(label not in video.true_actions for label, video in told) / len(told)
    assert wrong == pytest.approx(0.2, abs=0.02)
    unmentioned = [video for video in world if set(video.true_actions) - set(video.labels)]
    assert len(unmentioned) > 300


def test_actions_are_long_tailed_and_none_is_missing() -> None:
    counts = Counter(video.true_actions[0] for video in World(WorldConfig(num_videos=240)))
    assert set(counts) == set(ACTIONS)
    assert min(counts.values()) >= 4
    assert max(counts.values()) > 3 * min(counts.values())


def test_metadata_has_the_awkward_cases() -> None:
    videos = list(World(WorldConfig(num_videos=3000)))
    places = [video.place for video in videos if video.place is not None]
    assert 0.28 < len(places) / len(videos) < 0.4
    assert any(place.country == "Namibia" for place in places)
    assert any((place.latitude, place.longitude) == (0, 0) for place in places)
    assert any(place.accuracy == 0 for place in places)
    assert {video.license for video in videos} == {*range(17), 99}
    assert any(video.taken is None for video in videos)
    assert any(video.owner.path_alias is None for video in videos)
    assert any(video.texts.title.isdigit() for video in videos)
    assert any(len(video.comments) > len({c.author for c in video.comments}) for video in videos)
    assert {video.trouble for video in videos} >= {None, "deleted", "private", "processing", "failed", "player_only"}
    assert [video.media for video in videos].count("photo") == 1


def test_twenty_thousand_videos_are_quick() -> None:
    start = time.perf_counter()
    videos = list(World(WorldConfig(seed=99, num_videos=20_000, shared_tag="sports")))
    assert time.perf_counter() - start < 10
    assert len({video.video_id for video in videos}) == 20_000
    assert all("sports" in video.texts.tags for video in videos)


def posted_years(config: WorldConfig) -> list[int]:
    return [datetime.fromtimestamp(video.posted, UTC).year for video in World(config)]


def test_uploads_can_grow_over_the_years_or_burst() -> None:
    even, growing = (posted_years(WorldConfig(num_videos=2000, dates=dates)) for dates in ("even", "growing"))
    assert 0.4 < sum(year < 2016 for year in even) / 2000 < 0.5
    assert sum(year < 2016 for year in growing) / 2000 < 0.2
    assert min(growing) < 2012
    burst = [video.posted for video in World(WorldConfig(num_videos=2000, dates="burst"))]
    hot = sum(1372636800 <= posted < 1372636800 + 31 * 86400 for posted in burst)
    assert 0.36 < hot / 2000 < 0.45
    assert max(burst) - min(burst) > 15 * 365 * 86400


def test_batches_share_a_second() -> None:
    videos = list(World(WorldConfig(num_videos=2000, batch_uploads=0.5)))
    shared = sum(one.posted == other.posted for one, other in pairwise(videos))
    assert 0.45 < shared / 2000 < 0.55
    assert max(Counter(video.posted for video in videos).values()) >= 6
    assert all(video.taken is None or video.taken < posted_text(video.posted) for video in videos)
    together = list(World(WorldConfig(num_videos=5000, same_second=4500)))
    assert len({video.posted for video in together[:4500]}) == 1
    assert len({video.posted for video in together[4500:]}) > 490


def posted_text(posted: int) -> str:
    return datetime.fromtimestamp(posted, UTC).strftime("%Y-%m-%d %H:%M:%S")


def test_shapes_of_worlds() -> None:
    config = WorldConfig(
        num_videos=1500, comment_rate=0.1, located_rate=0.8, unsafe_rate=0.1, odd_title_rate=0.05, stray_labels=3.0
    )
    videos, plain = list(World(config)), list(World(WorldConfig(num_videos=1500)))
    shares = {
        "comments": sum(bool(video.comments) for video in videos) / 1500,
        "places": sum(video.place is not None for video in videos) / 1500,
        "unsafe": sum(video.safety_level > 0 for video in videos) / 1500,
        "odd": sum(video.texts.title != other.texts.title for video, other in zip(videos, plain, strict=True)) / 1500,
    }
    assert shares == pytest.approx({"comments": 0.1, "places": 0.8, "unsafe": 0.1, "odd": 0.05}, abs=0.03)
    labels = [len(video.labels) for video in videos]
    assert sum(labels) / 1500 > 4
    assert sum(count >= 4 for count in labels) > 700
    for video in videos[:200]:
        assert len(set(video.labels)) == len(video.labels)


def test_worlds_stay_what_they_were() -> None:
    """Measurements were made on these worlds: a change of what they contain makes them worthless."""
    shown = [
        (v.video_id, v.secret, v.owner.nsid, v.texts.title, v.texts.description, v.texts.tags, v.posted, v.taken,
         v.license, v.views, v.labels, v.true_actions, v.trouble, len(v.comments), v.place and v.place.country)
        for v in World(WorldConfig())
    ]  # fmt: skip
    assert hashlib.sha256(repr(shown).encode()).hexdigest()[:16] == "276b06c998b713d7"


def test_find_knows_its_own_ids_only() -> None:
    world = World(SMALL)
    for video in world:
        assert world.find(video.video_id) == video
        assert world.find(str(int(video.video_id) + 1)) is None
    for text in ("", "abc", "1", "-5", "99999999999999"):
        assert world.find(text) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"actions": ("flying",)}, "the sandbox has no action 'flying'"),
        ({"actions": ()}, "actions must be one or more different names"),
        ({"num_videos": 1, "num_photos": 1}, "more videos than photos"),
        ({"min_seconds": 5.0, "max_seconds": 2.0}, "seconds must be in 0 < min <= max"),
        ({"dates": "never"}, "dates must be one of even, growing, burst, got 'never'"),
        ({"same_second": 300}, "nor same_second beyond num_videos"),
        ({"unsafe_rate": -0.1}, "unsafe_rate must be between 0 and 1, got -0.1"),
        ({"wrong_label_rate": 1.5}, "wrong_label_rate must be between 0 and 1, got 1.5"),
    ],
)
def test_configs_that_make_no_sense_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        WorldConfig(**changes)  # type: ignore[arg-type]


def test_a_video_that_is_not_there_has_no_media(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no video '123' in this world"):
        World(SMALL, cache=tmp_path).media("123")
