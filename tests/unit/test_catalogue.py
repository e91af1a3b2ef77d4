import csv
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import boto3
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from moto.server import ThreadedMotoServer

from pipeline.answers import utc_now
from pipeline.catalogue import (
    Keep,
    iter_records,
    last_filters,
    open_catalogue,
    read_records,
    record_keys,
    write_records,
)
from pipeline.errors import UserError
from pipeline.records import SCHEMA, Comment, Found, Rendition, VideoRecord, to_parquet
from pipeline.store import FolderStore, Store, open_store
from pipeline.units import Ledger, Unit, output_of
from pipeline.vocabulary import Query

# ---------------------------------------------------------------- the merge, said once more in plain Python

FACTS = ("posted", "license", "owner", "secret", "num_comments", "safety_level", "duration_seconds")
TEXTS = ("title", "description", "tags", "taken", "latitude", "longitude", "country", "views")


@dataclass(frozen=True, kw_only=True)
class Answers:
    """Rows of all stages."""

    found: Sequence[VideoRecord] = ()
    listed: Sequence[VideoRecord] = ()
    info: Sequence[VideoRecord] = ()
    sizes: Sequence[VideoRecord] = ()
    comments: Sequence[VideoRecord] = ()


def _nulls_last(*values: Any) -> tuple[tuple[bool, Any], ...]:
    return tuple((value is None, 0 if value is None else value) for value in values)


def _latest(row: VideoRecord) -> Any:
    found = row.found[0] if row.found else None
    place = (None,) * 4 if found is None else (-found.crawled, found.query, found.window, found.page)
    return _nulls_last(*place, *(getattr(row, name) for name in FACTS + TEXTS))


def _info_order(row: VideoRecord) -> Any:
    answered = None if not row.found else -row.found[0].crawled
    return (
        row.dropped is not None,
        *_nulls_last(answered),
        row.dropped or "",
        _nulls_last(*(getattr(row, n) for n in FACTS + TEXTS)),
    )


def _by_id(rows: Iterable[VideoRecord]) -> dict[str, list[VideoRecord]]:
    grouped: dict[str, list[VideoRecord]] = {}
    for row in rows:
        grouped.setdefault(row.video_id, []).append(row)
    return grouped


def _first(*values: Any) -> Any:
    return next((value for value in values if value is not None), None)


def _counts(row: VideoRecord, queries: Sequence[Query] | None) -> bool:
    kind: Any = "concept" if row.concepts else "sentence"
    asked = Query(text=row.found[0].query, concept=(*row.concepts, *row.sentences)[0], kind=kind)
    return queries is None or asked in queries


def reference(
    answers: Answers, keep: Keep, min_videos: int, queries: Sequence[Query] | None
) -> tuple[list[VideoRecord], Counter[str]]:
    current = [row for row in answers.found if _counts(row, queries)]
    found, on_list = _by_id([*current, *answers.listed]), _by_id(answers.listed)
    info, sizes, comments = map(_by_id, (answers.info, answers.sizes, answers.comments))
    counts = Counter(c for rows in found.values() for c in {c for row in rows for c in row.concepts})
    merged = []
    for video_id in sorted(found):
        rows = found[video_id]
        record = min(rows, key=_latest)
        told = min(info.get(video_id, ()), key=_info_order, default=None)
        if told is not None:
            scalars = {n: _first(getattr(told, n), getattr(record, n)) for n in (*FACTS, *TEXTS)}
            texts = {n: getattr(told, n) or getattr(record, n) for n in ("title", "description", "tags")}
            record = replace(record, **scalars | texts)
        concepts = {c for row in rows for c in row.concepts}
        kept = {c for c in concepts if counts[c] >= min_videos}
        kept |= {c for row in on_list.get(video_id, ()) for c in row.concepts}
        sentences = {s for row in rows for s in row.sentences}
        listed = min(
            sizes.get(video_id, ()),
            key=lambda r: (
                r.dropped is not None,
                r.dropped or "",
                -len(r.renditions),
                [_nulls_last(x.label, x.url, x.width, x.height) for x in r.renditions],
            ),
            default=None,
        )
        said = min(
            comments.get(video_id, ()),
            key=lambda r: (-len(r.comments), [(c.author_hash, c.text, c.posted) for c in r.comments]),
            default=None,
        )
        dropped = _first(
            None if told is None else told.dropped,
            None if listed is None else listed.dropped,
            _filtered(record, keep),
            "class_too_small" if concepts and not kept and not sentences and video_id not in on_list else None,
        )
        merged.append(
            replace(
                record,
                concepts=tuple(sorted(kept)),
                sentences=tuple(sorted(sentences)),
                found=tuple(
                    sorted({f for r in rows for f in r.found}, key=lambda f: (f.query, f.window, f.page, f.crawled))
                ),
                renditions=() if listed is None else listed.renditions,
                comments=() if said is None else said.comments,
                dropped=dropped,
            )
        )
    return merged, counts


def _filtered(record: VideoRecord, keep: Keep) -> str | None:
    def outside(value: float | None, low: float | None, high: float | None) -> bool:
        return value is not None and ((low is not None and value < low) or (high is not None and value > high))

    if keep.licenses is not None and record.license is not None and record.license not in keep.licenses:
        return "filtered_license"
    if outside(record.posted, keep.posted_since, keep.posted_until):
        return "filtered_date"
    if outside(record.safety_level, None, keep.max_safety_level):
        return "filtered_safety"
    if outside(record.duration_seconds, keep.min_seconds, keep.max_seconds):
        return "filtered_duration"
    return None


# ---------------------------------------------------------------- roots


def commit(store: Store, job: str, rows: Sequence[VideoRecord], *, unit: str = "a") -> None:
    """As a stage commits its rows."""
    key, data = f"{job}/records/{unit}.parquet", to_parquet(rows)
    store.write(key, data)
    Ledger(store, job, {}).commit(Unit(unit), {}, (output_of(key, data),))


def sighting(video_id: str, concept: str = "", *, sentence: str = "", crawled: int = 1, **fields: Any) -> VideoRecord:
    query = concept or sentence
    return VideoRecord(
        video_id=video_id,
        concepts=(concept,) if concept else (),
        sentences=(sentence,) if sentence else (),
        found=(Found(query=query, window="0-9", page=1, crawled=crawled),) if query else (),
        **fields,
    )


def merged(store: Store, *, keep: Keep = Keep(), min_videos: int = 1) -> dict[str, VideoRecord]:  # noqa: B008
    with open_catalogue(store, keep=keep, min_videos=min_videos) as catalogue:
        catalogue.write()
    return {record.video_id: record for record in iter_records(store)}


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "root")


# ---------------------------------------------------------------- the merge is the reference's

IDS = st.sampled_from(["1", "10", "11", "2", "20", "3"])
WORDS = st.sampled_from(["", "a", "b \N{SNOWMAN}", "it's"])
SMALL = st.none() | st.integers(0, 3)


@st.composite
def _sightings(draw: st.DrawFn) -> VideoRecord:
    concept, sentence = draw(st.sampled_from([("run", ""), ("swim", ""), ("dive", ""), ("", "a man"), ("", "a dog")]))
    found = Found(
        query=concept or sentence,
        window=draw(st.sampled_from(["0-4", "5-9"])),
        page=draw(st.integers(1, 2)),
        crawled=draw(st.integers(1, 3)),
    )
    if draw(st.booleans()):
        found = replace(found, page=1, crawled=1)  # so that some rows differ in nothing but their texts
    return VideoRecord(
        video_id=draw(IDS),
        concepts=(concept,) if concept else (),
        sentences=(sentence,) if sentence else (),
        found=(found,),
        **draw(_metadata()),
    )


def _metadata() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({
        "title": WORDS, "description": WORDS, "tags": st.lists(WORDS, max_size=2).map(tuple),
        "posted": SMALL, "taken": st.none() | WORDS, "latitude": st.none() | st.just(-22.5),
        "country": st.none() | WORDS, "duration_seconds": st.none() | st.sampled_from([0.5, 1.5, 2.5]),
        "license": SMALL, "owner": st.none() | WORDS, "secret": st.none() | WORDS, "views": SMALL,
        "num_comments": SMALL, "safety_level": st.none() | st.integers(0, 2),
    })  # fmt: skip


_LISTED = st.builds(VideoRecord, video_id=IDS, concepts=st.just(("run", "old")) | st.just(()))  # ids: no `found`
_INFO = st.builds(
    lambda video_id, dropped, answered, metadata: VideoRecord(
        video_id=video_id,
        dropped=dropped,
        found=() if answered is None else (Found(query="", window="", page=0, crawled=answered),),
        **metadata,
    ),
    IDS,
    st.sampled_from([None, None, "gone", "private"]),
    SMALL,
    _metadata(),
)
_SIZES = st.builds(
    VideoRecord,
    video_id=IDS,
    dropped=st.sampled_from([None, None, "no_video_url", "gone"]),
    renditions=st.lists(
        st.builds(Rendition, label=WORDS, url=WORDS, width=st.none() | st.integers(1, 2)), max_size=2
    ).map(tuple),
)
_COMMENTS = st.builds(
    VideoRecord,
    video_id=IDS,
    comments=st.lists(st.builds(Comment, author_hash=WORDS, text=WORDS, posted=st.integers(0, 1)), max_size=2).map(
        tuple
    ),
)
_KEEPS = st.sampled_from([
    Keep(),
    Keep(licenses=(1, 2)),
    Keep(posted_since=1, posted_until=2),
    Keep(max_safety_level=1, min_seconds=1.0),
    Keep(licenses=(0, 1), max_safety_level=0, max_seconds=2, posted_since=1),
])  # fmt: skip


_RUN = Query(text="run", concept="run", kind="concept")
_VOCABULARIES = st.sampled_from([
    None, None, [], [_RUN, Query(text="a man", concept="a man", kind="sentence")],
    [_RUN, Query(text="a dog", concept="a dog", kind="concept"), Query(text="swim", concept="dive", kind="concept")],
])  # fmt: skip


@settings(max_examples=6, deadline=None)
@given(
    found=st.lists(_sightings(), max_size=14),
    listed=st.lists(_LISTED, max_size=3),
    info=st.lists(_INFO, max_size=6),
    sizes=st.lists(_SIZES, max_size=6),
    comments=st.lists(_COMMENTS, max_size=4),
    keep=_KEEPS,
    min_videos=st.integers(1, 3),
    queries=_VOCABULARIES,
)
def test_the_merge_is_what_plain_python_makes_of_the_same_rows_however_they_are_filed(
    found: list[VideoRecord], listed: list[VideoRecord], info: list[VideoRecord], sizes: list[VideoRecord],
    comments: list[VideoRecord], keep: Keep, min_videos: int, queries: list[Query] | None,
) -> None:  # fmt: skip
    answers = Answers(found=found, listed=listed, info=info, sizes=sizes, comments=comments)
    expected, counts = reference(answers, keep, min_videos, queries)
    with tempfile.TemporaryDirectory() as folder:
        one, many = FolderStore(Path(folder) / "one"), FolderStore(Path(folder) / "many [*]")
        for job, rows in (("crawl", found), ("ids", listed), ("info", info), ("sizes", sizes), ("comments", comments)):
            if rows:
                commit(one, job, rows)
            for number, row in enumerate(reversed(rows)):
                commit(many, job, [row], unit=f"u{number}")
        outcomes = _write(one, keep, min_videos, queries)
        assert outcomes == _write(many, keep, min_videos, queries) == Counter(r.dropped or "ok" for r in expected)
        assert read_records(one) == expected
        assert (Path(folder) / "one/records/records.json").read_bytes() == many.read("records/records.json")
        classes = list(csv.reader(one.read("records/classes.csv").decode().splitlines()))
    assert {name: (int(n), kept) for name, n, kept in classes[1:]} == {
        name: (n, "1" if n >= min_videos else "0") for name, n in counts.items()
    }


def _write(store: Store, keep: Keep, min_videos: int, queries: Sequence[Query] | None) -> dict[str, int]:
    with open_catalogue(store, keep=keep, min_videos=min_videos, queries=queries, videos_per_part=2) as catalogue:
        return catalogue.write()


# ---------------------------------------------------------------- what is still to be asked


def _waiting(store: Store, stage: Any, *, keep: Keep = Keep(), min_videos: int = 1, **options: bool) -> list[str]:  # noqa: B008
    with open_catalogue(store, keep=keep, min_videos=min_videos, videos_per_part=2) as catalogue:
        return [video_id for video_id, *_ in catalogue.waiting(stage, **options)]


def test_a_stage_waits_for_what_it_has_not_answered_in_the_order_of_ids(store: FolderStore) -> None:
    commit(store, "crawl", [sighting(i, "run", secret=f"s{i}") for i in ("3", "20", "1")])
    commit(store, "ids", [VideoRecord(video_id="100", concepts=("run",))])
    with open_catalogue(store) as catalogue:
        assert catalogue.num_found() == 4
        assert list(catalogue.waiting("info")) == [("1", "s1", ""), ("100", "", ""), ("20", "s20", ""), ("3", "s3", "")]
    commit(store, "info", [VideoRecord(video_id="20", secret="new"), VideoRecord(video_id="1", dropped="gone")])
    commit(store, "sizes", [VideoRecord(video_id="3")])
    assert _waiting(store, "info") == ["100", "3"]
    with open_catalogue(store) as catalogue:
        assert list(catalogue.waiting("sizes")) == [("100", "", ""), ("20", "new", "")]


def test_comments_are_asked_where_there_are_some_or_everywhere(store: FolderStore) -> None:
    commit(store, "crawl", [sighting(str(i), "run", num_comments=n) for i, n in enumerate((None, 0, 3, 2, 1))])
    commit(store, "info", [VideoRecord(video_id="0", num_comments=5), VideoRecord(video_id="2", num_comments=0)])
    assert _waiting(store, "comments") == ["0", "3", "4"]
    assert _waiting(store, "comments", all_comments=True) == ["0", "1", "2", "3", "4"]
    commit(store, "comments", [VideoRecord(video_id="3")])
    assert _waiting(store, "comments") == ["0", "4"]


FILTERED: dict[str, tuple[Keep, dict[str, Any], dict[str, Any]]] = {
    "filtered_license": (Keep(licenses=(4, 5)), {"license": 0}, {"license": 5}),
    "filtered_date": (Keep(posted_since=10, posted_until=20), {"posted": 21}, {"posted": 20}),
    "filtered_safety": (Keep(max_safety_level=0), {"safety_level": 1}, {"safety_level": 0}),
    "filtered_duration": (Keep(min_seconds=2, max_seconds=3), {"duration_seconds": 1.9}, {"duration_seconds": 2.0}),
}


@pytest.mark.parametrize("word", FILTERED)
def test_what_is_known_to_be_unwanted_is_not_asked_about_and_is_dropped_with_its_word(
    store: FolderStore, word: str
) -> None:
    keep, unwanted, wanted = FILTERED[word]
    commit(store, "crawl", [sighting("1", "run", **unwanted), sighting("2", "run", **wanted), sighting("3", "run")])
    assert _waiting(store, "info", keep=keep) == ["2", "3"]
    commit(store, "info", [VideoRecord(video_id="1", **wanted), VideoRecord(video_id="3", **unwanted)])
    assert _waiting(store, "sizes", keep=keep) == ["1", "2"], "info knows better than search"
    assert {i: r.dropped for i, r in merged(store, keep=keep).items()} == {"1": None, "2": None, "3": word}


def test_small_classes_are_left_out_with_the_videos_that_have_no_other(store: FolderStore) -> None:
    rows = [sighting(str(i), "large") for i in range(3)] + [sighting("1", "small"), sighting("5", "small")]
    commit(store, "crawl", [*rows, sighting("6", "small", crawled=2), sighting("6", sentence="a man"), rows[0]])
    commit(store, "ids", [VideoRecord(video_id="7")])
    records = merged(store, min_videos=4)
    assert {i: r.dropped for i, r in records.items() if r.dropped} == dict.fromkeys("0125", "class_too_small")
    records = merged(store, min_videos=3)
    assert {i: r.concepts for i, r in records.items()} == {
        "0": ("large",), "1": ("large", "small"), "2": ("large",), "5": ("small",), "6": ("small",), "7": (),
    }  # fmt: skip
    commit(store, "recapture", [sighting("8", "larger still"), sighting("0", "small")])
    records = merged(store, min_videos=4)
    assert records["5"].concepts == records["1"].concepts == ("small",)
    assert [f.query for f in records["1"].found] == ["large", "small"], "what found it stays known"
    assert _waiting(store, "info", min_videos=4) == ["0", "1", "5", "6", "7"]
    assert store.read("records/classes.csv") == b"concept,videos,kept\nsmall,4,1\nlarge,3,0\nlarger still,1,0\n"


def test_videos_of_an_id_list_need_no_large_class_and_keep_their_concepts(store: FolderStore) -> None:
    commit(store, "ids", [VideoRecord(video_id="1", concepts=("rare",)), VideoRecord(video_id="2")])
    commit(store, "crawl", [sighting("1", "dive"), sighting("3", "rare"), sighting("2", "dive")])
    records = merged(store, min_videos=3)
    assert {i: (r.concepts, r.dropped) for i, r in records.items()} == {
        "1": (("rare",), None), "2": ((), None), "3": ((), "class_too_small"),
    }  # fmt: skip
    assert _waiting(store, "info", min_videos=3) == ["1", "2"]
    assert store.read("records/classes.csv") == b"concept,videos,kept\ndive,2,0\nrare,2,0\n"


def test_what_only_former_queries_found_is_left_out(store: FolderStore) -> None:
    commit(store, "crawl", [sighting("1", "run"), sighting("1", "jog"), sighting("2", "jog"), sighting("2", "jog")])
    commit(store, "recapture", [sighting("3", sentence="run"), sighting("4", sentence="a man")])
    commit(store, "ids", [VideoRecord(video_id="5", concepts=("jog",))])
    queries = [Query(text="run", concept="run", kind="concept"), Query(text="a man", concept="a man", kind="sentence")]
    with open_catalogue(store, queries=iter(queries)) as catalogue:
        assert (catalogue.num_found(), catalogue.num_left_out) == (3, 2)
        assert [video_id for video_id, *_ in catalogue.waiting("info")] == ["1", "4", "5"]
        catalogue.write()
    records = {record.video_id: record for record in iter_records(store)}
    assert {i: (r.concepts, r.sentences) for i, r in records.items()} == {
        "1": (("run",), ()), "4": ((), ("a man",)), "5": (("jog",), ()),
    }  # fmt: skip
    assert [found.query for found in records["1"].found] == ["run"]
    assert store.read("records/classes.csv") == b"concept,videos,kept\njog,1,1\nrun,1,1\n"
    with open_catalogue(store) as catalogue:
        assert (catalogue.num_found(), catalogue.num_left_out) == (5, 0)


def _answered(video_id: str, *, at: int, **fields: Any) -> VideoRecord:
    return VideoRecord(video_id=video_id, found=(Found(query="", window="", page=0, crawled=at),), **fields)


def test_what_was_being_processed_a_day_ago_is_asked_about_again(store: FolderStore) -> None:
    now, ages = utc_now(), {"1": 90_000, "2": 80_000}
    commit(store, "crawl", [sighting(i, "run", secret="s", owner="me") for i in "1234"])
    commit(
        store,
        "info",
        [
            *(_answered(i, at=now - age, dropped="still_processing") for i, age in ages.items()),
            VideoRecord(video_id="3", dropped="still_processing"),
            _answered("4", at=now - 90_000, dropped="gone"),
        ],
    )
    with open_catalogue(store) as catalogue:
        assert list(catalogue.waiting("info")) == [("1", "s", "me", str(now - 90_000))]
        assert list(catalogue.waiting("sizes")) == []
    assert {r.dropped for r in merged(store).values()} == {"still_processing", "gone"}
    commit(store, "info", [_answered("1", at=now, dropped="still_processing")], unit="again")
    assert _waiting(store, "info") == []
    commit(store, "info", [_answered("1", at=now + 1, dropped="never_playable")], unit="later")
    assert merged(store)["1"].dropped == "never_playable"
    commit(store, "info", [_answered("1", at=now - 5, title="plays")], unit="plays")
    assert (merged(store)["1"].dropped, merged(store)["1"].title) == (None, "plays")
    assert _waiting(store, "sizes") == ["1"]


@dataclass(frozen=True, slots=True)
class _Remote:
    """A store that is no folder of this machine, as far as anybody sees, and notes what is read."""

    inner: FolderStore
    reads: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return "far://away"

    def read(self, key: str) -> bytes:
        self.reads.append(key)
        return self.inner.read(key)

    def read_range(self, key: str, *, start: int, length: int) -> bytes:
        return self.inner.read_range(key, start=start, length=length)

    def write(self, key: str, data: bytes) -> None:
        self.inner.write(key, data)

    def upload(self, key: str, path: Path) -> None:
        self.inner.upload(key, path)

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        return self.inner.create(key, data, private=private)

    def size(self, key: str) -> int | None:
        return self.inner.size(key)

    def list(self, prefix: str = "") -> Iterator[str]:
        return self.inner.list(prefix)

    def delete(self, key: str) -> None:
        self.inner.delete(key)


def test_a_cache_spares_reading_and_fetching_again(store: FolderStore, tmp_path: Path) -> None:
    remote, cache = _Remote(store), tmp_path / "cache"
    cache.mkdir()
    commit(remote, "info", [VideoRecord(video_id="0", title="t")])
    for number in range(3):
        commit(remote, "crawl", [sighting(str(number), "run")], unit=str(number))
        remote.reads.clear()
        with open_catalogue(remote, cache=cache) as catalogue:
            assert catalogue.num_found() == number + 1
        expected = {f"crawl/commits/{number}.json", f"crawl/records/{number}.parquet"}
        first = {"info/commits/a.json", "info/records/a.parquet"}
        assert sorted(remote.reads) == sorted(expected | (first if number == 0 else set()))
    with open_catalogue(remote, cache=cache) as catalogue:
        catalogue.write()
    assert [(r.video_id, r.title) for r in iter_records(store)] == [("0", "t"), ("1", ""), ("2", "")]
    assert {path.suffix for path in cache.iterdir()} == {".jsonl", ".parquet"}


def test_info_overrides_what_search_told_but_empties_nothing(store: FolderStore) -> None:
    told = sighting("1", "run", title="old", tags=("x",), owner="me", views=3, country="Chad", license=4)
    commit(store, "crawl", [told, sighting("2", "run", title="stays", tags=("y",), description="d", posted=7)])
    commit(store, "info", [
        VideoRecord(video_id="1", title="new", duration_seconds=12.0, views=9, license=5),
        VideoRecord(video_id="2", dropped="private", tags=("raw Tag",)),
    ])  # fmt: skip
    records = merged(store)
    assert records["1"] == replace(told, title="new", duration_seconds=12.0, views=9, license=5)
    two = records["2"]
    assert (two.title, two.description, two.tags, two.posted) == ("stays", "d", ("raw Tag",), 7)
    assert two.dropped == "private"


def test_of_rows_that_differ_only_in_their_texts_the_same_one_counts_in_any_order(tmp_path: Path) -> None:
    texts = ("b", "c", "a")
    titles = []
    for turn in range(3):
        store = FolderStore(tmp_path / str(turn))
        for place in range(3):
            text = texts[(place + turn) % 3]
            commit(store, "crawl", [sighting("1", "run", title=text)], unit=f"u{place}")
            commit(store, "info", [VideoRecord(video_id="1", description=text)], unit=f"u{place}")
            commit(
                store, "sizes", [VideoRecord(video_id="1", dropped="gone" if text == "b" else None)], unit=f"u{place}"
            )
        (record,) = merged(store).values()
        titles.append((record.title, record.description, record.dropped))
    assert titles == [("a", "a", None)] * 3


# ---------------------------------------------------------------- what is written


def _keys(store: Store) -> list[str]:
    return [key for key in store.list("records/") if key.endswith(".parquet")]


def test_parts_are_sorted_throughout_and_old_ones_go_one_publication_later(store: FolderStore) -> None:
    commit(store, "crawl", [sighting(str(i), "run") for i in range(5)])
    with open_catalogue(store, videos_per_part=2) as catalogue:
        assert catalogue.write() == {"ok": 5}
        before = {key: store.read(key) for key in _keys(store)}
        assert catalogue.write() == {"ok": 5}, "twice is as good as once"
    assert [record.video_id for record in iter_records(store)] == ["0", "1", "2", "3", "4"]
    assert {key: store.read(key) for key in record_keys(store)} == before
    document = json.loads(store.read("records/records.json"))
    assert (document["outcomes"], document["videos"]) == ({"ok": 5}, 5)
    assert [part["rows"] for part in document["parts"]] == [2, 2, 1]
    assert pq.read_schema(store.path(record_keys(store)[0])).equals(SCHEMA)
    commit(store, "sizes", [VideoRecord(video_id="0", dropped="no_video_url")])
    with open_catalogue(store, videos_per_part=2) as catalogue:
        assert catalogue.write() == {"no_video_url": 1, "ok": 4}
    assert sum(key in before for key in record_keys(store)) == 2
    assert len(_keys(store)) == 4, "somebody may still read the old part"
    with open_catalogue(store, videos_per_part=2) as catalogue:
        catalogue.write()
    assert _keys(store) == sorted(record_keys(store))


@dataclass(frozen=True, slots=True)
class _Killed(FolderStore):
    """A folder whose writer dies before it writes one key."""

    before: str

    def write(self, key: str, data: bytes) -> None:
        if key == self.before:
            raise KeyboardInterrupt
        self.path(key).parent.mkdir(parents=True, exist_ok=True)
        self.path(key).write_bytes(data)


def test_killed_before_the_parts_are_named_the_old_records_stay(store: FolderStore) -> None:
    commit(store, "crawl", [sighting(str(i), "run") for i in range(5)])
    before = list(merged(store).values())
    commit(store, "recapture", [sighting("6", "swim"), sighting("0", "swim")])
    with (
        pytest.raises(KeyboardInterrupt),
        open_catalogue(_Killed(store.folder, "records/records.json"), videos_per_part=2) as catalogue,
    ):
        catalogue.write()
    assert len(_keys(store)) == 4, "the old part, and the new ones that nothing names yet"
    assert read_records(store) == before
    assert len(merged(store)) == 6
    assert len(_keys(store)) == 5
    assert len(merged(store)) == 6
    assert len(_keys(store)) == 1, "what the killed one left and nobody named goes, too"


def test_parts_of_another_merge_that_is_about_to_name_them_stay(store: FolderStore) -> None:
    commit(store, "crawl", [sighting("1", "run")])
    other = _Killed(store.folder, "records/records.json")
    with pytest.raises(KeyboardInterrupt):
        write_records(other, [VideoRecord(video_id="9")])
    (fresh,) = _keys(store)
    merged(store)
    assert fresh in _keys(store)
    write_records(store, [VideoRecord(video_id="9")])
    assert record_keys(store) == [fresh]


def test_records_merged_anew_while_they_are_read_go_on_with_the_new_ones(store: FolderStore) -> None:
    def write(last: str) -> None:
        commit(store, "crawl", [sighting(last, "run")], unit=last)
        with open_catalogue(store, videos_per_part=1) as catalogue:
            catalogue.write()

    write("1")
    write("3")
    reader = iter_records(store)
    first = next(reader).video_id
    write("2")
    for title in ("b", "c"):
        commit(store, "info", [VideoRecord(video_id="3", title=title)], unit=title)
        write(f"2{title}")
    assert [first, *(record.video_id for record in reader)] == ["1", "2", "2b", "2c", "3"]
    reader = iter_records(store)
    next(reader)
    store.delete(record_keys(store)[1])
    with pytest.raises(UserError, match="is missing in "):
        list(reader)


def test_records_tell_which_filters_made_them(store: FolderStore) -> None:
    assert last_filters(store) is None
    keep = Keep(licenses=(4, 5), min_seconds=1.5, posted_since=7)
    merged(store, keep=keep, min_videos=3)
    assert last_filters(store) == (keep, 3)
    merged(store)
    assert last_filters(store) == (Keep(), 1)
    write_records(store, [VideoRecord(video_id="1")])
    assert last_filters(store) is None, "no crawl made these"


def test_a_file_that_no_commit_lists_is_not_read(store: FolderStore) -> None:
    commit(store, "crawl", [sighting("1", "run")])
    store.write("crawl/records/half.parquet", b"PAR1 half of it")
    store.write("info/records/half.parquet", to_parquet([VideoRecord(video_id="1", dropped="gone")]))
    assert [record.dropped for record in merged(store).values()] == [None]


def test_nothing_found_is_no_parts(store: FolderStore) -> None:
    assert merged(store) == {}
    assert record_keys(store) == []
    assert _waiting(store, "info") == []


def test_a_committed_file_that_is_missing_or_broken_is_told(store: FolderStore) -> None:
    commit(store, "crawl", [sighting("1", "run")])
    store.write("crawl/records/a.parquet", b"not Parquet")
    with pytest.raises(UserError, match=r"not a Parquet file .*crawl/records/a\.parquet"):
        merged(store)
    store.delete("crawl/records/a.parquet")
    with pytest.raises(UserError, match=r"crawl/records/a\.parquet is committed but missing in .*root"):
        merged(store)


def test_records_that_are_missing_or_damaged_are_told(store: FolderStore) -> None:
    for reader in (read_records, record_keys, lambda root: next(iter_records(root))):
        with pytest.raises(UserError, match=r"holds no records: run `noisyactions crawl` on it first"):
            reader(store)
    commit(store, "crawl", [sighting("1", "run")])
    merged(store)
    (key,) = record_keys(store)
    store.write(key, store.read(key)[:-1])
    with pytest.raises(UserError, match=rf"{key} in .* is damaged"):
        read_records(store)
    store.delete(key)
    with pytest.raises(UserError, match=rf"{key} is missing in "):
        read_records(store)


def test_a_bucket_gives_the_bytes_a_folder_does(
    store: FolderStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        boto3.client("s3").create_bucket(Bucket="catalogue")
        bucket = open_store("s3://catalogue/root")
        for root in (store, bucket):
            for unit in ("a", "b"):
                commit(root, "crawl", [sighting(i, unit, title=i) for i in ("1", "2")], unit=unit)
            commit(root, "info", [VideoRecord(video_id="2", license=4)])
        assert merged(store) == merged(bucket)
        assert [bucket.read(k) for k in record_keys(bucket)] == [store.read(k) for k in record_keys(store)]
        assert {path.name for path in tmp_path.iterdir()} == {"root"}, "nothing temporary is left"
        bucket.delete("crawl/records/a.parquet")
        with pytest.raises(UserError, match=r"a\.parquet is committed but missing in s3://catalogue/root"):
            merged(bucket)
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"licenses": ()}, r"licenses \(\): name Flickr's numbers"),
        ({"licenses": (4, -1)}, r"licenses \(4, -1\)"),
        ({"max_safety_level": 3}, r"max_safety_level 3: use 0 \(safe\)"),
        ({"min_seconds": 5, "max_seconds": 4}, "min_seconds 5, max_seconds 4"),
        ({"min_seconds": float("nan")}, "min_seconds nan"),
        ({"max_seconds": -1}, "max_seconds -1"),
        ({"posted_since": 2, "posted_until": 1}, "posted_since 2 is after posted_until 1"),
    ],
)
def test_wishes_are_checked(options: dict[str, Any], match: str) -> None:
    with pytest.raises(UserError, match=match):
        Keep(**options)


def test_limits_are_checked(store: FolderStore) -> None:
    with pytest.raises(UserError, match="min_videos 0: a class needs at least 1"), open_catalogue(store, min_videos=0):
        pass
    with (
        pytest.raises(UserError, match="memory_bytes 1000: must be at least"),
        open_catalogue(store, memory_bytes=1000),
    ):
        pass
