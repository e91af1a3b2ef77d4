import re
from pathlib import Path

import av
import pytest

from pipeline.errors import UserError
from pipeline.sandbox.downstream import DownstreamConfig, write_hmdb51, write_ucf101

CONFIG = DownstreamConfig(
    actions=("push ups", "swing"), train_per_class=3, test_per_class=8, max_seconds=2.0, width=64, height=48
)


def lines(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def test_ucf101_has_the_official_layout(tmp_path: Path) -> None:
    write_ucf101(tmp_path, CONFIG)
    classes = lines(tmp_path / "ucfTrainTestlist" / "classInd.txt")
    assert classes == [["1", "PushUps"], ["2", "Swing"]]
    train, test = (lines(tmp_path / "ucfTrainTestlist" / f"{name}list01.txt") for name in ("train", "test"))
    assert (len(train), len(test)) == (6, 16)
    assert all(number == {"PushUps": "1", "Swing": "2"}[name.split("/")[0]] for name, number in train)
    named = [row[0] for row in train + test]
    assert sorted(named) == sorted(
        str(p.relative_to(tmp_path / "UCF-101")) for p in (tmp_path / "UCF-101").rglob("*.avi")
    )
    groups = [int(re.fullmatch(r"(\w+)/v_\1_g(\d\d)_c\d\d\.avi", name)[2]) for name in named]  # type: ignore[index]
    assert min(groups[:6]) > 7 >= max(groups[6:])
    with av.open(str(tmp_path / "UCF-101" / named[0])) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate, stream.width) == ("mpeg4", 25, 64)
        assert sum(1 for _ in container.decode(video=0)) == 50


def test_hmdb51_has_the_official_layout(tmp_path: Path) -> None:
    write_hmdb51(tmp_path, CONFIG, processes=2)
    for word in ("push_ups", "swing"):
        rows = lines(tmp_path / "testTrainMulti_7030_splits" / f"{word}_test_split1.txt")
        assert [mark for _, mark in rows] == ["1"] * 3 + ["2"] * 8 + ["0"]
        assert {name for name, _ in rows} == {path.name for path in (tmp_path / "hmdb51_org" / word).iterdir()}


def test_videos_are_the_same_each_time_and_kept(tmp_path: Path) -> None:
    config = DownstreamConfig(
        actions=("swing",), train_per_class=1, test_per_class=1, max_seconds=2.0, width=64, height=48
    )
    first, second = (sorted(write_ucf101(tmp_path / name, config).rglob("*.avi")) for name in "ab")
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert first[0].read_bytes() != first[1].read_bytes()
    written = first[0].stat().st_mtime_ns
    write_ucf101(tmp_path / "a", config)
    assert first[0].stat().st_mtime_ns == written


def test_configs_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="needs actions, train and test videos"):
        DownstreamConfig(train_per_class=0)
    with pytest.raises(UserError, match="even sizes"):
        DownstreamConfig(width=63)
