"""Dice: repeatable chance, keyed by words and numbers, cheap enough for tens of thousands of videos."""

from __future__ import annotations

import hashlib
import math
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

import numpy as np

T = TypeVar("T")

_BLOCK = 64


def key_of(*parts: object) -> int:
    """128 bits that depend on the text of all parts and on nothing else."""
    return int.from_bytes(hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=16).digest(), "big")


class Dice:
    """A stream of uniform numbers for one key; drawn in blocks, for single draws from numpy cost ten times as much."""

    def __init__(self, *key: object) -> None:
        self._bits = np.random.Generator(np.random.Philox(key=key_of(*key)))
        self._left: list[float] = []

    def uniform(self) -> float:
        """The next number in [0, 1)."""
        if not self._left:
            self._left = self._bits.random(_BLOCK).tolist()
        return self._left.pop()

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self.uniform()

    def integer(self, low: int, high: int) -> int:
        """Uniform in low..high, both included."""
        return low + int(self.uniform() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True with that probability."""
        return self.uniform() < probability

    def pick(self, items: Sequence[T]) -> T:
        """One of the items, all alike."""
        return items[int(self.uniform() * len(items))]

    def weighted(self, items: Sequence[T], weights: Sequence[float]) -> T:
        """One of the items, as often as its weight says."""
        sums = list(accumulate(weights))
        return items[min(bisect(sums, self.uniform() * sums[-1]), len(items) - 1)]

    def exponential(self, mean: float) -> float:
        """From the exponential distribution with that mean."""
        return -mean * math.log(1.0 - self.uniform())

    def poisson(self, mean: float) -> int:
        """From the Poisson distribution with that (small) mean."""
        count, product, floor = 0, self.uniform(), math.exp(-mean)
        while product > floor:
            count += 1
            product *= self.uniform()
        return count

    def sample(self, items: Sequence[T], count: int) -> list[T]:
        """Up to `count` different items, in random order."""
        pool = list(items)
        return [pool.pop(int(self.uniform() * len(pool))) for _ in range(min(count, len(pool)))]

    def arrays(self) -> np.random.Generator:
        """The numpy generator beneath, for whole arrays."""
        return self._bits
