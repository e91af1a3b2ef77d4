"""The order of samples as arithmetic on (seed, epoch, step): nothing to store, nothing to replay.

Shard-blocked shuffle: the shards are permuted for each epoch and cut into blocks of about `block_size` items; the
items of a block are permuted among themselves. With no more than `block_size` items it is a uniform shuffle of all.
With more, every item is still seen exactly once an epoch and both permutations are new in every epoch, but two items
of one shard are never further apart than a block: a batch is a uniform draw from a block of randomly chosen shards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError

Purpose = Literal["shards", "block", "clip", "augment"]
_PURPOSES: dict[Purpose, int] = {"shards": 0, "block": 1, "clip": 2, "augment": 3}


def generator(seed: int, *, epoch: int, position: int, purpose: Purpose) -> np.random.Generator:
    """A generator of its own for each (seed, epoch, position, purpose), on any machine.

    Philox is keyed by (seed, epoch); position and purpose choose disjoint stretches of 2^64 blocks of its counter.
    """
    key = np.array([seed, epoch], np.uint64)
    counter = np.array([0, position, _PURPOSES[purpose], 0], np.uint64)
    return np.random.Generator(np.random.Philox(key=key, counter=counter))


@dataclass(frozen=True, kw_only=True, slots=True)
class Position:
    """Where a batch lies in its run; what the draws of its augmentation are keyed by."""

    seed: int
    epoch: int
    step: int
    first: int
    """Place of this rank's first sample in the global batch."""
    global_size: int
    """Samples of the global batch."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Order:
    """The global sequence of items of every epoch, the same for any number of ranks and workers."""

    shards: npt.NDArray[np.int32]
    """(N,) number of the shard that each item lies in."""
    seed: int
    block_size: int = 8192
    """Items that are shuffled among themselves, to within one shard."""

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**64:
            raise UserError(f"seed {self.seed} must be at least 0 and below 2**64")
        if self.block_size < 1:
            raise UserError(f"block_size {self.block_size} must be at least 1: it is a number of items")

    def batches(self, epoch: int, *, batch_size: int, start_step: int = 0) -> Iterator[npt.NDArray[np.int64]]:
        """(batch_size,) items of each global batch from `start_step` on; the last partial batch is left out."""
        left, skip = np.empty(0, np.int64), start_step * batch_size
        for number, items in enumerate(self._blocks(epoch)):
            if skip >= len(items):
                skip -= len(items)
                continue
            shuffled = generator(self.seed, epoch=epoch, position=number, purpose="block").permutation(items)
            left, skip = np.concatenate([left, shuffled[skip:]]), 0
            full = len(left) // batch_size * batch_size
            yield from left[:full].reshape(-1, batch_size)
            left = left[full:]

    def _blocks(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        """Items of each block of an epoch, not yet shuffled."""
        members = np.argsort(self.shards, kind="stable")
        sizes = np.bincount(self.shards)
        starts = np.cumsum(sizes) - sizes
        shards = generator(self.seed, epoch=epoch, position=0, purpose="shards").permutation(len(sizes))
        # sizes [3, 3, 3], block_size 5: the shards begin at 0, 3, 6 and so fall into blocks 0, 0, 1
        block = (np.cumsum(sizes[shards]) - sizes[shards]) // self.block_size
        groups = np.split(shards, np.flatnonzero(np.diff(block)) + 1)
        return [np.concatenate([members[starts[s] : starts[s] + sizes[s]] for s in group]) for group in groups]


def rank_slice(batch_size: int, *, rank: int, world_size: int) -> slice:
    """This rank's places in a global batch.

    Raises:
        UserError: the ranks cannot share the batch equally, or there is no such rank.
    """
    if batch_size < 1 or batch_size % world_size:
        raise UserError(
            f"batch_size {batch_size} must be a multiple of the {world_size} ranks, for it is the global one"
        )
    if not 0 <= rank < world_size:
        raise UserError(f"rank {rank} must be at least 0 and below world_size {world_size}")
    share = batch_size // world_size
    return slice(rank * share, (rank + 1) * share)
