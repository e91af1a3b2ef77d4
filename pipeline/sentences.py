"""Long-sentence queries from captions (paper, section 3 and A.1): which of millions of sentences are asked for.

The choice is a hash of the sentence: the same sentences for the same seed whatever the order of the files, another
file replaces only those that it beats, and a larger number only adds.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from pipeline.errors import UserError
from pipeline.vocabulary import Query, SearchText, lemmatise, normalise, search_texts


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """Which sentences become queries."""

    min_words: int = 5
    """Shorter ones are as vague as the name of a class."""
    max_words: int = 20
    """Longer ones match nothing: a search wants every word."""
    max_sentences: int | None = 10_000
    """How many are kept, by hash; None keeps all, in memory."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.min_words <= self.max_words:
            raise UserError(
                f"sentences of {self.min_words} to {self.max_words} words: need 1 <= min_words <= max_words"
            )
        if self.max_sentences is not None and self.max_sentences < 1:
            raise UserError(f"max_sentences {self.max_sentences} must be at least 1, or None for all")


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """The sentences that were kept, and what became of the others."""

    sentences: dict[str, str]
    """Lemmatised sentence -> the sentence in plain words, in the order of the hash."""
    outcomes: Counter[str] = field(default_factory=Counter)
    """`kept`, `repeated`, `too_short`, `too_long`, `not_chosen`; they add up to the sentences read.

    A sentence that comes again after it was not chosen counts as not chosen again.
    """


def _rank(lemmas: str, seed: int) -> int:
    digest = hashlib.blake2b(lemmas.encode(), digest_size=8, key=str(seed).encode()[:64])
    return int.from_bytes(digest.digest(), "big")


def choose_sentences(captions: Iterable[str], choice: Choice) -> Chosen:
    """One pass over any number of captions that holds only the kept ones."""
    kept: dict[str, str] = {}
    worst: list[tuple[int, str]] = []  # a heap, the highest rank first
    outcomes: Counter[str] = Counter()
    for caption in captions:
        plain = normalise(caption)
        words = plain.count(" ") + 1 if plain else 0
        if not choice.min_words <= words <= choice.max_words:
            outcomes["too_short" if words < choice.min_words else "too_long"] += 1
            continue
        lemmas = lemmatise(plain)
        if lemmas in kept:
            kept[lemmas] = min(kept[lemmas], plain)  # not the first: files may come in any order
            outcomes["repeated"] += 1
            continue
        rank = _rank(lemmas, choice.seed)
        if choice.max_sentences is not None and len(kept) == choice.max_sentences:
            outcomes["not_chosen"] += 1
            if rank >= -worst[0][0]:
                continue
            del kept[heapq.heappop(worst)[1]]
        heapq.heappush(worst, (-rank, lemmas))
        kept[lemmas] = plain
    outcomes["kept"] = len(kept)
    ordered = sorted(kept, key=lambda lemmas: _rank(lemmas, choice.seed))
    return Chosen(sentences={lemmas: kept[lemmas] for lemmas in ordered}, outcomes=outcomes)


def sentence_queries(chosen: Chosen, *, search_text: SearchText = "lemma") -> list[Query]:
    """The queries of the kept sentences, in their order."""
    return [
        Query(text=text, concept=lemmas, kind="sentence")
        for lemmas, plain in chosen.sentences.items()
        for text in search_texts([plain], lemmas, search_text=search_text)
    ]
