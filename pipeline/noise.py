"""Synthetic label noise for robustness experiments (paper, section 4.3 and B.2); training labels only.

The paper's "asymmetric" noise is, in its released lists, uniform noise in exact numbers per class; it is called
`stratified_uniform` here. Every draw is keyed by (seed, class) or (seed, video id): the result does not depend on the
order of the videos or on who computes it.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from pipeline.errors import UserError

NoiseKind = Literal["stratified_uniform", "paper_asymmetric", "uniform_iid", "uniform_inclusive", "pair_flip"]
"""stratified_uniform  ceil(rate * n) videos of every class of n get a label uniform over the other classes
paper_asymmetric    another name for it
uniform_iid         each video, with probability rate, gets a label uniform over the other classes
uniform_inclusive   the same over all classes, so that some keep theirs
pair_flip           each video, with probability rate, gets the next class, the last one the first"""

Labels = Mapping[str, int]
"""Video id -> 0-based class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NoiseReport:
    """What a noise did: requested and realised."""

    kind: str
    rate: float
    """As requested."""
    seed: int
    videos: int
    flipped: int
    """Videos whose label differs from the clean one."""
    flipped_by_class: tuple[int, ...]
    """By the clean class."""
    emptied_classes: int
    """Classes none of whose videos kept its label."""

    @property
    def realised_rate(self) -> float:
        """Share of the labels that differ."""
        return self.flipped / self.videos


def _rng(*key: object) -> np.random.Generator:
    digest = hashlib.sha256(repr(key).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def _other(label: int, num_classes: int, rng: np.random.Generator) -> int:
    """A class uniform over all but `label`."""
    drawn = int(rng.integers(num_classes - 1))
    return drawn + (drawn >= label)


def _stratified(labels: Labels, *, rate: float, num_classes: int, seed: int, nested: bool) -> dict[str, int]:
    members: dict[int, list[str]] = {}
    for video in sorted(labels):
        members.setdefault(labels[video], []).append(video)
    noisy = dict(labels)
    for label, videos in members.items():
        # Without the rate in the key, a higher rate flips the same videos to the same labels, and some more.
        rng = _rng("stratified_uniform", seed, label, None if nested else rate)
        order = rng.permutation(len(videos))
        targets = [_other(label, num_classes, rng) for _ in videos]
        count = math.ceil(rate * len(videos) - 1e-9)  # 0.1 * 30 is 3.0000000000000004
        for position in order[:count]:
            noisy[videos[position]] = targets[position]
    return noisy


def _iid(labels: Labels, kind: str, rate: float, seed: int, draw: Callable[[int, np.random.Generator], int]) -> Labels:
    """Each video on its own; draws do not depend on the rate, so a higher rate flips the same videos and some more."""
    noisy = dict(labels)
    for video, label in labels.items():
        rng = _rng(kind, seed, video)
        if rng.random() < rate:
            noisy[video] = draw(label, rng)
    return noisy


def add_noise(
    labels: Labels, *, kind: NoiseKind, rate: float, num_classes: int, seed: int, nested: bool = False
) -> tuple[dict[str, int], NoiseReport]:
    """Noisy labels, in the order of `labels`, and what was done.

    With `nested`, the flips of a lower rate are among those of a higher one, also for stratified_uniform; the released
    lists are not nested.

    Raises:
        UserError: the rate is not in [0, 1], there is but one class, or a label is not one of the classes.
    """
    if not 0 <= rate <= 1:
        raise UserError(f"noise rate {rate} is not a share: use 0 to 1, such as 0.4")
    if num_classes < 2:
        raise UserError(f"label noise needs another class to flip to, and there is {num_classes}")
    wrong = [video for video, label in labels.items() if not 0 <= label < num_classes]
    if wrong:
        raise UserError(f"label {labels[wrong[0]]} of {wrong[0]} is not one of the classes 0 to {num_classes - 1}")
    noisy: Labels
    if kind in ("stratified_uniform", "paper_asymmetric"):
        noisy = _stratified(labels, rate=rate, num_classes=num_classes, seed=seed, nested=nested)
    elif kind == "uniform_iid":
        noisy = _iid(labels, kind, rate, seed, lambda label, rng: _other(label, num_classes, rng))
    elif kind == "uniform_inclusive":
        noisy = _iid(labels, kind, rate, seed, lambda _, rng: int(rng.integers(num_classes)))
    elif kind == "pair_flip":
        noisy = _iid(labels, kind, rate, seed, lambda label, _: (label + 1) % num_classes)
    else:
        raise UserError(f"noise kind {kind!r} is not one of {', '.join(get_args(NoiseKind))}")
    report = measure_noise(labels, noisy, kind=kind, rate=rate, num_classes=num_classes, seed=seed)
    return dict(noisy), report


def measure_noise(
    clean: Labels, noisy: Labels, *, kind: str, rate: float, num_classes: int, seed: int = 0
) -> NoiseReport:
    """Compare noisy labels with clean ones.

    Raises:
        UserError: they are not labels of the same videos, or of none.
    """
    if clean.keys() != noisy.keys() or not clean:
        raise UserError(f"{len(clean)} clean and {len(noisy)} noisy labels are not of the same videos, one or more")
    flipped = Counter(label for video, label in clean.items() if noisy[video] != label)
    sizes = Counter(clean.values())
    return NoiseReport(
        kind=kind,
        rate=rate,
        seed=seed,
        videos=len(clean),
        flipped=flipped.total(),
        flipped_by_class=tuple(flipped[label] for label in range(num_classes)),
        emptied_classes=sum(flipped[label] == size for label, size in sizes.items()),
    )
