"""Square crops of a clip's planes, resized: one draw per clip, in the worker, on uint8."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch.nn.functional import interpolate

from pipeline.decode import Plane
from pipeline.errors import UserError

FOUR_QUARTER_OCTAVES = (1.0, 2**-0.25, 2**-0.5, 2**-0.75, 0.5)
"""The scales of the authors' multi-scale random crop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """A square of luma pixels; all even, so that it covers whole chroma pixels."""

    top: int
    left: int
    side: int


class Crop(Protocol):
    """Chooses the square of a clip's frames that is kept, and the side in pixels that it is resized to."""

    @property
    def size(self) -> int:
        """Side of the result in pixels, even."""

    def box(self, *, height: int, width: int, rng: np.random.Generator) -> Box:
        """The square for one clip of frames of `height` x `width` pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MultiScaleCrop:
    """A random square of a random scale (paper, section 5, as the authors' code has it; Hara's `random` variant)."""

    size: int = 112
    scales: tuple[float, ...] = FOUR_QUARTER_OCTAVES
    """Sides as fractions of the frame's short side, equally likely."""

    def __post_init__(self) -> None:
        _check_size(self.size)
        if not self.scales or not all(0 < scale <= 1 for scale in self.scales):
            raise UserError(
                f"scales {self.scales} must be one or more fractions of the short side, above 0 and up to 1"
            )

    def box(self, *, height: int, width: int, rng: np.random.Generator) -> Box:
        """See Crop."""
        scale = self.scales[rng.integers(len(self.scales))]
        return _random_box(_even(min(height, width) * scale), height=height, width=width, rng=rng)


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomCrop:
    """As if the short side were resized to `short_side` and a random square of `size` cut out."""

    size: int = 112
    short_side: int = 128

    def __post_init__(self) -> None:
        _check_size(self.size, short_side=self.short_side)

    def box(self, *, height: int, width: int, rng: np.random.Generator) -> Box:
        """See Crop."""
        side = _even(min(height, width) * self.size / self.short_side)
        return _random_box(side, height=height, width=width, rng=rng)


@dataclass(frozen=True, kw_only=True, slots=True)
class CentreCrop:
    """As if the short side were resized to `short_side` and the middle square of `size` cut out; draws nothing."""

    size: int = 112
    short_side: int = 136

    def __post_init__(self) -> None:
        _check_size(self.size, short_side=self.short_side)

    def box(self, *, height: int, width: int, rng: np.random.Generator) -> Box:
        """See Crop."""
        side = _even(min(height, width) * self.size / self.short_side)
        return Box(top=_even((height - side) / 2), left=_even((width - side) / 2), side=side)


def crop_planes(luma: Plane, chroma: Plane, *, box: Box, size: int) -> tuple[Plane, Plane]:
    """Planes (T, H, W) and (T, 2, H/2, W/2) -> (T, size, size) and (T, 2, size/2, size/2): the square, resized.

    Bilinear with antialiasing.
    """
    top, left, side, half = box.top // 2, box.left // 2, box.side // 2, size // 2
    large = luma[:, box.top : box.top + box.side, box.left : box.left + box.side]
    small = chroma[:, :, top : top + side, left : left + side].reshape(-1, side, side)
    return _resize(large, size), _resize(small, half).reshape(-1, 2, half, half)


def use_one_thread() -> None:
    """For a loading process, one of as many as there are cores."""
    torch.set_num_threads(1)


def _resize(planes: Plane, size: int) -> Plane:
    if planes.shape[1:] == (size, size):
        return planes
    # Four planes as the four channels of one image take half the time that each by itself does, to the same bits.
    channels = 4 if len(planes) % 4 == 0 else 1
    # numpy copies, not torch: torch would wake a team of threads for it, and there are many loading threads already.
    images = torch.from_numpy(np.ascontiguousarray(planes).reshape(-1, channels, *planes.shape[1:]))
    resized: Plane = interpolate(images, size=(size, size), mode="bilinear", antialias=True).numpy()
    return resized.reshape(-1, size, size)


def _random_box(side: int, *, height: int, width: int, rng: np.random.Generator) -> Box:
    down, right = rng.random(2)
    return Box(top=_even(down * (height - side)), left=_even(right * (width - side)), side=side)


def _even(value: float) -> int:
    """Rounded down to an even number, but for a hair: 112.0 may come as 111.99999."""
    return int((value + 1e-6) // 2) * 2


def _check_size(size: int, *, short_side: int | None = None) -> None:
    if size < 2 or size % 2:
        raise UserError(f"size {size} must be an even number of pixels, at least 2: chroma has half of them")
    if short_side is not None and short_side < size:
        raise UserError(f"short_side {short_side} must be at least size {size}, or the crop would leave the frame")
