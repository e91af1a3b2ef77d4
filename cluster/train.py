"""Ray Train: the same training function on N ranks, restarted from its last checkpoint when a rank or node dies."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import ray.train
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from models.runtime import MetricsLog, Precision, ProcessGroupRuntime, Runtime, build_compute
from pipeline.errors import UserError

logger = logging.getLogger(__name__)

Progress = Callable[[int, int, Mapping[str, Any]], None]


class RankFunction(Protocol):
    """What every rank runs; returns the same result on rank 0 as it would alone."""

    def __call__(self, *, make_runtime: Callable[[Path], Runtime], progress: Progress | None) -> dict[str, Any]:
        """Train one rank's share."""


def train_on_ranks(
    function: RankFunction, *, workers: int, precision: Precision | None = None, max_failures: int = 3
) -> dict[str, Any]:
    """Run the function on `workers` ranks, a GPU each where the cluster has them, and return rank 0's result.

    Raises:
        UserError: as a rank raised it.
    """
    use_gpu = ray.cluster_resources().get("GPU", 0) >= workers

    def on_rank() -> None:
        _on_rank(function, precision)

    trainer = TorchTrainer(
        on_rank,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=RunConfig(
            # Our own checkpoints lie in the run's folder on the root; Ray only keeps its notes here.
            storage_path=tempfile.mkdtemp(prefix="noisyactions-ray-train-"),
            failure_config=FailureConfig(max_failures=max_failures),
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        for failure in getattr(error, "worker_failures", {}).values():
            cause = getattr(failure, "cause", failure)
            if isinstance(cause, UserError):
                raise UserError(str(cause)) from error
        raise
    metrics: dict[str, Any] = dict(result.metrics or {})
    return metrics


def _on_rank(function: RankFunction, precision: Precision | None) -> None:
    def make_runtime(folder: Path) -> Runtime:
        return ProcessGroupRuntime(compute=build_compute(precision=precision), log=MetricsLog(folder / "metrics.jsonl"))

    result = function(make_runtime=make_runtime, progress=None)
    ray.train.report(result)
