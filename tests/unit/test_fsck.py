import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.fsck import Problem, check_shards
from pipeline.records import VideoRecord
from pipeline.shards import SHARD_SCHEMA, Probe, Sample, publish_shard, write_shard
from pipeline.store import FolderStore
from pipeline.units import Ledger, Unit, output_of

PROBE = Probe(
    width=170, height=128, fps=25.0, num_frames=50, source_codec="h264", source_width=340, source_height=256,
    source_fps=25.0, source_frames=50, source_duration_seconds=2.0, rotation=0, decode_errors=0, source_sha256="0" * 64,
)  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    store = FolderStore(tmp_path / "root")
    ledger = Ledger(store, "build", {"profile": "train"})
    ledger.open()
    for number, ids in enumerate((("a", "b"), ("c", "d"))):
        samples = [Sample(record=VideoRecord(video_id=f"{ids[0]}0"), outcome="gone")]
        for video_id in ids:
            path = tmp_path / video_id
            path.write_bytes(video_id.encode() * 1000)
            samples.append(Sample(record=VideoRecord(video_id=video_id), path=path, probe=PROBE))
        files = write_shard(samples, folder=tmp_path, name=f"{number:06d}")
        assert publish_shard(ledger, unit=Unit(f"{number:06d}"), files=files)
    return store


def recommit(store: FolderStore, unit: str, *, counts: dict[str, int] | None = None) -> None:
    """Make the commit agree with the files that lie there, as a faulty writer would have."""
    key = f"build/commits/{unit}.json"
    commit = json.loads(store.read(key))
    outputs = [output_of(o["key"], store.read(o["key"])) for o in commit["outputs"]]
    commit["outputs"] = [{"key": o.key, "size": o.size, "sha256": o.sha256} for o in outputs]
    store.write(key, json.dumps(commit | ({"counts": counts} if counts else {})).encode())


def change_row(store: FolderStore, unit: str, **values: object) -> None:
    rows = pq.read_table(io.BytesIO(store.read(f"shards/{unit}.parquet"))).to_pylist()
    rows[0] |= values
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=SHARD_SCHEMA), sink)
    store.write(f"shards/{unit}.parquet", sink.getvalue())
    recommit(store, unit)


def rewrite_tar(store: FolderStore, unit: str, order: list[int], *, mtime: int = 0) -> None:
    key = f"shards/{unit}.tar"
    sink = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(store.read(key))) as old, tarfile.open(fileobj=sink, mode="w") as new:
        members = old.getmembers()
        for member in (members[i] for i in order):
            member.mtime = mtime
            new.addfile(member, old.extractfile(member))
    store.write(key, sink.getvalue())
    recommit(store, unit)


def flip_byte(store: FolderStore, key: str, at: int) -> None:
    data = bytearray(store.read(key))
    data[at] ^= 0xFF
    store.write(key, bytes(data))


def test_a_sound_root_has_no_problems(store: FolderStore) -> None:
    before = {key: store.read(key) for key in store.list()}
    found = check_shards(store)
    assert (found.problems, found.orphans, found.num_shards) == ((), (), 2)
    assert found.counts == Counter(ok=4, gone=2)
    assert {key: store.read(key) for key in store.list()} == before


def test_orphans_are_listed_apart(store: FolderStore) -> None:
    store.write("shards/000007.tar", b"half")
    found = check_shards(store)
    assert (found.problems, found.orphans) == ((), ("shards/000007.tar",))


@pytest.mark.parametrize(("harm", "what", "detail"), [
    (lambda s: s.delete("shards/000001.tar"), "missing", "shards/000001.tar is committed but not there"),
    (lambda s: s.write("shards/000001.tar", s.read("shards/000001.tar")[:-512]), "size", "its commit says"),
    (lambda s: flip_byte(s, "shards/000001.tar", 600), "checksum", "is not the bytes that were committed"),
    (lambda s: flip_byte(s, "shards/000001.tar", 600), "checksum", "c.mp4 is not the video of its row"),
    (lambda s: (flip_byte(s, "shards/000001.tar", 0), recommit(s, "000001")), "tar", "cannot be read"),
    (lambda s: s.write("shards/000001.parquet", b"no"), "parquet", "cannot be read"),
    (lambda s: rewrite_tar(s, "000001", [1, 0, 2, 3]), "order", "members are not pairs {id}.mp4, {id}.json in order"),
    (lambda s: rewrite_tar(s, "000001", [0, 1]), "tar", "members are not those of the rows"),
    (lambda s: rewrite_tar(s, "000001", [0, 1, 2, 3], mtime=7), "tar", "members that we do not write, such as 'c.mp4'"),
    (lambda s: change_row(s, "000001", mp4_offset=513), "offset", "c.mp4 lies at 512+1000, Parquet says otherwise"),
    (lambda s: change_row(s, "000001", json_size=None), "offset", "c.json lies at"),
    (lambda s: change_row(s, "000001", mp4_sha256="0"), "checksum", "c.mp4 is not the video of its row"),
    (lambda s: change_row(s, "000001", outcome="lost"), "parquet", "unknown outcomes ['lost']"),
    (lambda s: change_row(s, "000001", video_id="zz"), "order", "rows are not sorted by video_id"),
    (lambda s: change_row(s, "000001", video_id="a"), "order", "a is also in shard 000000"),
    (lambda s: recommit(s, "000001", counts={"ok": 9}), "counts", "its commit says {'ok': 9}"),
    (lambda s: s.write("build/settings.json", b"{}"), "commit", "was made with other settings"),
])  # fmt: skip
def test_harm_is_found_and_named(store: FolderStore, harm: Callable[[FolderStore], object], what: str, detail: str):
    harm(store)
    found = check_shards(store)
    assert [p for p in found.problems if p.shard == "000001" and p.what == what and detail in p.detail], found.problems
    if "settings" not in detail:
        assert {p.shard for p in found.problems} == {"000001"}


def test_a_commit_without_a_tar_is_a_problem(store: FolderStore) -> None:
    key = "build/commits/000000.json"
    store.write(key, json.dumps(json.loads(store.read(key)) | {"outputs": []}).encode())
    found = check_shards(store)
    assert found.problems == (Problem("000000", "commit", "lists nothing, not one .tar and one .parquet"),)
    assert found.orphans == ("shards/000000.parquet", "shards/000000.tar")
