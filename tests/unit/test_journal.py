from pathlib import Path
from typing import Any

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
