from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import Dropped, Transient
from pipeline.journal import Journal, Line, Parameters, read_lines, write_lines
from pipeline.store import FolderStore


class Flickr:
    """Answers with how often it was asked; fails when told to."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        self.asked: list[Parameters] = []
        self.fails_at = fails_at

    def __call__(self, method: str, parameters: Parameters) -> dict[str, Any]:
        if len(self.asked) == self.fails_at:
            raise Transient("reset")
        self.asked.append(parameters)
        if parameters["n"] == 13:
            raise Dropped("gone", "Photo not found")
        return {"stat": "ok", "n": parameters["n"]}


@pytest.mark.parametrize("lines_per_part", [1, 3])
def test_what_was_answered_before_the_trouble_is_not_asked_again(tmp_path: Path, lines_per_part: int) -> None:
    store, first, second = FolderStore(tmp_path), Flickr(fails_at=7), Flickr()
    journal = Journal(store, "crawl/journal/unit", first, lines_per_part=lines_per_part)
    for n in range(10, 17):
        journal.ask("m", n=n)
    with pytest.raises(Transient):
        journal.ask("m", n=17)
    again = Journal(store, "crawl/journal/unit", second, lines_per_part=lines_per_part)
    lines = [again.ask("m", n=n) for n in range(10, 20)]
    kept = 7 // lines_per_part * lines_per_part
    assert [p["n"] for p in second.asked] == list(range(10 + kept, 20))
    assert again.lines == lines
    assert [line.answer and line.answer["n"] for line in lines] == [10, 11, 12, None, *range(14, 20)]
    assert lines[3].refusal == ("gone", "Photo not found")
    assert lines[:kept] == journal.lines[:kept]
    again.clear()
    assert list(store.list()) == []


def test_a_unit_that_goes_another_way_keeps_only_what_it_asked_in_common(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    first = Journal(store, "j/unit", Flickr())
    for n in range(6):
        first.ask("m", n=n)
    flickr = Flickr()
    second = Journal(store, "j/unit", flickr)
    for n in (0, 1, 30, 3):
        second.ask("m", n=n)
    assert [p["n"] for p in flickr.asked] == [30, 3]
    third = Journal(store, "j/unit", flickr)
    assert [third.ask("m", n=n).answer for n in (0, 1, 30, 3)] == [line.answer for line in second.lines]
    assert len(flickr.asked) == 2


def test_units_whose_names_begin_alike_are_kept_apart(tmp_path: Path) -> None:
    store, flickr = FolderStore(tmp_path), Flickr()
    Journal(store, "j/swing.1-2", flickr).ask("m", n=1)
    Journal(store, "j/swing.1-20", flickr).ask("m", n=2)
    Journal(store, "j/swing.1-2", flickr).clear()
    assert len(list(store.list("j/"))) == 1


GOOD = Line("m", {"n": 1}, 5, answer={"stat": "ok", "n": 1})


@pytest.mark.parametrize(
    "spoilt",
    [
        b"garbage",
        b"",
        write_lines([GOOD])[:-3],
        write_lines([GOOD, GOOD]),
        write_lines([Line("m", {"n": 1}, 5)]),
        write_lines([Line("m", {"n": 1}, 5, refusal=("of another version", ""))]),
        pa.compress(b"no JSON\n", codec="zstd", asbytes=True),
        pa.compress(b"[1]\n", codec="zstd", asbytes=True),
        pa.compress(b'{"method": "m", "parameters": {"n": 1}}\n', codec="zstd", asbytes=True),
    ],
)
def test_a_part_that_cannot_be_read_is_asked_for_again_with_all_that_follows(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, spoilt: bytes
) -> None:
    store, flickr = FolderStore(tmp_path), Flickr()
    first = Journal(store, "j/unit", Flickr())
    for n in range(4):
        first.ask("m", n=n)
    store.write("j/unit~0002.jsonl.zst", spoilt)
    second = Journal(store, "j/unit", flickr)
    assert list(store.list("j/")) == ["j/unit~0001.jsonl.zst"]
    assert "j/unit~0002.jsonl.zst cannot be read" in caplog.text
    assert [line.parameters["n"] for line in (second.ask("m", n=n) for n in range(4))] == [0, 1, 2, 3]
    assert [p["n"] for p in flickr.asked] == [1, 2, 3]
    assert Journal(store, "j/unit", flickr).ask("m", n=0) == first.lines[0]
    second.clear()
    assert list(store.list()) == []


def test_a_kept_answer_that_is_of_no_use_is_asked_for_again(tmp_path: Path) -> None:
    store, flickr = FolderStore(tmp_path), Flickr()
    for _ in range(2):
        journal = Journal(store, "j/unit", flickr, is_usable=lambda line: "n" not in (line.answer or {}))
        journal.ask("m", n=1)
    assert len(flickr.asked) == 2


class _NeverLists(FolderStore):
    def list(self, prefix: str = "") -> Iterator[str]:
        raise AssertionError("thousands of units lie in one folder")


def test_a_journal_never_lists_the_folder_of_all_units(tmp_path: Path) -> None:
    store = _NeverLists(tmp_path)
    for told in ([1, 2, 3], [1, 5, 6]):
        journal = Journal(store, "j/unit", Flickr())
        for n in told:
            journal.ask("m", n=n)
    journal.clear()
    assert not list(tmp_path.rglob("*.zst"))


TEXT = st.text(st.characters(exclude_categories=()), max_size=9)


@given(
    st.lists(
        st.builds(
            Line, TEXT, st.dictionaries(TEXT, TEXT | st.integers()), st.integers(0, 2**40),
            answer=st.dictionaries(TEXT, TEXT | st.integers()),
        ),
        max_size=4,
    )
)  # fmt: skip
def test_lines_are_read_as_they_were_written(lines: list[Line]) -> None:
    assert list(read_lines(write_lines(lines))) == lines
