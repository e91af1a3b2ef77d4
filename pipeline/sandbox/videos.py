"""SandboxVideo: one video of the sandbox with all that is said of it, true or not, made without rendering anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from pipeline.sandbox.dice import Dice
from pipeline.sandbox.media import Form
from pipeline.sandbox.people import Person, person
from pipeline.sandbox.places import Place
from pipeline.sandbox.scenes import Scene, compose
from pipeline.sandbox.texts import Texts, write_comment

Trouble = Literal["deleted", "private", "processing", "failed", "player_only", "zero_length", "html_file"]

UNSERVED: tuple[Trouble, ...] = ("deleted", "private", "processing", "failed", "player_only")
"""Troubles of videos whose file nobody can fetch."""

_FIRST_DAY = 1207699200  # 2008-04-09, when videos came to Flickr
_LAST_DAY = 1735603200  # 2024-12-31


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxComment:
    """A comment as it is served."""

    author: Person
    text: str
    posted: int
    """Unix seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SandboxVideo:
    """One video; `true_actions` is the truth, which no server tells."""

    number: int
    video_id: str
    secret: str
    server: str
    owner: Person
    texts: Texts
    comments: tuple[SandboxComment, ...]
    posted: int
    """Unix seconds."""
    taken: str | None
    """`YYYY-MM-DD hh:mm:ss`, None where the camera did not say."""
    place: Place | None
    license: int
    views: int
    labels: tuple[str, ...]
    """The actions that the texts mention; some are not in the video."""
    true_actions: tuple[str, ...]
    """The actions to be seen, the main one first."""
    form: Form
    trouble: Trouble | None = None
    media: Literal["video", "photo"] = "video"


def video_id(seed: int, number: int) -> str:
    """An id that tells the number and looks like Flickr's."""
    return str(2_000_000_000 + number * 2_400_000 + Dice("id", seed, number).integer(0, 2_399_999))


def number_of(identifier: str) -> int:
    """The number in an id; any other text gives -1 or a number whose id differs."""
    return (int(identifier) - 2_000_000_000) // 2_400_000 if identifier.isascii() and identifier.isdigit() else -1


def choose_actions(actions: Sequence[str], number: int, dice: Dice) -> tuple[str, ...]:
    """1 to 3 actions to be seen; the main one is long-tailed over `actions`, after two videos for each."""
    if number < 2 * len(actions):
        main = actions[number % len(actions)]
    else:
        main = dice.weighted(actions, [1 / (rank + 1) ** 0.7 for rank in range(len(actions))])
    others = [action for action in actions if action != main]
    return main, *dice.sample(others, dice.weighted((0, 1, 2), (0.6, 0.3, 0.1)))


def choose_labels(
    actions: Sequence[str], shown: Sequence[str], *, mean: float, wrong_rate: float, dice: Dice
) -> tuple[str, ...]:
    """The actions that the texts will mention, at most as many as are shown; `wrong_rate` of them are not shown."""
    absent = [action for action in actions if action not in shown]
    labels = []
    for right in shown[: 1 + dice.poisson(max(mean - 1, 0.0))]:
        wrong = dice.chance(wrong_rate) and absent
        labels.append(absent.pop(dice.integer(0, len(absent) - 1)) if wrong else right)
    return tuple(labels)


def scene_of(video: SandboxVideo, *, seed: int) -> Scene:
    """What the video shows."""
    return compose(
        video.true_actions, aspect=video.form.width / video.form.height, dice=Dice("scene", seed, video.number)
    )


def draw_comments(
    labels: Sequence[str], posted: int, *, seed: int, people: int, dice: Dice
) -> tuple[SandboxComment, ...]:
    """None on most videos, then a few, from people who comment often."""
    if dice.chance(0.6):
        return ()
    at, found = posted, []
    for _ in range(1 + dice.poisson(2.0)):
        at += dice.integer(60, 400_000)
        author = person(seed, min(int(dice.exponential(people / 4)), people - 1))
        found.append(SandboxComment(author=author, text=write_comment(labels, dice), posted=at))
    return tuple(found)


def draw_dates(dice: Dice) -> tuple[int, str | None]:
    """When it was posted, and what the camera said of when it was taken."""
    posted = dice.integer(_FIRST_DAY, _LAST_DAY)
    taken = posted - int(dice.exponential(20 * 86400)) - 3600
    return posted, None if dice.chance(0.15) else datetime.fromtimestamp(taken, UTC).strftime("%Y-%m-%d %H:%M:%S")


def draw_license(dice: Dice) -> int:
    """All rights reserved on most, every other licence now and then, and one that nobody has heard of."""
    licenses: tuple[int, ...] = (*range(17), 99)
    return dice.weighted(licenses, (20, *[1.0] * 6, *[0.4] * 10, 0.25))
