"""Named settings for training: functions that return a Recipe, derived from one another.

`ours` is the default; where the paper's text and its authors' code differ, both are here beside it (README, Presets).
Costs are reckoned: 50 GFLOPs for each training clip of 16 x 112 x 112 (3 x 2 x 8.3 GMACs), 3 clips in an SSL sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from models.backbones import BACKBONES
from models.losses import LOSSES
from models.optim import SgdConfig
from models.runtime import Precision
from pipeline.augment import Normalisation

OBJECTIVES = ("ssl", "multi_label", "single_label", "masked_label")


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How a network is trained; all of it is kept in the run's config.json."""

    objective: Literal["ssl", "multi_label", "single_label", "masked_label"] = "multi_label"
    """`ssl` is PCL with VCP, `masked_label` the paper's CCE-Mask."""
    backbone: str = "r3d18"
    loss: str = "balanced_focal"
    """Of `multi_label`: bce, focal, focal_official, balanced_focal, noisyactions_official, ..."""
    clip_frames: int = 16
    crop_pixels: int = 112
    short_side: int = 136
    """Pixels of the frame's short side that the test crop is cut from."""
    crop: Literal["multi_scale", "random", "centre"] = "multi_scale"
    max_stride: int = 5
    """Frames from one to the next are 1 to this many; 1 is consecutive frames."""
    ssl_interval: int = 8
    """Frames between the clips of a tuple."""
    ssl_stride: int = 1
    """Frames from one to the next in a tuple's clips."""
    ssl_augment: bool = True
    """Colour jitter, greyscale and blur (PCL); without, flips only."""
    normalisation: Normalisation = "paper_text"
    modality: Literal["rgb", "residual"] = "rgb"
    """What the network sees: colours, or differences of neighbouring frames."""
    contrast: Literal["memory_banks", "in_batch"] = "memory_banks"
    num_negatives: int = 1024
    batch_size: int = 64
    """Over all ranks."""
    epochs: int = 50
    sgd: SgdConfig = field(default_factory=SgdConfig)
    evaluate_every_epochs: int | None = None
    """Evaluate on the test list on the way; None is at the end only."""
    seed: int = 0
    precision: Precision | None = None
    """None is bf16-mixed or 16-mixed on a GPU, 32-true on a CPU."""
    device: str = "auto"
    channels_last: bool = False
    compile: bool = False
    decode_workers: int = 2
    """Processes that decode, for each rank."""

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise ValueError(f"backbone {self.backbone!r} is unknown: choose one of {', '.join(BACKBONES)}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss {self.loss!r} is unknown: choose one of {', '.join(LOSSES)}")
        for name in ("clip_frames", "crop_pixels", "max_stride", "ssl_stride", "batch_size", "epochs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def ssl() -> Recipe:
    """PCL with VCP as the paper's section 5 trains it: batch 64, 50 epochs, cosine (25K: 207 PFLOP)."""
    return Recipe(
        objective="ssl", crop="random", short_side=128, max_stride=1, normalisation="imagenet", modality="residual"
    )


def ssl_pcl_reference() -> Recipe:
    """PCL with VCP as its own authors train it: SGD 0.01, batch 16, 200 epochs."""
    sgd = SgdConfig(learning_rate=0.01, nesterov=False, weight_decay=5e-4, schedule="constant")
    return replace(ssl(), sgd=sgd, batch_size=16, epochs=200)


def multilabel() -> Recipe:
    """Multi-label pretraining with the canonical Distribution-Balanced focal loss (ours)."""
    return Recipe()


def multilabel_paper_text() -> Recipe:
    """Multi-label pretraining as the paper's text has it: the cosine ends at 0, pixels are in [-1, 1]."""
    return replace(multilabel(), sgd=SgdConfig(schedule="cosine_to_zero"))


def multilabel_paper_code() -> Recipe:
    """Multi-label pretraining as the authors' code has it: cosine 7/16, scalar focal factor, pixels in [-1, 509]."""
    return replace(multilabel(), loss="noisyactions_official", normalisation="paper_code")


def finetune() -> Recipe:
    """Finetuning on UCF101 or HMDB51: consecutive frames, all layers, 100 epochs (UCF101: 48 PFLOP)."""
    return Recipe(objective="single_label", max_stride=1, epochs=100)


def finetune_paper_text() -> Recipe:
    """Finetuning as the paper's text has it: the cosine ends at 0."""
    return replace(finetune(), sgd=SgdConfig(schedule="cosine_to_zero"))


def finetune_paper_code() -> Recipe:
    """Finetuning as the authors' code has it: pixels in [-1, 509], and the best of test runs every 5 epochs is told."""
    return replace(finetune(), normalisation="paper_code", evaluate_every_epochs=5)


def _demo(recipe: Recipe) -> Recipe:
    """A quarter of the width on 56 x 56 pixels: some 150 clips a second on two CPU cores, decoding included.

    Differences of frames all along, as PCL's authors finetune, and the middle of the picture: few videos are enough.
    """
    return replace(
        recipe,
        backbone="r3d18_small",
        crop_pixels=56,
        short_side=64,
        crop="centre",
        max_stride=1,
        modality="residual",
        normalisation="paper_text",
        batch_size=8,
        decode_workers=1,
    )


def demo_ssl() -> Recipe:
    """SSL for the demo's few hundred videos: a minute on two CPU cores."""
    sgd = SgdConfig(learning_rate=0.01)
    return replace(_demo(ssl()), sgd=sgd, epochs=10, batch_size=16, num_negatives=64, ssl_augment=False)


def demo_multilabel() -> Recipe:
    """Multi-label pretraining for the demo's few hundred videos: a minute on two CPU cores."""
    return replace(_demo(multilabel()), epochs=20)


def demo_finetune() -> Recipe:
    """Finetuning for the demo's 48 labelled videos, gently: ten seconds on two CPU cores."""
    return replace(_demo(finetune()), sgd=SgdConfig(learning_rate=0.005), epochs=20)


PRETRAIN: Mapping[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe
    for recipe in (
        ssl, ssl_pcl_reference, multilabel, multilabel_paper_text, multilabel_paper_code, demo_ssl, demo_multilabel,
    )
}  # fmt: skip
FINETUNE: Mapping[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe for recipe in (finetune, finetune_paper_text, finetune_paper_code, demo_finetune)
}


def configs(config: Callable[..., Any], recipes: Mapping[str, Callable[[], Recipe]]) -> dict[str, Callable[[], Any]]:
    """A verb's configs, one for each recipe, named and captioned as it is."""

    def bind(name: str, recipe: Callable[[], Recipe]) -> Callable[[], Any]:
        def bound() -> Any:
            return config(recipe=recipe(), name=name)

        bound.__doc__ = recipe.__doc__
        return bound

    return {name: bind(name, recipe) for name, recipe in recipes.items()}
