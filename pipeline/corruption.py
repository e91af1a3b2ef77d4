"""Bit errors in video files for robustness experiments (paper, section 4.3 and B.2).

Errors hit the whole file, headers included. They are drawn from (seed, kind, parameter, video id), so that every worker
makes the same corrupted file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Literal

import numpy as np

from pipeline.errors import UserError

CorruptionKind = Literal["random", "contiguous"]

_CHUNK_BYTES = 1 << 20


def _rng(seed: int, kind: str, parameter: float, video_id: str) -> np.random.Generator:
    digest = hashlib.sha256(repr((seed, kind, float(parameter), video_id)).encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest[:16], "little")))


def _check(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise UserError(f"{name} {value} is out of range: use 0 to 1")


def flip_bits(data: bytes, *, bit_prob: float, video_id: str, seed: int = 0) -> bytes:
    """Every bit flipped on its own with probability `bit_prob` (the paper's "random" corruption; its p is 1e-4).

    Raises:
        UserError: `bit_prob` is not in [0, 1].
    """
    _check("bit_prob", bit_prob)
    rng = _rng(seed, "random", bit_prob, video_id)
    return b"".join(_flip_chunk(chunk, bit_prob, rng) for chunk in _chunks(data))


def _chunks(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _CHUNK_BYTES):
        yield data[start : start + _CHUNK_BYTES]


def _flip_chunk(chunk: bytes, bit_prob: float, rng: np.random.Generator) -> bytes:
    """As many flips as n coins give, at distinct places: the same law as n coins, at the cost of the flips alone."""
    num_bits = 8 * len(chunk)
    places = rng.choice(num_bits, size=rng.binomial(num_bits, bit_prob), replace=False, shuffle=False)
    values = np.frombuffer(chunk, dtype=np.uint8).copy()
    np.bitwise_xor.at(values, places >> 3, np.left_shift(1, places & 7).astype(np.uint8))
    return values.tobytes()


def invert_segment(data: bytes, *, segment_fraction: float, video_id: str, seed: int = 0) -> bytes:
    """All bits of one segment inverted: `segment_fraction` of the bytes, anywhere (the paper's "contiguous"; 0.75).

    Raises:
        UserError: `segment_fraction` is not in [0, 1].
    """
    _check("segment_fraction", segment_fraction)
    length = round(segment_fraction * len(data))
    start = int(_rng(seed, "contiguous", segment_fraction, video_id).integers(len(data) - length + 1))
    values = np.frombuffer(data, dtype=np.uint8).copy()
    values[start : start + length] ^= 0xFF
    return values.tobytes()


def corrupt(data: bytes, *, kind: CorruptionKind, amount: float, video_id: str, seed: int = 0) -> bytes:
    """The corrupted file; `amount` is a bit's probability for `random`, the segment's share for `contiguous`.

    Raises:
        UserError: the kind is unknown or the amount is not in [0, 1].
    """
    if kind == "random":
        return flip_bits(data, bit_prob=amount, video_id=video_id, seed=seed)
    if kind == "contiguous":
        return invert_segment(data, segment_fraction=amount, video_id=video_id, seed=seed)
    raise UserError(f"corruption kind {kind!r}: use 'random' or 'contiguous'")
