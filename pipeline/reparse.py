"""Records made again from the raw answers that were kept, without asking anybody: after a change of what we read."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from pipeline.crawl import put, search_records, search_unit
from pipeline.enrich import Stage, stage_records
from pipeline.errors import UserError
from pipeline.journal import Line, read_lines
from pipeline.records import VideoRecord, to_parquet
from pipeline.units import Commit, Ledger, Output
from pipeline.vocabulary import Query
from pipeline.windows import Window

Read = Callable[[list[Line]], list[VideoRecord]]


def reparse_search(ledger: Ledger, queries: Mapping[str, Query]) -> Iterator[bool]:
    """Whether each unit of a search could be read again; not one whose query is no longer in the vocabulary."""
    for commit in list(ledger.commits()):
        query = queries.get(commit.unit.partition(".")[0])
        if query is not None:
            _reparse(ledger, commit, lambda lines, query=query: search_records(lines, query, counts=Counter()))  # type: ignore[misc]  # mypy and defaults of lambdas
        yield query is not None


def reparse_stage(ledger: Ledger, stage: Stage) -> Iterator[bool]:
    """Read each unit of a stage again."""
    for commit in list(ledger.commits()):
        _reparse(ledger, commit, lambda lines: stage_records(stage, lines))
        yield True


def by_unit_stem(queries: list[Query]) -> dict[str, Query]:
    """Queries by the part that the names of all their units begin with."""
    anywhere = Window(start=0, end=0)
    return {search_unit(query, anywhere).name.partition(".")[0]: query for query in queries}


def _reparse(ledger: Ledger, commit: Commit, read: Read) -> None:
    raw = [output for output in commit.outputs if output.key.endswith(".jsonl.zst")]
    if not raw:
        return  # play URLs that were built without asking
    lines = [line for output in raw for line in _lines(ledger, commit, output)]
    table = put(ledger, f"records/{commit.unit}", "parquet", to_parquet(read(lines)))
    old = {output.key for output in commit.outputs} - {output.key for output in raw} - {table.key}
    ledger.amend(replace(commit, outputs=(*raw, table)))
    for key in old:
        ledger.store.delete(key)


def _lines(ledger: Ledger, commit: Commit, output: Output) -> list[Line]:
    """The raw answers that a commit names.

    Raises:
        UserError: they are gone, or not what was committed.
    """
    try:
        data = ledger.store.read(output.key)
        if hashlib.sha256(data).hexdigest() == output.sha256:
            return list(read_lines(data))
        trouble = "is damaged"
    except FileNotFoundError:
        trouble = "is gone"
    except ValueError as error:
        trouble = f"cannot be read ({error})"
    raise UserError(
        f"{ledger.store.url}/{output.key} {trouble}: bring it back, or delete {ledger.job}/commits/{commit.unit}.json "
        "and crawl again without --reparse, which asks anew"
    )
