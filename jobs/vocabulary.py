"""Action names -> concepts and search queries.

Reads label files in the official formats (or a plain list of names); writes vocabulary/{concepts.parquet,
queries.parquet,merges.csv} on the root. Costs seconds; asks nothing of the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jobs.progress import say, show_table
from pipeline.errors import UserError
from pipeline.labelsets import FORMATS, ClassName, kinetics400, read_labelset
from pipeline.store import open_store
from pipeline.vocabulary import concept_queries, merge_classes, sentence_queries, write_vocabulary


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which label sets make the vocabulary."""

    root: Annotated[str, tyro.conf.Positional]
    """Folder or s3://bucket/prefix to write to."""
    labels: tuple[str, ...] = ()
    """Label files as FORMAT:PATH, for example ucf101:classInd.txt; `plain` is one name per line."""
    names: tuple[str, ...] = ()
    """Action names given right here."""
    kinetics400: bool = False
    """Add Kinetics-400's names, which come with torchvision."""
    captions: Path | None = None
    """Captions, one per line, for long-sentence queries (paper, A.1)."""
    search_text: Literal["lemma", "original", "both"] = "lemma"
    """What is searched for; the paper's is the lemma."""


def run(config: Config) -> int:
    """Write the vocabulary and tell what was merged."""
    names = _class_names(config)
    store = open_store(config.root, create=True)
    concepts = merge_classes(names, search_text=config.search_text)
    queries = concept_queries(concepts)
    if config.captions is not None:
        queries += sentence_queries(_captions(config.captions), search_text=config.search_text)
    write_vocabulary(store, concepts=concepts, queries=queries)
    merged = [c for c in concepts if len({s.raw for s in c.sources}) > 1]
    rows = [(c.concept, ", ".join(sorted({s.raw for s in c.sources}))) for c in merged[:10]]
    if rows:
        show_table(f"{len(merged)} concepts stand for several names; the first", ("concept", "names"), rows)
    say(f"{len(names):,} names -> {len(concepts):,} concepts -> {len(queries):,} queries in {store.url}/vocabulary")
    return 0


def _class_names(config: Config) -> list[ClassName]:
    found = [ClassName("names", name) for name in config.names]
    for label in config.labels:
        kind, colon, path = label.partition(":")
        if not colon:
            raise UserError(f"--labels {label!r}: write FORMAT:PATH, FORMAT being one of {', '.join(FORMATS)}")
        found += read_labelset(Path(path), format=kind)
    if config.kinetics400:
        found += kinetics400()
    if not found:
        raise UserError("no action names: give --labels FORMAT:PATH, --names or --kinetics400")
    return found


def _captions(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"captions {path} cannot be read: {error}") from error
