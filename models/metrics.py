"""Accuracy and average precision over clips and over whole videos."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def top_k_correct(scores: Tensor, labels: Tensor, *, k: int) -> Tensor:
    """(N,) bool: is the label (N,) among the k best of scores (N, C)? Ties go to the lower class.

    A row with NaN is wrong.
    """
    own = scores.gather(1, labels[:, None])
    classes = torch.arange(scores.shape[1], device=scores.device)
    better = (scores > own) | ((scores == own) & (classes[None, :] < labels[:, None]))
    return (better.sum(1) < k) & ~scores.isnan().any(1)


class VideoScores:
    """Sums of clips' probabilities per video; clips of weight 0 add nothing."""

    def __init__(self, num_videos: int, num_classes: int, *, device: torch.device | None = None) -> None:
        self.sums = torch.zeros(num_videos, num_classes, dtype=torch.float64, device=device)
        self.counts = torch.zeros(num_videos, dtype=torch.float64, device=device)

    def add(self, probabilities: Tensor, *, index: Tensor, weight: Tensor) -> None:
        """Clips' probabilities (N, C), their videos' rows (N,) and weights (N,)."""
        kept = weight > 0
        # float64 sums of float32 values: the order of adding changes nothing that a metric could show
        share = torch.where(kept[:, None], probabilities.double() * weight[:, None], 0)
        self.sums.index_add_(0, index, share)
        self.counts.index_add_(0, index, weight.double())

    def means(self) -> tuple[Tensor, Tensor]:
        """Mean probabilities (V, C), float64, and which videos had any clip (V,) bool; the others' rows are 0."""
        return self.sums / self.counts.clamp(min=1)[:, None], self.counts > 0


@dataclass(frozen=True, kw_only=True, slots=True)
class AveragePrecision:
    """Mean average precision with what it was taken over."""

    mean: float
    """Macro mean over classes with at least one positive, in 0..1; NaN if there is none."""
    num_classes: int
    """That entered the mean."""
    num_without_positives: int
    """That were left out, having no positive."""


def mean_average_precision(scores: Tensor, labels: Tensor) -> AveragePrecision:
    """Of scores (N, C) against multi-hot labels (N, C); equal scores share a rank, so the order of rows is nothing."""
    present = labels.gt(0).any(0)
    values = [_average_precision(scores[:, c], labels[:, c] > 0) for c in present.nonzero()[:, 0].tolist()]
    return AveragePrecision(
        mean=float(torch.stack(values).mean()) if values else float("nan"),
        num_classes=len(values),
        num_without_positives=int((~present).sum()),
    )


def _average_precision(scores: Tensor, truth: Tensor) -> Tensor:
    ordered, order = scores.sort(descending=True, stable=True)
    hits = truth[order].double().cumsum(0)
    # Precision and recall only exist where a threshold can lie: after the last of equal scores.
    last = torch.cat([ordered[1:] != ordered[:-1], torch.ones(1, dtype=torch.bool, device=scores.device)])
    hits, ranks = hits[last], torch.arange(1, len(scores) + 1, device=scores.device)[last]
    gained = torch.diff(hits, prepend=hits.new_zeros(1))
    return (gained * hits / ranks).sum() / hits[-1]


def confusion_matrix(predicted: Tensor, labels: Tensor, *, num_classes: int) -> Tensor:
    """(C, C) int64 counts: row is the true class, column the predicted."""
    return torch.bincount(labels * num_classes + predicted, minlength=num_classes**2).view(num_classes, num_classes)
