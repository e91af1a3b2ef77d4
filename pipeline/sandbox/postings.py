"""Postings: which videos of a world match words, tags and filters; the truth that search then is odd about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.sandbox.texts import normalised_tag, stem, words_of
from pipeline.sandbox.videos import SandboxVideo

Places = npt.NDArray[np.int64]
"""Places of videos in upload order, ascending unless said otherwise."""
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """What is searched for."""

    text: str = ""
    tags: tuple[str, ...] = ()
    all_tags: bool = False
    media: str = "all"
    """`all`, `photos` or `videos`."""
    since: int | None = None
    """Earliest upload, Unix seconds, included; `until` the latest, included too."""
    until: int | None = None
    licenses: frozenset[int] | None = None
    owner: str | None = None
    has_geo: bool = False
    sort: str = "date-posted-desc"
    page: int = 1
    per_page: int = 100
    shift: int = 0
    """Rows that slipped in before this page since the last call; negative ones vanished."""


class Postings:
    """Words and tags of a world's videos. Built once; a query costs as much as the words' own postings."""

    def __init__(self, world: Iterable[SandboxVideo], *, stemming: bool) -> None:
        self.videos = sorted(world, key=lambda video: (video.posted, video.number))
        self.posted = np.array([video.posted for video in self.videos], np.int64)
        self.is_video = self.mask(lambda video: video.media == "video")
        self.is_safe = self.mask(lambda video: video.safety_level == 0)
        self._located = self.mask(lambda video: video.place is not None)
        self._licenses = np.array([video.license for video in self.videos], np.int64)
        self._ranks: dict[str, npt.NDArray[np.int64]] = {}
        self._stemming = stemming
        self._matches: dict[str, Places] = {}
        self._words: dict[str, set[int]] = defaultdict(set)
        for place, video in enumerate(self.videos):
            for word in self._words_of(video):
                self._words[word].add(place)

    def mask(self, holds: Callable[[SandboxVideo], bool]) -> Mask:
        """Of which videos, by place, something holds."""
        return np.array([holds(video) for video in self.videos], np.bool_)

    def _root(self, word: str) -> str:
        return stem(word) if self._stemming else word

    def _words_of(self, video: SandboxVideo) -> set[str]:
        texts = video.texts
        words = words_of(" ".join((texts.title, texts.description, *texts.tags)))
        return {self._root(word) for word in (*words, *map(normalised_tag, texts.tags))}

    def matching(self, text: str) -> Places:
        """Videos with all the words of `text` or with all of it as one tag, and with none of its `-words`."""
        if text not in self._matches:
            wanted = [term for term in text.lower().split() if not term.startswith("-")]
            words = [self._root(word) for term in wanted for word in words_of(term)]
            sets = sorted((self._words.get(word, set()) for word in words), key=len)
            found = set.intersection(*sets) if sets else set(range(len(self.videos))) if not wanted else set()
            if words:
                found = found | self._words.get(self._root(normalised_tag("".join(wanted))), set())
            for term in set(text.lower().split()) - set(wanted):
                for word in words_of(term):
                    found = found - self._words.get(self._root(word), set())
            self._matches[text] = np.array(sorted(found), np.int64)
        return self._matches[text]

    def filtered(self, query: Query, *, since: float | None, until: float | None) -> Places:
        """What matches the query, uploaded from `since` to `until`, both included, whatever the query's own dates."""
        places = self.matching(query.text)
        start = 0 if since is None else np.searchsorted(places, np.searchsorted(self.posted, since))
        stop = len(places) if until is None else np.searchsorted(places, np.searchsorted(self.posted, until, "right"))
        places = places[start:stop]
        # A photo slips through the filter on videos, as it does in the world.
        if query.media == "photos":
            places = places[~self.is_video[places]]
        if query.licenses is not None:
            places = places[np.isin(self._licenses[places], list(query.licenses))]
        if query.has_geo:
            places = places[self._located[places]]
        if query.owner is not None or query.tags:
            places = places[[self._passes(self.videos[place], query) for place in places]] if len(places) else places
        return places

    def _passes(self, video: SandboxVideo, query: Query) -> bool:
        if query.owner is not None and video.owner.nsid != query.owner:
            return False
        have = set(map(normalised_tag, video.texts.tags))
        hits = [tag in have for tag in map(normalised_tag, query.tags)]
        return (all(hits) if query.all_tags else any(hits)) if hits else True

    def ordered(self, places: Places, *, by: Literal["posted", "taken", "views"]) -> Places:
        """The places by rising date or number of views; those that tie in upload order."""
        if by == "posted":
            return places
        if by not in self._ranks:
            values = [(v.taken or "") if by == "taken" else v.views for v in self.videos]
            self._ranks[by] = np.unique(np.array(values), return_inverse=True)[1].astype(np.int64)
        return places[np.argsort(self._ranks[by][places], kind="stable")]
