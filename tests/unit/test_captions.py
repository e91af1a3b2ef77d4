import json
from pathlib import Path

import pytest

from pipeline.captions import FORMATS, read_captions
from pipeline.errors import UserError

CHARADES = (
    "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
    '46GP8,HR43,Kitchen,6,7,Yes,"A person cooks. He looks, then eats.",food;stove,A man cooks food;A man eats.,,24.83\n'
    "N11GT,0KZ7,Stairs,6,7,No,,towel,,c149 1.0 2.0,18.33\n"
)
NARRATIVE = {
    "dataset_id": "open_images",
    "image_id": "1",
    "annotator_id": 4,
    "caption": "A man. He runs.",
    "traces": [[]],
}
ENTITIES = {
    "vocab": ["man"],
    "annotations": {
        "v_1": {"duration": 9, "segments": {"0": {"process_clss": [["man"]], "tokens": ["A", "man", "runs"]}}},
        "v_2": {"duration": 9, "segments": {}},
    },
}
FILES = {
    "plain": ("captions.txt", "A dog runs.\n\n2 men in a boat\n", ["A dog runs.", "2 men in a boat"]),
    "activitynet_captions": (
        "val_1.json",
        json.dumps({"v_1": {"duration": 8.2, "timestamps": [[0, 8]], "sentences": ["A girl dances.", " She stops. "]}}),
        ["A girl dances.", "She stops."],
    ),
    "coco": (
        "captions_val2017.json",
        json.dumps({
            "info": {"year": 2017},
            "images": [{"id": 1, "license": 3}],
            "annotations": [{"image_id": 1, "id": 2, "caption": "A horse in a field."}],
        }),
        ["A horse in a field."],
    ),
    "msrvtt": (
        "train_val_videodatainfo.json",
        json.dumps({
            "info": {"contributor": "x"},
            "videos": [{"video_id": "video0", "category": 9}],
            "sentences": [{"caption": "a cartoon animals runs", "video_id": "video0", "sen_id": 0}],
        }),
        ["a cartoon animals runs"],
    ),
    "flickr30k": (
        "results_20130124.token",
        "1000092795.jpg#0\tTwo young guys outside .\n1000092795.jpg#1\tTwo men\n",
        ["Two young guys outside .", "Two men"],
    ),
    "sbu": (
        "SBU_captioned_photo_dataset_captions.txt",
        "The sun was coming through the trees\nMy cat {sleeping} in a box\n",
        ["The sun was coming through the trees", "My cat {sleeping} in a box"],
    ),
    "a2d_sentences": (
        "a2d_annotation.txt",
        'video_id,instance_id,query\nEadxBPmQvtg,0,man in a red shirt\nx,1 (copy),"cat, on the left"\n',
        ["man in a red shirt", "cat, on the left"],
    ),
    "visual_genome": (
        "region_descriptions.json",
        json.dumps([
            {"id": 1, "regions": [{"region_id": 1, "image_id": 1, "phrase": "a clock is green", "x": 1}]},
            {"id": 2, "regions": []},
        ]),
        ["a clock is green"],
    ),
    "conceptual_captions": (
        "Validation_GCC-1.1.0-Validation.tsv",
        "author : a life in photography\thttps://a.b/c d.jpg\nthe player celebrates\thttp://x.y/z\n",
        ["author : a life in photography", "the player celebrates"],
    ),
    "conceptual_captions with a header": ("cc.tsv", "caption\turl\na man\thttp://x.y/z\n", ["a man"]),
    "charades": (
        "Charades_v1_train.csv",
        CHARADES,
        ["A person cooks.", "He looks, then eats.", "A man cooks food", "A man eats."],
    ),
    "charades_ego": (
        "CharadesEgo_v1_train.csv",
        CHARADES.replace("length", "length,egocentric").replace("83\n", "83,Yes\n").replace("33\n", "33,No\n"),
        ["A person cooks.", "He looks, then eats.", "A man cooks food", "A man eats."],
    ),
    "open_images": ("x_localized_narratives.jsonl", json.dumps(NARRATIVE) + "\n", ["A man.", "He runs."]),
    "tgif": ("tgif-v1.0.tsv", "https://a.tumblr.com/1.gif\ta man is glaring\n", ["a man is glaring"]),
    "activitynet_entities": (
        "anet_entities_cleaned_class_thresh50_trainval.json",
        json.dumps(ENTITIES),
        ["A man runs"],
    ),
}  # fmt: skip


def write(tmp_path, kind):
    name, content, expected = FILES[kind]
    (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path / name, expected


@pytest.mark.parametrize("kind", sorted(FILES))
def test_each_format_reads_its_file(tmp_path, kind):
    path, expected = write(tmp_path, kind)
    assert list(read_captions(path, format=kind.split()[0])) == expected


def test_every_format_is_covered_here():
    assert set(FORMATS) == {kind.split()[0] for kind in FILES}


CANNOT_BE_TOLD = {
    "charades": {"charades_ego"},
    "charades_ego": {"charades"},
    "sbu": {"plain", "charades", "charades_ego", "a2d_sentences"},
}
"""Parser -> files of the same form, or lines of text that might be captions."""


@pytest.mark.parametrize("kind", sorted(set(FORMATS) - {"plain"}))
def test_the_files_of_other_datasets_are_refused_wherever_that_can_be_told(tmp_path, kind):
    for other in FILES:
        if other.split()[0] == kind or other in CANNOT_BE_TOLD.get(kind, ()):
            continue
        path, _ = write(tmp_path, other)
        with pytest.raises(UserError) as told:
            list(read_captions(path, format=kind))
        assert "expected" in str(told.value), (kind, other)
        assert f"(format '{kind}' is {FORMATS[kind].file})" in str(told.value), (kind, other)


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_absent_binary_and_empty_files_are_told_by_every_format(tmp_path, kind):
    with pytest.raises(UserError, match=r"cannot be read .No such file"):
        list(read_captions(tmp_path / "absent.txt", format=kind))
    suffix = Path(FILES[kind][0]).suffix
    (tmp_path / f"binary{suffix}").write_bytes(b"PK\x03\x04\x00\x00\xff\xfe")
    with pytest.raises(UserError, match="line 1: not text in UTF-8: is it the right file, and unpacked"):
        list(read_captions(tmp_path / f"binary{suffix}", format=kind))
    (tmp_path / f"empty{suffix}").write_bytes(b"")
    with pytest.raises(UserError, match=r"no captions in it|line 1: expected .* found '(the end of the file)?'"):
        list(read_captions(tmp_path / f"empty{suffix}", format=kind))


@pytest.mark.parametrize(
    ("kind", "content", "match"),
    [
        ("flickr30k", "1.jpg#0\tfine\n2.jpg fine\n", r"line 2: expected '1000092795.jpg#0<TAB>caption', found '2.jpg"),
        ("tgif", "https://a/1.gif\tfine\nhttps://a/2.gif\n", "line 2: expected 'https://address.gif<TAB>sentence'"),
        ("conceptual_captions", "a man\thttp://x\na man\n", "line 2: expected 'caption<TAB>https://address'"),
        ("sbu", "http://static.flickr.com/1.jpg\n", "line 1: expected a caption and nothing else"),
        ("coco", '{"annotations": [{"caption": "x"}, {"bbox": []}]}', r"annotations\[1\]: expected .*\"bbox\""),
        ("coco", '{"annotations": [{"caption": "x"}, {"ca', "line 1: expected .* found"),
        ("msrvtt", '{"sentences": [{"caption": 7}]}', r"sentences\[0\]: expected"),
        ("visual_genome", '[{"regions": [{"x": 1}]}]', "item 0: expected"),
        ("activitynet_captions", '{"v_1": {"timestamps": []}}', "item 'v_1': expected"),
        ("activitynet_entities", '{"annotations": {"v_1": {"segments": []}}}', r"annotations\['v_1'\]: expected"),
        ("open_images", '{"caption": "x"}\n{"text": "x"}\n', 'line 2: expected a JSON line with "caption"'),
        ("charades", "id,script,length\na,b,1\n", "line 1: expected a CSV header with 'id', 'script', 'descriptions'"),
        ("nonsense", "x", "'nonsense' is not one of plain, activitynet_captions"),
    ],
)
def test_errors_name_the_place_and_the_expected_format(tmp_path, kind, content, match):
    path = tmp_path / ("x.jsonl" if kind == "open_images" else "x.txt")
    path.write_text(content)
    with pytest.raises(UserError, match=match) as told:
        list(read_captions(path, format=kind))
    assert "\n" not in str(told.value)


TRIPLETS = (
    "ImageID,LabelName1,LabelName2,XMin1,XMax1,YMin1,YMax1,XMin2,XMax2,YMin2,YMax2,RelationshipLabel\n"
    "0009,/m/04yx4,/m/0342h,0,1,0,1,0,1,0,1,interacts_with\n"
    "0009,/m/01mzpv,/m/083vt,0,1,0,1,0,1,0,1,is\n"
)


def test_open_images_triplets_are_sentences_with_the_names_beside_them(tmp_path):
    path = tmp_path / "oidv6-train-annotations-vrd.csv"
    path.write_text(TRIPLETS)
    with pytest.raises(UserError, match=r"line 2: no name for '/m/04yx4': put Open Images' class and attribute"):
        list(read_captions(path, format="open_images"))
    (tmp_path / "class-descriptions-boxable.csv").write_text('/m/04yx4,Man\n/m/0342h,Guitar\n/m/01mzpv,"Chair"\n')
    (tmp_path / "oidv6-attributes-description.csv").write_text("/m/083vt,Wooden\n")
    assert list(read_captions(path, format="open_images")) == ["Man interacts with Guitar", "Chair is Wooden"]


def test_scripts_are_split_into_sentences_but_not_at_initials_or_numbers(tmp_path):
    path = tmp_path / "x.txt"
    path.write_text('J. Smith walks 2.5 miles! Then he "stops." He sits (down). Why? \n')
    assert list(read_captions(path, format="plain")) == [
        "J. Smith walks 2.5 miles!", 'Then he "stops."', "He sits (down).", "Why?",
    ]  # fmt: skip
