import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.splits import (
    SplitSettings,
    make_splits,
    parse_split,
    read_split,
    write_splits,
)
from pipeline.store import FolderStore
from pipeline.usable import ROWS_SCHEMA

DATA = Path(__file__).parents[3] / "shared" / "data" / "noisyactions2m"
official = pytest.mark.skipif(not DATA.is_dir(), reason="needs the official lists in ../shared/data")


def _row(number, **change):
    return {
        "video_id": f"{number:04d}",
        "outcome": "ok",
        "title": "a title",
        "description": "word " * (number % 50 + 1),
        "tags": ["one", "two"],
        "comments": [{"author_hash": "x", "text": "so nice", "posted": 1}],
        "concepts": [f"class {number % 4}", f"class {number % 3}"],
        "owner": f"owner{number % 40}",
    } | change


def _batches(rows, size=64):
    """As they are read from shards."""
    rows = list(rows)
    for start in range(0, len(rows), size):
        yield pa.RecordBatch.from_pylist(rows[start : start + size], schema=ROWS_SCHEMA)


def _splits(rows, *, settings):
    return make_splits(_batches(rows), settings=settings)


ROWS = [_row(number) for number in range(400)]
SETTINGS = SplitSettings(sizes={"small": 50, "large": 200, "all": None}, min_videos=5, val_fraction=0.1)


def _words(row):
    """Of title, description, tags and comments, as Python tells them apart."""
    texts = [row["title"], row["description"], " ".join(row["tags"] or ())]
    texts.append(" ".join(comment["text"] or "" for comment in row["comments"] or ()))
    return [len((text or "").split()) for text in texts]


def test_splits_are_ranked_by_words_nested_and_apart_from_validation():
    splits = _splits(ROWS, settings=SETTINGS)
    small, large, rest = (list(splits.train[name]) for name in ("small", "large", "all"))
    assert (len(small), len(large)) == (50, 200)
    assert small == large[:50]
    assert large == rest[:200]
    words = {row["video_id"]: sum(_words(row)) for row in ROWS}
    assert rest == sorted(rest, key=lambda video: (-words[video], video))
    assert 0 < len(splits.val) <= 40
    assert len(rest) + len(splits.val) == 400
    owner = {row["video_id"]: row["owner"] for row in ROWS}
    assert not {owner[video] for video in splits.val} & {owner[video] for video in rest}
    assert splits.card["overlap"]["all"] == {"videos_in_val": 0, "owners_in_val": 0}
    assert splits.card["nested"] == {"small in large": True, "large in all": True}


def test_the_order_of_the_rows_does_not_matter_and_the_seed_does():
    splits = _splits(ROWS, settings=SETTINGS)
    assert _splits(reversed(ROWS), settings=SETTINGS) == splits
    other = SplitSettings(sizes=SETTINGS.sizes, min_videos=5, val_fraction=0.1, seed=1)
    assert set(_splits(ROWS, settings=other).val) != set(splits.val)


def test_videos_of_unknown_owners_stand_for_themselves():
    rows = [_row(number, owner=None) for number in range(100)]
    assert len(_splits(rows, settings=SETTINGS).val) == 10


def test_rare_classes_are_dropped_with_the_videos_that_have_no_other():
    rows = [*ROWS, _row(900, concepts=["rare"]), _row(901, concepts=["rare", "class 1"]), _row(902, outcome="gone")]
    splits = _splits(rows, settings=SETTINGS)
    assert splits.classes == ("class 0", "class 1", "class 2", "class 3")
    everything = {**splits.train["all"], **splits.val}
    assert "0900" not in everything
    assert "0902" not in everything
    assert everything["0901"] == (1,)
    assert splits.card["classes"] == {"kept": 4, "dropped": 1}
    assert splits.card["videos"] == {"usable": 402, "qualifying": 401, "lost": {"no_class_left": 1}}


def test_videos_that_lack_metadata_are_taken_only_if_asked_and_fewer_than_asked_is_told(caplog):
    rows = [_row(n, comments=[] if n % 2 else _row(n)["comments"]) for n in range(100)]
    strict = SplitSettings(sizes={"25k": 90}, min_videos=5, val_fraction=0)
    splits = _splits(rows, settings=strict)
    assert len(splits.train["25k"]) == 50
    assert splits.card["splits"]["25k"]["asked"] == 90
    assert splits.card["splits"]["25k"]["videos"] == 50
    assert splits.card["videos"]["lost"] == {"no_comments": 50}
    assert "split 25k: 90 videos were asked for, 50 qualify" in caplog.text
    loose = SplitSettings(sizes={"25k": 90}, min_videos=5, val_fraction=0, require="any")
    assert len(_splits(rows, settings=loose).train["25k"]) == 90


def test_no_video_that_qualifies_is_an_error_with_the_way_out():
    with pytest.raises(
        UserError, match=r"of 3 usable ones \{'no_class_left': 3\}.*try require=any or a smaller min_vid"
    ):
        _splits(ROWS[:3], settings=SETTINGS)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"val_fraction": 1.0}, "val_fraction 1.0"),
        ({"sizes": {}}, "at least 1 video and 1 size"),
        ({"sizes": {"../x": 5}}, r"split '../x' of 5 videos"),
        ({"sizes": {"a": 0}}, "split 'a' of 0 videos"),
    ],
)
def test_settings_are_checked(change, match):
    with pytest.raises(UserError, match=match):
        SplitSettings(**change)


def test_lists_are_written_in_the_released_format_and_read_back(tmp_path):
    store = FolderStore(tmp_path)
    splits = _splits(ROWS, settings=SETTINGS)
    write_splits(store, splits)
    assert store.read("splits/classes.txt") == b"1 class 0\n2 class 1\n3 class 2\n4 class 3\n"
    line = store.read("splits/small_train.txt").decode().splitlines()[0]
    video, labels = next(iter(splits.train["small"].items()))
    assert line == f"{video} {'|'.join(str(label + 1) for label in labels)}"
    for name in ("small", "large", "all"):
        assert read_split(store, name) == (splits.classes, splits.train[name])
    assert read_split(store, "val") == (splits.classes, splits.val)
    card = json.loads(store.read("splits/card.json"))
    assert card["sha256"]["val.txt"] == hashlib.sha256(store.read("splits/val.txt")).hexdigest()
    assert card["sha256"].keys() == {"classes.txt", "small_train.txt", "large_train.txt", "all_train.txt", "val.txt"}
    with pytest.raises(UserError, match=r"no split '100k' \(it has \[.*'val.txt'\]\): run the verb 'split' first"):
        read_split(store, "100k")


def test_a_list_is_read_tolerantly():
    classes, videos = parse_split("1.mp4 2|1|2\n\n2\nv_a.avi  3\n", classes="1 pond\n2 Pond\n\n3 Giant panda\n")
    assert classes == ("pond", "Pond", "Giant panda")
    assert videos == {"1": (1, 0), "2": (), "v_a": (2,)}
    merged = parse_split("1 2|1|3\n", classes="1 pond\n2 Pond\n3 Giant panda\n", merge_case_duplicates=True)
    assert merged == (("pond", "Giant panda"), {"1": (0, 1)})


@pytest.mark.parametrize(
    ("videos", "classes", "match"),
    [
        ("1 1\n2 4\n", "1 a\n2 b\n", r"line 2: label '4' is not one of the classes 1 to 2"),
        ("1 0\n", "1 a\n", "label '0'"),
        ("1 x\n", "1 a\n", "label 'x'"),
        ("1 1\n", "1 a\n3 b\n", "expected '2 name', found '3 b'"),
    ],
)
def test_wrong_lists_are_refused(videos, classes, match):
    with pytest.raises(UserError, match=match):
        parse_split(videos, classes=classes)


@official
def test_the_released_lists_are_read_as_they_are():
    text = (DATA / "multi_classInd25k.txt").read_text()
    classes, train = parse_split((DATA / "multi_trainlist25k.txt").read_text(), classes=text)
    assert (len(classes), len(train)) == (5499, 27_568)
    assert sum(map(len, train.values())) / len(train) == pytest.approx(8.80, abs=0.005)
    assert sum(len(labels) == 1 for labels in train.values()) == 2089
    _, single = parse_split((DATA / "single_trainlist25k.txt").read_text(), classes=text)
    assert all(set(single[video]) <= set(labels) for video, labels in train.items())
    _, test = parse_split((DATA / "multi_annotTest25k.txt").read_text(), classes=text)
    assert sum(not labels for labels in test.values()) == 4
    assert not test.keys() & train.keys()
    merged, _ = parse_split("", classes=text, merge_case_duplicates=True)
    assert len(merged) == 5499 - 792
