"""Which frames of a video make its clips. All draws come from the generator that is passed in.

The authors' released code draws starts and windows slightly differently from what it means; `rule="paper-code"`
reproduces that (NoisyActions2M dataset classes; facts in the methods notes, section 7.3).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.errors import UserError

Frames = npt.NDArray[np.int64]
Rule = Literal["ours", "paper-code"]

NUM_VCP_LABELS = 5
REMOTE = 4
"""The VCP label of a tuple whose middle clip is from elsewhere in the video."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picked:
    """Frames of the clips of one sample, and the pretext label that they were picked for."""

    frames: Frames
    """(K, T) frame numbers, from 0."""
    pretext: int | None = None


def loop(frames: Frames, *, num_frames: int) -> Frames:
    """Frames past the end wrapped around to the beginning: of 3 frames, [0 1 2 3 4] is [0 1 2 0 1]."""
    return frames % num_frames


def random_skip(
    num_frames: int, *, clip_len: int, max_stride: int, rng: np.random.Generator, rule: Rule = "ours"
) -> Frames:
    """(T,) frames with a random stride and start; the stride shrinks until the clip fits (paper, section 5)."""
    stride = int(rng.integers(1, max_stride + 1))
    while clip_len * stride > num_frames and stride > 1:
        stride -= 1
    # The authors keep a whole stride and one more frame free at the end, so the last frames are never seen.
    span = clip_len * stride + 1 if rule == "paper-code" else (clip_len - 1) * stride + 1
    start = int(rng.integers(0, max(num_frames - span, 0) + 1))
    return loop(start + stride * np.arange(clip_len), num_frames=num_frames)


def windows(num_frames: int, *, clip_len: int, rule: Rule = "ours") -> Frames:
    """(K, T) all non-overlapping windows of consecutive frames; a short video is one looped clip."""
    usable = num_frames - 2 if rule == "paper-code" else num_frames
    starts = np.arange(max(usable // clip_len, 1)) * clip_len
    return loop(starts[:, None] + np.arange(clip_len), num_frames=num_frames)


def uniform(num_frames: int, *, clip_len: int, num_clips: int) -> Frames:
    """(K, T) clips of consecutive frames, their starts evenly spread from the first to the last possible."""
    starts = np.linspace(0, max(num_frames - clip_len, 0), num_clips).astype(np.int64)
    return loop(starts[:, None] + np.arange(clip_len), num_frames=num_frames)


@dataclass(frozen=True, kw_only=True, slots=True)
class RandomSkips:
    """One clip with random skips: the sampling of pre-training; with `max_stride` 1, that of finetuning."""

    clip_len: int = 16
    max_stride: int = 5
    rule: Rule = "ours"

    def __post_init__(self) -> None:
        _check_positive(clip_len=self.clip_len, max_stride=self.max_stride)

    @property
    def min_frames(self) -> int:
        """Frames that a video must have; shorter clips are looped."""
        return 1

    def pick(self, num_frames: int, *, rng: np.random.Generator) -> Picked:
        """One clip, K = 1."""
        frames = random_skip(num_frames, clip_len=self.clip_len, max_stride=self.max_stride, rng=rng, rule=self.rule)
        return Picked(frames=frames[None])


@dataclass(frozen=True, kw_only=True, slots=True)
class VcpTuples:
    """Three clips in a row for video cloze procedure, as Pretext-Contrastive Learning samples them."""

    clip_len: int = 16
    interval: int = 8
    """Frames between two clips, before the frame stride."""
    clip_stride: int | None = None
    """From one clip's start to the next one's; None is `clip_len + interval`. PCL's released code has 11."""
    frame_stride: int = 1

    def __post_init__(self) -> None:
        _check_positive(clip_len=self.clip_len, frame_stride=self.frame_stride)
        if self.interval < 0:
            raise UserError(f"interval {self.interval} must be at least 0")
        if self.clip_stride is not None and not 0 < self.clip_stride <= self.clip_len + self.interval:
            raise UserError(
                f"clip_stride {self.clip_stride} must be 1 to {self.clip_len + self.interval}: clip_len + interval"
            )

    @property
    def min_frames(self) -> int:
        """Frames of the whole tuple; shorter videos cannot be used."""
        return (3 * self.clip_len + 2 * self.interval) * self.frame_stride

    def pick(self, num_frames: int, *, rng: np.random.Generator) -> Picked:
        """Three clips (the middle one remote where the label is 4) and a label ~ U{0..4}.

        Label 4 is drawn again from U{0..3} unless a clip fits both before and after the tuple, a clip's length away.
        """
        assert num_frames >= self.min_frames, "too short for a tuple: the loader checks"
        step = (self.clip_stride or self.clip_len + self.interval) * self.frame_stride
        start = int(rng.integers(0, num_frames - self.min_frames + 1))
        clip = self.frame_stride * np.arange(self.clip_len)
        starts = [start, start + step, start + 2 * step]
        label = int(rng.integers(NUM_VCP_LABELS))
        if label == REMOTE:
            remote = self._remote_start(start, num_frames=num_frames, rng=rng)
            if remote is None:
                label = int(rng.integers(REMOTE))
            else:
                starts[1] = remote
        return Picked(frames=np.stack([s + clip for s in starts]), pretext=label)

    def _remote_start(self, start: int, *, num_frames: int, rng: np.random.Generator) -> int | None:
        length = self.clip_len * self.frame_stride
        first_after = start + self.min_frames + length
        last_before, last_after = start - 2 * length, num_frames - length
        if last_before < 0 or first_after > last_after:
            return None
        if rng.integers(2):
            return int(rng.integers(first_after, last_after + 1))
        return int(rng.integers(0, last_before + 1))


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """For evaluation: every non-overlapping window of a video (paper, section 5)."""

    clip_len: int = 16
    rule: Rule = "ours"

    def __post_init__(self) -> None:
        _check_positive(clip_len=self.clip_len)

    def clips(self, num_frames: int) -> Frames:
        """(K, T) frames of all the clips of a video."""
        return windows(num_frames, clip_len=self.clip_len, rule=self.rule)


@dataclass(frozen=True, kw_only=True, slots=True)
class Uniform:
    """For evaluation: a fixed number of evenly spread clips of a video; 1 is its first clip."""

    clip_len: int = 16
    num_clips: int = 10

    def __post_init__(self) -> None:
        _check_positive(clip_len=self.clip_len, num_clips=self.num_clips)

    def clips(self, num_frames: int) -> Frames:
        """(K, T) frames of all the clips of a video."""
        return uniform(num_frames, clip_len=self.clip_len, num_clips=self.num_clips)


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise UserError(f"{name} {value} must be at least 1")


TrainSampler = RandomSkips | VcpTuples
EvalSampler = Windows | Uniform
