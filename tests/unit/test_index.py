import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.index import build_index

ROWS = pa.table({
    "video_id": ["b", "c", "a", "d", "e"],
    "outcome": ["ok", "gone", "ok", "ok", "timeout"],
    "mp4_offset": pa.array([512, None, 512, 4096, None], pa.int64()),
    "mp4_size": pa.array([100, None, 200, 300, None], pa.int64()),
    "num_frames": pa.array([10, None, 20, 70, None], pa.int32()),
    "shard": ["shards/000000.tar", "shards/000000.tar", "shards/000001.tar", "shards/000001.tar", "shards/000001.tar"],
})  # fmt: skip


def test_rows_are_sorted_and_know_where_they_lie() -> None:
    index = build_index(ROWS, labels={"d": [2, 0, 2], "a": [1], "b": []}, num_classes=3)
    assert index.video_ids == ("a", "b", "d")
    assert [index.shard_keys[shard] for shard in index.shards] == [
        "shards/000001.tar", "shards/000000.tar", "shards/000001.tar",
    ]  # fmt: skip
    assert index.offsets.tolist() == [512, 512, 4096]
    assert index.sizes.tolist() == [200, 100, 300]
    assert index.num_frames.tolist() == [20, 10, 70]
    targets = index.targets(np.array([2, 0, 1]))
    assert targets.tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]
    assert targets.dtype == np.float32


def test_single_labels_are_numbers() -> None:
    index = build_index(ROWS, labels={"d": [2], "a": [1]}, num_classes=3, kind="single")
    targets = index.targets(np.array([1, 0, 1]))
    assert (targets.tolist(), targets.dtype) == ([2, 1, 2], np.int64)


def test_short_videos_can_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    index = build_index(ROWS, labels={"d": [2, 0], "a": [1], "b": [0]}, num_classes=3)
    with caplog.at_level(logging.INFO):
        longer = index.at_least(20)
    assert longer.video_ids == ("a", "d")
    assert longer.targets(np.array([0, 1])).tolist() == [[0, 1, 0], [1, 0, 1]]
    assert "2 of 3 videos have at least 20 frames" in caplog.text
    assert len(index.at_least(100)) == 0


def test_missing_videos_are_told_and_can_be_left_out(caplog: pytest.LogCaptureFixture) -> None:
    labels = {"a": [0], "c": [0], "e": [0], "x": [0]}
    text = (
        r"3 of 4 listed videos are not in the shards, such as 'c' \(dropped: {'gone': 1, 'timeout': 1}, unknown: 1\): "
        "build them, or leave them out"
    )
    with pytest.raises(UserError, match=text):
        build_index(ROWS, labels=labels, num_classes=1)
    assert build_index(ROWS, labels=labels, num_classes=1, missing="leave_out").video_ids == ("a",)
    assert "3 of 4 listed videos are not in the shards" in caplog.text
    with pytest.raises(UserError, match="1 of 1 listed videos are not in the shards"):
        build_index(ROWS, labels={"x": [0]}, num_classes=1, missing="leave_out")


@pytest.mark.parametrize(("labels", "kind", "text"), [
    ({}, "multi", "the list names no videos"),
    ({"a": [3]}, "multi", r"a: classes \[3\] must be 0 to 2"),
    ({"a": [-1]}, "multi", r"a: classes \[-1\] must be 0 to 2"),
    ({"a": [0, 1]}, "single", "a has 2 classes where single-label training needs one"),
    ({"a": []}, "single", "a has 0 classes"),
])  # fmt: skip
def test_bad_lists_are_refused(labels: Mapping[str, Sequence[int]], kind: Any, text: str) -> None:
    with pytest.raises(UserError, match=text):
        build_index(ROWS, labels=labels, num_classes=3, kind=kind)


def test_a_video_in_two_shards_is_refused() -> None:
    with pytest.raises(UserError, match="1 videos are in more than one shard: run fsck"):
        build_index(pa.concat_tables([ROWS, ROWS.slice(0, 1)]), labels={"b": [0]}, num_classes=1)
