"""The usual ways of doing what we do, as other systems do them: what the benchmarks compare with."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

_SHORT_SIDE = 128

Pixels = npt.NDArray[np.uint8]


def way_of_ffmpeg() -> str:
    """What `x264_default` is on this machine."""
    return "ffmpeg, x264 defaults" if shutil.which("ffmpeg") else "PyAV, x264 defaults (no ffmpeg here)"


def x264_default(source: Path, target: Path) -> None:
    """libx264 without options, the short side scaled to 128 bicubically: what video2dataset has ffmpeg do."""
    if shutil.which("ffmpeg"):
        scale = "scale='if(gt(iw,ih),-2,128)':'if(gt(iw,ih),128,-2)'"
        command: list[str | Path] = ["ffmpeg", "-v", "error", "-y", "-i", source, "-vf", scale, "-pix_fmt", "yuv420p"]
        subprocess.run([*command, "-an", target], check=True, stdin=subprocess.DEVNULL)
        return
    with av.open(str(source), metadata_errors="ignore") as container, av.open(str(target), "w") as output:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        frames, rate = _scaled(container.decode(stream)), stream.average_rate or Fraction(25)
        encoder: Any = output.add_stream("libx264", rate=rate)
        encoder.codec_context.thread_count = 1
        for number, frame in enumerate(frames):
            if number == 0:
                encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuv420p"
            frame.pts, frame.time_base = number, 1 / rate
            output.mux(encoder.encode(frame))
        output.mux(encoder.encode(None))


def _scaled(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    scaler = VideoReformatter()
    for frame in frames:
        scale = _SHORT_SIDE / min(frame.width, frame.height)
        size = (round(frame.width * scale / 2) * 2, round(frame.height * scale / 2) * 2)
        yield scaler.reformat(frame, *size, format="yuv420p", interpolation=Interpolation.BICUBIC)


def pyav_frames(data: bytes, wanted: Sequence[int]) -> Pixels:
    """RGB frames (T, H, W, 3) of an MP4 with PyAV as its documentation has it: seek, decode, `to_ndarray`."""
    with av.open(io.BytesIO(data), mode="r") as container:
        stream: Any = container.streams.video[0]
        stream.codec_context.thread_count = 1
        rate, left, found = stream.average_rate, sorted(set(wanted)), {}
        container.seek(round(left[0] / rate / stream.time_base), stream=stream)
        for frame in container.decode(stream):
            number = round(frame.time * rate)
            while left and left[0] <= number:  # the first frame that is not before it, where times have gaps
                found[left.pop(0)] = frame.to_ndarray(format="rgb24")
            if not left:
                break
    return np.stack([found[number] for number in wanted if number in found])


def torchcodec_frames(data: bytes, wanted: Sequence[int]) -> Any:
    """RGB frames (T, 3, H, W) of an MP4 with torchcodec, exact seeking, one thread."""
    from torchcodec.decoders import VideoDecoder  # type: ignore[import-not-found,unused-ignore]

    return VideoDecoder(data, num_ffmpeg_threads=1).get_frames_at(indices=list(wanted)).data


def decord_frames(data: bytes, wanted: Sequence[int]) -> Any:
    """RGB frames (T, H, W, 3) of an MP4 with decord, one thread."""
    import decord  # type: ignore[import-not-found,unused-ignore]

    return decord.VideoReader(io.BytesIO(data), num_threads=1).get_batch(list(wanted)).asnumpy()
