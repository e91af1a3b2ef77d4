"""UCF101 and HMDB51: official lists and a folder of videos -> records with their class and split.

    UCF101   <folder>/UCF-101/<Class>/*.avi       <folder>/ucfTrainTestlist/{classInd,trainlist01,testlist01}.txt
    HMDB51   <folder>/hmdb51_org/<class>/*.avi    <folder>/testTrainMulti_7030_splits/<class>_test_split1.txt

A listed video that is not there is a record with `dropped="gone"`: what is missing is counted, never passed over.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.catalogue import write_records
from pipeline.errors import UserError
from pipeline.labelsets import parse_hmdb51, parse_indexed
from pipeline.records import Rendition, VideoRecord, safe_id
from pipeline.splits import classes_text, list_text
from pipeline.store import Store
from pipeline.vocabulary import normalise

SPLITS: tuple[Literal["train", "test"], ...] = ("train", "test")


@dataclass(frozen=True, kw_only=True, slots=True)
class Downstream:
    """One official split of a dataset."""

    name: Literal["ucf101", "hmdb51"]
    classes: tuple[str, ...]
    """In the official order, as words: `apply eye makeup`."""
    records: tuple[VideoRecord, ...]
    """Sorted by video_id; `concepts` is the one class, `split` is `train` or `test`."""

    def labels(self, split: Literal["train", "test"]) -> dict[str, int]:
        """Video id -> 0-based class, of a split."""
        index = {name: number for number, name in enumerate(self.classes)}
        return {r.video_id: index[r.concepts[0]] for r in self.records if r.split == split}

    @property
    def counts(self) -> Counter[str]:
        """Listed videos by split, and how many of them are `gone`."""
        counts = Counter(record.split or "" for record in self.records)
        return counts + Counter(gone=sum(record.dropped is not None for record in self.records))


def _folder(folder: Path, name: str, way_out: str) -> Path:
    if not (folder / name).is_dir():
        raise UserError(f"{folder} has no folder {name}: {way_out}")
    return folder / name


def _text(path: Path, way_out: str) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing: {way_out}") from error


def _videos(folder: Path) -> Mapping[str, Path]:
    """Files below `folder` by `class/name`, in lower case: UCF101 spells Handstand and HandStand."""
    return {path.relative_to(folder).as_posix().lower(): path for path in folder.glob("*/*") if path.is_file()}


def _record(
    source: Literal["ucf101", "hmdb51"], listed: str, *, concept: str, split: str, videos: Mapping[str, Path]
) -> VideoRecord:
    path = videos.get(listed.lower())
    return VideoRecord(
        video_id=safe_id(Path(listed).stem),
        source=source,
        renditions=(Rendition(label="file", url=path.absolute().as_uri()),) if path else (),
        concepts=(concept,),
        split=split,
        dropped=None if path else "gone",
    )


def _assemble(name: Literal["ucf101", "hmdb51"], classes: Iterable[str], records: list[VideoRecord]) -> Downstream:
    repeated = [video for video, count in Counter(r.video_id for r in records).items() if count > 1]
    if repeated:
        raise UserError(f"{name}: {len(repeated)} videos are listed more than once, such as {repeated[0]}")
    ordered = tuple(sorted(records, key=lambda record: record.video_id))
    return Downstream(name=name, classes=tuple(classes), records=ordered)


_UCF_LISTS = "unpack UCF101TrainTestSplits-RecognitionTask.zip there"


def read_ucf101(folder: Path, *, split: Literal[1, 2, 3] = 1) -> Downstream:
    """UCF101's official split; classes in the order of classInd.txt.

    Raises:
        UserError: a folder or list is missing, or a line names an unknown class.
    """
    lists = _folder(folder, "ucfTrainTestlist", _UCF_LISTS)
    videos = _videos(_folder(folder, "UCF-101", "unpack UCF101.rar there"))
    if not (lists / "classInd.txt").is_file():
        raise UserError(f"{lists / 'classInd.txt'} is missing: {_UCF_LISTS}")
    names = parse_indexed(lists / "classInd.txt")
    words = {name.lower(): normalise(name) for name in names}
    records = []
    for part in SPLITS:
        path = lists / f"{part}list{split:02d}.txt"
        for number, line in enumerate(_text(path, _UCF_LISTS).splitlines(), start=1):
            listed = re.sub(r" \d+$", "", line.strip())
            if not listed:
                continue
            concept = words.get(listed.partition("/")[0].lower())
            if concept is None:
                raise UserError(f"{path}, line {number}: expected 'Class/v_Class_g01_c01.avi', found {line[:80]!r}")
            records.append(_record("ucf101", listed, concept=concept, split=part, videos=videos))
    return _assemble("ucf101", (words[name.lower()] for name in names), records)


_HMDB_LISTS = "unpack test_train_splits.rar there"


def read_hmdb51(folder: Path, *, split: Literal[1, 2, 3] = 1) -> Downstream:
    """HMDB51's official split: 1 is train, 2 is test, 0 is in neither; classes in alphabetical order, or as in a
    classInd.txt beside the lists.

    Raises:
        UserError: a folder or list is missing, or a line is wrong.
    """
    lists = _folder(folder, "testTrainMulti_7030_splits", _HMDB_LISTS)
    videos = _videos(_folder(folder, "hmdb51_org", "unpack hmdb51_org.rar and the archives in it there"))
    own_order = lists / "classInd.txt"
    names = parse_hmdb51(own_order if own_order.is_file() else lists)
    records = []
    for name in names:
        stem = name.replace(" ", "_")
        path = lists / f"{stem}_test_split{split}.txt"
        for number, line in enumerate(_text(path, _HMDB_LISTS).splitlines(), start=1):
            if not line.strip():
                continue
            file, _, mark = line.strip().rpartition(" ")
            if mark not in ("0", "1", "2") or not file:
                raise UserError(f"{path}, line {number}: expected 'file.avi 0|1|2', found {line[:80]!r}")
            if mark != "0":
                part = "train" if mark == "1" else "test"
                listed = f"{stem}/{file.strip()}"
                records.append(_record("hmdb51", listed, concept=normalise(name), split=part, videos=videos))
    return _assemble("hmdb51", map(normalise, names), records)


def write_downstream(store: Store, dataset: Downstream) -> None:
    """Write the official lists as splits/{classes,train,test}.txt, and records/, last."""
    store.write("splits/classes.txt", classes_text(dataset.classes).encode())
    for split in SPLITS:
        labels = {video: (label,) for video, label in dataset.labels(split).items()}
        store.write(f"splits/{split}.txt", list_text(labels).encode())
    write_records(store, dataset.records)
