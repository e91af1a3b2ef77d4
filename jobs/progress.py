"""What a person sees while a verb works and when it ends: rate and ETA, tables of outcomes."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

_PLAIN_LINE_SECONDS = 5.0
_PLAIN_WIDTH = 120


def console() -> Console:
    """Where people read: standard output, plain and wide where it is no terminal."""
    if sys.stdout.isatty():
        return Console(highlight=False)
    return Console(highlight=False, soft_wrap=True, width=_PLAIN_WIDTH)


def say(text: str) -> None:
    """One line."""
    console().print(text, markup=False)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table; numbers to the right."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        numeric = bool(rows) and all(isinstance(row[number], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(f"{cell:,}" if isinstance(cell, int) else str(cell)) for cell in row))
    console().print(table)


def show_outcomes(title: str, counts: Mapping[str, int]) -> None:
    """Counts by outcome, the most frequent first."""
    total = sum(counts.values()) or 1
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    show_table(title, ("outcome", "count", "share"), [(k, n, f"{n / total:.1%}") for k, n in ordered])


def duration(seconds: float) -> str:
    """`42 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


class Bar:
    """Progress over a known number of things: a live bar on a terminal, a line now and then elsewhere."""

    def __init__(self, label: str, *, total: int, noun: str, done: int = 0) -> None:
        self._label, self._total, self._noun = label, total, noun
        self._done = self._before = done
        self._start = time.monotonic()
        self._told = self._start
        self._live: Progress | None = None

    def __enter__(self) -> Self:
        if sys.stdout.isatty():
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
            )
            self._live = Progress(
                *columns, TextColumn("{task.fields[rate]}", markup=False), TimeRemainingColumn(), transient=True
            )
            self._task = self._live.add_task(self._label, total=self._total, completed=self._done, rate="")
            self._live.start()
        elif self._before:
            say(f"{self._label}: {self._before:,} of {self._total:,} {self._noun} were done before")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
        if error is None:
            fresh, seconds = self._done - self._before, time.monotonic() - self._start
            say(f"{self._label}: {fresh:,} {self._noun} in {duration(seconds)} ({self._rate()})")

    def advance(self, count: int = 1, *, note: str = "") -> None:
        """`count` more are done; `note` is shown beside the rate."""
        self._done += count
        text = f"{self._rate()} {note}".rstrip()
        if self._live is not None:
            self._live.update(self._task, advance=count, total=max(self._total, self._done), rate=text)
        elif time.monotonic() - self._told >= _PLAIN_LINE_SECONDS and self._done < self._total:
            self._told = time.monotonic()
            say(f"{self._label}: {self._done:,} of {self._total:,} {self._noun}, {text}, {self._eta()} left")

    def reach(self, done: int, *, note: str = "") -> None:
        """`done` are done in all."""
        self.advance(done - self._done, note=note)

    def expect(self, total: int) -> None:
        """There is more to do than was known."""
        self._total = total

    def _per_second(self) -> float:
        return (self._done - self._before) / max(1e-9, time.monotonic() - self._start)

    def _rate(self) -> str:
        per_second = self._per_second()
        return f"{per_second:,.1f} a second" if per_second >= 1 else f"{per_second * 60:,.1f} a minute"

    def _eta(self) -> str:
        per_second = self._per_second()
        return duration((self._total - self._done) / per_second) if per_second else "unknown time"
