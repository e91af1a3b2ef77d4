"""Class lists of action datasets: one small parser per official file, every name kept as it was written.

read_labelset(Path("ucfTrainTestlist/classInd.txt"), format="ucf101")
read_labelset(Path("my_actions.txt"), format="plain", dataset="mine")
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import UserError
from pipeline.textfiles import Format, json_items, lines, read_as, rows, wrong


@dataclass(frozen=True, slots=True)
class ClassName:
    """A class as its dataset writes it."""

    dataset: str
    raw: str


def parse_indexed(path: Path) -> list[str]:
    """`1 ApplyEyeMakeup`: UCF101's and NoisyActions2M's classInd.txt; indices count up from 1."""
    names: list[str] = []
    for number, line in lines(path):
        index, _, name = line.partition(" ")
        if not name.strip() or index != str(len(names) + 1):
            expected = f"'{len(names) + 1} class name' (index, space, name; counting from 1)"
            raise wrong(path, number, line, expected)
        names.append(name.strip())
    return names


def parse_ucf101(path: Path) -> list[str]:
    """classInd.txt, or the folders of trainlist01.txt and testlist01.txt (`ApplyEyeMakeup/v_x_g01_c01.avi 1`)."""
    listed = r"(?:\d+ ([A-Z]\w+)|([A-Z]\w+)/v_\S+\.avi(?: \d+)?)"
    found: dict[str, None] = {}
    for number, line in lines(path):
        match = re.fullmatch(listed, line.strip())
        if match is None:
            raise wrong(path, number, line, "'1 ApplyEyeMakeup' or 'ApplyEyeMakeup/v_x.avi 1'")
        found[match[1] or match[2]] = None
    return parse_indexed(path) if found and match and match[1] else list(found)


def parse_hmdb51(path: Path) -> list[str]:
    """The folder testTrainMulti_7030_splits (`brush_hair_test_split1.txt`), or a classInd.txt."""
    if not path.is_dir():
        return parse_indexed(path)
    files = {file.name.removesuffix("_test_split1.txt"): file for file in path.glob("*_test_split1.txt")}
    if not files:
        raise UserError(
            f"{path}: no files <class>_test_split1.txt: name the folder testTrainMulti_7030_splits or a classInd.txt"
        )
    for file in files.values():
        for number, line in lines(file):
            if not re.fullmatch(r".+\.avi [012]", line.strip()):
                raise wrong(file, number, line, "'file.avi 0|1|2'")
    return sorted(files)


def parse_plain(path: Path) -> list[str]:
    """One action name per line; empty lines and lines that begin with `#` are passed over."""
    return [line.strip() for _, line in lines(path) if not line.lstrip().startswith("#")]


_OTHER_LISTS = r"(?!\d+ |c\d{3} )"
"""No name: an index before it is another dataset's way."""


def _names(path: Path, pattern: str, expected: str) -> list[str]:
    """The first group of a pattern that every line matches."""
    names = []
    for number, line in lines(path):
        match = re.fullmatch(pattern, line.strip())
        if match is None:
            raise wrong(path, number, line, expected)
        names.append(match[1])
    return names


def parse_sports1m(path: Path) -> list[str]:
    """labels.txt: a name per line, such as `skittles (sport)` or `t'ai chi ch'uan`."""
    return _names(path, rf"{_OTHER_LISTS}(\w[\w '().&-]*)", "one sport per line, letters and spaces")


def parse_charades(path: Path) -> list[str]:
    """Charades_v1_classes.txt: `c000 Holding some clothes`, counting from 0."""
    names: list[str] = []
    for number, line in lines(path):
        prefix = f"c{len(names):03d} "
        if not line.startswith(prefix) or not line[len(prefix) :].strip():
            raise wrong(path, number, line, f"'{prefix}Text of the class' (counting from c000)")
        names.append(line[len(prefix) :].strip())
    return names


def parse_moments(path: Path) -> list[str]:
    """`name,index` (moments_categories.txt), or `name` alone (category_momentsv2.txt, the multi-label list)."""
    pattern = rf"{_OTHER_LISTS}([\w'+/ -]+?)(?:,\s*\d+)?"
    names = _names(path, pattern, "'adult+male+singing,0' or 'adult+male+singing'")
    counted = [line for _, line in lines(path) if "," in line]
    if counted and len(counted) != len(names):
        raise UserError(f"{path}: {len(counted)} of {len(names)} lines have an index: expected all of them or none")
    return names


def parse_something_something(path: Path) -> list[str]:
    """v2's labels.json `{"template": "index"}` in its order, v2's train.json, or v1's labels.csv or train.csv."""
    names = _templates_json(path) if path.suffix == ".json" else _templates_lines(path)
    if not any("something" in name.lower() for name in names):
        found = names[0] if names else ""
        raise wrong(path, 1, found, "templates such as 'Putting something onto something'")
    return names


def _templates_lines(path: Path) -> list[str]:
    found: dict[str, None] = {}
    for number, line in lines(path):
        video, semicolon, template = line.partition(";")
        if semicolon and not (video.isdigit() and template):
            raise wrong(path, number, line, "a template, or 'video;template'")
        found[(template if semicolon else line).strip().strip('"')] = None
    return list(found)


def _templates_json(path: Path) -> list[str]:
    expected = 'JSON, {"Holding something": "0", ...} or [{"template": "Holding [something]", ...}, ...]'
    numbered: dict[str, int] = {}
    for name, value in json_items(path, expected=expected):
        if isinstance(name, str) and isinstance(value, str | int) and str(value).isdigit():
            numbered[name] = int(value)
        elif isinstance(name, int) and isinstance(value, dict) and isinstance(value.get("template"), str):
            numbered.setdefault(value["template"], len(numbered))
        else:
            raise UserError(f"{path}, item {name!r}: expected {expected}, found {str(value)[:80]!r}")
    return sorted(numbered, key=numbered.__getitem__)


def parse_activitynet(path: Path) -> list[str]:
    """activity_net.v1-3.min.json and HACS_segments: the labels of all annotations, sorted."""
    expected = 'JSON, {"database": {video: {"annotations": [{"label": ...}, ...]}}}'
    labels: set[str] = set()
    for video, entry in json_items(path, key="database", expected=expected):
        try:
            found = [note["label"] for note in entry.get("annotations", ())]
        except (AttributeError, KeyError, TypeError):
            found = [None]
        if not all(isinstance(label, str) for label in found):
            raise UserError(f"{path}, video {video!r}: expected {expected}, found {str(entry)[:80]!r}")
        labels.update(found)
    return sorted(labels)


def _column(path: Path, column: str, *others: str) -> list[str]:
    """Distinct values of a CSV column, in order of first appearance; empty ones are left out."""
    names = dict.fromkeys(row[column].strip() for _, row in rows(path, column, *others))
    return [name for name in names if name]


def parse_kinetics(path: Path) -> list[str]:
    """Column `label` of train.csv or val.csv, sorted as Kinetics numbers them; test.csv has no labels."""
    return sorted(_column(path, "label", "youtube_id", "time_start"))


def parse_hacs(path: Path) -> list[str]:
    """Column `classname` of HACS_clips_v1.1.1.csv, or the labels of HACS_segments_v1.1.1.json; sorted."""
    if path.suffix == ".json":
        return parse_activitynet(path)
    return sorted(_column(path, "classname", "youtube_id"))


def parse_youtube8m(path: Path) -> list[str]:
    """Column `Name` of vocabulary.csv (2016, 2017 and 2018 have the same header); nameless entities are left out."""
    return _column(path, "Name", "Index", "KnowledgeGraphId")


def parse_hvu(path: Path) -> list[str]:
    """Column `Tag` of HVU_Tags_Categories_V1.0.csv."""
    return _column(path, "Tag", "Category")


_AVA_BLOCK = re.compile(r"""\s*(?:#.*\s*)*(?:item|label)\s*\{([^{}]*)\}\s*""")
_AVA_NAME = re.compile(r"""\bname:\s*(["'])((?:\\.|(?!\1).)+)\1""")
_AVA_ID = re.compile(r"\b(?:label_)?id:\s*\d+")


def parse_ava(path: Path) -> list[str]:
    """ava_action_list_*.pbtxt: `label { name: "x" label_id: 1 ... }` or `item { name: "x" id: 1 }` blocks."""
    numbered = list(lines(path))
    text, names, at = "\n".join(line for _, line in numbered), [], 0
    while at < len(text):
        block = _AVA_BLOCK.match(text, at)
        name = block and _AVA_NAME.search(block[1])
        if block is None or name is None or not _AVA_ID.search(block[1]):
            number = numbered[text.count("\n", 0, at)][0]
            raise wrong(path, number, text[at:], 'blocks such as item { name: "bend/bow (at the waist)" id: 1 }')
        names.append(re.sub(r"\\(.)", r"\1", name[2]))
        at = block.end()
    return names


_KINETICS = "train.csv or val.csv: label,youtube_id,time_start,time_end,split"

FORMATS: Mapping[str, Format] = {
    "plain": Format(read=parse_plain, file="any list: one name per line, # for comments"),
    "ucf101": Format(read=parse_ucf101, file="classInd.txt: 1 ApplyEyeMakeup; or trainlist01.txt", classes=(101,)),
    "hmdb51": Format(read=parse_hmdb51, file="folder testTrainMulti_7030_splits, or classInd.txt", classes=(51,)),
    "sports1m": Format(read=parse_sports1m, file="labels.txt: one sport per line", classes=(487,)),
    "activitynet": Format(
        read=parse_activitynet, file='activity_net.v1-3.min.json: {"database": ...}', classes=(100, 200)
    ),
    "charades": Format(
        read=parse_charades, file="Charades_v1_classes.txt: c000 Holding some clothes", classes=(157,)
    ),
    "youtube8m": Format(read=parse_youtube8m, file="vocabulary.csv: Index,...,KnowledgeGraphId,Name,..."),
    "kinetics400": Format(read=parse_kinetics, file=_KINETICS, classes=(400,)),
    "kinetics600": Format(read=parse_kinetics, file=_KINETICS, classes=(600,)),
    "kinetics700": Format(read=parse_kinetics, file=_KINETICS, classes=(700,)),
    "something_something": Format(
        read=parse_something_something,
        file="something-something-v2-labels.json, or v1-labels.csv: one template per line",
        classes=(174,),
    ),
    "ava": Format(read=parse_ava, file='ava_action_list_v2.2.pbtxt: item { name: "x" id: 1 }', classes=(60, 80)),
    "hacs": Format(
        read=parse_hacs, file="HACS_clips_v1.1.1.csv: classname,youtube_id,...; or _segments_ .json", classes=(200,)
    ),
    "hvu": Format(read=parse_hvu, file="HVU_Tags_Categories_V1.0.csv: Tag,Category", classes=(3142, 3457)),
    "moments_in_time": Format(
        read=parse_moments,
        file="moments_categories.txt: name,index; or category_momentsv2.txt: name",
        classes=(292, 305, 339),
    ),
    "noisyactions2m": Format(read=parse_indexed, file="classInd25k.txt: 3 Giant panda", classes=(5499, 6146)),
}  # fmt: skip
"""How each dataset's official file is read."""


def read_labelset(path: Path, *, format: str, dataset: str | None = None) -> list[ClassName]:  # noqa: A002
    """The class names of an official file, in its order; `dataset` names where they are from, else `format` does.

    Raises:
        UserError: the format is unknown, the file cannot be read or is not of that format, has no class, or has more
            classes than any version of that dataset.
    """
    names = list(read_as(path, format=format, formats=FORMATS))
    if not names:
        raise UserError(f"{path}: no class names in it (format {format!r} is {FORMATS[format].file})")
    most = max(FORMATS[format].classes, default=len(names))
    if len(names) > most:
        raise UserError(f"{path}: {len(names)} classes, but {format} has {most}: is it another dataset's or version's?")
    return [ClassName(dataset or format, name) for name in names]


def incomplete(count: int, *, format: str) -> str | None:  # noqa: A002
    """What is odd about this many classes, if no official version has as many: the file may have been cut short."""
    official = FORMATS[format].classes
    if not official or count in official:
        return None
    return f"{format}: {count} classes, the official list has {' or '.join(map(str, official))}: is the file whole?"


def kinetics400() -> list[ClassName]:
    """The 400 names that torchvision ships with its R3D-18 weights; nothing is downloaded."""
    from torchvision.models.video import R3D_18_Weights

    return [ClassName("kinetics400", name) for name in R3D_18_Weights.KINETICS400_V1.meta["categories"]]
