"""Scenes: figures that act before a background, seen by a moving camera in changing light; rendered at any time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, hypot, pi, sin

import numpy as np
import numpy.typing as npt

from pipeline.sandbox.actions import FAMILY_MOVES, action_named
from pipeline.sandbox.backgrounds import Look, paint
from pipeline.sandbox.dice import Dice
from pipeline.sandbox.figures import Part, parts_of

Frame = npt.NDArray[np.uint8]

_MARGIN = 0.18
"""How far the camera can stray beyond the picture, as a share of the short side."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Actor:
    """One figure that performs one action."""

    action: str
    x: float
    """Where it stands, in short sides from the middle of the picture; y likewise."""
    y: float
    size: float
    """Its unit length (a person's height) in short sides."""
    hertz: float
    """Cycles a second; negative ones run backwards."""
    phases: tuple[float, ...]
    """Radians at time 0, one for each of the family's ways to move."""
    colours: tuple[tuple[int, int, int], ...]

    def parts(self, seconds: float) -> list[Part]:
        """The figure at that time, in its own coordinates."""
        action = action_named(self.action)
        phases = list(self.phases)
        phases[action.moves] += 2 * pi * self.hertz * seconds
        return parts_of(action.family, phases)


@dataclass(frozen=True, kw_only=True, slots=True)
class Camera:
    """Slow pan and zoom, and shake, in short sides."""

    pan: tuple[float, float] = (0.0, 0.0)
    """Drift a second."""
    shake: float = 0.0
    zoom: float = 0.0
    """Depth of a slow zoom to and fro."""
    phase: float = 0.0

    def view(self, seconds: float) -> tuple[float, float, float]:
        """Shift in x and y and magnification at that time."""
        slow = sin(0.9 * seconds + self.phase)
        shift = [self.pan[i] * 1.1 * sin(0.9 * seconds + self.phase + i) for i in (0, 1)]
        jitter = [
            sin(17.3 * seconds + self.phase) + sin(29.1 * seconds),
            sin(19.7 * seconds) + sin(31.3 * seconds + self.phase),
        ]
        limit = _MARGIN * 0.9
        x, y = (min(max(shift[i] + self.shake * jitter[i] / 2, -limit), limit) for i in (0, 1))
        return x, y, 1.06 + self.zoom * slow


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """All that is to be seen; the same at every frame size and rate."""

    actors: tuple[Actor, ...]
    """The main one last, for it stands in front."""
    look: Look
    camera: Camera
    flicker: float
    """Depth of the slow change of light, 0 to 1."""


def compose(actions: Sequence[str], *, aspect: float, dice: Dice) -> Scene:
    """A scene of 1 to 3 actions, the first as the large figure in the middle; `aspect` is width / height."""
    look = Look.drawn(dice)
    main = _actor(
        actions[0], dice, look, size=dice.between(0.62, 0.76), x=dice.between(-0.08, 0.08), y=dice.between(-0.05, 0.05)
    )
    others = []
    wide = aspect >= 1
    for number, action in enumerate(actions[1:]):
        side, away = (-1.0, 1.0)[number % 2], 0.5 * max(aspect, 1 / aspect) - 0.19
        across = dice.between(-0.1, 0.25)
        x, y = (side * away, across) if wide else (across, side * away)
        others.append(_actor(action, dice, look, size=dice.between(0.28, 0.35), x=x, y=y))
    camera = Camera(
        pan=(dice.between(-0.1, 0.1), dice.between(-0.05, 0.05)) if dice.chance(0.6) else (0.0, 0.0),
        shake=dice.between(0.004, 0.014) if dice.chance(0.4) else 0.0,
        zoom=dice.between(0.02, 0.06) if dice.chance(0.4) else 0.0,
        phase=dice.between(0, 2 * pi),
    )
    return Scene(
        actors=(*others, main), look=look, camera=camera, flicker=dice.between(0.05, 0.2) if dice.chance(0.4) else 0.0
    )


def _actor(action: str, dice: Dice, look: Look, *, size: float, x: float, y: float) -> Actor:
    family = action_named(action).family
    return Actor(
        action=action, x=x, y=y, size=size,
        hertz=dice.between(0.9, 2.0) * dice.pick((-1, 1)),
        phases=tuple(dice.between(0, 2 * pi) for _ in FAMILY_MOVES[family]),
        colours=look.figure_colours(dice),
    )  # fmt: skip


def render(scene: Scene, *, width: int, height: int, times: Iterable[float]) -> Iterator[Frame]:
    """Frames uint8 (height, width, 3) of the scene at these times, in seconds."""
    short = min(width, height)
    margin = ceil(_MARGIN * short)
    canvas = paint(scene.look, width=width + 2 * margin, height=height + 2 * margin)
    rows, columns = np.arange(height) + 0.5 - height / 2, np.arange(width) + 0.5 - width / 2
    for seconds in times:
        dx, dy, zoom = scene.camera.view(seconds)
        y = (rows / zoom + canvas.shape[0] / 2 + dy * short).astype(np.intp).clip(0, canvas.shape[0] - 1)
        x = (columns / zoom + canvas.shape[1] / 2 + dx * short).astype(np.intp).clip(0, canvas.shape[1] - 1)
        frame = np.take(np.take(canvas, y, axis=0), x, axis=1).view(np.uint8).reshape(height, width, 4)[..., :3].copy()
        for actor in scene.actors:
            scale = actor.size * short * zoom
            left = width / 2 + (actor.x - dx) * short * zoom
            top = height / 2 + (actor.y - dy) * short * zoom
            for part in actor.parts(seconds):
                _draw(frame, part, actor.colours[part.colour], (left, top, scale))
        yield _lit(frame, 1 + scene.flicker * sin(2.1 * seconds + scene.camera.phase))


def _draw(frame: Frame, part: Part, colour: tuple[int, int, int], place: tuple[float, float, float]) -> None:
    """Blend one part into the frame: soft edge, darker rim, rounded shading."""
    left, top, scale = place
    ax, ay, bx, by = left + part.ax * scale, top + part.ay * scale, left + part.bx * scale, top + part.by * scale
    radius = part.radius * scale
    reach = radius + 1 + (part.ring or 0) * scale
    x0, x1 = max(floor(min(ax, bx) - reach), 0), min(ceil(max(ax, bx) + reach) + 1, frame.shape[1])
    y0, y1 = max(floor(min(ay, by) - reach), 0), min(ceil(max(ay, by) + reach) + 1, frame.shape[0])
    if x0 >= x1 or y0 >= y1:
        return
    x = np.arange(x0, x1, dtype=np.float32) + np.float32(0.5 - ax)
    y = (np.arange(y0, y1, dtype=np.float32) + np.float32(0.5 - ay))[:, None]
    if part.ring is not None:
        distance = np.abs(np.sqrt(x * x + y * y) - np.float32(part.ring * scale))
    elif hypot(bx - ax, by - ay) < 0.5:
        distance = np.sqrt(x * x + y * y)
    else:
        ux, uy = np.float32(bx - ax), np.float32(by - ay)
        along = np.minimum(np.maximum((x * ux + y * uy) / (ux * ux + uy * uy), 0), 1)
        distance = np.hypot(x - along * ux, y - along * uy)
    alpha = np.minimum(np.maximum(np.float32(radius + 0.5) - distance, 0), 1)
    shade = np.minimum(np.float32(1.12) - np.float32(0.6 / radius**2) * distance * distance, 1) * alpha
    patch = frame[y0:y1, x0:x1]
    patch[...] = patch * (1 - alpha)[..., None] + shade[..., None] * np.array(colour, np.float32)


def _lit(frame: Frame, gain: float) -> Frame:
    if gain == 1:
        return frame
    table = np.minimum(np.arange(256) * gain, 255).astype(np.uint8)
    return np.take(table, frame)
