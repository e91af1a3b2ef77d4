"""How like its source a stored video is: SSIM of luma (Wang et al. 2004), against the source scaled to its size."""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

_WINDOW = 8
_STEADY = ((0.01 * 255) ** 2, (0.03 * 255) ** 2)
_EVERY = 10  # frames of a video are much alike

Luma = npt.NDArray[np.float64]


def ssim(one: Luma, other: Luma) -> float:
    """Mean SSIM of two planes (H, W) of 0 to 255, over all uniform windows of 8 x 8 pixels."""
    mean_one, mean_other = _window_means(one), _window_means(other)
    variance_one = _window_means(one * one) - mean_one**2
    variance_other = _window_means(other * other) - mean_other**2
    covariance = _window_means(one * other) - mean_one * mean_other
    light = (2 * mean_one * mean_other + _STEADY[0]) / (mean_one**2 + mean_other**2 + _STEADY[0])
    structure = (2 * covariance + _STEADY[1]) / (variance_one + variance_other + _STEADY[1])
    return float(np.mean(light * structure))


def _window_means(plane: Luma) -> Luma:
    sums = np.pad(plane.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    n = _WINDOW
    means: Luma = (sums[n:, n:] - sums[:-n, n:] - sums[n:, :-n] + sums[:-n, :-n]) / n**2
    return means


def luma_ssim(source: Path, stored: Path, *, interpolation: Interpolation, as_601: bool) -> float:
    """Mean SSIM of every tenth frame; both files must have the same frames, upright.

    The source is scaled as the stored one was, so that what is measured is the loss in coding. `as_601` converts it
    to limited range BT.601 too, as our clip files are.
    """
    scaler, values = VideoReformatter(), []
    with av.open(str(source), metadata_errors="ignore") as whole, av.open(str(stored)) as small:
        pairs = zip(whole.decode(video=0), small.decode(video=0), strict=False)
        for number, (large, frame) in enumerate(pairs):
            if number % _EVERY == 0:
                reference = _scaled(scaler, large, frame, interpolation, as_601=as_601)
                values.append(ssim(_luma(reference), _luma(frame)))
    return fmean(values)


def _scaled(
    scaler: VideoReformatter, frame: VideoFrame, like: VideoFrame, interpolation: Interpolation, *, as_601: bool
) -> VideoFrame:
    if not as_601:
        return scaler.reformat(frame, like.width, like.height, format="yuv420p", interpolation=interpolation)
    return scaler.reformat(
        frame,
        like.width,
        like.height,
        format="yuv420p",
        dst_colorspace=Colorspace.ITU601,
        dst_color_range=ColorRange.MPEG,
        interpolation=interpolation,
    )


def _luma(frame: VideoFrame) -> Luma:
    plane: Any = frame.planes[0]
    pixels = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]
    luma: Luma = pixels.astype(np.float64)
    return luma
