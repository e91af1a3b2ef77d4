"""Self-supervised or multi-label pretraining on a split of a root.

Reads splits/ and shards/; writes runs/NAME/ (config, metrics, environment, checkpoints, weights, result). Run again,
it goes on from its last checkpoint. With `--where.workers 0` it trains in this process on one device in mixed
precision and never imports Ray; with N it trains on N ranks under Ray Train. What a recipe costs is in its caption.
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
    """What to train, on what."""

    root: Annotated[str, tyro.conf.Positional] = tyro.MISSING
    """Folder or s3://bucket/prefix with shards and splits."""
    recipe: Recipe = field(default_factory=recipes.multilabel)
    split: str = "full"
    """The training split; `all` is every video of the root, for self-supervised recipes."""
    init: str | None = None
    """A finished run of this root whose backbone to begin with."""
    name: str = "pretrain"
    """Of the run's folder."""
    where: Where = field(default_factory=Where)


RECIPES = recipes.configs(Config, recipes.PRETRAIN)


def run(config: Config) -> int:
    """Train and tell where the weights are."""
    spec = Run(
        root=config.root,
        name=config.name,
        stage="pretrain",
        recipe=config.recipe,
        split=config.split,
        init=config.init,
    )
    result = launch.train(spec, where=config.where, label=config.name)
    say(f"{result['train_videos']:,} videos, {result['steps']:,} steps; weights in {config.root}/runs/{config.name}")
    return 0
