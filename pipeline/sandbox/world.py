"""World: a seeded population of videos; metadata on demand, files rendered once into a cache folder."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar, get_args

import numpy as np

from pipeline.errors import UserError
from pipeline.sandbox.actions import ACTIONS, action_named
from pipeline.sandbox.dice import Dice
from pipeline.sandbox.media import Form, encode
from pipeline.sandbox.people import person
from pipeline.sandbox.places import drawn_place
from pipeline.sandbox.texts import Texts, odd_title, write_texts
from pipeline.sandbox.videos import (
    UNSERVED,
    Dates,
    SandboxVideo,
    Trouble,
    choose_actions,
    choose_labels,
    choose_strays,
    draw_comments,
    draw_dates,
    draw_license,
    draw_safety,
    number_of,
    scene_of,
    video_id,
)

T = TypeVar("T")

_RENDERERS = ("actions", "backgrounds", "dice", "figures", "media", "scenes", "videos", "world")
"""Modules that decide the bytes of a file; a change in one of them starts a new cache."""


_RATES = (
    "wrong_label_rate", "trouble_rate", "batch_uploads", "comment_rate", "located_rate", "unsafe_rate",
    "odd_title_rate",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class WorldConfig:
    """What a world is made of; equal configs are equal worlds, byte for byte."""

    seed: int = 0
    num_videos: int = 240
    actions: tuple[str, ...] = ACTIONS
    """The actions that occur, the most frequent first."""
    mean_labels: float = 2.0
    """Actions that people mean to mention in the texts, on average; they mention no more than there are to be seen."""
    wrong_label_rate: float = 0.2
    """Probability that a mentioned action is not in the video."""
    min_seconds: float = 2.0
    max_seconds: float = 12.0
    trouble_rate: float = 0.08
    """Share of videos with one of the `troubles`, each of these as often as the others."""
    troubles: tuple[Trouble, ...] = get_args(Trouble)
    """What a crawl meets: videos that are gone, private, unready, broken."""
    num_photos: int = 1
    """Photos that slip in among the videos; the last numbers of the world."""
    shared_tag: str | None = None
    """A tag on every video, so that one query finds them all."""
    stray_labels: float = 0.0
    """Further actions among the tags of a video, on average, for more people to find it; shown or not."""
    dates: Dates = "even"
    batch_uploads: float = 0.0
    """Share of the videos that were uploaded in the very second of the one before."""
    same_second: int = 0
    """So many videos, the first of the world, were uploaded in one second."""
    comment_rate: float = 0.4
    """Share of the videos with comments."""
    located_rate: float = 0.34
    """Share of the videos with a geotag."""
    unsafe_rate: float = 0.0
    """Share of the videos that are moderate or restricted, not safe."""
    odd_title_rate: float = 0.0
    """Share of the videos whose title has characters that careless code stumbles over."""

    def __post_init__(self) -> None:
        for action in self.actions:
            action_named(action)
        if not self.actions or len(set(self.actions)) < len(self.actions):
            raise UserError(f"actions must be one or more different names, got {self.actions}")
        if self.num_videos < 1 or not 0 <= self.num_photos < self.num_videos:
            raise UserError(f"a world needs more videos than photos, got {self.num_videos=} {self.num_photos=}")
        if not 0 < self.min_seconds <= self.max_seconds <= 60:
            raise UserError(f"seconds must be in 0 < min <= max <= 60, got {self.min_seconds=} {self.max_seconds=}")
        if self.dates not in get_args(Dates):
            raise UserError(f"dates must be one of {', '.join(get_args(Dates))}, got {self.dates!r}")
        if self.mean_labels < 0 or self.stray_labels < 0 or not 0 <= self.same_second <= self.num_videos:
            raise UserError(f"labels cannot be negative, nor same_second beyond num_videos, got {self}")
        for name in _RATES:
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} must be between 0 and 1, got {getattr(self, name)}")


def default_cache() -> Path:
    """A folder for rendered files that later runs on this machine find again."""
    return Path(tempfile.gettempdir()) / f"noisyactions-sandbox-{os.getuid()}"


@dataclass(frozen=True, slots=True)
class World:
    """The videos of a config. Picklable; several processes may share the cache folder."""

    config: WorldConfig = field(default_factory=WorldConfig)
    cache: Path = field(default_factory=default_cache)
    """Where rendered files go, under a name made from the config and the rendering code."""

    def __len__(self) -> int:
        return self.config.num_videos

    def __iter__(self) -> Iterator[SandboxVideo]:
        return (self.video(number) for number in range(len(self)))

    def video(self, number: int) -> SandboxVideo:
        """The metadata of the video of that number, 0 to num_videos - 1."""
        if not 0 <= number < len(self):
            raise UserError(f"no video {number} in a world of {len(self)}")
        return _make_video(self.config, number)

    def find(self, identifier: str) -> SandboxVideo | None:
        """The video of that id, if there is one."""
        number = number_of(identifier)
        if not 0 <= number < len(self):
            return None
        video = self.video(number)
        return video if video.video_id == identifier else None

    def media(self, identifier: str) -> Path:
        """The video's file, rendered now if it was not before. All labels of a video are served from this one file.

        Raises:
            UserError: there is no such video.
        """
        video = self.find(identifier)
        if video is None or video.media == "photo":
            raise UserError(f"no video {identifier!r} in this world")
        path = self.media_path(video)
        if not path.exists():
            write_whole(path, lambda part: _fill(video, self.config.seed, part))
        return path

    def media_path(self, video: SandboxVideo) -> Path:
        """Where the video's file is, once rendered."""
        return self.cache / _fingerprint(self.config) / f"{video.video_id}.{video.form.container}"

    def render_all(self, *, processes: int = 1, progress: Callable[[int, int], None] | None = None) -> None:
        """Render every file that can be asked for and is not there yet.

        `progress` is told how many of how many are done.
        """
        served = [video for video in self if video.media == "video" and video.trouble not in UNSERVED]
        missing = [video.video_id for video in served if not self.media_path(video).exists()]
        run_all(self.media, missing, processes=processes, progress=progress)


def run_all(
    work: Callable[[T], object],
    items: Sequence[T],
    *,
    processes: int,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Call `work` on each item, in so many processes (then both must be picklable); 1 is this one."""
    if processes <= 1 or len(items) <= 1:
        for done, item in enumerate(items, start=1):
            work(item)
            if progress:
                progress(done, len(items))
        return
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        for done, future in enumerate(as_completed([pool.submit(work, item) for item in items]), start=1):
            future.result()
            if progress:
                progress(done, len(items))


@lru_cache(maxsize=50_000)
def _make_video(config: WorldConfig, number: int) -> SandboxVideo:
    seed, dice = config.seed, Dice("video", config.seed, number)
    shown = choose_actions(config.actions, number, dice)
    labels = choose_labels(
        config.actions, shown, mean=config.mean_labels, wrong_rate=config.wrong_label_rate, dice=dice
    )
    strays = choose_strays(config.actions, labels, mean=config.stray_labels, dice=Dice("strays", seed, number))
    texts = _more_texts(config, write_texts(labels, dice), strays, Dice("odd texts", seed, number))
    leader = _leaders(config)[number]
    together = None if leader == number else _make_video(config, leader).posted
    posted, taken = draw_dates(dice, dates=config.dates, posted=together)
    file = Dice("file", seed, number)  # of its own, so that files do not depend on how texts are written
    people = max(config.num_videos // 6, 3)
    photo = number >= config.num_videos - config.num_photos
    return SandboxVideo(
        number=number, video_id=video_id(seed, number), secret=f"{dice.integer(0, 2**40 - 1):010x}",
        server=str(dice.integer(2000, 65535)),
        owner=person(seed, min(int(dice.exponential(people / 2)), people - 1)), texts=texts,
        comments=draw_comments(labels, posted, rate=config.comment_rate, seed=seed, people=people, dice=dice),
        posted=posted, taken=taken, place=drawn_place(dice, rate=config.located_rate), license=draw_license(dice),
        views=int(dice.exponential(1.0) ** 3 * 200), labels=(*labels, *strays),
        true_actions=shown, form=Form.drawn(file, min_seconds=config.min_seconds, max_seconds=config.max_seconds),
        trouble=_draw_trouble(config, file) if not photo else None,
        media="photo" if photo else "video",
        safety_level=draw_safety(Dice("safety", seed, number), unsafe_rate=config.unsafe_rate),
    )  # fmt: skip


@lru_cache(maxsize=64)
def _leaders(config: WorldConfig) -> tuple[int, ...]:
    """For each video the one in whose second it was uploaded, which is itself for most."""
    follows = Dice("batches", config.seed).arrays().random(config.num_videos) < config.batch_uploads
    follows[1 : config.same_second] = True
    follows[0] = False
    return tuple(np.maximum.accumulate(np.where(follows, 0, np.arange(config.num_videos))).tolist())


def _more_texts(config: WorldConfig, texts: Texts, strays: Sequence[str], dice: Dice) -> Texts:
    tags = [dice.pick(action_named(label).spellings) for label in strays]
    tags += [] if config.shared_tag is None else [config.shared_tag]
    texts = replace(texts, tags=(*texts.tags, *tags))
    return odd_title(texts, dice) if dice.chance(config.odd_title_rate) else texts


def _draw_trouble(config: WorldConfig, dice: Dice) -> Trouble | None:
    return dice.pick(config.troubles) if config.troubles and dice.chance(config.trouble_rate) else None


def _fill(video: SandboxVideo, seed: int, path: Path) -> None:
    if video.trouble == "zero_length":
        path.touch()
    elif video.trouble == "html_file":
        path.write_text("<!DOCTYPE html><html><body><h1>This video is not available.</h1></body></html>\n")
    else:
        encode(scene_of(video, seed=seed), video.form, path=path)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file beside `path`, then put it there at once: others see all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=path.parent) as folder:
        part = Path(folder) / path.name
        write(part)
        part.replace(path)


@lru_cache(maxsize=64)
def _fingerprint(config: WorldConfig) -> str:
    """Names the cache of a config: what the files depend on, and the code that renders them."""
    digest = hashlib.sha256(repr(config).encode())
    for name in _RENDERERS:
        digest.update((Path(__file__).parent / f"{name}.py").read_bytes())
    return digest.hexdigest()[:16]
