"""Records -> fetched, transcoded, committed WebDataset shards.

Reads the root's crawled records, or one other source: a folder of videos, a CSV or Parquet table of URLs, a list of
Flickr ids, UCF101 or HMDB51 in their official layout. Writes shards/ (tar and Parquet) and build/ (settings,
commits). Every record asked for ends as one row: `ok`, or a word for why not. Costs about 0.1 s of one core per
second of video; downloads go at the pace that the media hosts allow.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jobs import crawl
from jobs.asking import default_flickr, flickr_rates
from jobs.launch import Where, session, work_through
from jobs.progress import say, show_outcomes
from pipeline.build import JOB, OUTAGES, BuildSettings, BuildWorker, build_units, ledger_settings
from pipeline.catalogue import read_records
from pipeline.downstream import Downstream, read_hmdb51, read_ucf101, write_downstream
from pipeline.errors import UserError
from pipeline.flickr import FlickrSettings
from pipeline.limits import Permits
from pipeline.records import VideoRecord
from pipeline.shards import read_rows
from pipeline.sources import folder_records, table_records
from pipeline.store import Store, open_store
from pipeline.units import Ledger


@dataclass(frozen=True, kw_only=True)
class Config:
    """Where records come from, and how they become shards; without a source, the root's crawled records."""

    root: Annotated[str, tyro.conf.Positional]
    """Folder or s3://bucket/prefix to write to."""
    folder: Path | None = None
    """A folder of video files; the folders in it are their labels."""
    keep_bad_files: bool = False
    """Record text files named like videos as `not_a_video` instead of refusing them."""
    table: Path | None = None
    """A CSV or Parquet file with a column `url`."""
    ids: Path | None = None
    """A list of Flickr ids, a line `id label|label` each, as NoisyActions2M was released."""
    id_classes: Path | None = None
    """The class list of `--ids`, a line `number name` each."""
    ucf101: Path | None = None
    """The folder that holds UCF-101/ and ucfTrainTestlist/."""
    hmdb51: Path | None = None
    """The folder that holds hmdb51_org/ and testTrainMulti_7030_splits/."""
    official_split: Literal[1, 2, 3] = 1
    """Which of the official splits of UCF101 or HMDB51."""
    settings: BuildSettings = field(default_factory=BuildSettings)
    flickr: FlickrSettings = field(default_factory=default_flickr)
    where: Where = field(default_factory=Where)


def run(config: Config) -> int:
    """Build what is not built yet; exit code 3 if shards were set aside, 2 if no video of the source is usable."""
    _check_sources(config)
    store = open_store(config.root, create=_sources(config) != [])
    with session(config.where):
        records = _records(config, store)
        if not records:
            raise UserError(f"{store.url} has no records to build: the crawl found no videos; look at its vocabulary")
        settings = _polite(config)
        ledger = Ledger(store, JOB, ledger_settings(records, settings))
        units = build_units(records, videos_per_shard=settings.videos_per_shard)
        done = ledger.open()
        left = [unit for unit in units if unit.name not in done]
        tally = work_through(
            left,
            partial(make_builder, ledger, settings),
            done=len(units) - len(left),
            label="build",
            where=config.where,
            rates=flickr_rates(config.flickr),
        )
    return tally.exit_code or _tell(store, len(records))


def make_builder(ledger: Ledger, settings: BuildSettings, permits: Permits) -> BuildWorker:
    """A worker for one process."""
    return BuildWorker(ledger, settings, permits)


def _sources(config: Config) -> list[str]:
    return [n for n in ("folder", "table", "ids", "ucf101", "hmdb51") if getattr(config, n) is not None]


def _check_sources(config: Config) -> None:
    if len(_sources(config)) > 1:
        raise UserError(f"one source at a time, got --{' and --'.join(_sources(config))}: build each on its own root")


def _records(config: Config, store: Store) -> list[VideoRecord]:
    if config.folder is not None:
        return folder_records(config.folder, keep_bad_files=config.keep_bad_files)
    if config.table is not None:
        return table_records(config.table)
    if config.ucf101 is not None:
        return _downstream(store, read_ucf101(config.ucf101, split=config.official_split))
    if config.hmdb51 is not None:
        return _downstream(store, read_hmdb51(config.hmdb51, split=config.official_split))
    if config.ids is not None:
        asked = crawl.Config(
            root=config.root, ids=config.ids, id_classes=config.id_classes, min_videos=1,
            flickr=config.flickr, where=config.where,
        )  # fmt: skip
        if crawl.run(asked):
            raise UserError("some ids could not be looked up (above): run the same command again")
    return read_records(store)


def _downstream(store: Store, dataset: Downstream) -> list[VideoRecord]:
    """The official lists become the root's splits, so that finetune and evaluate find them."""
    write_downstream(store, dataset)
    return list(dataset.records)


def _polite(config: Config) -> BuildSettings:
    """Downloads carry the contact too, where there is one."""
    if not config.flickr.contact:
        return config.settings
    return replace(config.settings, fetch=replace(config.settings.fetch, user_agent=config.flickr.user_agent))


def _tell(store: Store, num_records: int) -> int:
    rows = read_rows(store, columns=("video_id", "outcome", "detail", "mp4_size", "source_duration_seconds"))
    if rows.num_rows != num_records:
        raise UserError(
            f"{store.url} holds {rows.num_rows:,} of {num_records:,} records, though every unit says it is done: "
            "the root must be a disk that all workers share, or s3://bucket/prefix"
        )
    outcomes = rows["outcome"].value_counts().to_pylist()
    counts = {item["values"]: item["counts"] for item in outcomes}
    show_outcomes(f"{num_records:,} records by outcome", counts)
    size = sum(n or 0 for n in rows["mp4_size"].to_pylist())
    hours = sum(s or 0.0 for s in rows["source_duration_seconds"].to_pylist()) / 3600
    say(f"{counts.get('ok', 0):,} videos, {hours:.2f} hours, {size / 1e6:,.1f} MB in {store.url}/shards")
    outages = sum(counts.get(reason, 0) for reason in OUTAGES)
    if outages:
        say(f"{outages:,} records failed for the network's sake; they stay rows with that outcome")
    if not counts.get("ok"):
        first = rows.slice(0, 1).to_pylist()[0]
        raise UserError(
            f"no video of the source is usable: {first['video_id']} is {first['outcome']} ({first['detail']}), "
            f"and so on for all {num_records}"
        )
    return 0
