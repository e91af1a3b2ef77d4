import json
import logging

import pytest
import torch

from models.means import GlobalMean
from models.runtime import (
    Compute,
    MetricsLog,
    ProcessGroupRuntime,
    SingleProcess,
    build_compute,
    choose_device,
    choose_precision,
)

torch.set_num_threads(1)
CPU = torch.device("cpu")


def test_choices_come_with_their_reason(caplog):
    device, reason = choose_device()
    expected = {"cuda": "CUDA is available", "cpu": "no GPU is available"}
    assert reason == expected[device.type]
    assert choose_device("cpu") == (CPU, "asked for")
    assert choose_precision(CPU) == ("32-true", "the safe choice on cpu; bf16-mixed is faster on some")
    assert choose_precision(CPU, "bf16-mixed") == ("bf16-mixed", "asked for")
    with caplog.at_level(logging.INFO):
        compute = build_compute("cpu")
    assert compute.precision_reason in caplog.text


def test_contradictions_are_refused():
    with pytest.raises(ValueError, match="precision '16-mixed' needs CUDA, the device is cpu"):
        choose_precision(CPU, "16-mixed")
    with pytest.raises(ValueError, match="precision 'fp8' is unknown: choose one of 32-true, bf16-mixed, 16-mixed"):
        choose_precision(CPU, "fp8")
    with pytest.raises(ValueError, match="no process group"):
        ProcessGroupRuntime(compute=build_compute("cpu"))


def test_scaler_exists_for_16_mixed_only_and_its_state_travels():
    def made(precision):
        return Compute(device=CPU, precision=precision, device_reason="", precision_reason="")

    assert made("32-true").scaler is None
    assert made("bf16-mixed").state_dict() == {}
    compute, other = made("16-mixed"), made("16-mixed")
    weight = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    compute.backward((weight * float("inf")).sum())
    compute.step(optimizer)  # overflowed: left out, and the scale is halved
    assert float(weight.detach()) == 1
    assert compute.state_dict()["scaler"]["scale"] == 32768.0
    other.load_state_dict(compute.state_dict())
    assert other.scaler.get_scale() == 32768.0


def test_autocast_computes_in_bfloat16_where_asked():
    module = torch.nn.Linear(4, 4)
    with build_compute("cpu", precision="bf16-mixed").autocast():
        assert module(torch.ones(1, 4)).dtype == torch.bfloat16
    with build_compute("cpu").autocast():
        assert module(torch.ones(1, 4)).dtype == torch.float32


def test_channels_last_lays_out_convolutions_and_keeps_their_values():
    module = torch.nn.Conv3d(3, 4, 3)
    clips = torch.randn(2, 3, 4, 6, 6)
    expected = module(clips)
    wrapped = SingleProcess(compute=build_compute("cpu", channels_last=True)).wrap(module)
    assert module.weight.is_contiguous(memory_format=torch.channels_last_3d)
    torch.testing.assert_close(wrapped(clips), expected)


def test_log_rewinds_past_a_half_written_row(tmp_path):
    log = MetricsLog(tmp_path / "run" / "metrics.jsonl")
    log.rewind(3)  # nothing there yet
    runtime = SingleProcess(compute=build_compute("cpu"), log=log)
    for step in (2, 4, 6):
        runtime.report({"loss": step / 2}, step)
    with log.path.open("a") as file:
        file.write('{"step": 7, "lo')
    runtime.rewind(4)
    runtime.report({"loss": 9.0}, 6)
    rows = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert rows == [{"step": 2, "loss": 1.0}, {"step": 4, "loss": 2.0}, {"step": 6, "loss": 9.0}]


def test_global_mean_of_one_process_is_the_weighted_mean():
    mean = GlobalMean(torch.tensor([1.0, 0.0, 1.0]), SingleProcess(compute=build_compute("cpu")))
    values = torch.tensor([[1.0, 2.0], [float("nan"), 5.0], [3.0, 4.0]], requires_grad=True)
    found = mean(values)
    assert found.tolist() == [2.0, 3.0]
    found.sum().backward()
    assert values.grad.tolist() == [[0.5, 0.5], [0.0, 0.0], [0.5, 0.5]]
