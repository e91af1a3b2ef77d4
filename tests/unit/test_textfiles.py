import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import textfiles
from pipeline.errors import UserError
from pipeline.textfiles import json_items, lines, rows

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)

LISTS = st.lists(VALUES, max_size=4)
OBJECTS = st.dictionaries(st.text(max_size=5), VALUES, max_size=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("texts")


@settings(max_examples=60, deadline=None)
@given(
    value=st.lists(VALUES, max_size=4) | st.dictionaries(st.text(max_size=5), VALUES, max_size=4),
    chunk=st.integers(1, 9),
)
def test_json_read_in_small_pieces_is_what_json_reads(folder, value, chunk):
    path = folder / "value.json"
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(textfiles, "_CHUNK_CHARACTERS", chunk)
        found = list(json_items(path, expected="anything"))
        assert found == list(value.items() if isinstance(value, dict) else enumerate(value))
        nested = folder / "nested.json"
        nested.write_text(json.dumps({"other": [value, 1.5], "here": value, "last": "x"}))
        assert list(json_items(nested, key="here", expected="anything")) == found


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ('{"a": [1,\n2', r"line 2: expected numbers, found 'the end of the file'"),
        ('{"a": [1,\n2 3]}', r"line 2: expected numbers, found '3\]}'"),
        ('{"a": [1]} {', r"line 1: expected numbers, found '{'"),
        ('{"a": [tru]}', r"line 1: expected numbers, found 'tru\]}'"),
        ('{"a": "unfinished', r"line 1: expected numbers, found '\"unfinished'"),
        ("{1: 2}", r"line 1: expected numbers, found '1: 2}'"),
        ("just words", r"line 1: expected numbers, found 'just words'"),
        ("", r"line 1: expected numbers, found 'the end of the file'"),
        ('{"b": [1]}', r"expected numbers, but it has no 'a'"),
    ],
)
def test_broken_json_is_told_with_its_line(tmp_path, content, match):
    path = tmp_path / "x.json"
    path.write_text(content)
    with pytest.raises(UserError, match=match):
        list(json_items(path, key="a", expected="numbers"))


def test_an_error_in_the_middle_of_a_large_file_does_not_read_on_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(textfiles, "_CHUNK_CHARACTERS", 1000)
    path = tmp_path / "x.json"
    path.write_text("[" + "1,\n" * 1000 + "oops" + ",\n1" * 1000 + "]")
    with pytest.raises(UserError, match="line 1001: expected numbers, found 'oops"):
        list(json_items(path, expected="numbers"))


def test_a_large_json_file_is_never_in_memory(tmp_path):
    path = tmp_path / "x.json"
    item = json.dumps({"regions": [{"phrase": "a man on a horse"}] * 50})
    with path.open("w") as file:
        file.write('{"images": [' + ", ".join([item] * 3000) + '], "annotations": [' + ", ".join([item] * 3000) + "]}")
    tracemalloc.start()
    count = sum(1 for _ in json_items(path, key="annotations", expected="images"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 3000
    assert peak < 3_000_000 < path.stat().st_size / 3


def test_lines_have_their_numbers_and_other_ends_are_no_ends(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\n\r\n two\tx\t\n\xe2\x80\xa8three \x0b four\n\n")
    assert list(lines(path)) == [(1, "one"), (3, "two\tx\t"), (4, "\N{LINE SEPARATOR}three \x0b four")]


def test_a_bad_line_of_a_text_file_is_named(tmp_path):
    path = tmp_path / "x.txt"
    path.write_bytes(b"fine\nfine\nna\xefve\n")
    with pytest.raises(UserError, match=r"x.txt, line 3: not text in UTF-8"):
        list(lines(path))
    with pytest.raises(UserError, match=r"cannot be read .Is a directory"):
        list(lines(tmp_path))
    path.write_text("a,b\n1,2\n1,2,3\n")
    with pytest.raises(UserError, match="line 3: expected 2 comma-separated values"):
        list(rows(path, "b"))
