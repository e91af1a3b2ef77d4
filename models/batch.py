"""What one training or evaluation step sees, already on the device."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """B samples of K clips each on one rank."""

    clips: Tensor
    """(B, K, 3, T, H, W) float, normalised."""
    labels: Tensor | None
    """(B,) int64 or (B, C) float multi-hot; None where nothing is labelled."""
    weight: Tensor
    """(B,) float32: 0 for padding and for what could not be decoded, else 1."""
    index: Tensor
    """(B,) int64, row in the dataset."""
    pretext: Tensor | None = None
    """(B,) int64, the pretext task's label, for self-supervised training."""

    def __post_init__(self) -> None:
        if self.clips.dim() != 6:
            raise ValueError(f"clips have shape {tuple(self.clips.shape)}: (B, K, 3, T, H, W) is needed")
        for name in ("labels", "weight", "index", "pretext"):
            value = getattr(self, name)
            if value is not None and len(value) != len(self.clips):
                raise ValueError(f"{name} has {len(value)} rows for {len(self.clips)} samples of clips")


def cover_undecodable(batch: Batch) -> Batch:
    """The batch with each weight-0 sample's clips replaced by a decoded neighbour's, for batch norm's sake only.

    The sample keeps its weight of 0, so losses, metrics and counts do not change: the blank clips of a video that
    could not be decoded would otherwise shift the statistics that the others are normalised by. Nothing is read back
    from the device.
    """
    if batch.weight.device.type == "cpu" and bool((batch.weight > 0).all()):
        return batch
    decoded = batch.weight > 0
    position = torch.arange(len(decoded), device=decoded.device)
    before = torch.where(decoded, position, -1).cummax(0).values  # the nearest decoded sample at or before each
    donor = torch.where(before >= 0, before, decoded.to(torch.int8).argmax())
    return replace(batch, clips=batch.clips[donor])
