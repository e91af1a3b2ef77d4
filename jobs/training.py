"""One training run from a split to weights: the glue between the loader and the loop, the same on every rank."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import torch

from jobs.recipes import Recipe
from jobs.runs import METRICS, WEIGHTS, RunFolder, environment
from models.backbones import BACKBONES, Backbone, Classifier, load_backbone
from models.batch import Batch
from models.checkpoint import export_weights, load_weights
from models.contrast import Contrast, InBatch, MemoryBanks
from models.evaluate import Evaluation, evaluate
from models.losses import LOSSES, class_frequencies
from models.objectives import ClozeContrastNetwork, Objective, SelfSupervised, masked_label, multi_label, single_label
from models.pretext import residual
from models.runtime import MetricsLog, Runtime, SingleProcess, build_compute
from models.train import Hooks, TrainConfig, train
from pipeline.augment import Augmentation, augment, for_evaluation, for_pretext, for_training
from pipeline.clips import EvalSampler, RandomSkips, TrainSampler, VcpTuples, Windows
from pipeline.crops import CentreCrop, Crop, MultiScaleCrop, RandomCrop
from pipeline.errors import UserError
from pipeline.index import INDEX_COLUMNS, Index, build_index
from pipeline.loader import Loader
from pipeline.shards import read_rows
from pipeline.splits import read_split
from pipeline.store import Store, open_store

ALL_VIDEOS = "all"
"""The split that needs no verb `split`: every usable video of the root, for self-supervised training."""

Stage = Literal["pretrain", "finetune"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """What is to be trained; small and picklable, every rank gets it."""

    root: str
    name: str
    """Of the folder under `runs/`."""
    stage: Stage
    recipe: Recipe
    split: str
    init_root: str | None = None
    init: str | None = None
    """The run on `init_root` whose weights the backbone begins with; None is from scratch."""


Progress = Callable[[int, int, Mapping[str, Any]], None]
"""(finished steps, total steps, row of metrics)."""


def train_run(run: Run, *, make_runtime: Callable[[Path], Runtime], progress: Progress | None = None) -> dict[str, Any]:
    """Train, or go on training, and write the run's files; returns result.json. Called once on each rank.

    Raises:
        UserError: the split, the weights or the settings do not fit.
    """
    store = open_store(run.root)
    folder = RunFolder(store, run.name)
    runtime = make_runtime(folder.prepare())
    classes, index = _training_index(store, run)
    fresh = not any(folder.local.glob("checkpoint-*.pt"))
    if fresh:
        _write_origin(folder, run, runtime)
    torch.manual_seed(run.recipe.seed)
    backbone = BACKBONES[run.recipe.backbone]()
    _initialise(backbone, run)
    objective = _objective(run.recipe, backbone, index, runtime)
    tester = Tester(store, run.recipe, runtime) if run.stage == "finetune" else None
    how = _augmentation(run.recipe)
    with _loader(store, index, run.recipe, runtime) as loader:
        config = TrainConfig(epochs=run.recipe.epochs, steps_per_epoch=loader.steps_per_epoch, sgd=run.recipe.sgd)
        hooks = Hooks(
            on_epoch_end=_tests_on_the_way(objective, tester, run.recipe),
            on_progress=progress,
            on_checkpoint=folder.publish_checkpoint,
        )
        try:
            outcome = train(
                objective,
                lambda epoch, step: _batches(loader, epoch, step, run.recipe, how=how, runtime=runtime),
                config=config,
                runtime=runtime,
                folder=folder.local,
                hooks=hooks,
                settings={"recipe": _lasting(run.recipe), "split": run.split, "videos": len(index), "init": _init(run)},
            )
        except ValueError as error:
            raise UserError(f"run {run.name}: {error}") from error
    if not fresh:  # only now has the loop accepted that it is the same run
        _write_origin(folder, run, runtime)
    result = _result(run, index, len(classes)) | {"steps": outcome.steps}
    if tester is not None:
        result |= tester.test(objective.module).metrics
    if runtime.rank == 0:
        result |= _best_on_test(folder.local / METRICS)
        state = objective.module.state_dict()
        export_weights(folder.local / WEIGHTS, state, metadata={"backbone": run.recipe.backbone})
        folder.publish(WEIGHTS, METRICS)
        folder.write_json("result.json", result)
    return result


def _write_origin(folder: RunFolder, run: Run, runtime: Runtime) -> None:
    if runtime.rank == 0:
        folder.write_json("config.json", dataclasses.asdict(run))
        folder.write_json("environment.json", environment() | _compute(runtime))


def _init(run: Run) -> str | None:
    """The weights it begins with, by content: two roots may have runs of one name."""
    if run.init is None:
        return None
    weights = RunFolder(open_store(run.init_root or run.root), run.init).weights()
    return f"{run.init} {hashlib.sha256(weights.read_bytes()).hexdigest()[:16]}"


def single_process(recipe: Recipe) -> Callable[[Path], Runtime]:
    """The reference mode: one device, mixed precision where it helps, no Ray."""

    def make(folder: Path) -> Runtime:
        compute = build_compute(
            recipe.device, precision=recipe.precision, channels_last=recipe.channels_last, compiled=recipe.compile
        )
        return SingleProcess(compute=compute, log=MetricsLog(folder / METRICS))

    return make


@dataclass(frozen=True, slots=True)
class Tester:
    """Tests a classifier on the root's test list, every window of every video."""

    store: Store
    recipe: Recipe
    runtime: Runtime
    split: str = "test"

    def test(self, module: torch.nn.Module) -> Evaluation:
        """See models.evaluate."""
        classes, labels = read_split(self.store, self.split)
        rows = read_rows(self.store, columns=INDEX_COLUMNS)
        index = build_index(rows, labels=labels, num_classes=len(classes), kind="single", missing="leave_out")
        recipe, runtime = self.recipe, self.runtime
        crop = CentreCrop(size=recipe.crop_pixels, short_side=recipe.short_side)
        how = for_evaluation(recipe.normalisation)
        with _loader(
            self.store, index, recipe, runtime, sampler=Windows(clip_len=recipe.clip_frames), crop=crop
        ) as loader:
            return evaluate(
                module,
                _batches(loader, 0, 0, recipe, how=how, runtime=runtime),
                labels=torch.from_numpy(index.labels).long(),
                num_classes=len(classes),
                runtime=runtime,
            )


def _best_on_test(log: Path) -> dict[str, float]:
    """The best of the tests on the way: the paper's protocol, and named as such."""
    rows = map(json.loads, log.read_text().splitlines()) if log.exists() else ()
    seen = [row["video_top1"] for row in rows if "video_top1" in row]
    return {"best_on_test": max(seen)} if seen else {}


def _tests_on_the_way(
    objective: Objective, tester: Tester | None, recipe: Recipe
) -> Callable[[int, int], Mapping[str, Any] | None] | None:
    every = recipe.evaluate_every_epochs
    if tester is None or every is None:
        return None

    def test(epoch: int, step: int) -> Mapping[str, Any] | None:
        if (epoch + 1) % every:
            return None
        return tester.test(objective.module).metrics

    return test


def _training_index(store: Store, run: Run) -> tuple[tuple[str, ...], Index]:
    rows = read_rows(store, columns=INDEX_COLUMNS)
    classes, labels = _unlabelled(rows, run) if run.split == ALL_VIDEOS else read_split(store, run.split)
    kind: Literal["multi", "single"] = "single" if run.recipe.objective == "single_label" else "multi"
    missing: Literal["refuse", "leave_out"] = "leave_out" if run.stage == "finetune" else "refuse"
    index = build_index(rows, labels=labels, num_classes=len(classes), kind=kind, missing=missing)
    sampler = train_sampler(run.recipe)
    if isinstance(sampler, VcpTuples):
        index = index.at_least(sampler.min_frames)
    return classes, index


def _unlabelled(rows: pa.Table, run: Run) -> tuple[tuple[str, ...], dict[str, tuple[int, ...]]]:
    """Every usable video of the root, without classes."""
    if run.recipe.objective != "ssl":
        raise UserError(f"--split {ALL_VIDEOS} has no labels, which {run.recipe.objective} needs: name a split")
    return (), {row["video_id"]: () for row in rows.to_pylist() if row["outcome"] == "ok"}


def train_sampler(recipe: Recipe) -> TrainSampler:
    """Which frames a training sample is made of."""
    if recipe.objective == "ssl":
        return VcpTuples(clip_len=recipe.clip_frames, interval=recipe.ssl_interval, frame_stride=recipe.ssl_stride)
    return RandomSkips(clip_len=recipe.clip_frames, max_stride=recipe.max_stride)


def train_crop(recipe: Recipe) -> Crop:
    """Which square of them."""
    if recipe.crop == "multi_scale":
        return MultiScaleCrop(size=recipe.crop_pixels)
    if recipe.crop == "random":
        return RandomCrop(size=recipe.crop_pixels, short_side=recipe.short_side)
    return CentreCrop(size=recipe.crop_pixels, short_side=recipe.short_side)


def _loader(
    store: Store,
    index: Index,
    recipe: Recipe,
    runtime: Runtime,
    *,
    sampler: EvalSampler | None = None,
    crop: Crop | None = None,
) -> Loader:
    return Loader(
        store=store,
        index=index,
        sampler=sampler or train_sampler(recipe),
        crop=crop or train_crop(recipe),
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        rank=runtime.rank,
        world_size=runtime.world_size,
        workers=recipe.decode_workers,
    )


def _augmentation(recipe: Recipe) -> Augmentation:
    if recipe.objective == "ssl" and recipe.ssl_augment:
        return for_pretext(recipe.normalisation)
    return for_training(recipe.normalisation)


def _batches(
    loader: Loader, epoch: int, step: int, recipe: Recipe, *, how: Augmentation, runtime: Runtime
) -> Iterator[Batch]:
    """The loader's batches as the loop wants them: on the device, in colour, augmented, in the recipe's modality."""
    # SSL takes the differences itself, after the pretext transformation.
    differences = recipe.modality == "residual" and recipe.objective != "ssl"
    device = runtime.compute.device
    on_gpu = device.type == "cuda"
    for planes in loader.epoch(epoch, start_step=step):
        pinned = planes.pin_memory() if on_gpu else planes
        luma, chroma, labels, weight, index = (
            tensor.to(device, non_blocking=on_gpu)
            for tensor in (pinned.luma, pinned.chroma, pinned.labels, pinned.weight, pinned.index)
        )
        clips = augment(luma, chroma, position=planes.position, how=how)
        yield Batch(
            clips=residual(clips) if differences else clips,
            labels=labels,
            weight=weight,
            index=index,
            pretext=None if pinned.pretext is None else pinned.pretext.to(device, non_blocking=on_gpu),
        )


def _initialise(backbone: Backbone, run: Run) -> None:
    if run.init is None:
        return
    source = RunFolder(open_store(run.init_root or run.root), run.init)
    try:
        load_backbone(backbone, load_weights(source.weights()))
    except ValueError as error:
        raise UserError(f"run {run.init}: {error}") from error


def _objective(recipe: Recipe, backbone: Backbone, index: Index, runtime: Runtime) -> Objective:
    if recipe.objective == "ssl":
        device = runtime.compute.device
        contrast: Contrast = InBatch()
        if recipe.contrast == "memory_banks":
            contrast = MemoryBanks(len(index), num_negatives=recipe.num_negatives, seed=recipe.seed, device=device)
        network = ClozeContrastNetwork(backbone)
        return SelfSupervised(network, contrast=contrast, seed=recipe.seed, modality=recipe.modality)
    module = Classifier(backbone, index.num_classes)
    labels = [index.labels_of(row).tolist() for row in range(len(index))]
    if recipe.objective == "single_label":
        return single_label(module)
    if recipe.objective == "masked_label":
        return masked_label(module, labels=labels, num_classes=index.num_classes, seed=recipe.seed)
    return multi_label(module, loss=LOSSES[recipe.loss](class_frequencies(labels, num_classes=index.num_classes)))


def _lasting(recipe: Recipe) -> dict[str, Any]:
    """The recipe without what may change between a run's beginning and its resumption."""
    passing = ("device", "precision", "channels_last", "compile", "decode_workers", "evaluate_every_epochs")
    return {name: value for name, value in dataclasses.asdict(recipe).items() if name not in passing}


def _compute(runtime: Runtime) -> dict[str, Any]:
    compute = runtime.compute
    return {
        "device": f"{compute.device} ({compute.device_reason})",
        "precision": f"{compute.precision} ({compute.precision_reason})",
        "world_size": runtime.world_size,
    }


def _result(run: Run, index: Index, num_classes: int) -> dict[str, Any]:
    return {
        "verb": run.stage,
        "objective": run.recipe.objective,
        "init": run.init or "scratch",
        "seed": run.recipe.seed,
        "train_videos": len(index),
        "classes": num_classes,
        "epochs": run.recipe.epochs,
    }
