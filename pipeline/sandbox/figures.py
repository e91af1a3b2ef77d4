"""Figures: where the parts of each family's figure are at given phases of its ways to move.

Coordinates have x to the right, y down, the origin in the middle and the figure about 1 tall. Each phase is an angle in
radians; one turn is one cycle of the motion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import cos, hypot, pi, radians, sin, sqrt
from typing import NamedTuple

from pipeline.sandbox.actions import Family


class Part(NamedTuple):
    """A thick line from a to b with round ends; with `ring`, a circle of that radius round a."""

    ax: float
    ay: float
    bx: float
    by: float
    radius: float
    colour: int
    """Which of the figure's colours: 0 skin, 1 upper, 2 lower, 3 accent."""
    ring: float | None = None


Point = tuple[float, float]


def _ease(phase: float) -> float:
    """From 0 to 1 and back, once a turn."""
    return 0.5 - 0.5 * cos(phase)


def _limb(a: Point, b: Point, length: float, side: float, *, radius: float, colours: tuple[int, int]) -> list[Part]:
    """Two links from a towards b with the joint bent to `side` (+1 or -1), each half of `length`."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    span = max(hypot(dx, dy), 1e-6)
    bend = side * sqrt(max((length / 2) ** 2 - (span / 2) ** 2, 0.0)) / span
    joint = (a[0] + dx / 2 - dy * bend, a[1] + dy / 2 + dx * bend)
    return [Part(*a, *joint, radius, colours[0]), Part(*joint, *b, radius * 0.85, colours[1])]


def _turned(parts: list[Part], angle: float, pivot: Point) -> list[Part]:
    c, s, (px, py) = cos(angle), sin(angle), pivot

    def turn(x: float, y: float) -> Point:
        return px + c * (x - px) - s * (y - py), py + s * (x - px) + c * (y - py)

    return [Part(*turn(p.ax, p.ay), *turn(p.bx, p.by), p.radius, p.colour, p.ring) for p in parts]


def _moved(parts: list[Part], dx: float, dy: float) -> list[Part]:
    return [p._replace(ax=p.ax + dx, ay=p.ay + dy, bx=p.bx + dx, by=p.by + dy) for p in parts]


def _person(phases: Sequence[float]) -> list[Part]:
    """A person from the front: spread (arms and legs open), crouch (knees bend), pendulum (swings as if on ropes)."""
    spread, crouch = _ease(phases[0]), _ease(phases[1])
    foot = 0.07 + 0.2 * spread
    hip = max(0.04 + 0.26 * crouch, 0.48 - sqrt(0.46**2 - (foot - 0.06) ** 2))
    shoulder = hip - 0.29
    arm = radians(12 + 140 * spread)
    parts: list[Part] = []
    for side in (-1.0, 1.0):
        parts += _limb((side * 0.06, hip), (side * foot, 0.48), 0.47, -side, radius=0.058, colours=(2, 2))
        elbow = (side * (0.11 + 0.17 * sin(arm)), shoulder + 0.17 * cos(arm))
        hand = (elbow[0] + side * 0.17 * sin(arm + 0.3 * spread), elbow[1] + 0.17 * cos(arm + 0.3 * spread))
        parts += [Part(side * 0.1, shoulder, *elbow, 0.045, 1), Part(*elbow, *hand, 0.04, 0)]
    parts += [Part(0, shoulder + 0.03, 0, hip - 0.03, 0.105, 1), Part(0, shoulder - 0.16, 0, shoulder - 0.17, 0.09, 0)]
    return _turned(parts, radians(32) * sin(phases[2]), (0.0, -0.75))


def _plank(phases: Sequence[float]) -> list[Part]:
    """A person on hands and feet from the side: lift (arms bend and stretch), fold (the hips rise and sink)."""
    lift, angle = _ease(phases[0]), radians(-12 + 72 * _ease(phases[1]))
    hand = (-0.32, 0.34)
    shoulder = (-0.3, 0.26 - 0.3 * lift)
    hip = (shoulder[0] + 0.36 * cos(angle), shoulder[1] - 0.36 * sin(angle))
    drop = min(0.34 - hip[1], 0.5)
    toe = (hip[0] + sqrt(max(0.52**2 - drop**2, 0.0)), 0.34)
    head = (shoulder[0] - 0.15 * cos(angle / 2), shoulder[1] + 0.15 * sin(angle / 2) - 0.03)
    arm = _limb(shoulder, hand, 0.4, -1.0, radius=0.05, colours=(1, 0))
    leg = [Part(*hip, *toe, 0.065, 2), Part(*toe, toe[0], toe[1] - 0.05, 0.05, 3)]
    body = [Part(*shoulder, *hip, 0.095, 1), Part(*head, *head, 0.095, 0)]
    return _moved(leg + body + arm, -0.1, 0.0)


def _balls(phases: Sequence[float]) -> list[Part]:
    """Three balls: orbit (they go round), bounce (all hop together), gap (they part sideways and meet again)."""
    rise, gap = 0.55 * abs(sin(phases[1] / 2)), 0.45 + 1.5 * _ease(phases[2])
    parts = []
    for number in range(3):
        angle = phases[0] + number * 2 * pi / 3
        x, y = gap * 0.2 * cos(angle), 0.26 - rise + 0.2 * sin(angle)
        parts.append(Part(x, y, x, y, 0.125, (0, 1, 3)[number]))
    return parts


def _hoop(phases: Sequence[float]) -> list[Part]:
    """A wheel with one broad spoke: orbit (the whole hoop circles round a point), spin (it turns in place)."""
    x, y = 0.24 * cos(phases[0]), 0.2 * sin(phases[0])
    parts = [Part(x, y, x, y, 0.055, 1, 0.3)]
    for number in range(3):
        angle = phases[1] + number * 2 * pi / 3
        broad = number == 0
        parts.append(
            Part(x, y, x + 0.3 * cos(angle), y + 0.3 * sin(angle), 0.085 if broad else 0.03, 3 if broad else 2)
        )
    return [*parts, Part(x, y, x, y, 0.09, 0)]


def _boat(phases: Sequence[float]) -> list[Part]:
    """A boat with a rower: heave (it hops on the waves and pitches), surge (it goes to and fro, the oar sweeps)."""
    oar = radians(50) * cos(phases[1])
    parts = [
        Part(0, -0.12, 0.03, 0.08, 0.095, 1), Part(0.02, -0.3, 0.02, -0.3, 0.09, 0),
        Part(-0.34, 0.16, 0.3, 0.16, 0.1, 2), Part(0.3, 0.14, 0.46, 0.05, 0.06, 2),
        Part(-0.3, 0.08, 0.42, 0.08, 0.03, 3),
        Part(0.02, -0.06, 0.02 + 0.46 * sin(oar), -0.06 + 0.42 * cos(oar), 0.034, 3),
    ]  # fmt: skip
    pitched = _turned(parts, radians(16) * cos(phases[0]), (0.0, 0.1))
    return _moved(pitched, 0.24 * sin(phases[1]), 0.24 * sin(phases[0]) - 0.06)


_FIGURES: dict[Family, Callable[[Sequence[float]], list[Part]]] = {
    "person": _person, "plank": _plank, "balls": _balls, "hoop": _hoop, "boat": _boat,
}  # fmt: skip


def parts_of(family: Family, phases: Sequence[float]) -> list[Part]:
    """The figure's parts, back to front; one phase for each of the family's ways to move (FAMILY_MOVES)."""
    return _FIGURES[family](phases)
