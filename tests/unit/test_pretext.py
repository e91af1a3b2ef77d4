import json
from pathlib import Path

import pytest
import torch

from models.draws import Draws
from models.pretext import ClozeHead, apply_vcp, residual

torch.set_num_threads(1)
SHARED = Path(__file__).parents[3] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")


def make_clips(batch, *, frames=8, side=6):
    return torch.arange(batch * 9 * frames * side * side, dtype=torch.float32).view(batch, 3, 3, frames, side, side)


def make_draws(batch, *, seed=3, step=5):
    return Draws(seed=seed, step=step, index=torch.arange(batch))


@needs_shared
def test_residual_equals_the_reference():
    vector = json.loads((SHARED / "data" / "pcl_vectors.json").read_text())["residual"]
    clip = torch.tensor(vector["x_T"]).view(1, -1, 1, 1).expand(3, -1, 2, 2)
    assert torch.equal(residual(clip)[0, :, 0, 0], torch.tensor(vector["diff"]))


@needs_shared
def test_permutation_equals_the_reference():
    vector = json.loads((SHARED / "data" / "pcl_vectors.json").read_text())["spatial_permutation_4x4"]
    clips = torch.tensor(vector["input"], dtype=torch.float32).expand(1, 3, 3, 4, 4, 4)
    out = apply_vcp(clips, torch.tensor([2]), make_draws(1))
    assert torch.equal(out[0, 1, 2, 3], torch.tensor(vector["output"], dtype=torch.float32))
    assert torch.equal(out[:, [0, 2]], clips[:, [0, 2]])


@pytest.mark.parametrize("label", [0, 4])
def test_identity_and_remote_leave_pixels_alone(label):
    clips = make_clips(4)
    assert torch.equal(apply_vcp(clips, torch.full((4,), label), make_draws(4)), clips)


def test_rotation_takes_each_of_three_angles_and_never_none():
    clips = make_clips(60, side=4)
    out = apply_vcp(clips, torch.ones(60, dtype=torch.int64), make_draws(60))
    seen = set()
    for sample in range(60):
        turns = [k for k in range(4) if torch.equal(out[sample, 1], clips[sample, 1].rot90(k, (-2, -1)))]
        assert len(turns) == 1
        seen.add(turns[0])
    assert seen == {1, 2, 3}
    assert torch.equal(out[:, [0, 2]], clips[:, [0, 2]])


def test_shuffle_swaps_two_of_four_chunks_of_time():
    clips = make_clips(80, side=2)
    out = apply_vcp(clips, torch.full((80,), 3), make_draws(80))
    order = (out[:, 1, 0, :, 0, 0] - clips[:, 1, 0, :1, 0, 0]).long() // 4
    chunks = order.view(80, 4, 2)
    assert torch.equal(chunks[:, :, 1], chunks[:, :, 0] + 1)  # within a chunk time runs on
    orders = {tuple((row[:, 0] // 2).tolist()) for row in chunks}
    assert all(sum(a != b for a, b in zip(order, range(4), strict=True)) == 2 for order in orders)
    assert len(orders) == 6


def test_a_mixed_batch_equals_its_samples_alone():
    clips, labels = make_clips(10), torch.arange(10) % 5
    draws = make_draws(10)
    together = apply_vcp(clips, labels, draws)
    for sample in range(10):
        alone = Draws(seed=3, step=5, index=torch.tensor([sample]))
        part = slice(sample, sample + 1)
        assert torch.equal(apply_vcp(clips[part], labels[part], alone), together[part])


def test_clips_that_cannot_be_transformed_are_refused():
    with pytest.raises(ValueError, match="frames are 6x8: rotation"):
        apply_vcp(torch.zeros(1, 3, 3, 8, 6, 8), torch.zeros(1, dtype=torch.int64), make_draws(1))
    with pytest.raises(ValueError, match="clips have 6 frames: the temporal shuffle needs a multiple of 4"):
        apply_vcp(torch.zeros(1, 3, 3, 6, 8, 8), torch.zeros(1, dtype=torch.int64), make_draws(1))


def test_head_is_one_linear_layer_over_three_features():
    head = ClozeHead(7)
    assert [tuple(p.shape) for p in head.parameters()] == [(5, 21), (5,)]
    assert head((torch.zeros(2, 7), torch.zeros(2, 7), torch.zeros(2, 7))).shape == (2, 5)


def test_draws_are_uniform_and_depend_on_every_part_of_the_key():
    index = torch.arange(2000)
    draws = Draws(seed=1, step=2, index=index).integers(10, stream=0, count=50)
    counts = torch.bincount(draws.flatten(), minlength=10).double()
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 30  # chi-square with 9 degrees of freedom: p < 0.0005
    by_position = torch.stack([torch.bincount(draws[:, k], minlength=10) for k in range(50)]).double()
    assert ((by_position - 200) ** 2 / 200).sum() < 600  # 450 degrees of freedom
    for other in (Draws(seed=2, step=1, index=index), Draws(seed=1, step=3, index=index)):
        assert (other.integers(10, stream=0, count=50) == draws).double().mean() < 0.11
    same = Draws(seed=1, step=2, index=index)
    assert (same.integers(10, stream=1, count=50) == draws).double().mean() < 0.11
    assert (draws[1:] == draws[:-1]).double().mean() < 0.11
    assert torch.equal(same.integers(10, stream=0, count=50), draws)
    shuffled = index.flip(0)
    assert torch.equal(Draws(seed=1, step=2, index=shuffled).integers(10, stream=0, count=50), draws.flip(0))
