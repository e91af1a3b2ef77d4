import pickle
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pipeline.errors import UserError
from pipeline.store import FolderStore, Store, open_store


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    if request.param == "folder":
        return open_store(str(tmp_path / "root"), create=True)
    monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_endpoint"))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket="bucket")
    return open_store(f"s3://bucket/{tmp_path.name}")


def test_reads_back_what_was_written(store: Store, tmp_path: Path) -> None:
    store.write("a/b.bin", b"hello")
    (tmp_path / "file").write_bytes(b"0123456789")
    store.upload("a/c.bin", tmp_path / "file")
    assert store.read("a/b.bin") == b"hello"
    assert store.read_range("a/c.bin", start=3, length=4) == b"3456"
    assert store.size("a/c.bin") == 10
    assert store.size("a/none") is None
    assert list(store.list("a/")) == ["a/b.bin", "a/c.bin"]
    store.delete("a/b.bin")
    store.delete("a/b.bin")
    assert list(store.list()) == ["a/c.bin"]
    with pytest.raises(FileNotFoundError):
        store.read("a/b.bin")


def test_of_many_creators_exactly_one_wins(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(lambda n: store.create("commit", str(n).encode()), range(8)))
    assert sum(won) == 1
    assert store.read("commit") == str(won.index(True)).encode()


def test_survives_pickling(store: Store) -> None:
    store.write("k", b"v")
    assert pickle.loads(pickle.dumps(store)).read("k") == b"v"


@pytest.mark.parametrize("key", ["../x", "/etc/passwd", "a//b", "a/./b", "", "a\\b", "a\nb"])
def test_no_key_leaves_its_root(store: Store, key: str) -> None:
    with pytest.raises(UserError, match="leave its root"):
        store.write(key, b"")


def test_others_may_read_what_a_shared_folder_holds(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write("a", b"")
    store.create("b", b"")
    assert {oct(path.stat().st_mode & 0o777) for path in tmp_path.iterdir()} == {"0o644"}


def test_a_secret_is_for_its_owner_only(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert store.create("secret", b"a", private=True)
    assert not store.create("secret", b"b", private=True)
    assert oct((tmp_path / "secret").stat().st_mode & 0o777) == "0o600"
    assert store.read("secret") == b"a"


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 KiB, most of it in use."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_is_told_and_nothing_is_left_half_written(full_disk: Path, tmp_path: Path) -> None:
    store = FolderStore(full_disk)
    store.write("old", bytes(30_000))
    (tmp_path / "large").write_bytes(bytes(100_000))
    for write in (
        lambda: store.write("a/new", bytes(100_000)),
        lambda: store.create("a/new", bytes(100_000)),
        lambda: store.upload("a/new", tmp_path / "large"),
    ):
        with pytest.raises(UserError, match=rf"{full_disk} takes no more \(No space left.*make room"):
            write()
        assert [path.name for path in full_disk.rglob("*") if path.is_file()] == ["old"]
    store.write("small", bytes(1_000))
    subprocess.run(["mount", "-o", "remount,ro", str(full_disk)], check=True)
    with pytest.raises(UserError, match=r"takes no more \(Read-only"):
        store.write("small", b"")


def test_a_half_written_file_is_never_listed(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    (tmp_path / ".x.abc.part").write_bytes(b"half")
    assert list(store.list()) == []


@pytest.mark.parametrize(
    ("root", "told"),
    [
        ("{tmp}/none", "does not exist: run the earlier verbs first"),
        ("{tmp}/file", "is a file: name a folder"),
        ("gs://bucket/x", "only a folder or s3://bucket/prefix"),
        ("s3://", "has no bucket"),
    ],
)
def test_a_wrong_root_is_told(tmp_path: Path, root: str, told: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=told):
        open_store(root.format(tmp=tmp_path))


def test_a_bucket_that_is_not_there_is_told(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with pytest.raises(UserError, match="no such bucket: create it first"):
        open_store("s3://missing/x")
