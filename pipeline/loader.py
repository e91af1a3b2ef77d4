"""Index -> batches for one rank: decoded, cropped uint8 planes in an order that is arithmetic on (seed, epoch, step).

Colour and all other augmentation is done later, on the training device (pipeline.augment).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch

from pipeline.clips import EvalSampler, TrainSampler, Uniform, Windows
from pipeline.crops import Crop
from pipeline.decode import Plane
from pipeline.errors import UserError
from pipeline.index import Index
from pipeline.order import Order, Position, rank_slice
from pipeline.reader import Item, Loaded, Reader, read_in_worker, start_workers
from pipeline.store import Store

Rows = npt.NDArray[np.int64]

_TASK_SIZE = 4  # samples that go to a worker at once: few enough to share a batch out, enough to save round trips


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """This rank's share of a global batch, on the CPU: B samples of K clips."""

    luma: torch.Tensor
    """(B, K, T, H, W) uint8."""
    chroma: torch.Tensor
    """(B, K, T, 2, H/2, W/2) uint8."""
    labels: torch.Tensor
    """Multi-hot (B, C) float32, or (B,) int64."""
    pretext: torch.Tensor | None
    """(B,) int64 label that the clips were picked for, where the sampler has such."""
    weight: torch.Tensor
    """(B,) float32: 0 for padding and for what could not be decoded, whose planes are zeros; else 1."""
    index: torch.Tensor
    """(B,) int64 row in the index; 0 for padding."""
    position: Position
    undecodable: tuple[tuple[int, str], ...] = ()
    """(row, reason) of each sample that could not be decoded; padding is not among them."""
    num_missing_frames: int = 0
    """Frames of the other samples that could not be decoded and that a neighbour stands in for."""

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, for copies to a GPU that do not wait."""
        names = ("luma", "chroma", "labels", "weight", "index")
        pretext = None if self.pretext is None else self.pretext.pin_memory()
        return replace(self, pretext=pretext, **{name: getattr(self, name).pin_memory() for name in names})


@dataclass(frozen=True, slots=True)
class _Share:
    """What a batch is made of, while its samples are on their way."""

    rows: Rows
    num_padding: int
    position: Position
    parts: Sequence[Future[list[Loaded]] | list[Loaded]]

    def cancel(self) -> None:
        for part in self.parts:
            if isinstance(part, Future):
                part.cancel()


@dataclass(kw_only=True, slots=True)
class Loader:
    """Batches of one rank. The global sequence depends on neither the number of ranks nor that of workers.

    A training sampler shuffles anew each epoch and leaves out the last partial batch. An evaluation sampler lists every
    clip of every video once, in order, and pads the last batch with samples of weight 0.
    """

    store: Store
    index: Index
    sampler: TrainSampler | EvalSampler
    crop: Crop
    batch_size: int
    """Samples of a step over all ranks; in evaluation, clips."""
    seed: int = 0
    rank: int = 0
    world_size: int = 1
    workers: int = 0
    """Processes that decode for this rank; 0 is this process."""
    prefetch: int = 2
    """Batches that the workers are ahead."""
    block_size: int = 8192
    """See pipeline.order.Order."""
    _listed: tuple[Rows, Rows] | None = field(default=None, init=False, repr=False)
    _pool: ProcessPoolExecutor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        rank_slice(self.batch_size, rank=self.rank, world_size=self.world_size)
        if self.workers < 0 or self.prefetch < 1:
            raise UserError(f"workers {self.workers} must be at least 0 and prefetch {self.prefetch} at least 1")
        if isinstance(self.sampler, Windows | Uniform):
            self._listed = _list_clips(self.index, self.sampler)
        elif len(self.index) < self.batch_size:
            raise UserError(f"{len(self.index)} videos do not fill one batch of {self.batch_size}: lower batch_size")
        elif (short := int((self.index.num_frames < self.sampler.min_frames).sum())) > 0:
            raise UserError(
                f"{short} of {len(self.index)} videos have fewer than the {self.sampler.min_frames} frames that "
                f"{type(self.sampler).__name__} needs: leave them out with index.at_least({self.sampler.min_frames})"
            )

    def __enter__(self) -> Loader:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the workers; the next epoch would start new ones."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch, the same on every rank."""
        if self._listed is not None:
            return -(-len(self._listed[0]) // self.batch_size)
        return len(self.index) // self.batch_size

    def epoch(self, epoch: int, *, start_step: int = 0) -> Iterator[Batch]:
        """Batches of an epoch from `start_step` on: the very same as when it is run from its beginning."""
        waiting: deque[_Share] = deque()
        try:
            for step, (rows, clips) in enumerate(self._global_batches(epoch, start_step), start_step):
                waiting.append(self._begin(rows, clips, epoch=epoch, step=step))
                if len(waiting) > (self.prefetch if self.workers else 0):
                    yield self._finish(waiting.popleft())
            while waiting:
                yield self._finish(waiting.popleft())
        finally:
            for share in waiting:
                share.cancel()

    def _global_batches(self, epoch: int, start_step: int) -> Iterator[tuple[Rows, Rows | None]]:
        """Rows of each global batch and, where clips are listed, the clip of each; the last one may be partial."""
        if self._listed is None:
            order = Order(shards=self.index.shards, seed=self.seed, block_size=self.block_size)
            for drawn in order.batches(epoch, batch_size=self.batch_size, start_step=start_step):
                yield drawn, None
            return
        rows, clips = self._listed
        for start in range(start_step * self.batch_size, len(rows), self.batch_size):
            yield rows[start : start + self.batch_size], clips[start : start + self.batch_size]

    def _begin(self, rows: Rows, clips: Rows | None, *, epoch: int, step: int) -> _Share:
        """Send this rank's share of a global batch on its way."""
        share = rank_slice(self.batch_size, rank=self.rank, world_size=self.world_size)
        mine = rows[share]
        chosen = [None] * len(mine) if clips is None else clips[share].tolist()
        places = itertools.count(step * self.batch_size + share.start)
        items = [self._item(*facts, epoch) for facts in zip(mine.tolist(), chosen, places, strict=False)]
        position = Position(seed=self.seed, epoch=epoch, step=step, first=share.start, global_size=self.batch_size)
        return _Share(mine, share.stop - share.start - len(mine), position, self._read(items))

    def _item(self, row: int, clip: int | None, place: int, epoch: int) -> Item:
        key = self.index.shard_keys[self.index.shards[row]]
        offset, size = int(self.index.offsets[row]), int(self.index.sizes[row])
        return Item(key, offset, size, int(self.index.num_frames[row]), clip, epoch, place)

    def _read(self, items: Sequence[Item]) -> Sequence[Future[list[Loaded]] | list[Loaded]]:
        reader = Reader(store=self.store, sampler=self.sampler, crop=self.crop, seed=self.seed)
        if not self.workers:
            return [reader.read(items)]
        if self._pool is None:
            self._pool = start_workers(reader, workers=self.workers)
        tasks = [items[start : start + _TASK_SIZE] for start in range(0, len(items), _TASK_SIZE)]
        return [self._pool.submit(read_in_worker, task) for task in tasks]

    def _finish(self, share: _Share) -> Batch:
        results = [part.result() if isinstance(part, Future) else part for part in share.parts]
        loaded = [sample for result in results for sample in result]
        rows = np.concatenate([share.rows, np.zeros(share.num_padding, np.int64)])
        weight = [0.0 if sample.dropped else 1.0 for sample in loaded] + [0.0] * share.num_padding
        pretext = [sample.pretext for sample in loaded if sample.pretext is not None]
        shape, half = (1, self.sampler.clip_len, self.crop.size, self.crop.size), self.crop.size // 2
        return Batch(
            luma=_stack([sample.luma for sample in loaded], share.num_padding, shape),
            chroma=_stack([sample.chroma for sample in loaded], share.num_padding, (*shape[:2], 2, half, half)),
            labels=torch.from_numpy(self.index.targets(rows)),
            pretext=torch.tensor(pretext, dtype=torch.int64) if pretext else None,
            weight=torch.tensor(weight),
            index=torch.from_numpy(rows),
            position=share.position,
            undecodable=tuple((int(row), s.dropped) for row, s in zip(share.rows, loaded, strict=True) if s.dropped),
            num_missing_frames=sum(sample.num_missing_frames for sample in loaded),
        )


def _stack(planes: list[Plane], num_padding: int, shape: tuple[int, ...]) -> torch.Tensor:
    """The planes with zeros of that shape after them; only an evaluation is padded, and there K is 1."""
    return torch.from_numpy(np.stack([*planes, *[np.zeros(shape, np.uint8)] * num_padding]))


def _list_clips(index: Index, sampler: EvalSampler) -> tuple[Rows, Rows]:
    """Row and number of every clip of every video, in order."""
    lengths, which = np.unique(index.num_frames, return_inverse=True)
    counts = np.array([len(sampler.clips(int(length))) for length in lengths], np.int64)[which]
    rows = np.repeat(np.arange(len(index)), counts)
    # counts [2, 3]: clips 0 1 and 0 1 2 are 0..4 less 0 0 2 2 2
    return rows, np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
