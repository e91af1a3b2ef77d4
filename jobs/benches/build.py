"""A build from a media server on this machine against transcoding the same files and nothing else."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.benches.contest import Report, compete, score_rows
from jobs.benches.footage import world
from pipeline.build import JOB, BuildSettings, BuildWorker, ledger_settings
from pipeline.errors import UserError
from pipeline.jail import Jail
from pipeline.limits import LocalPermits, Rate
from pipeline.records import Rendition, VideoRecord, to_parquet
from pipeline.sandbox.answers import labels_of, play_word
from pipeline.sandbox.server import serve
from pipeline.sandbox.world import World
from pipeline.store import FolderStore
from pipeline.transcode import Profile, transcode
from pipeline.units import Ledger, Unit

_LIMIT = "transcode only: the limit"


@dataclass(frozen=True, kw_only=True)
class Config:
    """How large a shard, and for how long."""

    seconds: float = 20.0
    """Begin no new round after these."""
    json: bool = False
    """End with the ratios as one line of JSON."""


@dataclass(frozen=True, slots=True)
class _Server:
    base_url: str
    pid: int
    """Of its process, whose time is not the build's."""


def measure(config: Config) -> Report:
    """Videos per second of CPU time, that of the server left out."""
    films = world()
    paths = [films.media_path(video) for video in films]
    with TemporaryDirectory(prefix="noisyactions-bench-") as name, _serving(films) as server:
        folder = Path(name)
        records = _records(films, server.base_url)
        with contextlib.closing(_worker(records, folder)) as worker, Jail() as jail:
            build = _build(worker, records)
            contenders = {
                _LIMIT: lambda: _each(paths, lambda path: transcode(path, folder / "alone.mp4", Profile())),
                "transcode in the child process": lambda: _each(
                    paths, lambda path: jail.transcode(path, folder / "jailed.mp4", Profile())
                ),
                "build: fetch, transcode, shard, commit": build,
            }
            for contender in contenders.values():
                contender()  # starts the child processes
            scores = compete(contenders, seconds=config.seconds, ignored_pids={server.pid})
    alone, jailed, whole = scores.values()
    return Report(
        title=f"build: {len(paths)} videos of 6 s, 640 x 360, from a server on this machine",
        columns=("way", "videos per CPU s", "rounds from-to", "of the limit"),
        rows=score_rows(scores, limit=_LIMIT),
        ratios={
            "share_of_transcode_only": whole.rate() / alone.rate(),
            "share_in_child_process": jailed.rate() / alone.rate(),
            "wall_share_of_transcode_only": whole.rate("wall") / alone.rate("wall"),
        },
        limit="Beyond transcoding, CPU time goes into HTTP, hashing, the tar and its Parquet. Real hosts are slower "
        "than this server: then a build waits for their permits, not for the CPU.",
    )


def _each(paths: list[Path], work: Callable[[Path], object]) -> float:
    for path in paths:
        work(path)
    return len(paths)


def _records(films: World, base_url: str) -> list[VideoRecord]:
    """As a crawl would have them, in the order of their ids."""
    records = []
    for video in films:
        label = labels_of(video)[0]
        url = f"{base_url}/photos/{video.owner.path}/{video.video_id}/play/{play_word(label)}/{video.secret}/"
        rendition = Rendition(label=label, url=url, width=640, height=360)
        records.append(VideoRecord(video_id=video.video_id, renditions=(rendition,), title=video.texts.title))
    return sorted(records, key=lambda record: record.video_id)


def _worker(records: list[VideoRecord], folder: Path) -> BuildWorker:
    settings = BuildSettings()
    ledger = Ledger(FolderStore(folder / "root"), JOB, ledger_settings(records, settings))
    (folder / "root").mkdir()
    ledger.open()
    return BuildWorker(ledger, settings, LocalPermits({}, default=Rate(per_second=1e4, burst=100)))


def _build(worker: BuildWorker, records: list[VideoRecord]) -> Callable[[], float]:
    """Each time a new shard of the same records."""
    payload, numbers = to_parquet(records), itertools.count()

    def once() -> float:
        finished = worker(Unit(f"{next(numbers):06d}", payload))
        if finished.counts != {"ok": len(records)}:
            raise UserError(f"a build on this machine should lose nothing, got {dict(finished.counts)}")
        return len(records)

    return once


@contextlib.contextmanager
def _serving(films: World) -> Iterator[_Server]:
    """A sandbox server in a process of its own, so that its CPU time can be told from ours."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve_until_told, args=(films, there))
    process.start()
    try:
        assert process.pid is not None
        yield _Server(here.recv(), process.pid)
    finally:
        here.send("stop")
        process.join()


def serve_until_told(films: World, connection: Connection) -> None:
    """The server's process: tell the URL, serve until anything is answered."""
    with serve(films, signature_seconds=3600) as server:
        connection.send(server.base_url)
        connection.recv()
