import contextlib
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.records import SCHEMA, Comment, VideoRecord, to_row
from pipeline.shards import SHARD_SCHEMA
from pipeline.stats import ANNOTATIONS, open_statistics


def _row(number, *, outcome="ok", detail="", seconds=None, **fields):
    record = VideoRecord(video_id=f"{number:03d}", **fields)
    return to_row(record) | {"outcome": outcome, "detail": detail, "source_duration_seconds": seconds}


@pytest.fixture
def open_rows(tmp_path):
    """Statistics of rows, in as many Parquet files as there are rows."""
    with contextlib.ExitStack() as stack:

        def opened(rows, annotations=None, schema=SHARD_SCHEMA):
            folder = Path(tempfile.mkdtemp(dir=tmp_path, suffix="[k=v]*"))
            for number, row in enumerate(rows):
                pq.write_table(pa.Table.from_pylist([row], schema=schema), folder / f"{number:03d}.parquet")
            files = sorted(str(path) for path in folder.iterdir())
            if annotations is not None:
                pq.write_table(pa.Table.from_pylist(annotations, schema=ANNOTATIONS), folder / "notes")
            notes = [] if annotations is None else [str(folder / "notes")]
            return stack.enter_context(open_statistics(files, annotations=notes))

        yield opened


@pytest.fixture
def statistics(open_rows):
    nice = Comment(author_hash="h", text="nice", posted=1)
    rows = [
        _row(1, seconds=30.0, concepts=("run", "jump"), tags=("a", "b"), comments=(nice, nice), posted=1262304000),
        _row(2, seconds=90.0, concepts=("run",), tags=("a",), license=4, posted=1262303999),
        _row(3, duration_seconds=120.0, concepts=("run", "jump", "sit"), license=4),
        _row(4, seconds=600.0, concepts=("run",)),
        _row(5, outcome="gone", detail="404 for it", seconds=1.0, concepts=("never",), tags=("x",)),
        _row(6, outcome="timeout", concepts=("never",)),
        _row(7, outcome="gone", concepts=("never",)),
    ]
    notes = [
        {"video_id": "001", "country_iso": "NA", "entities": ["Sports", "News"]},
        {"video_id": "002", "country_iso": "NA", "entities": []},
        {"video_id": "003", "country_iso": "DE", "entities": ["Sports"]},
        {"video_id": "005", "country_iso": "FR", "entities": ["Games"]},
    ]
    return open_rows(rows, notes)


def test_table2_counts_built_videos_only(statistics):
    assert statistics.num_videos() == 4
    assert {row.name: row.value for row in statistics.table2()} == {
        "Countries": 2,
        "Videos per country": 1.5,
        "Labels per video": 1.75,
        "Mean duration": 210.0,
        "Videos shorter than 60 s": 1,
        "Videos of 60 to 120 s": 2,
        "Entities per video": 1.5,
        "Videos with tags": 2,
        "Tags per video with any": 1.5,
        "Videos with comments": 1,
        "Comments per video with any": 2.0,
    }


def test_figures_count_by_class_entity_country_year_and_licence(statistics):
    assert statistics.class_sizes() == [("run", 4), ("jump", 2), ("sit", 1)]
    assert statistics.entity_sizes() == [("Sports", 2), ("News", 1)]
    assert statistics.country_sizes() == [("NA", 2), ("DE", 1)]
    assert statistics.labels_per_video() == [(1, 2), (2, 1), (3, 1)]
    assert statistics.years() == [(2009, 1), (2010, 1)]
    assert statistics.licenses() == [(4, 2), (None, 2)]
    assert statistics.durations() == [30.0, 90.0, 120.0, 600.0]


def test_outcomes_count_every_record_asked_for(statistics):
    assert statistics.num_asked() == 7
    assert statistics.outcomes() == [("ok", 4, None), ("gone", 2, "404 for it"), ("timeout", 1, None)]


def test_samples_are_spread_over_classes_and_always_the_same(open_rows):
    rows = [_row(number, concepts=("common" if number % 10 else f"rare {number}",)) for number in range(60)]
    statistics = open_rows(rows)
    ids = list(statistics.sample_ids(8))
    assert ids == list(open_rows(rows[::-1]).sample_ids(8))
    files = statistics.files_of(ids)
    assert {video_id: pq.read_table(path)["video_id"].to_pylist() for video_id, path in files.items()} == {
        video_id: [video_id] for video_id in ids
    }
    assert statistics.files_of([]) == {}
    assert sum(int(video_id) % 10 == 0 for video_id in ids) >= 6


def test_without_videos_or_annotations_nothing_is_made_up(open_rows):
    statistics = open_rows([])
    assert statistics.num_videos() == 0
    assert {row.value for row in statistics.table2()} == {0, None}
    assert statistics.class_sizes() == statistics.country_sizes() == []
    assert statistics.stored() == (0, 0)


def test_records_that_are_not_built_yet_count_by_why_they_were_dropped(open_rows):
    rows = [VideoRecord(video_id="1", duration_seconds=5.0, tags=("a",)), VideoRecord(video_id="2", dropped="gone")]
    statistics = open_rows([to_row(row) for row in rows], schema=SCHEMA)
    assert statistics.outcomes() == [("ok", 1, None), ("gone", 1, None)]
    assert (statistics.num_videos(), statistics.durations(), statistics.stored()) == (1, [5.0], (0, 0))


def test_a_file_without_the_columns_is_told(open_rows):
    with pytest.raises(UserError, match=r"not a Parquet file of rows.*column \"detail\" not found"):
        open_rows(
            [{"outcome": "ok", "video_id": "1"}],
            schema=pa.schema([("video_id", pa.string()), ("outcome", pa.string())]),
        )
