from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.sandbox.dice import Dice
from pipeline.sandbox.media import Codec, Container, Form, encode, poster
from pipeline.sandbox.scenes import compose, render

SCENE = compose(["swing"], aspect=4 / 3, dice=Dice("media"))


def form(**changes: object) -> Form:
    return Form(**{"width": 128, "height": 96, "rate": Fraction(25), "seconds": 1.0} | changes)  # type: ignore[arg-type]


def decoded(path: Path) -> list[av.VideoFrame]:
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


@pytest.mark.parametrize(
    ("codec", "container"),
    [("h264", "mp4"), ("h264", "mov"), ("mpeg4", "mp4"), ("mpeg4", "avi"), ("hevc", "mp4"), ("vp9", "webm")],
)
def test_pictures_survive_encoding_and_bytes_repeat(tmp_path: Path, codec: Codec, container: Container) -> None:
    paths = [tmp_path / f"{name}.{container}" for name in "ab"]
    for path in paths:
        encode(SCENE, form(codec=codec, container=container), path=path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    frames = decoded(paths[0])
    drawn = list(render(SCENE, width=128, height=96, times=np.arange(25) / 25))
    assert len(frames) == 25
    for number in (0, 12, 24):
        assert np.abs(frames[number].to_ndarray(format="rgb24").astype(int) - drawn[number]).mean() < 8


def test_rotated_files_are_upright_once_turned(tmp_path: Path) -> None:
    encode(SCENE, form(rotated=True), path=tmp_path / "r.mp4")
    frame = decoded(tmp_path / "r.mp4")[0]
    assert (frame.width, frame.height, frame.rotation) == (96, 128, -90)
    upright = np.rot90(frame.to_ndarray(format="rgb24"), k=-1)
    drawn = next(render(SCENE, width=128, height=96, times=[0.0]))
    assert np.abs(upright.astype(int) - drawn).mean() < 8


def test_irregular_files_leave_frames_out_but_keep_time(tmp_path: Path) -> None:
    encode(SCENE, form(seconds=2.0, irregular=True), path=tmp_path / "i.mp4")
    times = [frame.time for frame in decoded(tmp_path / "i.mp4")]
    steps = np.diff(np.array(times, float))
    assert steps.max() == pytest.approx(0.16, abs=1e-3)
    assert np.median(steps) == pytest.approx(0.04, abs=1e-3)


@pytest.mark.parametrize("rate", [Fraction(12), Fraction(30000, 1001), Fraction(50)])
def test_rates_are_exact(tmp_path: Path, rate: Fraction) -> None:
    encode(SCENE, form(rate=rate), path=tmp_path / "f.mp4")
    with av.open(str(tmp_path / "f.mp4")) as container:
        assert container.streams.video[0].average_rate == rate


def test_audio_lies_beside_the_picture(tmp_path: Path) -> None:
    encode(SCENE, form(audio=True), path=tmp_path / "a.mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        assert sum(frame.samples for frame in container.decode(audio=0)) >= 15_000


def test_forms_are_varied_and_mostly_short() -> None:
    forms = [Form.drawn(Dice("forms", number), min_seconds=2, max_seconds=12) for number in range(600)]
    assert 3.5 < np.mean([one.seconds for one in forms]) < 5
    assert max(one.seconds for one in forms) <= 12
    assert len({one.rate for one in forms}) == 7
    assert {one.container for one in forms} == {"mp4", "mov", "avi", "webm"}
    assert any(one.height > one.width for one in forms)
    assert all(one.width % 2 == 0 == one.height % 2 for one in forms)


def test_posters_are_jpegs() -> None:
    assert poster(SCENE, width=64, height=48).startswith(b"\xff\xd8\xff")
