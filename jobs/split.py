"""Nested training splits, a validation split, and their class list.

Reads the shards' Parquet; writes splits/ (lists in the format of NoisyActions2M's release, and card.json with counts
and the proofs that splits nest and that validation is disjoint). Costs seconds per 100,000 videos.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jobs.progress import say, show_table
from pipeline.errors import UserError
from pipeline.shards import read_rows
from pipeline.splits import COLUMNS, SplitSettings, make_splits, write_splits
from pipeline.store import open_store


@dataclass(frozen=True, kw_only=True)
class Config:
    """How videos are chosen."""

    root: Annotated[str, tyro.conf.Positional]
    """Folder or s3://bucket/prefix with shards."""
    settings: SplitSettings = field(default_factory=SplitSettings)


def run(config: Config) -> int:
    """Rank, cut, write."""
    store = open_store(config.root)
    rows = read_rows(store, columns=COLUMNS)
    if not rows.num_rows:
        raise UserError(f"{store.url} holds no shards: run `noisyactions build` on it first")
    splits = make_splits(rows.to_pylist(), settings=config.settings)
    write_splits(store, splits)
    sizes = [(name, len(videos), _labels(videos.values())) for name, videos in splits.train.items()]
    sizes.append(("val", len(splits.val), _labels(splits.val.values())))
    show_table("splits", ("name", "videos", "labels per video"), sizes)
    say(f"{len(splits.classes):,} classes; the lists and their card are in {store.url}/splits")
    return 0


def _labels(lists: Iterable[tuple[int, ...]]) -> str:
    counts = [len(labels) for labels in lists]
    return f"{sum(counts) / max(1, len(counts)):.2f}"
