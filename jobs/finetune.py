"""A network on UCF101 or HMDB51 (or any root with train and test lists), from pretrained weights or from scratch.

Reads splits/ and shards/ of a root that `noisyactions build --ucf101` or `--hmdb51` made, and the weights of a
pretraining run; writes runs/NAME/ with the video-level test accuracy in result.json. `video_top1` is of the last
epoch; `best_on_test`, where the recipe asks for it, is the paper's protocol: the best of tests on the way.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jobs import launch, recipes
from jobs.launch import Where
from jobs.progress import say
from jobs.recipes import Recipe
from jobs.training import Run


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to finetune, on what, from where."""

    root: Annotated[str, tyro.conf.Positional] = tyro.MISSING
    """Folder or s3://bucket/prefix with a downstream set."""
    recipe: Recipe = field(default_factory=recipes.finetune)
    split: str = "train"
    """The training list; the test list is `test`."""
    init_root: str | None = None
    """The root of the pretraining run."""
    init: str | None = None
    """The pretraining run whose backbone to begin with; without one, from scratch."""
    name: str = "finetune"
    """Of the run's folder."""
    where: Where = field(default_factory=Where)


RECIPES = recipes.configs(Config, recipes.FINETUNE)


def run(config: Config) -> int:
    """Train, test, tell."""
    result = launch.train(spec(config), where=config.where, label=config.name)
    say(
        f"{config.name}: video_top1 {result['video_top1']:.1%}, clip_top1 {result['clip_top1']:.1%} on "
        f"{result['num_videos']:,.0f} test videos, from {result['init']}"
    )
    return 0


def spec(config: Config) -> Run:
    """The run that a config asks for."""
    return Run(
        root=config.root,
        name=config.name,
        stage="finetune",
        recipe=config.recipe,
        split=config.split,
        init_root=config.init_root,
        init=config.init,
    )
