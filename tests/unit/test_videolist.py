import pyarrow as pa
import pytest

from pipeline.videolist import VideoList

VIDEOS = {"b": (0, 2), "a": (), "c": (1,)}


def _list(videos: dict[str, tuple[int, ...]]) -> VideoList:
    labels = pa.chunked_array([list(map(list, videos.values()))], pa.list_(pa.int32()))
    return VideoList(pa.chunked_array([list(videos)], pa.string()), labels)


@pytest.mark.parametrize("videos", [VIDEOS, {}])
def test_a_list_is_the_mapping_it_was_made_of(
    videos: dict[str, tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.videolist._CHUNK", 2)
    made = _list(videos)
    assert made == videos
    assert videos == made
    assert list(made) == list(videos)
    assert list(made.items()) == list(videos.items())
    assert list(made.values()) == list(videos.values())
    assert (len(made), made.num_labels()) == (len(videos), sum(map(len, videos.values())))


def test_videos_are_looked_up_by_id() -> None:
    made = _list(VIDEOS)
    assert made["b"] == (0, 2)
    assert "a" in made
    assert "d" not in made
    assert {**made, "d": (3,)} == {**VIDEOS, "d": (3,)}
