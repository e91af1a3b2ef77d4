"""What is trained: a network, and its loss on a batch. The loop in train.py is the same for all of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from models.backbones import Backbone
from models.batch import Batch
from models.contrast import Contrast, Projector
from models.draws import Draws
from models.losses import Loss, assign_labels, cross_entropy, masked_cross_entropy
from models.means import GlobalMean, Mean
from models.metrics import top_k_correct
from models.pretext import NUM_PRETEXT_CLASSES, ClozeHead, apply_vcp, residual
from models.runtime import Runtime

Modality = Literal["rgb", "residual"]
Forward = Callable[..., Any]
"""The objective's module as the runtime has wrapped it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """When in the run a batch is."""

    epoch: int
    """From 0."""
    step: int
    """From 0, over all epochs."""


class Objective(Protocol):
    """A network with its loss; `loss` is called once a step on every rank, at the same steps."""

    @property
    def module(self) -> nn.Module:
        """What is trained and saved."""

    def loss(
        self, forward: Forward, batch: Batch, *, moment: Moment, mean: GlobalMean
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss over the global batch and scalars to report, none of which is read back here."""

    def after_step(self, runtime: Runtime) -> None:
        """Called when the weights have been updated."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold beside the module."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Of a checkpoint."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """What a supervised batch should be classified as, one row per clip (N = B * K)."""

    labels: Tensor
    """(N,) int64 or (N, C) float multi-hot."""
    index: Tensor
    """(N,) int64, row in the dataset."""
    epoch: int
    """From 0, for targets that are drawn anew each epoch."""


Criterion = Callable[[Tensor, Targets, Mean], tuple[Tensor, dict[str, Tensor]]]
"""(logits (N, C), targets, mean) to a loss and scalars to report."""


class Supervised:
    """A classifier with a criterion. A sample's clips count equally, samples by their weight."""

    def __init__(self, module: nn.Module, *, criterion: Criterion) -> None:
        self._module = module
        self._criterion = criterion

    @property
    def module(self) -> nn.Module:
        """See Objective."""
        return self._module

    def loss(
        self, forward: Forward, batch: Batch, *, moment: Moment, mean: GlobalMean
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See Objective."""
        if batch.labels is None:
            raise ValueError("batches carry no labels: a supervised objective needs a labelled list")
        size, num_clips = batch.clips.shape[:2]
        labels, index = (values.repeat_interleave(num_clips, dim=0) for values in (batch.labels, batch.index))

        def over_clips(values: Tensor) -> Tensor:
            return mean(values.view(size, num_clips).mean(1))

        targets = Targets(labels=labels, index=index, epoch=moment.epoch)
        return self._criterion(forward(batch.clips.flatten(0, 1)), targets, over_clips)

    def after_step(self, runtime: Runtime) -> None:
        """See Objective."""

    def state_dict(self) -> dict[str, Any]:
        """See Objective."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See Objective."""


def single_label(module: nn.Module) -> Supervised:
    """Softmax cross-entropy; labels (B,) int64."""

    def criterion(logits: Tensor, targets: Targets, mean: Mean) -> tuple[Tensor, dict[str, Tensor]]:
        correct = top_k_correct(logits.detach(), targets.labels, k=1)
        return cross_entropy(logits, targets.labels, mean), {"train_clip_top1": mean(correct.float())}

    return Supervised(module, criterion=criterion)


def multi_label(module: nn.Module, *, loss: Loss) -> Supervised:
    """A multi-label loss of losses.LOSSES; labels (B, C) multi-hot."""

    def criterion(logits: Tensor, targets: Targets, mean: Mean) -> tuple[Tensor, dict[str, Tensor]]:
        best = targets.labels.gather(1, logits.detach().argmax(1, keepdim=True))[:, 0]
        return loss(logits, targets.labels, mean), {"train_precision_at_1": mean(best.float())}

    return Supervised(module, criterion=criterion)


def masked_label(module: nn.Module, *, labels: Sequence[Sequence[int]], num_classes: int, seed: int) -> Supervised:
    """CCE-Mask: of each video's labels (B, C) multi-hot one is assigned, anew each epoch, and the rest are masked.

    `labels` are the whole training list's, 0-based, in the dataset's order of rows.
    """

    @lru_cache(maxsize=1)
    def assigned(epoch: int, device: torch.device) -> Tensor:
        drawn = assign_labels(labels, num_classes=num_classes, seed=seed, epoch=epoch)
        return torch.from_numpy(drawn).to(device)

    def criterion(logits: Tensor, targets: Targets, mean: Mean) -> tuple[Tensor, dict[str, Tensor]]:
        target = assigned(targets.epoch, logits.device)[targets.index]
        partial = (targets.labels > 0).scatter(1, target[:, None], False)
        correct = top_k_correct(logits.detach().masked_fill(partial, float("-inf")), target, k=1)
        return masked_cross_entropy(logits, target, partial, mean), {"train_assigned_top1": mean(correct.float())}

    return Supervised(module, criterion=criterion)


class ClozeContrastNetwork(nn.Module):
    """One backbone for three clips, the cloze head over all of them, and the projector over the first and third."""

    def __init__(self, backbone: Backbone, *, dim: int = 128) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = ClozeHead(backbone.num_features)
        self.projector = Projector(backbone.num_features, dim=dim)

    def forward(self, clips: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Clips (B, 3, 3, T, H, W) to pretext logits (B, 5) and projections (B, dim) of the first and third clip."""
        # One pass per position, as released: each has its own batch-norm statistics.
        first, middle, third = (self.backbone(clips[:, position]) for position in range(3))
        return self.head((first, middle, third)), self.projector(first), self.projector(third)


class SelfSupervised:
    """Pretext-Contrastive Learning with VCP (https://arxiv.org/abs/2010.15464): CE_pretext + 0.5 (L1 + L3)."""

    def __init__(
        self,
        module: ClozeContrastNetwork,
        *,
        contrast: Contrast,
        seed: int,
        modality: Modality = "residual",
        contrast_weight: float = 0.5,
    ) -> None:
        if modality not in ("rgb", "residual"):
            raise ValueError(f"modality {modality!r} is unknown: choose rgb or residual")
        self._module = module
        self._contrast = contrast
        self._seed = seed
        self._modality = modality
        self._contrast_weight = contrast_weight
        self._seen: tuple[Tensor, Tensor, Batch] | None = None

    @property
    def module(self) -> nn.Module:
        """See Objective."""
        return self._module

    def loss(
        self, forward: Forward, batch: Batch, *, moment: Moment, mean: GlobalMean
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """See Objective."""
        if batch.pretext is None or batch.clips.shape[1] != 3:
            raise ValueError(f"batches have {batch.clips.shape[1]} clips a sample: 3 and a pretext label are needed")
        draws = Draws(seed=self._seed, step=moment.step, index=batch.index)
        clips = apply_vcp(batch.clips, batch.pretext, draws)
        if self._modality == "residual":
            clips = residual(clips)
        logits, first, third = forward(clips)
        pretext = cross_entropy(logits, batch.pretext, mean)
        contrast = self._contrast.loss(first, third, draws=draws, mean=mean)
        self._seen = (first.detach(), third.detach(), batch)
        # Remote clips do not fit into short videos, so the five labels are not equally common.
        labels = nn.functional.one_hot(batch.pretext, NUM_PRETEXT_CLASSES).float()
        correct = top_k_correct(logits.detach(), batch.pretext, k=1).float()
        shares = mean(torch.cat([correct[:, None], labels], dim=1))
        metrics = {"pretext_loss": pretext, "contrast_loss": contrast, "train_pretext_top1": shares[0]}
        metrics |= {f"pretext_share_{label}": shares[1 + label] for label in range(NUM_PRETEXT_CLASSES)}
        return pretext + self._contrast_weight * contrast, metrics

    def after_step(self, runtime: Runtime) -> None:
        """See Objective."""
        assert self._seen is not None, "loss comes first"
        first, third, batch = self._seen
        self._contrast.after_step(first, third, index=batch.index, weight=batch.weight, runtime=runtime)
        self._seen = None

    def state_dict(self) -> dict[str, Any]:
        """See Objective."""
        return self._contrast.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See Objective."""
        self._contrast.load_state_dict(state)
