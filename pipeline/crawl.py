"""A query -> time windows -> pages -> records; then what else Flickr knows of each video.

Search shows at most 4,000 results of a query and repeats itself after them, so a query's upload dates are cut into
windows until each is safely below.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import pyarrow as pa

from pipeline.answers import utc_now, video_of_search
from pipeline.errors import Dropped, UserError
from pipeline.flickr import EXTRAS, Flickr
from pipeline.records import Found, VideoRecord, from_parquet, to_parquet
from pipeline.store import Store
from pipeline.units import Finished, Ledger, Unit, output_of
from pipeline.vocabulary import Query

FLICKR_VIDEO_LAUNCH = 1207008000
"""2008-04-01, a week before Flickr took its first video; Unix seconds."""

PER_PAGE = 500
SHOWN_RESULTS = 4000
SAFE_RESULTS = 3000
"""A window with a larger total is cut: totals under-report (Openverse's experience)."""

MIN_WINDOW_SECONDS = 600

RECORDS_KEY = "records/records.parquet"


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """Upload dates from `start` to `end`, both included, as Flickr's bounds are; Unix seconds."""

    start: int
    end: int

    @property
    def name(self) -> str:
        """`start-end`."""
        return f"{self.start}-{self.end}"

    @property
    def length(self) -> int:
        """Seconds."""
        return self.end - self.start + 1

    def cut(self, pieces: int) -> list[Window]:
        """Adjacent windows that cover this one, none overlapping."""
        edges = [self.start + self.length * i // pieces for i in range(pieces + 1)]
        return [Window(start=a, end=b - 1) for a, b in pairwise(edges) if b > a]


def pieces_for(total: int, window: Window) -> int:
    """Into how many windows to cut one with `total` results; 1 is not at all."""
    if total <= SAFE_RESULTS or window.length < 2 * MIN_WINDOW_SECONDS:
        return 1
    return max(2, min(12, total // 2500, window.length // MIN_WINDOW_SECONDS))


def query_unit(query: Query, window: Window) -> Unit:
    """The unit of one query; its name is readable and unique."""
    digest = hashlib.sha256(f"{query.kind} {query.concept} {query.text}".encode()).hexdigest()[:8]
    readable = "".join(c if c.isascii() and c.isalnum() else "-" for c in query.text.lower())[:40]
    return Unit(f"{readable}-{digest}", {"query": asdict(query), "window": asdict(window)})


@dataclass(frozen=True, slots=True)
class SearchWorker:
    """Answers one query: all its windows and pages, the raw answers kept beside the records."""

    ledger: Ledger
    flickr: Flickr

    def __call__(self, unit: Unit) -> Finished:
        """Crawl the query and commit its records."""
        search = _Search(self.flickr, Query(**unit.payload["query"]), [], Counter())
        records = merge(search.window(Window(**unit.payload["window"])))
        search.counts["videos"] = len(records)
        commit_answers(self.ledger, unit, records, search.answers, search.counts)
        return Finished(unit.name, search.counts)

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True)
class _Search:
    """One query on its way, with what it was answered."""

    flickr: Flickr
    query: Query
    answers: list[dict[str, Any]]
    counts: Counter[str]

    def window(self, window: Window) -> Iterator[VideoRecord]:
        """All videos uploaded in the window, cut as often as needed."""
        first = self._page(window, 1)
        total = int(first["photos"]["total"])
        pieces = pieces_for(total, window)
        if pieces == 1:
            complete = yield from self._pages(window, first)
            if complete:
                return
            pieces = 2 if window.length >= 2 * MIN_WINDOW_SECONDS else 1  # its total under-reported
        if pieces == 1:
            self.counts["truncated_windows"] += 1
            return
        for part in window.cut(pieces):
            yield from self.window(part)

    def _pages(self, window: Window, first: dict[str, Any]) -> Generator[VideoRecord, None, bool]:
        """All pages of a window; False if there was more than Flickr shows."""
        seen: set[str] = set()
        answer, page, news, asked_again = first, 1, 0, False
        while True:
            photos, total = answer["photos"]["photo"], int(answer["photos"]["total"])
            fresh = {str(photo["id"]): photo for photo in photos if str(photo["id"]) not in seen}
            seen |= fresh.keys()
            news += len(fresh)
            yield from self._videos(fresh.values(), window, page)
            if len(fresh) < len(photos) and (page - 1) * PER_PAGE < total and not asked_again:
                asked_again = True  # rows slipped, or an older page came in place of this one
            elif not news or (page * PER_PAGE >= total and len(photos) < PER_PAGE):
                return True  # past its last page Flickr repeats itself
            elif page * PER_PAGE >= SHOWN_RESULTS:
                return False
            else:
                page, news, asked_again = page + 1, 0, False
            try:
                answer = self._page(window, page)
            except Dropped:  # a page past what Flickr shows, told as an error
                return False

    def _videos(self, photos: Iterable[Mapping[str, Any]], window: Window, page: int) -> Iterator[VideoRecord]:
        for photo in photos:
            if str(photo.get("media", "video")) != "video":
                self.counts["not_a_video"] += 1
            elif not str(photo["id"]).isdecimal():  # an id names files
                self.counts["wrong_id"] += 1
            else:
                yield self._labelled(photo, window, page)

    def _page(self, window: Window, page: int) -> dict[str, Any]:
        parameters: dict[str, str | int] = {
            "text": self.query.text,
            "media": "videos",
            "sort": "date-posted-asc",
            "per_page": PER_PAGE,
            "page": page,
            "min_upload_date": window.start,
            "max_upload_date": window.end,
            "extras": EXTRAS,
        }
        self.counts["calls"] += 1
        answer = self.flickr.call("flickr.photos.search", **parameters)
        self.answers.append({"method": "flickr.photos.search", "parameters": parameters, "answer": answer})
        return answer

    def _labelled(self, photo: Mapping[str, Any], window: Window, page: int) -> VideoRecord:
        found = Found(query=self.query.text, window=window.name, page=page, crawled=utc_now())
        record = video_of_search(photo, found)
        if self.query.kind == "concept":
            return replace(record, concepts=(self.query.concept,))
        return replace(record, sentences=(self.query.concept,))


def commit_answers(
    ledger: Ledger, unit: Unit, records: list[VideoRecord], answers: list[dict[str, Any]], counts: Mapping[str, int]
) -> None:
    """Write the raw answers (JSON lines, zstd) and the records, then commit the unit."""
    lines = b"".join(json.dumps(answer, sort_keys=True).encode() + b"\n" for answer in answers)
    files = {
        f"{ledger.job}/raw/{unit.name}.jsonl.zst": _zstd(lines),
        f"{ledger.job}/records/{unit.name}.parquet": to_parquet(records),
    }
    for key, data in files.items():
        ledger.store.write(key, data)
    ledger.commit(unit, counts, tuple(output_of(key, data) for key, data in files.items()))


def _zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def merge(records: Iterable[VideoRecord]) -> list[VideoRecord]:
    """One record per video, sorted by id; one that several queries found carries all their labels."""
    merged: dict[str, VideoRecord] = {}
    for record in records:
        known = merged.get(record.video_id)
        merged[record.video_id] = record if known is None else _united(known, record)
    return [merged[video_id] for video_id in sorted(merged)]


def _united(one: VideoRecord, other: VideoRecord) -> VideoRecord:
    return replace(
        one,
        concepts=tuple(sorted({*one.concepts, *other.concepts})),
        sentences=tuple(sorted({*one.sentences, *other.sentences})),
        found=tuple(sorted({*one.found, *other.found}, key=lambda f: (f.query, f.window, f.page))),
    )


def relabelled(detailed: Iterable[VideoRecord], found: Iterable[VideoRecord]) -> list[VideoRecord]:
    """The detailed records of what was found, labelled with all queries that found them by now; sorted by id."""
    wanted = {record.video_id: record for record in found}
    pairs = ((r, wanted[r.video_id]) for r in merge(detailed) if r.video_id in wanted)
    return [replace(r, concepts=f.concepts, sentences=f.sentences, found=f.found) for r, f in pairs]


def committed_records(ledger: Ledger) -> Iterator[VideoRecord]:
    """The records of every committed unit of a job."""
    for commit in ledger.commits():
        for output in commit.outputs:
            if output.key.endswith(".parquet"):
                yield from from_parquet(ledger.store.read(output.key))


def read_records(store: Store) -> list[VideoRecord]:
    """The crawl's records, sorted by id.

    Raises:
        UserError: nothing has been crawled on this root.
    """
    try:
        return list(from_parquet(store.read(RECORDS_KEY)))
    except FileNotFoundError as error:
        raise UserError(f"{store.url} holds no records: run `noisyactions crawl` on it first") from error
