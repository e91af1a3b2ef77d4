"""What adds up between two reports, kept on the device and read once per report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from models.batch import Batch
from models.runtime import Runtime

TIMINGS = frozenset({"clips_per_second", "data_wait_share"})
"""Metrics that differ from run to run; all others are the same for the same run, killed and resumed or not."""


class Tally:
    """Sums since the last report, and the epoch's count of samples that could not be decoded."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        device = runtime.compute.device
        self._dtype = torch.float32 if device.type == "mps" else torch.float64
        self._sums: dict[str, Tensor] = {}
        self._steps = 0
        self._undecodable = torch.zeros((), dtype=torch.int64, device=device)
        self._bad_step = torch.full((), -1, dtype=torch.int64, device=device)
        self._restart_clock()

    def _restart_clock(self) -> None:
        self._began, self._waited, self._clips = time.perf_counter(), 0.0, 0

    def wait(self, seconds: float) -> None:
        """Add time in which the device had no batch."""
        self._waited += seconds

    def add(self, loss: Tensor, metrics: Mapping[str, Tensor], *, batch: Batch, step: int) -> None:
        """A step's loss and metrics, which hold for the global batch, and this rank's batch."""
        loss = loss.detach()
        # The first bad step is noted on the device, so that looking for it costs no sync.
        self._bad_step = torch.where((self._bad_step < 0) & ~loss.isfinite(), step, self._bad_step)
        for name, value in {"loss": loss, **metrics}.items():
            value = value.detach().to(self._dtype)
            self._sums[name] = self._sums[name] + value if name in self._sums else value
        self._steps += 1
        self._clips += batch.clips.shape[0] * batch.clips.shape[1]
        self._undecodable = self._undecodable + (batch.weight == 0).sum()

    def check(self, *, epoch: int, epoch_samples: int, max_undecodable_share: float) -> int:
        """The epoch's undecodable samples so far, of all ranks; all ranks must call this together.

        Raises:
            ValueError: a loss was not finite, or more than the share of `epoch_samples` could not be decoded.
        """
        bad = int(self._bad_step)  # CPU-GPU sync
        if bad >= 0:
            raise ValueError(
                f"the loss is not finite at step {bad} (epoch {epoch}): lower the learning rate, add warm-up steps, or "
                "train in precision 32-true; the last checkpoint is from before that step"
            )
        undecodable = int(self._runtime.all_reduce_sum(self._undecodable))
        if undecodable > max_undecodable_share * epoch_samples:
            raise ValueError(
                f"{undecodable} of the {epoch_samples} samples of epoch {epoch} could not be decoded, more than "
                f"max_undecodable_share {max_undecodable_share}: check the shards, or raise the share"
            )
        return undecodable

    def row(self) -> dict[str, float]:
        """Means since the last report, with timings; starts anew."""
        values = torch.stack(list(self._sums.values())).tolist()  # CPU-GPU sync
        row = {name: value / self._steps for name, value in zip(self._sums, values, strict=True)}
        elapsed = time.perf_counter() - self._began
        row["clips_per_second"] = self._clips * self._runtime.world_size / elapsed
        row["data_wait_share"] = self._waited / elapsed
        self._sums, self._steps = {}, 0
        self._restart_clock()
        return row

    @property
    def steps(self) -> int:
        """Since the last report."""
        return self._steps

    def start_epoch(self) -> None:
        """Count undecodable samples from 0."""
        self._undecodable = torch.zeros_like(self._undecodable)

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint between two reports; `undecodable` is of all ranks (all of them must call this together)."""
        undecodable = self._runtime.all_reduce_sum(self._undecodable)
        return {"sums": dict(self._sums), "steps": self._steps, "undecodable": int(undecodable)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Of a checkpoint; rank 0 takes the count of undecodable samples, so that the sum over ranks is right."""
        device = self._runtime.compute.device
        self._sums = {name: value.to(device) for name, value in state["sums"].items()}
        self._steps = state["steps"]
        own = state["undecodable"] if self._runtime.rank == 0 else 0
        self._undecodable = torch.full_like(self._undecodable, own)
        self._restart_clock()
