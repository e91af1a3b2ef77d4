"""Decoding just the wanted frames of an MP4 in memory, as YUV 4:2:0 planes without a colour conversion.

A wanted frame costs the packets from the key frame at or before it; with key frames a few frames apart that is little
more than its own. Frame numbers count from 0 in the order of presentation.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from av.video.stream import VideoStream

from pipeline.errors import Dropped

Plane = npt.NDArray[np.uint8]

_MAX_PIXELS = 1 << 24  # of a frame; a broken header may claim far more
# What PyAV raises on broken bytes: FFmpeg's errors and, from text and sizes in broken headers, some of Python's own.
_BROKEN = (av.error.FFmpegError, EOFError, UnicodeDecodeError, MemoryError, OverflowError)
_IN_ORDER = ("mpeg4", "mjpeg")  # codecs whose header says for certain that there are no B-frames
_LIMITED_601 = (int(Colorspace.ITU601), 2, 6)  # as tagged; 2 is unspecified, 6 is SMPTE 170M with the same matrix


@dataclass(frozen=True, kw_only=True, slots=True)
class Planes:
    """Frames as they lie in the file: limited range BT.601, even sizes."""

    luma: Plane
    """(T, H, W) uint8."""
    chroma: Plane
    """(T, 2, H/2, W/2) uint8: blue then red difference."""
    num_missing: int = 0
    """Distinct wanted frames that could not be decoded; the nearest decoded one before (else after) stands in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Packets:
    """The packets of a video in the order in which they are decoded."""

    fetch: Callable[[int], Any]
    key: Sequence[bool]
    rank: Sequence[int]
    """Frame number of each packet: its place in the order of presentation."""

    def begin(self, packet: int) -> int:
        """The key packet from which to decode, to have that packet's frame."""
        # A frame that is stored after a key frame but shown before it may need the group before.
        key = packet
        while key > 0 and not (self.key[key] and self.rank[key] <= self.rank[packet]):
            key -= 1
        return key


def decode_frames(data: bytes, frames: npt.NDArray[np.int64]) -> Planes:
    """Planes of the frames (T,), in the order asked for, some perhaps more than once.

    Raises:
        Dropped: `decode_failed`, where not one of them can be decoded; `no_video_stream`.
    """
    wanted = set(frames.tolist())
    try:
        with av.open(io.BytesIO(data), mode="r", format="mp4", metadata_errors="ignore") as file:
            if not file.streams.video:
                raise Dropped("no_video_stream")
            stream = file.streams.video[0]
            context = _prepare(stream.codec_context)
            decoded = _decode(context, packets=_packets(file, stream, data), wanted=wanted)
    except _BROKEN as error:
        raise Dropped("decode_failed", f"{type(error).__name__}: {error}") from error
    if not decoded:
        raise Dropped("decode_failed", f"none of {len(wanted)} frames could be decoded")
    return _stack(decoded, frames.tolist())


def _prepare(context: VideoCodecContext | None) -> VideoCodecContext:
    if context is None:
        raise Dropped("decode_failed", "its codec is unknown")
    if context.width * context.height > _MAX_PIXELS:
        raise Dropped("decode_failed", f"frames of {context.width}x{context.height} pixels")
    context.thread_count = 1  # loaders run many decoders side by side
    context.options = {"max_pixels": str(_MAX_PIXELS)}
    return context


def _packets(file: InputContainer, stream: VideoStream, data: bytes) -> _Packets:
    context = stream.codec_context
    if context.name in _IN_ORDER and not context.has_b_frames:
        # The container's index says it all; to read the packets one by one would cost as much as to decode the few.
        entries = [entry for entry in stream.index_entries if not entry.is_discard]
        places = [slice(entry.pos, entry.pos + entry.size) for entry in entries]
        keys = [entry.is_keyframe for entry in entries]
        return _Packets(fetch=lambda i: _cut(data[places[i]]), key=keys, rank=range(len(entries)))
    packets = list(_demux(file, stream))
    times = [packet.dts if packet.pts is None else packet.pts for packet in packets]
    known = [i if time is None else time for i, time in enumerate(times)]
    ranks = np.empty(len(packets), np.int64)
    ranks[np.argsort(known, kind="stable")] = np.arange(len(packets))
    return _Packets(fetch=packets.__getitem__, key=[p.is_keyframe for p in packets], rank=ranks.tolist())


def _cut(data: bytes) -> av.Packet[Any]:
    # Filled, not wrapped: decoders read past the end, and only a packet that FFmpeg allocates has zeros there.
    packet: av.Packet[Any] = av.Packet(len(data))
    packet.update(data)
    return packet


def _demux(file: InputContainer, stream: VideoStream) -> Iterator[Any]:
    try:
        for packet in file.demux(stream):
            if packet.size:
                yield packet
    except _BROKEN:
        return  # a truncated file: the packets before that are good


def _decode(context: VideoCodecContext, *, packets: _Packets, wanted: set[int]) -> dict[int, VideoFrame]:
    """The wanted frames by number, as far as they can be decoded."""
    found: dict[int, VideoFrame] = {}
    position: int | None = None  # the packet that the decoder expects next
    for target in (i for i, rank in enumerate(packets.rank) if rank in wanted):
        begin = packets.begin(target)
        if position is not None and begin > position:
            _take(context, None, wanted, found)
            context.flush_buffers()
        if position is None or begin > position:
            position = begin
        for number in range(position, target + 1):
            packet = packets.fetch(number)
            if packet.size:  # a truncated file's index names packets that it has not; an empty one would end decoding
                packet.pts = packets.rank[number]  # comes out again with the frame, whatever the decoder's delay
                packet.dts = number
                _take(context, packet, wanted, found)
        position = target + 1
    _take(context, None, wanted, found)
    return found


def _take(context: VideoCodecContext, packet: Any, wanted: set[int], found: dict[int, VideoFrame]) -> None:
    """Decode one packet, or with None what the decoder still holds; a packet it cannot decode yields nothing."""
    try:
        frames = context.decode(packet)
    except _BROKEN:
        return
    found |= {frame.pts: frame for frame in frames if frame.pts in wanted}


def _stack(decoded: dict[int, VideoFrame], frames: list[int]) -> Planes:
    reformatter = VideoReformatter()
    usable = {number: _to_yuv420(frame, reformatter) for number, frame in sorted(decoded.items())}
    first = next(iter(usable.values()))
    height, width = first.height // 2 * 2, first.width // 2 * 2
    usable = {
        number: frame for number, frame in usable.items() if (frame.height, frame.width) == (first.height, first.width)
    }
    luma = np.empty((len(frames), height, width), np.uint8)
    chroma = np.empty((len(frames), 2, height // 2, width // 2), np.uint8)
    numbers = np.array(sorted(usable))
    for place, number in enumerate(frames):
        stand_in = int(numbers[max(int(np.searchsorted(numbers, number, side="right")) - 1, 0)])
        planes = usable[stand_in].planes
        luma[place] = _view(planes[0])[:height, :width]
        chroma[place, 0] = _view(planes[1])[: height // 2, : width // 2]
        chroma[place, 1] = _view(planes[2])[: height // 2, : width // 2]
    return Planes(luma=luma, chroma=chroma, num_missing=len(set(frames) - set(usable)))


def _view(plane: Any) -> Plane:
    """A plane's memory as (rows, line size), padding included."""
    return np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)


def _to_yuv420(frame: VideoFrame, reformatter: VideoReformatter) -> VideoFrame:
    """The frame itself if it is stored as we store them, else converted."""
    full = frame.color_range == ColorRange.JPEG or frame.format.name.startswith("yuvj")
    if frame.format.name == "yuv420p" and not full and frame.colorspace in _LIMITED_601:
        return frame
    return reformatter.reformat(
        frame,
        format="yuv420p",
        dst_colorspace=Colorspace.ITU601,
        src_color_range=ColorRange.JPEG if full else ColorRange.MPEG,
        dst_color_range=ColorRange.MPEG,
        threads=1,
    )
