"""Label sets -> concepts and queries: normalise, lemmatise, merge, with provenance (paper, section 3 and A.1).

Two class names are one concept if their lemmas are the same words in the same order: `HorseRiding` and `horse riding`
are merged, `ride_horse` is not, unless a second tier is asked for (merge_order). All is offline: lemminflect ships its
dictionary.
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
    "leaves": "leaf", "does": "do", "games": "game", "things": "thing", "left": "left", "ground": "ground",
    **{word: word for word in (
        "lost", "media", "dice", "pants", "glasses", "sunglasses", "us", "moped", "led", "might", "graffiti", "vegas",
        "united", "terraria", "evening", "wedding", "bedding", "clothing",
        "angling", "bowling", "boxing", "carting", "coating", "engineering", "fencing", "flooring", "icing", "lighting",
        "parking", "reining", "training",
    )},
}  # fmt: skip
"""Words whose dictionary lemma is another word (leaves -> leave, evening -> even), and things named by an -ing form
that is not the act of the bare word: `bowling` is no bowl, `angling` no angle, `parking` no park."""


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


def search_texts(raws: Iterable[str], lemmas: str, *, search_text: SearchText) -> tuple[str, ...]:
    """What to search for, sorted."""
    originals = {normalise(raw) for raw in raws}
    chosen = {"lemma": {lemmas}, "original": originals, "both": originals | {lemmas}}
    return tuple(sorted(chosen[search_text]))


def merge_classes(
    names: Iterable[ClassName],
    *,
    search_text: SearchText = "lemma",
    merge_order: bool = False,
    keep_apart: Iterable[str] = (),
) -> list[Concept]:
    """One concept per lemma key, sorted by it, with every name it came from.

    Args:
        names: class names of any datasets.
        search_text: what its queries are.
        merge_order: also merge keys of the same words in another order (`ride horse`, `horse ride`).
        keep_apart: keys that merge_order leaves alone.

    Raises:
        UserError: there are no names, a name has no letter or digit in it, or keep_apart has what is no key.
    """
    sources: dict[str, set[ClassName]] = {}
    for name in names:
        key = lemmatise(name.raw)
        if not key:
            raise UserError(f"class name {name.raw!r} of {name.dataset} has no word in it: remove it from the list")
        sources.setdefault(key, set()).add(name)
    if not sources:
        raise UserError("no class names: an empty vocabulary has nothing to search for")
    if unknown := sorted(set(keep_apart) - set(sources)):
        raise UserError(f"keep_apart {unknown[0]!r} is no concept: write it as in the column concept of merges.csv")
    if merge_order:
        sources = _merge_order(sources, set(keep_apart))
    return [
        Concept(
            concept=key,
            query_texts=search_texts((name.raw for name in sources[key]), key, search_text=search_text),
            sources=tuple(sorted(sources[key], key=lambda name: (name.dataset, name.raw))),
        )
        for key in sorted(sources)
    ]


_ARTICLES = frozenset({"a", "an", "the"})
_ORDER_MATTERS = frozenset({
    "left", "right", "something", "from", "to", "into", "onto", "on", "in", "off", "over", "under", "behind", "with",
    "of",
})  # fmt: skip
"""Words that give the others their place: `from left to right` is not `from right to left`."""


def _merge_order(sources: dict[str, set[ClassName]], keep_apart: set[str]) -> dict[str, set[ClassName]]:
    """The second tier: keys of the same words, articles apart, under the key that most names have.

    Names in another order are merged only where one is written with a verb's -ing (`riding camel`, `camel ride`): nouns
    put together (`dog sled`, `sled dog`) are two things.
    """
    bags: dict[tuple[str, ...], list[str]] = {}
    for key in sources:
        words = key.split()
        fixed = key in keep_apart or not _ORDER_MATTERS.isdisjoint(words) or _is_template(sources[key])
        bag = ("", key) if fixed else tuple(sorted(word for word in words if word not in _ARTICLES))
        bags.setdefault(bag or ("", key), []).append(key)
    merged: dict[str, set[ClassName]] = {}
    for keys in bags.values():
        groups = [keys]
        if not any(_has_verb_form(name.raw) for key in keys for name in sources[key]):
            groups = list(_same_order(keys).values())
        for group in groups:
            first = min(group, key=lambda key: (-len(sources[key]), len(key.split()), key))
            merged[first] = set().union(*(sources[key] for key in group))
    return merged


def _is_template(names: set[ClassName]) -> bool:
    return any(name.dataset.startswith("something_something") for name in names)


def _has_verb_form(raw: str) -> bool:
    return any(word.endswith("ing") and lemma_of(word) != word for word in normalise(raw).split())


def _same_order(keys: list[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key in keys:
        groups.setdefault(" ".join(word for word in key.split() if word not in _ARTICLES), []).append(key)
    return groups


def concept_queries(concepts: Iterable[Concept]) -> list[Query]:
    """A query per search text of each concept; a text that two concepts share is asked for each."""
    return [Query(text=text, concept=c.concept, kind="concept") for c in concepts for text in c.query_texts]


_CONCEPTS = pa.schema([
    ("concept", pa.string()), ("query_texts", pa.list_(pa.string())),
    ("sources", pa.list_(pa.struct([("dataset", pa.string()), ("raw", pa.string())]))),
])  # fmt: skip
_QUERIES = pa.schema([("text", pa.string()), ("concept", pa.string()), ("kind", pa.string())])


def merges_csv(concepts: Iterable[Concept]) -> str:
    """The merges for people to review: `concept,dataset,raw,tier`, a row per name of each concept with several names.

    The tier is `lemma` where the name's own lemmas are the concept, `order` where merge_order brought it in.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["concept", "dataset", "raw", "tier"])
    for concept in concepts:
        if len(concept.sources) > 1:
            writer.writerows([concept.concept, name.dataset, name.raw, tier(concept, name)] for name in concept.sources)
    return out.getvalue()


def tier(concept: Concept, name: ClassName) -> Literal["lemma", "order"]:
    """Why this name belongs to the concept."""
    return "lemma" if lemmatise(name.raw) == concept.concept else "order"


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
