"""With no workers everything runs in the calling process and Ray is never imported: here it cannot be."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pipeline.sandbox.server import SandboxServer

Tell = Callable[..., str]


def test_ray_cannot_be_imported_in_these_tests(tell: Tell, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("1\n")
    cluster = ("--where.workers", 1, "--where.ray-address", "127.0.0.1:1")
    command = ("build", tmp_path / "root", "--ids", tmp_path / "list.txt", *cluster)
    assert "import of ray halted" in tell(*command, ray=False, code=1)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_crawl_build_pretrain_finetune_and_evaluate_without_ray(
    story_server: SandboxServer, story_ucf101: Path, tell: Tell, fast: tuple[str, ...], tiny: tuple[str, ...],
    tmp_path: Path,
) -> None:  # fmt: skip
    story_server.set_faults([])
    without_ray = partial(tell, ray=False)
    here = ("--where.workers", "0")
    root, downstream = tmp_path / "noisy", tmp_path / "ucf101"
    without_ray("vocabulary", root, "--names", "swing", "push ups")
    without_ray("crawl", root, *fast, *here, "--min-videos", "1")
    without_ray("build", root, *fast, *here)
    without_ray("split", root, "--settings.require", "any", "--settings.min-videos", 2)
    without_ray("pretrain", "demo_multilabel", root, *tiny, *here, "--name", "pretrain")
    without_ray("build", downstream, "--ucf101", story_ucf101, *here)
    init = ("--init-root", root, "--init", "pretrain")
    without_ray("finetune", "demo_finetune", downstream, *tiny, *here, "--name", "finetune", *init)
    without_ray("evaluate", downstream, "--name", "finetune")
    evaluation = json.loads((downstream / "runs" / "finetune" / "evaluation.json").read_text())
    assert evaluation["num_videos"] == 6
    config = (downstream / "runs" / "finetune" / "config.json").read_bytes()
    again = ("finetune", "demo_finetune", downstream, *tiny, *here, "--name", "finetune", *init)
    told = without_ray(*again, "--recipe.seed", 5, code=2)
    assert "made with other settings (recipe was" in told
    assert (downstream / "runs" / "finetune" / "config.json").read_bytes() == config
    every = ("--recipe.evaluate-every-epochs", 1)
    without_ray("finetune", "demo_finetune", downstream, *tiny, *here, "--name", "tested", *every)
    result = json.loads((downstream / "runs" / "tested" / "result.json").read_text())
    assert result["best_on_test"] == result["video_top1"]
