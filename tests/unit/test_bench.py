"""`noisyactions bench`: that what it prints is measured as it says, and printed under the names that issues compare."""

import json
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import Interpolation

from jobs.bench import RECIPES
from jobs.benches.contest import compete, cpu_seconds
from jobs.benches.crawl import run_stages
from jobs.benches.harvest import Harvest
from jobs.benches.likeness import luma_ssim, ssim
from jobs.benches.peers import pyav_frames, x264_default
from pipeline.catalogue import open_catalogue, read_records
from pipeline.store import FolderStore

TREE = Path(__file__).parents[2]
BURN = "import time\nwhile time.process_time() < 0.5: pass\n"


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jobs.cli", "bench", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=TREE)


def ratios(*arguments: str) -> dict[str, float]:
    """Of the last line, having checked that all went well and which bench it names."""
    done = bench(*arguments, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("bench") == arguments[0]
    return found


def test_alone_it_lists_the_benchmarks_and_an_unknown_one_is_a_mistake() -> None:
    listed, unknown = bench(), bench("transcod")
    assert listed.returncode == unknown.returncode == 2
    assert all(f"  {name}" in listed.stderr for name in RECIPES)
    assert "usage: noisyactions bench NAME" in listed.stderr
    assert "unknown recipe 'transcod': one of transcode, loader" in unknown.stderr


def test_a_mistaken_option_is_told_in_one_line() -> None:
    done = bench("train", "--recipe", "no_such")
    assert done.returncode == 2
    assert "recipe 'no_such' is unknown: choose one of ssl" in done.stderr


def test_contenders_take_turns_and_a_rate_is_work_over_its_own_time() -> None:
    turns = []

    def contender(name: str, seconds: float) -> float:
        turns.append(name)
        time.sleep(seconds)
        return 6.0

    scores = compete({"a": lambda: contender("a", 0.02), "b": lambda: contender("b", 0.06)}, seconds=0)
    assert turns == ["a", "b", "b", "a", "a", "b"]
    assert 150 < scores["a"].rate("wall") <= 300
    assert 50 < scores["b"].rate("wall") <= 100
    assert scores["a"].rate("cpu") > 2 * scores["a"].rate("wall"), "asleep it uses no CPU"


def test_cpu_time_counts_children_and_grandchildren_living_and_reaped_but_not_those_ignored() -> None:
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", BURN], check=True)
    reaped = cpu_seconds() - before
    assert 0.45 < reaped < 2
    grandchild = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BURN!r}]); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", grandchild], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert 0.45 < cpu_seconds() - before - reaped < 2
        assert cpu_seconds(ignored_pids={child.pid}) - before - reaped < 0.4
        child.communicate(b"\n")


def test_ssim_is_one_for_the_same_and_known_for_flat_planes_and_falls_with_noise() -> None:
    rng = np.random.default_rng(0)
    plane = rng.uniform(0, 255, (40, 60))
    assert ssim(plane, plane) == pytest.approx(1)
    flat, other = np.full((16, 16), 50.0), np.full((16, 16), 100.0)
    steady = (0.01 * 255) ** 2
    assert ssim(flat, other) == pytest.approx((2 * 50 * 100 + steady) / (50**2 + 100**2 + steady))
    little, much = (ssim(plane, plane + rng.normal(0, sigma, plane.shape)) for sigma in (5, 50))
    assert 0.5 < much < little < 1


def test_x264_keeps_every_frame_scales_the_short_side_and_is_like_its_source(
    video_folder: Path, tmp_path: Path
) -> None:
    source, stored = video_folder / "dive" / "c.mkv", tmp_path / "stored.mp4"  # 64 x 96, 30 frames
    x264_default(source, stored)
    with av.open(str(stored)) as container:
        frames = list(container.decode(video=0))
    assert (len(frames), frames[0].width, frames[0].height) == (30, 128, 192)
    like = luma_ssim(source, stored, interpolation=Interpolation.BICUBIC, as_601=False)
    another = video_folder / "dive" / "d.mov"
    unlike = luma_ssim(another, stored, interpolation=Interpolation.BICUBIC, as_601=False)
    assert unlike < 0.95 < like <= 1


def test_the_peers_way_decodes_the_very_frames_asked_for(video_folder: Path) -> None:
    frames = pyav_frames((video_folder / "dive" / "e e.mp4").read_bytes(), [31, 4, 49, 31])
    # The bright square of frame n begins at column 2 n mod 80.
    lefts = [int(np.flatnonzero(frame[24, :, 0] > 130)[0]) for frame in frames]
    assert frames.shape == (4, 64, 96, 3)
    assert np.abs(np.array(lefts) - np.array([62, 8, 18, 62])).max() <= 1


def test_crawl_stages_are_measured_one_by_one_on_files_that_hold_what_they_say(tmp_path: Path) -> None:
    costs = run_stages(1000)
    assert list(costs) == ["merge", "statistics", "splits"]
    for cost in costs.values():
        assert cost.cpu_seconds > 0
        assert cost.peak_mib >= cost.start_mib > 10
    Harvest(tmp_path, 1000).write()
    with open_catalogue(FolderStore(tmp_path)) as catalogue:
        assert catalogue.num_found() == 1000
        assert list(catalogue.waiting("info")) == []
        catalogue.write()
    records = read_records(FolderStore(tmp_path))
    assert 3 < np.mean([len(record.found) for record in records]) < 4.5
    assert {len(record.title.split()) for record in records} == {5}
    assert {len(record.description.split()) for record in records} == {25}
    assert 0.08 < np.mean([bool(record.comments) for record in records]) < 0.16
    assert 0.9 < np.mean([record.dropped is None for record in records]) < 1


def test_store_measures_a_root_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("stays")
    small = ("--megabytes", "8", "--creations", "5", "--seconds", "0")
    found = ratios("store", "--root", str(tmp_path), *small)
    assert {"share_of_plain_write", "create_per_second"} <= set(found)
    assert all(value > 0 for value in found.values())
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_transcode_names_its_ratios_and_leaves_out_what_is_no_video(video_folder: Path) -> None:
    (video_folder / "broken.mp4").write_bytes(bytes(range(256)) * 20)
    found = ratios("transcode", "--videos", str(video_folder), "--seconds", "0")
    names = {"share_of_decode_only", "times_ffmpeg_default", "ssim", "ssim_ffmpeg_default", "bytes_per_frame"}
    assert names <= set(found)
    assert 0 < found["share_of_decode_only"] < 1
    assert 0.8 < found["ssim"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (
            ("loader", "--seconds", "0"),
            "clips_per_second_per_core loader_share_of_decode times_webdataset_pyav bytes_per_frame ssim "
            "times_torchcodec_default",
        ),
        (("train", "--seconds", "0", "--steps", "1"), "clips_per_second times_fp32 loop_share_of_bare_step gflops"),
        (("crawl", "--records", "10000"), "records_per_second peak_mib growth_exponent memory_growth_exponent"),
        (("build", "--seconds", "0"), "share_of_transcode_only"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_each_ends_with_its_ratios_under_fixed_names(arguments: tuple[str, ...], names: str) -> None:
    found = ratios(*arguments)
    assert set(names.split()) <= set(found)
    assert all(value is None or value > 0 for value in found.values())


@pytest.mark.cluster
def test_pool_counts_only_the_drivers_time() -> None:
    found = ratios("pool", "--units", "300")
    assert 0 < found["driver_cpu_ms_per_unit"] < 1000
    assert found["units_per_second"] > 1
