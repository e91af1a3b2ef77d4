"""Flickr's JSON answers -> fields of a VideoRecord. Types vary from answer to answer, so everything is coerced."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pipeline.records import Comment, Found, Rendition, VideoRecord

Answer = Mapping[str, Any]


def _text(value: Any) -> str:
    """Text of `"x"`, of `{"_content": "x"}` or of a number that was a title."""
    if isinstance(value, Mapping):
        value = value.get("_content")
    # Half of a surrogate pair, as a cut emoji leaves it, is no text that a file can hold.
    return "" if value is None else str(value).encode("utf-8", "replace").decode()


def _number(value: Any, *, most: int = 2**53) -> int | None:
    """A whole number, or None for what is none or beyond `most`."""
    try:
        number = float(_text(value))
    except ValueError:
        return None
    return int(number) if abs(number) <= most else None


def _small(value: Any) -> int | None:
    """A whole number that fits in 32 bits."""
    return _number(value, most=2**31 - 1)


def _object(value: Any) -> Answer:
    """A JSON object; where there should be one, but is not, an empty one."""
    return value if isinstance(value, Mapping) else {}


def _objects(value: Any) -> list[Answer]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _place(answer: Answer) -> tuple[float | None, float | None]:
    """Latitude and longitude; None where Flickr says 0 for unknown, or gives no accuracy."""
    try:
        latitude, longitude = float(answer.get("latitude", 0)), float(answer.get("longitude", 0))
    except (TypeError, ValueError):
        return None, None
    on_earth = math.hypot(latitude, longitude) > 0 and abs(latitude) <= 90 and abs(longitude) <= 180
    if not on_earth or not _number(answer.get("accuracy")):
        return None, None
    return latitude, longitude


def _taken(when: str, unknown: Any) -> str | None:
    """ISO time of the camera's clock; an unknown one is only the time of the upload, so it is None."""
    if _number(unknown):
        return None
    try:
        return datetime.fromisoformat(when).isoformat()
    except ValueError:
        return None


def video_of_search(photo: Answer, found: Found) -> VideoRecord:
    """What flickr.photos.search says of one video."""
    latitude, longitude = _place(photo)
    return VideoRecord(
        video_id=_text(photo["id"]),
        title=_text(photo.get("title")),
        description=_text(photo.get("description")),
        tags=tuple(_text(photo.get("tags")).split()),
        posted=_number(photo.get("dateupload")),
        taken=_taken(_text(photo.get("datetaken")), photo.get("datetakenunknown")),
        latitude=latitude,
        longitude=longitude,
        license=_small(photo.get("license")),
        owner=_text(photo.get("owner")) or None,
        secret=_text(photo.get("secret")) or None,
        views=_number(photo.get("views")),
        num_comments=_number(photo.get("count_comments", "")),
        safety_level=_small(photo.get("safety_level", "")),
        found=(found,),
    )


def with_info(record: VideoRecord, answer: Answer) -> VideoRecord:
    """The record enriched by flickr.photos.getInfo: duration, country, raw tags, and whether it can be played."""
    photo = _object(answer["photo"])
    video, dates, location = (_object(photo.get(name)) for name in ("video", "dates", "location"))
    latitude, longitude = _place(location)
    tags = tuple(_text(tag.get("raw") or tag) for tag in _objects(_object(photo.get("tags")).get("tag")))
    return replace(
        record,
        title=_text(photo.get("title")),
        description=_text(photo.get("description")),
        tags=tuple(tag for tag in tags if tag) or record.tags,
        posted=_number(dates.get("posted")) or record.posted,
        taken=_taken(_text(dates.get("taken")), dates.get("takenunknown")),
        latitude=latitude,
        longitude=longitude,
        country=_text(location.get("country")) or None,
        duration_seconds=_number(video.get("duration")),
        license=_small(photo.get("license")),
        owner=_text(_object(photo.get("owner")).get("nsid")) or record.owner,
        secret=_text(photo.get("secret")) or record.secret,
        views=_number(photo.get("views")),
        num_comments=_number(photo.get("comments")) or 0,
        safety_level=_small(photo.get("safety_level", "")),
        dropped=_unplayable(photo),
    )


def _unplayable(photo: Answer) -> str | None:
    video = _object(photo.get("video"))
    if _text(photo.get("media")) == "photo":
        return "not_a_video"
    if _number(video.get("failed")):
        return "never_playable"
    return "still_processing" if _number(video.get("ready")) == 0 else None


def renditions_of_sizes(answer: Answer) -> tuple[Rendition, ...]:
    """Playable sizes in flickr.photos.getSizes: never the posters, never the dead Flash player."""
    sizes = _objects(_object(answer["sizes"]).get("size"))
    return tuple(
        Rendition(
            label=_text(size.get("label")),
            url=_text(size["source"]),
            width=_small(size.get("width")),
            height=_small(size.get("height")),
        )
        for size in sizes
        if _text(size.get("media")) == "video" and _text(size.get("label")) != "Video Player" and size.get("source")
    )


def comments_of_list(answer: Answer) -> tuple[Comment, ...]:
    """Comments of flickr.photos.comments.getList after `hashed_authors`."""
    return tuple(
        Comment(
            author_hash=_text(comment.get("author")),
            text=_text(comment),
            posted=_number(comment.get("datecreate", "")) or 0,
        )
        for comment in _objects(_object(answer["comments"]).get("comment"))
    )


def hashed_authors(answer: Mapping[str, Any], *, hash_key: bytes) -> dict[str, Any]:
    """A comments answer as it may be kept: an author is a keyed hash, the same on one root, and nothing else."""
    comments = _object(answer.get("comments"))
    kept = [
        {
            "author": hmac.new(hash_key, _text(comment.get("author")).encode(), hashlib.sha256).hexdigest()[:16],
            "datecreate": comment.get("datecreate", ""),
            "_content": _text(comment),
        }
        for comment in _objects(comments.get("comment"))
    ]
    return {**answer, "comments": {"photo_id": comments.get("photo_id"), "comment": kept}}


_NAMES_OF_PEOPLE = frozenset({
    "ownername", "pathalias", "path_alias", "username", "realname", "iconserver", "iconfarm", "icon_urls",
    "author", "authorname", "author_is_deleted", "notes", "people", "urls",
})  # fmt: skip
"""What tells who somebody is beyond an id; `urls` are pages whose addresses hold a member's chosen name."""


def nameless_search(answer: Answer) -> dict[str, Any]:
    """A search answer as it may be kept: of an owner only the id, for attribution and takedown."""
    photos = _object(answer.get("photos"))
    rows = [_nameless(row) for row in _objects(photos.get("photo"))]
    return {**answer, "photos": {**photos, "photo": rows}}


def nameless_info(answer: Answer) -> dict[str, Any]:
    """A getInfo answer as it may be kept: of the owner only the id, of others who tagged or noted nothing."""
    photo = _object(answer.get("photo"))
    kept = _nameless(photo)
    if "owner" in photo:
        kept["owner"] = {"nsid": _object(photo["owner"]).get("nsid")}
    if "tags" in photo:
        tags = _objects(_object(photo["tags"]).get("tag"))
        # A tag's id begins with the number of the member who gave it.
        kept["tags"] = {"tag": [{name: tag[name] for name in ("raw", "_content") if name in tag} for tag in tags]}
    return {**answer, "photo": kept}


def nameless_sizes(answer: Answer) -> dict[str, Any]:
    """A getSizes answer as it may be kept: without pages; where a video plays stays, though it may name its owner."""
    sizes = _object(answer.get("sizes"))
    kept = [{name: value for name, value in size.items() if name != "url"} for size in _objects(sizes.get("size"))]
    return {**answer, "sizes": {**sizes, "size": kept}}


def _nameless(photo: Answer) -> dict[str, Any]:
    return {name: value for name, value in photo.items() if name not in _NAMES_OF_PEOPLE}


def utc_now() -> int:
    """Unix seconds."""
    return int(datetime.now(UTC).timestamp())
