"""How the workers of a crawl ask: where Flickr is, their clients, and the budgets that they share."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

from jobs.launch import Rates
from pipeline.crawl import SearchWorker
from pipeline.enrich import PlayWorker, Stage, StageWorker
from pipeline.errors import UserError
from pipeline.flickr import FLICKR_REST_URL, Flickr, FlickrSettings, key_budgets
from pipeline.limits import Permits, Rate
from pipeline.units import Ledger
from pipeline.windows import Direction


def default_flickr() -> FlickrSettings:
    """Flickr, or the server that the environment names."""
    url, contact = os.environ.get("FLICKR_REST_URL", FLICKR_REST_URL), os.environ.get("FLICKR_CONTACT", "")
    try:
        return FlickrSettings(rest_url=url, contact=contact)
    except ValueError as error:
        raise UserError(f"FLICKR_CONTACT: {error}") from error


def make_searcher(ledger: Ledger, flickr: FlickrSettings, direction: Direction, permits: Permits) -> SearchWorker:
    """A worker for one process; the key is read from that process's environment."""
    return SearchWorker(ledger, Flickr(flickr, permits), direction)


def make_asker(ledger: Ledger, flickr: FlickrSettings, stage: Stage, hash_key: bytes, permits: Permits) -> StageWorker:
    """A worker for one process; the key is read from that process's environment."""
    return StageWorker(ledger, Flickr(flickr, permits), stage, hash_key)


def make_player(ledger: Ledger, address: str, permits: Permits) -> PlayWorker:
    """A worker that asks nobody."""
    return PlayWorker(ledger, address)


def photos_url(flickr: FlickrSettings) -> str:
    """What play URLs begin with."""
    if flickr.rest_url == FLICKR_REST_URL:
        return "https://www.flickr.com/photos/"
    parts = urlsplit(flickr.rest_url)
    return f"{parts.scheme}://{parts.netloc}/photos/"


def flickr_rates(flickr: FlickrSettings) -> Rates:
    """One budget for each key, one for each media host."""
    media = Rate(per_second=flickr.media_per_second, burst=4)
    return Rates(named=dict.fromkeys(key_budgets(flickr), flickr.key_rate), default=media)
