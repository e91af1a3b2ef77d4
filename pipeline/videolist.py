"""A long list of videos with their labels, as a mapping that is not made of objects."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa
import pyarrow.compute as pc

_CHUNK = 65_536
"""Videos that are Python objects at a time."""


@dataclass(frozen=True, eq=False)
class VideoList(Mapping[str, tuple[int, ...]]):
    """Videos in order, each with its 0-based labels: two columns, for there may be millions.

    Looking one up by its id first makes an index of all of them; going through them does not.
    """

    video_ids: pa.ChunkedArray
    labels: pa.ChunkedArray
    """Lists of int32."""

    def __len__(self) -> int:
        return len(self.video_ids)

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _CHUNK):
            yield from self.video_ids.slice(start, _CHUNK).to_pylist()

    def __getitem__(self, video_id: str) -> tuple[int, ...]:
        return tuple(self.labels[self._index[video_id]].as_py())

    @cached_property
    def _index(self) -> dict[str, int]:
        return {video_id: place for place, video_id in enumerate(self)}

    def items(self) -> ItemsView[str, tuple[int, ...]]:
        """As any mapping's, chunk by chunk."""
        return _Items(self)

    def num_labels(self) -> int:
        """Of all videos together."""
        return int(pc.sum(pc.list_value_length(self.labels)).as_py() or 0)


class _Items(ItemsView[str, tuple[int, ...]]):
    def __init__(self, videos: VideoList) -> None:
        super().__init__(videos)
        self._videos = videos

    def __iter__(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        for start in range(0, len(self._videos), _CHUNK):
            labels = self._videos.labels.slice(start, _CHUNK).to_pylist()
            yield from zip(self._videos.video_ids.slice(start, _CHUNK).to_pylist(), map(tuple, labels), strict=True)
