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

Dates = Literal["even", "growing", "burst"]
"""How uploads lie over the years: alike, more and more, or four in ten of them in one month."""

_FIRST_DAY = 1207699200  # 2008-04-09, when videos came to Flickr
_LAST_DAY = 1735603200  # 2024-12-31
_HOT_MONTH = 1372636800  # July 2013
_HOT_SECONDS = 31 * 86400
_HOT_SHARE = 0.4


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
    safety_level: int = 0
    """0 safe, 1 moderate, 2 restricted."""


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


def choose_strays(actions: Sequence[str], labels: Sequence[str], *, mean: float, dice: Dice) -> tuple[str, ...]:
    """Actions beyond those, shown or not, that people put among the tags for more to find the video."""
    others = [action for action in actions if action not in labels]
    return tuple(dice.sample(others, dice.poisson(mean))) if mean else ()


def scene_of(video: SandboxVideo, *, seed: int) -> Scene:
    """What the video shows."""
    return compose(
        video.true_actions, aspect=video.form.width / video.form.height, dice=Dice("scene", seed, video.number)
    )


def draw_comments(
    labels: Sequence[str], posted: int, *, rate: float, seed: int, people: int, dice: Dice
) -> tuple[SandboxComment, ...]:
    """None on most videos, on a share of `rate` a few, from people who comment often."""
    if dice.chance(1 - rate):
        return ()
    at, found = posted, []
    for _ in range(1 + dice.poisson(2.0)):
        at += dice.integer(60, 400_000)
        author = person(seed, min(int(dice.exponential(people / 4)), people - 1))
        found.append(SandboxComment(author=author, text=write_comment(labels, dice), posted=at))
    return tuple(found)


def draw_dates(dice: Dice, *, dates: Dates, posted: int | None) -> tuple[int, str | None]:
    """When it was posted, unless that is given, and what the camera said of when it was taken."""
    share = dice.uniform()
    posted = _moment(share, dates) if posted is None else posted
    taken = posted - int(dice.exponential(20 * 86400)) - 3600
    return posted, None if dice.chance(0.15) else datetime.fromtimestamp(taken, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _moment(share: float, dates: Dates) -> int:
    """When an upload was that was drawn as a number from 0 to 1; Unix seconds."""
    if dates == "burst" and share < _HOT_SHARE:
        return _HOT_MONTH + int(share / _HOT_SHARE * _HOT_SECONDS)
    if dates == "burst":
        share = (share - _HOT_SHARE) / (1 - _HOT_SHARE)
    elif dates == "growing":
        share = share ** (1 / 3)
    return _FIRST_DAY + int(share * (_LAST_DAY - _FIRST_DAY + 1))


def draw_safety(dice: Dice, *, unsafe_rate: float) -> int:
    """Safe on most, moderate or restricted on that share."""
    return dice.pick((1, 2)) if dice.chance(unsafe_rate) else 0


def draw_license(dice: Dice) -> int:
    """All rights reserved on most, every other licence now and then, and one that nobody has heard of."""
    licenses: tuple[int, ...] = (*range(17), 99)
    return dice.weighted(licenses, (20, *[1.0] * 6, *[0.4] * 10, 0.25))
