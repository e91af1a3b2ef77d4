"""Clean downstream sets in the official layouts of UCF101 and HMDB51: one action per video, rightly labelled."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path

from pipeline.errors import UserError
from pipeline.sandbox.actions import ACTIONS, action_named, camel_case
from pipeline.sandbox.dice import Dice
from pipeline.sandbox.media import Form, encode
from pipeline.sandbox.scenes import compose
from pipeline.sandbox.world import run_all, write_whole

_UCF_TEST_GROUPS = 7
"""UCF101's first split tests on groups 1 to 7 and trains on the others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DownstreamConfig:
    """Which videos a downstream set has."""

    seed: int = 1000
    actions: tuple[str, ...] = ACTIONS
    train_per_class: int = 4
    test_per_class: int = 10
    width: int = 160
    height: int = 120
    fps: int = 25
    min_seconds: float = 2.0
    max_seconds: float = 4.0

    def __post_init__(self) -> None:
        for action in self.actions:
            action_named(action)
        if not self.actions or self.train_per_class < 1 or self.test_per_class < 1:
            raise UserError(f"a downstream set needs actions, train and test videos, got {self}")
        if self.width % 2 or self.height % 2 or not 0 < self.min_seconds <= self.max_seconds:
            raise UserError(f"need even sizes and 0 < min_seconds <= max_seconds, got {self}")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Clip:
    action: str
    number: int
    train: bool
    path: Path


def write_ucf101(
    folder: Path,
    config: DownstreamConfig | None = None,
    *,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `UCF-101/` and `ucfTrainTestlist/` (split 1) into the folder; files that exist are kept."""
    config = config or DownstreamConfig()
    clips = [
        _ucf_clip(folder, config, action, number)
        for action in sorted(config.actions, key=camel_case)
        for number in _numbers(config)
    ]
    _render(clips, config, name="ucf101", processes=processes, progress=progress)
    lists = folder / "ucfTrainTestlist"
    lists.mkdir(parents=True, exist_ok=True)
    classes = {name: place for place, name in enumerate(sorted(map(camel_case, config.actions)), start=1)}
    train, test = (
        [_within(clip, folder / "UCF-101") for clip in clips if clip.train is wanted] for wanted in (True, False)
    )
    _write_lines(lists / "classInd.txt", [f"{place} {name}" for name, place in classes.items()])
    _write_lines(lists / "trainlist01.txt", [f"{name} {classes[name.partition('/')[0]]}" for name in train])
    _write_lines(lists / "testlist01.txt", test)
    return folder


def _ucf_clip(folder: Path, config: DownstreamConfig, action: str, number: int) -> _Clip:
    train = number < config.train_per_class
    place = number if train else number - config.train_per_class
    group = _UCF_TEST_GROUPS + 1 + place % 18 if train else 1 + place % _UCF_TEST_GROUPS
    clip = 1 + place // (18 if train else _UCF_TEST_GROUPS)
    name = camel_case(action)
    path = folder / "UCF-101" / name / f"v_{name}_g{group:02d}_c{clip:02d}.avi"
    return _Clip(action=action, number=number, train=train, path=path)


def write_hmdb51(
    folder: Path,
    config: DownstreamConfig | None = None,
    *,
    processes: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `hmdb51_org/` and `testTrainMulti_7030_splits/` (split 1) into the folder; files that exist are kept.

    Each class has one more video that split 1 leaves out (marked 0), as the official lists do.
    """
    config = config or DownstreamConfig()
    lists = folder / "testTrainMulti_7030_splits"
    lists.mkdir(parents=True, exist_ok=True)
    clips = []
    for action in config.actions:
        word = action.replace(" ", "_")
        mine = [
            _hmdb_clip(folder, config, word, action, number) for number in (*_numbers(config), _numbers(config).stop)
        ]
        marks = [0 if clip.number == mine[-1].number else 1 if clip.train else 2 for clip in mine]
        _write_lines(
            lists / f"{word}_test_split1.txt", [f"{c.path.name} {mark} " for c, mark in zip(mine, marks, strict=True)]
        )
        clips += mine
    _render(clips, config, name="hmdb51", processes=processes, progress=progress)
    return folder


def _hmdb_clip(folder: Path, config: DownstreamConfig, word: str, action: str, number: int) -> _Clip:
    # The official names tell film, action, visible body part, camera, view, quality and number.
    name = f"Sandbox_{number:02d}_{word}_f_{'cm' if number % 2 else 'nm'}_np1_fr_goo_{number}.avi"
    return _Clip(
        action=action, number=number, train=number < config.train_per_class, path=folder / "hmdb51_org" / word / name
    )


def _numbers(config: DownstreamConfig) -> range:
    return range(config.train_per_class + config.test_per_class)


def _within(clip: _Clip, folder: Path) -> str:
    return clip.path.relative_to(folder).as_posix()


def _write_lines(path: Path, lines: list[str]) -> None:
    write_whole(path, lambda part: part.write_text("\n".join(lines) + "\n"))


def _render(
    clips: list[_Clip],
    config: DownstreamConfig,
    *,
    name: str,
    processes: int,
    progress: Callable[[int, int], None] | None,
) -> None:
    missing = [clip for clip in clips if not clip.path.exists()]
    run_all(partial(_render_clip, config, name), missing, processes=processes, progress=progress)


def _render_clip(config: DownstreamConfig, name: str, clip: _Clip) -> None:
    dice = Dice("downstream", name, config.seed, clip.action, clip.number)
    form = Form(
        width=config.width, height=config.height, rate=Fraction(config.fps), codec="mpeg4", container="avi",
        seconds=round(dice.between(config.min_seconds, config.max_seconds), 2),
    )  # fmt: skip
    scene = compose([clip.action], aspect=config.width / config.height, dice=dice)
    write_whole(clip.path, lambda part: encode(scene, form, path=part))
