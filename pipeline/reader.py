"""One sample from its bytes to cropped planes, in this process or in workers beside it.

Workers are processes, for PyAV holds Python's lock while it decodes and threads would take turns. They are started
through a fork server that has already imported what they need, and end by themselves when this process does.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import wait
from threading import Thread

import numpy as np

from pipeline.clips import EvalSampler, Frames, TrainSampler, Uniform, Windows
from pipeline.crops import Crop, crop_planes, use_one_thread
from pipeline.decode import Plane, decode_frames
from pipeline.errors import Dropped, UserError
from pipeline.order import generator
from pipeline.store import Store


@dataclass(frozen=True, slots=True)
class Item:
    """What must be known of one sample to read it."""

    key: str
    """Of the tar."""
    offset: int
    size: int
    num_frames: int
    clip: int | None
    """Which of the clips that an evaluation lists; None to draw."""
    epoch: int
    place: int
    """In the global sequence of the epoch: what its draws are keyed by."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """One sample; its planes are zeros where there is a reason why."""

    luma: Plane
    """(K, T, H, W)."""
    chroma: Plane
    """(K, T, 2, H/2, W/2)."""
    pretext: int | None
    dropped: str | None
    """A word of pipeline.errors.REASONS, None where it was decoded."""
    num_missing_frames: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """What all samples of a loader have in common. Picklable: each worker has a copy."""

    store: Store
    sampler: TrainSampler | EvalSampler
    crop: Crop
    seed: int

    def read(self, items: Sequence[Item]) -> list[Loaded]:
        """The samples, one for each item.

        Raises:
            UserError: a shard is missing.
        """
        return [self._read_one(item) for item in items]

    def _read_one(self, item: Item) -> Loaded:
        rng = generator(self.seed, epoch=item.epoch, position=item.place, purpose="clip")
        frames, pretext = self._pick(item, rng)
        (clips, length), size = frames.shape, self.crop.size
        luma = np.zeros((clips, length, size, size), np.uint8)
        chroma = np.zeros((clips, length, 2, size // 2, size // 2), np.uint8)
        try:
            planes = decode_frames(self._fetch(item), frames.reshape(-1))
        except Dropped as drop:
            return Loaded(luma, chroma, pretext, drop.reason, 0)
        height, width = planes.luma.shape[1:]
        for clip in range(clips):
            box = self.crop.box(height=height, width=width, rng=rng)
            part = slice(clip * length, (clip + 1) * length)
            luma[clip], chroma[clip] = crop_planes(planes.luma[part], planes.chroma[part], box=box, size=size)
        return Loaded(luma, chroma, pretext, None, planes.num_missing)

    def _pick(self, item: Item, rng: np.random.Generator) -> tuple[Frames, int | None]:
        if isinstance(self.sampler, Windows | Uniform):
            assert item.clip is not None, "an evaluation lists its clips"
            return self.sampler.clips(item.num_frames)[item.clip][None], None
        picked = self.sampler.pick(item.num_frames, rng=rng)
        return picked.frames, picked.pretext

    def _fetch(self, item: Item) -> bytes:
        try:
            return self.store.read_range(item.key, start=item.offset, length=item.size)
        except FileNotFoundError as error:
            raise UserError(f"{item.key} is committed but not in {self.store.url}: run fsck on this root") from error


def start_workers(reader: Reader, *, workers: int) -> ProcessPoolExecutor:
    """Processes that each hold the reader; give them `read_in_worker`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pipeline.reader"])
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_begin_worker, initargs=(reader,))


def read_in_worker(items: Sequence[Item]) -> list[Loaded]:
    """Reader.read with the reader that the worker was started with."""
    return _readers[0].read(items)


_readers: list[Reader] = []  # one, in a worker; none elsewhere


def _begin_worker(reader: Reader) -> None:
    use_one_thread()
    _readers[:] = [reader]
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A loading process that was killed closes no pools; without this its workers would wait for work for ever.
    parent = multiprocessing.parent_process()
    assert parent is not None, "workers have one"
    wait([parent.sentinel])
    os._exit(1)
