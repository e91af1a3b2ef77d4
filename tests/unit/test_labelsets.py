import json
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.labelsets import FORMATS, ClassName, kinetics400, read_labelset

DATA = Path(__file__).parents[3] / "shared" / "data"
official = pytest.mark.skipif(not DATA.is_dir(), reason="needs the official lists in ../shared/data")


@official
def test_official_class_lists_are_read_whole():
    ucf = read_labelset(DATA / "ucf101" / "classInd.txt", format="ucf101")
    assert len(ucf) == 101
    assert ucf[0] == ClassName("ucf101", "ApplyEyeMakeup")
    assert ucf[-1].raw == "YoYo"
    hmdb = read_labelset(DATA / "hmdb51" / "classInd.txt", format="hmdb51")
    assert [name.raw for name in hmdb[:2]] == ["climb stairs", "pullup"]
    assert len(hmdb) == 51
    noisy = read_labelset(DATA / "noisyactions2m" / "multi_classInd25k.txt", format="noisyactions2m", dataset="25k")
    assert len(noisy) == 5499
    assert noisy[2] == ClassName("25k", "Giant panda")


def test_kinetics400_ships_with_torchvision():
    names = kinetics400()
    assert len({name.raw for name in names}) == 400
    assert ClassName("kinetics400", "abseiling") in names


FILES = {
    "plain": ("a.txt", "# mine\n juggling \n\nriding a horse\n", ["juggling", "riding a horse"]),
    "ucf101": ("classInd.txt", "1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n", ["ApplyEyeMakeup", "ApplyLipstick"]),
    "kinetics": (
        "train.csv",
        'label,youtube_id,time_start,time_end,split\nzumba,a,1,2,val\n"tying, a knot",b,1,2,val\nzumba,c,1,2,val\n',
        ["tying, a knot", "zumba"],
    ),
    "something_something": ("labels.json", '{"Holding [x]": "1", "Putting": "0"}', ["Putting", "Holding [x]"]),
    "moments_in_time": (
        "moments_categories.txt",
        "adult+male+singing,0\nclapping,1\n",
        ["adult+male+singing", "clapping"],
    ),
    "activitynet": (
        "a.json",
        json.dumps({"database": {"v": {"annotations": [{"label": "Zumba"}, {"label": "Archery"}]}, "w": {}}}),
        ["Archery", "Zumba"],
    ),
    "sports1m": ("labels.txt", "aikido\nair racing\n", ["aikido", "air racing"]),
    "charades": ("c.txt", "c000 Holding some clothes\nc001 Putting", ["Holding some clothes", "Putting"]),
    "ava": ("a.pbtxt", 'item {\n  name: "bend/bow (at the waist)"\n  id: 1\n}\n', ["bend/bow (at the waist)"]),
    "hacs": ("h.csv", "classname,youtube_id\nWakeboarding,x\nArchery,y\n", ["Archery", "Wakeboarding"]),
    "hvu": ("h.csv", "Tag,Category\nskiing,action\nsnow,object\n", ["skiing", "snow"]),
    "youtube8m": ("v.csv", "Index,TrainVideoCount,KnowledgeGraphId,Name\n0,9,/m/1,Game\n1,3,/m/2,\n", ["Game"]),
}


@pytest.mark.parametrize("kind", sorted(FILES))
def test_each_format_reads_its_file(tmp_path, kind):
    name, content, expected = FILES[kind]
    (tmp_path / name).write_bytes(content.encode())
    assert [c.raw for c in read_labelset(tmp_path / name, format=kind)] == expected


def test_hmdb51_classes_come_from_its_split_folder(tmp_path):
    for name in ("wave", "brush_hair"):
        for split in (1, 2, 3):
            (tmp_path / f"{name}_test_split{split}.txt").write_text("a.avi 1\n")
    assert [c.raw for c in read_labelset(tmp_path, format="hmdb51")] == ["brush_hair", "wave"]


@pytest.mark.parametrize(
    ("kind", "content", "match"),
    [
        ("ucf101", "1 Archery\n3 Biking\n", r"line 2: expected '2 class name' .* found '3 Biking'"),
        ("ucf101", "1 Archery\n2\n", r"line 2: expected '2 class name'"),
        ("kinetics", "name,id\nx,y\n", r"line 1: expected a CSV header with the column 'label', found 'name,id'"),
        ("kinetics", "label,id\nx\n", r"line 2: expected 2 comma-separated values"),
        ("charades", "c000 Fine\nc1 Not\n", r"line 2: expected 'c000 Text of the class'"),
        ("something_something", '{"a": }', r"line 1: expected JSON"),
        ("activitynet", "{}", "expected .*database"),
        ("plain", "\n\n", "no class names in it"),
        ("ava", "nothing", "expected blocks such as item"),
        ("hmdb51", None, "no files <class>_test_split1.txt"),
        ("nonsense", "x", "'nonsense' is not one of plain, ucf101"),
    ],
)
def test_errors_name_the_line_and_the_expected_format(tmp_path, kind, content, match):
    path = tmp_path / ("labels.json" if kind in ("something_something", "activitynet") else "labels.txt")
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)
    with pytest.raises(UserError, match=match):
        read_labelset(path, format=kind)


def test_a_file_that_is_missing_or_not_text_is_told(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_labelset(tmp_path / "absent.txt", format="plain")
    (tmp_path / "binary").write_bytes(b"abc\xff\xfe")
    with pytest.raises(UserError, match="not text in UTF-8"):
        read_labelset(tmp_path / "binary", format="plain")


def test_every_format_is_covered_here():
    assert set(FORMATS) == set(FILES) | {"hmdb51", "noisyactions2m"}
