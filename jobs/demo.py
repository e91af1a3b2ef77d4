"""The whole story on a small sandbox world: names of actions -> crawl -> shards -> pretraining -> accuracy table.

Reads nothing; writes a folder (default demo/) with a world of generated videos, a root per data set, and report.html.
Costs about four minutes on two CPU cores. Each stage is one of the other verbs, run as you would; what is done is not
done again, so a second demo takes seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jobs import annotate, build, crawl, finetune, plan, pretrain, recipes, report, split, vocabulary
from jobs.launch import Where, session
from jobs.progress import Bar, duration, say, show_table
from jobs.runs import RunFolder
from pipeline.build import BuildSettings
from pipeline.errors import UserError
from pipeline.flickr import FlickrSettings
from pipeline.sandbox.actions import ACTIONS
from pipeline.sandbox.downstream import DownstreamConfig, write_ucf101
from pipeline.sandbox.server import serve
from pipeline.sandbox.world import World, WorldConfig
from pipeline.splits import SplitSettings
from pipeline.store import open_store

_RUNS = (("scratch", None), ("SSL", "ssl"), ("SSL + multi-label", "multilabel"))
"""What finetuning begins with, in the words of the table, and the pretraining run that made it."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """How large a demo."""

    folder: Path = Path("demo")
    """Where everything goes; delete it to begin anew."""
    videos: int = 400
    """In the sandbox world."""
    seed: int = 0
    """Of the world."""
    seeds: int = 1
    """How many seeds to train with; each takes about two minutes more."""
    workers: int = 2
    """Ray actors for the crawl and the build; 0 never imports Ray."""

    def __post_init__(self) -> None:
        if self.videos < 40 or self.seeds < 1 or self.workers < 0:
            raise ValueError("a demo needs at least 40 videos, 1 seed, and 0 or more workers")


def run(config: Config) -> int:
    """Tell the story, stage by stage."""
    began = time.monotonic()
    config.folder.mkdir(parents=True, exist_ok=True)
    _claim(config)
    root, ucf101 = str(config.folder / "root"), str(config.folder / "ucf101")
    with _sandbox_key(), session(Where(workers=config.workers)):  # workers get the environment that Ray starts with
        _gather(config, root)
        _stage("a downstream set in UCF101's layout, clean and small")
        _downstream(config, ucf101)
    for seed in range(config.seeds):
        _train(root, ucf101, seed)
    rows = _results(ucf101, config.seeds)
    _stage("the results")
    show_table("finetuned on the sandbox's UCF101", ("begins with", "seed", "video_top1", "clip_top1", "videos"), rows)
    _write_report(config, root, ucf101)
    say(f"\nthe whole story took {duration(time.monotonic() - began)}; open {config.folder / 'report.html'}")
    return 0


def _claim(config: Config) -> None:
    """One folder is one world."""
    store = open_store(str(config.folder))
    mine = {"seed": config.seed, "videos": config.videos}
    if not store.create("demo.json", json.dumps(mine).encode()):
        kept = json.loads(store.read("demo.json"))
        if kept != mine:
            raise UserError(f"{config.folder} holds a demo of {kept}, not {mine}: name another --folder, or delete it")


def _well(code: int) -> None:
    if code:
        raise UserError(f"a stage of the demo ended with exit code {code}: run the demo again to go on")


def _stage(title: str) -> None:
    say(f"\n== {title}")


def _gather(config: Config, root: str) -> None:
    """From names to splits."""
    where = Where(workers=config.workers)
    _stage(f"a world of {config.videos} videos that stands in for Flickr")
    world = World(
        WorldConfig(seed=config.seed, num_videos=config.videos, max_seconds=8.0), cache=config.folder / "world"
    )
    with Bar("render", total=config.videos, noun="videos") as bar:
        world.render_all(processes=os.cpu_count() or 1, progress=lambda done, total: bar.reach(done))
    with serve(world, port=_port(config.folder)) as server:
        flickr = FlickrSettings(
            rest_url=server.rest_url, contact="demo@example.org", calls_per_hour=1e6, media_per_second=1000.0
        )
        _stage("vocabulary: names of actions -> queries")
        _well(vocabulary.run(vocabulary.Config(root=root, names=ACTIONS)))
        _stage("plan: what the crawl will cost")
        _well(plan.run(plan.Config(root=root, flickr=flickr, min_videos=5)))
        _stage("crawl: queries -> records")
        _well(crawl.run(crawl.Config(root=root, flickr=flickr, where=where, min_videos=5)))
        _stage("build: records -> shards")
        settings = BuildSettings(videos_per_shard=max(20, config.videos // 8))
        _well(build.run(build.Config(root=root, flickr=flickr, where=where, settings=settings)))
    _stage("annotate: countries")
    annotate.run(annotate.Config(root=root))
    _stage("split: by richness of metadata, nested")
    sizes = {"small": config.videos // 4, "full": None}
    split.run(split.Config(root=root, settings=SplitSettings(sizes=sizes, require="any", min_videos=5)))


def _port(folder: Path) -> int:
    """A port that stays the same from run to run, for it is part of the records' play URLs."""
    kept = folder / "port"
    if not kept.exists():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            kept.write_text(str(probe.getsockname()[1]))
    port = int(kept.read_text())
    try:
        with socket.create_server(("127.0.0.1", port)):
            return port
    except OSError as error:
        raise UserError(
            f"port {port} of this demo is taken: end what listens there, or name another --folder"
        ) from error


@contextlib.contextmanager
def _sandbox_key() -> Iterator[None]:
    """The sandbox's own key in the environment; a real one is never sent there."""
    before = {name: os.environ.pop(name, None) for name in ("FLICKR_API_KEY", "FLICKR_API_KEYS")}
    os.environ["FLICKR_API_KEY"] = "sandbox"
    try:
        yield
    finally:
        del os.environ["FLICKR_API_KEY"]
        os.environ.update({name: value for name, value in before.items() if value is not None})


def _downstream(config: Config, ucf101: str) -> None:
    source = config.folder / "downstream"
    downstream = DownstreamConfig(seed=config.seed + 1000)
    total = len(downstream.actions) * (downstream.train_per_class + downstream.test_per_class)
    with Bar("render", total=total, noun="videos") as bar:
        write_ucf101(source, downstream, processes=os.cpu_count() or 1, progress=lambda done, _: bar.reach(done))
    _well(build.run(build.Config(root=ucf101, ucf101=source)))


def _train(root: str, ucf101: str, seed: int) -> None:
    ssl, multilabel = f"ssl-{seed}", f"multilabel-{seed}"
    _stage(f"pretrain, self-supervised: PCL with VCP (seed {seed})")
    _once(root, pretrain.Config(root=root, recipe=replace(recipes.demo_ssl(), seed=seed), name=ssl))
    _stage(f"pretrain, multi-label: Distribution-Balanced focal loss on the noisy labels (seed {seed})")
    recipe = replace(recipes.demo_multilabel(), seed=seed)
    _once(root, pretrain.Config(root=root, recipe=recipe, name=multilabel, init=ssl))
    _stage(f"finetune on the few clean labels, and test (seed {seed})")
    for _, init in _RUNS:
        _once(
            ucf101,
            finetune.Config(
                root=ucf101,
                recipe=replace(recipes.demo_finetune(), seed=seed),
                init_root=root if init else None,
                init=f"{init}-{seed}" if init else None,
                name=_name(init, seed),
            ),
        )


def _name(init: str | None, seed: int) -> str:
    return f"finetune-{init or 'scratch'}-{seed}"


def _once(root: str, config: pretrain.Config | finetune.Config) -> None:
    """Train, unless an earlier demo has."""
    if RunFolder(open_store(root), config.name).read_json("result.json") is not None:
        say(f"{config.name}: done before")
    elif isinstance(config, pretrain.Config):
        pretrain.run(config)
    else:
        finetune.run(config)


def _results(ucf101: str, seeds: int) -> list[tuple[Any, ...]]:
    store = open_store(ucf101)
    rows: list[tuple[Any, ...]] = []
    for title, init in _RUNS:
        for seed in range(seeds):
            result = RunFolder(store, _name(init, seed)).read_json("result.json")
            if result is None:
                raise UserError(f"run {_name(init, seed)} has no result: run the demo again")
            shares = (f"{result['video_top1']:.1%}", f"{result['clip_top1']:.1%}")
            rows.append((title, seed, *shares, int(result["num_videos"])))
    return rows


def _write_report(config: Config, root: str, ucf101: str) -> None:
    """One page: the crawl's root, with the downstream results beside the pretraining runs."""
    for key in open_store(ucf101).list("runs/"):
        if key.endswith(("result.json", "metrics.jsonl")):
            open_store(root).write(key, open_store(ucf101).read(key))
    report.run(report.Config(root=root, out=config.folder / "report.html", title="NoisyActions demo"))
