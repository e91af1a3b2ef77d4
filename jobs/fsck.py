"""Check every shard of a root against its commit: sizes, checksums, tar structure, Parquet against tar.

Reads all shards once; writes nothing. Exit code 1 if anything is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from jobs.progress import say, show_outcomes, show_table
from pipeline.errors import UserError
from pipeline.fsck import check_shards
from pipeline.store import open_store


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which root to check."""

    root: Annotated[str, tyro.conf.Positional]
    """Folder or s3://bucket/prefix with shards."""


def run(config: Config) -> int:
    """Check, and tell every problem."""
    store = open_store(config.root)
    findings = check_shards(store)
    if not findings.num_shards and not findings.problems and not findings.orphans:
        raise UserError(f"{store.url} holds no shards: run `noisyactions build` on it first")
    if findings.problems:
        show_table("problems", ("shard", "what", "detail"), [(p.shard, p.what, p.detail) for p in findings.problems])
    if findings.orphans:
        say(f"{len(findings.orphans)} files that no commit lists, which readers ignore: {findings.orphans[0]} ...")
    show_outcomes("rows by outcome", findings.counts)
    say(f"{findings.num_shards:,} shards, {len(findings.problems)} problems in {store.url}")
    return 1 if findings.problems else 0
