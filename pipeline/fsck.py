"""Checks a root's shards against their commits; reports, and never writes."""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import REASONS
from pipeline.shards import SHARD_SCHEMA, download
from pipeline.store import Store
from pipeline.units import Commit, Ledger, Output, hash_settings

What = Literal["commit", "missing", "size", "checksum", "tar", "order", "parquet", "offset", "counts"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about a shard that is not as its commit and the format promise."""

    shard: str
    """The unit's name, such as `000123`; for two shards at once, that of the later one."""
    what: What
    detail: str


@dataclass(frozen=True, slots=True)
class Findings:
    """What a check found; a sound root has no problems, and orphans only where a worker died."""

    problems: tuple[Problem, ...]
    orphans: tuple[str, ...]
    """Keys under `shards/` that no commit lists: left by a worker that died, ignored by readers."""
    num_shards: int
    counts: Counter[str]
    """Rows of all committed shards by outcome."""


@dataclass(frozen=True, slots=True)
class _Member:
    name: str
    offset: int
    """Of its data, in bytes."""
    size: int


def check_shards(store: Store, *, job: str = "build") -> Findings:
    """Check every committed shard: sizes, checksums, tar structure and order, and the Parquet against the tar."""
    problems: list[Problem] = []
    listed: set[str] = set()
    counts: Counter[str] = Counter()
    holders: dict[str, str] = {}
    settings = _settings_hash(store, job)
    commits = list(Ledger(store, job, {}).commits())
    for commit in commits:
        listed |= {output.key for output in commit.outputs}
        counts.update(commit.counts)
        if commit.settings_hash != settings:
            problems.append(Problem(commit.unit, "commit", f"was made with other settings than {job}/settings.json"))
        with tempfile.TemporaryDirectory() as folder:
            problems += _check_shard(store, commit, Path(folder), holders)
    orphans = tuple(key for key in store.list("shards/") if key not in listed)
    return Findings(tuple(problems), orphans, len(commits), counts)


def _settings_hash(store: Store, job: str) -> str | None:
    try:
        return hash_settings(json.loads(store.read(f"{job}/settings.json")))
    except FileNotFoundError:
        return None


def _check_shard(store: Store, commit: Commit, folder: Path, holders: dict[str, str]) -> Iterator[Problem]:
    suffixes = sorted(Path(output.key).suffix for output in commit.outputs)
    if suffixes != [".parquet", ".tar"]:
        yield Problem(commit.unit, "commit", f"lists {suffixes or 'nothing'}, not one .tar and one .parquet")
        return
    local = {}
    for output in commit.outputs:
        path = folder / f"shard{Path(output.key).suffix}"
        problem = _fetch_output(store, commit.unit, output, path)
        if problem:
            yield problem
        if path.exists():
            local[path.suffix] = path
    rows = members = None
    if ".parquet" in local:
        rows, problem = _read_rows(commit.unit, local[".parquet"])
        yield from [problem] if problem else []
    if ".tar" in local:
        members, problem = _read_members(commit.unit, local[".tar"])
        yield from [problem] if problem else []
    if rows is not None:
        yield from _check_rows(commit, rows, holders)
    if rows is not None and members is not None:
        yield from _compare(commit.unit, rows, members, local[".tar"])


def _fetch_output(store: Store, unit: str, output: Output, path: Path) -> Problem | None:
    try:
        download(store, output.key, path)
    except FileNotFoundError:
        return Problem(unit, "missing", f"{output.key} is committed but not there")
    if path.stat().st_size != output.size:
        return Problem(unit, "size", f"{output.key} has {path.stat().st_size} bytes, its commit says {output.size}")
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != output.sha256:
            return Problem(unit, "checksum", f"{output.key} is not the bytes that were committed")
    return None


def _read_rows(unit: str, path: Path) -> tuple[list[dict[str, Any]] | None, Problem | None]:
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        return None, Problem(unit, "parquet", f"cannot be read: {error}")
    if not table.schema.equals(SHARD_SCHEMA):
        return None, Problem(unit, "parquet", "has other columns than this version writes")
    return table.to_pylist(), None


def _read_members(unit: str, path: Path) -> tuple[list[_Member] | None, Problem | None]:
    try:
        with tarfile.open(path, "r:") as tar:
            members = tar.getmembers()
    except (tarfile.TarError, EOFError) as error:
        return None, Problem(unit, "tar", f"cannot be read: {error}")
    strange = [m.name for m in members if not m.isreg() or (m.mtime, m.uid, m.gid, m.mode) != (0, 0, 0, 0o644)]
    found = [_Member(member.name, member.offset_data, member.size) for member in members]
    return found, Problem(unit, "tar", f"members that we do not write, such as {strange[0]!r}") if strange else None


def _check_rows(commit: Commit, rows: list[dict[str, Any]], holders: dict[str, str]) -> Iterator[Problem]:
    ids = [row["video_id"] for row in rows]
    if ids != sorted(set(ids)):
        yield Problem(commit.unit, "order", "rows are not sorted by video_id, or one occurs twice")
    counts = Counter(row["outcome"] for row in rows)
    if dict(counts) != {word: n for word, n in commit.counts.items() if n}:
        yield Problem(commit.unit, "counts", f"Parquet has {dict(counts)}, its commit says {dict(commit.counts)}")
    unknown = sorted(set(counts) - REASONS - {"ok"})
    if unknown:
        yield Problem(commit.unit, "parquet", f"unknown outcomes {unknown}")
    for video_id in ids:
        if holders.setdefault(video_id, commit.unit) != commit.unit:
            yield Problem(commit.unit, "order", f"{video_id} is also in shard {holders[video_id]}")


def _compare(unit: str, rows: list[dict[str, Any]], members: list[_Member], tar: Path) -> Iterator[Problem]:
    wanted = [
        _Member(f"{row['video_id']}.{kind}", row[f"{kind}_offset"], row[f"{kind}_size"])
        for row in rows if row["outcome"] == "ok" for kind in ("mp4", "json")
    ]  # fmt: skip
    names = [member.name for member in members]
    if names != [member.name for member in wanted]:
        same = sorted(names) == sorted(member.name for member in wanted)
        detail = "members are not pairs {id}.mp4, {id}.json in order" if same else "members are not those of the rows"
        yield Problem(unit, "order" if same else "tar", detail)
        return
    for member, expected in zip(members, wanted, strict=True):
        if member != expected:
            yield Problem(
                unit, "offset", f"{member.name} lies at {member.offset}+{member.size}, Parquet says otherwise"
            )
    yield from _check_videos(unit, rows, tar)


def _check_videos(unit: str, rows: list[dict[str, Any]], tar: Path) -> Iterator[Problem]:
    with tar.open("rb") as file:
        for row in rows:
            if row["outcome"] != "ok":
                continue
            file.seek(row["mp4_offset"])
            if hashlib.sha256(file.read(row["mp4_size"])).hexdigest() != row["mp4_sha256"]:
                yield Problem(unit, "checksum", f"{row['video_id']}.mp4 is not the video of its row")
