import pytest
import torch

from models.metrics import VideoScores, confusion_matrix, mean_average_precision, top_k_correct

torch.set_num_threads(1)


def test_top_k_with_ties_and_nan():
    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.5, 0.0], [0.5, 0.5, 0.0], [float("nan")] * 3])
    labels = torch.tensor([2, 0, 1, 0])
    assert top_k_correct(scores, labels, k=1).tolist() == [False, True, False, False]
    assert top_k_correct(scores, labels, k=2).tolist() == [True, True, True, False]
    random = torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(9, (50,), generator=torch.Generator().manual_seed(1))
    expected = (random.topk(3, dim=1).indices == labels[:, None]).any(1)
    assert torch.equal(top_k_correct(random, labels, k=3), expected)


def test_video_scores_are_means_over_clips_whatever_the_batches_and_padding():
    generator = torch.Generator().manual_seed(0)
    probabilities = torch.rand(30, 4, generator=generator)
    index = torch.randint(5, (30,), generator=generator)
    index[index == 3] = 2
    scores, padded = VideoScores(5, 4), VideoScores(5, 4)
    scores.add(probabilities, index=index, weight=torch.ones(30))
    for start in range(0, 30, 8):
        part = slice(start, start + 8)
        missing = 8 - len(index[part])
        filler = torch.full((missing, 4), float("nan"))
        padded.add(
            torch.cat([probabilities[part], filler]),
            index=torch.cat([index[part], torch.zeros(missing, dtype=torch.int64)]),
            weight=torch.cat([torch.ones(8 - missing), torch.zeros(missing)]),
        )
    means, seen = scores.means()
    assert torch.equal(means, padded.means()[0])
    assert seen.tolist() == [True, True, True, False, True]
    torch.testing.assert_close(means[2], probabilities[index == 2].double().mean(0))
    assert not means[3].any()


def test_average_precision_of_worked_examples():
    # Ranked: hit, miss, hit: (1/1 + 2/3) / 2. The second class has no positive. The third is perfect.
    scores = torch.tensor([[0.9, 0.1, 0.1], [0.8, 0.2, 0.2], [0.7, 0.3, 0.9]])
    labels = torch.tensor([[1, 0, 0], [0, 0, 0], [1, 0, 1]])
    found = mean_average_precision(scores, labels)
    assert found.mean == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)
    assert (found.num_classes, found.num_without_positives) == (2, 1)
    assert torch.tensor(mean_average_precision(scores, torch.zeros(3, 3)).mean).isnan()


def test_average_precision_does_not_depend_on_the_order_of_equal_scores():
    labels = torch.tensor([[1], [0], [0], [1]])
    flat = torch.full((4, 1), 0.5)
    assert mean_average_precision(flat, labels).mean == pytest.approx(0.5)  # prevalence
    assert mean_average_precision(flat, labels.flip(0)).mean == pytest.approx(0.5)


def test_average_precision_equals_the_definition_on_random_scores():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(40, 6, generator=generator)
    labels = torch.rand(40, 6, generator=generator) < 0.3
    expected = []
    for c in range(6):
        ranked = labels[scores[:, c].argsort(descending=True), c]
        hits = [(ranked[: k + 1].sum() / (k + 1)).item() for k in range(40) if ranked[k]]
        expected.append(sum(hits) / len(hits))
    assert mean_average_precision(scores, labels).mean == pytest.approx(sum(expected) / 6)


def test_confusion_has_truth_in_rows():
    found = confusion_matrix(torch.tensor([1, 1, 0, 2]), torch.tensor([0, 0, 0, 2]), num_classes=3)
    assert found.tolist() == [[1, 2, 0], [0, 0, 0], [0, 0, 1]]
