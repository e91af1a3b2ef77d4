"""A table of the paper, each row made here: pretrain with a loss, finetune, test; the paper's number stands beside it.

Table `losses` is the paper's Table 3. Reads and writes what `noisyactions sweep` does, and writes reproduce/TABLE.md
and .csv on the root. `--scale demo` runs the demo's recipes on the demo's two roots, some minutes on two CPU cores: it
shows that each row of the table can be made, and its accuracies are not the paper's. `--scale paper` runs the paper's
recipes on your own roots; it first tells what that costs and asks for --yes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from jobs import recipes, sweep
from jobs.launch import Where
from jobs.progress import say, show_table
from jobs.trials import Row
from pipeline.errors import UserError
from pipeline.splits import read_split
from pipeline.store import open_store

PAPER = "paper (25K, R3D-18, UCF101)"
GFLOP_PER_CLIP = 50
REFERENCE_TFLOPS = 20
"""Sustained, to give the cost in hours; your GPU's own may be several times more or less."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PaperRow:
    """A row of the paper's table."""

    pretraining: str
    loss: str
    """In our words, as sweep takes it."""
    name: str
    """In the paper's words."""
    accuracy: float
    """Top-1 in %, of UCF101's split 1."""


TABLE_3 = (
    PaperRow(pretraining="None", loss="none", name="-", accuracy=44.54),
    PaperRow(pretraining="Single Label", loss="cce", name="CCE", accuracy=39.78),
    PaperRow(pretraining="Single Label", loss="cce_mask", name="CCE-Mask", accuracy=40.73),
    PaperRow(pretraining="Multi Label", loss="bce", name="BCELoss", accuracy=44.77),
    PaperRow(pretraining="Multi Label", loss="focal", name="Focal", accuracy=45.04),
    PaperRow(pretraining="Multi Label", loss="balanced_focal", name="Balanced-Focal", accuracy=45.38),
)
"""The paper's Table 3: various losses in pretraining on its 25K split, and finetuning on UCF101."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which table, at which scale, on what."""

    folder: Path = Path("demo")
    """What `noisyactions demo` wrote: its root and its ucf101 are taken where the next two are not given."""
    root: str | None = None
    """Folder or s3://bucket/prefix to pretrain on."""
    downstream: str | None = None
    """Folder or s3://bucket/prefix to finetune and test on."""
    table: Literal["losses"] = "losses"
    scale: Literal["demo", "paper"] = "demo"
    split: str | None = None
    """The split to pretrain on; by default `full` at the demo's scale and `25k` at the paper's."""
    seeds: tuple[int, ...] = (0,)
    pretrain_epochs: int | None = None
    """None is the recipe's."""
    finetune_epochs: int | None = None
    gpus_per_trial: float = 0.0
    """With workers: a share of a GPU for each row; 1 at the paper's scale."""
    yes: bool = False
    """Begin, whatever it costs."""
    where: Where = field(default_factory=Where)


def run(config: Config) -> int:
    """Make the rows that are missing, and the table."""
    plan = as_sweep(config)
    if config.scale == "paper":
        _tell_cost(plan)
        if not config.yes:
            raise UserError("the paper's scale costs what is told above: give --yes to begin")
    rows = sweep.run_grid(plan, sweep.trials(plan))
    sweep.show_failed(rows)
    columns, table = tabulate(sweep.summarise(rows), ours=_our_title(config, plan, rows))
    show_table("Table 3 of the paper: losses in pretraining, then finetuning; accuracy in %", columns, table)
    note = _note(config, plan, rows)
    say(note)
    store = open_store(plan.root)
    store.write(f"reproduce/{config.table}.md", _markdown(columns, table, note).encode())
    store.write(f"reproduce/{config.table}.csv", sweep.csv_bytes([dict(zip(columns, r, strict=True)) for r in table]))
    say(f"wrote {plan.root}/reproduce/{config.table}.md and .csv")
    return 3 if any("error" in row for row in rows) else 0


def as_sweep(config: Config) -> sweep.Config:
    """The sweep whose trials are the table's rows.

    Raises:
        UserError: the paper's scale without roots of one's own.
    """
    paper = config.scale == "paper"
    if paper and (config.root is None or config.downstream is None):
        raise UserError("--scale paper needs roots of your own: give --root and --downstream")
    pretrain, finetune = (
        (recipes.multilabel_paper_text(), replace(recipes.finetune_paper_text(), evaluate_every_epochs=5))
        if paper
        else (recipes.demo_multilabel(), recipes.demo_finetune())
    )
    return sweep.Config(
        root=config.root or str(config.folder / "root"),
        downstream=config.downstream or str(config.folder / "ucf101"),
        losses=tuple(row.loss for row in TABLE_3),
        seeds=config.seeds,
        split=config.split or ("25k" if paper else "full"),
        pretrain=replace(pretrain, epochs=config.pretrain_epochs or pretrain.epochs),
        finetune=replace(finetune, epochs=config.finetune_epochs or finetune.epochs),
        name=f"table-{config.table}-{config.scale}",
        gpus_per_trial=config.gpus_per_trial,
        where=config.where,
    )


def _tell_cost(plan: sweep.Config) -> None:
    """Reckoned, not measured: 50 GFLOPs for each training clip of 16 x 112 x 112 (3 x 2 x 8.3 GMACs)."""
    videos = len(read_split(open_store(plan.root), plan.split)[1])
    downstream = len(read_split(open_store(plan.downstream), "train")[1])
    pretrainings = sum(loss != sweep.NO_PRETRAINING for loss in plan.losses) * len(plan.seeds)
    finetunings = len(plan.losses) * len(plan.seeds)
    clips = pretrainings * videos * plan.pretrain.epochs + finetunings * downstream * plan.finetune.epochs
    hours = clips * GFLOP_PER_CLIP * 1e9 / (REFERENCE_TFLOPS * 1e12) / 3600
    say(
        f"{pretrainings} pretrainings on {videos:,} videos and {finetunings} finetunings on {downstream:,}: "
        f"{clips:,} training clips, {clips * GFLOP_PER_CLIP / 1e6:,.1f} PFLOPs; "
        f"at {REFERENCE_TFLOPS} sustained TFLOP/s {hours:,.1f} hours on one GPU, tests and decoding not counted"
    )


def _our_title(config: Config, plan: sweep.Config, rows: Sequence[Row]) -> str:
    """What our column is, so that nobody takes it for the paper's experiment."""
    videos = len(read_split(open_store(plan.root), plan.split)[1])
    tested = {int(row["num_videos"]) for row in rows if "error" not in row}
    test_videos = ", ".join(map(str, sorted(tested))) or "no"
    seeds = "" if len(plan.seeds) == 1 else f", {len(plan.seeds)} seeds"
    return (
        f"here ({videos:,} videos, {plan.pretrain.backbone}, recipe {config.scale}, {test_videos} test videos{seeds})"
    )


def tabulate(summary: Sequence[Mapping[str, Any]], *, ours: str) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Columns and rows, in the paper's order; a row that failed here says so."""
    found = {one["loss"]: one for one in summary}
    best = any(one["best_on_test_mean"] is not None for one in summary)
    columns = ("pretraining", "loss", PAPER, ours, *(("here, best on test",) if best else ()))
    table = []
    for row in TABLE_3:
        one = found[row.loss]
        mean = sweep.percent(one["video_top1_mean"], one["video_top1_std"])
        told = mean if one["video_top1_mean"] is not None else "failed"
        extra = (sweep.percent(one["best_on_test_mean"]),) if best else ()
        table.append((row.pretraining, row.name, f"{row.accuracy:.2f}", told, *extra))
    return columns, table


def _note(config: Config, plan: sweep.Config, rows: Sequence[Row]) -> str:
    """What the table is and is not."""
    failed = sum("error" in row for row in rows)
    lines = [
        f"Ours: pretraining {plan.pretrain.epochs} epochs on {plan.split!r}, finetuning {plan.finetune.epochs} epochs, "
        f"video_top1 of the last epoch, seeds {', '.join(map(str, plan.seeds))}. The paper's numbers are copied from "
        "it: 50 and 100 epochs, one seed told, the best validation score.",
        "Focal is alpha 0.25, gamma 2, and Balanced-Focal has the loss's canonical hyper-parameters: the paper gives "
        "none. CCE takes one of a video's labels by (seed, video).",
    ]
    if config.scale == "demo":
        lines.append(
            "At this scale the column of ours shows that each row can be made; generated videos and a quarter of the "
            "width say nothing of the paper's ranking. Cells not run here: all at the paper's scale "
            "(--scale paper, on your own 25k split and UCF101)."
        )
    if failed:
        lines.append(f"Cells not run: {failed} finetunings failed; the same command tries them again.")
    return "\n".join(lines)


def _markdown(columns: Sequence[str], table: Sequence[Sequence[str]], note: str) -> str:
    lines = ["# Table 3: losses in pretraining, then finetuning (top-1 in %)", ""]
    for cells in (columns, ["---"] * len(columns), *table):
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *note.splitlines(), ""])
