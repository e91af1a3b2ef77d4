"""Extras: what flickr.photos.search adds to a row when asked for it, by the names under which it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pipeline.sandbox.texts import normalised_tag
from pipeline.sandbox.videos import SandboxVideo

Fields = dict[str, Any]

_POSTER_SIDES = {"sq": 75, "q": 150, "t": 100, "s": 240, "n": 320, "m": 500, "z": 640, "c": 800, "l": 1024}
"""Long sides of the still pictures by the letters in the names of the extras; `sq` and `q` are square."""
_SUFFIXES = {"sq": "_s", "m": "", "l": "_b"}


def loose(text: str) -> str | int:
    """Text that looks like a number, as the number: titles and tags really come so."""
    return int(text) if text.isascii() and text.isdigit() and str(int(text)) == text else text


def taken_text(video: SandboxVideo) -> str:
    """When it was taken; where the camera did not say, Flickr gives the time of the upload."""
    return video.taken or datetime.fromtimestamp(video.posted, UTC).strftime("%Y-%m-%d %H:%M:%S")


def may_download(video: SandboxVideo) -> bool:
    """Whether its owner lets others have the original."""
    return video.license != 0


def original_secret(video: SandboxVideo) -> str:
    """The secret in the original's URL, another than the video's."""
    return f"{int(video.secret, 16) ^ 0x5A5A5A5A5A:010x}"


def poster_url(video: SandboxVideo, base_url: str, suffix: str) -> str:
    """Where the still picture of a video is."""
    return f"{base_url}/{video.server}/{video.video_id}_{video.secret}{suffix}.jpg"


def _poster(name: str) -> Callable[[SandboxVideo, str], Fields]:
    def fields(video: SandboxVideo, base_url: str) -> Fields:
        side, form = _POSTER_SIDES[name], video.form
        if side > 4 * max(form.width, form.height):
            return {}  # no still is larger than what Flickr makes of the video
        width, height = (side, side) if name in ("sq", "q") else _within(form.width, form.height, side)
        url = poster_url(video, base_url, _SUFFIXES.get(name, f"_{name}"))
        # Numbers in some rows, text in others, and not even alike in one row.
        return {f"url_{name}": url, f"width_{name}": width, f"height_{name}": (height, str(height))[video.number % 2]}

    return fields


def _within(width: int, height: int, side: int) -> tuple[int, int]:
    factor = side / max(width, height)
    return max(round(width * factor), 1), max(round(height * factor), 1)


def _original_poster(video: SandboxVideo, base_url: str) -> Fields:
    url = poster_url(video, base_url, "_o")
    return {"url_o": url, "width_o": str(video.form.width), "height_o": str(video.form.height)}


def _geo(video: SandboxVideo, base_url: str) -> Fields:
    place = video.place
    if place is None:
        return {"latitude": 0, "longitude": 0, "accuracy": 0, "context": 0}
    return {
        "latitude": str(place.latitude), "longitude": str(place.longitude), "accuracy": str(place.accuracy),
        "context": 0, "geo_is_public": 1, "geo_is_contact": 0, "geo_is_friend": 0, "geo_is_family": 0,
    } | ({"woeid": "2295019"} if place.locality is not None else {})  # fmt: skip


EXTRAS: dict[str, Callable[[SandboxVideo, str], Fields]] = {
    "description": lambda video, _: {"description": {"_content": video.texts.description}},
    "license": lambda video, _: {"license": str(video.license)},
    "date_upload": lambda video, _: {"dateupload": str(video.posted)},
    "last_update": lambda video, _: {"lastupdate": str(video.posted + 3600)},
    "date_taken": lambda video, _: {
        "datetaken": taken_text(video), "datetakengranularity": "0",
        "datetakenunknown": "1" if video.taken is None else 0,
    },
    "owner_name": lambda video, _: {"ownername": video.owner.username},
    "realname": lambda video, _: {"realname": video.owner.realname},
    "tags": lambda video, _: {"tags": loose(" ".join(normalised_tag(t) for t in video.texts.tags if "=" not in t))},
    "machine_tags": lambda video, _: {"machine_tags": " ".join(t.lower() for t in video.texts.tags if "=" in t)},
    "views": lambda video, _: {"views": str(video.views)},
    "count_views": lambda video, _: {"count_views": str(video.views)},
    "count_faves": lambda video, _: {"count_faves": str(video.views // 40)},
    "count_comments": lambda video, _: {"count_comments": str(len(video.comments))},
    "media": lambda video, _: {
        "media": video.media, "media_status": "processing" if video.trouble == "processing" else "ready",
    },
    "path_alias": lambda video, _: {"pathalias": video.owner.path_alias},
    "geo": _geo,
    "o_dims": lambda video, _: {"o_width": str(video.form.width), "o_height": str(video.form.height)},
    "icon_server": lambda video, _: {"iconserver": "2683", "iconfarm": 3},
    "original_format": lambda video, _: (
        {"originalsecret": original_secret(video), "originalformat": "jpg"} if may_download(video) else {}
    ),
    "safety_level": lambda video, _: {"safety_level": str(video.safety_level)},
    "content_type": lambda video, _: {"content_type": "0"},
    "rotation": lambda video, _: {"rotation": 0},
    "can_download": lambda video, _: {"can_download": int(may_download(video))},
    "can_comment": lambda video, _: {"can_comment": 0},
    "ispro": lambda video, _: {"ispro": video.number % 2},
    "url_o": _original_poster,
    **{f"url_{name}": _poster(name) for name in _POSTER_SIDES},
}  # fmt: skip
"""Every still is a JPEG: Flickr has no extra for a video's duration, nor for its URL."""
