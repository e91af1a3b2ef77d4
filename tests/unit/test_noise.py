import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.noise import add_noise, measure_noise

UCF = Path(__file__).parents[3] / "shared" / "data" / "ucf101"
official = pytest.mark.skipif(not UCF.is_dir(), reason="needs the official lists in ../shared/data")
KINDS = ("stratified_uniform", "uniform_iid", "uniform_inclusive", "pair_flip")


def _read(path):
    pairs = (line.rsplit(" ", 1) for line in path.read_text().splitlines() if line)
    return {name: int(label) - 1 for name, label in pairs}


@official
def test_the_released_list_is_what_stratified_uniform_noise_makes():
    clean, released = _read(UCF / "trainlist_clean.txt"), _read(UCF / "trainlist_asym10.txt")
    sizes = Counter(clean.values())
    expected = tuple(math.ceil(sizes[label] / 10) for label in range(101))
    theirs = measure_noise(clean, released, kind="released", rate=0.1, num_classes=101)
    assert (theirs.videos, theirs.flipped, theirs.flipped_by_class) == (9537, 998, expected)
    noisy, ours = add_noise(clean, kind="paper_asymmetric", rate=0.1, num_classes=101, seed=0)
    assert (ours.videos, ours.flipped, ours.flipped_by_class) == (9537, 998, expected)
    assert list(noisy) == list(clean)
    assert [
        add_noise(clean, kind="stratified_uniform", rate=r, num_classes=101, seed=0)[1].flipped for r in (0.4, 0.8)
    ] == [
        3850,
        7666,
    ]  # the counts of the released asym40 and asym80
    # Uniform over the other classes: about 10 of 998 flips to each of 101 targets.
    targets = Counter(noisy[video] for video in clean if noisy[video] != clean[video])
    assert len(targets) > 95
    assert max(targets.values()) < 25


def _labels(count=600, classes=6):
    return {f"v{number}": number * number % classes for number in range(count)}


@pytest.mark.parametrize("kind", KINDS)
def test_noise_depends_on_the_seed_and_the_ids_and_not_on_their_order(kind):
    labels = _labels()
    noisy, report = add_noise(labels, kind=kind, rate=0.3, num_classes=6, seed=1)
    backwards, _ = add_noise(dict(reversed(labels.items())), kind=kind, rate=0.3, num_classes=6, seed=1)
    other, _ = add_noise(labels, kind=kind, rate=0.3, num_classes=6, seed=2)
    assert backwards == noisy
    assert other != noisy
    assert report.flipped == sum(noisy[video] != labels[video] for video in labels)
    assert sum(report.flipped_by_class) == report.flipped


@pytest.mark.parametrize("kind", KINDS)
def test_no_noise_is_the_identity(kind):
    assert add_noise(_labels(), kind=kind, rate=0, num_classes=6, seed=1)[0] == _labels()


def test_rates_are_realised():
    labels = _labels(6000)
    rate = {kind: add_noise(labels, kind=kind, rate=0.4, num_classes=6, seed=0)[1].realised_rate for kind in KINDS}
    assert rate["stratified_uniform"] == pytest.approx(0.4, abs=1e-3)
    assert rate["uniform_iid"] == pytest.approx(0.4, abs=0.03)
    assert rate["uniform_inclusive"] == pytest.approx(0.4 * 5 / 6, abs=0.03)
    assert rate["pair_flip"] == pytest.approx(0.4, abs=0.03)


def test_pair_flip_goes_to_the_next_class():
    labels = _labels()
    noisy, _ = add_noise(labels, kind="pair_flip", rate=1, num_classes=6, seed=0)
    assert all(noisy[video] == (label + 1) % 6 for video, label in labels.items())


@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_stratified_noise_flips_the_ceiling_and_never_to_the_same_class(size, rate, seed):
    labels = dict.fromkeys((f"v{number}" for number in range(size)), 2)
    noisy, report = add_noise(labels, kind="stratified_uniform", rate=rate, num_classes=4, seed=seed)
    assert report.flipped == math.ceil(rate * size - 1e-9)
    assert set(noisy.values()) <= {0, 1, 2, 3}


def test_a_whole_product_does_not_overshoot_and_a_lone_video_is_flipped():
    labels = {f"v{number}": 0 for number in range(30)} | {"lone": 1}
    noisy, report = add_noise(labels, kind="stratified_uniform", rate=0.1, num_classes=3, seed=0)
    assert report.flipped_by_class == (3, 1, 0)
    assert noisy["lone"] != 1
    assert report.emptied_classes == 1


@pytest.mark.parametrize("kind", ["stratified_uniform", "uniform_iid"])
def test_nested_noise_keeps_the_flips_of_a_lower_rate(kind):
    labels = _labels()
    low, _ = add_noise(labels, kind=kind, rate=0.4, num_classes=6, seed=0, nested=True)
    high, _ = add_noise(labels, kind=kind, rate=0.8, num_classes=6, seed=0, nested=True)
    assert all(high[video] == low[video] for video in labels if low[video] != labels[video])


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"rate": 1.5}, "noise rate 1.5 is not a share"),
        ({"num_classes": 1}, "needs another class to flip to, and there is 1"),
        ({"num_classes": 3}, "is not one of the classes 0 to 2"),
        ({"kind": "salt"}, "noise kind 'salt' is not one of stratified_uniform"),
    ],
)
def test_mistakes_are_told(change, match):
    with pytest.raises(UserError, match=match):
        add_noise(_labels(), **({"kind": "uniform_iid", "rate": 0.1, "num_classes": 6, "seed": 0} | change))


def test_labels_of_other_videos_are_not_compared():
    with pytest.raises(UserError, match="not of the same videos"):
        measure_noise({"a": 0}, {"b": 0}, kind="x", rate=0, num_classes=2)
