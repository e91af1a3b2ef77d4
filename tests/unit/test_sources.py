from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.sources import folder_records, table_records


def test_a_folder_gives_a_record_per_video_labelled_by_its_folders(video_folder: Path) -> None:
    (video_folder / "notes.txt").write_text("not a video by name, so not asked for")
    records = folder_records(video_folder)
    assert [(r.video_id[:10], r.concepts) for r in records] == [
        ("dive__c", ("dive",)),
        ("dive__d", ("dive",)),
        ("dive__e_e-", ("dive",)),
        ("swing__a", ("swing",)),
        ("swing__b", ("swing",)),
    ]
    assert records[2].renditions[0].url.endswith("/dive/e%20e.mp4")


def test_names_that_clash_when_cleaned_stay_apart(tmp_path: Path) -> None:
    for name in ("a b.mp4", "a.b.mp4", "a+b.mp4"):
        (tmp_path / name).write_bytes(b"\0\0\0\x20ftypisom\xff\xfe")
    assert len({r.video_id for r in folder_records(tmp_path)}) == 3


def test_files_that_differ_in_suffix_only_are_two_videos(tmp_path: Path) -> None:
    for name in ("clip.mp4", "clip.mov", "other.mp4", "a/b.mp4", "a__b.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\0\0\x20ftypisom\xff\xfe")
    ids = [record.video_id for record in folder_records(tmp_path)]
    assert len(set(ids)) == 5
    assert "other" in ids


def test_wrong_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="does not exist"):
        folder_records(tmp_path / "none")
    with pytest.raises(UserError, match="holds no video files"):
        folder_records(tmp_path)
    (tmp_path / "page.mp4").write_text("<html>not found</html>")
    with pytest.raises(UserError, match=r"page.mp4 is text, not a video: remove it"):
        folder_records(tmp_path)
    assert [r.video_id for r in folder_records(tmp_path, keep_bad_files=True)] == ["page"]


def test_a_table_of_urls_in_csv_and_parquet(tmp_path: Path) -> None:
    rows = [
        {"video_id": "b", "url": "http://host/b.mp4", "labels": "swing|dive", "title": "B"},
        {"video_id": "a", "url": "file:///etc/passwd", "labels": "", "title": ""},
    ]
    (tmp_path / "t.csv").write_text(
        "video_id,url,labels,title\nb,http://host/b.mp4,swing|dive,B\na,file:///etc/passwd,,\n"
    )
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    for name in ("t.csv", "t.parquet"):
        a, b = table_records(tmp_path / name)
        assert (a.dropped, a.renditions) == ("no_video_url", ())
        assert (b.concepts, b.title, b.renditions[0].url) == (("swing", "dive"), "B", "http://host/b.mp4")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name\nx\n", "no column 'url'; its columns are name"),
        ("url\n", "has no rows"),
        ("video_id,url\na,http://h/1\na,http://h/2\n", "'a' stands in two rows"),
        ("url,b\nx\n", "cannot be read as CSV"),
    ],
)
def test_a_wrong_table_is_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(UserError, match=told):
        table_records(tmp_path / "t.csv")
