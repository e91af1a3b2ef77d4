"""Training on two real ranks of a local Ray."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from cluster.session import connected
from cluster.train import Ranks, train_on_ranks
from jobs import build, recipes
from jobs.training import Run, single_process, train_run
from models.backbones import BACKBONES, Backbone
from pipeline.errors import UserError
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


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("ucf101")
    config = DownstreamConfig(
        actions=("swing", "push ups"), train_per_class=8, test_per_class=3, min_seconds=1.0, max_seconds=1.5
    )
    write_ucf101(folder / "source", config)
    assert build.run(build.Config(root=str(folder / "root"), ucf101=folder / "source")) == 0
    return str(folder / "root")


def run_of(root: str, name: str) -> Run:
    recipe = replace(
        recipes.demo_finetune(),
        epochs=3, batch_size=4, crop_pixels=32, short_side=40, clip_frames=8,
        sgd=replace(recipes.demo_finetune().sgd, learning_rate=1e-3),
    )  # fmt: skip
    return Run(root=root, name=name, stage="finetune", recipe=recipe, split="train")


def without_norm() -> Backbone:
    """Batch norm sees one rank's clips, so that only a net without it can be the same on one rank and on two."""
    net = Backbone(width=8)
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm3d):
                setattr(module, name, nn.Identity())
            if isinstance(child, nn.Conv3d):
                child.weight.data.mul_(0.5)
    return net


def train_without_norm(run: Run, **how: Any) -> dict[str, Any]:
    before = BACKBONES[run.recipe.backbone]
    BACKBONES[run.recipe.backbone] = without_norm  # type: ignore[index]
    try:
        return train_run(run, **how)
    finally:
        BACKBONES[run.recipe.backbone] = before  # type: ignore[index]


def train_and_die_once(run: Run, *, make_runtime: Any, progress: Any) -> dict[str, Any]:
    """Rank 1 is killed as soon as there is a checkpoint, the first time."""
    folder = Path(run.root) / "runs" / run.name
    if progress is None:
        threading.Thread(target=_kill_at_first_checkpoint, args=(folder,), daemon=True).start()
    return train_without_norm(run, make_runtime=make_runtime, progress=progress)


def _kill_at_first_checkpoint(folder: Path) -> None:
    mark = folder / "killed"
    while not mark.exists():
        if list(folder.glob("checkpoint-*.pt")):
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)


def losses(root: str, name: str) -> list[float]:
    lines = (Path(root) / "runs" / name / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_two_ranks_one_of_them_killed_train_as_one_process_does(root: str) -> None:
    alone = run_of(root, "alone")
    expected = train_without_norm(alone, make_runtime=single_process(alone.recipe))
    rows: list[tuple[int, int]] = []

    def progress(step: int, total: int, row: Mapping[str, Any]) -> None:
        rows.append((step, total))

    run = run_of(root, "ranks")
    found = train_on_ranks(partial(train_and_die_once, run), ranks=Ranks(workers=2), progress=progress)
    folder = Path(root) / "runs" / "ranks"
    assert (folder / "killed").exists()
    assert json.loads((folder / "environment.json").read_text())["world_size"] == 2
    assert losses(root, "ranks") == pytest.approx(losses(root, "alone"), rel=1e-4)
    assert found.keys() == expected.keys()
    assert _close(found, expected)
    # The group that was started again went on from the checkpoint of the first epoch, it did not begin anew.
    assert rows.count((4, 12)) == 1
    assert rows[-1] == (12, 12)


def _close(found: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    return all(
        found[key] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value)
        for key, value in expected.items()
    )


def test_a_users_mistake_on_a_rank_comes_back_as_itself(root: str) -> None:
    run = replace(run_of(root, "bad"), split="nope")
    with pytest.raises(UserError, match=r"has no split 'nope'.*run the verb 'split' first"):
        train_on_ranks(partial(train_run, run), ranks=Ranks(workers=2))


def test_gpus_that_are_not_there_are_refused() -> None:
    with pytest.raises(UserError, match="device 'cuda' on 999 ranks needs as many GPUs and the cluster has"):
        train_on_ranks(partial(train_run, run_of("nowhere", "none")), ranks=Ranks(workers=999, device="cuda"))


def test_no_ranks_are_refused() -> None:
    with pytest.raises(ValueError, match="workers must be at least 1"):
        Ranks(workers=0)
