import os
import time
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
    with Jail() as jail:
        for name in ("junk", "hurt", "missing", "good"):
            try:
                facts = jail.transcode(tmp_path / f"{name}.mp4", tmp_path / "out.mp4", Profile())
            except Dropped as drop:
                assert name != "good"
                assert drop.reason in ("not_a_video", "decode_failed", "no_video_stream")
                assert str(tmp_path) not in drop.detail
            else:
                assert facts["num_frames"] > 0
                assert name in ("good", "hurt")


def test_a_full_disk_is_no_fate_of_a_video(tmp_path: Path, write_video: WriteVideo) -> None:
    source = write_video(tmp_path / "in.mp4")
    with Jail() as jail:
        with pytest.raises(OSError, match="No space left on device"):
            jail.transcode(source, Path("/dev/full"), Profile())
        assert jail.transcode(source, tmp_path / "out.mp4", Profile())["num_frames"] == 30


def test_memory_and_processor_time_are_limited(tmp_path: Path, write_video: WriteVideo) -> None:
    source = write_video(tmp_path / "in.mp4", frames=400, width=640, height=480)
    began = time.monotonic()
    with Jail(Limits(cpu_seconds=1)) as jail:
        child = jail._start()
        limits = Path(f"/proc/{child.pid}/limits")
        with pytest.raises(Dropped, match="decoder_crashed: the child ended with status -"):
            for _ in range(200):
                jail.transcode(source, tmp_path / "out.mp4", Profile(short_side=480, quantiser=2))
                told = dict(line.split("  ", 1) for line in limits.read_text().splitlines()[1:])
                assert str(4 << 30) in told["Max address space"]
                if time.monotonic() - began > 20:
                    pytest.skip("this machine transcodes it within a second")
