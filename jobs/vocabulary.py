"""Action names and captions -> concepts and search queries.

Reads official class lists and caption files as they are downloaded (unpacked, UTF-8) and writes
vocabulary/{concepts.parquet,queries.parquet,merges.csv} on the root; read merges.csv before a long crawl. Names are
merged where their lemmas are equal; each keeps its dataset. Costs seconds, for millions of captions minutes; asks
nothing of the network.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jobs.progress import say, show_outcomes, show_table
from pipeline import captions, labelsets
from pipeline.errors import UserError
from pipeline.labelsets import ClassName, incomplete, kinetics400, read_labelset
from pipeline.sentences import Choice, choose_sentences, sentence_queries
from pipeline.store import open_store
from pipeline.textfiles import Format
from pipeline.vocabulary import Concept, concept_queries, merge_classes, tier, write_vocabulary


def _teach(formats: Mapping[str, Format]) -> str:
    width = max(map(len, formats))
    return "\n".join(f"  {name:<{width}}  {kind.file}" for name, kind in formats.items())


__doc__ = f"""{__doc__}
Formats of --labels:
{_teach(labelsets.FORMATS)}

Formats of --captions:
{_teach(captions.FORMATS)}
"""

_SHOWN = 10

Files = Annotated[tuple[tuple[str, ...], ...], tyro.conf.UseAppendAction]
"""The flag takes several values and may be repeated: nothing given is lost either way."""


REPEATABLE = ("--labels", "--captions")
"""Options that may be given several times."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which label sets make the vocabulary."""

    root: Annotated[str, tyro.conf.Positional]
    """Folder or s3://bucket/prefix to write to."""
    labels: Files = ()
    """Class lists as FORMAT:PATH, for example ucf101:classInd.txt; FORMAT=DATASET:PATH gives it another name."""
    names: tuple[str, ...] = ()
    """Action names given right here."""
    kinetics400: bool = False
    """Add Kinetics-400's names, which come with torchvision."""
    captions: Files = ()
    """Captions as FORMAT:PATH, for long-sentence queries (paper, A.1)."""
    min_words: int = 5
    """Sentences with fewer words are left out."""
    max_words: int = 20
    """Sentences with more words are left out."""
    max_sentences: int | None = 10_000
    """How many sentences become queries, chosen by a hash of each; None takes all, and holds them in memory."""
    seed: int = 0
    """Of the choice of sentences."""
    search_text: Literal["lemma", "original", "both"] = "lemma"
    """What is searched for; the paper's is the lemma."""
    merge_order: bool = False
    """Also merge names of the same words in another order (`ride horse`, `horse riding`); review them in merges.csv."""
    keep_apart: tuple[str, ...] = ()
    """Concepts that --merge-order leaves alone, as merges.csv writes them."""


def run(config: Config) -> int:
    """Write the vocabulary and tell what was merged."""
    choice = Choice(
        min_words=config.min_words, max_words=config.max_words, max_sentences=config.max_sentences, seed=config.seed
    )
    names = _class_names(config)
    sources = [_split(text, "--captions", captions.FORMATS) for text in chain.from_iterable(config.captions)]
    concepts = []
    if names or not sources:
        concepts = merge_classes(
            names, search_text=config.search_text, merge_order=config.merge_order, keep_apart=config.keep_apart
        )
    chosen = choose_sentences(_sentences(sources), choice)
    if sources and not chosen.sentences:
        files = ", ".join(str(path) for _, _, path in sources)
        words = f"{config.min_words} to {config.max_words} words"
        raise UserError(f"no sentence of {words} in {files}: set --min-words and --max-words")
    queries = concept_queries(concepts) + sentence_queries(chosen, search_text=config.search_text)
    store = open_store(config.root, create=True)
    write_vocabulary(store, concepts=concepts, queries=queries)
    _show_merges(concepts)
    if sources:
        show_outcomes("Sentences", chosen.outcomes)
    say(
        f"{len(names):,} names -> {len(concepts):,} concepts, {len(chosen.sentences):,} sentences -> "
        f"{len(queries):,} queries in {store.url}/vocabulary"
    )
    return 0


def _split(text: str, flag: str, formats: Mapping[str, Format]) -> tuple[str, str | None, Path]:
    """FORMAT:PATH or FORMAT=DATASET:PATH."""
    kind, colon, path = text.partition(":")
    format_name, equals, dataset = kind.partition("=")
    if not colon or not path or (equals and not dataset) or format_name not in formats:
        raise UserError(f"{flag} {text!r}: write FORMAT:PATH, FORMAT being one of {', '.join(formats)}")
    return format_name, dataset or None, Path(path)


def _class_names(config: Config) -> list[ClassName]:
    found = [ClassName("names", name) for name in config.names]
    for label in chain.from_iterable(config.labels):
        kind, dataset, path = _split(label, "--labels", labelsets.FORMATS)
        names = read_labelset(path, format=kind, dataset=dataset)
        if (odd := incomplete(len(names), format=kind)) is not None:
            say(f"note: {path}: {odd}")
        found += names
    if config.kinetics400:
        found += kinetics400()
    if not found and not config.captions:
        raise UserError("no action names: give --labels FORMAT:PATH, --names, --kinetics400 or --captions FORMAT:PATH")
    return found


def _sentences(sources: Sequence[tuple[str, str | None, Path]]) -> Iterator[str]:
    for kind, _, path in sources:
        yield from captions.read_captions(path, format=kind)


def _show_merges(concepts: Sequence[Concept]) -> None:
    """The first merges of each tier."""
    merged = [c for c in concepts if len({s.raw for s in c.sources}) > 1]
    tiers = {c.concept: "order" if any(tier(c, s) == "order" for s in c.sources) else "lemma" for c in merged}
    for name in ("lemma", "order"):
        rows = [(c.concept, ", ".join(sorted({s.raw for s in c.sources}))) for c in merged if tiers[c.concept] == name]
        if rows:
            show_table(f"{len(rows):,} concepts merged by {name}; the first", ("concept", "names"), rows[:_SHOWN])
