import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.records import SCHEMA, Comment, Found, Rendition, VideoRecord, from_parquet, from_row, to_parquet, to_row

text = st.text(max_size=20)
int32 = st.integers(-(2**31), 2**31 - 1)
int64 = st.integers(-(2**63), 2**63 - 1)
floats = st.none() | st.floats(allow_nan=False)
records = st.builds(
    VideoRecord,
    video_id=text, source=text, title=text, description=text, tags=st.lists(text, max_size=3).map(tuple),
    renditions=st.lists(st.builds(Rendition, label=text, url=text, width=st.none() | int32), max_size=2).map(tuple),
    comments=st.lists(st.builds(Comment, author_hash=text, text=text, posted=int64), max_size=2).map(tuple),
    found=st.lists(st.builds(Found, query=text, window=text, page=int32, crawled=int64), max_size=2).map(tuple),
    posted=st.none() | int64, taken=st.none() | text, latitude=floats, longitude=floats, country=st.none() | text,
    duration_seconds=floats, license=st.none() | int32, owner=st.none() | text, views=st.none() | int64,
    concepts=st.lists(text, max_size=3).map(tuple), split=st.none() | text, dropped=st.none() | text,
)  # fmt: skip


@settings(max_examples=50, deadline=None)
@given(many=st.lists(records, max_size=4))
def test_parquet_gives_back_what_it_was_given(many: list[VideoRecord]) -> None:
    assert list(from_parquet(to_parquet(many))) == many


def test_a_row_has_the_columns_of_the_schema_in_order() -> None:
    assert list(to_row(VideoRecord(video_id="1"))) == SCHEMA.names


def test_columns_of_others_are_passed_over_and_missing_ones_are_defaults() -> None:
    assert from_row({"video_id": "1", "shard": "x", "tags": None}) == VideoRecord(video_id="1")


def test_equal_records_are_equal_bytes() -> None:
    record = VideoRecord(video_id="1", tags=("a", "b"), latitude=0.5)
    assert to_parquet([record]) == to_parquet([from_row(to_row(record))])


def test_what_is_no_table_of_records_is_told() -> None:
    with pytest.raises(UserError, match="not a Parquet file of records"):
        list(from_parquet(b"PAR1 but not really"))
    buffer = io.BytesIO()
    pq.write_table(pa.table({"name": ["x"]}), buffer)
    with pytest.raises(UserError, match=r"no column video_id among \['name'\]"):
        list(from_parquet(buffer.getvalue()))
