"""Titles, descriptions, tags, comments -> what a video is about, by zero-shot inference (paper, appendix A.2).

A network trained on natural language inference is asked of each text and each of YouTube-8M's verticals whether "This
example is {vertical}." follows. Verticals are independent: each one's score is the softmax of entailment against
contradiction. A video's entities are those of any of its texts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pipeline.errors import UserError
from pipeline.records import VideoRecord

logger = logging.getLogger(__name__)

VERTICALS = (
    "Games", "Autos & Vehicles", "Arts & Entertainment", "Sports", "Pets & Animals", "Food & Drink",
    "Hobbies & Leisure", "Science", "Internet & Telecom", "Shopping", "Beauty & Fitness", "Law & Government",
    "Computers & Electronics", "Business & Industrial", "Jobs & Education", "Home & Garden", "News", "Travel",
    "Reference", "Health", "People & Society", "Real Estate", "Books & Literature", "Finance",
)  # fmt: skip
"""YouTube-8M's 24 top-level verticals; the paper speaks of 23 and does not name them."""

DEFAULT_MODEL = "facebook/bart-large-mnli"
HYPOTHESIS = "This example is {}."


@dataclass(frozen=True, kw_only=True, slots=True)
class EntitySettings:
    """How entities are told from text."""

    model: str = DEFAULT_MODEL
    """A folder with weights and tokenizer, or a name on the Hugging Face hub."""
    entities: tuple[str, ...] = VERTICALS
    threshold: float = 0.5
    """Least score; the paper gives none."""
    max_tokens: int = 256
    """Of a text and its hypothesis together; longer texts are cut."""
    tokens_per_batch: int = 8192
    """Padding included; bounds memory."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1 or not self.entities:
            raise UserError(
                f"threshold {self.threshold}, {len(self.entities)} entities: need 0 < threshold < 1, and one"
            )
        if not 16 <= self.max_tokens <= self.tokens_per_batch:
            raise UserError(f"max_tokens {self.max_tokens}: use 16 to tokens_per_batch ({self.tokens_per_batch})")


class EntityModel:
    """An NLI network with its tokenizer, ready on a device."""

    def __init__(self, settings: EntitySettings, *, device: torch.device | None = None) -> None:
        self.settings = settings
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._tokenizer, self._network = _load(settings.model)
        self._network.to(self.device).eval()
        self._entailment, self._contradiction = _find_labels(settings.model, self._network.config.label2id)

    def classify(self, texts: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """Distinct text -> its entities, in the order of the settings; empty texts have none."""
        found: dict[str, tuple[str, ...]] = {}
        for text, scores in self.score(texts).items():
            pairs = zip(self.settings.entities, scores, strict=True)
            found[text] = tuple(entity for entity, score in pairs if score >= self.settings.threshold)
        return found

    @torch.inference_mode()
    def score(self, texts: Iterable[str]) -> dict[str, list[float]]:
        """Distinct text that is not blank -> probability of each entity, float32, in the order of the settings."""
        distinct = sorted({text for text in texts if text.strip()})
        scores = torch.empty(len(distinct), len(self.settings.entities))
        for batch in self._batches(distinct):
            inputs = self._tokenizer.pad([pair for _, _, pair in batch], return_tensors="pt").to(self.device)
            logits = self._network(**inputs).logits.float()[:, [self._contradiction, self._entailment]]
            rows, columns = [row for row, _, _ in batch], [column for _, column, _ in batch]
            scores[rows, columns] = logits.softmax(dim=1)[:, 1].cpu()  # CPU-GPU sync
        return dict(zip(distinct, scores.tolist(), strict=True))

    def _batches(self, texts: Sequence[str]) -> Iterator[list[tuple[int, int, Mapping[str, Any]]]]:
        """(text, entity, tokens) in batches of like length, so that little is padding.

        The longest come first, so that memory runs out at once or never.
        """
        pairs: list[tuple[int, int, Mapping[str, Any]]] = []
        for column, entity in enumerate(self.settings.entities if texts else ()):  # tokenizers refuse no texts
            hypotheses = [HYPOTHESIS.format(entity)] * len(texts)
            encoded = self._tokenizer(
                list(texts), hypotheses, truncation="only_first", max_length=self.settings.max_tokens
            )
            keys = list(encoded.keys())
            pairs += [(row, column, {key: encoded[key][row] for key in keys}) for row in range(len(texts))]
        pairs.sort(key=lambda pair: -len(pair[2]["input_ids"]))
        start = 0
        while start < len(pairs):
            size = max(1, self.settings.tokens_per_batch // len(pairs[start][2]["input_ids"]))
            yield pairs[start : start + size]
            start += size


def _load(model: str) -> tuple[Any, Any]:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        network = AutoModelForSequenceClassification.from_pretrained(model)
        return AutoTokenizer.from_pretrained(model), network
    except (OSError, ValueError) as error:  # what transformers raises for no network, no such name, no weights in it
        known = "is a folder without a usable network" if Path(model).is_dir() else "could not be fetched"
        raise UserError(
            f"entity model {model!r} {known} ({str(error).splitlines()[0][:200]}): "
            f"name a folder that holds {DEFAULT_MODEL}'s config.json, model.safetensors and tokenizer files"
        ) from error


def _find_labels(model: str, label2id: Mapping[str, int]) -> tuple[int, int]:
    """Positions of entailment and contradiction among the network's outputs."""
    by_name = {name.lower(): position for name, position in label2id.items()}
    try:
        return by_name["entailment"], by_name["contradiction"]
    except KeyError as error:
        raise UserError(
            f"entity model {model!r} has the outputs {json.dumps(dict(label2id))}: "
            "it must have been trained on inference, with 'entailment' and 'contradiction'"
        ) from error


def texts_of(record: VideoRecord) -> tuple[str, ...]:
    """The texts that are classified, one per attribute that has any: title, description, tags, comments, concepts."""
    parts = (
        record.title,
        record.description,
        ", ".join(record.tags),
        " ".join(comment.text for comment in record.comments),
        ", ".join(record.concepts),
    )
    return tuple(part.strip() for part in parts if part.strip())


def find_entities(records: Sequence[VideoRecord], *, model: EntityModel) -> dict[str, tuple[str, ...]]:
    """Video id -> the union of its texts' entities, in the order of the settings; each distinct text is asked once."""
    by_text = model.classify(text for record in records for text in texts_of(record))
    found = {}
    for record in records:
        union = {entity for text in texts_of(record) for entity in by_text[text]}
        found[record.video_id] = tuple(entity for entity in model.settings.entities if entity in union)
    return found
