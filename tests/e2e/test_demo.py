"""The demo as `make demo` runs it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TREE = Path(__file__).parents[2]


def demo(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.cli", "demo", "--folder", str(folder), *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=TREE)


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_ends_with_pretraining_ahead_of_scratch_and_a_page(tmp_path: Path) -> None:
    done = demo(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    runs = tmp_path / "ucf101" / "runs"
    top1 = {run.name: json.loads((run / "result.json").read_text())["video_top1"] for run in runs.iterdir()}
    assert top1["finetune-multilabel-0"] > top1["finetune-scratch-0"]
    page = (tmp_path / "report.html").read_text()
    assert "finetune-multilabel-0" in page
    assert not re.search(r"""(src|href)=["']?(https?:)?//""", page)  # self-contained
    again = demo(tmp_path)
    assert again.returncode == 0
    assert again.stdout.count("done before") >= 5
