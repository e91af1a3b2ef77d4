"""`noisyactions build` as a person runs it: real files, real processes, really killed."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import webdataset

from pipeline.fsck import check_shards
from pipeline.shards import read_rows
from pipeline.store import open_store

TREE = Path(__file__).parents[2]


def command(root: Path, folder: Path, *more: str) -> list[str]:
    settings = ["--settings.videos-per-shard", "1"]
    return [sys.executable, "-m", "jobs.cli", "build", str(root), "--folder", str(folder), *settings, *more]


def digests(root: Path) -> dict[str, str]:
    files = sorted((root / "shards").iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.name[0] != "."}


def test_killed_half_way_and_run_again_gives_the_same_bytes(video_folder: Path, tmp_path: Path) -> None:
    subprocess.run(command(tmp_path / "calm", video_folder), check=True, cwd=TREE, capture_output=True)
    killed = tmp_path / "killed"
    process = subprocess.Popen(command(killed, video_folder), cwd=TREE, stdout=subprocess.DEVNULL)
    commits = killed / "build" / "commits"
    while not (commits.is_dir() and any(commits.glob("*.json"))):
        assert process.poll() is None
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done_before = len(list(commits.glob("*.json")))
    assert done_before < 5, "killed too late for this test to mean anything"
    again = subprocess.run(command(killed, video_folder), check=True, cwd=TREE, capture_output=True, text=True)
    assert f"{done_before} of 5 units were done before" in again.stdout
    assert digests(killed) == digests(tmp_path / "calm")
    findings = check_shards(open_store(str(killed)))
    assert (findings.problems, findings.num_shards, findings.counts) == ((), 5, {"ok": 5})


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves closing to the collector
def test_plain_webdataset_reads_the_shards(video_folder: Path, tmp_path: Path) -> None:
    subprocess.run(command(tmp_path / "root", video_folder), check=True, cwd=TREE, capture_output=True)
    shards = sorted(map(str, (tmp_path / "root" / "shards").glob("*.tar")))
    samples = list(webdataset.WebDataset(shards, shardshuffle=False).decode())
    assert {s["__key__"] for s in samples} == set(read_rows(open_store(str(tmp_path / "root")))["video_id"].to_pylist())
    assert all(len(s["mp4"]) > 500 and s["json"]["num_frames"] >= 12 for s in samples)


def test_broken_files_are_rows_with_reasons_and_the_others_are_built(video_folder: Path, tmp_path: Path) -> None:
    (video_folder / "junk.mp4").write_bytes(os.urandom(5000))
    (video_folder / "zero.mp4").write_bytes(b"")
    whole = (video_folder / "swing" / "a.mp4").read_bytes()
    (video_folder / "cut.mp4").write_bytes(whole[: len(whole) // 3])
    done = subprocess.run(
        command(tmp_path / "root", video_folder), cwd=TREE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = {r["video_id"]: r["outcome"] for r in read_rows(open_store(str(tmp_path / "root"))).to_pylist()}
    assert {k: v for k, v in rows.items() if v != "ok"} == {
        "junk": "not_a_video",
        "zero": "not_a_video",
        "cut": "not_a_video",
    }
    assert len(rows) == 8


def test_a_source_without_any_usable_video_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "junk.mp4").write_bytes(os.urandom(5000))
    done = subprocess.run(
        command(tmp_path / "root", tmp_path / "videos"), cwd=TREE, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no video of the source is usable: junk is not_a_video" in done.stderr


def test_other_settings_on_the_same_root_are_refused(video_folder: Path, tmp_path: Path) -> None:
    subprocess.run(command(tmp_path / "root", video_folder), check=True, cwd=TREE, capture_output=True)
    other = command(tmp_path / "root", video_folder, "--settings.profile.quantiser", "5")
    done = subprocess.run(other, cwd=TREE, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "built with other settings (profile was" in done.stderr


@pytest.mark.cluster
def test_ray_actors_write_the_same_bytes(video_folder: Path, tmp_path: Path) -> None:
    subprocess.run(command(tmp_path / "here", video_folder), check=True, cwd=TREE, capture_output=True)
    with_ray = command(tmp_path / "ray", video_folder, "--where.workers", "2")
    subprocess.run(with_ray, check=True, cwd=TREE, capture_output=True)
    assert digests(tmp_path / "ray") == digests(tmp_path / "here")
