import json
import pickle
import tarfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import webdataset as wds

from pipeline.errors import Transient, UserError
from pipeline.records import Comment, Rendition, VideoRecord, to_row
from pipeline.shards import (
    SHARD_SCHEMA,
    Probe,
    Sample,
    ShardFiles,
    check_video_id,
    publish_shard,
    read_rows,
    reopen_shard,
    write_shard,
)
from pipeline.store import FolderStore
from pipeline.units import Ledger, Unit, output_of

PROBE = Probe(
    width=170, height=128, fps=25.0, num_frames=50, source_codec="h264", source_width=340, source_height=256,
    source_fps=25.0, source_frames=50, source_duration_seconds=2.0, rotation=0, decode_errors=0, source_sha256="0" * 64,
)  # fmt: skip


def make_record(video_id: str) -> VideoRecord:
    return VideoRecord(
        video_id=video_id,
        title="Dïving 跳水",
        tags=("pool", "diving"),
        concepts=("diving",),
        owner="12@N00",
        secret="s3cr3t",
        license=4,
        comments=(Comment(author_hash="ab12", text="nice", posted=1_200_000_000),),
        renditions=(Rendition(label="Site MP4", url="https://example.org/play?secret=s3cr3t"),),
    )


def make_samples(folder: Path, *ids: str) -> list[Sample]:
    samples = []
    for number, video_id in enumerate(ids):
        path = folder / f"source-{video_id}.mp4"
        path.write_bytes(bytes(range(256)) * (3 + number))
        samples.append(Sample(record=make_record(video_id), path=path, probe=PROBE))
    return samples


def gone(video_id: str) -> Sample:
    return Sample(record=VideoRecord(video_id=video_id), outcome="gone", detail="404")


def open_ledger(root: Path) -> Ledger:
    ledger = Ledger(FolderStore(root), "build", {"profile": "train"})
    ledger.open()
    return ledger


def publish(ledger: Ledger, tmp_path: Path, name: str, samples: list[Sample]) -> ShardFiles:
    files = write_shard(samples, folder=tmp_path, name=name)
    assert publish_shard(ledger, unit=Unit(name), files=files)
    return files


def test_the_same_samples_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    samples = [*make_samples(tmp_path, "30", "4", "v_Dive_g01-c01"), gone("5")]
    (tmp_path / "again").mkdir()
    first = write_shard(samples, folder=tmp_path, name="000000")
    second = write_shard(samples[::-1], folder=tmp_path / "again", name="000000")
    assert first.tar.read_bytes() == second.tar.read_bytes()
    assert first.parquet.read_bytes() == second.parquet.read_bytes()
    assert first.counts == Counter(ok=3, gone=1)


def test_members_are_contiguous_sorted_and_where_the_rows_say(tmp_path: Path) -> None:
    files = write_shard([*make_samples(tmp_path, "b", "a", "C"), gone("aa")], folder=tmp_path, name="s")
    data = files.tar.read_bytes()
    with tarfile.open(files.tar, "r:") as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == ["C.mp4", "C.json", "a.mp4", "a.json", "b.mp4", "b.json"]
    assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
    assert data[257:265] == b"ustar\x0000"
    rows = pq.read_table(files.parquet)
    assert rows.schema.equals(SHARD_SCHEMA)
    assert rows["video_id"].to_pylist() == ["C", "a", "aa", "b"]
    for row in rows.to_pylist():
        if row["outcome"] == "ok":
            source = (tmp_path / f"source-{row['video_id']}.mp4").read_bytes()
            assert data[row["mp4_offset"] : row["mp4_offset"] + row["mp4_size"]] == source
            info = json.loads(data[row["json_offset"] : row["json_offset"] + row["json_size"]])
            assert info["video_id"] == row["video_id"]
        else:
            assert (row["mp4_offset"], row["json_size"], row["width"], row["outcome"]) == (None, None, None, "gone")


def test_the_description_tells_the_metadata_but_no_secret(tmp_path: Path) -> None:
    files = write_shard(make_samples(tmp_path, "77"), folder=tmp_path, name="s")
    with tarfile.open(files.tar) as tar:
        member = tar.extractfile("77.json")
        assert member is not None
        text = member.read().decode()
    info = json.loads(text)
    assert "Dïving 跳水" in text
    assert "s3cr3t" not in text
    assert info["comments"] == [{"author_hash": "ab12", "text": "nice"}]
    assert info["url"] == "https://www.flickr.com/photos/12@N00/77"
    assert (info["concepts"], info["license"], info["num_frames"]) == (["diving"], 4, 50)
    assert list(info) == sorted(info)


@pytest.mark.parametrize("video_id", ["", "a.b", ".hidden", "../up", "a/b", "a b", "é", "x" * 96, "a\n"])
def test_an_id_that_cannot_name_a_member_is_refused(tmp_path: Path, video_id: str) -> None:
    with pytest.raises(UserError, match=r"cannot name a file in a shard: use 1 to 95 letters"):
        check_video_id(video_id)
    with pytest.raises(UserError, match="cannot name a file"):
        write_shard([gone(video_id)], folder=tmp_path, name="s")


def test_an_id_that_occurs_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"shard s: 1 video ids occur more than once, such as '5'"):
        write_shard([gone("5"), gone("5")], folder=tmp_path, name="s")


def test_a_sample_is_a_video_or_a_word() -> None:
    with pytest.raises(ValueError, match="outcome 'lost' is neither 'ok' nor one of"):
        Sample(record=VideoRecord(video_id="1"), outcome="lost")
    with pytest.raises(ValueError, match="has a path and a probe if, and only if"):
        Sample(record=VideoRecord(video_id="1"))
    sample = gone("1")
    assert pickle.loads(pickle.dumps(sample)) == sample


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves the tar open
def test_webdataset_reads_a_shard(tmp_path: Path) -> None:
    files = write_shard([*make_samples(tmp_path, "9", "10"), gone("8")], folder=tmp_path, name="000000")
    read = list(wds.WebDataset(str(files.tar), shardshuffle=False))
    assert [sample["__key__"] for sample in read] == ["10", "9"]
    for sample in read:
        assert sample["mp4"] == (tmp_path / f"source-{sample['__key__']}.mp4").read_bytes()
        assert json.loads(sample["json"])["title"] == "Dïving 跳水"


def test_readers_see_committed_shards_only(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "root")
    publish(ledger, tmp_path, "000001", [*make_samples(tmp_path, "c"), gone("d")])
    publish(ledger, tmp_path, "000000", make_samples(tmp_path, "z"))
    uncommitted = write_shard(make_samples(tmp_path, "q"), folder=tmp_path, name="000002")
    ledger.store.upload("shards/000002.tar", uncommitted.tar)
    ledger.store.upload("shards/000002.parquet", uncommitted.parquet)
    rows = read_rows(ledger.store, columns=["video_id", "outcome"])
    assert rows.to_pylist() == [
        {"video_id": "z", "outcome": "ok", "shard": "shards/000000.tar"},
        {"video_id": "c", "outcome": "ok", "shard": "shards/000001.tar"},
        {"video_id": "d", "outcome": "gone", "shard": "shards/000001.tar"},
    ]
    assert {c.unit: dict(c.counts) for c in ledger.commits()} == {"000000": {"ok": 1}, "000001": {"gone": 1, "ok": 1}}


def test_a_root_without_shards_has_no_rows(tmp_path: Path) -> None:
    rows = read_rows(FolderStore(tmp_path))
    assert (len(rows), rows.column_names) == (0, [*SHARD_SCHEMA.names, "shard"])


def test_a_parquet_that_is_not_what_was_committed_is_refused(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "root")
    publish(ledger, tmp_path, "000000", make_samples(tmp_path, "z"))
    ledger.store.write("shards/000000.parquet", b"other")
    with pytest.raises(UserError, match=r"shards/000000.parquet in .* is not what its commit says: run fsck"):
        read_rows(ledger.store)
    ledger.store.delete("shards/000000.parquet")
    with pytest.raises(UserError, match="is committed but missing"):
        read_rows(ledger.store)


def test_the_second_of_two_workers_does_not_publish(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "root")
    files = publish(ledger, tmp_path, "000000", make_samples(tmp_path, "z"))
    (tmp_path / "late").mkdir()
    late = write_shard([gone("z")], folder=tmp_path / "late", name="000000")
    assert not publish_shard(ledger, unit=Unit("000000"), files=late)
    assert ledger.store.read("shards/000000.tar") == files.tar.read_bytes()


class CommittedMeanwhile(FolderStore):
    """A store on which another worker commits unit 000000 just after our uploads."""

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        commit = json.loads(data)
        other = output_of("shards/000000.tar", b"other")
        commit["outputs"] = [{"key": other.key, "size": other.size, "sha256": other.sha256}]
        FolderStore.create(self, key, json.dumps(commit).encode())
        return False


def test_a_commit_whose_files_were_replaced_is_withdrawn(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "root")
    open_ledger(tmp_path / "root")
    files = write_shard(make_samples(tmp_path, "z"), folder=tmp_path, name="000000")
    racing = Ledger(CommittedMeanwhile(store.folder), "build", {"profile": "train"})
    with pytest.raises(Transient, match="unit 000000: two workers wrote different bytes at once"):
        publish_shard(racing, unit=Unit("000000"), files=files)
    assert list(store.list("build/commits/")) == []
    assert publish_shard(open_ledger(store.folder), unit=Unit("000000"), files=files)


def test_a_published_shard_reopens_as_the_samples_it_was_written_from(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "root")
    first = publish(ledger, tmp_path, "000000", [*make_samples(tmp_path, "a", "b"), gone("c")])
    folder = tmp_path / "reopened"
    folder.mkdir()
    (commit,) = ledger.commits()
    samples = reopen_shard(ledger.store, commit=commit, folder=folder)
    again = write_shard(samples, folder=folder, name="000000")
    assert again.tar.read_bytes() == first.tar.read_bytes()
    assert again.parquet.read_bytes() == first.parquet.read_bytes()
    samples[0] = replace(samples[0], outcome="taken_down", path=None, probe=None)
    less = write_shard(samples, folder=folder, name="000000")
    assert less.counts == Counter(ok=1, taken_down=1, gone=1)
    with tarfile.open(less.tar) as tar:
        assert tar.getnames() == ["b.mp4", "b.json"]


def test_rows_hold_the_whole_record(tmp_path: Path) -> None:
    files = write_shard(make_samples(tmp_path, "a"), folder=tmp_path, name="s")
    row = files.rows.to_pylist()[0]
    record = to_row(make_record("a"))
    assert {name: row[name] for name in record} == record
