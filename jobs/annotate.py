"""Countries, and entities from titles, tags and descriptions.

Reads the shards' Parquet; writes annotations/annotations.parquet (video_id, country_iso, entities). Countries come
from Flickr's own place names. Entities come from a zero-shot NLI model (facebook/bart-large-mnli in the paper, A.2),
given by `--model`; without one they are left out. Costs about 24 model passes per distinct text.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import pyarrow as pa
import pyarrow.parquet as pq
import tyro

from jobs.progress import say, show_outcomes
from pipeline.errors import UserError
from pipeline.places import locate
from pipeline.records import SCHEMA, VideoRecord, from_row
from pipeline.shards import read_rows
from pipeline.store import Store, open_store

ANNOTATIONS_KEY = "annotations/annotations.parquet"
_SCHEMA = pa.schema([
    ("video_id", pa.string()), ("country_iso", pa.string()), ("entities", pa.list_(pa.string())),
])  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to annotate with."""

    root: Annotated[str, tyro.conf.Positional]
    """Folder or s3://bucket/prefix with shards."""
    model: str | None = None
    """A folder with an NLI model, or its name on the hub, for example facebook/bart-large-mnli."""
    threshold: float = 0.5
    """An entity is kept from this probability of entailment on."""


def run(config: Config) -> int:
    """Annotate every record of the root."""
    store = open_store(config.root)
    rows = read_rows(store, columns=SCHEMA.names)
    records = [from_row(row) for row in rows.to_pylist()]
    if not records:
        raise UserError(f"{store.url} holds no shards: run `noisyactions build` on it first")
    countries, basis = locate(records)
    show_outcomes("places", Counter[str]({str(name): count for name, count in basis.items()}))
    entities: Mapping[str, Sequence[str]] = {}
    if config.model is None:
        say("no --model: entities are left out")
    else:
        entities = _entities(records, config.model, config.threshold)
    _write(store, records, countries, entities)
    say(f"{len(countries):,} of {len(records):,} videos have a country; wrote {store.url}/{ANNOTATIONS_KEY}")
    return 0


def _entities(records: list[VideoRecord], model: str, threshold: float) -> Mapping[str, Sequence[str]]:
    from pipeline.entities import EntityModel, EntitySettings, find_entities  # torch only where it is needed

    found = find_entities(records, model=EntityModel(EntitySettings(model=model, threshold=threshold)))
    mean = sum(map(len, found.values())) / max(1, len(found))
    say(f"{mean:.1f} entities a video")
    return found


def _write(
    store: Store, records: list[VideoRecord], countries: Mapping[str, str], entities: Mapping[str, Sequence[str]]
) -> None:
    rows = [
        {
            "video_id": r.video_id,
            "country_iso": countries.get(r.video_id),
            "entities": list(entities.get(r.video_id, ())),
        }
        for r in records
    ]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), buffer, compression="zstd")
    store.write(ANNOTATIONS_KEY, buffer.getvalue())
