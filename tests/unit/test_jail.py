import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import Dropped
from pipeline.jail import Jail, Limits
from pipeline.transcode import Profile

WriteVideo = Callable[..., Path]


def test_one_child_serves_many_videos_and_ends_with_the_jail(tmp_path: Path, write_video: WriteVideo) -> None:
    source = write_video(tmp_path / "in.mp4")
    with Jail() as jail:
        first = jail.transcode(source, tmp_path / "a.mp4", Profile())
        child = jail._child
        assert child is not None
        second = jail.transcode(source, tmp_path / "b.mp4", Profile())
        assert jail._child is child
    assert first == second
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert child.poll() is not None
    assert jail._child is None


def test_strangers_bytes_cost_one_video_each(tmp_path: Path, write_video: WriteVideo) -> None:
    good = write_video(tmp_path / "good.mp4")
    data = bytearray(good.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = os.urandom(200)
    (tmp_path / "hurt.mp4").write_bytes(data)
    (tmp_path / "junk.mp4").write_bytes(os.urandom(3000))
    outcomes = {}
    with Jail() as jail:
        for name in ("junk", "hurt", "missing", "good"):
            outcomes[name] = outcome(jail, tmp_path / f"{name}.mp4", tmp_path / "out.mp4")
    assert outcomes["junk"] == "not_a_video"
    assert outcomes["hurt"] in ("ok", "not_a_video", "decode_failed")
    assert outcomes["missing"] == "decode_failed"
    assert outcomes["good"] == "ok"


def outcome(jail: Jail, source: Path, target: Path) -> str:
    try:
        jail.transcode(source, target, Profile())
    except Dropped as drop:
        return drop.reason
    return "ok"


def test_a_full_disk_is_no_fate_of_a_video(tmp_path: Path, write_video: WriteVideo) -> None:
    source = write_video(tmp_path / "in.mp4")
    with Jail() as jail:
        with pytest.raises(OSError, match="No space left on device"):
            jail.transcode(source, Path("/dev/full"), Profile())
        assert jail.transcode(source, tmp_path / "out.mp4", Profile())["num_frames"] == 30


def test_memory_and_processor_time_are_limited(tmp_path: Path, write_video: WriteVideo) -> None:
    source = write_video(tmp_path / "in.mp4", frames=600, width=1280, height=720)
    with Jail(Limits(cpu_seconds=1)) as jail:
        child = jail._start()
        limits = Path(f"/proc/{child.pid}/limits")
        while "Max address space         4294967296" not in limits.read_text():
            assert child.poll() is None
        with pytest.raises(Dropped, match="decoder_crashed: the child ended with status -24"):  # SIGXCPU
            jail.transcode(source, tmp_path / "out.mp4", Profile(short_side=1080, quantiser=2))
        assert outcome(jail, write_video(tmp_path / "small.mp4"), tmp_path / "out.mp4") == "ok"
