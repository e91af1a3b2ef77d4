"""The actions that the sandbox's videos show: which figure, and which of its ways to move.

A family of figures has several ways to move. In a video of one action only that action's way is in motion, the others
are frozen at a random point of their cycle. So a single frame is drawn from the same distribution for all actions of
a family, and only the change over time tells them apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import UserError

Family = Literal["person", "plank", "balls", "hoop", "boat"]


@dataclass(frozen=True, slots=True)
class Action:
    """A named motion of a family of figures; names are real ones of UCF101 or HMDB51."""

    name: str
    family: Family
    moves: int
    """Which of the family's ways to move it is (an index into FAMILY_MOVES)."""
    spellings: tuple[str, ...]
    """How people write it, as title or tag."""


FAMILY_MOVES: dict[Family, tuple[str, ...]] = {
    "person": ("spread", "crouch", "pendulum"),
    "plank": ("lift", "fold"),
    "balls": ("orbit", "bounce", "gap"),
    "hoop": ("orbit", "spin"),
    "boat": ("heave", "surge"),
}

CATALOGUE: tuple[Action, ...] = (
    Action("jumping jack", "person", 0, ("jumping jack", "jumping jacks", "Jumping Jacks")),
    Action("body weight squats", "person", 1, ("body weight squats", "Body-weight squats", "body weight squat")),
    Action("swing", "person", 2, ("swing", "swinging", "on the swing")),
    Action("push ups", "plank", 0, ("push-ups", "push ups", "Push Ups", "push up")),
    Action("sit up", "plank", 1, ("sit ups", "sit-up", "Sit Up")),
    Action("juggling balls", "balls", 0, ("juggling balls", "juggling 3 balls", "Juggling Balls")),
    Action("dribble", "balls", 1, ("dribbling", "dribble", "Dribble!")),
    Action("billiards", "balls", 2, ("billiards", "Billiards", "billiards night")),
    Action("hula hoop", "hoop", 0, ("hula hoop", "Hula-Hoop", "hula hooping")),
    Action("biking", "hoop", 1, ("biking", "Biking", "bike")),
    Action("skijet", "boat", 0, ("skijet", "Skijet", "skijet fun")),
    Action("rowing", "boat", 1, ("rowing", "Rowing", "rowing practice")),
)

ACTIONS = tuple(action.name for action in CATALOGUE)
"""The names of all actions, in the catalogue's order."""


def action_named(name: str) -> Action:
    """The catalogue's entry.

    Raises:
        UserError: there is none of that name.
    """
    for action in CATALOGUE:
        if action.name == name:
            return action
    raise UserError(f"the sandbox has no action {name!r}: choose among {', '.join(ACTIONS)}")


def camel_case(name: str) -> str:
    """An action's name as UCF101 writes it: `push ups` is `PushUps`."""
    return "".join(word.capitalize() for word in name.split())
