"""A classifier over whole videos: probabilities of a video's clips are averaged, as the paper does at test time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.batch import Batch
from models.metrics import VideoScores, confusion_matrix, mean_average_precision, top_k_correct
from models.runtime import Runtime


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """What one pass over an evaluation list found. A video without a decodable clip is wrong, and is counted."""

    metrics: dict[str, float]
    """By name; names carry the protocol."""
    confusion: Tensor | None
    """(C, C) int64 counts over decodable videos, row true, column predicted; None for multi-label lists."""
    class_accuracy: Tensor | None
    """(C,) float64, share of each class's videos that are right, NaN without videos; None for multi-label lists."""
    scores: Tensor
    """(V, C) float64 mean probabilities, 0 for a video without a decodable clip."""


@torch.inference_mode()
def evaluate(
    module: nn.Module, batches: Iterable[Batch], *, labels: Tensor, num_classes: int, runtime: Runtime
) -> Evaluation:
    """Run a classifier over every clip of an evaluation list, this rank's share of it.

    `labels` are the whole list's, (V,) int64 or (V, C) multi-hot; a batch's `index` is a clip's video in it, so the
    clips of one video may lie in any batches of any ranks. Clips of weight 0 are padding or undecodable and add
    nothing; a video all of whose clips are so counts as wrong. Ranks may have different numbers of batches.
    Single-label lists are scored by softmax, multi-label ones by sigmoid. The module's training mode is restored.
    """
    multi = labels.dim() == 2
    device = runtime.compute.device
    keep = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
    labels = labels.to(keep)
    scores = VideoScores(len(labels), num_classes, device=keep)
    clips = torch.zeros(2, dtype=torch.float64, device=keep)
    was_training = module.training
    module.eval()
    try:
        for batch in batches:
            with runtime.compute.autocast():
                logits = module(batch.clips.flatten(0, 1)).float()
            probabilities = (logits.sigmoid() if multi else logits.softmax(1)).to(keep)
            index, weight = (v.to(keep).repeat_interleave(batch.clips.shape[1]) for v in (batch.index, batch.weight))
            scores.add(probabilities, index=index, weight=weight)
            if not multi:
                decoded = weight > 0
                right = top_k_correct(probabilities, labels[index], k=1) & decoded
                clips += torch.stack([right.sum(), decoded.sum()])
    finally:
        module.train(was_training)
    scores.sums, scores.counts = runtime.all_reduce_sum(scores.sums), runtime.all_reduce_sum(scores.counts)
    if multi:
        return _summarise_multi(scores, labels)
    return _summarise_single(scores, labels, clips=runtime.all_reduce_sum(clips), num_classes=num_classes)


def _summarise_single(scores: VideoScores, labels: Tensor, *, clips: Tensor, num_classes: int) -> Evaluation:
    means, decoded = scores.means()
    right = top_k_correct(means, labels, k=1) & decoded
    right_of_5 = top_k_correct(means, labels, k=5) & decoded
    confusion = confusion_matrix(means[decoded].argmax(1), labels[decoded], num_classes=num_classes)
    per_class = torch.bincount(labels, minlength=num_classes)
    metrics = {
        "video_top1": _share(right.sum(), len(labels)),
        "video_top5": _share(right_of_5.sum(), len(labels)),
        "video_top1_decodable": _share(right.sum(), int(decoded.sum())),
        "clip_top1": _share(clips[0], int(clips[1])),
        "num_videos": float(len(labels)),
        "num_clips": float(clips[1]),
        "undecodable": float((~decoded).sum()),
    }
    class_accuracy = torch.bincount(labels[right], minlength=num_classes).double() / per_class
    return Evaluation(
        metrics=metrics, confusion=confusion.cpu(), class_accuracy=class_accuracy.cpu(), scores=means.cpu()
    )


def _summarise_multi(scores: VideoScores, labels: Tensor) -> Evaluation:
    means, decoded = scores.means()
    # A video without a decodable clip scores 0 everywhere: its positives come last.
    precision = mean_average_precision(means, labels)
    best = labels.gather(1, means.argmax(1, keepdim=True))[:, 0] > 0
    metrics = {
        "video_map": precision.mean,
        "video_precision_at_1": _share((best & decoded).sum(), len(labels)),
        "num_classes_scored": float(precision.num_classes),
        "num_classes_without_positives": float(precision.num_without_positives),
        "num_videos": float(len(labels)),
        "undecodable": float((~decoded).sum()),
    }
    return Evaluation(metrics=metrics, confusion=None, class_accuracy=None, scores=means.cpu())


def _share(part: Tensor, whole: int) -> float:
    return float(part) / whole if whole else float("nan")
