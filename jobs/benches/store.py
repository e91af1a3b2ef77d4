"""A root's operations against plain files that are written and synced; on the wall clock, for storage mostly waits."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.benches.contest import Report, Score, compete, shown
from pipeline.store import FolderStore, Store, open_store

_SMALL = b"x" * 1024


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which root, and how much."""

    root: str | None = None
    """Folder or s3://bucket/prefix; keys of its own are written there and deleted. None is a temporary folder."""
    megabytes: int = 64
    """Written and read in each round, in objects of 8 MB."""
    creations: int = 200
    """Small objects created in each round, of 1 KiB."""
    seconds: float = 15.0
    """Begin no new round after these."""
    json: bool = False
    """End with the ratios as one line of JSON."""

    def __post_init__(self) -> None:
        if self.megabytes < 8 or self.creations < 1:
            raise ValueError("megabytes must be at least 8 and creations at least 1")


@dataclass(frozen=True, slots=True)
class _Load:
    store: Store
    prefix: str
    plain: Path
    """A folder for the plain files, on the same disk where the root is a folder."""
    large: bytes
    count: int


def measure(config: Config) -> Report:
    """Megabytes and operations per second, the store's and plain files'."""
    with _load(config) as load:
        bulk = compete(_bulk(load), seconds=config.seconds / 2)
        small = compete(_small(load, config.creations), seconds=config.seconds / 2)
        url = load.store.url
        there = isinstance(load.store, FolderStore)
    limit = "open().write, fsync"
    return Report(
        title=f"store: {url}",
        columns=("operation", "MB or operations per second", "rounds from-to", "of a plain file's"),
        rows=[*_rows(bulk, limit, "open().read"), *_rows(small, "open().write 1 KiB, fsync", None)],
        ratios={
            "share_of_plain_write": bulk["store.write"].rate("wall") / bulk[limit].rate("wall"),
            "share_of_plain_read": bulk["store.read"].rate("wall") / bulk["open().read"].rate("wall"),
            "create_per_second": small["store.create 1 KiB"].rate("wall"),
            "write_mb_per_second": bulk["store.write"].rate("wall"),
            "read_mb_per_second": bulk["store.read"].rate("wall"),
        },
        limit="Creations are what commits cost: one for each unit, and each waits for the disk to sync (a folder) or "
        "for one answer (S3). Reads come from the page cache here."
        if there
        else "Each operation waits for one answer of the endpoint; jobs hide that by doing several at once.",
        notes=() if there else ("the plain files are on this machine's temporary folder, not behind the network",),
    )


@contextlib.contextmanager
def _load(config: Config) -> Iterator[_Load]:
    with TemporaryDirectory(prefix="noisyactions-bench-") as temporary:
        store = open_store(config.root or temporary, create=config.root is None)
        prefix = f"bench-{secrets.token_hex(4)}"
        plain = Path(store.url if isinstance(store, FolderStore) else temporary) / prefix / "plain"
        plain.mkdir(parents=True)
        try:
            yield _Load(store, prefix, plain, os.urandom(8_000_000), config.megabytes // 8)
        finally:
            for key in list(store.list(f"{prefix}/")):
                store.delete(key)
            if isinstance(store, FolderStore):
                for folder in sorted((store.folder / prefix).rglob("*"), reverse=True):
                    folder.rmdir()
                (store.folder / prefix).rmdir()


def _bulk(load: _Load) -> dict[str, Callable[[], float]]:
    """Each moves the same megabytes; what is read is what was written first."""
    keys = [f"{load.prefix}/{number}" for number in range(load.count)]
    paths = [load.plain / str(number) for number in range(load.count)]
    upload = load.plain / "upload"
    upload.write_bytes(load.large)

    def each(work: Callable[[int], object]) -> Callable[[], float]:
        def once() -> float:
            for number in range(load.count):
                work(number)
            return load.count * len(load.large) / 1e6

        return once

    for number in range(load.count):  # so that whichever reads first finds something
        load.store.write(keys[number], load.large)
        _write_synced(paths[number], load.large)
    return {
        "open().write, fsync": each(lambda n: _write_synced(paths[n], load.large)),
        "store.write": each(lambda n: load.store.write(keys[n], load.large)),
        "store.upload": each(lambda n: load.store.upload(keys[n], upload)),
        "open().read": each(lambda n: paths[n].read_bytes()),
        "store.read": each(lambda n: load.store.read(keys[n])),
    }


def _small(load: _Load, count: int) -> dict[str, Callable[[], float]]:
    """Each makes so many new small objects."""

    def create() -> float:
        batch = secrets.token_hex(4)
        for number in range(count):
            assert load.store.create(f"{load.prefix}/small-{batch}/{number}", _SMALL)
        return count

    def plain() -> float:
        batch = secrets.token_hex(4)
        for number in range(count):
            _write_synced(load.plain / f"small-{batch}-{number}", _SMALL)
        return count

    return {"open().write 1 KiB, fsync": plain, "store.create 1 KiB": create}


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _rows(scores: dict[str, Score], writing: str, reading: str | None) -> Iterator[tuple[object, ...]]:
    for name, score in scores.items():
        whole = scores[reading if reading is not None and "read" in name else writing]
        rate = score.rate("wall")
        yield (name, shown(rate), score.spread("wall"), f"{rate / whole.rate('wall'):.2f}")
