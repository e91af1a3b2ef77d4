"""Committed Parquet files by SQL: DuckDB with a limit on its memory, and a folder of its own for what exceeds it."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from pipeline.errors import UserError
from pipeline.shards import output_named
from pipeline.store import FolderStore, Store
from pipeline.units import Ledger, Output

_MIN_MEMORY_BYTES = 256 << 20
_BYTES_PER_THREAD = 256 << 20
"""A thread's buffers cannot be spilled: on many cores they alone would fill a small limit."""


@contextmanager
def open_database(*, memory_bytes: int) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in a temporary folder, removed with all that was spilled; DuckDB uses up to `memory_bytes`.

    Raises:
        UserError: `memory_bytes` is too little for anything.
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
        with duckdb.connect(f"{folder}/database", config=settings) as database:
            database.execute("SET enable_progress_bar = false")  # it would print
            yield database


@contextmanager
def local_files(store: Store, outputs: Sequence[Output], *, check: bool) -> Iterator[list[str]]:
    """Paths to read `outputs` from: in place if the root is a folder, else copies in a temporary folder.

    `check` compares sizes and SHA-256 with what the commits say.

    Raises:
        UserError: a file is missing, or not what its commit says.
    """
    with tempfile.TemporaryDirectory(prefix="noisyactions-") as folder, ThreadPoolExecutor(8) as pool:

        def localise(numbered: tuple[int, Output]) -> str:
            number, output = numbered
            if isinstance(store, FolderStore):
                path = store.path(output.key)
                _check(store, output, path, content=check)
            else:
                path = Path(folder) / f"{number}.parquet"
                _copy(store, output, path)
                _check(store, output, path, content=check)
            return str(path)

        yield list(pool.map(localise, enumerate(outputs)))


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
    try:
        path.write_bytes(store.read(output.key))
    except FileNotFoundError as error:
        raise _missing(store, output) from error


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
