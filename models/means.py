"""Weighted means over samples: of this process, or of all ranks with the gradients that go with it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from models.runtime import Runtime

Mean = Callable[[Tensor], Tensor]
"""Per-sample values (B, ...) to (...)."""


def weighted_mean(weight: Tensor | None = None) -> Mean:
    """The mean over this process's samples by weight (B,); samples of weight 0 contribute nothing."""

    def mean(per_sample: Tensor) -> Tensor:
        if weight is None:
            return per_sample.mean(0)
        return torch.where(weight > 0, per_sample * weight, 0).sum(0) / weight.sum().clamp(min=1e-12)

    return mean


class GlobalMean:
    """Weighted means over the samples of all ranks, with gradients that come out right after averaging over ranks.

    The value is the mean over the global batch. Each rank's gradient is of its own samples' part, times the number of
    ranks, because DistributedDataParallel divides by it: N ranks step as one process would on the same global batch.
    """

    def __init__(self, weight: Tensor, runtime: Runtime) -> None:
        """`weight` (B,): samples of weight 0 contribute nothing, not even their NaNs."""
        self.weight = weight
        self.runtime = runtime
        self.total = runtime.all_reduce_sum(weight.sum()).clamp(min=1e-12)

    def __call__(self, per_sample: Tensor) -> Tensor:
        """(B, ...) to (...)."""
        weight = self.weight.view(-1, *[1] * (per_sample.dim() - 1)).to(per_sample.dtype)
        part = torch.where(weight > 0, per_sample * weight, 0).sum(0) / self.total
        if self.runtime.world_size == 1:
            return part
        return self._spread(part, self.runtime.all_reduce_sum(part.detach()))

    def gather(self, tensor: Tensor) -> Tensor:
        """(B, ...) of every rank in rank order, differentiable in this rank's rows.

        For losses that each rank computes whole.
        """
        everyone = self.runtime.all_gather(tensor.detach())
        if self.runtime.world_size == 1:
            return tensor
        start = self.runtime.rank * len(tensor)
        own = self._spread(tensor, tensor.detach())
        return torch.cat([everyone[:start], own, everyone[start + len(tensor) :]])

    def _spread(self, source: Tensor, value: Tensor) -> Tensor:
        return value + self.runtime.world_size * (source - source.detach())
