"""Measure the parts of the system against their limits and against the usual way, side by side in one run.

Reads nothing but what its options name; writes only temporary files, and prints a table, what limits it, and with
--json the ratios as one JSON object on the last line. Each costs under a minute by default. Ratios compare across
machines; the rates beside them hold for this machine as busy as it was.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from jobs.benches.contest import Report
from jobs.progress import say, show_table

_CAPTIONS = {
    "transcode": "source to clip file: against decoding alone, and against ffmpeg's defaults",
    "loader": "clips from shards: against decoding alone, and against webdataset with PyAV",
    "pool": "empty units on two Ray actors: what a unit costs the driver",
    "store": "a root's writes, reads and creations: against plain files that are synced",
    "train": "forward and backward: precisions and layouts, and the loop against a bare step",
    "crawl": "merging and splitting many records: rate, memory, and how both grow",
    "build": "a build from a local media server: against transcoding alone",
}

USAGE = "NAME"


def _recipe(name: str) -> Callable[[], Any]:
    def defaults() -> Any:
        return importlib.import_module(f"jobs.benches.{name}").Config()

    defaults.__doc__ = _CAPTIONS[name]
    return defaults


RECIPES = {name: _recipe(name) for name in _CAPTIONS}
"""The benchmarks by name; a benchmark's module is imported only when it is run, for some need torch and some Ray."""


def run(config: Any) -> int:
    """Run the benchmark that the config, of one of the modules of jobs.benches, belongs to."""
    module = importlib.import_module(type(config).__module__)
    busy = os.getloadavg()[0]
    report: Report = module.measure(config)
    show_table(report.title, report.columns, report.rows)
    for line in (*report.notes, report.limit):
        say(line)
    say(f"{os.cpu_count()} cores, load {busy:.1f} before it began")
    if config.json:
        name = type(config).__module__.rpartition(".")[2]
        ratios = {key: None if value is None else float(f"{value:.4g}") for key, value in report.ratios.items()}
        sys.stdout.write(json.dumps({"bench": name, **ratios}) + "\n")  # not wrapped, as say would on a terminal
    return 0
