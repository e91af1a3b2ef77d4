"""The loop. Run as a script this file is a process of its own: a rank of two, or one that is killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import distributed as dist
from torch import nn

from models.backbones import Backbone, Classifier
from models.contrast import InBatch, MemoryBanks
from models.evaluate import evaluate
from models.losses import LOSSES, class_frequencies
from models.objectives import ClozeContrastNetwork, SelfSupervised, masked_label, multi_label, single_label
from models.optim import SgdConfig
from models.runtime import MetricsLog, ProcessGroupRuntime, SingleProcess, build_compute
from models.tally import TIMINGS
from models.train import Batch, Hooks, TrainConfig, train

torch.set_num_threads(1)
NUM_VIDEOS, NUM_CLASSES, STEPS, GLOBAL_BATCH = 24, 4, 3, 8
# Class 0 on nearly all videos, so that CCE-Mask has something to even out.
LISTS = [sorted({row % NUM_CLASSES, 0 if row % 6 else row % NUM_CLASSES}) for row in range(NUM_VIDEOS)]


class NormFree(nn.Module):
    """A backbone without batch norm, whose output for a sample does not depend on the others."""

    num_features = 8

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv3d(3, 8, 3, stride=2)

    def forward(self, clips):
        return self.convolution(clips).relu().mean((2, 3, 4))


def clip_of(row, *, num_clips, epoch=0):
    """A clip that shows its class: brightness in one corner, over noise of its own."""
    generator = torch.Generator().manual_seed(row * 1000 + epoch)
    clips = 0.3 * torch.randn(num_clips, 3, 4, 8, 8, generator=generator)
    label = row % NUM_CLASSES
    clips[..., 4 * (label // 2) : 4 * (label // 2) + 4, 4 * (label % 2) : 4 * (label % 2) + 4] += 1
    return clips


def make_batch(rows, *, kind, num_clips=1, epoch=0, undecodable=()):
    index = torch.tensor(rows)
    clips = torch.stack([clip_of(row, num_clips=num_clips, epoch=epoch) for row in rows])
    labels = index % NUM_CLASSES
    if kind == "multi":
        labels = torch.tensor([[float(c in LISTS[row]) for c in range(NUM_CLASSES)] for row in rows])
    weight = torch.tensor([0.0 if row in undecodable else 1.0 for row in rows])
    clips[weight == 0] = 0
    pretext = index % 5 if kind == "pretext" else None
    return Batch(clips=clips, labels=labels, weight=weight, index=index, pretext=pretext)


def make_batches(*, kind, rank=0, world=1, undecodable=(), num_clips=1):
    def batches(epoch, start):
        order = torch.randperm(NUM_VIDEOS, generator=torch.Generator().manual_seed(epoch)).tolist()
        for step in range(start, STEPS):
            rows = order[step * GLOBAL_BATCH : (step + 1) * GLOBAL_BATCH][rank::world]
            yield make_batch(rows, kind=kind, epoch=epoch, undecodable=undecodable, num_clips=num_clips)

    return batches


def make_classifier(backbone=NormFree):
    torch.manual_seed(0)
    return Classifier(backbone(), NUM_CLASSES)


def small_backbone():
    return Backbone(width=8)


def self_supervised(contrast, backbone=NormFree):
    torch.manual_seed(0)
    return SelfSupervised(ClozeContrastNetwork(backbone(), dim=16), contrast=contrast, seed=5)


def make_banks():
    return MemoryBanks(NUM_VIDEOS, dim=16, num_negatives=12, seed=2)


FREQUENCIES = class_frequencies(LISTS, num_classes=NUM_CLASSES)
OBJECTIVES = {
    "single": lambda: single_label(make_classifier()),
    "multi": lambda: multi_label(make_classifier(), loss=LOSSES["balanced_focal"](FREQUENCIES)),
    "multi_official": lambda: multi_label(make_classifier(), loss=LOSSES["noisyactions_official"](FREQUENCIES)),
    "multi_masked": lambda: masked_label(make_classifier(), labels=LISTS, num_classes=NUM_CLASSES, seed=1),
    "pretext": lambda: self_supervised(make_banks()),
    "pretext_inbatch": lambda: self_supervised(InBatch()),
}
CONFIG = TrainConfig(epochs=2, steps_per_epoch=STEPS, log_every_steps=2, max_undecodable_share=0.5)


def run(name, *, runtime, config=CONFIG, **options):
    kind = name.split("_")[0]
    objective = OBJECTIVES[name]()
    num_clips = 3 if kind == "pretext" else 2
    rank_options = {"rank": runtime.rank, "world": runtime.world_size, "num_clips": num_clips}
    batches = make_batches(kind=kind, undecodable=(3, 8, 9, 10), **rank_options)
    result = train(objective, batches, config=config, runtime=runtime, **options)
    return objective, result


def here(log=None):
    return SingleProcess(compute=build_compute("cpu"), log=None if log is None else MetricsLog(log))


def rows_of(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMINGS} for row in rows]


def evaluation_batches(*, rank=0, world=1):
    """Two clips per video, cut unevenly over ranks; video 5 cannot be decoded; padding repeats row 0."""
    rows = [row for row in range(NUM_VIDEOS) for _ in range(2)]
    own = (
        rows[: 2 * NUM_VIDEOS - 10] if rank == 0 and world == 2 else rows[2 * NUM_VIDEOS - 10 :] if world == 2 else rows
    )
    for start in range(0, len(own), 5):
        part = own[start : start + 5]
        batch = make_batch(part + [0] * (5 - len(part)), kind="single", undecodable=(5,))
        batch.weight[len(part) :] = 0
        yield batch


def evaluate_here(module, runtime):
    batches = evaluation_batches(rank=runtime.rank, world=runtime.world_size)
    labels = torch.arange(NUM_VIDEOS) % NUM_CLASSES
    return evaluate(module, batches, labels=labels, num_classes=NUM_CLASSES, runtime=runtime)


# -- as processes of their own ----------------------------------------------------------------------------------------


def be_a_rank(folder, rank):
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    results = {}
    for name in OBJECTIVES:
        runtime = ProcessGroupRuntime(compute=build_compute("cpu"), log=MetricsLog(folder / f"{name}.jsonl"))
        objective, _ = run(name, runtime=runtime, folder=folder / name)
        results[name] = {
            "module": objective.module.state_dict(),
            "gradients": {n: p.grad for n, p in objective.module.named_parameters()},
            "objective": objective.state_dict(),
        }
    found = evaluate_here(make_classifier(), runtime)
    results["evaluation"] = {"metrics": found.metrics, "confusion": found.confusion}
    torch.save(results, folder / f"rank{rank}.pt")
    dist.destroy_process_group()


def be_killed(folder, step):
    objective, config, batches, hooks = resumable()
    train(
        objective,
        die_at(batches, step),
        config=config,
        runtime=here(folder / "metrics.jsonl"),
        folder=folder,
        hooks=hooks,
    )


def die_at(batches, step):
    def dying(epoch, start):
        for number, batch in enumerate(batches(epoch, start), start=epoch * STEPS + start):
            if number == step:
                os.kill(os.getpid(), signal.SIGKILL)
            yield batch

    return dying


def resumable():
    """With batch norm, memory banks, an evaluation per epoch, and reports and checkpoints out of step."""
    objective = self_supervised(make_banks(), small_backbone)
    config = TrainConfig(
        epochs=3, steps_per_epoch=STEPS, checkpoint_every_steps=2, log_every_steps=3, max_undecodable_share=0.5
    )
    batches = make_batches(kind="pretext", num_clips=3, undecodable=(3, 8, 9, 10))

    def on_epoch_end(epoch, step):
        objective.module.eval()
        with torch.no_grad():
            features = objective.module.backbone(make_batch([0, 1], kind="single").clips[:, 0])
        return {"feature_sum": float(features.sum())}

    return objective, config, batches, Hooks(on_epoch_end=on_epoch_end)


def start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


# -- tests ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    ranks = [start("rank", folder, rank) for rank in range(2)]
    errors = [rank.communicate(timeout=90)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0], errors
    return folder, [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("name", sorted(OBJECTIVES))
def test_two_ranks_equal_one_process(two_ranks, tmp_path, name):
    folder, (first, second) = two_ranks
    objective, _ = run(name, runtime=here(tmp_path / "metrics.jsonl"))
    close = {"rtol": 2e-4, "atol": 2e-6}
    for part, own in (("module", objective.module.state_dict()), ("objective", objective.state_dict())):
        for key, value in own.items():
            torch.testing.assert_close(first[name][part][key], value, **close, msg=lambda m, k=key: f"{k}: {m}")
            torch.testing.assert_close(second[name][part][key], first[name][part][key], rtol=0, atol=0)
    for key, parameter in objective.module.named_parameters():
        torch.testing.assert_close(first[name]["gradients"][key], parameter.grad, **close)
        assert parameter.grad.abs().max() > 1e-5, key
    own, theirs = rows_of(tmp_path / "metrics.jsonl"), rows_of(folder / f"{name}.jsonl")
    assert len(own) == len(theirs) == 4  # after steps 2, 3, 4, 6
    for mine, row in zip(own, theirs, strict=True):
        assert row == pytest.approx(mine, rel=1e-4, abs=1e-6)


def test_evaluation_of_two_ranks_equals_one_process(two_ranks):
    _, ranks = two_ranks
    own = evaluate_here(make_classifier(), here())
    for rank in ranks:
        assert rank["evaluation"]["metrics"] == pytest.approx(own.metrics)
        assert torch.equal(rank["evaluation"]["confusion"], own.confusion)


@pytest.mark.parametrize("step", [1, 5, 7])
def test_killed_and_resumed_equals_never_killed(tmp_path, step):
    objective, config, batches, hooks = resumable()
    unbroken = tmp_path / "unbroken"
    train(objective, batches, config=config, runtime=here(unbroken / "metrics.jsonl"), folder=unbroken, hooks=hooks)
    broken = tmp_path / "broken"
    process = start("killed", broken, step)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    resumed, config, batches, hooks = resumable()
    result = train(resumed, batches, config=config, runtime=here(broken / "metrics.jsonl"), folder=broken, hooks=hooks)
    assert result.resumed_from == {1: None, 5: 4, 7: 6}[step]
    assert rows_of(broken / "metrics.jsonl") == rows_of(unbroken / "metrics.jsonl")
    assert len(rows_of(broken / "metrics.jsonl")) == 6
    for name, value in objective.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name
    for name, value in objective.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_finished_run_is_not_run_again(tmp_path):
    _, result = run("single", runtime=here(), folder=tmp_path)
    assert (result.steps, result.resumed_from) == (6, None)
    assert result.metrics["epoch"] == 1
    _, again = run("single", runtime=here(), folder=tmp_path)
    assert (again.steps, again.resumed_from, again.metrics) == (6, 6, {})


def test_other_settings_on_the_same_folder_are_refused(tmp_path):
    run("single", runtime=here(), folder=tmp_path, settings={"backbone": "a"})
    with pytest.raises(ValueError, match=r"other settings \(backbone was 'a', now 'b'\): use the same ones"):
        run("single", runtime=here(), folder=tmp_path, settings={"backbone": "b"})
    longer = TrainConfig(epochs=9, steps_per_epoch=STEPS, max_undecodable_share=0.5)
    with pytest.raises(ValueError, match="epochs was 2, now 9"):
        run("single", runtime=here(), folder=tmp_path, settings={"backbone": "a"}, config=longer)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("name", ["single", "multi", "multi_masked", "pretext"])
def test_a_tiny_set_is_overfitted(name, precision):
    kind = name.split("_")[0]
    batch = make_batch(list(range(10)), kind=kind, num_clips=3 if kind == "pretext" else 1)
    losses = []
    config = TrainConfig(epochs=1, steps_per_epoch=40, log_every_steps=1, sgd=SgdConfig(learning_rate=0.1))
    runtime = SingleProcess(compute=build_compute("cpu", precision=precision))
    hooks = Hooks(
        on_progress=lambda step, total, row: losses.append(row["pretext_loss" if kind == "pretext" else "loss"])
    )
    train(OBJECTIVES[name](), lambda epoch, start: [batch] * 40, config=config, runtime=runtime, hooks=hooks)
    floor = {"single": 0.5, "multi": 0.85, "multi_masked": 0.7, "pretext": 0.95}[name]
    assert losses[-1] < floor * losses[0]


def test_rows_say_what_was_done(tmp_path):
    seen = []
    hooks = Hooks(on_progress=lambda step, total, row: seen.append((step, total)))
    run("pretext", runtime=here(tmp_path / "metrics.jsonl"), hooks=hooks)
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert seen == [(2, 6), (3, 6), (4, 6), (6, 6)]
    assert set(row) >= {"step", "epoch", "loss", "pretext_loss", "contrast_loss", "learning_rate", *TIMINGS}
    assert row["undecodable"] == 4
    assert sum(row[f"pretext_share_{label}"] for label in range(5)) == pytest.approx(1)
    assert row["loss"] == pytest.approx(row["pretext_loss"] + 0.5 * row["contrast_loss"])
    assert 0 < row["data_wait_share"] < 1


def test_a_loss_that_is_not_finite_stops_the_run_and_is_never_saved(tmp_path):
    def batches(epoch, start):
        for step, batch in enumerate(make_batches(kind="single")(epoch, start)):
            if (epoch, step) == (1, 1):
                batch.clips[0] = float("inf")
            yield batch

    config = TrainConfig(epochs=3, steps_per_epoch=STEPS, checkpoint_every_steps=1, log_every_steps=100)
    with pytest.raises(ValueError, match=r"the loss is not finite at step 4 \(epoch 1\): lower the learning rate"):
        train(single_label(make_classifier()), batches, config=config, runtime=here(), folder=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint-00000003.pt", "checkpoint-00000004.pt"]


def test_too_many_undecodable_samples_stop_the_run():
    config = TrainConfig(epochs=1, steps_per_epoch=STEPS, max_undecodable_share=0.1, log_every_steps=1)
    batches = make_batches(kind="single", undecodable=(1, 2, 3))
    message = r"3 of the 24 samples of epoch 0 could not be decoded, more than max_undecodable_share 0.1"
    with pytest.raises(ValueError, match=message):
        train(single_label(make_classifier()), batches, config=config, runtime=here())


def test_undecodable_samples_change_nothing_not_even_batch_norm():
    def state_after(rows, undecodable):
        objective = single_label(make_classifier(small_backbone))
        batch = make_batch(rows, kind="single", undecodable=undecodable)
        config = TrainConfig(epochs=1, steps_per_epoch=1, max_undecodable_share=1)
        train(objective, lambda epoch, start: [batch], config=config, runtime=here())
        return objective.module.state_dict()

    blank, covered = state_after([1, 1, 2, 2], ()), state_after([1, 7, 2, 9], (7, 9))
    for name in ("backbone.bn1.running_mean", "backbone.layer3.0.bn2.running_var"):
        torch.testing.assert_close(blank[name], covered[name])
    assert all(value.isfinite().all() for value in state_after([1, 2], (1, 2)).values())


def test_batches_that_run_out_are_told():
    config = TrainConfig(epochs=1, steps_per_epoch=STEPS + 1)
    with pytest.raises(ValueError, match="batches ended after 3 of the 4 steps of epoch 0"):
        train(single_label(make_classifier()), make_batches(kind="single"), config=config, runtime=here())


def test_a_source_of_batches_is_closed():
    closed = []

    def batches(epoch, start):
        try:
            while True:
                yield make_batch([0, 1], kind="single")
        finally:
            closed.append(epoch)

    train(single_label(make_classifier()), batches, config=CONFIG, runtime=here())
    assert closed == [0, 1]


def test_masked_labels_are_drawn_anew_each_epoch():
    batch, losses = make_batch(list(range(NUM_VIDEOS)), kind="multi"), []
    still = SgdConfig(learning_rate=1e-12, schedule="constant")
    config = TrainConfig(epochs=3, steps_per_epoch=1, sgd=still)
    hooks = Hooks(on_progress=lambda step, total, row: losses.append(row["loss"]))
    train(OBJECTIVES["multi_masked"](), lambda epoch, start: [batch], config=config, runtime=here(), hooks=hooks)
    assert len({round(loss, 5) for loss in losses}) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"checkpoint_every_steps": 0}, "checkpoint_every_steps is 0"),
        ({"max_undecodable_share": 1.5}, "max_undecodable_share is 1.5"),
    ],
)
def test_bad_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**({"epochs": 1, "steps_per_epoch": 1} | options))


def test_batches_of_the_wrong_kind_are_refused():
    batch = make_batch([0, 1], kind="single")
    config = TrainConfig(epochs=1, steps_per_epoch=1)
    with pytest.raises(ValueError, match="1 clips a sample: 3 and a pretext label are needed"):
        train(OBJECTIVES["pretext"](), lambda epoch, start: [batch], config=config, runtime=here())
    with pytest.raises(ValueError, match=r"clips have shape \(2, 3\): \(B, K, 3, T, H, W\) is needed"):
        Batch(clips=torch.zeros(2, 3), labels=None, weight=torch.ones(2), index=torch.arange(2))
    with pytest.raises(ValueError, match="weight has 1 rows for 2 samples"):
        Batch(clips=batch.clips, labels=None, weight=torch.ones(1), index=torch.arange(2))
    with pytest.raises(ValueError, match="modality 'flow' is unknown"):
        SelfSupervised(ClozeContrastNetwork(NormFree()), contrast=InBatch(), seed=0, modality="flow")


if __name__ == "__main__":
    if sys.argv[1] == "rank":
        be_a_rank(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        be_killed(Path(sys.argv[2]), int(sys.argv[3]))
