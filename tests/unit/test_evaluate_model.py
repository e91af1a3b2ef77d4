import pytest
import torch
from torch import nn

from models.batch import Batch
from models.evaluate import evaluate
from models.runtime import SingleProcess, build_compute

torch.set_num_threads(1)
RUNTIME = SingleProcess(compute=build_compute("cpu"))


class Painted(nn.Module):
    """Reads its logits off the clip's first pixels."""

    def __init__(self, num_classes):
        super().__init__()
        self.num_classes = num_classes

    def forward(self, clips):
        return clips[:, 0, 0, 0, : self.num_classes]


def painted(logits, *, index, weight=None):
    clips = torch.zeros(len(logits), 1, 3, 1, 1, 8)
    clips[:, 0, 0, 0, 0, : logits.shape[1]] = logits
    weight = torch.ones(len(logits)) if weight is None else torch.tensor(weight)
    return Batch(clips=clips, labels=None, weight=weight, index=torch.tensor(index))


LOG = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4], [0.9, 0.05, 0.05]]).log()


def run(batches, labels, *, num_classes=3):
    return evaluate(
        Painted(num_classes), batches, labels=torch.tensor(labels), num_classes=num_classes, runtime=RUNTIME
    )


def test_probabilities_are_averaged_over_a_videos_clips():
    # Video 0: (.6,.3,.1) and (.2,.5,.3), mean (.4,.4,.2): a tie, to the lower class. Video 1: (.1,.8,.1).
    # Video 2: (.3,.3,.4) and (.9,.05,.05), mean (.6,.175,.225): class 0.
    batches = [painted(LOG[:3], index=[0, 0, 1]), painted(LOG[3:], index=[2, 2])]
    found = run(batches, [0, 1, 2])
    torch.testing.assert_close(found.scores[2], torch.tensor([0.6, 0.175, 0.225], dtype=torch.float64))
    assert found.metrics["video_top1"] == pytest.approx(2 / 3)
    assert found.metrics["clip_top1"] == pytest.approx(3 / 5)
    assert found.metrics["video_top5"] == 1
    assert (found.metrics["num_videos"], found.metrics["num_clips"]) == (3, 5)
    assert found.confusion.tolist() == [[1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert found.class_accuracy.tolist() == [1, 1, 0]


def test_top5_is_among_the_five_best():
    logits = torch.tensor([[7.0, 6, 5, 4, 3, 2, 1], [7.0, 6, 5, 4, 3, 2, 1]])
    found = run([painted(logits, index=[0, 1])], [4, 5], num_classes=7)
    assert found.metrics["video_top5"] == 0.5


def test_undecodable_videos_are_wrong_and_padding_is_nothing():
    batch = painted(LOG[[0, 2, 4, 0]], index=[0, 1, 2, 0], weight=[1.0, 1.0, 0.0, 0.0])
    found = run([batch], [0, 1, 0])
    assert found.metrics["video_top1"] == pytest.approx(2 / 3)
    assert found.metrics["video_top1_decodable"] == 1
    assert found.metrics["undecodable"] == 1
    assert found.metrics["clip_top1"] == 1
    assert found.metrics["num_clips"] == 2
    assert found.confusion.sum() == 2
    assert found.class_accuracy[:2].tolist() == [0.5, 1]
    assert found.class_accuracy[2].isnan()
    assert not found.scores[2].any()


def test_nothing_decodable_at_all():
    found = run([painted(LOG[:1], index=[0], weight=[0.0])], [0, 1])
    assert found.metrics["video_top1"] == 0
    assert found.metrics["undecodable"] == 2
    assert torch.tensor(found.metrics["video_top1_decodable"]).isnan()


def test_clips_in_one_batch_row_and_training_mode_is_restored():
    module = Painted(3).train()
    clips = torch.cat([painted(LOG[[row]], index=[0]).clips for row in (0, 1)], dim=1)
    batch = Batch(clips=clips, labels=None, weight=torch.ones(1), index=torch.tensor([0]))
    found = evaluate(module, [batch], labels=torch.tensor([0]), num_classes=3, runtime=RUNTIME)
    torch.testing.assert_close(found.scores[0], torch.tensor([0.4, 0.4, 0.2], dtype=torch.float64))
    assert found.metrics["num_clips"] == 2
    assert module.training


def test_multi_label_lists_are_scored_by_sigmoid_and_average_precision():
    logits = torch.tensor([[2.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    batch = painted(logits, index=[0, 1, 2])
    found = evaluate(Painted(3), [batch], labels=labels, num_classes=3, runtime=RUNTIME)
    torch.testing.assert_close(found.scores, logits.double().sigmoid(), rtol=1e-6, atol=1e-7)
    # Class 0 ranks hit, miss, hit; class 1 ranks miss, hit; class 2 has no positive.
    assert found.metrics["video_map"] == pytest.approx(((1 + 2 / 3) / 2 + 1 / 2) / 2)
    assert found.metrics["num_classes_without_positives"] == 1
    assert found.metrics["video_precision_at_1"] == pytest.approx(1 / 3)
    assert found.confusion is None
