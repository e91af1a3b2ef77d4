import pytest
import torch
from torch.nn import functional

from models.contrast import TEMPERATURE, InBatch, MemoryBanks, Projector
from models.draws import Draws
from models.means import GlobalMean
from models.runtime import SingleProcess, build_compute

torch.set_num_threads(1)
RUNTIME = SingleProcess(compute=build_compute("cpu"))


def sphere(*shape, seed):
    return functional.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def mean_of(weight):
    return GlobalMean(torch.as_tensor(weight, dtype=torch.float32), RUNTIME)


def test_bank_loss_equals_its_formula_sample_by_sample():
    banks = MemoryBanks(50, dim=8, num_negatives=20, seed=4)
    index = torch.tensor([3, 49, 0])
    first, third = sphere(3, 8, seed=0), sphere(3, 8, seed=1)
    draws = Draws(seed=1, step=2, index=index)
    rows = banks.candidates(draws)
    assert rows.shape == (3, 21)
    assert torch.equal(rows[:, 0], index)
    expected = 0.0
    for sample in range(3):
        for query, bank in ((first[sample], "third"), (third[sample], "first")):
            scores = torch.stack([query @ banks.banks[bank][row] for row in rows[sample]]) / 0.07
            expected += float(functional.cross_entropy(scores[None], torch.tensor([0]))) / 3
    assert float(banks.loss(first, third, draws=draws, mean=mean_of([1, 1, 1]))) == pytest.approx(expected, rel=1e-5)
    assert TEMPERATURE == 0.07


def test_negatives_cover_the_whole_bank_with_replacement():
    banks = MemoryBanks(10, dim=4, num_negatives=1000)
    negatives = banks.candidates(Draws(seed=0, step=0, index=torch.tensor([5])))[0, 1:]
    counts = torch.bincount(negatives, minlength=10)
    assert counts.min() > 60  # the positive, 5, is among them
    assert counts.max() < 140


def test_banks_start_uniform_and_the_same_for_a_seed():
    banks, again = MemoryBanks(3000, seed=7), MemoryBanks(3000, seed=7)
    bound = 1 / (128 / 3) ** 0.5
    first = banks.banks["first"]
    assert torch.equal(first, again.banks["first"])
    assert not torch.equal(first, banks.banks["third"])
    assert bound * 0.999 < float(first.abs().max()) <= bound
    assert float(first.norm(dim=1).mean()) == pytest.approx(1, abs=0.01)
    with pytest.raises(ValueError, match="num_samples is 1"):
        MemoryBanks(1)


def test_update_moves_half_way_and_normalises():
    banks = MemoryBanks(5, dim=4)
    before = {name: bank.clone() for name, bank in banks.banks.items()}
    first, third, index = sphere(2, 4, seed=0), sphere(2, 4, seed=1), torch.tensor([3, 1])
    banks.after_step(first, third, index=index, weight=torch.ones(2), runtime=RUNTIME)
    for name, value in (("first", first), ("third", third)):
        expected = before[name].clone()
        expected[index] = functional.normalize(0.5 * before[name][index] + 0.5 * value, dim=1)
        torch.testing.assert_close(banks.banks[name], expected)


def test_last_of_a_repeated_video_wins_and_weight_0_never_writes():
    banks = MemoryBanks(5, dim=4)
    before = banks.banks["first"].clone()
    value = sphere(4, 4, seed=0)
    weight = torch.tensor([1.0, 1.0, 0.0, 0.0])
    banks.after_step(value, value, index=torch.tensor([2, 2, 2, 4]), weight=weight, runtime=RUNTIME)
    expected = before.clone()
    expected[2] = functional.normalize(0.5 * before[2] + 0.5 * value[1], dim=0)
    torch.testing.assert_close(banks.banks["first"], expected)
    assert torch.equal(banks.banks["first"][4], before[4])


def test_banks_take_no_gradient_and_give_some():
    banks = MemoryBanks(5, dim=4)
    first, third = sphere(2, 4, seed=0).requires_grad_(), sphere(2, 4, seed=1).requires_grad_()
    draws = Draws(seed=0, step=0, index=torch.tensor([0, 1]))
    banks.loss(first, third, draws=draws, mean=mean_of([1, 0])).backward()
    assert first.grad[0].abs().sum() > 0
    assert third.grad[0].abs().sum() > 0
    assert not first.grad[1].any()  # weight 0
    assert not banks.banks["first"].requires_grad


def test_state_of_another_size_is_refused():
    banks = MemoryBanks(5, dim=4)
    with pytest.raises(ValueError, match=r"checkpoint is \(6, 4\), this run needs \(5, 4\)"):
        banks.load_state_dict(MemoryBanks(6, dim=4).state_dict())
    other = MemoryBanks(5, dim=4, seed=9)
    banks.load_state_dict(other.state_dict())
    assert torch.equal(banks.banks["third"], other.banks["third"])
    assert banks.banks["third"] is not other.banks["third"]


def test_in_batch_equals_its_formula_and_ignores_weight_0():
    first, third = sphere(3, 8, seed=0), sphere(3, 8, seed=1)
    draws = Draws(seed=0, step=0, index=torch.arange(3))
    views, expected = torch.cat([first, third]), 0.0
    for anchor in range(6):
        others = [v for v in range(6) if v != anchor]
        scores = torch.stack([views[anchor] @ views[v] for v in others]) / 0.07
        expected += float(functional.cross_entropy(scores[None], torch.tensor([others.index((anchor + 3) % 6)]))) / 3
    contrast = InBatch()
    assert float(contrast.loss(first, third, draws=draws, mean=mean_of([1, 1, 1]))) == pytest.approx(expected, rel=1e-5)
    padded = contrast.loss(
        torch.cat([first, sphere(1, 8, seed=9)]),
        torch.cat([third, sphere(1, 8, seed=8)]),
        draws=Draws(seed=0, step=0, index=torch.arange(4)),
        mean=mean_of([1, 1, 1, 0]),
    )
    assert float(padded) == pytest.approx(expected, rel=1e-5)


def test_scores_stay_in_float32_under_autocast():
    banks = MemoryBanks(50, dim=8)
    first, third = sphere(3, 8, seed=0), sphere(3, 8, seed=1)
    draws = Draws(seed=1, step=2, index=torch.arange(3))
    for contrast in (banks, InBatch()):
        plain = contrast.loss(first, third, draws=draws, mean=mean_of([1, 1, 1]))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(contrast.loss(first, third, draws=draws, mean=mean_of([1, 1, 1])), plain)


def test_projector_ends_on_the_unit_sphere():
    projector = Projector(16, dim=6)
    assert [tuple(p.shape) for p in projector.parameters()] == [(16, 16), (16,), (6, 16), (6,)]
    torch.testing.assert_close(projector(torch.randn(5, 16)).norm(dim=1), torch.ones(5))
