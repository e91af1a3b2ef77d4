"""The whole story through the command, on a bucket, with trouble on the way: every video ends explained."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest
from moto.server import ThreadedMotoServer

from pipeline.catalogue import read_records
from pipeline.errors import REASONS
from pipeline.sandbox.answers import labels_of
from pipeline.sandbox.faults import Fault
from pipeline.sandbox.server import SandboxServer
from pipeline.shards import read_rows
from pipeline.store import Store, open_store

Tell = Callable[..., str]
ACTIONS = ("juggling balls", "push ups", "swing", "hula hoop")
OUTCOMES = {
    None: "ok", "deleted": "gone", "private": "gone", "processing": "still_processing", "failed": "never_playable",
    "player_only": "no_video_url", "zero_length": "not_a_video", "html_file": "not_a_video",
}  # fmt: skip


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():  # fmt: skip
            patch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="story")
        yield "s3://story"
    server.stop()


def outcomes(store: Store) -> dict[str, str]:
    return {row["video_id"]: row["outcome"] for row in read_rows(store).to_pylist()}


def expected(server: SandboxServer, found: set[str]) -> dict[str, str]:
    return {v.video_id: OUTCOMES[v.trouble] for v in server.world if v.video_id in found}


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_names_to_an_accuracy_on_a_bucket(
    bucket: str, story_server: SandboxServer, story_ucf101: Path, tell: Tell, fast: tuple[str, ...],
    tiny: tuple[str, ...], tmp_path: Path,
) -> None:  # fmt: skip
    root, downstream = f"{bucket}/noisy", f"{bucket}/ucf101"
    story_server.set_faults(
        [
            Fault(kind="429_seconds", host="api", first=30, times=1),
            Fault(kind="reset", host="live", first=5, times=1),
            Fault(kind="short_body", host="live", first=9, times=1),
        ]
    )
    tell("vocabulary", root, "--names", *ACTIONS)
    tell("crawl", root, *fast, "--min-videos", 1)
    tell("build", root, *fast, "--settings.videos-per-shard", 12)
    assert story_server.counters.count("short_body") == 1
    store = open_store(root)
    found = {record.video_id for record in read_records(store)}
    assert len(found) > 30
    built = outcomes(store)
    assert built == expected(story_server, found)
    assert set(built.values()) <= REASONS | {"ok"}
    assert len(set(built.values())) > 3, "a world with trouble"
    assert "0 problems" in tell("fsck", root)

    tell("annotate", root)
    tell("split", root, "--settings.require", "any", "--settings.min-videos", 2)
    tell("pretrain", "demo_ssl", root, *tiny, "--name", "ssl", "--recipe.ssl-interval", 2)
    tell("pretrain", "demo_multilabel", root, *tiny, "--name", "multilabel", "--init", "ssl")
    tell("build", downstream, "--ucf101", story_ucf101)
    finetune = ("finetune", "demo_finetune", downstream, *tiny, "--name", "ours")
    told = tell(*finetune, "--init-root", root, "--init", "multilabel")
    assert "on 6 test videos" in told
    tell("evaluate", downstream, "--name", "ours")
    result = json.loads(open_store(downstream).read("runs/ours/result.json"))
    evaluation = json.loads(open_store(downstream).read("runs/ours/evaluation.json"))
    assert evaluation["video_top1"] == pytest.approx(result["video_top1"])
    assert evaluation["num_videos"] == 6

    tell("report", root, "--out", tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "multilabel" in page
    assert not re.search(r"""(?:src|href)\s*=\s*["'](?!data:|#)|@import|url\((?!["']?(?:data:|#))""", page)


@pytest.mark.slow
def test_a_released_list_of_ids_is_looked_up_and_built(
    bucket: str, story_server: SandboxServer, tell: Tell, fast: tuple[str, ...], tmp_path: Path
) -> None:
    story_server.set_faults([])
    videos = [v for v in story_server.world if v.media == "video"][:14]
    lines = [f"{video.video_id} {1 + number % 2}|3" for number, video in enumerate(videos)]
    (tmp_path / "list.txt").write_text("\n".join([*lines, "123456789 1", "99 2|3"]) + "\n")
    (tmp_path / "classes.txt").write_text("1 swing\n2 push ups\n3 hula hoop\n")
    root = f"{bucket}/ids"
    command = ("build", root, "--ids", tmp_path / "list.txt", "--id-classes", tmp_path / "classes.txt", *fast)
    tell(*command)
    store = open_store(root)
    everything = {v.video_id for v in videos}
    assert outcomes(store) == expected(story_server, everything) | {"123456789": "gone", "99": "gone"}
    labels = {row["video_id"]: row["concepts"] for row in read_rows(store).to_pylist()}
    assert labels[videos[0].video_id] == ["hula hoop", "swing"]
    assert labels["99"] == ["hula hoop", "push ups"]
    before = story_server.counters.count("api")
    assert "1 of 1 units were done before" in tell(*command)
    assert story_server.counters.count("api") - before == 1  # the echo


@pytest.mark.slow
def test_a_table_of_urls_is_built(
    bucket: str, story_server: SandboxServer, tell: Tell, fast: tuple[str, ...], tmp_path: Path
) -> None:
    story_server.set_faults([])
    playable = [v for v in story_server.world if v.media == "video" and v.trouble is None]
    base = story_server.base_url
    rows = [
        f"{base}/photos/{v.owner.path}/{v.video_id}/play/360p/{v.secret}/,00{n},swing"
        for n, v in enumerate(playable) if "360p" in labels_of(v)
    ][:3]  # fmt: skip
    assert rows
    rows += [f"{base}/nothing.mp4,lost,", "file:///etc/passwd,ours,", "http://[half/,half,"]
    (tmp_path / "t.csv").write_text("url,video_id,labels\n" + "\n".join(rows) + "\n")
    tell("build", f"{bucket}/table", "--table", tmp_path / "t.csv", *fast)
    found = outcomes(open_store(f"{bucket}/table"))
    assert Counter(found.values())["ok"] == len(rows) - 3
    assert {k: v for k, v in found.items() if v != "ok"} == {
        "lost": "gone", "ours": "no_video_url", "half": "no_video_url",
    }  # fmt: skip
