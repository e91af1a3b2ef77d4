"""Records -> fetched, transcoded, committed shards; one unit is one shard's worth of records."""

from __future__ import annotations

import hashlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import requests

from pipeline.errors import Dropped, Transient, UserError
from pipeline.fetch import FetchSettings, fetch
from pipeline.jail import Jail, Limits
from pipeline.limits import Permits
from pipeline.records import VideoRecord, from_parquet, to_parquet
from pipeline.shards import Probe, Sample, check_video_id, publish_shard, write_shard
from pipeline.transcode import Profile
from pipeline.transfer import Session
from pipeline.units import Finished, Ledger, Unit

JOB = "build"
OUTAGES = frozenset({"connection", "timeout", "http_5xx"})
"""Outcomes that tell of the network, not of the video."""

_FETCHES_AHEAD = 4
"""Downloads that may wait to be transcoded, for each that runs at once: a shard's sources need not fit on the disk."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildSettings:
    """How records become shards."""

    profile: Profile = field(default_factory=Profile)
    videos_per_shard: int = 1000
    """Records in each shard; with the train profile about 400 MB of them."""
    fetches_per_worker: int = 8
    """Downloads at once in each worker."""
    fetch: FetchSettings = field(default_factory=FetchSettings)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if self.videos_per_shard < 1 or self.fetches_per_worker < 1:
            raise ValueError("videos_per_shard and fetches_per_worker must be at least 1")


def ledger_settings(records: Sequence[VideoRecord], settings: BuildSettings) -> dict[str, Any]:
    """What decides the shards' bytes: the profile, the cut into shards, and which records."""
    ids = "\n".join(record.video_id for record in records)
    return {
        "profile": asdict(settings.profile),
        "videos_per_shard": settings.videos_per_shard,
        "records": f"{len(records)} with sha256 {hashlib.sha256(ids.encode()).hexdigest()[:16]}",
    }


def build_units(records: Sequence[VideoRecord], *, videos_per_shard: int) -> list[Unit]:
    """Shard `000123` is records 123 n to 124 n - 1 in the order of their ids.

    Raises:
        UserError: an id cannot name a file in a shard, or occurs twice.
    """
    for record in records:
        check_video_id(record.video_id)
    repeated = [i for i, n in Counter(record.video_id for record in records).items() if n > 1]
    if repeated:
        raise UserError(f"video id {repeated[0]!r} stands for several records: give each an id of its own")
    starts = range(0, len(records), videos_per_shard)
    return [Unit(f"{i:06d}", to_parquet(records[at : at + videos_per_shard])) for i, at in enumerate(starts)]


def _ahead(
    records: Iterable[VideoRecord], submit: Callable[[VideoRecord], Future[str]], *, count: int
) -> Iterator[tuple[VideoRecord, Future[str]]]:
    """Each record with its download, in order; at most `count` downloads wait on the disk to be transcoded."""
    waiting: deque[tuple[VideoRecord, Future[str]]] = deque()
    for record in records:
        waiting.append((record, submit(record)))
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


class BuildWorker:
    """Builds one shard after another: downloads many at once, transcodes one by one in a child process."""

    def __init__(self, ledger: Ledger, settings: BuildSettings, permits: Permits) -> None:
        self._ledger = ledger
        self._settings = settings
        self._permits = permits
        self._jail = Jail(settings.limits)

    def __call__(self, unit: Unit) -> Finished:
        """Build the unit's shard and commit it."""
        start = time.monotonic()
        with TemporaryDirectory(prefix="noisyactions-") as name:
            folder = Path(name)
            samples = list(self._samples(list(from_parquet(unit.payload)), folder))
            if all(sample.outcome in OUTAGES for sample in samples):  # none of these videos did anything wrong
                first = samples[0]
                raise Transient(f"none of {len(samples)} videos could be fetched: {first.detail}", first.outcome)
            files = write_shard(samples, folder=folder, name=unit.name)
            publish_shard(self._ledger, unit=unit, files=files)
        return Finished(unit.name, files.counts, seconds=time.monotonic() - start)

    def close(self) -> None:
        """End the child process."""
        self._jail.close()

    def _samples(self, records: list[VideoRecord], folder: Path) -> Iterator[Sample]:
        with ThreadPoolExecutor(self._settings.fetches_per_worker) as pool, Session() as session:
            adapter = requests.adapters.HTTPAdapter(pool_maxsize=self._settings.fetches_per_worker)
            session.mount("http://", adapter)
            session.mount("https://", adapter)
            session.trust_env = False  # no .netrc: a media host gets no password of ours
            try:
                for record, download in _ahead(
                    records,
                    lambda record: pool.submit(self._fetch, record, folder, session),
                    count=_FETCHES_AHEAD * self._settings.fetches_per_worker,
                ):
                    yield self._sample(record, download, folder)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)  # whoever stops the job need not wait for the queue
                raise

    def _sample(self, record: VideoRecord, download: Future[str], folder: Path) -> Sample:
        try:
            return self._transcode(record, folder, source_sha256=download.result())
        except Dropped as drop:
            return Sample(record=record, outcome=drop.reason, detail=drop.detail)
        except Transient as error:
            return Sample(record=record, outcome=error.reason, detail=error.detail)

    def _fetch(self, record: VideoRecord, folder: Path, session: Session) -> str:
        target = folder / f"{record.video_id}.source"
        try:
            return fetch(record, target, session=session, permits=self._permits, settings=self._settings.fetch)
        except BaseException:
            target.unlink(missing_ok=True)  # half a download would lie there until the shard is done
            raise

    def _transcode(self, record: VideoRecord, folder: Path, *, source_sha256: str) -> Sample:
        source, target = folder / f"{record.video_id}.source", folder / f"{record.video_id}.mp4"
        try:
            facts = self._jail.transcode(source, target, self._settings.profile)
        finally:
            source.unlink()
        return Sample(record=record, path=target, probe=Probe(**facts, source_sha256=source_sha256))
