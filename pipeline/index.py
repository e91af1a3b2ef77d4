"""The videos of one split: where each one lies in the shards, and what it is labelled."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError

logger = logging.getLogger(__name__)

INDEX_COLUMNS = ("video_id", "outcome", "mp4_offset", "mp4_size", "num_frames")
"""What `shards.read_rows` must read for an index."""

LabelKind = Literal["multi", "single"]


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Index:
    """N videos sorted by id. Labels of video i are `labels[label_ends[i - 1] : label_ends[i]]`, counted from 0."""

    video_ids: tuple[str, ...]
    shard_keys: tuple[str, ...]
    """Keys of the tars that hold them."""
    shards: npt.NDArray[np.int32]
    """(N,) places in `shard_keys`."""
    offsets: npt.NDArray[np.int64]
    """(N,) bytes before the MP4 in its tar."""
    sizes: npt.NDArray[np.int64]
    """(N,) bytes."""
    num_frames: npt.NDArray[np.int32]
    """(N,)."""
    labels: npt.NDArray[np.int32]
    label_ends: npt.NDArray[np.int64]
    """(N,)."""
    num_classes: int
    kind: LabelKind

    def __len__(self) -> int:
        return len(self.video_ids)

    def labels_of(self, row: int) -> npt.NDArray[np.int32]:
        """Classes of one video, from 0."""
        return self.labels[self.label_ends[row - 1] if row else 0 : self.label_ends[row]]

    def targets(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32] | npt.NDArray[np.int64]:
        """What a loss wants for these rows (B,): multi-hot (B, C) float32, or (B,) int64."""
        if self.kind == "single":
            return self.labels[rows].astype(np.int64)
        hot = np.zeros((len(rows), self.num_classes), np.float32)
        for place, row in enumerate(rows):
            hot[place, self.labels_of(int(row))] = 1
        return hot

    def at_least(self, num_frames: int) -> Index:
        """The videos with at least so many frames; tells in the log how many that leaves out."""
        kept = np.flatnonzero(self.num_frames >= num_frames)
        logger.info("%d of %d videos have at least %d frames", len(kept), len(self), num_frames)
        lists = [self.labels_of(int(row)) for row in kept]
        return replace(
            self,
            video_ids=tuple(self.video_ids[row] for row in kept),
            shards=self.shards[kept],
            offsets=self.offsets[kept],
            sizes=self.sizes[kept],
            num_frames=self.num_frames[kept],
            labels=np.concatenate([np.empty(0, np.int32), *lists]),
            label_ends=np.cumsum([len(labels) for labels in lists], dtype=np.int64),
        )


def build_index(
    rows: pa.Table,
    *,
    labels: Mapping[str, Sequence[int]],
    num_classes: int,
    kind: LabelKind = "multi",
    missing: Literal["refuse", "leave_out"] = "refuse",
) -> Index:
    """Index of the videos named in `labels` (classes from 0; no classes at all for self-supervised training).

    `rows` are those of `shards.read_rows` with INDEX_COLUMNS at least.

    Raises:
        UserError: listed videos are not in the shards as `ok` and `missing` is "refuse"; none is; a class is out of
            range; a video has not exactly one class where `kind` is "single"; a video is in two shards.
    """
    listed = rows.filter(pc.is_in(rows["video_id"], value_set=pa.array(list(labels), pa.string())))
    found = listed.filter(pc.equal(listed["outcome"], "ok")).sort_by("video_id")
    ids = found["video_id"].to_pylist()
    _check_found(ids, listed, labels, leave_out=missing == "leave_out")
    lists = [np.unique(np.asarray(labels[video_id], np.int32)) for video_id in ids]
    _check_labels(dict(zip(ids, lists, strict=True)), num_classes=num_classes, kind=kind)
    keys = found["shard"].unique().sort()
    return Index(
        video_ids=tuple(ids),
        shard_keys=tuple(keys.to_pylist()),
        shards=pc.index_in(found["shard"], value_set=keys).to_numpy().astype(np.int32),
        offsets=found["mp4_offset"].to_numpy(),
        sizes=found["mp4_size"].to_numpy(),
        num_frames=found["num_frames"].to_numpy(),
        labels=np.concatenate(lists),
        label_ends=np.cumsum([len(one) for one in lists], dtype=np.int64),
        num_classes=num_classes,
        kind=kind,
    )


def _check_found(ids: list[str], listed: pa.Table, labels: Mapping[str, Sequence[int]], *, leave_out: bool) -> None:
    repeated = len(ids) - len(set(ids))
    if repeated:
        raise UserError(f"{repeated} videos are in more than one shard: run fsck on this root")
    absent = sorted(set(labels) - set(ids))
    dropped = Counter(word for word in listed["outcome"].to_pylist() if word != "ok")
    told = (
        f"{len(absent)} of {len(labels)} listed videos are not in the shards, such as {absent[0]!r} "
        f"(dropped: {dict(sorted(dropped.items()))}, unknown: {len(absent) - dropped.total()})"
        if absent
        else ""
    )
    if absent and leave_out and ids:
        logger.warning("%s; they are left out", told)
    elif absent:
        raise UserError(f"{told}: build them, or leave them out of the list")
    elif not ids:
        raise UserError("the list names no videos: give at least one")


def _check_labels(lists: Mapping[str, npt.NDArray[np.int32]], *, num_classes: int, kind: LabelKind) -> None:
    for video_id, classes in lists.items():
        if len(classes) and not 0 <= classes[0] <= classes[-1] < num_classes:
            raise UserError(
                f"{video_id}: classes {classes.tolist()} must be 0 to {num_classes - 1}: is it another list?"
            )
        if kind == "single" and len(classes) != 1:
            raise UserError(f"{video_id} has {len(classes)} classes where single-label training needs one")
