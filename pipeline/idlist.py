"""A released list of Flickr ids, `id label|label` a line as NoisyActions2M's, to be looked up again: rehydrated."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.crawl import put
from pipeline.errors import UserError
from pipeline.records import VideoRecord, to_parquet
from pipeline.splits import parse_split
from pipeline.units import Ledger, Unit

REJECTS_KEY = "ids/rejects.csv"
_IDS_PER_UNIT = 50_000


@dataclass(frozen=True, slots=True)
class Reject:
    """A line that names no video."""

    line: int
    """Counting from 1."""
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class IdList:
    """What a list asks for."""

    records: Sequence[VideoRecord]
    """A record per id, with its labels, sorted by id."""
    rejects: Sequence[Reject]


def read_idlist(path: Path, *, classes: Path | None = None) -> IdList:
    """Read a list; with the class file its labels are names. Lines that are wrong are rejects, the others go on.

    Raises:
        UserError: a file is missing or not text, the class list is wrong, or no line is right.
    """
    names = () if classes is None else parse_split("", classes=_text(classes))[0]
    labelled: dict[str, set[str]] = {}
    rejects: list[Reject] = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        video_id, _, labels = line.strip().partition(" ")
        if not line.strip():
            continue
        try:
            checked = _checked(video_id)
            found = _names(labels, names) if classes is not None else set()
            labelled.setdefault(checked, set()).update(found)
        except ValueError as error:
            rejects.append(Reject(number, line[:200], str(error)))
    if not labelled:
        told = f": line {rejects[0].line} is {rejects[0].text[:60]!r} ({rejects[0].why})" if rejects else ""
        raise UserError(f"{path} holds no ids{told}; expected lines such as '4960396261 17|4'")
    records = [VideoRecord(video_id=i, concepts=tuple(sorted(labelled[i]))) for i in sorted(labelled)]
    return IdList(records, rejects)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"id list {path} cannot be read ({error.strerror}): check the path") from error
    except UnicodeDecodeError as error:
        raise UserError(f"id list {path} is not text in UTF-8 (byte {error.start})") from error


def _checked(video_id: str) -> str:
    plain = video_id.removesuffix(".mp4").removesuffix(".avi")
    if not (plain.isascii() and plain.isdecimal()) or len(plain) > 20:
        raise ValueError("no Flickr id")
    return plain


def _names(labels: str, names: Sequence[str]) -> set[str]:
    found = set()
    for word in filter(None, labels.strip().split("|")):
        if not (word.isascii() and word.isdecimal()) or not 1 <= int(word) <= len(names):
            raise ValueError(f"label {word[:20]!r} is not one of the classes 1 to {len(names)}")
        found.add(names[int(word) - 1])
    return found


def commit_idlist(ledger: Ledger, listed: IdList) -> None:
    """Commit the records as what was found, and keep the rejects in `ids/rejects.csv`."""
    done = ledger.open()
    for unit, chunk in _units(listed.records):
        if unit.name not in done:
            output = put(ledger, f"records/{unit.name}", "parquet", to_parquet(chunk))
            ledger.commit(unit, {"videos": len(chunk)}, (output,))
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["line", "text", "why"])
    writer.writerows([reject.line, reject.text, reject.why] for reject in listed.rejects)
    ledger.store.write(REJECTS_KEY, out.getvalue().encode())


def _units(records: Sequence[VideoRecord]) -> Iterator[tuple[Unit, Sequence[VideoRecord]]]:
    for start in range(0, len(records), _IDS_PER_UNIT):
        chunk = records[start : start + _IDS_PER_UNIT]
        told = " ".join(f"{r.video_id}:{'|'.join(r.concepts)}" for r in chunk)
        yield Unit(f"{chunk[0].video_id}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"), chunk
