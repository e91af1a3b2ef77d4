import os
import signal
from collections.abc import Callable
from dataclasses import fields
from fractions import Fraction
from pathlib import Path
from threading import Timer
from typing import Any

import av
import numpy as np
import pytest

from pipeline.errors import Dropped
from pipeline.jail import Jail, Limits
from pipeline.sandbox.dice import Dice
from pipeline.sandbox.media import Form, encode
from pipeline.sandbox.scenes import compose
from pipeline.shards import Probe
from pipeline.transcode import Profile, transcode


def test_every_real_video_becomes_a_train_ready_clip_file(shared: Path, tmp_path: Path) -> None:
    for source in sorted((shared / "videos").iterdir()):
        facts = transcode(source, tmp_path / "out.mp4", Profile())
        with av.open(str(tmp_path / "out.mp4")) as container:
            stream = container.streams.video[0]
            frames = list(container.decode(stream))
            keys = [n for n, frame in enumerate(frames) if frame.key_frame]
            assert (len(container.streams), stream.codec_context.name) == (1, "mpeg4")
        assert min(facts["width"], facts["height"]) == 128
        assert (frames[0].width, frames[0].height) == (facts["width"], facts["height"])
        assert len(frames) == facts["num_frames"] == facts["source_frames"]
        assert max(np.diff(keys), default=0) <= 4
        assert facts["decode_errors"] == 0
        assert set(facts) | {"source_sha256"} == {f.name for f in fields(Probe)}


def test_same_source_same_bytes(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    source = write_video(tmp_path / "in.mp4")
    for name in ("one", "two"):
        transcode(source, tmp_path / name, Profile())
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_stored_pixels_are_those_of_the_source(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    source = write_video(tmp_path / "in.mkv", codec="libx264", width=128, height=128, frames=10)
    transcode(source, tmp_path / "out.mp4", Profile(quantiser=2))

    def luma(path: Path) -> np.ndarray:
        with av.open(str(path)) as container:
            return np.stack([f.to_ndarray()[:128].astype(float) for f in container.decode(video=0)])

    error = np.abs(luma(source) - luma(tmp_path / "out.mp4")).mean()
    assert error < 2.0


def test_fast_sources_are_capped_and_keep_their_length(tmp_path: Path) -> None:
    path = tmp_path / "fast.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=60)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        for _ in range(120):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    facts = transcode(path, tmp_path / "out.mp4", Profile())
    assert (facts["fps"], facts["source_fps"], facts["source_frames"]) == (30.0, 60.0, 120)
    assert abs(facts["num_frames"] - 60) <= 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not_a_video"),
        (b"<html>not found</html>", "not_a_video"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "not_a_video"),
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "not_a_video"),
    ],
)
def test_what_is_no_video_is_told(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "in.mp4").write_bytes(content)
    with pytest.raises(Dropped) as caught:
        transcode(tmp_path / "in.mp4", tmp_path / "out.mp4", Profile())
    assert caught.value.reason == reason


def test_limits_of_the_profile_drop_with_their_word(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    source = write_video(tmp_path / "in.mp4", frames=60)
    with pytest.raises(Dropped, match="too_long"):
        transcode(source, tmp_path / "out.mp4", Profile(max_seconds=1.0))
    with pytest.raises(Dropped, match="too_many_pixels"):
        transcode(source, tmp_path / "out.mp4", Profile(max_pixels=1000))


def test_a_truncated_video_keeps_what_was_decoded(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    source = write_video(tmp_path / "in.avi", frames=400)
    source.write_bytes(source.read_bytes()[: source.stat().st_size * 3 // 4])
    facts = transcode(source, tmp_path / "out.mp4", Profile())
    assert 20 < facts["num_frames"] < 400


def test_a_child_that_dies_or_hangs_costs_one_video(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    source, target = write_video(tmp_path / "in.mp4"), tmp_path / "out.mp4"
    with Jail(Limits(wall_seconds=30.0)) as jail:
        child = jail._start()
        os.kill(child.pid, signal.SIGSTOP)  # so that it dies with the video in its hands
        Timer(0.3, os.kill, (child.pid, signal.SIGKILL)).start()
        with pytest.raises(Dropped, match="decoder_crashed: the child ended with status -9"):
            jail.transcode(source, target, Profile())
        assert jail.transcode(source, target, Profile())["num_frames"] == 30
    with Jail(Limits(wall_seconds=0.5)) as jail:
        child = jail._start()
        os.kill(child.pid, signal.SIGSTOP)
        with pytest.raises(Dropped, match="decoder_timeout"):
            jail.transcode(source, target, Profile())
        assert child.poll() is not None


def test_a_child_that_died_idle_is_no_fault_of_the_next_video(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    source = write_video(tmp_path / "in.mp4")
    with Jail() as jail:
        child = jail._start()
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        assert jail.transcode(source, tmp_path / "out.mp4", Profile())["num_frames"] == 30


def test_the_child_sees_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLICKR_API_KEY", "very-secret")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    with Jail() as jail:
        child = jail._start()
        environment = Path(f"/proc/{child.pid}/environ").read_bytes()
    assert b"very-secret" not in environment


def test_an_output_bomb_is_stopped(tmp_path: Path, write_video: Callable[..., Path]) -> None:
    source = write_video(tmp_path / "in.mp4", frames=200)
    with Jail(Limits(output_bytes=20_000)) as jail, pytest.raises(Dropped):
        jail.transcode(source, tmp_path / "out.mp4", Profile(quantiser=2))
    assert not (tmp_path / "out.mp4").exists() or (tmp_path / "out.mp4").stat().st_size <= 20_000


@pytest.mark.parametrize(("field", "value"), [("short_side", 127), ("quantiser", 1), ("gop", 0)])
def test_a_wrong_profile_is_told(field: str, value: int) -> None:
    with pytest.raises(ValueError, match=field):
        Profile(**{field: value})


def scene_file(path: Path, **form: Any) -> Path:
    shape = Form(**{"width": 160, "height": 120, "rate": Fraction(25), "seconds": 2.7, **form})
    encode(compose(["swing"], aspect=4 / 3, dice=Dice("transcode")), shape, path=path)
    return path


@pytest.mark.parametrize("rate", [Fraction(30000, 1001), Fraction(24000, 1001), Fraction(12), Fraction(50)])
def test_phones_leave_frames_out_and_the_stored_rate_is_constant(tmp_path: Path, rate: Fraction) -> None:
    # The mean of such a file's rate may be 600000/23023, more than MPEG-4's 16 bits can tell.
    facts = transcode(
        scene_file(tmp_path / "in.mp4", rate=rate, irregular=True), tmp_path / "out.mp4", Profile(max_fps=29.97)
    )
    assert facts["fps"] == pytest.approx(min(facts["source_fps"], 29.97), rel=1e-3)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        assert float(stream.average_rate or 0) == pytest.approx(facts["fps"], rel=1e-4)
    steps = np.diff([frame.pts * frame.time_base for frame in frames if frame.pts is not None and frame.time_base])
    assert np.ptp(steps.astype(float)) < 1e-4
    assert len(frames) == facts["num_frames"]
    assert facts["num_frames"] / facts["fps"] == pytest.approx(2.7, abs=0.25)


def test_a_video_that_lies_on_its_side_is_stored_upright(tmp_path: Path) -> None:
    means = []
    for name in ("upright", "rotated"):
        source = scene_file(tmp_path / f"{name}.mp4", rotated=name == "rotated")
        facts = transcode(source, tmp_path / "out.mp4", Profile(quantiser=2))
        assert (facts["width"], facts["height"]) == (170, 128)
        assert facts["rotation"] == (270 if name == "rotated" else 0)
        with av.open(str(tmp_path / "out.mp4")) as container:
            means.append(np.stack([frame.to_ndarray()[:128] for frame in container.decode(video=0)]).astype(float))
    assert np.abs(means[0] - means[1]).mean() < 4
    assert np.abs(means[0] - means[1][:, ::-1, ::-1]).mean() > 8
