"""What is counted of a row is what Python would count."""

import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.usable import ROWS_SCHEMA, count_words, read_batches, read_usable


def _row(number: int, **change: Any) -> dict[str, Any]:
    return {
        "video_id": str(number), "outcome": "ok", "title": "a title", "description": "", "tags": ["one", "two"],
        "comments": [{"text": "so nice"}], "concepts": ["run"], "owner": "me",
    } | change  # fmt: skip


def _batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(rows, schema=ROWS_SCHEMA)


def _words(row: dict[str, Any]) -> list[int]:
    """Of title, description, tags and comments, as Python tells them apart."""
    texts = [row["title"], row["description"], " ".join(row["tags"] or ())]
    texts.append(" ".join(comment["text"] or "" for comment in row["comments"] or ()))
    return [len((text or "").split()) for text in texts]


def test_words_are_counted_over_all_metadata() -> None:
    row = _row(3, title="two words", description=" a  b\nc ", tags=["d e", "f"], comments=[{"text": "g"}, {"text": ""}])
    empty = _row(3, title=" ", description="word " * 4, tags=[], comments=None)
    batch = _batch([row, empty, _row(3, title=None, description="", tags=None, comments=[{"text": None}])])
    assert count_words(batch).tolist() == [[2, 3, 3, 1], [0, 4, 0, 0], [0, 0, 0, 0]]
    assert count_words(batch.slice(1, 1)).tolist() == [[0, 4, 0, 0]]


def test_words_end_at_every_character_that_is_white_space_to_python_and_at_no_other() -> None:
    characters = [chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
    titles = [f"{character}a{character}{character}b{character}c" for character in characters]
    nothing = pa.nulls(len(titles))
    columns = {"title": pa.array(titles), "description": nothing, "tags": nothing, "comments": nothing}
    table = pa.table(columns).cast(pa.schema([ROWS_SCHEMA.field(name) for name in columns]))
    words = [len(title.split()) for title in titles]
    assert words.count(3) == sum(character.isspace() for character in characters) > 20
    (batch,) = table.to_batches()
    assert count_words(batch)[:, 0].tolist() == words


@given(st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"])), min_size=1, max_size=6))
def test_words_of_any_text_are_those_python_splits(texts: list[str]) -> None:
    rows = [_row(0, title=text, description=text + "\x1f " + text, tags=texts) for text in texts]
    batch = _batch(rows)
    assert count_words(batch).tolist() == [_words(row) for row in rows]


def test_rows_become_columns_whatever_batches_they_come_in() -> None:
    rows = [
        _row(1, concepts=["swim", "run", "swim"]), _row(2, outcome="gone"), _row(3, concepts=[], owner=None),
        _row(4, concepts=None, tags=[]), _row(5, concepts=["dive", "run"], description="three more words"),
    ]  # fmt: skip
    for size in (1, 2, 5):
        usable = read_usable(_batch(rows[start : start + size]) for start in range(0, len(rows), size))
        assert usable.video_ids.to_pylist() == ["1", "3", "4", "5"]
        assert usable.owners.to_pylist() == ["me", None, "me", "me"]
        assert usable.words.tolist() == [6, 6, 4, 9]
        assert usable.missing.tolist()[2:] == [[False, True, True, False], [False] * 4]
        pairs = zip(usable.pair_rows.tolist(), usable.pair_concepts.tolist(), strict=True)
        named = [(row, usable.concepts[concept]) for row, concept in pairs]
        assert sorted(named) == [(0, "run"), (0, "swim"), (3, "dive"), (3, "run")]
        assert sorted(row for row, _ in named) == [row for row, _ in named]
    assert len(read_usable([])) == 0


def test_files_are_read_some_rows_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.usable._ROWS_AT_ONCE", 2)
    table = pa.Table.from_pylist([_row(number) for number in range(3)], schema=ROWS_SCHEMA)
    for name in "ab":
        pq.write_table(table.append_column("more", pa.array([0] * 3)), tmp_path / name)
    batches = list(read_batches([str(tmp_path / "a"), str(tmp_path / "b")]))
    assert [len(batch) for batch in batches] == [2, 1, 2, 1]
    assert all(batch.schema.names == ROWS_SCHEMA.names for batch in batches)
