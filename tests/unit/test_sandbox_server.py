import io
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import av
import flickrapi
import pytest
import requests

from pipeline.sandbox.counters import Counters
from pipeline.sandbox.extras import EXTRAS
from pipeline.sandbox.replies import Call
from pipeline.sandbox.search import SearchQuirks
from pipeline.sandbox.server import SandboxServer, serve
from pipeline.sandbox.videos import SandboxVideo
from pipeline.sandbox.world import World, WorldConfig

CONFIG = WorldConfig(seed=11, num_videos=120, max_seconds=2.0, shared_tag="everyone", trouble_rate=0.3)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def server(cache: Path) -> Iterator[SandboxServer]:
    with serve(World(CONFIG, cache=cache)) as running:
        yield running
        assert running.counters.errors == []


@pytest.fixture
def web() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


@pytest.fixture
def flickr(server: SandboxServer) -> Iterator[Any]:
    client = flickrapi.FlickrAPI("key", "secret", format="parsed-json", store_token=False)
    client.REST_URL = server.rest_url
    yield client
    client.flickr_oauth.session.close()


def ask(web: requests.Session, server: SandboxServer, method: str, **params: str) -> Any:
    params = {"method": method, "api_key": "key", "format": "json", "nojsoncallback": "1"} | params
    return web.get(server.rest_url, params=params).json()


def playable(server: SandboxServer) -> SandboxVideo:
    return next(v for v in server.world if v.trouble is None and v.media == "video")


def troubled(server: SandboxServer, trouble: str) -> SandboxVideo:
    return next(video for video in server.world if video.trouble == trouble)


def play_urls(sizes: Any) -> dict[str, str]:
    return {
        str(s["label"]): s["source"]
        for s in sizes["sizes"]["size"]
        if s["media"] == "video" and "/play/" in s["source"]
    }


def test_flickrapi_crawls_it(flickr: Any, server: SandboxServer) -> None:
    """The real client, as it is: pages of search, then each video's info, sizes and comments."""
    found: list[dict[str, Any]] = []
    for page in (1, 2, 3):
        answer = flickr.photos.search(
            text="everyone",
            media="videos",
            per_page=50,
            page=page,
            sort="date-posted-asc",
            extras="description,tags,geo",
        )
        assert int(answer["photos"]["total"]) == 120
        found += answer["photos"]["photo"]
    assert len({row["id"] for row in found}) == 120
    for row in found[:20]:
        video = server.world.find(row["id"])
        assert video is not None
        assert row["description"]["_content"] == video.texts.description
        if video.trouble in ("deleted", "private"):
            with pytest.raises(flickrapi.FlickrError, match="Photo not found") as raised:
                flickr.photos.getInfo(photo_id=row["id"])
            assert raised.value.code == 1
            continue
        photo = flickr.photos.getInfo(photo_id=row["id"], secret=row["secret"])["photo"]
        assert photo["owner"]["path_alias"] == video.owner.path_alias
        assert len(photo["tags"]["tag"]) == len(video.texts.tags)
        comments = flickr.photos.comments.getList(photo_id=row["id"])["comments"]
        assert len(comments.get("comment", ())) == len(video.comments)
        assert ("comment" in comments) == bool(video.comments)
        assert "sizes" in flickr.photos.getSizes(photo_id=row["id"])
    assert server.counters.count("flickr.photos.search") == 3
    assert server.counters.count("key") == server.counters.count("api")


def test_flickrapi_reads_its_xml(server: SandboxServer) -> None:
    client = flickrapi.FlickrAPI("key", "secret", store_token=False)
    client.REST_URL = server.rest_url
    video = playable(server)
    photo = client.photos.getInfo(photo_id=video.video_id).find("photo")
    assert photo.get("media") == "video"
    assert photo.find("video").get("ready") == "1"
    assert photo.find("title").text == (video.texts.title or None)
    rows = client.photos.search(text="everyone", extras="description").findall("photos/photo")
    assert len(rows) == 100
    client.flickr_oauth.session.close()


def test_play_url_redirects_to_a_signed_file_that_decodes(server: SandboxServer, web: requests.Session) -> None:
    video = playable(server)
    urls = play_urls(ask(web, server, "flickr.photos.getSizes", photo_id=video.video_id))
    url = next(iter(urls.values()))
    hop = web.get(url, allow_redirects=False)
    assert (hop.status_code, hop.content) == (302, b"")
    assert "/video/" in hop.headers["Location"]
    assert "?s=" in hop.headers["Location"]
    reply = web.get(url)
    assert reply.headers["Accept-Ranges"] == "bytes"
    assert reply.headers["Content-Type"].startswith("video/")
    with av.open(io.BytesIO(reply.content)) as container:
        assert sum(1 for _ in container.decode(video=0)) > 10


def test_ranges(server: SandboxServer, web: requests.Session) -> None:
    url = next(iter(play_urls(ask(web, server, "flickr.photos.getSizes", photo_id=playable(server).video_id)).values()))
    media = web.get(url, allow_redirects=False).headers["Location"]
    whole = web.get(media).content
    for asked, part in (("bytes=100-199", whole[100:200]), ("bytes=100-", whole[100:]), ("bytes=-10", whole[-10:])):
        reply = web.get(media, headers={"Range": asked})
        assert reply.status_code == 206
        assert reply.content == part
        assert reply.headers["Content-Range"].endswith(f"/{len(whole)}")
    assert web.get(media, headers={"Range": f"bytes={len(whole)}-"}).status_code == 416
    assert web.head(media).headers["Content-Length"] == str(len(whole))


def test_signatures_expire_and_cannot_be_changed(server: SandboxServer, web: requests.Session) -> None:
    url = next(iter(play_urls(ask(web, server, "flickr.photos.getSizes", photo_id=playable(server).video_id)).values()))
    media = web.get(url, allow_redirects=False).headers["Location"]
    assert web.get(media).status_code == 200
    assert web.get(media[:-4] + "AAAA").status_code == 403
    assert web.get(media.partition("?")[0]).status_code == 403
    server.clock.advance(179)
    assert web.get(media).status_code == 200
    server.clock.advance(2)
    assert web.get(media).status_code == 403
    assert web.get(url).status_code == 200


def test_wrong_secrets_and_originals_are_refused(server: SandboxServer, web: requests.Session) -> None:
    video = playable(server)
    start = f"{server.base_url}/photos/{video.owner.path}/{video.video_id}/play"
    assert web.get(f"{start}/360p/0123456789/").status_code == 404
    assert web.get(f"{start}/orig/{video.secret}/").status_code == 401
    assert web.get(f"{start}/8k/{video.secret}/").status_code == 404
    assert web.get(f"{server.base_url}/nowhere").status_code == 404


@pytest.mark.parametrize("trouble", ["deleted", "private"])
def test_gone_videos_are_still_found_but_not_to_be_had(
    server: SandboxServer, web: requests.Session, trouble: str
) -> None:
    video = troubled(server, trouble)
    for method in ("getInfo", "getSizes", "comments.getList"):
        assert ask(web, server, f"flickr.photos.{method}", photo_id=video.video_id)["code"] == 1
    found = ask(web, server, "flickr.photos.search", text="everyone", per_page="500")
    assert video.video_id in {row["id"] for row in found["photos"]["photo"]}


@pytest.mark.parametrize(
    ("trouble", "told"), [("processing", (0, 0, 1)), ("failed", (0, 1, 0)), ("player_only", (1, 0, 0))]
)
def test_unplayable_videos_offer_the_dead_player_only(
    server: SandboxServer, web: requests.Session, trouble: str, told: tuple[int, ...]
) -> None:
    video = troubled(server, trouble)
    state = ask(web, server, "flickr.photos.getInfo", photo_id=video.video_id)["photo"]["video"]
    assert (state["ready"], state["failed"], state["pending"]) == told
    sizes = ask(web, server, "flickr.photos.getSizes", photo_id=video.video_id)
    assert play_urls(sizes) == {}
    assert "Video Player" in {size["label"] for size in sizes["sizes"]["size"]}


def test_types_are_as_mixed_up_as_in_the_wild(server: SandboxServer, web: requests.Session) -> None:
    labels, widths = set(), set()
    for video in server.world:
        for size in (
            ask(web, server, "flickr.photos.getSizes", photo_id=video.video_id).get("sizes", {}).get("size", ())
        ):
            labels.add(type(size["label"]))
            widths.add(type(size["width"]))
    assert labels == {str, int}
    assert widths == {str, int, type(None)}
    rows = ask(web, server, "flickr.photos.search", text="everyone", extras="geo,date_taken,url_m", per_page="500")[
        "photos"
    ]["photo"]
    assert {type(row["title"]) for row in rows} == {str, int}
    assert {type(row["latitude"]) for row in rows} == {str, int}
    assert {type(row["datetakenunknown"]) for row in rows} == {str, int}
    assert {type(row["height_m"]) for row in rows} == {str, int}


def test_truth_is_never_served(server: SandboxServer, web: requests.Session) -> None:
    assert "true_actions" not in json.dumps(
        ask(web, server, "flickr.photos.getInfo", photo_id=playable(server).video_id)
    )


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"method": "flickr.nothing"}, 112),
        ({"method": "flickr.photos.search"}, 3),
        ({"method": "flickr.photos.search", "text": "x", "min_upload_date": "20", "max_upload_date": "10"}, 18),
        ({"method": "flickr.photos.getInfo", "photo_id": "1"}, 1),
        ({"method": "flickr.photos.getInfo"}, 1),
        ({"method": "flickr.test.echo", "api_key": ""}, 100),
        ({"method": "flickr.test.echo", "format": "yaml"}, 111),
    ],
)
def test_failures_come_with_http_200(
    server: SandboxServer, web: requests.Session, params: dict[str, str], code: int
) -> None:
    params = {"api_key": "key", "format": "json", "nojsoncallback": "1"} | params
    reply = web.post(server.rest_url, data=params)
    assert reply.status_code == 200
    if params["format"] == "json":
        assert (reply.json()["stat"], reply.json()["code"]) == ("fail", code)
    else:
        assert ElementTree.fromstring(reply.content).find("err").get("code") == str(code)  # type: ignore[union-attr]


def test_other_methods_and_formats(server: SandboxServer, web: requests.Session) -> None:
    assert ask(web, server, "flickr.test.echo", greeting="hé")["greeting"]["_content"] == "hé"
    assert len(ask(web, server, "flickr.photos.licenses.getInfo")["licenses"]["license"]) == 17
    assert {"_content": "flickr.photos.search"} in ask(web, server, "flickr.reflection.getMethods")["methods"]["method"]
    wrapped = web.get(server.rest_url, params={"method": "flickr.test.echo", "api_key": "k", "format": "json"}).text
    assert wrapped.startswith("jsonFlickrApi({")
    placed = next(v for v in server.world if v.place and v.trouble is None)
    unplaced = next(v for v in server.world if not v.place and v.trouble is None)
    assert "location" in ask(web, server, "flickr.photos.geo.getLocation", photo_id=placed.video_id)["photo"]
    assert ask(web, server, "flickr.photos.geo.getLocation", photo_id=unplaced.video_id)["code"] == 2
    codes = [
        ask(web, server, "flickr.photos.getExif", photo_id=v.video_id).get("code")
        for v in server.world
        if not v.trouble
    ]
    assert {None, 2} == set(codes)


def test_posters_are_pictures(server: SandboxServer, web: requests.Session) -> None:
    sizes = ask(web, server, "flickr.photos.getSizes", photo_id=playable(server).video_id)["sizes"]["size"]
    reply = web.get(next(size["source"] for size in sizes if size["label"] == "Original"))
    assert reply.headers["Content-Type"] == "image/jpeg"
    with av.open(io.BytesIO(reply.content), format="mjpeg") as container:
        assert next(container.decode(video=0)).width == playable(server).form.width


def test_valid_keys_and_hourly_limit(cache: Path, web: requests.Session) -> None:
    with serve(World(CONFIG, cache=cache), keys=["good"], hourly_limit=3) as server:
        assert ask(web, server, "flickr.test.echo", api_key="bad")["code"] == 100
        url = {"method": "flickr.test.echo", "api_key": "good"}
        assert [web.get(server.rest_url, params=url).status_code for _ in range(4)] == [200, 200, 200, 429]
        server.clock.advance(3601)
        assert web.get(server.rest_url, params=url).status_code == 200


def test_quirks_reach_the_search(cache: Path, web: requests.Session) -> None:
    with serve(World(CONFIG, cache=cache), quirks=SearchQuirks(cap=50, past_cap="error")) as server:
        answer = ask(web, server, "flickr.photos.search", text="everyone", per_page="50", page="2")
        assert answer["code"] == 20


def test_counters_see_concurrency_and_pace(server: SandboxServer, web: requests.Session) -> None:
    threads = [
        threading.Thread(target=requests.get, args=(f"{server.rest_url}?method=flickr.test.echo",)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seen = web.get(f"{server.base_url}/__admin__/").json()
    assert seen["hosts"]["api"] == 8
    assert seen["methods"] == {"flickr.test.echo": 8}
    assert 1 <= server.counters.most_at_once("api") <= 8
    closest = server.counters.closest("api")
    assert closest is not None
    assert 0 <= closest < 10
    assert web.get(f"{server.base_url}/__admin__/clock", params={"advance": "60"}).json()["now"] > 60
    assert web.get(f"{server.base_url}/__admin__/clock", params={"advance": "soon"}).status_code == 400


def test_the_most_calls_within_any_window(server: SandboxServer, web: requests.Session) -> None:
    for pause, key in ((0.0, "a"), (0.0, "a"), (0.0, "b"), (0.4, "a"), (0.0, "a"), (0.0, "a")):
        time.sleep(pause)
        ask(web, server, "flickr.test.echo", api_key=key)
    count = server.counters.most_within
    assert (count("a", 0.3), count("a", 60), count("b", 60), count("c", 60)) == (3, 5, 1, 0)
    assert count("flickr.test.echo", 0.3) == 3
    assert count("api", 60) == 6
    within = f"{server.base_url}/__admin__/within"
    assert web.get(within, params={"name": "a", "seconds": "0.3"}).json() == {"most": 3}
    assert web.get(within, params={"name": "a", "seconds": "soon"}).status_code == 400
    seen = web.get(f"{server.base_url}/__admin__/").json()["most_within"]
    assert seen["a"] == {"1": 5, "60": 5, "3600": 5}


def test_windows_reach_back_further_than_the_log() -> None:
    counters = Counters()
    calls = [Call(host="api", verb="GET", path="/", key=key) for key in "ab"]
    for number in range(3 * 60_000):
        counters.enter(calls[number % 3 == 0])
    assert len(counters.log) == 100_000
    assert counters.most_within("a", 3600) == 120_000
    assert counters.most_within("b", 3600) == 60_000


def test_search_tells_comments_and_safety_when_asked(web: requests.Session, cache: Path) -> None:
    config = WorldConfig(seed=1, num_videos=80, shared_tag="everyone", unsafe_rate=0.5)
    with serve(World(config, cache=cache), quirks=SearchQuirks(stale_safety=0.9)) as server:
        asked = {"text": "everyone", "per_page": "500"}
        bare = ask(web, server, "flickr.photos.search", **asked)["photos"]["photo"]
        rows = ask(web, server, "flickr.photos.search", **asked, extras="count_comments,safety_level")["photos"][
            "photo"
        ]
        assert not any({"count_comments", "safety_level"} & row.keys() for row in bare)
        assert {row["safety_level"] for row in rows} == {"0", "1", "2"}
        for row in rows:
            video = server.world.find(row["id"])
            assert video is not None
            assert row["count_comments"] == str(len(video.comments))
            if video.trouble not in ("deleted", "private"):
                photo = ask(web, server, "flickr.photos.getInfo", photo_id=row["id"])["photo"]
                assert (photo["safety_level"], photo["comments"]) == (
                    row["safety_level"],
                    {"_content": len(video.comments)},
                )


def test_page_sizes_are_clamped(server: SandboxServer, web: requests.Session) -> None:
    def per_page(**params: str) -> int:
        answer = ask(web, server, "flickr.photos.search", text="everyone", **params)
        return int(answer["photos"]["perpage"])

    assert per_page() == 100
    assert per_page(per_page="9999") == 500
    assert per_page(per_page="500", has_geo="1") == 250


def test_every_extra_is_absent_unless_asked_for(server: SandboxServer, web: requests.Session) -> None:
    asked = {"text": "everyone", "per_page": "500"}
    bare = ask(web, server, "flickr.photos.search", **asked)["photos"]["photo"]
    assert {key for row in bare for key in row} == {
        "id", "owner", "secret", "server", "farm", "title", "ispublic", "isfriend", "isfamily",
    }  # fmt: skip
    for name in EXTRAS:
        rows = ask(web, server, "flickr.photos.search", **asked, extras=name)["photos"]["photo"]
        assert len(rows) == len(bare)
        assert any(row.keys() > bare[0].keys() for row in rows), name
    stills = ask(web, server, "flickr.photos.search", **asked, extras="url_l,url_sq,url_o")["photos"]["photo"]
    assert any("url_l" not in row for row in stills)
    assert all(web.get(stills[0][name]).headers["Content-Type"] == "image/jpeg" for name in ("url_sq", "url_o"))


def test_odd_titles_arrive_as_they_are(web: requests.Session, cache: Path) -> None:
    config = WorldConfig(seed=2, num_videos=120, shared_tag="everyone", odd_title_rate=1.0, trouble_rate=0.0)
    with serve(World(config, cache=cache)) as server:
        rows = ask(web, server, "flickr.photos.search", text="everyone", per_page="500")["photos"]["photo"]
        titles = {row["id"]: row["title"] for row in rows}
        assert titles == {video.video_id: video.texts.title for video in server.world}
        assert any("\x00" in title for title in titles.values())
        assert any("\ud83d" in title for title in titles.values())
        xml = web.get(server.rest_url, params={"method": "flickr.photos.search", "api_key": "k", "text": "everyone"})
        assert len(ElementTree.fromstring(xml.content).findall("photos/photo")) == 100
        assert server.counters.errors == []


def test_a_request_sent_twice_with_one_signature_is_refused(flickr: Any, server: SandboxServer) -> None:
    sent: list[requests.PreparedRequest] = []
    session = flickr.flickr_oauth.session
    session.hooks["response"].append(lambda response, **_: sent.append(response.request))
    try:
        assert flickr.test.echo()["stat"] == "ok"
        assert flickr.test.echo()["stat"] == "ok"
        again = session.send(sent[0])
        assert (again.status_code, again.text) == (401, "oauth_problem=nonce_used")
    finally:
        session.hooks["response"].clear()


def test_clients_that_go_away_leave_no_trace(
    server: SandboxServer, web: requests.Session, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    host, port = server.base_url.removeprefix("http://").split(":")
    for start in (b"", b"GET /ser", b"GET /services/rest/?method=flickr.test.echo HTTP/1.1\r\nHost: x\r\n\r\n"):
        with socket.create_connection((host, int(port))) as raw:
            raw.sendall(start)
    assert ask(web, server, "flickr.test.echo")["stat"] == "ok"
    assert capfd.readouterr() == ("", "")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_bodies_that_are_no_text_are_refused(server: SandboxServer, web: requests.Session) -> None:
    reply = web.post(server.rest_url, data=b"a=\xff", headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert reply.status_code == 400
    assert "not UTF-8" in reply.text
