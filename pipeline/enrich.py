"""What search does not tell of a video, in three stages: its details, where it can be played, its comments.

Each stage is a job of its own over chunks of videos, and can be left out: `PLANS` says what a crawl asks.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

from pipeline.answers import (
    comments_of_list,
    hashed_authors,
    nameless_info,
    nameless_sizes,
    renditions_of_sizes,
    with_info,
)
from pipeline.crawl import commit_answers
from pipeline.flickr import Flickr
from pipeline.journal import Journal, Line, Parameters
from pipeline.records import Found, Rendition, VideoRecord
from pipeline.units import Finished, Ledger, Unit

Stage = Literal["info", "sizes", "comments"]
Plan = Literal["A", "B", "C", "D"]

PLANS: dict[Plan, str] = {
    "A": "getInfo + getSizes + comments for every video",
    "B": "getInfo + getSizes; comments only where there are any",
    "C": "getSizes; comments only where there are any; no duration, no country",
    "D": "comments only where there are any; play URLs built from the search answer, unproven",
}

STAGES: dict[Plan, tuple[Stage, ...]] = {
    "A": ("info", "sizes", "comments"),
    "B": ("info", "sizes", "comments"),
    "C": ("sizes", "comments"),
    "D": ("sizes", "comments"),
}
"""In which order they run: what is gone is not asked after."""

VIDEOS_PER_UNIT = 50
_ANSWERS_PER_PART = 10
"""A killed unit asks again for fewer than this."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A video to ask after."""

    video_id: str
    secret: str = ""
    owner: str = ""
    asked: str = ""
    """When it was asked after before, Unix seconds; "" if never. Asked again, it is another unit."""


def stage_units(videos: Iterable[Wanted]) -> Iterator[Unit]:
    """Videos in chunks that are named by their first id and a hash of all: other videos are other units."""
    stream = iter(videos)
    while chunk := list(islice(stream, VIDEOS_PER_UNIT)):
        payload = " ".join(f"{v.video_id}:{v.secret}:{v.owner}" + (f":{v.asked}" if v.asked else "") for v in chunk)
        yield Unit(f"{chunk[0].video_id}-{hashlib.sha256(payload.encode()).hexdigest()[:8]}", payload)


def _wanted(unit: Unit) -> list[Wanted]:
    return [Wanted(*word.split(":", 3)) for word in unit.payload.split()]


@dataclass(frozen=True, slots=True)
class StageWorker:
    """Asks one question about each video of a chunk; one that is gone stays, with its reason."""

    ledger: Ledger
    flickr: Flickr
    stage: Stage
    hash_key: bytes
    """Keys the hash of comment authors; kept with the root, worthless elsewhere."""

    def __call__(self, unit: Unit) -> Finished:
        """Ask after the chunk and commit it."""
        prefix = f"{self.ledger.job}/journal/{unit.name}"
        journal = Journal(
            self.ledger.store, prefix, self._ask, lines_per_part=_ANSWERS_PER_PART, is_usable=self._is_usable
        )
        for video in _wanted(unit):
            _QUESTIONS[self.stage](journal, video)
        records = stage_records(self.stage, journal.lines)
        counts = Counter(record.dropped or "ok" for record in records)
        counts["calls"] = len(journal.lines)
        commit = commit_answers(self.ledger, unit, records, journal.lines, counts)
        journal.clear()
        return Finished(unit.name, Counter(commit.counts))

    def _ask(self, method: str, parameters: Parameters) -> dict[str, Any]:
        answer = self.flickr.call(method, expect=_PARTS[self.stage], **parameters)
        if self.stage == "comments":
            return hashed_authors(answer, hash_key=self.hash_key)
        return nameless_info(answer) if self.stage == "info" else nameless_sizes(answer)

    def _is_usable(self, line: Line) -> bool:
        return line.answer is None or isinstance(line.answer.get(_PARTS[self.stage]), dict)

    def close(self) -> None:
        """Nothing is held."""


_PARTS: dict[Stage, str] = {"info": "photo", "sizes": "sizes", "comments": "comments"}
"""What an answer must hold."""


def _ask_info(journal: Journal, video: Wanted) -> None:
    # With the secret Flickr need not check who asks; without it some public videos are refused (gallery-dl#398).
    secret = {"secret": video.secret} if video.secret else {}
    journal.ask("flickr.photos.getInfo", photo_id=video.video_id, **secret)


def _ask_sizes(journal: Journal, video: Wanted) -> None:
    journal.ask("flickr.photos.getSizes", photo_id=video.video_id)


def _ask_comments(journal: Journal, video: Wanted) -> None:
    journal.ask("flickr.photos.comments.getList", photo_id=video.video_id)


_QUESTIONS: dict[Stage, Callable[[Journal, Wanted], None]] = {
    "info": _ask_info,
    "sizes": _ask_sizes,
    "comments": _ask_comments,
}


def stage_records(stage: Stage, lines: Iterable[Line]) -> list[VideoRecord]:
    """What a stage's answers say of each video: records in which only that is filled in."""
    return [_READERS[stage](line) for line in lines]


def _info(line: Line) -> VideoRecord:
    at = (Found(query="", window="", page=0, crawled=line.at),)  # for what may pass is asked again later
    if line.answer is None:
        return replace(_refused(line), found=at)
    return with_info(VideoRecord(video_id=str(line.parameters["photo_id"]), found=at), line.answer)


def _sizes(line: Line) -> VideoRecord:
    if line.answer is None:
        return _refused(line)
    renditions = renditions_of_sizes(line.answer)
    dropped = None if renditions else "no_video_url"
    return VideoRecord(video_id=str(line.parameters["photo_id"]), renditions=renditions, dropped=dropped)


def _comments(line: Line) -> VideoRecord:
    if line.answer is None:
        return _refused(line)
    return VideoRecord(video_id=str(line.parameters["photo_id"]), comments=comments_of_list(line.answer))


def _refused(line: Line) -> VideoRecord:
    reason = line.refusal[0] if line.refusal else None
    return VideoRecord(video_id=str(line.parameters["photo_id"]), dropped=reason)


_READERS: dict[Stage, Callable[[Line], VideoRecord]] = {"info": _info, "sizes": _sizes, "comments": _comments}

_PLAYABLE = ("360p", "288p", "700", "site", "720p")
"""Play URLs that are tried in plan D, the best to train from first."""


@dataclass(frozen=True, slots=True)
class PlayWorker:
    """Builds the play URLs of a chunk without asking: Flickr answers which of them exist when they are fetched."""

    ledger: Ledger
    photos_url: str

    def __call__(self, unit: Unit) -> Finished:
        """Commit the chunk's play URLs."""
        records = [self._record(video) for video in _wanted(unit)]
        commit = commit_answers(self.ledger, unit, records, [], Counter(record.dropped or "ok" for record in records))
        return Finished(unit.name, Counter(commit.counts))

    def _record(self, video: Wanted) -> VideoRecord:
        if not video.owner or not video.secret:
            return VideoRecord(video_id=video.video_id, dropped="no_video_url")
        address = f"{self.photos_url}{video.owner}/{video.video_id}/play"
        renditions = tuple(Rendition(label=word, url=f"{address}/{word}/{video.secret}/") for word in _PLAYABLE)
        return VideoRecord(video_id=video.video_id, renditions=renditions)

    def close(self) -> None:
        """Nothing is held."""
