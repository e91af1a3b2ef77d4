"""What a large crawl does on one machine after its requests: merge records, write and read them, choose splits."""

from __future__ import annotations

import math
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import numpy as np

from jobs.benches.contest import Report
from pipeline.crawl import merge
from pipeline.records import Comment, Found, Rendition, VideoRecord, from_parquet, to_parquet, to_row
from pipeline.splits import SplitSettings, make_splits

_WORDS = tuple(f"word{number}" for number in range(2000))
T = TypeVar("T")

_TRIAL = 1000
_MOST_CONCEPTS = 7000  # as many as the paper's


@dataclass(frozen=True, kw_only=True)
class Config:
    """How many records."""

    records: int = 20_000
    """Videos, each found by two queries; also tried with a tenth of them. The paper has 2 million."""
    json: bool = False
    """End with the ratios as one line of JSON."""

    def __post_init__(self) -> None:
        if not 10_000 <= self.records <= 10_000_000:
            raise ValueError(f"records must be from 10,000 to 10,000,000, got {self.records}")


@dataclass(slots=True)
class Stages:
    """CPU seconds of each stage for so many records, and the most memory that the process ever had."""

    records: int
    seconds: dict[str, float] = field(default_factory=dict)
    start_mib: float = 0.0
    """With the records not yet made."""
    peak_mib: float = 0.0

    @property
    def total(self) -> float:
        """Of all stages."""
        return sum(self.seconds.values())


def measure(config: Config) -> Report:
    """Records per second of CPU time through all stages, each size in a process of its own for its peak memory."""
    small, large = (_apart(count) for count in (config.records // 10, config.records))
    growth = _exponent(small.total, large.total, small.records, large.records)
    slowest = max(large.seconds, key=large.seconds.__getitem__)
    return Report(
        title=f"crawl: {config.records:,} videos, each found twice",
        columns=("stage", f"CPU s for {small.records:,}", f"CPU s for {large.records:,}", "grows as n to the"),
        rows=list(_rows(small, large)),
        ratios={
            "records_per_second": large.records / large.total,
            "peak_mib": large.peak_mib,
            "growth_exponent": growth,
            "peak_kib_per_record": (large.peak_mib - large.start_mib) * 1024 / large.records,
        },
        limit=f"Python objects: {slowest} takes {large.seconds[slowest] / large.total:.0%} of the time, and all "
        "records are in memory at once, on one machine.",
        notes=("an exponent of 1 is as good as it gets: each record is looked at",),
    )


def _rows(small: Stages, large: Stages) -> Iterator[tuple[object, ...]]:
    for stage, seconds in large.seconds.items():
        growth = _exponent(small.seconds[stage], seconds, small.records, large.records)
        yield (stage, f"{small.seconds[stage]:.3f}", f"{seconds:.3f}", f"{growth:.2f}")
    growth = _exponent(small.peak_mib - small.start_mib, large.peak_mib - large.start_mib, small.records, large.records)
    yield (
        "peak memory, MiB",
        f"{small.peak_mib:.0f}",
        f"{large.peak_mib:.0f}",
        f"{growth:.2f} (less what it began with)",
    )


def _exponent(small: float, large: float, few: int, many: int) -> float:
    return math.log(large / small) / math.log(many / few)


def _apart(count: int) -> Stages:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(run_stages, count).result()


def run_stages(count: int) -> Stages:
    """All stages on made-up records, in this process, after a trial that takes what is paid only once."""
    _time_stages(Stages(records=_TRIAL))
    stages = Stages(records=count, start_mib=_peak_mib())
    _time_stages(stages)
    stages.peak_mib = _peak_mib()
    return stages


def _time_stages(stages: Stages) -> None:
    count = stages.records
    raw = [record for query in range(2) for record in _found(count, query)]
    merged = _timed(stages, "merge", partial(merge, raw))
    data = _timed(stages, "to Parquet", partial(to_parquet, merged))
    del raw, merged
    records = _timed(stages, "from Parquet", lambda: list(from_parquet(data)))
    settings = SplitSettings(sizes={"half": count // 2, "full": None})
    rows = ({**to_row(record), "outcome": "ok"} for record in records)
    _timed(stages, "splits", partial(make_splits, rows, settings=settings))


def _timed(stages: Stages, stage: str, work: Callable[[], T]) -> T:
    began = time.process_time()
    result = work()
    stages.seconds[stage] = time.process_time() - began
    return result


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux


def _found(count: int, query: int) -> Iterator[VideoRecord]:
    """Records as a query finds them: the same videos for each query, in another order and under another label."""
    for number in np.random.default_rng(query).permutation(count):
        drawn = np.random.Generator(np.random.Philox(key=int(number)))
        words = [_WORDS[i] for i in drawn.integers(len(_WORDS), size=40)]
        concept = f"action {(int(number) + query) % min(_MOST_CONCEPTS, count // 50)}"
        owner = f"owner-{int(drawn.integers(count // 4 + 1))}"
        yield VideoRecord(
            video_id=f"{2_000_000_000 + int(number)}",
            renditions=(Rendition(label="360p", url=f"https://example.org/{number}", width=640, height=360),),
            title=" ".join(words[:5]),
            description=" ".join(words[5:30]),
            tags=tuple(words[30:36]),
            comments=(Comment(author_hash=f"{number:016x}", text=" ".join(words[36:]), posted=1_300_000_000),),
            posted=1_300_000_000 + int(number),
            owner=owner,
            concepts=(concept,),
            found=(Found(query=concept, window="0-1", page=1, crawled=1_700_000_000),),
        )
