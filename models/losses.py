"""The paper's five losses: CCE, CCE-Mask, BCE, focal and Distribution-Balanced focal, with its authors' variants.

Each takes logits (B, C), labels, and a `mean` that turns per-sample values (B,) into a scalar (over this process's or
all ranks' samples, by weight), and computes in float32 outside autocast (float64 stays float64).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from models.means import Mean

Loss = Callable[[Tensor, Tensor, Mean], Tensor]
"""(logits, labels, mean) to a scalar."""


def _full(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def cross_entropy(logits: Tensor, labels: Tensor, mean: Mean) -> Tensor:
    """Softmax cross-entropy (CCE); labels (B,) int64."""
    with torch.autocast(logits.device.type, enabled=False):
        return mean(functional.cross_entropy(_full(logits), labels, reduction="none"))


def masked_cross_entropy(logits: Tensor, labels: Tensor, partial: Tensor, mean: Mean) -> Tensor:
    """CCE-Mask: a video's labels other than the assigned one leave the softmax; labels (B,), partial (B, C) bool.

    Paper, appendix B.1. Partial logits become -inf (as in the authors' `train-test.py`): multiplying their loss by zero
    would change nothing, for they would still be pushed down through the denominator.

    Raises:
        ValueError: a sample's assigned label is among its partial ones.
    """
    if bool(partial.gather(1, labels[:, None]).any()):  # CPU-GPU sync
        raise ValueError("a sample's assigned label is among its partial labels: leave it out of them")
    with torch.autocast(logits.device.type, enabled=False):
        open_logits = _full(logits).masked_fill(partial, float("-inf"))
        return mean(functional.cross_entropy(open_logits, labels, reduction="none"))


def binary_cross_entropy(logits: Tensor, labels: Tensor, mean: Mean) -> Tensor:
    """BCE over classes; labels (B, C) multi-hot."""
    with torch.autocast(logits.device.type, enabled=False):
        return mean(_bce(_full(logits), labels).mean(1))


def _bce(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction="none")


@dataclass(frozen=True, kw_only=True, slots=True)
class Focal:
    """Sigmoid focal loss (https://arxiv.org/abs/1708.02002); labels (B, C) multi-hot."""

    alpha: float | None = 0.25
    """Share of the positives' weight; None is no balance. The paper's authors in effect use 0.75."""
    gamma: float = 2.0
    """How fast easy examples fade."""

    def __call__(self, logits: Tensor, labels: Tensor, mean: Mean) -> Tensor:
        """See the module."""
        with torch.autocast(logits.device.type, enabled=False):
            logits, labels = _full(logits), labels.to(_full(logits).dtype)
            bce = _bce(logits, labels)
            loss = bce * (-torch.expm1(-bce)) ** self.gamma  # exp(-bce) is the probability given to the truth
            if self.alpha is not None:
                loss = loss * (self.alpha * labels + (1 - self.alpha) * (1 - labels))
            return mean(loss.mean(1))


@dataclass(frozen=True, slots=True)
class Frequencies:
    """How many training videos carry each class, for losses that balance by it."""

    counts: Tensor
    """(C,) float64, by class index, each in 1..num_videos-1 so that all statistics are finite."""
    num_videos: int


def class_frequencies(labels: Iterable[Sequence[int]], *, num_classes: int) -> Frequencies:
    """Counts over the training list, one sequence of 0-based classes per video, by index and clamped.

    Raises:
        ValueError: fewer than two videos, or a class outside 0..num_classes-1.
    """
    counts, num_videos = np.zeros(num_classes, dtype=np.int64), 0
    for own in labels:
        if own and (min(own) < 0 or max(own) >= num_classes):
            raise ValueError(
                f"video {num_videos} has classes {list(own)}: {num_classes} classes are 0..{num_classes - 1}"
            )
        counts[list(set(own))] += 1
        num_videos += 1
    if num_videos < 2:
        raise ValueError(f"{num_videos} labelled videos: class frequencies need at least two")
    return Frequencies(torch.from_numpy(counts).double().clamp(1, num_videos - 1), num_videos)


@dataclass(frozen=True, kw_only=True, slots=True)
class Balance:
    """Hyper-parameters of the Distribution-Balanced loss, by the paper's symbols; defaults are those for COCO-MLT."""

    alpha: float = 0.1
    """Lifts the smoothed weight."""
    beta: float = 10.0
    """Steepness of the smoothing."""
    mu: float = 0.2
    """Where the smoothing is steepest."""
    scale: float = 2.0
    """lambda: how much negatives' logits are scaled up and their weight down."""
    kappa: float = 0.05
    """Strength of the class-specific bias."""
    gamma: float | None = 2.0
    """Focusing; None is plain BCE."""
    factor: float = 2.0
    """Multiplies the focal form."""


COCO = Balance()
VOC = Balance(mu=0.3, scale=5.0)
CLASS_DEFAULTS = Balance(alpha=10.0, beta=0.2, mu=0.1, scale=5.0, kappa=0.1)
"""Defaults of the reference class, which the NoisyActions2M authors use: weights differ by less than 5 %."""


def _beside(statistics: Tensor, batch: Tensor) -> Tensor:
    """On the batch's device and in its dtype; once there, steps copy nothing."""
    return statistics.to(batch)


class DistributionBalanced:
    """Distribution-Balanced loss (https://arxiv.org/abs/2007.09654); labels (B, C) multi-hot.

    Follows github.com/wutong16/DistributionBalancedLoss `mllt/models/losses/resample_loss.py` (the code, where it
    differs from the text: the bias carries 1 / lambda), without changing the caller's logits in place.
    """

    def __init__(self, frequencies: Frequencies, *, balance: Balance = COCO, scalar_focal: bool = False) -> None:
        """With `scalar_focal` the focal factor is one number from the batch's mean loss, as in the authors' code."""
        self.balance = balance
        self.scalar_focal = scalar_focal
        self.inverse = 1 / frequencies.counts
        self.bias = -balance.kappa / balance.scale * torch.log(frequencies.num_videos / frequencies.counts - 1)

    def weights(self, labels: Tensor) -> Tensor:
        """(B, C) re-balancing weights, smoothed; a sample without positives has alpha + 1 throughout."""
        b = self.balance
        self.inverse = inverse = _beside(self.inverse, labels)
        share = (labels * inverse).sum(1, keepdim=True)
        ratio = inverse / share.where(share > 0, 1)
        smooth = torch.sigmoid(b.beta * (ratio - b.mu))
        return b.alpha + smooth.where(share > 0, 1)

    def regularised(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(B, C) logits shifted by the classes' bias, negatives scaled by lambda; never for scores at test time."""
        self.bias = _beside(self.bias, logits)
        shifted = logits + self.bias
        return torch.where(labels > 0, shifted, self.balance.scale * shifted)

    def __call__(self, logits: Tensor, labels: Tensor, mean: Mean) -> Tensor:
        """See the module."""
        b = self.balance
        with torch.autocast(logits.device.type, enabled=False):
            logits = _full(logits)
            labels = labels.to(logits.dtype)
            weights = self.weights(labels)
            weights = torch.where(labels > 0, weights, weights / b.scale)
            bce = _bce(self.regularised(logits, labels), labels)
            if b.gamma is None:
                return mean((weights * bce).mean(1))
            if self.scalar_focal:
                focus = (-torch.expm1(-mean(bce.mean(1)))) ** b.gamma
                return b.factor * focus * mean((weights * bce).mean(1))
            focus = (-torch.expm1(-bce)) ** b.gamma
            return b.factor * mean((focus * weights * bce).mean(1))


LOSSES: Mapping[str, Callable[[Frequencies], Loss]] = {
    "cce": lambda _: cross_entropy,
    "bce": lambda _: binary_cross_entropy,
    "focal": lambda _: Focal(),
    "focal_official": lambda _: Focal(alpha=0.75),
    "balanced_focal": lambda frequencies: DistributionBalanced(frequencies),
    "balanced_focal_voc": lambda frequencies: DistributionBalanced(frequencies, balance=VOC),
    "noisyactions_official": lambda frequencies: DistributionBalanced(
        frequencies, balance=CLASS_DEFAULTS, scalar_focal=True
    ),
}
"""Builders by the name that a config uses. CCE-Mask needs its assignment too: objectives.MaskedLabel."""


def assign_labels(labels: Sequence[Sequence[int]], *, num_classes: int, seed: int, epoch: int) -> np.ndarray:
    """One label per video for CCE-Mask, (N,) int64: the paper's Algorithm 1, drawn anew each epoch.

    Videos in shuffled order take their first label whose class is still below the mean number of videos per class;
    a video without such a label takes one of its labels uniformly, and the class's count stays.

    Raises:
        ValueError: a video has no label.
    """
    random = np.random.Generator(np.random.Philox(key=[seed, epoch]))
    sizes = np.bincount([c for own in labels for c in own], minlength=num_classes)
    limit = sizes.sum() / max((sizes > 0).sum(), 1)
    counts = np.zeros(num_classes, dtype=np.int64)
    assigned = np.zeros(len(labels), dtype=np.int64)
    for video in random.permutation(len(labels)).tolist():
        own = labels[video]
        if not own:
            raise ValueError(f"video {video} has no label: CCE-Mask needs at least one, leave it out of the list")
        below = next((c for c in own if counts[c] < limit), None)
        if below is None:
            assigned[video] = own[int(random.integers(len(own)))]
        else:
            assigned[video] = below
            counts[below] += 1
    return assigned
