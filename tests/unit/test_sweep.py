import csv
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs import build, recipes, sweep, trials
from pipeline.errors import UserError
from pipeline.sandbox.downstream import DownstreamConfig, write_ucf101
from pipeline.splits import read_split
from pipeline.store import open_store

TINY: dict[str, Any] = {
    "epochs": 1, "batch_size": 4, "crop_pixels": 32, "short_side": 40, "clip_frames": 8
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("sweep")
    config = DownstreamConfig(
        actions=("swing", "push ups"), train_per_class=3, test_per_class=2, min_seconds=1.0, max_seconds=1.5
    )
    write_ucf101(folder / "source", config)
    assert build.run(build.Config(root=str(folder / "root"), ucf101=folder / "source")) == 0
    return str(folder / "root")


def plan(root: str, **changes: Any) -> sweep.Config:
    config = sweep.Config(
        root=root,
        downstream=root,
        split="train",
        losses=("bce",),
        pretrain=replace(recipes.demo_multilabel(), **TINY),
        finetune=replace(recipes.demo_finetune(), **TINY),
    )
    return replace(config, **changes)


def test_names_and_runs_follow_from_the_config_alone() -> None:
    config = plan("s3://bucket/root", losses=("none", "cce", "cce_mask", "focal"), seeds=(0, 7), noise=(0.0, 0.125))
    grid = sweep.trials(config)
    assert grid == sweep.trials(config)
    assert len(grid) == 8
    assert grid["sweep-none-s0"].pretrain is None
    assert grid["sweep-none-s0"].finetune[0.0].init is None
    pretrained = {trial.loss: trial.pretrain for trial in grid.values() if trial.pretrain is not None}
    assert {loss: run.recipe.objective for loss, run in pretrained.items()} == {
        "cce": "single_label",
        "cce_mask": "masked_label",
        "focal": "multi_label",
    }
    assert pretrained["focal"].recipe.loss == "focal"
    assert pretrained["cce"].split == "train-single-s7"
    noisy = grid["sweep-focal-s7"].finetune[0.125]
    assert (noisy.name, noisy.split) == ("sweep-focal-s7-finetune-noise12.5", "train-noise12.5-s7")
    assert (noisy.init, noisy.recipe.seed) == ("sweep-focal-s7", 7)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"losses": ("bse",)}, "loss 'bse' is unknown: choose of none, cce, cce_mask, bce"),
        ({"noise": (40.0,)}, "must be shares from 0 to 1"),
        ({"seeds": (1, 1)}, r"seeds \(1, 1\) must be one or more, each once"),
        ({"losses": ()}, "losses"),
    ],
)
def test_a_wrong_axis_is_told(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan("root", **changes)


def test_lists_with_noise_and_single_labels(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("splits/classes.txt", b"1 a\n2 b\n3 c\n")
    store.write("splits/train.txt", "".join(f"v{i} {i % 3 + 1}\n" for i in range(30)).encode())
    store.write("splits/multi_train.txt", "".join(f"m{i} 1|2|3\n" for i in range(60)).encode())
    sweep.prepare_lists(plan(str(tmp_path), losses=("cce",), split="multi", noise=(0.0, 0.4)))
    _, clean = read_split(store, "train")
    _, noisy = read_split(store, "train-noise40-s0")
    assert list(noisy) == list(clean)
    flipped = [clean[video] for video in clean if clean[video] != noisy[video]]
    assert {label: flipped.count(label) for label in set(clean.values())} == dict.fromkeys(
        [(0,), (1,), (2,)], math.ceil(0.4 * 10)
    )
    _, single = read_split(store, "multi-single-s0")
    assert len(single) == 60
    assert {label for own in single.values() for label in own} == {0, 1, 2}
    assert {len(own) for own in single.values()} == {1}


def test_noise_on_several_labels_is_refused(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.write("splits/classes.txt", b"1 a\n2 b\n")
    store.write("splits/train.txt", b"v 1|2\n")
    with pytest.raises(UserError, match=r"v of .* has 2 labels: noise needs one per video"):
        sweep.prepare_lists(plan(str(tmp_path), noise=(0.4,)))


def test_a_sweep_runs_once_and_tells(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = plan(root, noise=(0.0, 0.4), seeds=(0, 1))
    assert sweep.run(config) == 0
    document = json.loads(open_store(root).read("sweeps/sweep.json"))
    (_, noisy) = document["summary"]
    assert (noisy["loss"], noisy["noise"], noisy["seeds"], noisy["failed"]) == ("bce", 0.4, 2, 0)
    found = [row["video_top1"] for row in document["rows"] if row["noise"] == 0.4]
    assert noisy["video_top1_mean"] == pytest.approx(sum(found) / 2)
    assert noisy["video_top1_std"] == pytest.approx(abs(found[0] - found[1]) / math.sqrt(2))
    assert len(list(csv.DictReader(open_store(root).read("sweeps/sweep.csv").decode().splitlines()))) == 4
    weights = Path(root) / "runs" / "sweep-bce-s0" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    capsys.readouterr()
    assert sweep.run(replace(config, dry_run=True)) == 0
    assert "to run" not in capsys.readouterr().out
    assert sweep.run(config) == 0
    assert weights.stat().st_mtime_ns == before
    other = sweep.trials(replace(config, pretrain=replace(config.pretrain, epochs=2)))["sweep-bce-s0"].pretrain
    assert other is not None
    with pytest.raises(UserError, match=r"recipe.epochs was 1, now 2\): give another --name, or delete it"):
        trials.finished(other)


def test_a_failed_trial_is_told_and_the_others_go_on(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = plan(root, losses=("bce", "none"), split="nope", name="broken")
    assert sweep.run(config) == 3
    assert "no split 'nope'" in " ".join(capsys.readouterr().out.replace("│", " ").split())
    bad, good = json.loads(open_store(root).read("sweeps/broken.json"))["rows"]
    assert bad["error"].startswith("pretraining: ")
    assert 0 <= good["video_top1"] <= 1


def test_percent() -> None:
    assert [sweep.percent(None), sweep.percent(0.4454), sweep.percent(0.5, 0.012)] == ["-", "44.5", "50.0 ± 1.2"]
