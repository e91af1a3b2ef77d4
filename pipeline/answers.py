"""Flickr's JSON answers -> fields of a VideoRecord. Types vary from answer to answer, so everything is coerced."""

from __future__ import annotations

import hashlib
import hmac
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
    return "" if value is None else str(value)


def _number(value: Any) -> int | None:
    text = _text(value).strip()
    try:
        return int(float(text))
    except ValueError:
        return None


def _place(answer: Answer) -> tuple[float | None, float | None]:
    """Latitude and longitude; None where Flickr says 0 for unknown, or gives no accuracy."""
    try:
        latitude, longitude = float(answer.get("latitude", 0)), float(answer.get("longitude", 0))
    except (TypeError, ValueError):
        return None, None
    if (latitude, longitude) == (0.0, 0.0) or not _number(answer.get("accuracy")):
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
        license=_number(photo.get("license")),
        owner=_text(photo.get("owner")) or None,
        secret=_text(photo.get("secret")) or None,
        views=_number(photo.get("views")),
        found=(found,),
    )


def with_info(record: VideoRecord, answer: Answer) -> VideoRecord:
    """The record enriched by flickr.photos.getInfo: duration, country, raw tags, and whether it can be played."""
    photo = answer["photo"]
    video = photo.get("video") or {}
    dates = photo.get("dates") or {}
    location = photo.get("location") or {}
    latitude, longitude = _place(location)
    tags = tuple(_text(tag.get("raw") or tag) for tag in (photo.get("tags") or {}).get("tag", ()))
    return replace(
        record,
        title=_text(photo.get("title")),
        description=_text(photo.get("description")),
        tags=tuple(tag for tag in tags if tag) or record.tags,
        posted=_number(dates.get("posted")),
        taken=_taken(_text(dates.get("taken")), dates.get("takenunknown")),
        latitude=latitude,
        longitude=longitude,
        country=_text(location.get("country")) or None,
        duration_seconds=_number(video.get("duration")),
        license=_number(photo.get("license")),
        owner=_text((photo.get("owner") or {}).get("nsid")) or record.owner,
        secret=_text(photo.get("secret")) or record.secret,
        views=_number(photo.get("views")),
        dropped=_unplayable(photo),
    )


def _unplayable(photo: Answer) -> str | None:
    video = photo.get("video") or {}
    if _text(photo.get("media")) == "photo":
        return "not_a_video"
    if _number(video.get("failed")):
        return "never_playable"
    return "still_processing" if _number(video.get("ready")) == 0 else None


def has_comments(answer: Answer) -> bool:
    """Whether flickr.photos.getInfo counts any comment."""
    return bool(_number(answer["photo"].get("comments")))


def renditions_of_sizes(answer: Answer) -> tuple[Rendition, ...]:
    """Playable sizes in flickr.photos.getSizes: never the posters, never the dead Flash player."""
    sizes = answer["sizes"].get("size", ())
    return tuple(
        Rendition(
            label=_text(size["label"]),
            url=_text(size["source"]),
            width=_number(size.get("width")),
            height=_number(size.get("height")),
        )
        for size in sizes
        if _text(size.get("media")) == "video" and _text(size.get("label")) != "Video Player"
    )


def comments_of_list(answer: Answer, *, hash_key: bytes) -> tuple[Comment, ...]:
    """Comments of flickr.photos.comments.getList, their authors as a keyed hash only."""
    return tuple(
        Comment(
            author_hash=hmac.new(hash_key, _text(comment.get("author")).encode(), hashlib.sha256).hexdigest()[:16],
            text=_text(comment),
            posted=_number(comment.get("datecreate")) or 0,
        )
        for comment in answer["comments"].get("comment", ())
    )


def without_authors(answer: Answer) -> Answer:
    """A comments answer as it may be kept: personal data of the authors left out."""
    personal = {"author", "authorname", "realname", "path_alias", "permalink", "iconserver", "iconfarm"}
    kept = [{k: v for k, v in c.items() if k not in personal} for c in answer["comments"].get("comment", ())]
    return {**answer, "comments": {**answer["comments"], "comment": kept}}


def utc_now() -> int:
    """Unix seconds."""
    return int(datetime.now(UTC).timestamp())
