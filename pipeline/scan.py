"""Committed Parquet files by SQL: DuckDB with a limit on its memory, and a folder of its own for what exceeds it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import astuple
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.shards import output_named
from pipeline.store import FolderStore, Store, is_no_room
from pipeline.units import Commit, Ledger, Output

_MIN_MEMORY_BYTES = 256 << 20
_BYTES_PER_THREAD = 256 << 20
"""A thread's buffers cannot be spilled: on many cores they alone would fill a small limit."""

_DISK_FULL = ("max_temp_directory_size", "No space left on device", "Disk quota exceeded")
"""How DuckDB tells that its temporary folder takes no more; the first it also calls out of memory."""


@contextmanager
def open_database(*, memory_bytes: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in a temporary folder, removed with all that was spilled; DuckDB uses up to `memory_bytes`.

    Raises:
        UserError: `memory_bytes` is too little, for anything or for what is done with the database; or the disk is.
    """
    if memory_bytes < _MIN_MEMORY_BYTES:
        raise UserError(f"memory_bytes {memory_bytes}: must be at least {_MIN_MEMORY_BYTES}")
    threads = max(1, min(os.cpu_count() or 1, memory_bytes // _BYTES_PER_THREAD))
    with tempfile.TemporaryDirectory(prefix="noisyactions-") as folder:
        settings = {
            "memory_limit": f"{memory_bytes >> 20}MiB",
            "temp_directory": f"{folder}/spilled",
            "threads": threads,
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,  # Parquet is built in, and nothing is to be fetched
            "default_null_order": "nulls_last",
        }
        try:
            with duckdb.connect(f"{folder}/database", config=settings) as database:
                database.execute("SET enable_progress_bar = false")  # it would print
                yield database
        except duckdb.Error as error:
            way_out = _way_out(error, memory_bytes=memory_bytes)
            if way_out is None:
                raise
            raise UserError(way_out) from error


def _way_out(error: duckdb.Error, *, memory_bytes: int) -> str | None:
    """What a user can do where DuckDB has no room left; None if something else is wrong."""
    text = str(error)
    if any(words in text for words in _DISK_FULL):
        return _told_full()
    if isinstance(error, duckdb.OutOfMemoryException):
        return f"memory_bytes {memory_bytes} ({memory_bytes >> 20} MiB) is too little for so many rows: grant more"
    return None


def _told_full() -> str:
    folder = tempfile.gettempdir()
    return f"the disk of {folder} has no room for so many rows: let TMPDIR name a folder on a larger one"


def committed_tables(store: Store, job: str, *, cache: Path | None = None) -> list[Output]:
    """The Parquet files that the job's commits list, by unit name.

    What the folder `cache` tells of a commit is not read again, so it is for one run that replaces no commit.
    """
    ledger = Ledger(store, job, {})
    if cache is None:
        return [output for commit in ledger.commits() for output in _tables(commit)]
    kept = cache / f"{job}.jsonl"
    kept.touch()
    with kept.open("r+") as file, ThreadPoolExecutor(8) as pool:
        known = {unit: [Output(*output) for output in outputs] for unit, outputs in map(json.loads, file)}
        units = [key.rpartition("/")[2].removesuffix(".json") for key in sorted(store.list(f"{job}/commits/"))]
        for commit in pool.map(ledger.commit_of, [unit for unit in units if unit not in known]):
            known[commit.unit] = _tables(commit)
            file.write(json.dumps([commit.unit, [astuple(output) for output in known[commit.unit]]]) + "\n")
    return [output for unit in units for output in known[unit]]


def _tables(commit: Commit) -> list[Output]:
    return [output for output in commit.outputs if output.key.endswith(".parquet")]


@contextmanager
def local_files(
    store: Store, outputs: Sequence[Output], *, check: bool, cache: Path | None = None
) -> Iterator[list[str]]:
    """Paths to read `outputs` from: in place if the root is a folder, else copies in a temporary folder or in `cache`.

    What the cache holds is not fetched again. `check` compares sizes and SHA-256 with what the commits say.

    Raises:
        UserError: a file is missing, or not what its commit says; or the disk has no room for copies.
    """
    own = tempfile.TemporaryDirectory(prefix="noisyactions-") if cache is None else nullcontext(cache)
    with own as folder, ThreadPoolExecutor(8) as pool:

        def localise(output: Output) -> str:
            path = store.path(output.key) if isinstance(store, FolderStore) else Path(folder) / _copy_name(output)
            if not isinstance(store, FolderStore) and not path.exists():
                _copy(store, output, path)
            _check(store, output, path, content=check)
            return str(path)

        yield list(pool.map(localise, outputs))


def _copy_name(output: Output) -> str:
    """Of a key and its content, for a key may come to hold another."""
    return hashlib.sha256(f"{output.key} {output.sha256}".encode()).hexdigest() + ".parquet"


@contextmanager
def shard_files(store: Store, *, job: str = "build") -> Iterator[dict[str, str]]:
    """Paths of the Parquet files of all committed shards, in the order of their names, each with the key of its tar.

    Raises:
        UserError: a file is missing, or not what its commit says.
    """
    commits = list(Ledger(store, job, {}).commits())
    with local_files(store, [output_named(commit, ".parquet") for commit in commits], check=True) as paths:
        yield dict(zip(paths, (output_named(commit, ".tar").key for commit in commits), strict=True))


def _copy(store: Store, output: Output, path: Path) -> None:
    part = path.with_suffix(".part")
    try:
        part.write_bytes(store.read(output.key))
    except FileNotFoundError as error:
        raise _missing(store, output) from error
    except OSError as error:
        if not is_no_room(error):
            raise
        raise UserError(_told_full()) from error
    part.replace(path)


def _check(store: Store, output: Output, path: Path, *, content: bool) -> None:
    if not path.exists():
        raise _missing(store, output)
    if content:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != output.sha256:
                raise UserError(f"{output.key} in {store.url} is not what its commit says: run fsck on it")


def _missing(store: Store, output: Output) -> UserError:
    return UserError(f"{output.key} is committed but missing in {store.url}: restore it, or delete its commit")


def load(database: duckdb.DuckDBPyConnection, query: str, *, files: Sequence[str], schema: pa.Schema) -> None:
    """Run a statement in which `{source}` stands for the rows of Parquet files of one schema; there may be none.

    The rows have a column `filename` besides those of the schema.

    Raises:
        UserError: one is not Parquet, or lacks a column.
    """
    if not files:
        database.register("no_rows", schema.append(pa.field("filename", pa.string())).empty_table())
        database.execute(query.format(source="no_rows"))
        database.unregister("no_rows")
        return
    source = "read_parquet(?, hive_partitioning = false, filename = true)"  # a folder may be called a=b
    try:
        database.execute(query.format(source=source), [[_plain(file) for file in files]])
    except (duckdb.InvalidInputException, duckdb.BinderException) as error:
        said = str(error).splitlines()[0]
        raise UserError(f"not a Parquet file of rows, delete its commit to have it made again: {said}") from error


def _plain(path: str) -> str:
    """The path as a pattern that means only itself."""
    return re.sub(r"([*?\[])", r"[\1]", path)


def quoted(text: str) -> str:
    """The text as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"


def rows_of(database: duckdb.DuckDBPyConnection, query: str) -> list[Any]:
    """All rows of a query as tuples."""
    found: list[Any] = database.execute(query).fetchall()
    return found
