"""Planes -> float clips on the training device, batched: colour conversion, augmentation, normalisation.

Each clip has one draw, which its frames share. The draws of a step are made for the whole global batch and each rank
takes its rows, so that a sample's augmentation depends on nothing but (seed, epoch, step, its place in the batch).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import conv2d, interpolate, pad

from pipeline.errors import UserError
from pipeline.order import Position, generator

Normalisation = Literal["unit", "paper_text", "paper_code", "imagenet"]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_GREY = (0.2989, 0.587, 0.114)
_NUM_DRAWS = 13  # uniform numbers of a clip: 4 whether, 4 jitter strengths, 4 jitter order, 1 blur


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """What is done to clips; a probability of 0 is never."""

    normalisation: Normalisation = "paper_text"
    """Of x in [0, 1]. `unit`: x. `paper_text`: (x - .5) / .5. `paper_code`: (255 x - .5) / .5, as the authors released.
    `imagenet`: mean and deviation of ImageNet."""
    flip_probability: float = 0.0
    jitter_probability: float = 0.0
    """Brightness, contrast, saturation and hue, in a random order."""
    brightness: float = 0.4
    """Factor is uniform in 1 - b to 1 + b; likewise contrast and saturation."""
    contrast: float = 0.4
    saturation: float = 0.4
    hue: float = 0.1
    """Turn is uniform in -h to h, in full circles."""
    grey_probability: float = 0.0
    blur_probability: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Range of the Gaussian's deviation, in pixels; the kernel reaches 3 of the largest."""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self) if field.name.endswith("_probability")):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"{name} {getattr(self, name)} must be 0 to 1")
        if not 0 < self.blur_sigma[0] <= self.blur_sigma[1]:
            raise UserError(f"blur_sigma {self.blur_sigma} must be a range above 0")
        if not 0 <= self.hue <= 0.5 or not all(0 <= v <= 1 for v in (self.brightness, self.contrast, self.saturation)):
            raise UserError("brightness, contrast and saturation must be 0 to 1, hue 0 to 0.5")


def for_training(normalisation: Normalisation = "paper_text") -> Augmentation:
    """Flips only: supervised pre-training and finetuning (paper, section 5)."""
    return Augmentation(normalisation=normalisation, flip_probability=0.5)


def for_evaluation(normalisation: Normalisation = "paper_text") -> Augmentation:
    """Nothing but the normalisation."""
    return Augmentation(normalisation=normalisation)


def for_pretext(normalisation: Normalisation = "imagenet") -> Augmentation:
    """The augmentations of Pretext-Contrastive Learning (arXiv:2010.15464)."""
    return Augmentation(
        normalisation=normalisation,
        flip_probability=0.5,
        jitter_probability=0.8,
        grey_probability=0.2,
        blur_probability=0.5,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Draws:
    """What was drawn for each of N clips."""

    flip: npt.NDArray[np.bool_]
    jitter: npt.NDArray[np.bool_]
    grey: npt.NDArray[np.bool_]
    blur: npt.NDArray[np.bool_]
    strengths: npt.NDArray[np.float64]
    """(N, 4) brightness, contrast and saturation factors, and the turn of the hue."""
    order: npt.NDArray[np.int64]
    """(N, 4) which of these comes first, second, ..."""
    sigma: npt.NDArray[np.float64]


def draw(position: Position, *, size: int, clips: int, how: Augmentation) -> Draws:
    """For the `size` samples of this rank's share, `clips` of each: N = size * clips."""
    rng = generator(position.seed, epoch=position.epoch, position=position.step, purpose="augment")
    whole = rng.random((position.global_size, clips, _NUM_DRAWS))
    mine = whole[position.first : position.first + size].reshape(-1, _NUM_DRAWS)
    reach = np.array([how.brightness, how.contrast, how.saturation, how.hue])
    low, high = how.blur_sigma
    return Draws(
        flip=mine[:, 0] < how.flip_probability,
        jitter=mine[:, 1] < how.jitter_probability,
        grey=mine[:, 2] < how.grey_probability,
        blur=mine[:, 3] < how.blur_probability,
        strengths=(2 * mine[:, 4:8] - 1) * reach + np.array([1, 1, 1, 0]),
        order=np.argsort(mine[:, 8:12], axis=1),
        sigma=low + (high - low) * mine[:, 12],
    )


def augment(luma: Tensor, chroma: Tensor, *, position: Position, how: Augmentation) -> Tensor:
    """Planes (B, K, T, H, W) and (B, K, T, 2, H/2, W/2) uint8 -> clips (B, K, 3, T, H, W) float32, on their device."""
    size, clips = luma.shape[:2]
    draws = draw(position, size=size, clips=clips, how=how)
    rgb = to_rgb(luma.flatten(0, 1), chroma.flatten(0, 1))
    _jitter(rgb, draws)
    _apply(rgb, draws.grey, grey)
    _apply(rgb, draws.blur, lambda x: blur(x, sigma=draws.sigma[draws.blur], largest=how.blur_sigma[1]))
    _apply(rgb, draws.flip, lambda x: x.flip(-1))
    return normalise(rgb, how.normalisation).view(size, clips, *rgb.shape[1:])


def to_rgb(luma: Tensor, chroma: Tensor, *, full_range: bool = False) -> Tensor:
    """BT.601 planes (N, T, H, W) and (N, T, 2, H/2, W/2) uint8 -> (N, 3, T, H, W) float32 in [0, 1].

    Chroma is upsampled bilinearly, taken to lie in the middle of its four pixels.
    """
    batch, time, height, width = luma.shape
    wide = interpolate(chroma.flatten(0, 1).float(), size=(height, width), mode="bilinear", align_corners=False)
    wide = (wide - 128) / (255 if full_range else 224)
    y = luma.float() / 255 if full_range else (luma.float() - 16) / 219
    blue, red = wide.view(batch, time, 2, height, width).unbind(2)
    # From the luma weights .299 .587 .114 of red, green and blue.
    channels = (y + 1.402 * red, y - (0.114 * 1.772 * blue + 0.299 * 1.402 * red) / 0.587, y + 1.772 * blue)
    return torch.stack(channels, 1).clamp_(0, 1)


def normalise(rgb: Tensor, how: Normalisation) -> Tensor:
    """(N, 3, T, H, W) in [0, 1] -> what the network sees; see Augmentation.normalisation."""
    if how == "unit":
        return rgb
    if how == "imagenet":
        mean, deviation = (rgb.new_tensor(values).view(3, 1, 1, 1) for values in _IMAGENET)
        return (rgb - mean) / deviation
    return ((rgb * 255 if how == "paper_code" else rgb) - 0.5) / 0.5


def _apply(rgb: Tensor, where: npt.NDArray[np.bool_], change: Callable[[Tensor], Tensor]) -> None:
    """Change those clips, in place."""
    if where.any():
        rows = torch.from_numpy(np.flatnonzero(where)).to(rgb.device)
        rgb[rows] = change(rgb[rows])


def _jitter(rgb: Tensor, draws: Draws) -> None:
    for turn in range(4):
        for number, operation in enumerate((brighten, contrast, saturate, turn_hue)):
            chosen = draws.jitter & (draws.order[:, turn] == number)
            strengths = _per_clip(draws.strengths[chosen, number], rgb)
            _apply(rgb, chosen, lambda x, operation=operation, by=strengths: operation(x, by))  # type: ignore[misc]


def _per_clip(values: npt.NDArray[np.float64], like: Tensor) -> Tensor:
    return torch.from_numpy(values).to(like.device, like.dtype).view(-1, 1, 1, 1, 1)


def brighten(rgb: Tensor, by: Tensor) -> Tensor:
    """(N, 3, T, H, W) times `by` (N, 1, 1, 1, 1)."""
    return (rgb * by).clamp(0, 1)


def contrast(rgb: Tensor, by: Tensor) -> Tensor:
    """Away from the mean grey of each frame."""
    mean = _luminance(rgb).mean((-2, -1), keepdim=True)
    return (mean + (rgb - mean) * by).clamp(0, 1)


def saturate(rgb: Tensor, by: Tensor) -> Tensor:
    """Away from the grey of each pixel."""
    level = _luminance(rgb)
    return (level + (rgb - level) * by).clamp(0, 1)


def turn_hue(rgb: Tensor, by: Tensor) -> Tensor:
    """Around the colour circle in HSV; `by` in full circles."""
    value, spread = rgb.amax(1, keepdim=True), rgb.amax(1, keepdim=True) - rgb.amin(1, keepdim=True)
    red, green, blue = rgb[:, :1], rgb[:, 1:2], rgb[:, 2:]
    safe = torch.where(spread > 0, spread, 1)
    sixth = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    # Channel n of the colour with hue h (in sixths) is value - spread * clamp(min(k, 4 - k), 0, 1), k = (n + h) mod 6.
    place = torch.cat([sixth + n + 6 * by for n in (5, 3, 1)], 1) % 6
    return value - spread * torch.minimum(place, 4 - place).clamp(0, 1)


def grey(rgb: Tensor) -> Tensor:
    """The luminance in all three channels."""
    return _luminance(rgb).expand_as(rgb)


def _luminance(rgb: Tensor) -> Tensor:
    red, green, blue = rgb[:, :1], rgb[:, 1:2], rgb[:, 2:]
    return _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue


def blur(rgb: Tensor, *, sigma: npt.NDArray[np.float64], largest: float) -> Tensor:
    """Gaussian blur of each clip (N, 3, T, H, W) with its own deviation (N,), edges reflected."""
    clips, channels, time, height, width = rgb.shape
    reach = min(int(np.ceil(3 * largest)), height - 1, width - 1)
    offsets = torch.arange(-reach, reach + 1, dtype=rgb.dtype, device=rgb.device)
    kernels = torch.exp(-0.5 * (offsets / _per_clip(sigma, rgb).view(-1, 1)) ** 2)
    kernels = (kernels / kernels.sum(1, keepdim=True)).view(clips, 1, 1, -1)
    # Frames and channels as the batch, clips as the groups: each clip is filtered by its own kernel, rows then columns.
    images = rgb.flatten(1, 2).transpose(0, 1)
    images = conv2d(pad(images, (reach, reach, 0, 0), mode="reflect"), kernels, groups=clips)
    images = conv2d(pad(images, (0, 0, reach, reach), mode="reflect"), kernels.transpose(2, 3), groups=clips)
    return images.transpose(0, 1).reshape(clips, channels, time, height, width)
