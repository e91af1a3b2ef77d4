"""Trials on a real local Ray, with processes that really die."""

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.session import connected
from cluster.sweep import MAX_DEATHS, run_trials
from jobs import build, recipes, sweep
from jobs.launch import Where
from pipeline.sandbox.downstream import DownstreamConfig, write_ucf101

pytestmark = [
    pytest.mark.cluster,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("default"),  # Ray warns of its own future
]


@pytest.fixture(scope="module", autouse=True)
def ray_session() -> Iterator[None]:
    with connected(workers=2):
        yield


def square_or_die(folder: Path, payload: tuple[int, int]) -> dict[str, Any]:
    number, deaths = payload
    marks = folder / str(number)
    with marks.open("a") as file:
        file.write("x")
    if marks.stat().st_size <= deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"square": number * number, "several": [number, None]}


def test_a_dead_trial_is_begun_again_and_the_others_go_on(tmp_path: Path) -> None:
    told: list[str] = []
    trials = {"lives": (3, 0), "dies": (4, 1), "poison": (5, 99)}
    work = partial(square_or_die, tmp_path)
    found = run_trials(work, trials, concurrent=2, resources={"cpu": 1.0}, told=told.append)
    assert list(found) == list(trials)
    assert found["lives"] == {"square": 9, "several": [3, None]}
    assert found["dies"] == {"square": 16, "several": [4, None]}
    assert isinstance(found["poison"], str)
    assert found["poison"]
    assert (tmp_path / "5").stat().st_size == MAX_DEATHS + 1
    assert sorted(told) == sorted(trials)


def test_a_grid_is_the_same_on_ray_and_in_this_process(tmp_path: Path) -> None:
    config = DownstreamConfig(
        actions=("swing", "push ups"), train_per_class=4, test_per_class=2, min_seconds=1.0, max_seconds=1.5
    )
    write_ucf101(tmp_path / "source", config)
    rows = []
    threads = torch.get_num_threads()
    for name, workers in (("here", 0), ("there", 2)):
        root = str(tmp_path / name)
        assert build.run(build.Config(root=root, ucf101=tmp_path / "source")) == 0
        tiny = {"epochs": 1, "batch_size": 4, "crop_pixels": 32, "short_side": 40, "clip_frames": 8}
        plan = sweep.Config(
            root=root, downstream=root, split="train", losses=("none", "bce"), noise=(0.0, 0.4),
            pretrain=replace(recipes.demo_multilabel(), **tiny), finetune=replace(recipes.demo_finetune(), **tiny),
            where=Where(workers=workers),
        )  # fmt: skip
        torch.set_num_threads(1)  # as Ray's workers compute
        try:
            rows.append(sweep.run_grid(plan, sweep.trials(plan)))
        finally:
            torch.set_num_threads(threads)
    here, there = rows
    assert len(here) == 4
    assert all("error" not in row for row in here)
    assert here == there
