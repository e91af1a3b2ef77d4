import shutil
from pathlib import Path

import pytest

from pipeline.catalogue import read_records
from pipeline.downstream import read_hmdb51, read_ucf101, write_downstream
from pipeline.errors import UserError
from pipeline.records import safe_id
from pipeline.shards import check_video_id
from pipeline.splits import read_split
from pipeline.store import FolderStore

DATA = Path(__file__).parents[3] / "shared" / "data"
official = pytest.mark.skipif(not DATA.is_dir(), reason="needs the official lists in ../shared/data")


def _touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"video")


def _ucf(folder):
    lists = folder / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("1 HandstandPushups\n2 Archery\n")
    (lists / "trainlist01.txt").write_text(
        "HandstandPushups/v_HandStandPushups_g08_c01.avi 1\r\nArchery/v_Archery_g08_c01.avi 2\r\n\r\n"
    )
    (lists / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\n")
    _touch(folder / "UCF-101" / "HandStandPushups" / "v_HandStandPushups_g08_c01.avi")
    _touch(folder / "UCF-101" / "Archery" / "v_Archery_g01_c01.avi")
    return folder


def test_ucf101_is_read_with_its_spellings_and_what_is_missing_is_gone(tmp_path):
    dataset = read_ucf101(_ucf(tmp_path))
    assert dataset.classes == ("handstand pushups", "archery")
    test, gone, handstand = dataset.records
    assert (test.video_id, test.split, test.dropped) == ("v_Archery_g01_c01", "test", None)
    assert (gone.video_id, gone.split, gone.dropped, gone.renditions) == ("v_Archery_g08_c01", "train", "gone", ())
    assert handstand.concepts == ("handstand pushups",)
    (rendition,) = handstand.renditions
    assert (rendition.label, rendition.url[:8]) == ("file", "file:///")
    assert Path(rendition.url.removeprefix("file://")).read_bytes() == b"video"
    assert dataset.labels("train") == {"v_Archery_g08_c01": 1, "v_HandStandPushups_g08_c01": 0}
    assert dataset.counts == {"train": 2, "test": 1, "gone": 1}


def test_a_downstream_root_has_records_and_lists(tmp_path):
    dataset = read_ucf101(_ucf(tmp_path / "data"))
    store = FolderStore(tmp_path / "root")
    write_downstream(store, dataset)
    assert tuple(read_records(store)) == dataset.records
    assert read_split(store, "test") == (dataset.classes, {"v_Archery_g01_c01": (1,)})
    assert read_split(store, "train")[1]["v_HandStandPushups_g08_c01"] == (0,)


def test_hmdb51_marks_train_test_and_neither(tmp_path):
    lists = tmp_path / "testTrainMulti_7030_splits"
    lists.mkdir()
    (lists / "wave_test_split1.txt").write_text("50_wave_u_cm.avi 0 \na!b_wave.avi 1 \na_b_wave.avi 2 \n")
    (lists / "brush_hair_test_split1.txt").write_text("April_brush_hair_0.avi 1\n")
    _touch(tmp_path / "hmdb51_org" / "wave" / "a!b_wave.avi")
    dataset = read_hmdb51(tmp_path)
    assert dataset.classes == ("brush hair", "wave")
    assert dataset.counts == {"train": 2, "test": 1, "gone": 2}
    assert {record.video_id for record in dataset.records} == {"April_brush_hair_0", "a_b_wave", safe_id("a!b_wave")}
    assert all(check_video_id(record.video_id) for record in dataset.records)


def test_ids_are_safe_short_and_distinct():
    assert safe_id("v_ApplyEyeMakeup_g01_c01") == "v_ApplyEyeMakeup_g01_c01"
    stems = ["a!b", "a.b", "a?b", "a_b", "x" * 200, "x" * 201]
    ids = [safe_id(stem) for stem in stems]
    assert len(set(ids)) == len(stems)
    assert all(check_video_id(video_id) for video_id in ids)
    assert [safe_id(stem) for stem in stems] == ids


@pytest.mark.parametrize(
    ("breakage", "match"),
    [
        (lambda f: shutil.rmtree(f / "UCF-101"), r"has no folder UCF-101: unpack UCF101.rar there"),
        (
            lambda f: shutil.rmtree(f / "ucfTrainTestlist"),
            "has no folder ucfTrainTestlist: unpack UCF101TrainTestSplits",
        ),
        (lambda f: (f / "ucfTrainTestlist" / "testlist01.txt").unlink(), "testlist01.txt is missing: unpack"),
        (lambda f: (f / "ucfTrainTestlist" / "classInd.txt").unlink(), "classInd.txt is missing: unpack"),
        (
            lambda f: (f / "ucfTrainTestlist" / "testlist01.txt").write_text("\nKiting/v_Kiting_g01_c01.avi\n"),
            "testlist01.txt, line 2: expected 'Class/v_Class_g01_c01.avi', found 'Kiting",
        ),
        (
            lambda f: (f / "ucfTrainTestlist" / "testlist01.txt").write_text("Archery/v_Archery_g08_c01.avi\n"),
            "1 videos are listed more than once, such as v_Archery_g08_c01",
        ),
    ],
)
def test_what_is_missing_or_wrong_is_told_with_the_way_out(tmp_path, breakage, match):
    breakage(_ucf(tmp_path))
    with pytest.raises(UserError, match=match):
        read_ucf101(tmp_path)


def test_a_wrong_hmdb51_line_is_told(tmp_path):
    (tmp_path / "hmdb51_org").mkdir()
    with pytest.raises(UserError, match="has no folder testTrainMulti_7030_splits"):
        read_hmdb51(tmp_path)
    (tmp_path / "testTrainMulti_7030_splits").mkdir()
    (tmp_path / "testTrainMulti_7030_splits" / "wave_test_split1.txt").write_text("a_wave.avi 3\n")
    with pytest.raises(UserError, match=r"line 1: expected 'file.avi 0\|1\|2', found 'a_wave.avi 3'"):
        read_hmdb51(tmp_path)


@official
def test_the_official_ucf101_lists_are_read_whole(tmp_path):
    shutil.copytree(DATA / "ucf101", tmp_path / "ucfTrainTestlist")
    (tmp_path / "UCF-101").mkdir()
    dataset = read_ucf101(tmp_path)
    assert len(dataset.classes) == 101
    assert dataset.counts == {"train": 9537, "test": 3783, "gone": 13_320}
    assert all(check_video_id(record.video_id) for record in dataset.records)


@official
def test_the_official_hmdb51_split_is_read_whole(tmp_path):
    """The split-1 lists, put back into the official layout of one file per class."""
    lists = tmp_path / "testTrainMulti_7030_splits"
    lists.mkdir()
    (tmp_path / "hmdb51_org").mkdir()
    by_class = {}
    for mark, name in ((1, "trainlist01.txt"), (2, "testlist01.txt")):
        for line in (DATA / "hmdb51" / name).read_text().splitlines():
            concept, _, file = line.rpartition(" ")[0].partition("/")
            by_class.setdefault(concept.replace(" ", "_"), []).append(f"{file} {mark}\n")
    for concept, lines in by_class.items():
        (lists / f"{concept}_test_split1.txt").write_text("".join(lines))
    dataset = read_hmdb51(tmp_path)
    assert len(dataset.classes) == 51
    assert dataset.counts == {"train": 3570, "test": 1530, "gone": 5100}
    assert all(check_video_id(record.video_id) for record in dataset.records)
