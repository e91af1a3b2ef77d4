"""Ray Train: the same training function on N ranks, restarted from its last checkpoint when a rank or node dies."""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ray
import ray.train
from ray.exceptions import RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig, WorkerGroupError
from ray.train.torch import TorchTrainer, get_device

from models.runtime import Compute, MetricsLog, ProcessGroupRuntime, Runtime, build_compute
from pipeline.errors import Transient, UserError

logger = logging.getLogger(__name__)

_POLL_SECONDS = 0.5

Progress = Callable[[int, int, Mapping[str, Any]], None]
"""(finished steps, total steps, row of metrics)."""


class RankFunction(Protocol):
    """What every rank runs; returns the same result on rank 0 as it would alone."""

    def __call__(self, *, make_runtime: Callable[[Path], Runtime], progress: Progress | None) -> dict[str, Any]:
        """Train one rank's share."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ranks:
    """How many ranks, and what each computes on; picklable."""

    workers: int
    """Ranks, one CPU each, and a GPU each where they train on GPUs."""
    device: str = "auto"
    """`auto` takes GPUs where the cluster has one for each rank."""
    make_compute: Callable[[str], Compute] = build_compute
    """From a device's name, on the rank."""
    sync_batch_norm: bool = False
    """On GPUs, normalise by the global batch's statistics."""
    max_failures: int = 3
    """How often the group is started again."""

    def __post_init__(self) -> None:
        if self.workers < 1 or self.max_failures < 0:
            raise ValueError(f"workers must be at least 1 and max_failures at least 0, got {self}")


class _Board:
    """What the ranks have to tell the driver; Ray Train's own reports end at its controller."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, int, dict[str, Any]]] = []
        self._mistake: str | None = None

    def post(self, step: int, total: int, row: dict[str, Any]) -> None:
        self._rows.append((step, total, row))

    def take(self) -> list[tuple[int, int, dict[str, Any]]]:
        """The rows since the last time."""
        rows, self._rows = self._rows, []
        return rows

    def stop(self, mistake: str) -> None:
        self._mistake = self._mistake or mistake

    def mistake(self) -> str | None:
        return self._mistake


def train_on_ranks(function: RankFunction, *, ranks: Ranks, progress: Progress | None = None) -> dict[str, Any]:
    """Run the function on every rank and return rank 0's result; `progress` gets rank 0's rows, in this process.

    Raises:
        UserError: as a rank raised it, or GPUs are asked for that the cluster lacks.
        Transient: ranks died more often than `max_failures`.
    """
    use_gpu = _use_gpu(ranks)
    board: Any = ray.remote(_Board).options(num_cpus=0).remote()

    def on_rank() -> dict[str, Any] | None:
        return _on_rank(function, ranks, board, use_gpu=use_gpu)

    # Our own checkpoints lie in the run's folder on the root; Ray only keeps its notes here.
    with tempfile.TemporaryDirectory(prefix="noisyactions-ray-train-", ignore_cleanup_errors=True) as notes:
        # Ray's annotations are still those of its first Train, whose functions return nothing.
        make_trainer: Any = TorchTrainer
        trainer = make_trainer(
            on_rank,
            scaling_config=ScalingConfig(num_workers=ranks.workers, use_gpu=use_gpu),
            run_config=RunConfig(storage_path=notes, failure_config=FailureConfig(max_failures=ranks.max_failures)),
        )
        try:
            result = _fit(trainer, board, progress)
            mistake = ray.get(board.mistake.remote())
        except WorkerGroupError as error:
            mistake = ray.get(board.mistake.remote())
            if mistake is None and not any(isinstance(e, RayActorError) for e in error.worker_failures.values()):
                raise
            if mistake is None:
                raise Transient(f"training ranks died {ranks.max_failures + 1} times") from error
        finally:
            ray.kill(board)
    if mistake is not None:
        raise UserError(mistake)
    assert result is not None
    return result


def _use_gpu(ranks: Ranks) -> bool:
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    found = int(resources.get("GPU", 0))
    if ranks.device.startswith("cuda") and found < ranks.workers:
        raise UserError(
            f"device {ranks.device!r} on {ranks.workers} ranks needs as many GPUs and the cluster has {found}: "
            "ask for fewer ranks, or another device"
        )
    if ranks.device == "auto" and 0 < found < ranks.workers:
        logger.warning("the cluster has %d GPUs for %d ranks: they train on CPUs", found, ranks.workers)
    return ranks.device in ("auto", "cuda") and found >= ranks.workers


def _fit(trainer: Any, board: Any, progress: Progress | None) -> dict[str, Any] | None:
    """Rank 0's result; rows are handed on while it trains."""
    ended: Future[dict[str, Any] | None] = Future()

    def fit() -> None:
        try:
            ended.set_result(trainer.fit().return_value)
        except BaseException as error:  # the edge of this thread: raised again in the caller's
            ended.set_exception(error)

    # Not in the main thread: there fit() would leave a handler behind that makes exit code 0 of an interrupt.
    threading.Thread(target=fit, daemon=True).start()
    while True:
        done = wait([ended], timeout=_POLL_SECONDS).done
        if progress is not None:
            for row in ray.get(board.take.remote()):
                progress(*row)
        if done:
            return ended.result()


def _on_rank(function: RankFunction, ranks: Ranks, board: Any, *, use_gpu: bool) -> dict[str, Any] | None:
    # A mistake of the user's ends the group like a death; the group that Ray then starts again has nothing to do.
    if ray.get(board.mistake.remote()) is not None:
        return None
    device = str(get_device()) if use_gpu else "cpu" if ranks.device == "auto" else ranks.device

    def make_runtime(folder: Path) -> Runtime:
        return ProcessGroupRuntime(
            compute=ranks.make_compute(device),
            log=MetricsLog(folder / "metrics.jsonl"),
            sync_batch_norm=ranks.sync_batch_norm and use_gpu,
        )

    def post(step: int, total: int, row: Mapping[str, Any]) -> None:
        board.post.remote(step, total, dict(row))

    first = ray.train.get_context().get_world_rank() == 0
    try:
        return function(make_runtime=make_runtime, progress=post if first else None)
    except UserError as error:
        ray.get(board.stop.remote(str(error)))
        raise
