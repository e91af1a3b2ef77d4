"""Transcoding against its limit, decoding alone, and against ffmpeg with x264's defaults, as video2dataset runs it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import av
from av.video.reformatter import Interpolation

from jobs.benches.contest import Report, compete, score_rows
from jobs.benches.footage import files_in, footage
from jobs.benches.likeness import luma_ssim
from jobs.benches.peers import way_of_ffmpeg, x264_default
from pipeline.errors import Dropped, UserError
from pipeline.transcode import Profile, transcode


@dataclass(frozen=True, kw_only=True)
class Config:
    """On which videos, and for how long."""

    videos: Path | None = None
    """A folder of videos; without one, six rendered ones of 640 x 360."""
    seconds: float = 20.0
    """Begin no new round after these."""
    json: bool = False
    """End with the ratios as one line of JSON."""


@dataclass(frozen=True, slots=True)
class _Source:
    number: int
    path: Path
    facts: dict[str, Any]
    """What pipeline.transcode said of it."""


def measure(config: Config) -> Report:
    """Frames of the source per second of CPU time."""
    with TemporaryDirectory(prefix="noisyactions-bench-") as name:
        folder = Path(name)
        sources, dropped = _usable(files_in(footage(config.videos)), folder)
        frames = sum(source.facts["source_frames"] for source in sources)
        contenders = {
            "decode only: the limit": _over(sources, frames, lambda s: decode(s.path)),
            "ours": _over(sources, frames, lambda s: transcode(s.path, _ours(folder, s), Profile())),
            way_of_ffmpeg(): _over(sources, frames, lambda s: x264_default(s.path, _theirs(folder, s))),
        }
        scores = compete(contenders, seconds=config.seconds)
        limit, ours, theirs = (score.rate() for score in scores.values())
        likeness, compared = _likeness(sources, folder)
        ratios = {
            "share_of_decode_only": ours / limit,
            "times_ffmpeg_default": ours / theirs,
            "ssim": likeness[0],
            "ssim_ffmpeg_default": likeness[1],
            "bytes_per_frame": _bytes_per_frame([_ours(folder, s) for s in sources]),
            "bytes_per_frame_ffmpeg_default": _bytes_per_frame([_theirs(folder, s) for s in sources]),
        }
    rows = score_rows(scores, limit="decode only: the limit")
    return Report(
        title=f"transcode: {len(sources)} videos, {frames:,} frames",
        columns=("way", "frames per CPU s", "rounds from-to", "of the limit", "SSIM", "bytes a frame"),
        rows=[(*row, *told) for row, told in zip(rows, _quality(ratios), strict=True)],
        ratios=ratios,
        limit="What is left after decoding is scaling and MPEG-4 encoding; the limit cannot be passed without skipping "
        "frames of the source.",
        notes=(*dropped, f"SSIM: luma of {compared} videos that kept all their frames, each against its own scaling"),
    )


def _quality(ratios: dict[str, float]) -> list[tuple[str, str]]:
    suffixes = ("", "_ffmpeg_default")
    return [("", "")] + [(f"{ratios[f'ssim{s}']:.3f}", f"{ratios[f'bytes_per_frame{s}']:.0f}") for s in suffixes]


def _usable(paths: list[Path], folder: Path) -> tuple[list[_Source], list[str]]:
    """Those that can be transcoded; of the others, a line why not."""
    sources, dropped = [], []
    for number, path in enumerate(paths):
        try:
            sources.append(_Source(number, path, transcode(path, folder / "tried.mp4", Profile())))
        except Dropped as drop:
            dropped.append(f"left out: {path.name}: {drop}")
    if not sources:
        raise UserError(f"no video can be transcoded: {'; '.join(dropped)}")
    return sources, dropped


def _over(sources: list[_Source], frames: int, work: Callable[[_Source], object]) -> Callable[[], float]:
    def once() -> float:
        for source in sources:
            work(source)
        return frames

    return once


def _ours(folder: Path, source: _Source) -> Path:
    return folder / f"ours-{source.number}.mp4"


def _theirs(folder: Path, source: _Source) -> Path:
    return folder / f"x264-{source.number}.mp4"


def decode(path: Path) -> int:
    """Decode every frame in one thread and look at none; returns how many."""
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return sum(1 for _ in container.decode(stream))


def _likeness(sources: list[_Source], folder: Path) -> tuple[tuple[float, float], int]:
    """Mean SSIM of ours and of x264's files, and over how many videos: those of which ours kept each frame in place."""
    whole = [s for s in sources if s.facts["num_frames"] == s.facts["source_frames"] and not s.facts["rotation"]]
    if not whole:
        raise UserError(
            "no video keeps its frames one by one, so none can be compared: give --videos of 30 fps or less"
        )
    ours, theirs = [], []
    for source in whole:
        bilinear, bicubic = Interpolation.BILINEAR, Interpolation.BICUBIC
        ours.append(luma_ssim(source.path, _ours(folder, source), interpolation=bilinear, as_601=True))
        theirs.append(luma_ssim(source.path, _theirs(folder, source), interpolation=bicubic, as_601=False))
    return (fmean(ours), fmean(theirs)), len(whole)


def _bytes_per_frame(stored: list[Path]) -> float:
    return sum(path.stat().st_size for path in stored) / sum(decode(path) for path in stored)
