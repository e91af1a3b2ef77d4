"""Label sets -> concepts and queries: normalise, lemmatise, merge, with provenance (paper, section 3 and A.1).

Two class names are one concept if, and only if, their lemmas are the same words in the same order: `HorseRiding` and
`horse riding` are merged, `ride_horse` is not. All is offline: lemminflect ships its dictionary.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
from lemminflect import getLemma

from pipeline.errors import UserError
from pipeline.labelsets import ClassName
from pipeline.store import Store

SearchText = Literal["lemma", "original", "both"]
"""What is typed into the search: the paper's lemmas, the names as written (normalised), or both."""

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_NOT_A_WORD = re.compile(r"[^\w']|_")

_GUARDED = {
    "leaves": "leaf", "does": "do", "media": "media", "dice": "dice", "pants": "pants", "glasses": "glasses",
    "evening": "evening", "wedding": "wedding", "bedding": "bedding", "clothing": "clothing", "us": "us",
    "moped": "moped", "led": "led", "might": "might", "graffiti": "graffiti", "vegas": "vegas", "united": "united",
}  # fmt: skip
"""Words whose dictionary lemma is another word (leaves -> leave, does -> doe, evening -> even)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Concept:
    """One action, whatever its datasets call it."""

    concept: str
    """The lemma key."""
    query_texts: tuple[str, ...]
    """What to search for, sorted."""
    sources: tuple[ClassName, ...]
    """The names that were merged into it, sorted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """One text to search for."""

    text: str
    concept: str
    """The concept it stands for; of a sentence, the lemmatised sentence."""
    kind: Literal["concept", "sentence"]


def normalise(raw: str) -> str:
    """A name as plain lower-case words: `HorseRiding`, `horse_riding` and `Horse-riding` are all `horse riding`.

    CamelCase is split only in names without spaces, so that `playing DVDs` stays whole. Brackets are removed and their
    words kept: Something-Something's `[something]` in v2 is `something` in v1.
    """
    text = unicodedata.normalize("NFKC", raw).replace("\N{RIGHT SINGLE QUOTATION MARK}", "'").strip()
    if not re.search(r"\s", text):
        text = _CAMEL.sub(" ", text)
    words = (word.strip("'") for word in _NOT_A_WORD.sub(" ", text.lower()).split())
    return " ".join(word for word in words if word)


@lru_cache(maxsize=1 << 16)
def lemma_of(word: str) -> str:
    """A lower-case word's lemma: a verb's if it ends in -ing or -ed, else a noun's, else a verb's, else itself."""
    if word in _GUARDED or not word.isascii() or not word.isalpha():
        return _GUARDED.get(word, word)
    order = ("VERB",) if word.endswith(("ing", "ed")) else ("NOUN", "VERB")
    # Only dictionary words: the guesses for others make `tenni` of tennis and `wed` of wedding.
    for part in order:
        lemmas = getLemma(word, upos=part, lemmatize_oov=False)
        if lemmas:
            return word if word in lemmas else str(lemmas[0])
    if re.search(r"...[^siu]s$", word):  # an unknown plural: situps, pullups
        return str(getLemma(word, upos="NOUN")[0])
    return word


def lemmatise(text: str) -> str:
    """The lemma key of a name or a sentence: each word of `normalise(text)` as its lemma."""
    return " ".join(map(lemma_of, normalise(text).split()))


def _texts(raws: Iterable[str], lemma: str, search_text: SearchText) -> tuple[str, ...]:
    originals = {normalise(raw) for raw in raws}
    chosen = {"lemma": {lemma}, "original": originals, "both": originals | {lemma}}
    return tuple(sorted(chosen[search_text]))


def merge_classes(names: Iterable[ClassName], *, search_text: SearchText = "lemma") -> list[Concept]:
    """One concept per lemma key, sorted by it, with every name it came from.

    Raises:
        UserError: a name has no letter or digit in it.
    """
    sources: dict[str, set[ClassName]] = {}
    for name in names:
        key = lemmatise(name.raw)
        if not key:
            raise UserError(f"class name {name.raw!r} of {name.dataset} has no word in it: remove it from the list")
        sources.setdefault(key, set()).add(name)
    return [
        Concept(
            concept=key,
            query_texts=_texts((name.raw for name in sources[key]), key, search_text),
            sources=tuple(sorted(sources[key], key=lambda name: (name.dataset, name.raw))),
        )
        for key in sorted(sources)
    ]


def concept_queries(concepts: Iterable[Concept]) -> list[Query]:
    """A query per search text of each concept; a text that two concepts share is asked for each."""
    return [Query(text=text, concept=c.concept, kind="concept") for c in concepts for text in c.query_texts]


def sentence_queries(
    captions: Iterable[str], *, min_words: int = 5, max_words: int = 20, search_text: SearchText = "lemma"
) -> list[Query]:
    """Long-sentence queries from caption lines, one per distinct lemmatised sentence, in order of first appearance.

    Captions with fewer words are as vague as a class name, longer ones match nothing; both are left out.
    """
    if not 1 <= min_words <= max_words:
        raise UserError(f"sentences of {min_words} to {max_words} words: need 1 <= min_words <= max_words")
    found: dict[str, str] = {}
    for caption in captions:
        if min_words <= len(normalise(caption).split()) <= max_words:
            found.setdefault(lemmatise(caption), caption)
    return [
        Query(text=text, concept=key, kind="sentence")
        for key, caption in found.items()
        for text in _texts([caption], key, search_text)
    ]


_CONCEPTS = pa.schema([
    ("concept", pa.string()), ("query_texts", pa.list_(pa.string())),
    ("sources", pa.list_(pa.struct([("dataset", pa.string()), ("raw", pa.string())]))),
])  # fmt: skip
_QUERIES = pa.schema([("text", pa.string()), ("concept", pa.string()), ("kind", pa.string())])


def merges_csv(concepts: Iterable[Concept]) -> str:
    """The merges for people to review: `concept,dataset,raw`, a row per name of each concept with several names."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["concept", "dataset", "raw"])
    for concept in concepts:
        if len(concept.sources) > 1:
            writer.writerows([concept.concept, name.dataset, name.raw] for name in concept.sources)
    return out.getvalue()


def _write_table(store: Store, key: str, rows: list[dict[str, Any]], schema: pa.Schema) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer, compression="zstd")
    store.write(key, buffer.getvalue())


def _read_table(store: Store, key: str) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pq.read_table(io.BytesIO(store.read(key))).to_pylist()
    except FileNotFoundError as error:
        raise UserError(f"{store.url} has no {key}: run the verb 'vocabulary' first") from error
    return rows


def write_vocabulary(store: Store, *, concepts: Sequence[Concept], queries: Sequence[Query]) -> None:
    """Write vocabulary/{concepts.parquet,merges.csv,queries.parquet}, the queries last: a crawl reads only them."""
    rows = [
        {
            "concept": c.concept,
            "query_texts": list(c.query_texts),
            "sources": [{"dataset": name.dataset, "raw": name.raw} for name in c.sources],
        }
        for c in concepts
    ]
    _write_table(store, "vocabulary/concepts.parquet", rows, _CONCEPTS)
    store.write("vocabulary/merges.csv", merges_csv(concepts).encode())
    asked = [{"text": q.text, "concept": q.concept, "kind": q.kind} for q in queries]
    _write_table(store, "vocabulary/queries.parquet", asked, _QUERIES)


def read_concepts(store: Store) -> list[Concept]:
    """The concepts of a root, in order.

    Raises:
        UserError: the root has no vocabulary.
    """
    return [
        Concept(
            concept=row["concept"],
            query_texts=tuple(row["query_texts"]),
            sources=tuple(ClassName(**name) for name in row["sources"]),
        )
        for row in _read_table(store, "vocabulary/concepts.parquet")
    ]


def read_queries(store: Store) -> list[Query]:
    """The queries of a root, in order.

    Raises:
        UserError: the root has no vocabulary.
    """
    return [Query(**row) for row in _read_table(store, "vocabulary/queries.parquet")]
