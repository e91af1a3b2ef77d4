"""Video Cloze Procedure: which of five things was done to the middle clip (https://arxiv.org/abs/2001.00294)?

As released with Pretext-Contrastive Learning (github.com/BestJuly/Pretext-Contrastive-Learning,
`datasets/ucf101.py`): 0 nothing, 1 rotated in the plane, 2 quadrants permuted, 3 chunks of time swapped, 4 a remote
clip of the same video. The loader draws the label and puts the remote clip in place; what can be done to pixels
already on the device is done here.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.draws import Draws

NUM_PRETEXT_CLASSES = 5
ROTATE, PERMUTE, SHUFFLE = 1, 2, 3
_CHUNKS = 4
_ROTATIONS, _SWAPS = 101, 102
"""Streams of Draws."""


class ClozeHead(nn.Module):
    """One linear layer over the three clips' features: three of (B, F) to (B, 5)."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * num_features, NUM_PRETEXT_CLASSES)

    def forward(self, features: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        """The logits."""
        logits: Tensor = self.linear(torch.cat(features, dim=1))
        return logits


def residual(clips: Tensor) -> Tensor:
    """Frame differences `x[t-1] - x[t]` of clips (..., T, H, W), the first against the last, not re-scaled."""
    return clips.roll(1, dims=-3) - clips


def _pixel_orders(height: int, width: int, device: torch.device) -> Tensor:
    """(5, H*W): identity, rotations by 90, 180 and 270 degrees, quadrants exchanged across the centre."""
    own = torch.arange(height * width, device=device).view(height, width)
    orders = [torch.rot90(own, quarter) for quarter in range(4)]
    orders.append(own.roll((height // 2, width // 2), dims=(0, 1)))
    return torch.stack([order.reshape(-1) for order in orders])


def _frame_orders(num_frames: int, device: torch.device) -> Tensor:
    """(7, T): identity, then the six ways to swap two of the four chunks."""
    orders = [list(range(_CHUNKS))]
    for first in range(_CHUNKS):
        for second in range(first + 1, _CHUNKS):
            order = list(range(_CHUNKS))
            order[first], order[second] = second, first
            orders.append(order)
    chunks = torch.arange(num_frames, device=device).view(_CHUNKS, -1)
    return torch.stack([chunks[order].reshape(-1) for order in orders])


def apply_vcp(clips: Tensor, labels: Tensor, draws: Draws) -> Tensor:
    """Clips (B, 3, 3, T, H, W) with the middle clip of each sample transformed as its label (B,) says.

    Every transformation is an order of frames followed by an order of pixels, so the batch takes two gathers.

    Raises:
        ValueError: frames are not square with an even side, or T is not a multiple of 4.
    """
    middle = clips[:, 1]
    batch, channels, num_frames, height, width = middle.shape
    if height != width or height % 2:
        raise ValueError(f"frames are {height}x{width}: rotation and permutation need a square with an even side")
    if num_frames % _CHUNKS:
        raise ValueError(f"clips have {num_frames} frames: the temporal shuffle needs a multiple of {_CHUNKS}")
    turn = 1 + draws.integers(3, stream=_ROTATIONS, count=1)[:, 0]
    swap = 1 + draws.integers(6, stream=_SWAPS, count=1)[:, 0]
    none = torch.zeros_like(turn)
    pixels = torch.where(labels == ROTATE, turn, torch.where(labels == PERMUTE, 4, none))
    frames = torch.where(labels == SHUFFLE, swap, none)
    in_time = _frame_orders(num_frames, clips.device)[frames][:, None, :, None]
    in_space = _pixel_orders(height, width, clips.device)[pixels][:, None, None, :]
    flat = middle.reshape(batch, channels, num_frames, height * width)
    flat = flat.gather(2, in_time.expand_as(flat)).gather(3, in_space.expand_as(flat))
    return torch.stack([clips[:, 0], flat.view_as(middle), clips[:, 2]], dim=1)
