from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import interpolate

from pipeline.crops import CentreCrop, MultiScaleCrop, RandomCrop, crop_planes
from pipeline.errors import UserError


@given(st.integers(32, 300), st.integers(32, 300), st.integers(0, 1000), st.sampled_from([0, 1, 2]))
def test_boxes_are_even_and_inside(height: int, width: int, seed: int, which: int) -> None:
    crop = (MultiScaleCrop(), RandomCrop(), CentreCrop())[which]
    box = crop.box(height=height // 2 * 2, width=width // 2 * 2, rng=np.random.default_rng(seed))
    assert box.top % 2 == box.left % 2 == box.side % 2 == 0
    assert 0 <= box.top <= height // 2 * 2 - box.side
    assert 0 <= box.left <= width // 2 * 2 - box.side
    assert box.side > 0


def test_multi_scale_sides_are_those_of_the_authors() -> None:
    boxes = [MultiScaleCrop().box(height=136, width=180, rng=np.random.default_rng(seed)) for seed in range(1000)]
    # int(136 s) is 136 114 96 80 68: all even but for rounding
    sides = Counter(box.side for box in boxes)
    assert set(sides) == {136, 114, 96, 80, 68}
    assert all(140 < count < 260 for count in sides.values())
    assert {box.top for box in boxes if box.side == 136} == {0}
    assert max(box.left for box in boxes if box.side == 68) > 100


def test_centre_and_random_crops_are_cut_from_the_resized_frame() -> None:
    rng = np.random.default_rng(0)
    centre = CentreCrop(size=112, short_side=128).box(height=128, width=170, rng=rng)
    assert (centre.side, centre.top, centre.left) == (112, 8, 28)
    assert RandomCrop(size=112, short_side=128).box(height=256, width=340, rng=rng).side == 224


def test_a_crop_of_the_output_size_is_the_pixels_themselves() -> None:
    rng = np.random.default_rng(0)
    luma = rng.integers(0, 256, (16, 128, 170), np.uint8)
    chroma = rng.integers(0, 256, (16, 2, 64, 85), np.uint8)
    box = CentreCrop(size=112, short_side=128).box(height=128, width=170, rng=rng)
    large, small = crop_planes(luma, chroma, box=box, size=112)
    np.testing.assert_array_equal(large, luma[:, 8:120, 28:140])
    np.testing.assert_array_equal(small, chroma[:, :, 4:60, 14:70])


@pytest.mark.parametrize("time", [16, 5, 1])
def test_resizing_is_bilinear_with_antialiasing(time: int) -> None:
    rng = np.random.default_rng(0)
    luma = rng.integers(0, 256, (time, 96, 130), np.uint8)
    chroma = rng.integers(0, 256, (time, 2, 48, 65), np.uint8)
    box = MultiScaleCrop(scales=(0.8409,)).box(height=96, width=130, rng=rng)
    large, small = crop_planes(luma, chroma, box=box, size=56)
    assert (large.shape, small.shape) == ((time, 56, 56), (time, 2, 28, 28))
    assert large.dtype == small.dtype == np.uint8
    rows, columns = slice(box.top, box.top + box.side), slice(box.left, box.left + box.side)
    exact = interpolate(
        torch.from_numpy(luma[:, None, rows, columns]).float(), size=(56, 56), mode="bilinear", antialias=True
    )
    assert np.abs(large - exact[:, 0].numpy()).max() < 1.01  # uint8 weights are rounded
    half = slice(rows.start // 2, rows.stop // 2), slice(columns.start // 2, columns.stop // 2)
    exact = interpolate(torch.from_numpy(chroma[:, :, *half]).float(), size=(28, 28), mode="bilinear", antialias=True)
    assert np.abs(small - exact.numpy()).max() < 1.01


@pytest.mark.parametrize(("make", "text"), [
    (lambda: MultiScaleCrop(size=111), "size 111 must be an even number of pixels"),
    (lambda: MultiScaleCrop(scales=(1.2,)), "scales .1.2,. must be one or more fractions"),
    (lambda: MultiScaleCrop(scales=()), "must be one or more fractions"),
    (lambda: CentreCrop(size=112, short_side=100), "short_side 100 must be at least size 112"),
    (lambda: RandomCrop(size=0), "size 0 must be an even number"),
])  # fmt: skip
def test_bad_settings_are_refused(make: Callable[[], object], text: str) -> None:
    with pytest.raises(UserError, match=text):
        make()
