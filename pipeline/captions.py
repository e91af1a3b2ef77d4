"""Caption datasets (paper, A.1): one small parser per official file, sentence by sentence, none held in memory.

for sentence in read_captions(Path("annotations/captions_train2017.json"), format="coco"): ...
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.textfiles import Format, json_items, lines, read_as, rows, wrong


def parse_plain(path: Path) -> Iterator[str]:
    """One caption per line."""
    for _, line in lines(path):
        yield line


def _tabbed(path: Path, pattern: str, expected: str) -> Iterator[str]:
    """The first group of a pattern that every line matches."""
    for number, line in lines(path):
        match = re.fullmatch(pattern, line)
        if match is None:
            raise wrong(path, number, line, expected)
        yield match[1]


def parse_flickr30k(path: Path) -> Iterator[str]:
    """results_20130124.token: `1000092795.jpg#0<TAB>caption`."""
    return _tabbed(path, r"\S+#\d+\t(.*)", "'1000092795.jpg#0<TAB>caption'")


def parse_tgif(path: Path) -> Iterator[str]:
    """tgif-v1.0.tsv: `https://....gif<TAB>sentence`."""
    return _tabbed(path, r"https?://\S+\t(.*)", "'https://address.gif<TAB>sentence'")


def parse_conceptual_captions(path: Path) -> Iterator[str]:
    """Train_GCC-training.tsv: `caption<TAB>https://...`; the header `caption<TAB>url` that tools add is no caption."""
    for caption in _tabbed(path, r"(.*)\t(?:https?://[^\t]+|url)", "'caption<TAB>https://address'"):
        if caption != "caption":
            yield caption


def parse_sbu(path: Path) -> Iterator[str]:
    """SBU_captioned_photo_dataset_captions.txt: a caption per line, in the order of the file of addresses."""
    for number, line in lines(path):
        if re.match(r"https?://\S+(\t|$)|\S+#\d+\t|.*\thttps?://", line) or (number == 1 and line[0] in "{["):
            raise wrong(path, number, line, "a caption and nothing else (the addresses are in ..._urls.txt)")
        yield line


def parse_a2d_sentences(path: Path) -> Iterator[str]:
    """a2d_annotation.txt, CSV: video_id,instance_id,query."""
    for _, row in rows(path, "video_id", "instance_id", "query"):
        yield row["query"]


def parse_charades(path: Path) -> Iterator[str]:
    """Columns `script` and `descriptions` (several, with `;` between) of Charades' and Charades-Ego's csv."""
    for _, row in rows(path, "id", "script", "descriptions"):
        yield row["script"]
        yield from row["descriptions"].split(";")


def _texts(path: Path, key: str | None, expected: str, captions: Callable[[Any], list[Any]]) -> Iterator[str]:
    """What `captions` takes out of each item of a JSON file."""
    for name, value in json_items(path, key=key, expected=expected):
        try:
            found = captions(value)
        except (KeyError, TypeError, AttributeError):
            found = [None]
        if not all(isinstance(text, str) for text in found):
            place = f"{key}[{name!r}]" if key else f"item {name!r}"
            raise UserError(f"{path}, {place}: expected {expected}, found {json.dumps(value)[:80]}")
        yield from found


def parse_activitynet_captions(path: Path) -> Iterator[str]:
    """train.json, val_1.json, val_2.json: {video: {"duration", "timestamps", "sentences": [...]}}."""
    expected = '{"v_...": {"duration": ..., "timestamps": [...], "sentences": ["...", ...]}, ...}'
    return _texts(path, None, expected, lambda video: list(video["sentences"]))


def parse_coco(path: Path) -> Iterator[str]:
    """captions_train2017.json: annotations[].caption."""
    return _texts(path, "annotations", '{"annotations": [{"caption": ...}, ...]}', lambda item: [item["caption"]])


def parse_msrvtt(path: Path) -> Iterator[str]:
    """train_val_videodatainfo.json: sentences[].caption."""
    return _texts(path, "sentences", '{"sentences": [{"caption": ...}, ...]}', lambda item: [item["caption"]])


def parse_visual_genome(path: Path) -> Iterator[str]:
    """region_descriptions.json: [{"regions": [{"phrase"}]}], of some 100,000 images with 50 phrases each."""
    expected = '[{"regions": [{"phrase": ...}, ...]}, ...]'
    return _texts(path, None, expected, lambda image: [region["phrase"] for region in image["regions"]])


def parse_activitynet_entities(path: Path) -> Iterator[str]:
    """anet_entities_cleaned_class_thresh50_trainval.json: annotations[video].segments[number].tokens, joined."""
    expected = '{"annotations": {video: {"segments": {number: {"tokens": [...]}}}}}'
    return _texts(
        path, "annotations", expected, lambda video: [" ".join(part["tokens"]) for part in video["segments"].values()]
    )


def parse_open_images(path: Path) -> Iterator[str]:
    """Localized narratives (.jsonl, field `caption`), or relationship triplets (-vrd.csv) as short sentences.

    Open Images V4, which the paper cites, has no captions; these two are what it has of sentences. For triplets, the
    names of classes are taken from the *description*.csv files (`/m/04yx4,Man`) in the same folder.
    """
    return _narratives(path) if path.suffix in (".jsonl", ".json") else _triplets(path)


def _narratives(path: Path) -> Iterator[str]:
    for number, line in lines(path):
        try:
            caption = json.loads(line)["caption"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise wrong(path, number, line, 'a JSON line with "caption"') from error
        yield str(caption)


def _triplets(path: Path) -> Iterator[str]:
    names: dict[str, str] = {}
    for described in sorted(path.parent.glob("*description*.csv")):
        names |= {
            mid: name.strip('" ') for _, line in lines(described) for mid, comma, name in [line.partition(",")] if comma
        }
    for number, row in rows(path, "LabelName1", "LabelName2", "RelationshipLabel"):
        missing = [row[column] for column in ("LabelName1", "LabelName2") if row[column] not in names]
        if missing:
            raise UserError(
                f"{path}, line {number}: no name for {missing[0]!r}: put Open Images' class and attribute "
                f"descriptions (class-descriptions-boxable.csv and the like) into {path.parent}"
            )
        relationship = row["RelationshipLabel"].replace("_", " ")
        yield f"{names[row['LabelName1']]} {relationship} {names[row['LabelName2']]}"


FORMATS: Mapping[str, Format] = {
    "plain": Format(read=parse_plain, file="any list: one caption per line"),
    "activitynet_captions": Format(read=parse_activitynet_captions, file="train.json, val_1.json, val_2.json"),
    "coco": Format(read=parse_coco, file="captions_train2017.json"),
    "msrvtt": Format(read=parse_msrvtt, file="train_val_videodatainfo.json"),
    "flickr30k": Format(read=parse_flickr30k, file="results_20130124.token: x.jpg#0<TAB>caption"),
    "sbu": Format(read=parse_sbu, file="SBU_captioned_photo_dataset_captions.txt: one caption per line"),
    "a2d_sentences": Format(read=parse_a2d_sentences, file="a2d_annotation.txt: video_id,instance_id,query"),
    "visual_genome": Format(read=parse_visual_genome, file="region_descriptions.json"),
    "conceptual_captions": Format(
        read=parse_conceptual_captions, file="Train_GCC-training.tsv: caption<TAB>https://address"
    ),
    "charades": Format(read=parse_charades, file="Charades_v1_train.csv: id,...,script,objects,descriptions,..."),
    "charades_ego": Format(read=parse_charades, file="CharadesEgo_v1_train.csv: id,...,script,...,descriptions,..."),
    "open_images": Format(
        read=parse_open_images,
        file="open_images_*_localized_narratives.jsonl; or *-vrd.csv beside class-descriptions-boxable.csv",
    ),
    "tgif": Format(read=parse_tgif, file="tgif-v1.0.tsv: https://address.gif<TAB>sentence"),
    "activitynet_entities": Format(
        read=parse_activitynet_entities, file="anet_entities_cleaned_class_thresh50_trainval.json"
    ),
}
"""How each dataset's official file is read."""

_SENTENCE_END = re.compile(r"(?:(?<=[a-z0-9)\"'][.!?])|(?<=[.!?][)\"']))\s+|\s*\n\s*")
"""The letter before keeps initials such as `J. Smith` together."""


def read_captions(path: Path, *, format: str) -> Iterator[str]:  # noqa: A002
    """The sentences of an official file, in its order; captions of several sentences, as Charades' scripts, are split.

    Raises:
        UserError: the format is unknown, or the file cannot be read, is not of that format, or has no caption.
    """
    sentence = None
    for caption in read_as(path, format=format, formats=FORMATS):
        for sentence in filter(None, _SENTENCE_END.split(caption.strip())):
            yield sentence
    if sentence is None:
        raise UserError(f"{path}: no captions in it (format {format!r} is {FORMATS[format].file})")
