"""The contrastive half of Pretext-Contrastive Learning (https://arxiv.org/abs/2010.15464): banks, or the batch itself.

Both take the projected first and third clips of each video, L2-normalised, and compare across the two: a video's
first clip should be nearer to its own third clip than to others', and the other way round. All in float32 outside
autocast.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.draws import Draws
from models.means import GlobalMean
from models.runtime import Runtime

TEMPERATURE = 0.07
_NEGATIVES = 201
"""Stream of Draws."""


class Projector(nn.Module):
    """Linear, ReLU, Linear, L2 normalisation: (B, F) to (B, dim) on the unit sphere, float32."""

    def __init__(self, num_features: int, *, dim: int = 128) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(num_features, num_features), nn.ReLU(), nn.Linear(num_features, dim))

    def forward(self, features: Tensor) -> Tensor:
        """The projection."""
        return functional.normalize(self.layers(features).float(), dim=1)


class Contrast(Protocol):
    """A contrastive loss between two sets of projections, with what it remembers between steps."""

    def loss(self, first: Tensor, third: Tensor, *, draws: Draws, mean: GlobalMean) -> Tensor:
        """Scalar: the loss of first against third plus that of third against first, mean over the global batch."""

    def after_step(self, first: Tensor, third: Tensor, *, index: Tensor, weight: Tensor, runtime: Runtime) -> None:
        """Remember this step's projections (B, dim), detached."""

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint must hold."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Of a checkpoint."""


class MemoryBanks:
    """Two banks with a row per training video; InfoNCE against K rows drawn uniformly with replacement.

    Follows `lib/NCEAverage.py::NCEAverage_ori` of github.com/BestJuly/Pretext-Contrastive-Learning: first clips score
    against the bank of third clips and the other way round, at temperature 0.07; after the step each bank's row becomes
    norm(0.5 m + 0.5 f). The banks are whole on every rank: 2 N dim 4 bytes, 2 GB for two million videos.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        dim: int = 128,
        num_negatives: int = 1024,
        momentum: float = 0.5,
        seed: int = 0,
        device: torch.device | None = None,
    ) -> None:
        """Rows start uniform in (-s, s), s = 1 / sqrt(dim / 3), the same on every rank and device for one seed."""
        if num_samples < 2:
            raise ValueError(f"num_samples is {num_samples}: a contrast needs at least two videos")
        self.num_negatives = num_negatives
        self.momentum = momentum
        generator = torch.Generator().manual_seed(seed)
        scale = (dim / 3) ** -0.5
        self.banks = {
            name: ((torch.rand(num_samples, dim, generator=generator) * 2 - 1) * scale).to(device)
            for name in ("first", "third")
        }

    @property
    def num_samples(self) -> int:
        """Rows of each bank."""
        return len(self.banks["first"])

    def candidates(self, draws: Draws) -> Tensor:
        """(B, 1 + K) int64 rows: the positive first, then the negatives, among which it may occur again."""
        negatives = draws.integers(self.num_samples, stream=_NEGATIVES, count=self.num_negatives)
        return torch.cat([draws.index[:, None], negatives], dim=1)

    def loss(self, first: Tensor, third: Tensor, *, draws: Draws, mean: GlobalMean) -> Tensor:
        """See Contrast."""
        rows = self.candidates(draws)
        with torch.autocast(first.device.type, enabled=False):
            from_first = self._nce(first, self.banks["third"][rows])
            from_third = self._nce(third, self.banks["first"][rows])
        return mean(from_first + from_third)

    def _nce(self, query: Tensor, keys: Tensor) -> Tensor:
        """Per-sample cross-entropy of query (B, dim) against keys (B, 1 + K, dim), whose first is right."""
        scores = torch.einsum("bd,bkd->bk", query.float(), keys) / TEMPERATURE
        return scores.logsumexp(1) - scores[:, 0]

    @torch.no_grad()
    def after_step(self, first: Tensor, third: Tensor, *, index: Tensor, weight: Tensor, runtime: Runtime) -> None:
        """See Contrast. Ranks write in rank order; of a video that occurs twice the last occurrence counts."""
        index, weight = runtime.all_gather(index), runtime.all_gather(weight)
        # The position whose value each row gets; equal rows get equal values, so the order of writing cannot matter.
        same = (index[:, None] == index[None, :]) & (weight > 0)[None, :]
        position = torch.arange(len(index), device=index.device)
        winner = torch.where(same, position[None, :], -1).amax(1)
        for name, value in (("first", first), ("third", third)):
            everyone = runtime.all_gather(value.detach().float())
            bank = self.banks[name]
            old = bank[index]
            new = functional.normalize(self.momentum * old + (1 - self.momentum) * everyone[winner.clamp(min=0)], dim=1)
            bank[index] = torch.where((winner >= 0)[:, None], new, old)

    def state_dict(self) -> dict[str, Tensor]:
        """See Contrast."""
        return dict(self.banks)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See Contrast.

        Raises:
            ValueError: the banks are of another number of videos or another dimension.
        """
        for name, bank in self.banks.items():
            if state[name].shape != bank.shape:
                raise ValueError(
                    f"memory bank in the checkpoint is {tuple(state[name].shape)}, this run needs {tuple(bank.shape)}: "
                    "resume with the training list that it was started with"
                )
            bank.copy_(state[name])


class InBatch:
    """Negatives are the other clips of the global batch (SimCLR, https://arxiv.org/abs/2002.05709)."""

    def loss(self, first: Tensor, third: Tensor, *, draws: Draws, mean: GlobalMean) -> Tensor:
        """See Contrast. Every rank computes the whole loss; gradients flow through its own rows."""
        with torch.autocast(first.device.type, enabled=False):
            views = torch.cat([mean.gather(first.float()), mean.gather(third.float())])
            weight = mean.runtime.all_gather(mean.weight).repeat(2)
            size = len(weight)
            position = torch.arange(size, device=views.device)
            partner = (position + size // 2) % size
            # Undecodable samples are nobody's negatives; the partner stays, so that no row is empty.
            hidden = (weight == 0)[None, :] & (partner[:, None] != position[None, :])
            hidden = hidden | (position[:, None] == position[None, :])
            scores = (views @ views.T / TEMPERATURE).masked_fill(hidden, float("-inf"))
            per_view = functional.cross_entropy(scores, partner, reduction="none")
        # Each half divided by its own samples: the sum of both directions, as for the banks.
        return (per_view * weight).sum() / mean.total

    def after_step(self, first: Tensor, third: Tensor, *, index: Tensor, weight: Tensor, runtime: Runtime) -> None:
        """See Contrast."""

    def state_dict(self) -> dict[str, Tensor]:
        """See Contrast."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See Contrast."""
