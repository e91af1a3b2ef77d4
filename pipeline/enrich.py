"""What search does not tell: duration, country, comments and play URLs, for chunks of records."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.answers import comments_of_list, has_comments, renditions_of_sizes, with_info, without_authors
from pipeline.crawl import commit_answers
from pipeline.errors import Dropped
from pipeline.flickr import Flickr
from pipeline.records import VideoRecord, from_parquet, to_parquet
from pipeline.units import Finished, Ledger, Unit

VIDEOS_PER_UNIT = 50


def enrich_units(records: Sequence[VideoRecord]) -> list[Unit]:
    """Records, sorted by id, in chunks named by their place and their ids: other records are other units."""
    units = []
    for start in range(0, len(records), VIDEOS_PER_UNIT):
        chunk = records[start : start + VIDEOS_PER_UNIT]
        digest = hashlib.sha256(" ".join(r.video_id for r in chunk).encode()).hexdigest()[:8]
        units.append(Unit(f"{start // VIDEOS_PER_UNIT:06d}-{digest}", to_parquet(chunk)))
    return units


@dataclass(frozen=True, slots=True)
class EnrichWorker:
    """Asks getInfo and getSizes for each video of a chunk, and comments where there are any."""

    ledger: Ledger
    flickr: Flickr
    hash_key: bytes
    """Keys the hash of comment authors; kept with the root, worthless elsewhere."""

    def __call__(self, unit: Unit) -> Finished:
        """Enrich the chunk and commit it; a video that is gone stays, with its reason."""
        answers: list[dict[str, Any]] = []
        counts: Counter[str] = Counter()
        records = []
        for record in from_parquet(unit.payload):
            try:
                enriched = self._enrich(record, answers)
            except Dropped as drop:
                enriched = replace(record, dropped=drop.reason)
            counts[enriched.dropped or "ok"] += 1
            records.append(enriched)
        counts["calls"] = len(answers)
        commit_answers(self.ledger, unit, records, answers, counts)
        return Finished(unit.name, counts)

    def close(self) -> None:
        """Nothing is held."""

    def _enrich(self, record: VideoRecord, answers: list[dict[str, Any]]) -> VideoRecord:
        def ask(method: str) -> dict[str, Any]:
            parameters = {"photo_id": record.video_id}
            answer = self.flickr.call(method, **parameters)
            kept = without_authors(answer) if "comments.getList" in method else answer
            answers.append({"method": method, "parameters": parameters, "answer": kept})
            return answer

        info = ask("flickr.photos.getInfo")
        record = with_info(record, info)
        if has_comments(info):
            comments = comments_of_list(ask("flickr.photos.comments.getList"), hash_key=self.hash_key)
            record = replace(record, comments=comments)
        if record.dropped:
            return record
        renditions = renditions_of_sizes(ask("flickr.photos.getSizes"))
        return replace(record, renditions=renditions, dropped=None if renditions else "no_video_url")
