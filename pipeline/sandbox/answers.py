"""Answers: a video in the shapes of the API's methods, with the types as mixed up as they are in the wild."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pipeline.sandbox.extras import EXTRAS, loose, may_download, original_secret, poster_url, taken_text
from pipeline.sandbox.people import Person
from pipeline.sandbox.texts import normalised_tag
from pipeline.sandbox.videos import SandboxVideo

_MODERN = ("appletv", "700", "360p", "iphone_wifi", "288p")
_SITE = {"Site MP4": "site", "Mobile MP4": "mobile", "HD MP4": "hd"}
_SHORT_SIDES = {"288p": 288, "360p": 360, "720p": 720, "Site MP4": 360, "Mobile MP4": 288, "HD MP4": 720}


def labels_of(video: SandboxVideo) -> list[str]:
    """The sizes in which the video is offered: by its age, as Flickr's encoders changed; none if it does not play."""
    if video.media == "photo" or video.trouble in ("player_only", "processing", "failed"):
        return []
    year = datetime.fromtimestamp(video.posted, UTC).year
    if year < 2011:
        return ["700", "iphone_wifi"]
    if 2015 <= year <= 2016:
        return list(_SITE)
    return ["720p", *_MODERN] if min(video.form.width, video.form.height) >= 144 else list(_MODERN)


def play_word(label: str) -> str:
    """A label as it stands in the play URL."""
    return _SITE.get(label, label)


def sizes_answer(video: SandboxVideo, base_url: str) -> dict[str, Any]:
    """flickr.photos.getSizes. Widths and heights are those that Flickr would make, null where it tells none."""
    sizes: list[dict[str, Any]] = []
    for label, side, suffix in (("Square", 75, "_s"), ("Medium", 375, ""), ("Original", 480, "_o")):
        width, height = (side, side) if label == "Square" else _scaled(video, side)
        sizes.append(_size(label, width, str(height), poster_url(video, base_url, suffix), video, base_url, "photo"))
    if video.media == "video":
        swf = f"{base_url}/apps/video/stewart.swf?photo_id={video.video_id}&photo_secret={video.secret}"
        sizes.append(_size("Video Player", "640", 360, swf, video, base_url, "video"))
    for label in labels_of(video):
        known = label in _SHORT_SIDES
        pair = _scaled(video, _SHORT_SIDES[label]) if known else (None, None)
        url = f"{base_url}/photos/{video.owner.path}/{video.video_id}/play/{play_word(label)}/{video.secret}/"
        sizes.append(_size(loose(label), pair[0], str(pair[1]) if known else None, url, video, base_url, "video"))
    usage = {"canblog": 0, "canprint": 0, "candownload": int(may_download(video))}
    return {"sizes": usage | {"size": sizes}}


def _scaled(video: SandboxVideo, side: int) -> tuple[int, int]:
    factor = side / min(video.form.width, video.form.height)
    return round(video.form.width * factor / 2) * 2, round(video.form.height * factor / 2) * 2


def _size(
    label: str | int, width: Any, height: Any, source: str, video: SandboxVideo, base_url: str, media: str
) -> dict[str, Any]:
    page = f"{base_url}/photos/{video.owner.path}/{video.video_id}/sizes/"
    return {"label": label, "width": width, "height": height, "source": source, "url": page, "media": media}


def search_row(video: SandboxVideo, extras: frozenset[str], base_url: str) -> dict[str, Any]:
    """One photo of flickr.photos.search with the extras asked for; unknown ones are ignored."""
    row: dict[str, Any] = {
        "id": video.video_id, "owner": video.owner.nsid, "secret": video.secret, "server": video.server, "farm": 66,
        "title": loose(video.texts.title), "ispublic": 1, "isfriend": 0, "isfamily": 0,
    }  # fmt: skip
    for name in EXTRAS:
        if name in extras:
            row |= EXTRAS[name](video, base_url)
    return row


def info_answer(video: SandboxVideo, base_url: str) -> dict[str, Any]:
    """flickr.photos.getInfo."""
    owner = video.owner
    photo: dict[str, Any] = {
        "id": video.video_id, "secret": video.secret, "server": video.server, "farm": 66,
        "dateuploaded": str(video.posted),
        "isfavorite": 0, "license": str(video.license), "safety_level": str(video.safety_level),
        "rotation": 0, "views": str(video.views),
        "media": video.media,
        "owner": {
            "nsid": owner.nsid, "username": owner.username, "realname": owner.realname, "location": owner.location,
            "iconserver": "4366", "iconfarm": 5, "path_alias": owner.path_alias,
        },
        "title": {"_content": loose(video.texts.title)}, "description": {"_content": video.texts.description},
        "visibility": {"ispublic": 1, "isfriend": 0, "isfamily": 0},
        "dates": {
            "posted": str(video.posted), "taken": taken_text(video), "takengranularity": 0,
            "takenunknown": "1" if video.taken is None else 0, "lastupdate": str(video.posted + 3600),
        },
        "editability": {"cancomment": 0, "canaddmeta": 0}, "publiceditability": {"cancomment": 1, "canaddmeta": 0},
        "usage": {"candownload": int(may_download(video)), "canblog": 0, "canprint": 0, "canshare": 1},
        "comments": {"_content": len(video.comments)}, "notes": {"note": []}, "people": {"haspeople": 0},
        "tags": {"tag": [_tag(video, tag, place) for place, tag in enumerate(video.texts.tags)]},
        "urls": {"url": [{"type": "photopage", "_content": f"{base_url}/photos/{owner.path}/{video.video_id}/"}]},
    }  # fmt: skip
    if may_download(video):
        photo |= {"originalsecret": original_secret(video), "originalformat": "jpg"}
    if video.place is not None:
        photo["location"] = location_answer(video, names=True)
        photo["geoperms"] = {"ispublic": 1, "iscontact": 0, "isfriend": 0, "isfamily": 0}
    if video.media == "video":
        photo["video"] = {
            "ready": int(video.trouble not in ("processing", "failed")), "failed": int(video.trouble == "failed"),
            "pending": int(video.trouble == "processing"), "duration": str(max(round(video.form.seconds), 1)),
            "width": str(video.form.width), "height": str(video.form.height),
        }  # fmt: skip
    return {"photo": photo}


def _tag(video: SandboxVideo, raw: str, place: int) -> dict[str, Any]:
    return {
        "id": f"{video.number}-{video.video_id}-{place}", "author": video.owner.nsid,
        "authorname": video.owner.username,
        "raw": loose(raw), "_content": loose(normalised_tag(raw)), "machine_tag": int("=" in raw),
    }  # fmt: skip


def location_answer(video: SandboxVideo, *, names: bool) -> dict[str, Any]:
    """A geotag, with the names of its place if these are wanted and known."""
    place = video.place
    assert place is not None
    # Numbers in some answers, text in others.
    pair = (place.latitude, place.longitude) if video.number % 2 else (str(place.latitude), str(place.longitude))
    found: dict[str, Any] = {"latitude": pair[0], "longitude": pair[1], "accuracy": str(place.accuracy), "context": 0}
    if names and place.locality is not None:
        found["locality"] = {"_content": place.locality, "woeid": "2295019"}
    if names and place.country is not None:
        found["country"] = {"_content": place.country, "woeid": "23424848"}
    return found


def comments_answer(video: SandboxVideo, base_url: str) -> dict[str, Any]:
    """flickr.photos.comments.getList; without comments there is no key `comment`."""
    rows = [_comment(video, place, base_url) for place in range(len(video.comments))]
    return {"comments": {"photo_id": video.video_id} | ({"comment": rows} if rows else {})}


def _comment(video: SandboxVideo, place: int, base_url: str) -> dict[str, Any]:
    comment = video.comments[place]
    author: Person = comment.author
    name = f"{video.number}-{video.video_id}-7215{place:08d}"
    return {
        "id": name, "author": author.nsid, "author_is_deleted": 0, "authorname": author.username, "iconserver": "2683",
        "iconfarm": 3,
        "datecreate": str(comment.posted),
        "permalink": f"{base_url}/photos/{video.owner.path}/{video.video_id}/#comment{name}",
        "path_alias": author.path_alias, "realname": author.realname, "_content": comment.text,
    }  # fmt: skip
