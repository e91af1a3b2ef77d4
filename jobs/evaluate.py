"""Video-level accuracy of a finetuned network on its test list, every window of every video.

Reads runs/NAME/ (config and weights), splits/ and shards/; writes runs/NAME/evaluation.json. Costs one forward pass
per 16 frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from jobs.progress import say, show_table
from jobs.recipes import Recipe
from jobs.runs import RunFolder
from models.optim import SgdConfig
from pipeline.errors import UserError
from pipeline.splits import read_split
from pipeline.store import open_store


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which run to test, and on what."""

    root: Annotated[str, tyro.conf.Positional]
    """Folder or s3://bucket/prefix with the finetuned run and a downstream set."""
    name: str = "finetune"
    """The run's folder."""
    split: str = "test"
    """The list to test on."""
    worst: int = 5
    """How many of the classes with the lowest accuracy to tell."""


def run(config: Config) -> int:
    """Test and tell."""
    from jobs.training import Tester, single_process
    from models.backbones import BACKBONES, Classifier
    from models.checkpoint import load_weights

    store = open_store(config.root)
    folder = RunFolder(store, config.name)
    recipe = recipe_of(folder)
    classes, _ = read_split(store, config.split)
    module = Classifier(BACKBONES[recipe.backbone](), len(classes))
    try:
        module.load_state_dict(load_weights(folder.weights()))
    except (RuntimeError, ValueError) as error:
        raise UserError(f"run {config.name} is no classifier of {len(classes)} classes: {error}") from error
    runtime = single_process(recipe)(folder.local)
    found = Tester(store, recipe, runtime, split=config.split).test(runtime.compute.place(module))
    show_table(
        f"{config.name} on {config.split}", ("metric", "value"), [(k, _told(v)) for k, v in found.metrics.items()]
    )
    if found.class_accuracy is not None and config.worst:
        ranked = sorted(zip(found.class_accuracy.tolist(), classes, strict=True))[: config.worst]
        show_table("the hardest classes", ("class", "accuracy"), [(name, f"{share:.1%}") for share, name in ranked])
    folder.write_json("evaluation.json", {"split": config.split, **found.metrics})
    say(f"wrote {store.url}/runs/{config.name}/evaluation.json")
    return 0


def recipe_of(folder: RunFolder) -> Recipe:
    """The recipe that a run was trained with.

    Raises:
        UserError: there is no such run.
    """
    config = folder.read_json("config.json")
    if config is None:
        folder.weights()  # tells which runs there are
        raise UserError(f"run {folder.name} on {folder.store.url} has no config.json")
    raw: dict[str, Any] = config["recipe"]
    return Recipe(**{**raw, "sgd": SgdConfig(**raw["sgd"])})


def _told(value: float) -> str:
    return f"{value:.4f}" if value <= 1 else f"{value:,.0f}"
