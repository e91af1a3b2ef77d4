"""A recipe's network forward and backward on made-up clips: precisions, layouts, and the loop against a bare step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch.utils.flop_counter import FlopCounterMode

from jobs.benches.contest import Clock, Report, Score, compete, shown
from jobs.recipes import FINETUNE, PRETRAIN, Recipe
from models.backbones import BACKBONES, Classifier
from models.batch import Batch
from models.losses import binary_cross_entropy
from models.objectives import multi_label
from models.optim import build_optimizer
from models.runtime import Compute, MetricsLog, Precision, SingleProcess, build_compute, choose_device
from models.train import TrainConfig, train

_CLASSES = 101
_SIDE = 1024  # of the matrices whose product is the limit
_FP32 = "32-true"


@dataclass(frozen=True, kw_only=True)
class Config:
    """Which network, on which device, for how long."""

    recipe: str | None = None
    """Its backbone, clip, crop and batch size; None is demo_multilabel on a CPU and multilabel elsewhere."""
    device: str = "auto"
    steps: int = 4
    """Of training, in each round."""
    seconds: float = 25.0
    """Begin no new round after these."""
    json: bool = False
    """End with the ratios as one line of JSON."""

    def __post_init__(self) -> None:
        known = (*PRETRAIN, *FINETUNE)
        if self.recipe is not None and self.recipe not in known:
            raise ValueError(f"recipe {self.recipe!r} is unknown: choose one of {', '.join(known)}")
        if self.steps < 1:
            raise ValueError(f"steps must be at least 1, got {self.steps}")


def measure(config: Config) -> Report:
    """Clips per second: of CPU time in one thread on a CPU, on the wall clock elsewhere."""
    device, why = choose_device(config.device)
    on_cpu = device.type == "cpu"
    clock: Clock = "cpu" if on_cpu else "wall"
    if on_cpu:
        torch.set_num_threads(1)
    name = config.recipe or ("demo_multilabel" if on_cpu else "multilabel")
    recipe = {**PRETRAIN, **FINETUNE}[name]()
    batch = _batch(recipe, device)
    with TemporaryDirectory(prefix="noisyactions-bench-") as folder:
        computes = {_named(c): c for c in _computes(device)}
        contenders = {name: _bare(compute, recipe, batch, config.steps) for name, compute in computes.items()}
        contenders["loop, 32-true"] = _loop(computes[_FP32], recipe, batch, config.steps, Path(folder))
        contenders["matrix product, float32"] = _product(device)
        for contender in contenders.values():
            contender()  # what is chosen and allocated at the first use is not measured
        scores = compete(contenders, seconds=config.seconds)
    rates = {name: score.rate(clock) for name, score in scores.items()}
    best = max(computes, key=rates.__getitem__)
    gflop = _gflop_per_clip(recipe, batch)
    return Report(
        title=f"train: {recipe.backbone} of recipe {name} on {device} ({why}), {clock} time",
        columns=("way", "clips a second", "rounds from-to", "of 32-true", "GFLOP/s"),
        rows=list(_rows(scores, clock, gflop)),
        ratios={
            "clips_per_second": rates[best],
            "times_fp32": rates[best] / rates[_FP32],
            "loop_share_of_bare_step": rates["loop, 32-true"] / rates[_FP32],
            "gflops": rates[best] * gflop,
            "share_of_matrix_product": rates[_FP32] * gflop / rates["matrix product, float32"],
        },
        limit=f"Convolutions of {gflop:.3g} GFLOP a clip, forward and backward; best is {best}. The float32 product of "
        f"two {_SIDE} x {_SIDE} matrices is a yardstick, no ceiling: its library may suit the processor less well.",
    )


def _computes(device: torch.device) -> Iterator[Compute]:
    precisions: tuple[Precision, ...] = ("32-true", "bf16-mixed")
    if device.type == "cuda":
        precisions = (*precisions, "16-mixed")
    for precision in precisions:
        for channels_last in (False, True):
            yield build_compute(str(device), precision=precision, channels_last=channels_last)


def _named(compute: Compute) -> str:
    return f"{compute.precision}{', channels last' if compute.channels_last else ''}"


def _batch(recipe: Recipe, device: torch.device) -> Batch:
    size, side = recipe.batch_size, recipe.crop_pixels
    drawn = torch.Generator().manual_seed(0)
    return Batch(
        clips=torch.randn(size, 1, 3, recipe.clip_frames, side, side, generator=drawn).to(device),
        labels=(torch.rand(size, _CLASSES, generator=drawn) < 0.03).float().to(device),
        weight=torch.ones(size, device=device),
        index=torch.arange(size, device=device),
    )


def _classifier(recipe: Recipe) -> Classifier:
    return Classifier(BACKBONES[recipe.backbone](), _CLASSES)


def _bare(compute: Compute, recipe: Recipe, batch: Batch, steps: int) -> Callable[[], float]:
    """The least that a step can be: forward, loss, backward, update."""
    module = compute.place(_classifier(recipe)).train()
    optimizer = build_optimizer(module.parameters(), config=recipe.sgd)
    assert batch.labels is not None
    clips, labels = batch.clips.flatten(0, 1), batch.labels

    def once() -> float:
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            with compute.autocast():
                loss = binary_cross_entropy(module(_laid_out(clips, compute)), labels, torch.mean)
            compute.backward(loss)
            compute.step(optimizer)
        _wait(compute.device)
        return steps * len(clips)

    return once


def _laid_out(clips: torch.Tensor, compute: Compute) -> torch.Tensor:
    return clips.contiguous(memory_format=torch.channels_last_3d) if compute.channels_last else clips


def _loop(compute: Compute, recipe: Recipe, batch: Batch, steps: int, folder: Path) -> Callable[[], float]:
    """The same steps in models.train, which also counts, checks, schedules and reports."""
    objective = multi_label(_classifier(recipe), loss=binary_cross_entropy)
    config = TrainConfig(epochs=1, steps_per_epoch=steps, sgd=recipe.sgd)
    runtime = SingleProcess(compute=compute, log=MetricsLog(folder / "metrics.jsonl"))

    def once() -> float:
        train(objective, lambda epoch, step: [batch] * (steps - step), config=config, runtime=runtime)
        _wait(compute.device)
        return steps * len(batch.clips)

    return once


def _product(device: torch.device) -> Callable[[], float]:
    """Its rate is in GFLOP/s."""
    one, other = torch.randn(2, _SIDE, _SIDE, device=device)
    times = 10 if device.type == "cpu" else 200

    def once() -> float:
        for _ in range(times):
            one @ other
        _wait(device)
        return times * 2 * _SIDE**3 / 1e9

    return once


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _gflop_per_clip(recipe: Recipe, batch: Batch) -> float:
    module = _classifier(recipe)
    with FlopCounterMode(display=False) as counter:
        module(batch.clips[:1].flatten(0, 1).cpu()).sum().backward()
    return float(counter.get_total_flops()) / 1e9


def _rows(scores: dict[str, Score], clock: Clock, gflop: float) -> Iterator[tuple[object, ...]]:
    whole = scores[_FP32].rate(clock)
    for name, score in scores.items():
        rate = score.rate(clock)
        if name.startswith("matrix"):
            yield (name, "", "", "", shown(rate))
        else:
            yield (name, shown(rate), score.spread(clock), f"{rate / whole:.2f}", shown(rate * gflop))
