from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jobs import build, reproduce, sweep
from pipeline.errors import UserError
from pipeline.sandbox.downstream import DownstreamConfig, write_ucf101

CONFIG = reproduce.Config(pretrain_epochs=1, finetune_epochs=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("reproduce")
    config = DownstreamConfig(
        actions=("swing", "push ups"), train_per_class=8, test_per_class=1, min_seconds=1.0, max_seconds=1.5
    )
    write_ucf101(folder / "source", config)
    assert build.run(build.Config(root=str(folder / "root"), ucf101=folder / "source")) == 0
    return str(folder / "root")


def summary(**accuracy: float | None) -> list[dict[str, Any]]:
    return [
        {"loss": row.loss, "video_top1_mean": accuracy.get(row.loss), "video_top1_std": None, "best_on_test_mean": None}
        for row in reproduce.TABLE_3
    ]


def test_the_papers_numbers_stand_in_their_own_column() -> None:
    columns, table = reproduce.tabulate(summary(none=0.25, bce=0.5), ours="here (6 videos)")
    assert columns == ("pretraining", "loss", "paper (25K, R3D-18, UCF101)", "here (6 videos)")
    assert table[0] == ("None", "-", "44.54", "25.0")
    assert table[3] == ("Multi Label", "BCELoss", "44.77", "50.0")
    assert table[5] == ("Multi Label", "Balanced-Focal", "45.38", "failed")


def test_paper_scale_tells_its_cost_and_waits_for_yes(root: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = replace(CONFIG, scale="paper")
    with pytest.raises(UserError, match="give --root and --downstream"):
        reproduce.run(config)
    with pytest.raises(UserError, match="give --yes to begin"):
        reproduce.run(replace(config, root=root, downstream=root, split="train"))
    told = capsys.readouterr().out
    assert "5 pretrainings on 16 videos and 6 finetunings on 16: 176 training clips" in told
    assert not (Path(root) / "runs").exists()


def test_paper_scale_takes_the_papers_recipes() -> None:
    plan = reproduce.as_sweep(reproduce.Config(scale="paper", root="a", downstream="b"))
    assert (plan.split, plan.pretrain.backbone, plan.pretrain.epochs) == ("25k", "r3d18", 50)
    assert (plan.finetune.epochs, plan.finetune.evaluate_every_epochs) == (100, 5)
    assert plan.losses == ("none", "cce", "cce_mask", "bce", "focal", "balanced_focal")


def test_a_scaled_table_says_what_it_is(root: str) -> None:
    config = replace(CONFIG, root=root, downstream=root, split="train")
    assert reproduce.run(config) == 0
    text = (Path(root) / "reproduce" / "losses.md").read_text()
    assert "| here (16 videos, r3d18_small, recipe demo, 2 test videos) |" in text
    assert "| Single Label | CCE-Mask | 40.73 | " in text
    assert "Cells not run here: all at the paper's scale" in text
    assert "failed" not in text
    assert len((Path(root) / "reproduce" / "losses.csv").read_text().splitlines()) == 7


def test_a_failed_cell_is_told(root: str) -> None:
    config = replace(CONFIG, root=root, downstream=root, split="nope")
    plan = reproduce.as_sweep(config)
    with pytest.raises(UserError, match="has no split 'nope'"):
        sweep.prepare_lists(plan)
