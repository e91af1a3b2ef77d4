import json
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.labelsets import FORMATS, ClassName, incomplete, kinetics400, read_labelset

DATA = Path(__file__).parents[3] / "shared" / "data"
official = pytest.mark.skipif(not DATA.is_dir(), reason="needs the official lists in ../shared/data")


@official
def test_official_class_lists_are_read_whole():
    ucf = read_labelset(DATA / "ucf101" / "classInd.txt", format="ucf101")
    assert len(ucf) == 101
    assert ucf[0] == ClassName("ucf101", "ApplyEyeMakeup")
    assert ucf[-1].raw == "YoYo"
    assert read_labelset(DATA / "ucf101" / "trainlist01.txt", format="ucf101") == ucf
    assert set(read_labelset(DATA / "ucf101" / "testlist01.txt", format="ucf101")) == set(ucf)
    hmdb = read_labelset(DATA / "hmdb51" / "classInd.txt", format="hmdb51")
    assert [name.raw for name in hmdb[:2]] == ["climb stairs", "pullup"]
    assert len(hmdb) == 51
    noisy = read_labelset(DATA / "noisyactions2m" / "multi_classInd25k.txt", format="noisyactions2m", dataset="25k")
    assert len(noisy) == 5499
    assert noisy[2] == ClassName("25k", "Giant panda")


@pytest.mark.parametrize(("kind", "most"), [("ucf101", 101), ("hmdb51", 51), ("noisyactions2m", 6146)])
def test_more_classes_than_the_dataset_has_are_anothers(tmp_path, kind, most):
    path = tmp_path / "classInd.txt"
    path.write_text("".join(f"{number} Name{number}\n" for number in range(1, most + 2)))
    with pytest.raises(UserError, match=rf"{most + 1} classes, but {kind} has {most}: is it another dataset's"):
        read_labelset(path, format=kind)


def test_kinetics400_ships_with_torchvision():
    names = kinetics400()
    assert len({name.raw for name in names}) == 400
    assert ClassName("kinetics400", "abseiling") in names


KINETICS = (
    'label,youtube_id,time_start,time_end,split\nzumba,a,1,2,val\n"tying, a knot",b,1,2,val\nzumba,c,1,2,val\n',
    ["tying, a knot", "zumba"],
)
DATABASE = {
    "version": "VERSION 1.3",
    "taxonomy": [{"nodeName": "Root", "parentName": None}],
    "database": {
        "v1": {"subset": "training", "annotations": [{"label": "Zumba", "segment": [1.5, 2]}, {"label": "Archery"}]},
        "v2": {"subset": "testing", "annotations": []},
    },
}
FILES = {
    "plain": ("a.txt", "# mine\n juggling \n\nriding a horse\n", ["juggling", "riding a horse"]),
    "ucf101": ("classInd.txt", "1 ApplyEyeMakeup\r\n2 ApplyLipstick\r\n", ["ApplyEyeMakeup", "ApplyLipstick"]),
    "ucf101 trainlist": (
        "trainlist01.txt",
        "ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\nHandstandPushups/v_HandStandPushups_g01_c01.avi 37\n",
        ["ApplyEyeMakeup", "HandstandPushups"],
    ),
    "ucf101 testlist": ("testlist01.txt", "Archery/v_Archery_g01_c01.avi\n", ["Archery"]),
    "hmdb51": ("classInd.txt", "1 climb stairs\n2 pullup\n", ["climb stairs", "pullup"]),
    "kinetics400": ("train.csv", *KINETICS),
    "kinetics600": ("train.csv", *KINETICS),
    "kinetics700": ("train.csv", *KINETICS),
    "kinetics400 is_cc": (
        "val.csv",
        "label,youtube_id,time_start,time_end,split,is_cc\nabseiling,a,1,2,val,0\n",
        ["abseiling"],
    ),
    "something_something": (
        "labels.json",
        '{"Holding something": "1", "Putting": "0"}',
        ["Putting", "Holding something"],
    ),
    "something_something v1": (
        "something-something-v1-labels.csv",
        "Holding something\nPutting something, something and something on the table\n",
        ["Holding something", "Putting something, something and something on the table"],
    ),
    "something_something v1 train": (
        "something-something-v1-train.csv",
        "100218;Something falling like a feather or paper\n24413;Holding something\n1;Holding something\n",
        ["Something falling like a feather or paper", "Holding something"],
    ),
    "something_something v2 train": (
        "train.json",
        json.dumps(
            [{"id": "78687", "label": "holding potato", "template": "Holding [something]", "placeholders": ["potato"]}]
        ),
        ["Holding [something]"],
    ),
    "moments_in_time": (
        "moments_categories.txt",
        "adult+male+singing,0\nclapping,1\n",
        ["adult+male+singing", "clapping"],
    ),
    "moments_in_time v2": (
        "category_momentsv2.txt",
        "stroking/petting\nplaying+fun\n",
        ["stroking/petting", "playing+fun"],
    ),
    "activitynet": ("activity_net.v1-3.min.json", json.dumps(DATABASE), ["Archery", "Zumba"]),
    "sports1m": (
        "labels.txt",
        "aikido\nt'ai chi ch'uan\n3x3 (basketball)\npétanque\nfree-diving\n",
        ["aikido", "t'ai chi ch'uan", "3x3 (basketball)", "pétanque", "free-diving"],
    ),
    "charades": ("c.txt", "c000 Holding some clothes\nc001 Putting", ["Holding some clothes", "Putting"]),
    "ava": (
        "ava_action_list_v2.2_for_activitynet_2019.pbtxt",
        'item {\n  name: "bend/bow (at the waist)"\n  id: 1\n}\nitem { name: "crawl" id: 2 }\n',
        ["bend/bow (at the waist)", "crawl"],
    ),
    "ava label": (
        "ava_action_list_v2.2.pbtxt",
        'label {\n  name: "crouch/kneel"\n  label_id: 3\n  label_type: PERSON_MOVEMENT\n}\n',
        ["crouch/kneel"],
    ),
    "hacs": (
        "HACS_clips_v1.1.1.csv",
        "classname,youtube_id,subset,start,end,label\nWakeboarding,x,training,1.0,3.0,1\nArchery,y,testing,0,2,-1\n",
        ["Archery", "Wakeboarding"],
    ),
    "hacs segments": ("HACS_segments_v1.1.1.json", json.dumps(DATABASE), ["Archery", "Zumba"]),
    "hvu": ("HVU_Tags_Categories_V1.0.csv", "Tag,Category\nskiing,action\nsnow,object\n", ["skiing", "snow"]),
    "youtube8m": (
        "vocabulary.csv",
        "Index,TrainVideoCount,KnowledgeGraphId,Name,WikiUrl,Vertical1,Vertical2,Vertical3,WikiDescription\n"
        '0,788288,/m/03bt1gh,Game,u,Games,,,"A game, or\nnot ""a game"""\n1,3,/m/2,,,,,,\n'
        "2,9,/m/0k4j,Car,u,A & V,,,A car.\n",
        ["Game", "Car"],
    ),
    "noisyactions2m": ("classInd25k.txt", "1 pond\n2 Pond\n3 Giant panda\n", ["pond", "Pond", "Giant panda"]),
}


def write(tmp_path, kind):
    name, content, expected = FILES[kind]
    (tmp_path / name).write_bytes(content.encode())
    return tmp_path / name, expected


@pytest.mark.parametrize("kind", sorted(FILES))
def test_each_format_reads_its_file(tmp_path, kind):
    path, expected = write(tmp_path, kind)
    assert [c.raw for c in read_labelset(path, format=kind.split()[0])] == expected


def test_every_format_is_covered_here():
    assert set(FORMATS) == {kind.split()[0] for kind in FILES}


CANNOT_BE_TOLD = {
    "hmdb51": {"ucf101", "noisyactions2m"},
    "noisyactions2m": {"ucf101", "hmdb51"},
    "activitynet": {"hacs segments"},
    "hacs": {"activitynet"},
    "kinetics400": {"kinetics600", "kinetics700"},
    "kinetics600": {"kinetics400", "kinetics700", "kinetics400 is_cc"},
    "kinetics700": {"kinetics400", "kinetics600", "kinetics400 is_cc"},
}
"""Parser -> files of others that have the very same form."""


@pytest.mark.parametrize("kind", sorted(set(FORMATS) - {"plain"}))
def test_the_files_of_other_datasets_are_refused_wherever_that_can_be_told(tmp_path, kind):
    for other in FILES:
        if other.split()[0] == kind or other in CANNOT_BE_TOLD.get(kind, ()):
            continue
        path, _ = write(tmp_path, other)
        with pytest.raises(UserError) as told:
            read_labelset(path, format=kind)
        assert "expected" in str(told.value), (kind, other)
        assert f"(format '{kind}' is {FORMATS[kind].file})" in str(told.value), (kind, other)


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_absent_binary_and_empty_files_are_told_by_every_format(tmp_path, kind):
    with pytest.raises(UserError, match=r"cannot be read .No such file"):
        read_labelset(tmp_path / "absent.txt", format=kind)
    suffix = Path(FILES[kind][0]).suffix
    (tmp_path / f"binary{suffix}").write_bytes(b"PK\x03\x04\x00\x00\xff\xfe")
    with pytest.raises(UserError, match="line 1: not text in UTF-8: is it the right file, and unpacked"):
        read_labelset(tmp_path / f"binary{suffix}", format=kind)
    (tmp_path / f"empty{suffix}").write_bytes(b"")
    with pytest.raises(UserError, match=r"no class names in it|line 1: expected .* found '(the end of the file)?'"):
        read_labelset(tmp_path / f"empty{suffix}", format=kind)


@pytest.mark.parametrize("kind", ["activitynet", "ava", "something_something", "kinetics400", "youtube8m", "hvu"])
def test_a_truncated_file_is_told(tmp_path, kind):
    path, _ = write(tmp_path, kind)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"line \d+: (expected .* found|not CSV .unexpected end of data)"):
        read_labelset(path, format=kind)


def test_hmdb51_classes_come_from_its_split_folder(tmp_path):
    for name in ("wave", "brush_hair"):
        for split in (1, 2, 3):
            (tmp_path / f"{name}_test_split{split}.txt").write_text("a.avi 1 \nb (2).avi 0 \n")
    assert [c.raw for c in read_labelset(tmp_path, format="hmdb51")] == ["brush_hair", "wave"]
    (tmp_path / "wave_test_split1.txt").write_text("a.avi 1\nb.avi 7\n")
    with pytest.raises(UserError, match=r"wave_test_split1.txt, line 2: expected 'file.avi 0\|1\|2', found 'b.avi 7'"):
        read_labelset(tmp_path, format="hmdb51")


@pytest.mark.parametrize(
    ("kind", "content", "match"),
    [
        ("ucf101", "1 Archery\n3 Biking\n", r"line 2: expected '2 class name' .* found '3 Biking'"),
        ("ucf101", "1 Archery\n2\n", r"line 2: expected '1 ApplyEyeMakeup' or .* found '2'"),
        ("noisyactions2m", "1 pond\n2\n", r"line 2: expected '2 class name'"),
        ("ucf101", "Archery/v_a.avi 1\nArchery 1\n", r"line 2: expected '1 ApplyEyeMakeup' or .* found 'Archery 1'"),
        ("kinetics400", "name,id\nx,y\n", r"line 1: expected a CSV header with 'label', 'youtube_id'.*'name,id'"),
        ("kinetics400", "youtube_id,time_start\nx,1\n", "expected a CSV header with 'label'"),
        ("hvu", "Tag,Category\n\nx\n", r"line 3: expected 2 comma-separated values as in the header, found 'x'"),
        ("hvu", 'Tag,Category\n"x,y\n', r"line 2: not CSV .unexpected end of data.: is the file whole"),
        ("charades", "c000 Fine\nc1 Not\n", r"line 2: expected 'c001 Text of the class'"),
        ("charades", "c000 Fine\nc002 Gap\n", r"line 2: expected 'c001 Text of the class'"),
        ("something_something", '{"a": }', r"line 1: expected JSON"),
        ("something_something", '{"Jumping": "1"}', "expected templates such as 'Putting something onto something'"),
        ("something_something", '{"Holding something": "x"}', r"item 'Holding something': expected JSON.*found 'x'"),
        ("activitynet", "{}", "expected .*database.* but it has no 'database'"),
        ("activitynet", '{"database":\n{"v": {"annotations": [{"segment": []}]}}}', "video 'v': expected JSON"),
        ("activitynet", '{"database": {"v": 3}}', "video 'v': expected JSON.*found '3'"),
        ("moments_in_time", "clapping,0\nwaving\n", "1 of 2 lines have an index: expected all of them or none"),
        ("sports1m", "aikido\nhttps://www.youtube.com/watch?v=x 1,2\n", "line 2: expected one sport per line"),
        ("plain", "\n\n", "no class names in it"),
        ("ava", "\nnothing", "line 2: expected blocks such as item"),
        ("ava", 'item { name: "a" id: 1 }\n\nitem { id: 2 }', "line 3: expected blocks such as item"),
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
    with pytest.raises(UserError, match=match) as told:
        read_labelset(path, format=kind)
    assert "\n" not in str(told.value)


def test_a_count_that_no_version_has_is_noted():
    assert incomplete(200, format="hacs") is None
    assert incomplete(7, format="plain") is None
    assert incomplete(150, format="charades") == (
        "charades: 150 classes, the official list has 157: is the file whole?"
    )
