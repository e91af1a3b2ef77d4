"""Backgrounds: painted once per video, of many kinds, none of them tied to an action."""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import numpy as np
import numpy.typing as npt

from pipeline.sandbox.dice import Dice

Colour = tuple[int, int, int]
Canvas = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """The colours and the background of one video."""

    kind: str
    """A key of _PAINTERS."""
    first: Colour
    second: Colour
    dark: bool
    """Whether the background is dark and so the figures bright."""
    distractors: int
    key: int
    """What the texture's chance is drawn from."""

    @classmethod
    def drawn(cls, dice: Dice) -> Look:
        """A look by chance."""
        dark = dice.chance(0.5)
        low, high = (0.12, 0.4) if dark else (0.72, 0.98)
        hue = dice.uniform()
        first, second = (
            _colour(hue + dice.between(-0.12, 0.12), dice.between(0.15, 0.55), dice.between(low, high))
            for _ in range(2)
        )
        return cls(
            kind=dice.pick(tuple(_PAINTERS)), first=first, second=second, dark=dark,
            distractors=dice.integer(0, 5) if dice.chance(0.6) else 0, key=dice.integer(0, 2**40),
        )  # fmt: skip

    def figure_colours(self, dice: Dice) -> tuple[Colour, ...]:
        """Four colours that stand out against the background: skin, upper, lower, accent."""
        low, high = (0.75, 1.0) if self.dark else (0.2, 0.5)
        return tuple(_colour(dice.uniform(), dice.between(0.45, 0.85), dice.between(low, high)) for _ in range(4))


def _colour(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 1, saturation, value)
    return int(red * 255), int(green * 255), int(blue * 255)


def paint(look: Look, *, width: int, height: int) -> npt.NDArray[np.uint32]:
    """The background as packed RGBX pixels (height, width), so that one look-up fetches a whole pixel."""
    dice = Dice("background", look.key)
    rows, columns = np.linspace(0, 1, height, dtype=np.float32)[:, None], np.linspace(0, 1, width, dtype=np.float32)
    mix = np.broadcast_to(_PAINTERS[look.kind](rows, columns * np.float32(width / height), dice), (height, width))
    first, second = np.array(look.first, np.float32), np.array(look.second, np.float32)
    picture = first + mix[..., None] * (second - first)
    for _ in range(look.distractors):
        _distract(picture, look, dice)
    picture += (_noise(dice, height, width, cells=24) * 14 - 7)[..., None]
    packed = np.empty((height, width, 4), np.uint8)
    packed[..., :3] = picture.clip(0, 255)
    packed[..., 3] = 255
    return packed.view(np.uint32)[..., 0]


def _distract(picture: Canvas, look: Look, dice: Dice) -> None:
    """A still disc or box somewhere, in a shade of the background."""
    height, width, _ = picture.shape
    reach = dice.between(0.04, 0.12) * min(height, width)
    cx, cy = dice.between(0, width), dice.between(0, height)
    x, y = np.abs(np.arange(width) - cx), np.abs(np.arange(height) - cy)[:, None]
    inside = np.hypot(x, y) < reach if dice.chance(0.5) else np.maximum(x / dice.between(0.5, 1.5), y) < reach
    shade = _colour(
        dice.uniform(), dice.between(0.2, 0.6), dice.between(0.2, 0.5) if look.dark else dice.between(0.6, 0.9)
    )
    picture[inside] = shade


def _noise(dice: Dice, height: int, width: int, *, cells: int) -> Canvas:
    """Smooth noise in [0, 1]: a coarse grid of random numbers, interpolated linearly."""
    grid = dice.arrays().random((cells + 1, cells + 1), dtype=np.float32)
    y, x = np.linspace(0, cells - 1e-3, height), np.linspace(0, cells - 1e-3, width)
    iy, ix = y.astype(int), x.astype(int)
    fy, fx = (y - iy).astype(np.float32)[:, None], (x - ix).astype(np.float32)
    rows = grid[iy] * (1 - fy) + grid[iy + 1] * fy
    return np.asarray(rows[:, ix] * (1 - fx) + rows[:, ix + 1] * fx, np.float32)


def _gradient(rows: Canvas, columns: Canvas, dice: Dice) -> Canvas:
    tilt = dice.between(-1, 1)
    mix = rows + np.float32(tilt) * columns
    return np.asarray((mix - mix.min()) / (mix.max() - mix.min()), np.float32)


def _stripes(rows: Canvas, columns: Canvas, dice: Dice) -> Canvas:
    count, slope = dice.integer(4, 9), dice.between(-1, 1)
    return np.asarray(0.5 + 0.5 * np.sin(2 * pi * count * (columns + slope * rows)), np.float32)


def _checks(rows: Canvas, columns: Canvas, dice: Dice) -> Canvas:
    count = dice.integer(4, 9)
    return np.asarray(((rows * count).astype(int) + (columns * count).astype(int)) % 2, np.float32)


def _clouds(rows: Canvas, columns: Canvas, dice: Dice) -> Canvas:
    height, width = rows.shape[0], columns.shape[-1]
    return np.asarray(
        0.65 * _noise(dice, height, width, cells=5) + 0.35 * _noise(dice, height, width, cells=14), np.float32
    )


def _hills(rows: Canvas, columns: Canvas, dice: Dice) -> Canvas:
    """Sky above, rolling ground below."""
    line = 0.6 + 0.06 * np.sin(columns * dice.between(3, 8) + dice.between(0, 6)) + 0.03 * np.sin(columns * 17)
    ground = np.clip((rows - line) * 60, 0, 1)
    return np.asarray(0.3 * rows * (1 - ground) + ground * (0.75 + 0.25 * rows), np.float32)


def _rooms(rows: Canvas, columns: Canvas, dice: Dice) -> Canvas:
    """A wall with tiles and a floor."""
    floor = rows > dice.between(0.68, 0.8)
    tiles = np.minimum(np.mod(rows * 6, 1), np.mod(columns * 6, 1)) < 0.06
    return np.where(floor, 0.9, np.where(tiles, 0.45, 0.15)).astype(np.float32)


_PAINTERS: dict[str, Callable[[Canvas, Canvas, Dice], Canvas]] = {
    "gradient": _gradient, "stripes": _stripes, "checks": _checks, "clouds": _clouds, "hills": _hills, "rooms": _rooms,
}  # fmt: skip
