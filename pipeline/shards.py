"""Samples -> WebDataset tar + Parquet + commit, and back: every record asked for is one row of one shard."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import REASONS, Transient, UserError
from pipeline.records import LOCAL_SOURCES, SCHEMA, VideoRecord, from_row, to_row
from pipeline.store import Store
from pipeline.units import Commit, Ledger, Output, Unit

_BLOCK = 512  # a USTAR header is one block, and data is padded to blocks
_CHUNK = 1 << 20
_PRIVATE = ("secret", "renditions", "found", "dropped")  # of no use to, or not for, a reader of {id}.json
_VIDEO_ID = re.compile(r"[A-Za-z0-9_-]{1,95}")  # 95 and `.json` are the 100 characters of a USTAR name

_MEMBER_COLUMNS = [
    ("outcome", pa.string()), ("detail", pa.string()),
    ("mp4_offset", pa.int64()), ("mp4_size", pa.int64()), ("mp4_sha256", pa.string()),
    ("json_offset", pa.int64()), ("json_size", pa.int64()),
]  # fmt: skip
_PROBE_COLUMNS = [
    ("width", pa.int32()), ("height", pa.int32()), ("fps", pa.float64()), ("num_frames", pa.int32()),
    ("source_codec", pa.string()), ("source_width", pa.int32()), ("source_height", pa.int32()),
    ("source_fps", pa.float64()), ("source_frames", pa.int32()), ("source_duration_seconds", pa.float64()),
    ("rotation", pa.int32()), ("decode_errors", pa.int32()), ("source_sha256", pa.string()),
]  # fmt: skip

SHARD_SCHEMA = pa.schema([*SCHEMA, *(pa.field(*column) for column in _MEMBER_COLUMNS + _PROBE_COLUMNS)])
"""Columns of a shard's Parquet: the record, how it ended, where its members lie, what its video is.

Offsets are those of a member's data in the tar; they and the facts on the video are null unless `outcome` is `ok`.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """Facts on a stored video and on the source it was made from."""

    width: int
    height: int
    fps: float
    num_frames: int
    source_codec: str
    source_width: int
    source_height: int
    source_fps: float
    source_frames: int
    source_duration_seconds: float
    rotation: int
    """Degrees that the stored video was turned by, to be upright."""
    decode_errors: int
    """Packets of the source that could not be decoded."""
    source_sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """How one record ended: a video file with its facts, or the word for why there is none."""

    record: VideoRecord
    outcome: str = "ok"
    """`ok` or a word of pipeline.errors.REASONS."""
    detail: str = ""
    path: Path | None = None
    """The MP4 file, None unless `ok`."""
    probe: Probe | None = None

    def __post_init__(self) -> None:
        if self.outcome != "ok" and self.outcome not in REASONS:
            raise ValueError(f"outcome {self.outcome!r} is neither 'ok' nor one of {sorted(REASONS)}")
        if (self.outcome == "ok") != (self.path is not None) or (self.path is None) != (self.probe is None):
            raise ValueError(f"{self.record.video_id}: a sample has a path and a probe if, and only if, it is 'ok'")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardFiles:
    """A shard on the local disk, not yet published."""

    tar: Path
    parquet: Path
    rows: pa.Table
    """SHARD_SCHEMA, sorted by video_id."""

    @property
    def counts(self) -> Counter[str]:
        """Number of samples by outcome."""
        return Counter(self.rows["outcome"].to_pylist())


def check_video_id(video_id: str) -> str:
    """The id itself, if it can name a member of a tar that WebDataset reads (a key ends at its first dot).

    Raises:
        UserError: it has another character than letters, digits, `_` and `-`, is empty, or is longer than 95.
    """
    if not _VIDEO_ID.fullmatch(video_id):
        raise UserError(
            f"video id {video_id!r} cannot name a file in a shard: use 1 to 95 letters, digits, '_' and '-'; no dots"
        )
    return video_id


def write_shard(samples: Iterable[Sample], *, folder: Path, name: str) -> ShardFiles:
    """Write `name`.tar and `name`.parquet into `folder`: the same bytes for the same samples in any order.

    Raises:
        UserError: an id cannot name a file, or occurs twice.
    """
    ordered = sorted(samples, key=lambda sample: sample.record.video_id)
    repeated = [i for i, n in Counter(check_video_id(s.record.video_id) for s in ordered).items() if n > 1]
    if repeated:
        raise UserError(f"shard {name}: {len(repeated)} video ids occur more than once, such as {repeated[0]!r}")
    files = ShardFiles(tar=folder / f"{name}.tar", parquet=folder / f"{name}.parquet", rows=None)
    with tarfile.open(files.tar, "w", format=tarfile.USTAR_FORMAT) as tar:
        rows = _write_members(tar, ordered)
    table = pa.Table.from_pylist(rows, schema=SHARD_SCHEMA)
    pq.write_table(table, files.parquet, compression="zstd")
    return ShardFiles(tar=files.tar, parquet=files.parquet, rows=table)


def _write_members(tar: tarfile.TarFile, samples: Sequence[Sample]) -> list[dict[str, Any]]:
    rows, end = [], 0
    for sample in samples:
        row = to_row(sample.record) | {"outcome": sample.outcome, "detail": sample.detail}
        if sample.record.source in LOCAL_SOURCES:  # a path of this machine would make the bytes this machine's
            row["renditions"] = []
        if sample.path is not None and sample.probe is not None:
            row |= asdict(sample.probe)
            info = describe(sample.record, sample.probe)
            with sample.path.open("rb") as video:
                row["mp4_sha256"] = hashlib.file_digest(video, "sha256").hexdigest()
                row["mp4_size"] = video.tell()
                video.seek(0)
                row["mp4_offset"], end = _add(tar, f"{sample.record.video_id}.mp4", video, row["mp4_size"], end)
            row["json_size"] = len(info)
            row["json_offset"], end = _add(tar, f"{sample.record.video_id}.json", io.BytesIO(info), len(info), end)
        rows.append(row)
    return rows


def _add(tar: tarfile.TarFile, name: str, data: Any, size: int, end: int) -> tuple[int, int]:
    """Append a member; returns where its data begins and where the next header will."""
    member = tarfile.TarInfo(name)  # mtime, uid and gid are 0, names empty and mode 0644 unless told otherwise
    member.size = size
    tar.addfile(member, data)
    begin = end + _BLOCK
    return begin, begin + -(-size // _BLOCK) * _BLOCK


def describe(record: VideoRecord, probe: Probe) -> bytes:
    """The content of `{id}.json`: canonical JSON in UTF-8, comments as hash and text, no secrets, no play URLs."""
    row = {name: value for name, value in to_row(record).items() if name not in _PRIVATE}
    row["comments"] = [{"author_hash": c.author_hash, "text": c.text} for c in record.comments]
    row["url"] = None
    if record.source == "flickr" and record.owner:
        row["url"] = f"https://www.flickr.com/photos/{record.owner}/{record.video_id}"
    row |= {"width": probe.width, "height": probe.height, "fps": probe.fps, "num_frames": probe.num_frames}
    return json.dumps(row, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def publish_shard(ledger: Ledger, *, unit: Unit, files: ShardFiles) -> bool:
    """Upload tar, then Parquet, then commit; False if another worker has committed the unit.

    Raises:
        Transient: another worker committed other bytes while these were uploaded; its commit is withdrawn, try again.
    """
    store = ledger.store
    if store.size(_commit_key(ledger, unit)) is not None:
        return False
    outputs = tuple(_output(f"shards/{unit.name}{path.suffix}", path) for path in (files.tar, files.parquet))
    for output, path in zip(outputs, (files.tar, files.parquet), strict=True):
        store.upload(output.key, path)
    if ledger.commit(unit, files.counts, outputs):
        return True
    # The other's commit came between: if a download differed between us, our upload has replaced what it committed.
    theirs = {o["key"]: o["sha256"] for o in json.loads(store.read(_commit_key(ledger, unit)))["outputs"]}
    if theirs != {output.key: output.sha256 for output in outputs}:
        store.delete(_commit_key(ledger, unit))
        raise Transient(f"unit {unit.name}: two workers wrote different bytes at once; the commit is withdrawn")
    return False


def _commit_key(ledger: Ledger, unit: Unit) -> str:
    return f"{ledger.job}/commits/{unit.name}.json"


def _output(key: str, path: Path) -> Output:
    with path.open("rb") as file:
        return Output(key, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def output_named(commit: Commit, suffix: str) -> Output:
    """The commit's output whose key ends in `suffix` (`.tar`, `.parquet`).

    Raises:
        UserError: it has none.
    """
    found = [output for output in commit.outputs if output.key.endswith(suffix)]
    if len(found) != 1:
        raise UserError(f"commit {commit.unit} lists {len(found)} outputs {suffix}, not one: run fsck on this root")
    return found[0]


def read_rows(store: Store, *, job: str = "build", columns: Sequence[str] | None = None) -> pa.Table:
    """Rows of all committed shards in the order of their names, with a last column `shard`: the key of the tar.

    Raises:
        UserError: a Parquet file is missing or not what its commit says.
    """
    commits = list(Ledger(store, job, {}).commits())
    names = SHARD_SCHEMA.names if columns is None else list(columns)
    schema = pa.schema([*(SHARD_SCHEMA.field(name) for name in names), pa.field("shard", pa.string())])
    with ThreadPoolExecutor(8) as pool:
        tables = list(pool.map(lambda commit: _read_shard_rows(store, commit, names), commits))
    return pa.concat_tables([schema.empty_table(), *tables])


def _read_shard_rows(store: Store, commit: Commit, names: Sequence[str]) -> pa.Table:
    tar, parquet = output_named(commit, ".tar"), output_named(commit, ".parquet")
    try:
        data = store.read(parquet.key)
    except FileNotFoundError as error:
        raise UserError(f"{parquet.key} is committed but missing in {store.url}: run fsck on this root") from error
    if hashlib.sha256(data).hexdigest() != parquet.sha256:
        raise UserError(f"{parquet.key} in {store.url} is not what its commit says: run fsck on this root")
    table = pq.read_table(io.BytesIO(data), columns=list(names))
    return table.append_column("shard", pa.array([tar.key] * len(table), pa.string()))


def reopen_shard(store: Store, *, commit: Commit, folder: Path) -> list[Sample]:
    """The samples of a published shard, its videos copied into `folder`: to retry or take down some, then write again.

    Raises:
        UserError: the Parquet file is missing or not what its commit says.
    """
    samples = []
    for row in _read_shard_rows(store, commit, SHARD_SCHEMA.names).to_pylist():
        record, path, probe = from_row(row), None, None
        if row["outcome"] == "ok":
            path = folder / f"{check_video_id(record.video_id)}.mp4"
            path.write_bytes(store.read_range(row["shard"], start=row["mp4_offset"], length=row["mp4_size"]))
            probe = Probe(**{name: row[name] for name, _ in _PROBE_COLUMNS})
        samples.append(Sample(record=record, outcome=row["outcome"], detail=row["detail"], path=path, probe=probe))
    return samples


def download(store: Store, key: str, path: Path) -> None:
    """Copy a stored file to a local one in ranges, never all in memory. Raises FileNotFoundError."""
    size = store.size(key)
    if size is None:
        raise FileNotFoundError(f"{store.url}/{key}")
    with path.open("wb") as file:
        for start in range(0, size, 16 * _CHUNK):
            file.write(store.read_range(key, start=start, length=min(16 * _CHUNK, size - start)))
