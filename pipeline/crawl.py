"""A query -> upload-date windows -> calls -> records; a unit is one window of one query."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pipeline.answers import nameless_search, video_of_search
from pipeline.errors import Dropped, Transient
from pipeline.flickr import EXTRAS, Flickr
from pipeline.journal import Journal, Line, Parameters, write_lines
from pipeline.records import Found, VideoRecord, to_parquet
from pipeline.units import Commit, Finished, Ledger, Output, Unit, output_of
from pipeline.vocabulary import Query
from pipeline.windows import (
    FULL_PAGE,
    PER_PAGE,
    SHOWN_RESULTS,
    Direction,
    Window,
    begins_before,
    is_last,
    is_ordered,
    patience,
    pieces_behind,
)

SEARCH = "flickr.photos.search"

KNOWN_LICENSES = range(17)


def search_unit(query: Query, window: Window) -> Unit:
    """The unit of one window of one query; its name is readable and unique."""
    digest = hashlib.sha256(f"{query.kind} {query.concept} {query.text}".encode()).hexdigest()[:8]
    readable = "".join(c if c.isascii() and c.isalnum() else "-" for c in query.text.lower())[:40]
    return Unit(f"{readable}-{digest}.{window.name}", {"query": asdict(query), "window": asdict(window)})


@dataclass(frozen=True, slots=True)
class SearchWorker:
    """Walks one window after another, the raw answers kept beside the records."""

    ledger: Ledger
    flickr: Flickr
    direction: Direction = "forward"

    def __call__(self, unit: Unit) -> Finished:
        """Walk the window, or its first page if it is to be cut, and commit what was found."""
        query, window = Query(**unit.payload["query"]), Window(**unit.payload["window"])
        prefix = f"{self.ledger.job}/journal/{unit.name}"
        journal = Journal(self.ledger.store, prefix, self.ask, is_usable=self._is_usable)
        walk = _Walk(journal, query, self.direction)
        pieces = walk.through(window)
        added = tuple(search_unit(query, piece) for piece in pieces)
        records = search_records(journal.lines, query, counts=walk.counts)
        walk.counts.update(videos=len({record.video_id for record in records}), calls=len(journal.lines))
        commit = commit_answers(self.ledger, unit, records, journal.lines, walk.counts, added)
        journal.clear()
        return Finished(unit.name, Counter(commit.counts), commit.added)

    def ask(self, method: str, parameters: Parameters) -> dict[str, Any]:
        """Flickr's answer, with nothing kept; raises Transient for what is not to be kept, for it is none."""
        try:
            answer = self.flickr.call(method, expect="photos", **parameters)
        except Dropped as drop:
            if parameters["page"] == 1:  # there is nothing that the first page could lie past
                raise Transient(f"search for {parameters['text']!r}: {drop.detail}", "http_4xx") from drop
            raise
        _check(Line(method, parameters, 0, answer), self.direction)
        return nameless_search(answer)

    def _is_usable(self, line: Line) -> bool:
        if line.answer is None:
            return True
        if not isinstance(line.answer.get("photos"), dict):
            return False
        try:
            _check(line, self.direction)
        except Transient:
            return False
        return True

    def close(self) -> None:
        """Nothing is held."""


@dataclass(frozen=True, slots=True)
class _Shown:
    """A page."""

    photos: list[Mapping[str, Any]]
    fresh: set[str]
    """Ids that the walk had not seen before."""
    total: int
    refused: bool = False
    """It lies past what Flickr shows, told as an error."""

    @property
    def is_full(self) -> bool:
        return len(_dates(self.photos)) >= FULL_PAGE


@dataclass(frozen=True, slots=True)
class _Behind:
    """What other units shall walk."""

    windows: list[Window]


@dataclass(slots=True)
class _Walk:
    """One window on its way."""

    journal: Journal
    query: Query
    direction: Direction
    counts: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)
    crowds: dict[Window, None] = field(default_factory=dict)
    """What was walked page by page, in order."""
    hits: int = 0
    """What the first page told."""
    in_vain: int = 0
    """Calls that brought nothing new."""

    def through(self, window: Window) -> list[Window]:
        """Ask until all is seen; windows that are better walked by other units."""
        ahead = [window]
        while ahead:
            step = self._along(ahead.pop())
            if isinstance(step, _Behind):
                return [*step.windows, *reversed(ahead)]
            if self.in_vain > patience(self.hits):
                self.counts["truncated_windows"] += 1
                break
            ahead.extend(reversed(step))
        return self._ended()

    def _along(self, left: Window) -> _Behind | list[Window]:
        """Ask until a window is seen; its halves where it has to be asked for in parts, what others shall walk."""
        page, skipped, repeated = 1, False, False
        while True:
            shown = self._page(left, page)
            if self._is_seen(shown, page, repeated=repeated):
                return []
            rest = self._behind(left, shown, pages_skipped=page - 1 if skipped else 0)
            if rest != left:
                pieces = pieces_behind(len(shown.photos), shown.total, rest)
                if pieces > 1:
                    passed = self.hits - shown.total - (len(self.seen) - len(shown.photos))
                    self.counts["short_of_total"] += max(0, passed)
                    return _Behind(rest.cut(pieces))
                left, page, skipped, repeated = rest, 1, False, False
            elif not shown.fresh and not repeated:
                repeated = True  # an older page may have come in place of this one, or none
            elif self._is_within_reach(left, shown, page):
                if shown.is_full:
                    self.crowds[left] = None  # one second holds more than a page
                page, skipped, repeated = page + 1, not shown.is_full, False
            else:
                return self._stuck(left, shown)

    def _is_seen(self, shown: _Shown, page: int, *, repeated: bool) -> bool:
        """Whether nothing follows a page in its window: an empty or a full one is asked for twice before."""
        if shown.refused:
            return False
        if is_last(len(shown.photos), shown.total, page):
            return bool(shown.photos) or repeated or not shown.total
        return shown.is_full and repeated and not shown.fresh and shown.total <= page * PER_PAGE

    def _behind(self, left: Window, shown: _Shown, *, pages_skipped: int) -> Window:
        """What is left after a page; after one that did not show all, rows may have moved into what it hid."""
        if pages_skipped:
            dates = _dates(p for p in shown.photos if str(p["id"]) in shown.fresh)
            for begin in begins_before(dates, left, self.direction, pages=pages_skipped):
                rest = left.rest([begin], self.direction)
                if rest != left:
                    return rest
        return left.rest(_dates(shown.photos), self.direction)

    def _is_within_reach(self, left: Window, shown: _Shown, page: int) -> bool:
        """Whether the next page of a window is to be asked for, where a page did not get anywhere."""
        if shown.refused or page * PER_PAGE >= SHOWN_RESULTS or (shown.is_full and not shown.fresh):
            return False
        return shown.is_full or shown.total <= SHOWN_RESULTS or not left.halves(self.direction)

    def _stuck(self, left: Window, shown: _Shown) -> _Behind | list[Window]:
        """More results have the same upload date than Flickr shows, or so many in a row are never shown."""
        if shown.is_full or (shown.refused and left in self.crowds):
            self.counts["truncated_windows"] += left.license is not None
            return _Behind(left.around_crowd(self.direction, self._licenses()))
        halves = left.halves(self.direction)
        self.counts["truncated_windows"] += not halves
        return halves

    def _ended(self) -> list[Window]:
        """All is seen, unless rows changed places between the pages of one second: then that is searched again."""
        short = max(0, self.hits - len(self.seen))
        again = [w for crowd in self.crowds if crowd.license is None for w in self._by_license(crowd)] if short else []
        self.counts["short_of_total"] += 0 if again else short
        return again

    def _by_license(self, crowd: Window) -> list[Window]:
        return crowd.by_license(self.direction, self._licenses())

    def _licenses(self) -> list[int]:
        """Flickr's licences, and what else its answers have named."""
        named = (str(photo.get("license")) for line in self.journal.lines for photo in photos_of(line))
        return sorted({*KNOWN_LICENSES, *(int(text) for text in named if text.isdecimal())})

    def _page(self, window: Window, page: int) -> _Shown:
        line = self.journal.ask(SEARCH, **search_parameters(self.query, window, page, self.direction))
        photos = photos_of(line)
        fresh = {str(photo["id"]) for photo in photos} - self.seen
        self.seen |= fresh
        self.in_vain += not fresh
        if line.answer is None:
            return _Shown(photos, fresh, SHOWN_RESULTS, refused=True)
        total = total_of(line)
        self.hits = self.hits or total
        return _Shown(photos, fresh, total)


def search_parameters(query: Query, window: Window, page: int, direction: Direction) -> Parameters:
    """The call for one page of a window."""
    since, until = window.asked
    parameters: Parameters = {
        "text": query.text,
        "media": "videos",
        "sort": "date-posted-asc" if direction == "forward" else "date-posted-desc",
        "per_page": PER_PAGE,
        "page": page,
        "min_upload_date": since,
        "max_upload_date": until,
        "extras": EXTRAS,
    }
    if window.license is not None:
        parameters["license"] = window.license
    return parameters


def _check(line: Line, direction: Direction) -> None:
    """Raise Transient for an answer that a walk cannot go by: no total, or not in the order of upload."""
    dates = _dates(photos_of(line))
    total_of(line)
    if dates and not is_ordered(dates, direction):
        raise Transient(f"search for {line.parameters['text']!r}: the answer is not in the order of upload", "http_5xx")


def photos_of(line: Line) -> list[Mapping[str, Any]]:
    """The rows of a search answer that have an id."""
    rows = line.answer["photos"].get("photo") or () if line.answer else ()
    return [row for row in rows if isinstance(row, Mapping) and "id" in row]


def total_of(line: Line) -> int:
    """How many results a search answer says there are, as a number or as text."""
    told = str((line.answer or {})["photos"].get("total", ""))
    if not told.isdecimal():
        raise Transient(f"search for {line.parameters['text']!r}: total {told!r} is no number", "http_5xx")
    return int(told)


def _dates(photos: Iterable[Mapping[str, Any]]) -> list[int]:
    texts = (str(photo.get("dateupload", "")) for photo in photos)
    return [int(text) for text in texts if text.isdecimal()]


def search_records(lines: Iterable[Line], query: Query, *, counts: Counter[str]) -> list[VideoRecord]:
    """The records of a unit's answers, each video once, sorted by id; counts what is no video."""
    records: dict[str, VideoRecord] = {}
    for line in lines:
        for photo in photos_of(line):
            reason = _no_record(photo)
            if reason:
                counts[reason] += 1
            elif str(photo["id"]) not in records:
                records[str(photo["id"])] = _labelled(video_of_search(photo, _found(line, query)), query)
    return [records[video_id] for video_id in sorted(records)]


def _labelled(record: VideoRecord, query: Query) -> VideoRecord:
    if query.kind == "concept":
        return replace(record, concepts=(query.concept,))
    return replace(record, sentences=(query.concept,))


def _no_record(photo: Mapping[str, Any]) -> str | None:
    if str(photo.get("media", "video")) != "video":
        return "not_a_video"
    return None if str(photo["id"]).isdecimal() else "wrong_id"  # an id names files


def _found(line: Line, query: Query) -> Found:
    bounds = f"{line.parameters['min_upload_date']}-{line.parameters['max_upload_date']}"
    return Found(query=query.text, window=bounds, page=int(line.parameters["page"]), crawled=line.at)


def commit_answers(
    ledger: Ledger,
    unit: Unit,
    records: list[VideoRecord],
    lines: list[Line],
    counts: Mapping[str, int],
    added: tuple[Unit, ...] = (),
) -> Commit:
    """Write the raw answers, if any, and the records, then commit the unit; the commit that stands, whoever was first.

    Keys carry a part of the content's SHA-256: a worker that comes second never overwrites what a commit names.
    """
    raw = (put(ledger, f"raw/{unit.name}", "jsonl.zst", write_lines(lines)),) if lines else ()
    outputs = (*raw, put(ledger, f"records/{unit.name}", "parquet", to_parquet(records)))
    ledger.commit(unit, counts, outputs, added)
    return ledger.commit_of(unit.name)


def put(ledger: Ledger, name: str, suffix: str, data: bytes) -> Output:
    """Store an output of a job under its name, a part of its SHA-256, and its suffix."""
    key = f"{ledger.job}/{name}.{hashlib.sha256(data).hexdigest()[:8]}.{suffix}"
    ledger.store.write(key, data)
    return output_of(key, data)


def summarise(ledger: Ledger) -> dict[str, Any]:
    """What all committed windows of a search amount to: counts, and the windows that hold more than Flickr shows."""
    counts, truncated = Counter[str](), []
    for commit in ledger.commits():
        counts.update(commit.counts)
        if commit.counts.get("truncated_windows"):
            truncated.append(commit.unit)
    return {"counts": dict(sorted(counts.items())), "truncated": truncated}
