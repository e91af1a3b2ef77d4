from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.corruption import corrupt, flip_bits, invert_segment
from pipeline.errors import UserError

VIDEOS = Path(__file__).parents[3] / "shared" / "videos"


def _flipped(before, after):
    return int(np.unpackbits(np.frombuffer(before, np.uint8) ^ np.frombuffer(after, np.uint8)).sum())


def test_random_flips_are_as_many_as_the_probability_says_and_everywhere():
    data = bytes(3_000_000)
    after = flip_bits(data, bit_prob=1e-4, video_id="v")
    assert len(after) == len(data)
    assert _flipped(data, after) == pytest.approx(2400, abs=5 * 2400**0.5)
    thirds = [_flipped(data[:1_000_000], after[start : start + 1_000_000]) for start in (0, 1_000_000, 2_000_000)]
    assert min(thirds) > 600


def test_every_bit_is_flipped_with_probability_one_and_none_with_zero():
    data = bytes(range(256)) * 10
    assert flip_bits(data, bit_prob=1, video_id="v") == bytes(255 - value for value in data)
    assert flip_bits(data, bit_prob=0, video_id="v") == data
    assert _flipped(data, flip_bits(data, bit_prob=0.5, video_id="v")) == pytest.approx(4 * len(data), rel=0.05)


@given(st.binary(max_size=300), st.floats(0, 1), st.text(max_size=5))
@settings(max_examples=60, deadline=None)
def test_one_segment_is_inverted_and_nothing_else(data, fraction, video_id):
    after = invert_segment(data, segment_fraction=fraction, video_id=video_id)
    changed = [place for place, (a, b) in enumerate(zip(data, after, strict=True)) if a != b]
    assert len(changed) == round(fraction * len(data))
    assert changed == list(range(changed[0], changed[-1] + 1)) if changed else data == after
    assert all(data[place] ^ after[place] == 255 for place in changed)


@pytest.mark.parametrize(("kind", "amount"), [("random", 0.01), ("contiguous", 0.3)])
def test_the_same_video_is_corrupted_the_same_way_and_another_is_not(kind, amount):
    data = bytes(20_000)
    first = corrupt(data, kind=kind, amount=amount, video_id="a", seed=3)
    assert corrupt(data, kind=kind, amount=amount, video_id="a", seed=3) == first
    assert corrupt(data, kind=kind, amount=amount, video_id="b", seed=3) != first
    assert corrupt(data, kind=kind, amount=amount, video_id="a", seed=4) != first


def test_mistakes_are_told():
    with pytest.raises(UserError, match="bit_prob 2 is out of range"):
        flip_bits(b"x", bit_prob=2, video_id="v")
    with pytest.raises(UserError, match=r"segment_fraction -0.1 is out of range"):
        invert_segment(b"x", segment_fraction=-0.1, video_id="v")
    with pytest.raises(UserError, match="corruption kind 'burst'"):
        corrupt(b"x", kind="burst", amount=0.1, video_id="v")


@pytest.mark.skipif(not VIDEOS.is_dir(), reason="needs the videos in ../shared/videos")
def test_a_real_video_changes_in_the_paper_s_amounts():
    data = (VIDEOS / "basketball_320x240_mpeg4.avi").read_bytes()
    expected = 8 * len(data) * 1e-4
    assert _flipped(data, corrupt(data, kind="random", amount=1e-4, video_id="v")) == pytest.approx(expected, rel=0.5)
    assert _flipped(data, corrupt(data, kind="contiguous", amount=0.75, video_id="v")) == 8 * round(0.75 * len(data))
