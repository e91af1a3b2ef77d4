import math
from dataclasses import FrozenInstanceError
from itertools import pairwise

import pytest
import torch

from models.optim import SgdConfig, build_optimizer, learning_rate, set_learning_rate

torch.set_num_threads(1)


def rates(total, **options):
    config = SgdConfig(**options)
    return [learning_rate(step, total_steps=total, config=config) for step in range(total)]


def test_paper_schedule_starts_at_0_03_and_ends_near_a_fifth_of_it():
    found = rates(1000)
    assert found[0] == 0.03
    assert found[500] == pytest.approx(0.03 * math.cos(7 * math.pi / 32))
    assert found[-1] == pytest.approx(0.195 * 0.03, rel=0.01)
    assert all(a > b for a, b in pairwise(found))


def test_cosine_to_zero_and_warm_up():
    found = rates(100, schedule="cosine_to_zero")
    assert found[50] == pytest.approx(0.015)
    assert found[-1] < 1e-4
    warm = rates(100, schedule="constant", warmup_steps=4)
    assert warm[:5] == pytest.approx([0.0075, 0.015, 0.0225, 0.03, 0.03])


def test_optimizer_is_nesterov_sgd_without_decay():
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = build_optimizer([weight], config=SgdConfig())
    set_learning_rate(optimizer, 0.1)
    for _ in range(2):
        weight.grad = torch.tensor([1.0])
        optimizer.step()
    # velocity 1, then 1.9; Nesterov steps by g + 0.9 v: 1.9, then 2.71.
    assert float(weight.detach()) == pytest.approx(1 - 0.1 * (1.9 + 2.71))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rate": 0.0}, r"learning_rate is 0.0"),
        ({"momentum": 1.0}, r"momentum is 1.0"),
        ({"momentum": 0.0}, r"nesterov needs a momentum above 0"),
        ({"weight_decay": -1.0}, r"weight_decay is -1.0"),
        ({"schedule": "step"}, r"schedule 'step' is unknown: choose one of cosine_7_16, cosine_to_zero, constant"),
        ({"warmup_steps": -1}, r"warmup_steps is -1"),
    ],
)
def test_bad_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SgdConfig(**options)


def test_config_is_frozen():
    with pytest.raises(FrozenInstanceError):
        SgdConfig().momentum = 0.5
