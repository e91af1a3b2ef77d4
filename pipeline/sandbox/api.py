"""The REST methods: parameters in, an answer out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pipeline.sandbox import answers
from pipeline.sandbox.formats import Answer
from pipeline.sandbox.search import ApiError, Index, Query
from pipeline.sandbox.videos import SandboxVideo
from pipeline.sandbox.world import World

Params = Mapping[str, str]

_LICENSES = {
    0: "All Rights Reserved", 4: "CC BY 2.0", 6: "CC BY-ND 2.0", 3: "CC BY-NC-ND 2.0", 2: "CC BY-NC 2.0",
    1: "CC BY-NC-SA 2.0",
    5: "CC BY-SA 2.0", 7: "No known copyright restrictions", 8: "United States Government Work",
    9: "Public Domain Dedication (CC0)",
    10: "Public Domain Mark", 11: "CC BY 4.0", 12: "CC BY-SA 4.0", 13: "CC BY-ND 4.0", 14: "CC BY-NC 4.0",
    15: "CC BY-NC-SA 4.0",
    16: "CC BY-NC-ND 4.0",
}  # fmt: skip
_LIMITING = ("text", "tags", "user_id", "min_upload_date", "max_upload_date", "min_taken_date", "max_taken_date")


@dataclass(frozen=True, kw_only=True, slots=True)
class Api:
    """The methods over one world; `base_url` is what the URLs in its answers begin with."""

    world: World
    index: Index
    base_url: str

    def answer(self, method: str, params: Params, *, shift: int = 0) -> Answer:
        """What the method says. `shift`: rows that slipped in before this page of a search.

        Raises:
            ApiError: the call fails, with Flickr's code and message.
        """
        if params.get("format", "rest") not in ("json", "rest"):
            raise ApiError(111, f'Format "{params["format"]}" not found')
        if method == "flickr.photos.search":
            return self._search(params, shift) | {"stat": "ok"}
        if method not in _METHODS:
            raise ApiError(112, f'Method "{method}" not found')
        return _METHODS[method](self, params) | {"stat": "ok"}

    def _search(self, params: Params, shift: int) -> Answer:
        query = _query(params, shift)
        page = self.index.search(query)
        extras = frozenset(params.get("extras", "").split(","))
        rows = [answers.search_row(video, extras, self.base_url) for video in page.videos]
        head = {"page": page.page, "pages": page.pages, "perpage": page.per_page, "total": page.total}
        return {"photos": head | {"photo": rows}}

    def visible(self, params: Params) -> SandboxVideo:
        """The video that `photo_id` names; deleted and private ones cannot be told apart.

        Raises:
            ApiError: code 1.
        """
        if not params.get("photo_id"):
            raise ApiError(1, "Required parameter missing")
        video = self.world.find(params["photo_id"])
        if video is None:
            raise ApiError(1, f'Photo "{params["photo_id"]}" not found (invalid ID)')
        if video.trouble in ("deleted", "private"):
            raise ApiError(1, "Photo not found")
        return video


def _query(params: Params, shift: int) -> Query:
    if not any(params.get(name) for name in _LIMITING):
        raise ApiError(3, "Parameterless searches have been disabled. Please use flickr.photos.getRecent instead.")
    since, until = _moment(params.get("min_upload_date")), _moment(params.get("max_upload_date"))
    if since is not None and until is not None and since > until:
        raise ApiError(18, "Illogical arguments")
    tags = tuple(tag.strip() for tag in params.get("tags", "").split(",") if tag.strip())
    if len(tags) > 20 and params.get("tag_mode") == "all":
        raise ApiError(1, "Too many tags in ALL query")
    licenses = params.get("license")
    return Query(
        text=params.get("text", ""), tags=tags, all_tags=params.get("tag_mode") == "all",
        media=params.get("media", "all"),
        since=since, until=until,
        licenses=frozenset(int(one) for one in licenses.split(",") if one.isdigit()) if licenses else None,
        owner=params.get("user_id"), has_geo=params.get("has_geo") in ("1", "true"),
        sort=params.get("sort", "date-posted-desc"),
        page=_whole(params.get("page"), 1), per_page=_per_page(params), shift=shift,
    )  # fmt: skip


def _per_page(params: Params) -> int:
    # Geographic queries give at most 250 a page.
    return min(_whole(params.get("per_page"), 100), 250 if params.get("has_geo") in ("1", "true") else 500)


def _whole(text: str | None, default: int) -> int:
    return int(text) if text and text.isascii() and text.isdigit() else default


def _moment(text: str | None) -> int | None:
    """A Unix time or `YYYY-MM-DD hh:mm:ss` as Unix seconds; what cannot be read counts as not given, as at Flickr."""
    if not text:
        return None
    if text.isascii() and text.lstrip("-").isdigit():
        return int(text)
    try:
        return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None


def _info(api: Api, params: Params) -> Answer:
    return answers.info_answer(api.visible(params), api.base_url)


def _sizes(api: Api, params: Params) -> Answer:
    return answers.sizes_answer(api.visible(params), api.base_url)


def _comments(api: Api, params: Params) -> Answer:
    return answers.comments_answer(api.visible(params), api.base_url)


def _location(api: Api, params: Params) -> Answer:
    video = api.visible(params)
    if video.place is None:
        raise ApiError(2, "Photo has no location information.")
    return {"photo": {"id": video.video_id, "location": answers.location_answer(video, names=False)}}


def _exif(api: Api, params: Params) -> Answer:
    video = api.visible(params)
    if video.number % 3 == 0:
        raise ApiError(2, "Permission denied")
    rate: dict[str, Any] = {
        "tagspace": "QuickTime",
        "tagspaceid": 0,
        "tag": "VideoFrameRate",
        "label": "Video Frame Rate",
    }
    rate["raw"] = {"_content": float(round(video.form.rate, 2))}
    return {
        "photo": {
            "id": video.video_id,
            "secret": video.secret,
            "server": video.server,
            "farm": 66,
            "camera": "",
            "exif": [rate],
        }
    }


def _licenses(api: Api, params: Params) -> Answer:
    rows = [{"id": number, "name": name, "url": ""} for number, name in _LICENSES.items()]
    return {"licenses": {"license": rows}}


def _echo(api: Api, params: Params) -> Answer:
    return {name: {"_content": value} for name, value in params.items()}


def _methods(api: Api, params: Params) -> Answer:
    return {"methods": {"method": [{"_content": name} for name in sorted([*_METHODS, "flickr.photos.search"])]}}


_METHODS: dict[str, Callable[[Api, Params], Answer]] = {
    "flickr.photos.getInfo": _info,
    "flickr.photos.getSizes": _sizes,
    "flickr.photos.comments.getList": _comments,
    "flickr.photos.geo.getLocation": _location,
    "flickr.photos.getExif": _exif,
    "flickr.photos.licenses.getInfo": _licenses,
    "flickr.test.echo": _echo,
    "flickr.reflection.getMethods": _methods,
}
