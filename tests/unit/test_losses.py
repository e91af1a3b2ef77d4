import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.losses import (
    CLASS_DEFAULTS,
    COCO,
    LOSSES,
    Balance,
    DistributionBalanced,
    Focal,
    Frequencies,
    assign_labels,
    binary_cross_entropy,
    class_frequencies,
    cross_entropy,
    masked_cross_entropy,
)
from models.means import weighted_mean

torch.set_num_threads(1)
SHARED = Path(__file__).parents[3] / "shared"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="needs ../shared/data")
MEAN = weighted_mean()

LOGITS = torch.tensor(
    [
        [1.5, -0.75, 0.25, -2.0, 0.6],
        [-1.25, 2.1, -0.4, 0.9, -3.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
        [4.0, -4.0, 3.0, -3.0, 2.0],
        [-0.35, 0.55, -1.65, 0.05, -0.95],
        [2.25, 1.75, -1.1, 0.3, 1.2],
    ],
    dtype=torch.float64,
)
LABELS = torch.tensor(
    [[1, 0, 1, 0, 0], [0, 1, 0, 0, 0], [1, 1, 0, 0, 1], [0, 0, 0, 1, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]],
    dtype=torch.float64,
)
FREQUENCIES = Frequencies(torch.tensor([50.0, 20, 8, 3, 1], dtype=torch.float64), 60)
TARGETS = torch.tensor([0, 1, 4, 3, 0])
BALANCES = {"COCO_MLT": COCO, "VOC_no_focal": Balance(mu=0.3, scale=5.0, gamma=None)}


@pytest.fixture(scope="module")
def vectors():
    return json.loads((SHARED / "data" / "loss_vectors.json").read_text())


def double(values):
    return torch.tensor(values, dtype=torch.float64)


@needs_shared
@pytest.mark.parametrize("case", ["COCO_MLT", "VOC_no_focal"])
def test_distribution_balanced_equals_the_reference(vectors, case):
    expected = vectors["cases"][case]
    assert torch.equal(double(vectors["inputs"]["logits"]), LOGITS)
    assert torch.equal(double(vectors["inputs"]["labels"]), LABELS)
    loss = DistributionBalanced(FREQUENCIES, balance=BALANCES[case])
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(loss.bias, double(expected["init_bias"]), **close)
    torch.testing.assert_close(loss.weights(LABELS), double(expected["rebalance_weight"]), **close)
    torch.testing.assert_close(loss.regularised(LOGITS, LABELS), double(expected["reg_logits"]), **close)
    logits = LOGITS.clone().requires_grad_()
    value = loss(logits, LABELS, MEAN)
    value.backward()
    torch.testing.assert_close(value.detach(), double(expected["loss_mean"]), **close)
    torch.testing.assert_close(logits.grad, double(expected["grad_logits_of_mean"]), **close)
    rows = []
    loss(LOGITS, LABELS, lambda per_sample: rows.append(per_sample) or per_sample.mean())
    scale = 1 if loss.balance.gamma is None else loss.balance.factor
    torch.testing.assert_close(scale * rows[0], double(expected["loss_elementwise"]).mean(1), **close)


@needs_shared
def test_the_other_losses_equal_the_reference(vectors):
    expected = vectors["companions"]
    close = {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(binary_cross_entropy(LOGITS, LABELS, MEAN), double(expected["BCE"]["mean"]), **close)
    focal = Focal()(LOGITS, LABELS, MEAN)
    torch.testing.assert_close(focal, double(expected["FOCAL_torchvision_a0.25_g2"]["mean"]), **close)
    logits = LOGITS[:5].clone().requires_grad_()
    loss = cross_entropy(logits, TARGETS, MEAN)
    loss.backward()
    torch.testing.assert_close(loss.detach(), double(expected["CCE"]["mean"]), **close)
    torch.testing.assert_close(logits.grad, double(expected["CCE"]["grad_logits_of_mean"]), **close)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("bce", 1.0066784032333391),
        ("focal", 0.4041937575786344),
        ("focal_official", 0.2171448018866459),
        ("balanced_focal", 1.1406999686675403),
        ("noisyactions_official", 15.192721889990),
    ],
)
def test_named_losses_have_their_values(name, value):
    assert float(LOSSES[name](FREQUENCIES)(LOGITS, LABELS, MEAN)) == pytest.approx(value, rel=1e-11)


def test_official_preset_does_not_rebalance():
    weights = DistributionBalanced(FREQUENCIES, balance=CLASS_DEFAULTS).weights(LABELS[:5])
    of_positives = weights[LABELS[:5] > 0]
    assert 10.495 < float(of_positives.min()) <= float(of_positives.max()) < 10.545
    assert float(weights.max()) <= 11


def test_scalar_focal_gradient_equals_finite_differences():
    loss = LOSSES["noisyactions_official"](FREQUENCIES)
    logits = LOGITS.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda z: loss(z, LABELS, MEAN), (logits,))


def masked_case():
    partial = LABELS[:5].bool().scatter(1, TARGETS[:, None], False)
    return LOGITS[:5].clone().requires_grad_(), partial


def test_masked_equals_the_reference_and_gives_partial_labels_no_gradient():
    logits, partial = masked_case()
    loss = masked_cross_entropy(logits, TARGETS, partial, MEAN)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(2.209436210236911, rel=1e-12)
    assert not logits.grad[partial].any()
    assert logits.grad[~partial].all()


def test_masked_with_all_others_masked_is_0_and_with_the_target_masked_is_refused():
    logits = torch.randn(2, 3, requires_grad=True)
    partial = torch.tensor([[False, True, True], [False, True, False]])
    loss = masked_cross_entropy(logits, torch.tensor([0, 2]), partial, weighted_mean(torch.tensor([1.0, 0.0])))
    loss.backward()
    assert float(loss.detach()) == 0
    assert not logits.grad.any()
    with pytest.raises(ValueError, match="assigned label is among its partial labels"):
        masked_cross_entropy(logits, torch.tensor([1, 2]), partial, MEAN)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_weight_0_contributes_nothing_not_even_nan(name):
    loss = LOSSES[name](FREQUENCIES)
    labels = TARGETS if name == "cce" else LABELS[:5]
    logits = LOGITS[:5].clone()
    logits[3] = float("nan")
    logits.requires_grad_()
    weight = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0])
    value = loss(logits, labels, weighted_mean(weight))
    kept = [0, 1, 2, 4]
    assert float(value.detach()) == pytest.approx(float(loss(LOGITS[kept], labels[kept], MEAN)), rel=1e-12)
    value.backward()
    assert logits.grad[kept].isfinite().all()
    blank = loss(LOGITS[:5], labels, weighted_mean(torch.zeros(5)))
    assert float(blank) == 0


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_losses_compute_in_float32_under_autocast_and_leave_logits_alone(name):
    loss = LOSSES[name](FREQUENCIES)
    labels = TARGETS if name == "cce" else LABELS[:5]
    logits = LOGITS[:5].bfloat16()
    kept = logits.clone()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = loss(logits, labels, MEAN)
    assert value.dtype == torch.float32
    assert torch.equal(logits, kept)
    assert float(value) == pytest.approx(float(loss(logits.double(), labels, MEAN)), rel=1e-5)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"cce"}))
def test_extreme_logits_stay_finite(name):
    logits = torch.tensor([[200.0, -200.0, 0.0, 80.0, -80.0]] * 2, requires_grad=True)
    labels = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0], [0.0, 1.0, 0.0, 1.0, 0.0]])
    value = LOSSES[name](FREQUENCIES)(logits, labels, MEAN)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_a_sample_without_positives_weighs_alpha_plus_1():
    weights = DistributionBalanced(FREQUENCIES).weights(LABELS)
    assert torch.equal(weights[5], torch.full((5,), 1.1, dtype=torch.float64))


def test_frequencies_are_by_index_and_clamped():
    found = class_frequencies([[0, 2], [0], [0, 2, 2]], num_classes=4)
    assert found.counts.tolist() == [2, 1, 2, 1]  # in all 3 videos: 2; in none: 1
    assert found.num_videos == 3
    loss = DistributionBalanced(found)
    assert loss.bias.isfinite().all()
    with pytest.raises(ValueError, match=r"video 1 has classes \[4\]: 4 classes are 0..3"):
        class_frequencies([[0], [4]], num_classes=4)
    with pytest.raises(ValueError, match="1 labelled videos"):
        class_frequencies([[0]], num_classes=4)


def test_assignment_follows_the_algorithm():
    random = np.random.Generator(np.random.Philox(key=[0, 0]))
    labels = [sorted(set(random.choice(6, size=4, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05]).tolist())) for _ in range(300)]
    assigned = assign_labels(labels, num_classes=8, seed=1, epoch=0)
    assert assigned.shape == (300,)
    assert all(label in own for label, own in zip(assigned, labels, strict=True))
    assert np.array_equal(assigned, assign_labels(labels, num_classes=8, seed=1, epoch=0))
    assert not np.array_equal(assigned, assign_labels(labels, num_classes=8, seed=1, epoch=1))
    firsts = np.bincount([own[0] for own in labels], minlength=6)
    counts = np.bincount(assigned, minlength=6)
    assert counts[:6].max() < firsts.max()  # the commonest class no longer takes all it could


def test_assignment_fills_below_the_mean_then_draws():
    # Mean (4 + 4) / 2 = 4: class 0 is never full, so all take their first label.
    assert assign_labels([[0, 1]] * 4, num_classes=2, seed=0, epoch=0).tolist() == [0] * 4
    # Mean (4 + 2) / 2 = 3: the fourth video finds 0 full and takes 1 if it has it.
    labels = [[0, 1], [0, 1], [0], [0]]
    drawn = {tuple(assign_labels(labels, num_classes=2, seed=seed, epoch=0).tolist()) for seed in range(30)}
    assert drawn == {(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0)}
    with pytest.raises(ValueError, match="video 1 has no label"):
        assign_labels([[0], []], num_classes=1, seed=0, epoch=0)
