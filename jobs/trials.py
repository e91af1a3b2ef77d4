"""A trial of a sweep: one pretraining and the finetunings that begin with it; what is done is not done again."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jobs.launch import training_bar
from jobs.runs import RunFolder
from jobs.training import Run, single_process, train_run
from pipeline.errors import UserError
from pipeline.store import open_store
from pipeline.units import told

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """One loss and seed: a pretraining and all finetunings that begin with it; small and picklable."""

    loss: str
    seed: int
    pretrain: Run | None
    finetune: Mapping[float, Run]
    """By noise."""

    @property
    def runs(self) -> tuple[Run, ...]:
        """In their order."""
        return (*(() if self.pretrain is None else (self.pretrain,)), *self.finetune.values())


Row = dict[str, Any]
"""loss, seed, noise and either the finetuning's result or `error`."""


def run_trial(trial: Trial, *, show: bool = False) -> list[Row]:
    """Pretrain and finetune, or read what was done before; a failure is in the rows that hang on it."""
    pretrained = {} if trial.pretrain is None else _attempt(trial.pretrain, show=show)
    if "error" in pretrained:
        return failed(trial, f"pretraining: {pretrained['error']}")
    rows = []
    for noise, finetune in trial.finetune.items():
        result = _attempt(finetune, show=show)
        rows.append({**result, "loss": trial.loss, "seed": trial.seed, "noise": noise, "run": finetune.name})
    return rows


def failed(trial: Trial, error: str) -> list[Row]:
    """A row for each finetuning that the trial owes."""
    return [
        {"error": error, "loss": trial.loss, "seed": trial.seed, "noise": noise, "run": run.name}
        for noise, run in trial.finetune.items()
    ]


def _attempt(run: Run, *, show: bool) -> dict[str, Any]:
    """The run's result.json, or `error`."""
    try:
        done = finished(run)
        if done is not None:
            return done
        with training_bar(run.name) if show else contextlib.nullcontext() as progress:
            return train_run(run, make_runtime=single_process(run.recipe), progress=progress)
    except UserError as error:
        return {"error": str(error)}
    except Exception as error:  # the edge of a trial: its trouble must not end the others
        logger.warning("run %s", run.name, exc_info=error)
        return {"error": told(error)}


def finished(run: Run) -> dict[str, Any] | None:
    """The result of a run that is done, None if there is none yet.

    Raises:
        UserError: a run of that name was made with other settings.
    """
    folder = RunFolder(open_store(run.root), run.name)
    result: dict[str, Any] | None = folder.read_json("result.json")
    if result is None:
        return None
    theirs, ours = _settings(folder.read_json("config.json") or {}), _settings(dataclasses.asdict(run))
    if theirs != ours:
        differing = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
        was = ", ".join(f"{key} was {theirs.get(key)!r}, now {ours.get(key)!r}" for key in differing)
        raise UserError(f"run {run.name} was made with other settings ({was}): give another --name, or delete it")
    return result


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """What decides a run's result, flat; where its roots lie and what computes it does not."""
    plain = json.loads(json.dumps(config))
    recipe = plain.pop("recipe", {})
    for passing in ("device", "precision", "channels_last", "compile", "decode_workers"):
        recipe.pop(passing, None)
    return {k: v for k, v in plain.items() if k not in ("root", "init_root")} | {
        f"recipe.{k}": v for k, v in recipe.items()
    }
