"""Media: a scene as the bytes of a video file, in the shapes and codecs in which people upload."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import av
import numpy as np

from pipeline.sandbox.dice import Dice
from pipeline.sandbox.scenes import Frame, Scene, render

Codec = Literal["h264", "mpeg4", "hevc", "vp9"]
Container = Literal["mp4", "mov", "avi", "webm"]

_ENCODERS: dict[Codec, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"preset": "ultrafast", "crf": "26"}),
    "mpeg4": ("mpeg4", {"qscale": "5", "flags": "+qscale", "global_quality": str(5 * 118)}),
    "hevc": (
        "libx265",
        {"preset": "ultrafast", "crf": "28", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    ),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "36", "b": "0"}),
}
_RATES = (Fraction(12), Fraction(15), Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(30), Fraction(50))
_RATE_WEIGHTS = (1, 2, 3, 6, 4, 6, 0.5)
_ASPECTS = (Fraction(4, 3), Fraction(16, 9), Fraction(3, 4), Fraction(9, 16), Fraction(1))
_ASPECT_WEIGHTS = (6, 6, 1, 2, 0.5)
_SHORT_SIDES, _SHORT_WEIGHTS = (120, 128, 144, 160, 180, 240), (4, 4, 4, 3, 1.5, 0.5)
_FORMATS: tuple[tuple[Codec, Container], ...] = (
    ("h264", "mp4"), ("h264", "mov"), ("mpeg4", "mp4"), ("mpeg4", "avi"), ("hevc", "mp4"), ("vp9", "webm"),
)  # fmt: skip
_FORMAT_WEIGHTS = (10, 2, 3, 2, 1, 1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Form:
    """The technical side of one video file."""

    width: int
    height: int
    rate: Fraction
    """Frames a second."""
    seconds: float
    codec: Codec = "h264"
    container: Container = "mp4"
    audio: bool = False
    """With a mono tone beside the picture."""
    rotated: bool = False
    """Stored lying on its side with a note that players turn it, as phones do (MP4 and MOV only)."""
    irregular: bool = False
    """With frames left out here and there, as phones do in the dark (a variable frame rate)."""

    @property
    def num_frames(self) -> int:
        """Frames at the full rate."""
        return max(round(self.seconds * self.rate), 1)

    @classmethod
    def drawn(cls, dice: Dice, *, min_seconds: float, max_seconds: float) -> Form:
        """A form by chance; short ones are the most frequent."""
        aspect, short = dice.weighted(_ASPECTS, _ASPECT_WEIGHTS), dice.weighted(_SHORT_SIDES, _SHORT_WEIGHTS)
        wide, tall = (round(short * aspect), short) if aspect >= 1 else (short, round(short / aspect))
        codec, container = dice.weighted(_FORMATS, _FORMAT_WEIGHTS)
        return cls(
            width=wide // 2 * 2, height=tall // 2 * 2, rate=dice.weighted(_RATES, _RATE_WEIGHTS),
            seconds=round(min(min_seconds + dice.exponential(2.2), max_seconds), 2), codec=codec, container=container,
            audio=container in ("mp4", "mov") and dice.chance(0.3),
            rotated=container in ("mp4", "mov") and dice.chance(0.06),
            irregular=container == "mp4" and dice.chance(0.06),
        )  # fmt: skip


def encode(scene: Scene, form: Form, *, path: Path) -> None:
    """Write the scene as a video file in that form; the same bytes for the same input and the same FFmpeg."""
    times = [float(number / form.rate) for number in range(form.num_frames)]
    frames = render(scene, width=form.width, height=form.height, times=times)
    with av.open(str(path), "w", format=form.container, options=_container_options(form)) as container:
        name, options = _ENCODERS[form.codec]
        stream = container.add_stream(name, rate=form.rate, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = (form.height, form.width) if form.rotated else (form.width, form.height)
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.gop_size = 48
        tone = container.add_stream("aac", rate=16000, layout="mono") if form.audio else None
        for picture in _pictures(frames, form):
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
        if tone is not None:
            assert isinstance(tone, av.AudioStream)
            for sound in _sounds(form.seconds):
                container.mux(tone.encode(sound))
            container.mux(tone.encode(None))
    if form.rotated:
        _tell_rotation(path, stored_height=form.width)


def _tell_rotation(path: Path, *, stored_height: int) -> None:
    """Write a quarter turn clockwise into the matrix of the file's first track header (ISO 14496-12, 8.3.2)."""
    data = path.read_bytes()
    # Version, times, id, duration, layer and volume are the 40 bytes between the box's name and its matrix.
    start = data.index(b"tkhd") + 4 + 40
    assert data[start - 40] == 0, "a track header of version 0"
    one = 1 << 16
    matrix = struct.pack(">9i", 0, one, 0, -one, 0, 0, stored_height * one, 0, 1 << 30)
    path.write_bytes(data[:start] + matrix + data[start + len(matrix) :])


def _container_options(form: Form) -> dict[str, str]:
    # Matroska writes a random id and the time into its head unless told to be exact.
    options = {"fflags": "+bitexact"}
    return options | {"movflags": "+faststart"} if form.container == "mp4" else options


def _pictures(frames: Iterator[Frame], form: Form) -> Iterator[av.VideoFrame]:
    for number, frame in enumerate(frames):
        # Left out: frames 7, 8, 9 of every 23. The others keep their times.
        if form.irregular and number % 23 in (7, 8, 9):
            continue
        stored = np.ascontiguousarray(np.rot90(frame)) if form.rotated else frame
        picture = av.VideoFrame.from_ndarray(stored, format="rgb24")
        picture.pts, picture.time_base = number, 1 / form.rate
        yield picture


def _sounds(seconds: float) -> Iterator[av.AudioFrame]:
    wave = np.sin(np.arange(int(seconds * 16000)) * (2 * np.pi * 330 / 16000)).astype(np.float32) * 0.1
    for start in range(0, len(wave), 1024):
        sound = av.AudioFrame.from_ndarray(wave[None, start : start + 1024], format="fltp", layout="mono")
        sound.sample_rate, sound.pts, sound.time_base = 16000, start, Fraction(1, 16000)
        yield sound


def poster(scene: Scene, *, width: int, height: int) -> bytes:
    """A JPEG of the scene's first frame."""
    frame = next(render(scene, width=width, height=height, times=[0.0]))
    context = av.CodecContext.create("mjpeg", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt, context.time_base = width, height, "yuvj420p", Fraction(1, 25)
    picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuvj420p")
    picture.pts = 0
    return b"".join(bytes(packet) for packet in [*context.encode(picture), *context.encode(None)])
