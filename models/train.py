"""The one training loop: every objective, on one CPU, one GPU in mixed precision, or many ranks.

Its state is (step, weights, optimizer, what the objective remembers); epoch and position follow from the step. Killed
at any moment and resumed, it reports the same metrics, bit for bit on a CPU, as if it had never been killed.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from models.batch import Batch as Batch
from models.batch import cover_undecodable
from models.checkpoint import latest_checkpoint, random_state, save_checkpoint, set_random_state
from models.means import GlobalMean
from models.objectives import Moment, Objective
from models.optim import SgdConfig, build_optimizer, learning_rate, set_learning_rate
from models.runtime import Runtime
from models.tally import Tally

logger = logging.getLogger(__name__)

Batches = Callable[[int, int], Iterable[Batch]]
"""(epoch, start_step) to this rank's batches of that epoch from that step on; no state between calls."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainConfig:
    """How long and how, for any objective."""

    epochs: int
    """Passes over the training list."""
    steps_per_epoch: int
    """The same on every rank."""
    sgd: SgdConfig = field(default_factory=SgdConfig)
    """Optimizer and schedule."""
    checkpoint_every_steps: int | None = None
    """None is once per epoch; there is always one at the end."""
    keep_checkpoints: int = 2
    """How many of the newest stay on disk."""
    log_every_steps: int = 10
    """A row of metrics covers this many steps; also at each epoch's end."""
    max_undecodable_share: float = 0.05
    """Of an epoch's samples; more stop the run."""

    def __post_init__(self) -> None:
        for name in ("epochs", "steps_per_epoch", "keep_checkpoints", "log_every_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be 1 or more")
        if self.checkpoint_every_steps is not None and self.checkpoint_every_steps < 1:
            raise ValueError(f"checkpoint_every_steps is {self.checkpoint_every_steps}: 1 or more, or None per epoch")
        if not 0 <= self.max_undecodable_share <= 1:
            raise ValueError(f"max_undecodable_share is {self.max_undecodable_share}: it must be in 0..1")

    @property
    def total_steps(self) -> int:
        """Of the whole run."""
        return self.epochs * self.steps_per_epoch


@dataclass(frozen=True, kw_only=True, slots=True)
class Hooks:
    """What a job does at the loop's turning points; on every rank, at the same steps."""

    on_epoch_end: Callable[[int, int], Mapping[str, Any] | None] | None = None
    """(epoch, finished steps) to metrics to report, or None; may use the module, in eval mode too."""
    on_progress: Callable[[int, int, Mapping[str, Any]], None] | None = None
    """(finished steps, total steps, row) after each report."""
    on_checkpoint: Callable[[Path], None] | None = None
    """The file just written, on rank 0 only: to copy it elsewhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainResult:
    """What a finished run can say of itself."""

    steps: int
    """Finished, over all runs of it."""
    resumed_from: int | None
    """The step that this process began at, None for the start."""
    metrics: Mapping[str, Any]
    """The last row; empty if the run had already been finished."""


def train(
    objective: Objective,
    batches: Batches,
    *,
    config: TrainConfig,
    runtime: Runtime,
    folder: Path | None = None,
    hooks: Hooks | None = None,
    settings: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Train to the end, from the newest whole checkpoint in `folder` if there is one.

    `folder` holds the checkpoints, must be the same for all ranks, and None means that nothing is saved. `settings`
    are the job's own plain values, kept in the checkpoint; a resumed run must have the same.

    Raises:
        ValueError: the loss is not finite, too many samples cannot be decoded, batches run out before the epoch's
        end, or the
            checkpoint belongs to other settings.
    """
    loop = _Loop(
        objective=objective,
        batches=batches,
        config=config,
        runtime=runtime,
        folder=folder,
        hooks=hooks or Hooks(),
        settings=settings or {},
    )
    resumed_from = loop.resume()
    for epoch in range(loop.step // config.steps_per_epoch, config.epochs):
        loop.run_epoch(epoch)
    return TrainResult(steps=loop.step, resumed_from=resumed_from, metrics=loop.last_row)


class _Loop:
    """A run in progress."""

    def __init__(
        self,
        *,
        objective: Objective,
        batches: Batches,
        config: TrainConfig,
        runtime: Runtime,
        folder: Path | None,
        hooks: Hooks,
        settings: Mapping[str, Any],
    ) -> None:
        self.objective, self.batches, self.config = objective, batches, config
        self.runtime, self.folder, self.hooks = runtime, folder, hooks
        # What the result depends on; how often to save or report may change between runs.
        self.settings = {
            "epochs": config.epochs,
            "steps_per_epoch": config.steps_per_epoch,
            "sgd": asdict(config.sgd),
            **settings,
        }
        self.step = 0
        self.last_row: Mapping[str, Any] = {}
        self.forward = runtime.wrap(objective.module)
        self.optimizer = build_optimizer(objective.module.parameters(), config=config.sgd)
        self.tally = Tally(runtime)

    # -- one epoch ----------------------------------------------------------------------------------------------------

    def run_epoch(self, epoch: int) -> None:
        start = self.step - epoch * self.config.steps_per_epoch
        self.objective.module.train()
        with contextlib.closing(self._timed(epoch, start)) as batches:
            for batch in batches:
                self._train_step(batch, epoch=epoch)
                at_end = self.step == (epoch + 1) * self.config.steps_per_epoch
                if at_end or self.step % self.config.log_every_steps == 0:
                    self._report(epoch, batch)
                if at_end:
                    self._finish_epoch(epoch)
                if self._is_checkpoint_due(at_end=at_end):
                    self._save(epoch, batch)

    def _timed(self, epoch: int, start: int) -> Generator[Batch, None, None]:
        """Exactly the epoch's batches from `start` on, with the wait for each counted."""
        source = iter(self.batches(epoch, start))
        try:
            for step in range(start, self.config.steps_per_epoch):
                began = time.perf_counter()
                batch = next(source, None)
                self.tally.wait(time.perf_counter() - began)
                if batch is None:
                    raise ValueError(
                        f"batches ended after {step} of the {self.config.steps_per_epoch} steps of epoch {epoch}: "
                        "give steps_per_epoch that the training list can fill"
                    )
                yield batch
        finally:
            if hasattr(source, "close"):  # a generator's workers end with it
                source.close()

    def _train_step(self, batch: Batch, *, epoch: int) -> None:
        compute = self.runtime.compute
        rate = learning_rate(self.step, total_steps=self.config.total_steps, config=self.config.sgd)
        set_learning_rate(self.optimizer, rate)
        self.optimizer.zero_grad(set_to_none=True)
        mean = GlobalMean(batch.weight, self.runtime)
        with compute.autocast():
            moment = Moment(epoch=epoch, step=self.step)
            loss, metrics = self.objective.loss(self.forward, cover_undecodable(batch), moment=moment, mean=mean)
        compute.backward(loss)
        compute.step(self.optimizer)
        self.objective.after_step(self.runtime)
        self.tally.add(loss, metrics, batch=batch, step=self.step)
        self.step += 1

    def _check(self, epoch: int, batch: Batch) -> int:
        return self.tally.check(
            epoch=epoch,
            epoch_samples=self.config.steps_per_epoch * len(batch.clips) * self.runtime.world_size,
            max_undecodable_share=self.config.max_undecodable_share,
        )

    def _report(self, epoch: int, batch: Batch) -> None:
        undecodable = self._check(epoch, batch)
        rate = self.optimizer.param_groups[0]["lr"]
        row = {"epoch": epoch, **self.tally.row(), "learning_rate": rate, "undecodable": undecodable}
        self.runtime.report(row, self.step)
        self.last_row = row
        if self.hooks.on_progress is not None:
            self.hooks.on_progress(self.step, self.config.total_steps, row)

    def _finish_epoch(self, epoch: int) -> None:
        self.tally.start_epoch()
        if self.hooks.on_epoch_end is None:
            return
        found = self.hooks.on_epoch_end(epoch, self.step)
        if found:
            self.runtime.report({"epoch": epoch, **found}, self.step)
            self.last_row = {**self.last_row, **found}

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def _is_checkpoint_due(self, *, at_end: bool) -> bool:
        every = self.config.checkpoint_every_steps
        due = at_end if every is None else self.step % every == 0
        return self.folder is not None and (due or self.step == self.config.total_steps)

    def _save(self, epoch: int, batch: Batch) -> None:
        self._check(epoch, batch)  # never keep weights that a bad step has touched
        tally = self.tally.state_dict()
        if self.runtime.rank == 0:
            assert self.folder is not None
            state = {
                "step": self.step,
                "module": self.objective.module.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "compute": self.runtime.compute.state_dict(),
                "objective": self.objective.state_dict(),
                "random": random_state(),
                "tally": tally,
                "settings": self.settings,
            }
            path = save_checkpoint(self.folder, state, step=self.step, keep=self.config.keep_checkpoints)
            if self.hooks.on_checkpoint is not None:
                self.hooks.on_checkpoint(path)
        self.runtime.barrier()

    def resume(self) -> int | None:
        """Take up the newest whole checkpoint; the step it was made at, or None where there is none."""
        found = latest_checkpoint(self.folder) if self.folder is not None else None
        if found is not None:
            path, state = found
            self._refuse_other(path, state["settings"])
            self.objective.module.load_state_dict(state["module"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.runtime.compute.load_state_dict(state["compute"])
            self.objective.load_state_dict(state["objective"])
            self.tally.load_state_dict(state["tally"])
            set_random_state(state["random"])
            self.step = state["step"]
            logger.info("resumed from %s", path)
        self._refuse_apart()
        self.runtime.rewind(self.step)
        return None if found is None else self.step

    def _refuse_other(self, path: Path, theirs: Mapping[str, Any]) -> None:
        names = sorted({*theirs, *self.settings})
        differing = [n for n in names if theirs.get(n) != self.settings.get(n)]
        if differing:
            told = "; ".join(f"{n} was {theirs.get(n)!r}, now {self.settings.get(n)!r}" for n in differing)
            raise ValueError(f"{path} was made with other settings ({told}): use the same ones or another run folder")

    def _refuse_apart(self) -> None:
        """All ranks must begin at one step, or their collectives would never meet."""
        steps = self.runtime.all_gather(torch.tensor([self.step], device=self.runtime.compute.device)).tolist()
        if len(set(steps)) > 1:
            raise ValueError(
                f"ranks found checkpoints of steps {steps}: {self.folder} must be one folder for all of them"
            )
