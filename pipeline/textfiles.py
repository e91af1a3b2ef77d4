"""Files that people have from elsewhere: lines, CSV and JSON, read as streams, with the line at which they go wrong.

A file of another kind is a mistake of the user's: every reader here answers it with one line that says what was
expected, where, and what was found. Nothing holds a whole file: some caption files have millions of lines.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

_LONGEST_LINE_BYTES = 1 << 26
_CHUNK_CHARACTERS = 1 << 16
_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder()
_NUMBER_GOES_ON = ".eE+-0123456789"
_CUT_SHORT_CHARACTERS = 16
"""An error this near to the end of what was read may only be a value that goes on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Format:
    """One kind of official file."""

    read: Callable[[Path], Iterable[str]]
    """Its names or captions, in the file's order."""
    file: str
    """The official file's name and how a line of it looks, for people."""
    classes: tuple[int, ...] = ()
    """How many classes its official versions have; empty where that varies."""


def read_as(path: Path, *, format: str, formats: Mapping[str, Format]) -> Iterator[str]:  # noqa: A002
    """What `formats[format]` reads in the file; its errors name the format and the official file.

    Raises:
        UserError: the format is unknown, or the file cannot be read or is not of that format.
    """
    if format not in formats:
        raise UserError(f"format {format!r} is not one of {', '.join(formats)}: use 'plain' for a simple list")
    try:
        yield from formats[format].read(path)
    except UserError as error:
        raise UserError(f"{error} (format {format!r} is {formats[format].file})") from error


def wrong(path: Path, number: int, found: str, expected: str) -> UserError:
    """Line `number` is not what the format has there."""
    return UserError(f"{path}, line {number}: expected {expected}, found {found.strip()[:80]!r}")


def _unreadable(path: Path, error: OSError) -> UserError:
    return UserError(f"{path}: cannot be read ({error.strerror}): check the path")


def _not_text(path: Path, number: int) -> UserError:
    return UserError(f"{path}, line {number}: not text in UTF-8: is it the right file, and unpacked?")


def _decoded(path: Path) -> Iterator[tuple[int, str]]:
    """Every line with its end, with its 1-based number."""
    try:
        with path.open("rb") as file:
            # Decoded line by line: only so is the number of a bad line known.
            for number, line in enumerate(iter(lambda: file.readline(_LONGEST_LINE_BYTES), b""), start=1):
                if b"\0" in line or len(line) == _LONGEST_LINE_BYTES:
                    raise _not_text(path, number)
                try:
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise _not_text(path, number) from error
    except OSError as error:
        raise _unreadable(path, error) from error


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with something on them, without surrounding spaces or the line's end, with their 1-based number."""
    for number, line in _decoded(path):
        if line.strip():
            yield number, line.strip(" \r\n")


def rows(path: Path, *columns: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows of a CSV file whose header has these columns, each with the number of the line where it ends."""
    expected = f"a CSV header with {', '.join(map(repr, columns))}"
    reader = csv.reader((line for _, line in _decoded(path)), strict=True)
    header: list[str] = []
    try:
        for row in reader:
            if not header:
                header = [name.strip() for name in row]
                if not set(columns) <= set(header):
                    raise wrong(path, reader.line_num, ",".join(row), expected)
            elif row and len(row) != len(header):
                values = f"{len(header)} comma-separated values as in the header"
                raise wrong(path, reader.line_num, ",".join(row), values)
            elif row:
                yield reader.line_num, dict(zip(header, row, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}, line {reader.line_num}: not CSV ({error}): is the file whole?") from error
    if not header:
        raise wrong(path, 1, "", expected)


class _Json:
    """A cursor over JSON text that holds one value at a time."""

    def __init__(self, path: Path, file: io.TextIOBase, expected: str) -> None:
        self._path, self._file, self._expected = path, file, expected
        self._text, self._at, self._line = "", 0, 1

    def _more(self) -> bool:
        """Read on: at least as much again as is waiting, so that a large value costs linear time."""
        self._line += self._text.count("\n", 0, self._at)
        self._text = self._text[self._at :]
        self._at = 0
        try:
            read = self._file.read(max(_CHUNK_CHARACTERS, len(self._text)))
        except UnicodeDecodeError as error:
            raise _not_text(self._path, self._line + self._text.count("\n")) from error
        self._text += read
        return bool(read)

    def _wrong(self) -> UserError:
        found = self._text[self._at : self._at + 80] or "the end of the file"
        return wrong(self._path, self._line + self._text.count("\n", 0, self._at), found, self._expected)

    def _peek(self) -> str:
        while True:
            space = _SPACE.match(self._text, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _take(self, choices: str) -> str:
        character = self._peek()
        if not character or character not in choices:
            raise self._wrong()
        self._at += 1
        return character

    def value(self) -> Any:
        """The value that begins here."""
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                near_the_end = error.pos >= len(self._text) - _CUT_SHORT_CHARACTERS
                inside = error.pos - self._at
                if (near_the_end or error.msg.startswith("Unterminated")) and self._more():
                    continue
                self._at += inside
                raise self._wrong() from error
            # A number at the end of what was read may go on.
            length = end - self._at
            if self._text[end : end + 1] in _NUMBER_GOES_ON and self._more():
                continue
            self._at += length
            return value

    def names(self) -> Iterator[str | int]:
        """Names in an object or positions in an array; the caller takes each value before it asks for the next."""
        opening = self._take("[{")
        closing = "]" if opening == "[" else "}"
        if self._peek() == closing:
            self._take(closing)
            return
        position = 0
        while True:
            name: str | int = position
            if opening == "{":
                name = self.value() if self._peek() == '"' else self._take('"')
                self._take(":")
            yield name
            position += 1
            if self._take("," + closing) == closing:
                return

    def items(self) -> Iterator[tuple[str | int, Any]]:
        """The items of the object or array that begins here."""
        for name in self.names():
            yield name, self.value()

    def skip(self) -> None:
        """Pass over the value that begins here, however large."""
        if self._peek() in ("[", "{"):
            for _ in self.names():
                self.value()
        else:
            self.value()

    def end(self) -> None:
        """Nothing may follow."""
        if self._peek():
            raise self._wrong()


def json_items(path: Path, *, expected: str, key: str | None = None) -> Iterator[tuple[str | int, Any]]:
    """Items of a JSON object (name, value) or array (position, value), one in memory at a time.

    Args:
        path: the file.
        expected: how the file should look, for the error.
        key: the member of the top-level object whose items are meant; None is the top level itself.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            cursor, found = _Json(path, file, expected), key is None
            if key is None:
                yield from cursor.items()
            else:
                for name in cursor.names():
                    if name == key:
                        found = True
                        yield from cursor.items()
                    else:
                        cursor.skip()
            cursor.end()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not found:
        raise UserError(f"{path}: expected {expected}, but it has no {key!r}")
