"""Ray Tune over a list of trials: each is one call of a function in a process of its own, several at once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.logger import JsonLoggerCallback

MAX_DEATHS = 2
"""How often a trial whose process died is begun again; the function goes on where it stopped."""


class _Teller(tune.Callback):
    """Tune's way of saying that a trial has ended, in this process."""

    def __init__(self, told: Callable[[str], None]) -> None:
        self._told = told

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._told(trial.config["name"])

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if trial.num_failures > MAX_DEATHS:
            self._told(trial.config["name"])


def run_trials(
    function: Callable[[Any], Any],
    trials: Mapping[str, Any],
    *,
    concurrent: int,
    resources: Mapping[str, float],
    told: Callable[[str], None],
) -> dict[str, Any]:
    """What the function returned for each trial, by name; a trial whose process keeps dying has the reason as text.

    `resources` are a trial's `cpu` and `gpu`; `told` hears the name of each trial that has ended. The function decides
    what of its own failures is a result; it may run twice for one trial, after a death.
    """
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # copies of the results, for TensorBoard too
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new output talks even when told not to

    def trial(config: dict[str, Any]) -> dict[str, Any]:
        return {"found": function(trials[config["name"]])}

    # What lasts is in the runs' folders on the root; Ray only keeps its notes here.
    json_logger: Any = JsonLoggerCallback  # without any logger Tune warns
    with tempfile.TemporaryDirectory(prefix="noisyactions-ray-tune-", ignore_cleanup_errors=True) as notes:
        tuner = tune.Tuner(
            tune.with_resources(trial, dict(resources)),
            param_space={"name": tune.grid_search(list(trials))},
            tune_config=tune.TuneConfig(max_concurrent_trials=concurrent),
            run_config=tune.RunConfig(
                name=Path(notes).name,
                storage_path=notes,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=MAX_DEATHS),
                callbacks=[_Teller(told), json_logger()],
            ),
        )
        grid = tuner.fit()
        found: dict[str, Any] = {}
        for result in (grid[number] for number in range(len(grid))):
            name = (result.config or {})["name"]
            metrics = result.metrics or {}
            found[name] = metrics["found"] if "found" in metrics else _reason(result.error)
    return {name: found[name] for name in trials}


def _reason(error: BaseException | None) -> str:
    """The last line, which names what happened; before it is Ray's own traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "the trial ended without a result"
