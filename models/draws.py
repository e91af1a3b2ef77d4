"""Random integers that are arithmetic on (seed, step, dataset row): the same on any device, rank and batch layout.

A counter-based generator (the finaliser of SplitMix64) in int64 tensor arithmetic, which wraps. It has no state to
save and reads nothing back from the device.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_WORD = 1 << 64
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


def _signed(value: int) -> int:
    value %= _WORD
    return value - _WORD if value >= _WORD // 2 else value


def _shift(word: Tensor, bits: int) -> Tensor:
    # torch shifts int64 arithmetically; the mask makes it a logical shift.
    return (word >> bits) & ((1 << (64 - bits)) - 1)


def _mix(word: Tensor) -> Tensor:
    word = (word ^ _shift(word, 30)) * _signed(_FIRST)
    word = (word ^ _shift(word, 27)) * _signed(_SECOND)
    return word ^ _shift(word, 31)


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """The random numbers of one batch at one step."""

    seed: int
    """Of the run."""
    step: int
    """Since the run's start, over all epochs."""
    index: Tensor
    """(B,) int64, the samples' rows in the dataset."""

    def integers(self, high: int, *, stream: int, count: int) -> Tensor:
        """(B, count) int64, uniform over 0..high-1; each `stream` is independent of the others."""
        device = self.index.device
        # Mixed one by one, so that (seed, step) = (1, 2) and (2, 1) have nothing in common.
        key = torch.tensor(0, dtype=torch.int64, device=device)
        for part in (self.seed, self.step, stream):
            key = _mix(key + _signed((part + 1) * _GOLDEN))
        rows = _mix(key + (self.index + 1) * _signed(_GOLDEN))
        counter = torch.arange(1, count + 1, device=device) * _signed(_GOLDEN)
        words = _mix(rows[:, None] + counter[None, :])
        # 63 bits modulo `high`: the bias is high / 2**63, nothing for any dataset.
        return (words & ((1 << 63) - 1)) % high
