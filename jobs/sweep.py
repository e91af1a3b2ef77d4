"""Losses x seeds x label noise: pretraining with each loss, then finetuning, in one table with mean and deviation.

Reads splits/ and shards/ of a root and of a downstream root; writes a run's folder for each pretraining and
finetuning under runs/ of its root, lists with noisy or single labels under splits/, and sweeps/NAME.json and .csv on
the root. With `--where.workers N` N trials run at once under Ray Tune, with 0 the same ones one after another in this
process. A run that has its result is not run again. It costs one pretraining for each loss and seed, and one
finetuning for each of them and each noise; `--dry-run` lists them.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import logging
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Annotated, Any

import tyro

from jobs import launch, recipes
from jobs.launch import Where
from jobs.progress import say, show_table
from jobs.recipes import Recipe
from jobs.training import Run
from jobs.trials import Row, Trial, failed, finished, run_trial
from models.losses import LOSSES
from pipeline.errors import UserError
from pipeline.noise import add_noise
from pipeline.splits import list_text, read_split
from pipeline.store import Store, open_store

logger = logging.getLogger(__name__)

NO_PRETRAINING = "none"
OBJECTIVES: Mapping[str, str] = {"cce": "single_label", "cce_mask": "masked_label"}
"""Of the losses that are an objective of their own; `none` is no pretraining, all others are multi-label."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What to vary, and on what."""

    root: Annotated[str, tyro.conf.Positional] = tyro.MISSING
    """Folder or s3://bucket/prefix to pretrain on."""
    downstream: Annotated[str, tyro.conf.Positional] = tyro.MISSING
    """Folder or s3://bucket/prefix with train and test lists, to finetune on."""
    losses: tuple[str, ...] = ("bce", "focal", "balanced_focal", "noisyactions_official", "cce_mask")
    """For pretraining: a multi-label loss, cce (one label per video), cce_mask, or none (from scratch)."""
    seeds: tuple[int, ...] = (0,)
    noise: tuple[float, ...] = (0.0,)
    """Shares of the downstream training labels to replace, such as 0 0.4 0.8; test labels stay."""
    split: str = "full"
    """The split to pretrain on."""
    init: str | None = None
    """A finished run of the root whose backbone pretraining begins with."""
    pretrain: Recipe = field(default_factory=recipes.multilabel)
    finetune: Recipe = field(default_factory=recipes.finetune)
    name: str = "sweep"
    """Of the table, and the beginning of each run's name."""
    cpus_per_trial: float = 1.0
    gpus_per_trial: float = 0.0
    """0.5 lets two trials share a GPU."""
    dry_run: bool = False
    """List the runs and do nothing."""
    where: Where = field(default_factory=Where)

    def __post_init__(self) -> None:
        known = (NO_PRETRAINING, *OBJECTIVES, *(loss for loss in LOSSES if loss != "cce"))
        for loss in self.losses:
            if loss not in known:
                raise ValueError(f"loss {loss!r} is unknown: choose of {', '.join(known)}")
        if any(not 0 <= rate <= 1 for rate in self.noise):
            raise ValueError(f"noise {self.noise} must be shares from 0 to 1, such as 0.4")
        for axis in ("losses", "seeds", "noise"):
            values = getattr(self, axis)
            if not values or len(set(values)) < len(values):
                raise ValueError(f"{axis} {values} must be one or more, each once")


def _with(pretrain: Callable[[], Recipe], finetune: Callable[[], Recipe]) -> Callable[[], Config]:
    def config() -> Config:
        return Config(pretrain=pretrain(), finetune=finetune())

    config.__doc__ = f"{pretrain.__name__}, then {finetune.__name__}"
    return config


RECIPES = {
    "ours": _with(recipes.multilabel, recipes.finetune),
    "paper_text": _with(recipes.multilabel_paper_text, recipes.finetune_paper_text),
    "paper_code": _with(recipes.multilabel_paper_code, recipes.finetune_paper_code),
    "demo": _with(recipes.demo_multilabel, recipes.demo_finetune),
}


def run(config: Config) -> int:
    """Run what is left of the grid and tell."""
    grid = trials(config)
    if config.dry_run:
        _list(grid)
        return 0
    rows = run_grid(config, grid)
    summary = summarise(rows)
    _write(config, rows, summary)
    _show(config, rows, summary)
    return 3 if any("error" in row for row in rows) else 0


def trials(config: Config) -> dict[str, Trial]:
    """The grid by the trials' names, which only the config decides."""
    found = {}
    # Ray's workers have working directories of their own.
    config = replace(config, root=launch.absolute(config.root), downstream=launch.absolute(config.downstream))
    for loss in config.losses:
        for seed in config.seeds:
            name = f"{config.name}-{loss}-s{seed}"
            pretrain = _pretraining(config, loss=loss, seed=seed, name=name)
            finetune = {
                rate: Run(
                    root=config.downstream,
                    name=f"{name}-finetune" + (f"-noise{_percent(rate)}" if rate else ""),
                    stage="finetune",
                    recipe=replace(config.finetune, seed=seed),
                    split=_noisy_split(rate, seed),
                    init_root=None if pretrain is None else config.root,
                    init=None if pretrain is None else pretrain.name,
                )
                for rate in config.noise
            }
            found[name] = Trial(loss=loss, seed=seed, pretrain=pretrain, finetune=finetune)
    return found


def _pretraining(config: Config, *, loss: str, seed: int, name: str) -> Run | None:
    if loss == NO_PRETRAINING:
        return None
    recipe = replace(config.pretrain, seed=seed)
    if loss in OBJECTIVES:
        recipe = replace(recipe, objective=OBJECTIVES[loss])  # type: ignore[arg-type]
    else:
        recipe = replace(recipe, objective="multi_label", loss=loss)
    split = _single_split(config.split, seed) if loss == "cce" else config.split
    return Run(root=config.root, name=name, stage="pretrain", recipe=recipe, split=split, init=config.init)


def _percent(rate: float) -> str:
    return f"{100 * rate:.6g}"


def _noisy_split(rate: float, seed: int) -> str:
    return f"train-noise{_percent(rate)}-s{seed}" if rate else "train"


def _single_split(split: str, seed: int) -> str:
    return f"{split}-single-s{seed}"


def prepare_lists(config: Config) -> None:
    """Write the lists that the grid trains on and that are not there by themselves; the same ones each time.

    Raises:
        UserError: a root has no such split, or noise is asked for where videos have several labels.
    """
    root, downstream = open_store(config.root), open_store(config.downstream)
    for seed in config.seeds:
        if "cce" in config.losses:
            _, labels = read_split(root, config.split)
            chosen = {video: (_choose(seed, video, own),) for video, own in labels.items() if own}
            root.write(f"splits/{_single_split(config.split, seed)}.txt", list_text(chosen).encode())
        for rate in filter(None, config.noise):
            _write_noisy(downstream, rate=rate, seed=seed)


def _choose(seed: int, video: str, labels: Sequence[int]) -> int:
    """One of a video's labels, uniform, by (seed, video) alone: the paper's single-label training."""
    digest = hashlib.sha256(f"single label {seed} {video}".encode()).digest()
    return labels[int.from_bytes(digest[:8], "little") % len(labels)]


def _write_noisy(store: Store, *, rate: float, seed: int) -> None:
    classes, labels = read_split(store, "train")
    several = [video for video, own in labels.items() if len(own) != 1]
    if several:
        raise UserError(f"{several[0]} of {store.url} has {len(labels[several[0]])} labels: noise needs one per video")
    clean = {video: own[0] for video, own in labels.items()}
    noisy, report = add_noise(clean, kind="stratified_uniform", rate=rate, num_classes=len(classes), seed=seed)
    logger.info("noise %s, seed %d: %d of %d labels differ", rate, seed, report.flipped, report.videos)
    text = list_text({video: (label,) for video, label in noisy.items()})
    store.write(f"splits/{_noisy_split(rate, seed)}.txt", text.encode())


def run_grid(config: Config, grid: Mapping[str, Trial]) -> list[Row]:
    """Every trial's rows, in the grid's order; finished runs are read, not run."""
    prepare_lists(config)
    ended = 0

    def tell(name: str) -> None:
        nonlocal ended
        ended += 1
        say(f"{config.name}: {ended} of {len(grid)} trials, {name} ended")

    resources = {"cpu": config.cpus_per_trial, "gpu": config.gpus_per_trial}
    work = partial(run_trial, show=config.where.workers == 0)
    found = launch.run_trials(work, grid, where=config.where, resources=resources, told=tell)
    rows: list[Row] = []
    for name, outcome in found.items():
        rows += outcome if isinstance(outcome, list) else failed(grid[name], str(outcome))
    return rows


def summarise(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Mean and sample standard deviation of video_top1 over seeds, for each loss and noise; None where undefined."""
    groups: dict[tuple[str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["loss"], row["noise"]), []).append(row)
    summary = []
    for (loss, noise), own in groups.items():
        found = [row["video_top1"] for row in own if "error" not in row]
        best = [row["best_on_test"] for row in own if "best_on_test" in row]
        summary.append(
            {
                "loss": loss,
                "noise": noise,
                "seeds": len(found),
                "failed": len(own) - len(found),
                "video_top1_mean": statistics.mean(found) if found else None,
                "video_top1_std": statistics.stdev(found) if len(found) > 1 else None,
                "best_on_test_mean": statistics.mean(best) if best else None,
            }
        )
    return summary


def percent(mean: float | None, std: float | None = None) -> str:
    """`44.5`, `44.5 ± 1.2`, or a dash."""
    if mean is None:
        return "-"
    return f"{100 * mean:.1f}" + ("" if std is None else f" ± {100 * std:.1f}")


def _list(grid: Mapping[str, Trial]) -> None:
    rows = [
        (name, one.name, one.stage, one.split, "done before" if finished(one) is not None else "to run")
        for name, trial in grid.items()
        for one in trial.runs
    ]
    show_table(f"{len(grid)} trials", ("trial", "run", "stage", "split", "state"), rows)


def _show(config: Config, rows: Sequence[Row], summary: Sequence[Mapping[str, Any]]) -> None:
    show_failed(rows)
    table = [
        (s["loss"], f"{s['noise']:.0%}", percent(s["video_top1_mean"], s["video_top1_std"]), s["seeds"], s["failed"])
        for s in summary
    ]
    title = f"{config.name}: video_top1 in %, mean ± standard deviation over seeds"
    show_table(title, ("loss", "noise", "video_top1", "seeds", "failed"), table)
    say(f"wrote {config.root}/sweeps/{config.name}.json and .csv")


def show_failed(rows: Sequence[Row]) -> None:
    """A table of the rows without a result, if any."""
    reasons = [(row["run"], row["error"]) for row in rows if "error" in row]
    if reasons:
        show_table("failed: run the same command again to retry", ("run", "reason"), reasons)


def csv_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A CSV file with every column that a row has, in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


_FIRST = ("loss", "seed", "noise", "run", "video_top1", "clip_top1", "num_videos", "train_videos", "epochs", "error")


def _write(config: Config, rows: Sequence[Row], summary: Sequence[Mapping[str, Any]]) -> None:
    store = open_store(config.root)
    document = {"settings": dataclasses.asdict(config), "rows": rows, "summary": summary}
    store.write(f"sweeps/{config.name}.csv", csv_bytes([{k: row[k] for k in _FIRST if k in row} for row in rows]))
    store.write(f"sweeps/{config.name}.json", json.dumps(document, indent=1, default=str).encode() + b"\n")
