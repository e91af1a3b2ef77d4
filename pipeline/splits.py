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
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median
from typing import Any, Literal

from pipeline.errors import UserError
from pipeline.store import Store

logger = logging.getLogger(__name__)

COLUMNS = ("video_id", "outcome", "title", "description", "tags", "comments", "concepts", "owner")
"""The columns of a shard's rows that splits are made from."""

_TEXTS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "title": lambda row: row["title"] or "",
    "description": lambda row: row["description"] or "",
    "tags": lambda row: " ".join(row["tags"] or ()),
    "comments": lambda row: " ".join(comment["text"] or "" for comment in row["comments"] or ()),
}


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
    train: Mapping[str, Mapping[str, tuple[int, ...]]]
    """Of each split's name, video id -> labels, in order of rank."""
    val: Mapping[str, tuple[int, ...]]
    card: Mapping[str, Any]
    """JSON-able."""


@dataclass(frozen=True, slots=True)
class _Candidate:
    words: int
    video_id: str
    owner: str | None
    labels: tuple[int, ...]

    @property
    def group(self) -> str:
        """Who must not be in both training and validation; a video of unknown owner stands for itself."""
        return f"owner {self.owner}" if self.owner else f"video {self.video_id}"


def count_words(row: Mapping[str, Any]) -> int:
    """Whitespace-separated words of title, description, tags and comments together."""
    return sum(len(text(row).split()) for text in _TEXTS.values())


def missing_fields(row: Mapping[str, Any]) -> list[str]:
    """Which of title, description, tags and comments have no word in them."""
    return [name for name, text in _TEXTS.items() if not text(row).split()]


def make_splits(rows: Iterable[Mapping[str, Any]], *, settings: SplitSettings) -> Splits:
    """Choose the splits from the rows of a root's shards (COLUMNS); the order of the rows does not matter.

    Raises:
        UserError: no video qualifies; says how many failed at what.
    """
    # Of each row only this is kept: millions of comments would not fit in memory.
    usable = [
        (count_words(row), row["video_id"], row["owner"], frozenset(row["concepts"]), missing_fields(row))
        for row in rows
        if row["outcome"] == "ok"
    ]
    frequency = Counter(concept for _, _, _, concepts, _ in usable for concept in concepts)
    classes = tuple(sorted(name for name, videos in frequency.items() if videos >= settings.min_videos))
    index = {name: number for number, name in enumerate(classes)}
    lost: Counter[str] = Counter()
    candidates = []
    for words, video_id, owner, concepts, missing in usable:
        labels = tuple(sorted(index[concept] for concept in concepts if concept in index))
        lost.update(f"no_{name}" for name in missing)
        if not labels:
            lost["no_class_left"] += 1
        elif not missing or settings.require == "any":
            candidates.append(_Candidate(words, video_id, owner, labels))
    if not candidates:
        raise UserError(
            f"no video qualifies for a split: of {len(usable)} usable ones {dict(lost)} "
            f"(classes need {settings.min_videos} videos): try require=any or a smaller min_videos"
        )
    candidates.sort(key=lambda c: (-c.words, c.video_id))
    val_groups = _choose_validation(candidates, settings)
    val = {c.video_id: c.labels for c in candidates if c.group in val_groups}
    ranked = [c for c in candidates if c.group not in val_groups]
    train = {name: {c.video_id: c.labels for c in ranked[:size]} for name, size in _by_size(settings)}
    counts = {"usable": len(usable), "qualifying": len(candidates), "lost": dict(sorted(lost.items()))}
    card = _describe(settings, classes, train, val, candidates, counts, dropped=len(frequency) - len(classes))
    return Splits(classes=classes, train=train, val=val, card=card)


def _by_size(settings: SplitSettings) -> list[tuple[str, int | None]]:
    return sorted(settings.sizes.items(), key=lambda item: (item[1] is None, item[1] or 0))


def _choose_validation(candidates: Sequence[_Candidate], settings: SplitSettings) -> set[str]:
    """Whole owners in an order that only (seed, owner) decides, while they fit into the quota."""
    quota = int(len(candidates) * settings.val_fraction)
    sizes = Counter(c.group for c in candidates)
    chosen: set[str] = set()
    for group in sorted(sizes, key=lambda g: hashlib.sha256(f"{settings.seed} {g}".encode()).digest()):
        if sizes[group] <= quota:
            chosen.add(group)
            quota -= sizes[group]
    return chosen


def _describe(
    settings: SplitSettings,
    classes: Sequence[str],
    train: Mapping[str, Mapping[str, tuple[int, ...]]],
    val: Mapping[str, tuple[int, ...]],
    candidates: Sequence[_Candidate],
    counts: Mapping[str, Any],
    *,
    dropped: int,
) -> dict[str, Any]:
    owner = {c.video_id: c.group for c in candidates}
    words = {c.video_id: c.words for c in candidates}
    names = list(train)
    val_owners = {owner[video] for video in val}
    lists = {**train, "val": val}
    for name, size in settings.sizes.items():
        if size is not None and len(train[name]) < size:
            logger.warning("split %s: %d videos were asked for, %d qualify (card.json)", name, size, len(train[name]))
    return {
        "settings": {
            "sizes": dict(settings.sizes), "require": settings.require, "min_videos": settings.min_videos,
            "val_fraction": settings.val_fraction, "seed": settings.seed,
        },
        "videos": dict(counts),
        "classes": {"kept": len(classes), "dropped": dropped},
        "owners_known": sum(c.owner is not None for c in candidates),
        "splits": {
            name: {"asked": settings.sizes.get(name)} | _describe_list(videos, len(classes), words)
            for name, videos in lists.items()
        },
        "overlap": {
            name: {
                "videos_in_val": len(train[name].keys() & val.keys()),
                "owners_in_val": len({owner[video] for video in train[name]} & val_owners),
            }
            for name in names
        },
        "nested": {
            f"{small} in {large}": len(train[small].keys() - train[large].keys()) == 0
            for small, large in pairwise(names)
        },
        "sha256": {
            "classes.txt": _sha256(classes_text(classes)),
            **{_file_name(name): _sha256(list_text(videos)) for name, videos in lists.items()},
        },
    }  # fmt: skip


def _describe_list(videos: Mapping[str, tuple[int, ...]], num_classes: int, words: Mapping[str, int]) -> dict[str, Any]:
    frequency = Counter(label for labels in videos.values() for label in labels)
    counts = [frequency[label] for label in range(num_classes)]
    return {
        "videos": len(videos),
        "labels_per_video": round(sum(counts) / len(videos), 3) if videos else None,
        "single_label_videos": sum(len(labels) == 1 for labels in videos.values()),
        "classes_with_videos": sum(count > 0 for count in counts),
        "class_frequency": {"min": min(counts), "median": median(counts), "max": max(counts)},
        "words": {"min": min(map(words.__getitem__, videos)), "max": max(map(words.__getitem__, videos))}
        if videos
        else None,
    }


def _file_name(name: str) -> str:
    return "val.txt" if name == "val" else f"{name}_train.txt"


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def classes_text(classes: Iterable[str]) -> str:
    """A classInd file: `1 name`, counting from 1."""
    return "".join(f"{number} {name}\n" for number, name in enumerate(classes, start=1))


def list_text(videos: Mapping[str, tuple[int, ...]]) -> str:
    """A list file: `video_id 1|17|4`, counting from 1."""
    return "".join(f"{video} {'|'.join(str(label + 1) for label in labels)}\n" for video, labels in videos.items())


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
