"""SGD as the paper trains, and its learning rate as a function of the step with no state of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

Schedule = Literal["cosine_7_16", "cosine_to_zero", "constant"]

_SHAPES: Mapping[str, Callable[[float], float]] = {
    # FixMatch's form, which the paper's authors use: ends at 0.195 of the start.
    "cosine_7_16": lambda done: max(0.0, math.cos(7 / 16 * math.pi * done)),
    "cosine_to_zero": lambda done: 0.5 * (1 + math.cos(math.pi * done)),
    "constant": lambda done: 1.0,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SgdConfig:
    """Defaults are the paper's (section 5) and, where it is silent, its authors' code's."""

    learning_rate: float = 0.03
    """At the start, for the global batch."""
    momentum: float = 0.9
    """Share of the last step that is kept."""
    nesterov: bool = True
    """Look ahead along the momentum."""
    weight_decay: float = 0.0
    """L2 penalty; the authors' code parses 5e-4 and never passes it on."""
    schedule: Schedule = "cosine_7_16"
    """Shape of the learning rate over the run, per step."""
    warmup_steps: int = 0
    """Steps over which the rate rises linearly from near 0, for large global batches."""

    def __post_init__(self) -> None:
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}: it must be above 0")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum is {self.momentum}: it must be in [0, 1)")
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0: raise momentum or set nesterov to False")
        if self.weight_decay < 0:
            raise ValueError(f"weight_decay is {self.weight_decay}: it must be 0 or more")
        if self.schedule not in _SHAPES:
            raise ValueError(f"schedule {self.schedule!r} is unknown: choose one of {', '.join(_SHAPES)}")
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps is {self.warmup_steps}: it must be 0 or more")


def learning_rate(step: int, *, total_steps: int, config: SgdConfig) -> float:
    """The rate that step number `step` (from 0) of `total_steps` takes."""
    rate = config.learning_rate * _SHAPES[config.schedule](step / total_steps)
    if step < config.warmup_steps:
        rate *= (step + 1) / config.warmup_steps
    return rate


def build_optimizer(parameters: Iterable[nn.Parameter], *, config: SgdConfig) -> torch.optim.SGD:
    """SGD over all parameters; the loop sets the rate at each step."""
    return torch.optim.SGD(
        parameters,
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=config.nesterov,
        weight_decay=config.weight_decay,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """For all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = rate
