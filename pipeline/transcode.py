"""A source file -> a train-ready clip file: short side 128, constant frame rate, a key frame every 4 frames.

This module only ever runs inside the child process of pipeline.jail: it parses bytes that strangers made.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from pipeline.errors import Dropped

_CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,asf,flv,ogg,m4v,h264,hevc,dv,wtv,rm"
"""Formats that hold their own frames: playlists, `concat` and their like could make FFmpeg open other files."""

_ATTACHED_PICTURE = "attached_pic"

_MAX_TIME_BASE_DENOMINATOR = 65535
"""MPEG-4 part 2 has 16 bits for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """How a clip file is made; part of a build's settings, for it decides every byte."""

    short_side: int = 128
    """Pixels."""
    max_fps: float = 30.0
    """Faster sources lose frames, slower ones keep theirs."""
    gop: int = 4
    """Frames from key frame to key frame; short, so that a training clip decodes little that it does not use."""
    quantiser: int = 4
    """MPEG-4 part 2 quantiser, 2 (large) to 31 (small)."""
    max_seconds: float = 1200.0
    """Longer sources are dropped as `too_long`."""
    max_pixels: int = 4096 * 2304
    """Larger frames are dropped as `too_many_pixels`."""

    def __post_init__(self) -> None:
        if self.short_side < 16 or self.short_side % 2:
            raise ValueError(f"short_side must be even and at least 16, got {self.short_side}")
        if not 2 <= self.quantiser <= 31:
            raise ValueError(f"quantiser must be from 2 to 31, got {self.quantiser}")
        if self.gop < 1 or self.max_fps <= 0 or self.max_seconds <= 0 or self.max_pixels <= 0:
            raise ValueError("gop, max_fps, max_seconds and max_pixels must be positive")


def transcode(source: Path, target: Path, profile: Profile) -> dict[str, Any]:
    """Write the clip file and return what was seen, with the fields of pipeline.shards.Probe.

    Raises:
        Dropped: `not_a_video`, `no_video_stream`, `too_long`, `too_many_pixels`, `decode_failed`, `encode_failed`.
    """
    with source.open("rb") as file, _open(file) as container:
        stream = _video_stream(container)
        _check_size(container, stream, profile)
        rate = _frame_rate(stream)
        seen = _Seen()
        job = _Job(profile, _storable(min(rate, Fraction(profile.max_fps))), seen)
        frames = _constant_rate(_decode(container, stream, profile, seen), job.rate)
        stored = _encode(frames, stream, target, job)
        duration = float(seen.last_time - seen.first_time) + float(1 / rate)
        return stored | {
            "source_codec": stream.codec_context.name,
            "source_width": stream.codec_context.width,
            "source_height": stream.codec_context.height,
            "source_fps": round(float(rate), 6),
            "source_frames": seen.frames,
            "source_duration_seconds": round(duration, 6),
            "rotation": seen.rotation,
            "decode_errors": seen.errors,
        }


@dataclass(slots=True)
class _Seen:
    """What decoding met on the way."""

    frames: int = 0
    errors: int = 0
    rotation: int = 0
    first_time: Fraction = Fraction(0)
    last_time: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True)
class _Job:
    profile: Profile
    rate: Fraction
    """Of the stored file, frames per second."""
    seen: _Seen


def _open(file: io.BufferedReader) -> InputContainer:
    options = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file", "enable_drefs": "0"}
    try:
        return av.open(file, "r", options=options, metadata_errors="ignore")
    except (FFmpegError, ValueError, OSError) as error:
        # Only what it says: a path in the detail would make the same source give different rows.
        raise Dropped("not_a_video", getattr(error, "strerror", None) or type(error).__name__) from error


def _video_stream(container: InputContainer) -> VideoStream:
    for stream in container.streams.video:
        if _ATTACHED_PICTURE not in str(stream.disposition) and stream.codec_context is not None:
            return stream
    raise Dropped("no_video_stream", f"{len(container.streams)} streams, none of them video")


def _check_size(container: InputContainer, stream: VideoStream, profile: Profile) -> None:
    seconds = (container.duration or 0) / av.time_base
    if seconds > profile.max_seconds:
        raise Dropped("too_long", f"{seconds:.0f} s by its header, at most {profile.max_seconds:.0f}")
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > profile.max_pixels:
        raise Dropped("too_many_pixels", f"{width} x {height}")


def _frame_rate(stream: VideoStream) -> Fraction:
    """Frames per second as the file says, or 25 where it says nothing or nonsense."""
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate is not None and Fraction(1) <= rate <= Fraction(1000):
            return Fraction(rate)
    return Fraction(25)


def _storable(rate: Fraction) -> Fraction:
    """The nearest rate that the stored file can tell; a phone's average may be 600000/23023."""
    return 1 / (1 / rate).limit_denominator(_MAX_TIME_BASE_DENOMINATOR)


def _decode(
    container: InputContainer, stream: VideoStream, profile: Profile, seen: _Seen
) -> Iterator[tuple[Fraction, VideoFrame]]:
    """Frames with their times in seconds; corrupt packets are skipped and counted, what was decoded is kept."""
    stream.codec_context.thread_count = 1  # one worker per core: frame threads would only fight
    period = 1 / _frame_rate(stream)
    for frame in _tolerant(container, stream, seen):
        if frame.width * frame.height > profile.max_pixels:
            raise Dropped("too_many_pixels", f"{frame.width} x {frame.height} in frame {seen.frames}")
        time = frame.pts * frame.time_base if frame.pts is not None and frame.time_base else seen.last_time + period
        if seen.frames == 0:
            seen.first_time, seen.rotation = time, round(frame.rotation) % 360
        if time - seen.first_time > profile.max_seconds:
            raise Dropped("too_long", f"more than {profile.max_seconds:.0f} s of frames")
        seen.frames += 1
        seen.last_time = max(seen.last_time, time)
        yield time - seen.first_time, frame
    if seen.frames == 0:
        raise Dropped("decode_failed", f"no frame decoded, {seen.errors} errors")


def _tolerant(container: InputContainer, stream: VideoStream, seen: _Seen) -> Iterator[VideoFrame]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except FFmpegError:  # the container breaks off here: keep what came before
            seen.errors += 1
            return
        try:
            frames = packet.decode()
        except FFmpegError:
            seen.errors += 1
            continue
        yield from (frame for frame in frames if isinstance(frame, VideoFrame))


def _constant_rate(frames: Iterator[tuple[Fraction, VideoFrame]], rate: Fraction) -> Iterator[VideoFrame]:
    """Each tick of the output clock gets the frame nearest before it: repeats fill gaps, surplus frames go."""
    tick, held = 0, None
    for time, frame in frames:
        due = round(time * rate)
        while held is not None and tick < due:
            yield held
            tick += 1
        held = frame
    if held is not None:
        yield held


@dataclass(frozen=True, slots=True)
class _Picture:
    """What every stored frame of one file looks like."""

    width: int
    height: int
    rotation: int
    """Degrees anticlockwise still to be applied."""

    @property
    def upright(self) -> tuple[int, int]:
        return (self.height, self.width) if self.rotation in (90, 270) else (self.width, self.height)


def _picture(frame: VideoFrame, stream: VideoStream, short_side: int, rotation: int) -> _Picture:
    """Square pixels, the short side as asked, both sides even, for chroma has half of each."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    width = frame.width * (aspect if Fraction(1, 4) < aspect < 4 else 1)
    scale = Fraction(short_side) / min(width, frame.height)
    return _Picture(max(2, round(width * scale / 2) * 2), max(2, round(frame.height * scale / 2) * 2), rotation)


def _encode(frames: Iterator[VideoFrame], stream: VideoStream, target: Path, job: _Job) -> dict[str, Any]:
    first = next(frames)  # _decode has dropped a video without any
    picture = _picture(first, stream, job.profile.short_side, job.seen.rotation)
    scaler = VideoReformatter()
    count = 0
    try:
        with av.open(str(target), "w", format="mp4", options={"fflags": "+bitexact"}) as output:
            encoder = _encoder(output, job, picture.upright)
            for frame in chain([first], frames):
                small = _scale(scaler, frame, picture)
                small.pts, small.time_base = count, 1 / job.rate
                output.mux(encoder.encode(small))
                count += 1
            output.mux(encoder.encode(None))
    except FFmpegError as error:
        if error.errno == errno.ENOSPC:  # the machine's trouble, not the video's
            raise
        raise Dropped("encode_failed", error.strerror or type(error).__name__) from error
    width, height = picture.upright
    return {"width": width, "height": height, "fps": round(float(job.rate), 6), "num_frames": count}


def _encoder(output: OutputContainer, job: _Job, size: tuple[int, int]) -> VideoStream:
    quantiser = str(job.profile.quantiser)
    stream = output.add_stream("mpeg4", rate=job.rate, options={"qmin": quantiser, "qmax": quantiser})
    context = stream.codec_context
    context.width, context.height, context.pix_fmt = *size, "yuv420p"
    context.gop_size, context.max_b_frames, context.thread_count = job.profile.gop, 0, 1
    context.time_base = 1 / job.rate
    context.flags |= Flags.bitexact
    return stream


def _scale(scaler: VideoReformatter, frame: VideoFrame, picture: _Picture) -> VideoFrame:
    small = scaler.reformat(
        frame,
        picture.width,
        picture.height,
        format="yuv420p",
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.MPEG,
        interpolation=Interpolation.BILINEAR,
    )
    return _rotate(small, picture.rotation) if picture.rotation else small


def _rotate(frame: VideoFrame, degrees: int) -> VideoFrame:
    """Turn the picture anticlockwise, as `VideoFrame.rotation` counts."""
    planes = [
        np.frombuffer(bytes(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in frame.planes
    ]
    turned = [np.ascontiguousarray(np.rot90(plane, degrees // 90)) for plane in planes]
    height, width = turned[0].shape
    result = VideoFrame(width, height, "yuv420p")
    for plane, pixels in zip(result.planes, turned, strict=True):
        padded = np.zeros((plane.height, plane.line_size), np.uint8)
        padded[:, : plane.width] = pixels
        plane.update(padded.tobytes())
    return result
