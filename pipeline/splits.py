"""Metadata-ranked nested splits with a validation set of other owners (paper, section 4), as NoisyActions2M's lists.

splits/classes.txt       `1 apply eye makeup`, one class per line, counting from 1
splits/<name>_train.txt  `video_id 1|17|4`, richest metadata first, so that a smaller split is the head of a larger one
splits/val.txt           the same; no owner of a validation video has a training video
splits/card.json         how they were chosen, exact counts, and that they are disjoint and nested
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import UserError
from pipeline.store import Store
from pipeline.usable import FIELDS, Ints, Usable, read_usable
from pipeline.videolist import VideoList

logger = logging.getLogger(__name__)

_GROUPS_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitSettings:
    """How splits are chosen; the defaults are the paper's reading."""

    sizes: Mapping[str, int | None] = field(default_factory=lambda: {"25k": 27_568, "100k": 99_356, "full": None})
    """Videos of each training split by its name; None takes all that qualify."""
    require: Literal["all", "any"] = "all"
    """`all`: title, description, tags and comments must all be present; `any`: a video may lack some."""
    min_videos: int = 11
    """Classes found by fewer videos are dropped (the paper keeps classes with more than 10)."""
    val_fraction: float = 0.05
    """Share of the videos that qualify, at most, that goes to validation."""
    seed: int = 0
    """Which owners go to validation."""

    def __post_init__(self) -> None:
        if not 0 <= self.val_fraction < 1:
            raise UserError(f"val_fraction {self.val_fraction}: must be at least 0 and below 1")
        if self.min_videos < 1 or not self.sizes:
            raise UserError(f"min_videos {self.min_videos}, sizes {dict(self.sizes)}: need at least 1 video and 1 size")
        for name, size in self.sizes.items():
            if not name.replace("_", "").replace("-", "").isalnum() or (size is not None and size < 1):
                raise UserError(f"split {name!r} of {size} videos: use letters and digits, and a size of at least 1")


@dataclass(frozen=True, kw_only=True, slots=True)
class Splits:
    """Classes and lists; labels are 0-based positions in `classes`."""

    classes: tuple[str, ...]
    train: Mapping[str, VideoList]
    """Of each split's name, in order of rank."""
    val: VideoList
    card: Mapping[str, Any]
    """JSON-able."""


@dataclass(frozen=True, slots=True)
class _Ranked:
    """The videos that qualify, richest metadata first."""

    videos: VideoList
    words: Ints
    groups: Ints
    """Numbers of who must not be in both training and validation: an owner, or a video of unknown owner."""
    group_names: pa.Array
    owners_known: int

    def take(self, places: Ints) -> _Ranked:
        """Some of them, in the order of `places`."""
        videos = VideoList(self.videos.video_ids.take(pa.array(places)), self.videos.labels.take(pa.array(places)))
        return _Ranked(videos, self.words[places], self.groups[places], self.group_names, self.owners_known)


def make_splits(rows: Iterable[pa.RecordBatch], *, settings: SplitSettings) -> Splits:
    """Choose the splits from the rows of a root's shards (COLUMNS); the order of the rows does not matter.

    Raises:
        UserError: no video qualifies; says how many failed at what.
    """
    usable = read_usable(rows)
    frequency = np.bincount(usable.pair_concepts, minlength=len(usable.concepts))
    kept = [(name, code) for code, name in enumerate(usable.concepts) if frequency[code] >= settings.min_videos]
    classes = tuple(name for name, _ in sorted(kept))
    labels = _label(usable, [code for _, code in sorted(kept)])
    has_class = pc.list_value_length(labels).to_numpy() > 0
    lost = {f"no_{name}": int(count) for name, count in zip(FIELDS, usable.missing.sum(axis=0), strict=True)}
    lost["no_class_left"] = int((~has_class).sum())
    lost = {reason: count for reason, count in sorted(lost.items()) if count}
    qualify = has_class if settings.require == "any" else has_class & ~usable.missing.any(axis=1)
    if not qualify.any():
        raise UserError(
            f"no video qualifies for a split: of {len(usable)} usable ones {lost} "
            f"(classes need {settings.min_videos} videos): try require=any or a smaller min_videos"
        )
    ranked = _rank(usable, labels, np.flatnonzero(qualify))
    in_val = np.isin(ranked.groups, _choose_validation(ranked, settings))
    val, rest = ranked.take(np.flatnonzero(in_val)), np.flatnonzero(~in_val)
    train = {name: ranked.take(rest[:size]) for name, size in _by_size(settings)}
    counts = {"usable": len(usable), "qualifying": len(in_val), "lost": lost}
    card = _describe(settings, classes, train, val, counts, dropped=len(usable.concepts) - len(classes))
    return Splits(classes=classes, train={name: part.videos for name, part in train.items()}, val=val.videos, card=card)


def _label(usable: Usable, kept: Sequence[int]) -> pa.ListArray:
    """The labels of each row, ascending; `kept` are the codes of the classes, in their order."""
    place = np.full(len(usable.concepts), -1)
    place[kept] = np.arange(len(kept))
    labels = place[usable.pair_concepts]
    pairs = np.sort((usable.pair_rows * max(1, len(kept)) + labels)[labels >= 0])
    lengths = np.bincount(pairs // max(1, len(kept)), minlength=len(usable))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array((pairs % max(1, len(kept))).astype(np.int32)))


def _rank(usable: Usable, labels: pa.ListArray, rows: Ints) -> _Ranked:
    """Most words first, then by video id."""
    table = pa.table({"words": usable.words[rows], "video_id": usable.video_ids.take(pa.array(rows))})
    keys = [("words", "descending"), ("video_id", "ascending")]
    rows = rows[pc.sort_indices(table, sort_keys=keys).to_numpy()]
    ids, owners = usable.video_ids.take(pa.array(rows)), usable.owners.take(pa.array(rows))
    known = pc.fill_null(pc.not_equal(owners, ""), False)
    stands_for = pc.if_else(
        known, pc.binary_join_element_wise("owner", owners, " "), pc.binary_join_element_wise("video", ids, " ")
    )
    groups = stands_for.combine_chunks().dictionary_encode()
    videos = VideoList(ids, pa.chunked_array([labels]).take(pa.array(rows)))
    numbers = groups.indices.to_numpy().astype(np.int64)
    return _Ranked(videos, usable.words[rows], numbers, groups.dictionary, len(rows) - owners.null_count)


def _by_size(settings: SplitSettings) -> list[tuple[str, int | None]]:
    return sorted(settings.sizes.items(), key=lambda item: (item[1] is None, item[1] or 0))


def _choose_validation(ranked: _Ranked, settings: SplitSettings) -> Ints:
    """Whole groups in an order that only (seed, owner) decides, while they fit into the quota."""
    quota = int(len(ranked.videos) * settings.val_fraction)
    digests = bytearray()
    for start in range(0, len(ranked.group_names), _GROUPS_AT_ONCE):
        for name in ranked.group_names.slice(start, _GROUPS_AT_ONCE).to_pylist():
            digests += hashlib.sha256(f"{settings.seed} {name}".encode()).digest()
    words = np.frombuffer(digests, ">u8").reshape(-1, 4)
    sizes = np.bincount(ranked.groups, minlength=len(words))
    chosen: list[int] = []
    for group in np.lexsort(words.T[::-1]):  # as bytes compare: the first word decides first
        if sizes[group] <= quota:
            chosen.append(group)
            quota -= int(sizes[group])
        if not quota:
            break
    return np.array(chosen, np.int64)


def _describe(
    settings: SplitSettings,
    classes: Sequence[str],
    train: Mapping[str, _Ranked],
    val: _Ranked,
    counts: Mapping[str, Any],
    *,
    dropped: int,
) -> dict[str, Any]:
    lists = {**train, "val": val}
    for name, size in settings.sizes.items():
        found = len(train[name].videos)
        if size is not None and found < size:
            logger.warning("split %s: %d videos were asked for, %d qualify (card.json)", name, size, found)
    return {
        "settings": {
            "sizes": dict(settings.sizes), "require": settings.require, "min_videos": settings.min_videos,
            "val_fraction": settings.val_fraction, "seed": settings.seed,
        },
        "videos": dict(counts),
        "classes": {"kept": len(classes), "dropped": dropped},
        "owners_known": val.owners_known,
        "splits": {
            name: {"asked": settings.sizes.get(name)} | _describe_list(part, len(classes))
            for name, part in lists.items()
        },
        "overlap": {
            name: {
                "videos_in_val": _num_shared(part.videos, val.videos),
                "owners_in_val": len(np.intersect1d(part.groups, val.groups)),
            }
            for name, part in train.items()
        },
        "nested": {
            f"{small} in {large}": _num_shared(train[small].videos, train[large].videos) == len(train[small].videos)
            for small, large in pairwise(train)
        },
        "sha256": {
            "classes.txt": hashlib.sha256(classes_text(classes).encode()).hexdigest(),
            **{_file_name(name): _sha256_of_list(part.videos) for name, part in lists.items()},
        },
    }  # fmt: skip


def _num_shared(one: VideoList, other: VideoList) -> int:
    return int(pc.sum(pc.is_in(one.video_ids, value_set=other.video_ids)).as_py() or 0)


def _describe_list(part: _Ranked, num_classes: int) -> dict[str, Any]:
    videos = part.videos
    lengths = pc.list_value_length(videos.labels).to_numpy()
    counts = np.bincount(pc.list_flatten(videos.labels).to_numpy(), minlength=num_classes).tolist()
    return {
        "videos": len(videos),
        "labels_per_video": round(sum(counts) / len(videos), 3) if len(videos) else None,
        "single_label_videos": int((lengths == 1).sum()),
        "classes_with_videos": sum(count > 0 for count in counts),
        "class_frequency": {"min": min(counts), "median": median(counts), "max": max(counts)},
        "words": {"min": int(part.words.min()), "max": int(part.words.max())} if len(videos) else None,
    }


def _file_name(name: str) -> str:
    return "val.txt" if name == "val" else f"{name}_train.txt"


def _sha256_of_list(videos: VideoList) -> str:
    digest = hashlib.sha256()
    for line in _lines(videos):
        digest.update(line.encode())
    return digest.hexdigest()


def classes_text(classes: Iterable[str]) -> str:
    """A classInd file: `1 name`, counting from 1."""
    return "".join(f"{number} {name}\n" for number, name in enumerate(classes, start=1))


def list_text(videos: Mapping[str, tuple[int, ...]]) -> str:
    """A list file: `video_id 1|17|4`, counting from 1."""
    return "".join(_lines(videos))


def _lines(videos: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    return (f"{video} {'|'.join(str(label + 1) for label in labels)}\n" for video, labels in videos.items())


def write_splits(store: Store, splits: Splits) -> None:
    """Write the lists, and the card last."""
    store.write("splits/classes.txt", classes_text(splits.classes).encode())
    for name, videos in {**splits.train, "val": splits.val}.items():
        store.write(f"splits/{_file_name(name)}", list_text(videos).encode())
    store.write("splits/card.json", json.dumps(splits.card, indent=1).encode())


def read_split(
    store: Store, name: str, *, merge_case_duplicates: bool = False
) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """The classes and `{video_id: 0-based labels}` of `<name>_train.txt`, or of `<name>.txt` such as `val`.

    Raises:
        UserError: the root has no such split, or a line is wrong.
    """
    keys = (f"splits/{name}_train.txt", f"splits/{name}.txt")
    key = next((key for key in keys if store.size(key) is not None), None)
    if key is None or store.size("splits/classes.txt") is None:
        there = [k.removeprefix("splits/") for k in store.list("splits/") if k.endswith(".txt")]
        raise UserError(f"{store.url} has no split {name!r} (it has {there}): run the verb 'split' first")
    classes = store.read("splits/classes.txt").decode()
    return parse_split(store.read(key).decode(), classes=classes, merge_case_duplicates=merge_case_duplicates)


def parse_split(
    videos: str, *, classes: str, merge_case_duplicates: bool = False
) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """Text of a list and of its class file -> classes and `{video_id: 0-based labels}`.

    Reads the released lists as they are: blank lines, videos without labels, ids with `.avi` or `.mp4`.
    `merge_case_duplicates` makes one class of `pond` and `Pond`, named as the first of them.

    Raises:
        UserError: a class is out of order, or a label is not one of the classes.
    """
    names: list[str] = []
    for line in filter(None, map(str.strip, classes.splitlines())):
        number, _, name = line.partition(" ")
        if number != str(len(names) + 1) or not name:
            raise UserError(f"class list: expected '{len(names) + 1} name', found {line[:80]!r}")
        names.append(name)
    place = list(range(len(names)))
    if merge_case_duplicates:
        first: dict[str, str] = {}
        for name in names:
            first.setdefault(name.casefold(), name)
        position = {folded: number for number, folded in enumerate(first)}
        place, names = [position[name.casefold()] for name in names], list(first.values())
    found: dict[str, tuple[int, ...]] = {}
    for line_number, line in enumerate(videos.splitlines(), start=1):
        video, _, labels = line.strip().partition(" ")
        if video:
            found[video.removesuffix(".avi").removesuffix(".mp4")] = _labels(labels, place, line_number)
    return tuple(names), found


def _labels(text: str, place: Sequence[int], line_number: int) -> tuple[int, ...]:
    labels: dict[int, None] = {}
    for word in filter(None, text.strip().split("|")):
        if not word.isdecimal() or not 1 <= int(word) <= len(place):
            raise UserError(f"list, line {line_number}: label {word!r} is not one of the classes 1 to {len(place)}")
        labels[place[int(word) - 1]] = None
    return tuple(labels)
