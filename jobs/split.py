"""Nested training splits, a validation split, and their class list.

Reads the shards' Parquet; writes splits/ (lists in the format of NoisyActions2M's release, and card.json with counts
and the proofs that splits nest and that validation is disjoint). Costs seconds per 100,000 videos.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jobs.progress import say, show_table
from pipeline.errors import UserError
from pipeline.scan import shard_files
from pipeline.splits import SplitSettings, make_splits, write_splits
from pipeline.store import open_store
from pipeline.usable import read_batches


@dataclass(frozen=True, kw_only=True)
class Config:
    """How videos are chosen."""

    root: Annotated[str, tyro.conf.Positional]
    """Folder or s3://bucket/prefix with shards."""
    settings: SplitSettings = field(default_factory=SplitSettings)


def run(config: Config) -> int:
    """Rank, cut, write."""
    store = open_store(config.root)
    with shard_files(store) as files:
        if not files:
            raise UserError(f"{store.url} holds no shards: run `noisyactions build` on it first")
        splits = make_splits(read_batches(list(files)), settings=config.settings)
    write_splits(store, splits)
    lists = {**splits.train, "val": splits.val}
    sizes = [(name, len(videos), f"{videos.num_labels() / max(1, len(videos)):.2f}") for name, videos in lists.items()]
    show_table("splits", ("name", "videos", "labels per video"), sizes)
    say(f"{len(splits.classes):,} classes; the lists and their card are in {store.url}/splits")
    return 0
