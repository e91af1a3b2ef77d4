"""What a large crawl does on one machine besides its requests: merge what its stages committed, count, split.

Each stage has a process of its own, for its peak memory; the files it reads are made before and not counted.
"""

from __future__ import annotations

import math
import multiprocessing
import re
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from jobs.benches.contest import Report
from jobs.benches.harvest import Harvest
from pipeline.catalogue import open_catalogue
from pipeline.scan import shard_files
from pipeline.splits import SplitSettings, make_splits, write_splits
from pipeline.stats import open_statistics
from pipeline.store import FolderStore
from pipeline.usable import read_batches

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many records."""

    records: int = 50_000
    """Videos, each found by four queries on average; also tried with a tenth of them. The paper has 2 million, for
    which 10 GB of disk are needed in the temporary folder (TMPDIR names it)."""
    json: bool = False
    """End with the ratios as one line of JSON."""

    def __post_init__(self) -> None:
        if not 10_000 <= self.records <= 10_000_000:
            raise ValueError(f"records must be from 10,000 to 10,000,000, got {self.records}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a stage took."""

    cpu_seconds: float
    wall_seconds: float
    start_mib: float
    """With its modules imported, and nothing read."""
    peak_mib: float
    """Resident, with children."""


def measure(config: Config) -> Report:
    """All stages for a tenth of the records and for all of them."""
    few, many = config.records // 10, config.records
    small, large = run_stages(few), run_stages(many)
    slowest = max(large, key=lambda stage: large[stage].cpu_seconds)
    largest = max(large, key=lambda stage: large[stage].peak_mib)
    return Report(
        title=f"crawl: {many:,} videos found four times each, against {few:,}",
        columns=("stage", "CPU s, a tenth", "CPU s", "wall s", "grows as n to the", "peak MiB, a tenth", "peak MiB"),
        rows=list(_rows(small, large)),
        ratios={
            "records_per_second": many / _seconds(large),
            "peak_mib": large[largest].peak_mib,
            "growth_exponent": math.log10(_seconds(large) / _seconds(small)),
            "memory_growth_exponent": math.log10(_added_mib(large) / _added_mib(small)),
        },
        limit=f"{slowest} takes {large[slowest].cpu_seconds / _seconds(large):.0%} of the time. A merge opens every "
        f"committed file twice and sorts its rows by video id on disk. {largest} takes the most memory; DuckDB's part "
        "of it has a fixed limit.",
        notes=("an exponent of 1 is as good as time gets; that of memory is of what a stage adds to its imports",),
    )


def _seconds(costs: Mapping[str, Cost]) -> float:
    return sum(cost.cpu_seconds for cost in costs.values())


def _added_mib(costs: Mapping[str, Cost]) -> float:
    return max(cost.peak_mib - cost.start_mib for cost in costs.values())


def _rows(small: Mapping[str, Cost], large: Mapping[str, Cost]) -> Iterator[tuple[object, ...]]:
    for stage, cost in large.items():
        tenth = small[stage]
        growth = math.log10(cost.cpu_seconds / tenth.cpu_seconds)
        seconds = (f"{spent:.1f}" for spent in (tenth.cpu_seconds, cost.cpu_seconds, cost.wall_seconds))
        yield stage, *seconds, f"{growth:.2f}", f"{tenth.peak_mib:.0f}", f"{cost.peak_mib:.0f}"


def run_stages(records: int) -> dict[str, Cost]:
    """The cost of each stage on made-up files of so many videos."""
    with tempfile.TemporaryDirectory(prefix="noisyactions-") as folder:
        harvest = Harvest(Path(folder), records)
        _apart(harvest.write)
        costs = {"merge": _apart(partial(_cost, _merge, harvest))}
        _apart(harvest.write_shards)
        for name, stage in (("statistics", _count), ("splits", _split)):
            costs[name] = _apart(partial(_cost, stage, harvest))
    return costs


def _apart(work: Callable[[], T]) -> T:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(work).result()


def _cost(stage: Callable[[Harvest], None], harvest: Harvest) -> Cost:
    start_mib = _peak_mib()
    cpu, wall = time.process_time(), time.perf_counter()
    stage(harvest)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Cost(cpu_seconds=cpu, wall_seconds=wall, start_mib=start_mib, peak_mib=_peak_mib())


def _peak_mib() -> float:
    # Unlike ru_maxrss it does not begin with the peak of the process that started this one.
    own = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert own
    return (int(own[1]) + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss) / 1024


def _merge(harvest: Harvest) -> None:
    with open_catalogue(FolderStore(harvest.folder), min_videos=11) as catalogue:
        for _ in catalogue.waiting("comments", all_comments=True):
            pass
        catalogue.write()


def _count(harvest: Harvest) -> None:
    with shard_files(FolderStore(harvest.folder)) as files, open_statistics(list(files)) as statistics:
        statistics.table2()
        statistics.class_sizes()
        statistics.labels_per_video()
        statistics.durations()
        statistics.sample_ids(8)


def _split(harvest: Harvest) -> None:
    store = FolderStore(harvest.folder)
    settings = SplitSettings(sizes={"half": harvest.videos // 2, "full": None}, require="any")
    with shard_files(store) as files:
        write_splits(store, make_splits(read_batches(files), settings=settings))
