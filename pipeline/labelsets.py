"""Class lists of action datasets: one small parser per official file, every name kept as it was written.

read_labelset(Path("ucfTrainTestlist/classInd.txt"), format="ucf101")
read_labelset(Path("my_actions.txt"), format="plain", dataset="mine")
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError


@dataclass(frozen=True, slots=True)
class ClassName:
    """A class as its dataset writes it."""

    dataset: str
    raw: str


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with something on them, stripped, with their 1-based number."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not text in UTF-8 (byte {error.start}): is it the right file?") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield number, line.strip()


def _wrong(path: Path, number: int, line: str, expected: str) -> UserError:
    return UserError(f"{path}, line {number}: expected {expected}, found {line[:80]!r}")


def parse_indexed(path: Path) -> list[str]:
    """`1 ApplyEyeMakeup`: UCF101's and NoisyActions2M's classInd.txt; indices count up from 1."""
    names: list[str] = []
    for number, line in _lines(path):
        index, _, name = line.partition(" ")
        if not name.strip() or index != str(len(names) + 1):
            raise _wrong(path, number, line, f"'{len(names) + 1} class name' (index, space, name; counting from 1)")
        names.append(name.strip())
    return names


def parse_plain(path: Path) -> list[str]:
    """One action name per line; empty lines and lines that begin with `#` are passed over."""
    return [line for _, line in _lines(path) if not line.startswith("#")]


def parse_hmdb51(path: Path) -> list[str]:
    """The folder testTrainMulti_7030_splits (`brush_hair_test_split1.txt`), or a classInd.txt."""
    if path.is_file():
        return parse_indexed(path)
    suffix = "_test_split1.txt"
    names = sorted(file.name.removesuffix(suffix) for file in path.glob(f"*{suffix}"))
    if not names:
        raise UserError(
            f"{path}: no files <class>{suffix}: name the folder testTrainMulti_7030_splits or a classInd.txt"
        )
    return names


def _column(path: Path, column: str) -> list[str]:
    """Distinct values of a column of a CSV file with a header, in order of first appearance."""
    lines = list(_lines(path))
    header = next(csv.reader([lines[0][1]])) if lines else []
    if column not in header:
        raise _wrong(path, 1, lines[0][1] if lines else "", f"a CSV header with the column {column!r}")
    names: dict[str, None] = {}
    for (number, line), row in zip(lines[1:], csv.reader(line for _, line in lines[1:]), strict=True):
        if len(row) < len(header):
            raise _wrong(path, number, line, f"{len(header)} comma-separated values as in the header")
        names[row[header.index(column)].strip()] = None
    return [name for name in names if name]


def parse_kinetics(path: Path) -> list[str]:
    """Column `label` of train.csv or val.csv (`label,youtube_id,time_start,...`), sorted as Kinetics numbers them."""
    return sorted(_column(path, "label"))


def parse_hacs(path: Path) -> list[str]:
    """Column `classname` of HACS_clips_v1.1.1.csv."""
    return sorted(_column(path, "classname"))


def parse_youtube8m(path: Path) -> list[str]:
    """Column `Name` of vocabulary.csv; nameless entities are left out."""
    return _column(path, "Name")


def parse_hvu(path: Path) -> list[str]:
    """Column `Tag` of HVU_Tags_Categories_V1.0.csv."""
    return _column(path, "Tag")


def _json(path: Path, expected: str) -> Mapping[str, Any]:
    text = "\n".join(line for _, line in _lines(path))
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise _wrong(path, error.lineno, text.splitlines()[error.lineno - 1], f"JSON, {expected}") from error
    if not isinstance(value, dict):
        raise _wrong(path, 1, text, f"a JSON object, {expected}")
    return value


def parse_something_something(path: Path) -> list[str]:
    """v2's labels.json `{"template": "index"}` in order of the index, or v1's labels.csv with a template per line."""
    if path.suffix != ".json":
        return parse_plain(path)
    labels = _json(path, 'such as {"Holding something": "0", ...}')
    return sorted(labels, key=lambda name: int(labels[name]))


def parse_activitynet(path: Path) -> list[str]:
    """activity_net.v1-3.min.json (also HACS_segments): the labels of all annotations, sorted."""
    database = _json(path, 'with "database"').get("database")
    if not isinstance(database, dict):
        raise UserError(f'{path}: expected {{"database": {{video: {{"annotations": [{{"label": ...}}]}}}}}}')
    return sorted({note["label"] for video in database.values() for note in video.get("annotations", ())})


def parse_moments(path: Path) -> list[str]:
    """moments_categories.txt: `name,index`, or a name per line (v2)."""
    return [re.sub(r",\s*\d+$", "", line) for _, line in _lines(path)]


def parse_charades(path: Path) -> list[str]:
    """Charades_v1_classes.txt: `c000 Holding some clothes`."""
    names = []
    for number, line in _lines(path):
        if not (match := re.fullmatch(r"c\d{3} (.+)", line)):
            raise _wrong(path, number, line, "'c000 Text of the class'")
        names.append(match[1])
    return names


def parse_ava(path: Path) -> list[str]:
    """ava_action_list_*.pbtxt: the `name: "..."` fields of `label {` or `item {` blocks."""
    names = [m[1] for _, line in _lines(path) for m in re.finditer(r"""\bname:\s*["']([^"']+)["']""", line)]
    if not names:
        raise UserError(f'{path}: expected blocks such as item {{ name: "bend/bow (at the waist)" id: 1 }}')
    return names


FORMATS: Mapping[str, Callable[[Path], list[str]]] = {
    "plain": parse_plain,
    "ucf101": parse_indexed,
    "hmdb51": parse_hmdb51,
    "noisyactions2m": parse_indexed,
    "kinetics": parse_kinetics,
    "something_something": parse_something_something,
    "moments_in_time": parse_moments,
    "activitynet": parse_activitynet,
    "sports1m": parse_plain,
    "charades": parse_charades,
    "ava": parse_ava,
    "hacs": parse_hacs,
    "hvu": parse_hvu,
    "youtube8m": parse_youtube8m,
}
"""The parser of each format's official file; `plain` reads any list of names."""


def read_labelset(path: Path, *, format: str, dataset: str | None = None) -> list[ClassName]:  # noqa: A002
    """The class names of an official file, in its order; `dataset` names where they are from, else `format` does.

    Raises:
        UserError: the format is unknown, the file cannot be read or is not of that format, or has no class.
    """
    if format not in FORMATS:
        raise UserError(
            f"class-list format {format!r} is not one of {', '.join(FORMATS)}: use 'plain' for a simple list"
        )
    names = FORMATS[format](path)
    if not names:
        raise UserError(f"{path}: no class names in it (read as {format!r})")
    return [ClassName(dataset or format, name) for name in names]


def kinetics400() -> list[ClassName]:
    """The 400 names that torchvision ships with its R3D-18 weights; nothing is downloaded."""
    from torchvision.models.video import R3D_18_Weights

    return [ClassName("kinetics400", name) for name in R3D_18_Weights.KINETICS400_V1.meta["categories"]]
