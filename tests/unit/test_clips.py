from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.clips import REMOTE, RandomSkips, Uniform, VcpTuples, Windows, loop, random_skip, uniform, windows
from pipeline.errors import UserError

lengths = st.integers(1, 400)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(lengths, st.integers(0, 10_000), st.sampled_from(["ours", "paper-code"]))
def test_random_skips_stay_inside_with_one_stride(num_frames, seed, rule) -> None:
    frames = RandomSkips(rule=rule).pick(num_frames, rng=rng(seed)).frames
    assert frames.shape == (1, 16)
    assert frames.min() >= 0
    assert frames.max() < num_frames
    if num_frames >= 16:
        (stride,) = set(np.diff(frames[0]))
        assert 1 <= stride <= 5
        assert 16 * stride <= num_frames or stride == 1


def test_strides_are_uniform_and_starts_reach_both_ends() -> None:
    drawn = [random_skip(100, clip_len=16, max_stride=5, rng=rng(seed)) for seed in range(3000)]
    strides = Counter(int(frames[1] - frames[0]) for frames in drawn)
    assert set(strides) == {1, 2, 3, 4, 5}
    assert all(500 < count < 700 for count in strides.values())
    assert (min(f[0] for f in drawn), max(f[-1] for f in drawn)) == (0, 99)


def test_the_authors_starts_never_reach_the_last_frames() -> None:
    drawn = [random_skip(40, clip_len=16, max_stride=1, rng=rng(seed), rule="paper-code") for seed in range(500)]
    # start ~ U{0..n - 16 s - 1}: of 40 frames, 0..23, so the last frame seen is 38
    assert {int(frames[0]) for frames in drawn} == set(range(24))
    ours = [random_skip(40, clip_len=16, max_stride=1, rng=rng(seed)) for seed in range(500)]
    assert {int(frames[0]) for frames in ours} == set(range(25))


def test_a_short_video_is_looped() -> None:
    assert loop(np.arange(5), num_frames=3).tolist() == [0, 1, 2, 0, 1]
    assert windows(3, clip_len=5).tolist() == [[0, 1, 2, 0, 1]]
    assert random_skip(3, clip_len=5, max_stride=5, rng=rng()).tolist() == [0, 1, 2, 0, 1]
    assert uniform(1, clip_len=2, num_clips=2).tolist() == [[0, 0], [0, 0]]


@given(lengths)
def test_windows_are_all_that_fit(num_frames: int) -> None:
    frames = windows(num_frames, clip_len=16)
    assert len(frames) == max(num_frames // 16, 1)
    if num_frames >= 16:
        assert frames.reshape(-1).tolist() == list(range(num_frames // 16 * 16))


def test_the_authors_windows_need_two_frames_more() -> None:
    counts = [len(windows(n, clip_len=16, rule="paper-code")) for n in (18, 33, 34, 50)]
    assert counts == [(n - 18) // 16 + 1 for n in (18, 33, 34, 50)]
    assert len(windows(32, clip_len=16)) == 2


def test_uniform_clips_are_those_of_the_pcl_test() -> None:
    frames = uniform(100, clip_len=16, num_clips=10)
    expected = np.linspace(8, 100 - 8, 10).astype(int) - 8
    assert frames[:, 0].tolist() == expected.tolist()
    assert frames[-1].tolist() == list(range(84, 100))
    assert Uniform(num_clips=3).clips(64).shape == (3, 16)
    assert Windows().clips(64).shape == (4, 16)


def test_a_tuple_is_three_clips_in_a_row() -> None:
    assert VcpTuples().min_frames == 64
    picked = VcpTuples().pick(64, rng=rng())
    assert picked.frames[:, 0].tolist() == [0, 24, 48]
    assert picked.frames[2].tolist() == list(range(48, 64))
    released = VcpTuples(clip_stride=11).pick(64, rng=rng())
    assert released.frames[:, 0].tolist() == [0, 11, 22]
    strided = VcpTuples(clip_len=4, interval=2, frame_stride=3)
    assert strided.min_frames == 48
    assert strided.pick(48, rng=rng()).frames.tolist() == [[0, 3, 6, 9], [18, 21, 24, 27], [36, 39, 42, 45]]


@given(st.integers(64, 500), st.integers(0, 10_000))
def test_a_remote_clip_is_a_clip_length_away(num_frames: int, seed: int) -> None:
    picked = VcpTuples().pick(num_frames, rng=rng(seed))
    first, middle, last = picked.frames
    assert picked.pretext in range(5)
    assert 0 <= picked.frames.min() <= picked.frames.max() < num_frames
    assert last[0] - first[0] == 48
    if picked.pretext == REMOTE:
        assert middle[-1] < first[0] - 16 + 1 or middle[0] >= last[-1] + 1 + 16
    else:
        assert middle[0] == first[0] + 24


def test_labels_are_uniform_where_there_is_room() -> None:
    room = Counter(VcpTuples().pick(2000, rng=rng(seed)).pretext for seed in range(2000))
    assert all(320 < room[label] < 460 for label in range(5))
    # 127 frames: no start leaves 32 before and 32 after a tuple of 64, so label 4 is always drawn again
    tight = Counter(VcpTuples().pick(127, rng=rng(seed)).pretext for seed in range(2000))
    assert set(tight) == {0, 1, 2, 3}
    assert all(420 < tight[label] < 580 for label in range(4))


def test_remote_clips_come_from_both_sides() -> None:
    picks = [VcpTuples().pick(400, rng=rng(seed)) for seed in range(600)]
    sides = Counter(bool(p.frames[1, 0] > p.frames[0, 0]) for p in picks if p.pretext == REMOTE)
    assert min(sides[True], sides[False]) > 25


@pytest.mark.parametrize(("make", "text"), [
    (lambda: RandomSkips(max_stride=0), "max_stride 0 must be at least 1"),
    (lambda: Windows(clip_len=0), "clip_len 0 must be at least 1"),
    (lambda: Uniform(num_clips=0), "num_clips 0 must be at least 1"),
    (lambda: VcpTuples(interval=-1), "interval -1 must be at least 0"),
    (lambda: VcpTuples(clip_stride=30), "clip_stride 30 must be 1 to 24"),
])  # fmt: skip
def test_bad_settings_are_refused(make: Callable[[], object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        make()
