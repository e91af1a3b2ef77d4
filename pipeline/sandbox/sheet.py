"""Contact sheet: one row of frames for each action, to see what the sandbox's videos show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from pipeline.sandbox.actions import ACTIONS
from pipeline.sandbox.dice import Dice
from pipeline.sandbox.scenes import compose, render


def write_sheet(
    path: Path, *, actions: Sequence[str] = ACTIONS, columns: int = 9, seconds: float = 1.0, seed: int = 0
) -> None:
    """Write a picture (by the suffix: PNG, JPEG, SVG) with `columns` frames over `seconds` of each action."""
    figure = Figure(figsize=(1.4 * columns + 1.8, 1.05 * len(actions)), dpi=120)
    times = np.arange(columns) * seconds / columns
    left = 1.8 / (1.4 * columns + 1.8)
    width, height = (1 - left) / columns, 1 / len(actions)
    for row, action in enumerate(actions):
        # Every fourth row has a second figure, as about four in ten of the videos do.
        others = [actions[(row + 5) % len(actions)]] if row % 4 == 3 else []
        scene = compose([action, *others], aspect=4 / 3, dice=Dice("sheet", seed, action))
        bottom = 1 - (row + 1) * height
        figure.text(left - 0.01, bottom + height / 2, action, ha="right", va="center", fontsize=11)
        for column, frame in enumerate(render(scene, width=240, height=180, times=times)):
            place = (left + column * width, bottom, width * 0.985, height * 0.97)
            axes = figure.add_axes(place)
            axes.imshow(frame, aspect="auto")
            axes.set_axis_off()
    figure.savefig(path)
