import hashlib
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest

from pipeline.errors import UserError
from pipeline.records import VideoRecord
from pipeline.scan import _way_out, committed_tables, load, local_files, open_database, quoted, rows_of, shard_files
from pipeline.shards import Sample, publish_shard, write_shard
from pipeline.store import FolderStore
from pipeline.units import Ledger, Output, Unit

SCHEMA = pa.schema([("number", pa.int64())])
AWKWARD = "it''s '; -- "


@pytest.fixture
def root(tmp_path: Path) -> FolderStore:
    """Two shards of one record each."""
    store = FolderStore(tmp_path / "root")
    for number in range(2):
        name = f"{number:06d}"
        samples = [Sample(record=VideoRecord(video_id=str(number)), outcome="gone")]
        files = write_shard(samples, folder=tmp_path, name=name)
        assert publish_shard(Ledger(store, "build", {}), unit=Unit(name), files=files)
    return store


def test_shards_are_read_in_place_each_with_its_tar(root: FolderStore) -> None:
    with shard_files(root) as files:
        assert files == {
            str(root.path("shards/000000.parquet")): "shards/000000.tar",
            str(root.path("shards/000001.parquet")): "shards/000001.tar",
        }


def test_a_shard_that_is_not_what_its_commit_says_is_told(root: FolderStore) -> None:
    root.write("shards/000001.parquet", root.read("shards/000001.parquet") + b" ")
    with pytest.raises(UserError, match=r"shards/000001\.parquet in .* is not what its commit says"), shard_files(root):
        pass
    root.delete("shards/000001.parquet")
    with pytest.raises(UserError, match=r"shards/000001\.parquet is committed but missing"), shard_files(root):
        pass


def test_contents_are_compared_only_where_asked(root: FolderStore) -> None:
    other = Output("shards/000000.parquet", 3, hashlib.sha256(b"abc").hexdigest())
    with local_files(root, [other], check=False) as paths:
        assert paths == [str(root.path(other.key))]


def test_more_than_the_memory_granted_goes_to_disk_and_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    with open_database(memory_bytes=256 << 20) as database:
        query = "SELECT range AS number, md5(range::VARCHAR) AS text FROM range(3_000_000) ORDER BY text"
        database.execute(f"CREATE TABLE sorted AS {query}")
        assert rows_of(database, "SELECT count(*), min(text) < max(text) FROM sorted") == [(3_000_000, True)]
        assert "256.0 MiB" in str(rows_of(database, "SELECT current_setting('memory_limit')"))
    assert capfd.readouterr().out == ""


def test_no_files_are_no_rows_and_a_literal_is_what_it_was() -> None:
    with open_database(memory_bytes=256 << 20) as database:
        load(database, "CREATE TABLE numbers AS SELECT number, filename FROM {source}", files=[], schema=SCHEMA)
        assert rows_of(database, "SELECT * FROM numbers") == []
        assert rows_of(database, f"SELECT {quoted(AWKWARD)}") == [(AWKWARD,)]


def test_what_a_user_can_do_is_told_where_memory_or_disk_is_short() -> None:
    lists = "SELECT list(repeat('x', 1000)) AS texts FROM range(1_000_000)"  # cannot be spilled
    with (
        pytest.raises(UserError, match=r"memory_bytes 268435456 \(256 MiB\) is too little .* grant more"),
        open_database(memory_bytes=256 << 20) as database,
    ):
        database.execute(f"CREATE TABLE lists AS {lists}")
    texts = "SELECT repeat(md5(range::VARCHAR), 20) AS text FROM range(700_000) ORDER BY text"
    with (
        pytest.raises(UserError, match=r"disk of .* has no room .* let TMPDIR name a folder on a larger one"),
        open_database(memory_bytes=256 << 20) as database,
    ):
        database.execute(f"SET max_temp_directory_size = '1MiB'; CREATE TABLE texts AS {texts}")
    full = duckdb.IOException("IO Error: Could not write file: No space left on device")
    assert "TMPDIR" in str(_way_out(full, memory_bytes=1))
    with pytest.raises(duckdb.CatalogException), open_database(memory_bytes=256 << 20) as database:
        database.execute("SELECT * FROM nothing")


def test_commits_that_a_cache_tells_of_are_not_read_again(root: FolderStore, tmp_path: Path) -> None:
    expected = committed_tables(root, "build")
    assert [output.key for output in expected] == ["shards/000000.parquet", "shards/000001.parquet"]
    assert committed_tables(root, "build", cache=tmp_path) == expected
    root.write("build/commits/000000.json", b"not read")
    root.delete("build/commits/000001.json")
    assert committed_tables(root, "build", cache=tmp_path) == expected[:1], "what is committed is asked each time"
