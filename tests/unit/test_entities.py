import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import BartConfig, BartForSequenceClassification, PreTrainedTokenizerFast

from pipeline.entities import VERTICALS, EntityModel, EntitySettings, find_entities, texts_of
from pipeline.errors import UserError
from pipeline.records import Comment, VideoRecord

TEXTS = ["A dog plays in the park", "We cook pasta and sauce at home", "goal", "x " * 90]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny randomly initialised BART with a word-level tokenizer of its own, saved as any model is."""
    folder = tmp_path_factory.mktemp("bart")
    tokenizer = Tokenizer(models.WordLevel(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(special_tokens=["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.train_from_iterator([*TEXTS, *VERTICALS, "This example is ."], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>", bos_token="<s>", eos_token="</s>"
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=len(fast), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=128,
        pad_token_id=1, bos_token_id=0, eos_token_id=2, decoder_start_token_id=2, init_std=0.8,
        id2label={0: "contradiction", 1: "neutral", 2: "entailment"},
        label2id={"contradiction": 0, "neutral": 1, "entailment": 2},
    )  # fmt: skip
    BartForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model(folder):
    return EntityModel(EntitySettings(model=str(folder), max_tokens=64, tokens_per_batch=400))


def test_scores_are_those_of_each_pair_on_its_own(folder, model):
    scores = model.score(TEXTS)
    network = BartForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    for text, column in ((TEXTS[0], 0), (TEXTS[1], 5), (TEXTS[3], 23)):
        pair = tokenizer(
            text, f"This example is {VERTICALS[column]}.", truncation="only_first", max_length=64, return_tensors="pt"
        )
        with torch.no_grad():
            logits = network(**pair).logits[0]
        expected = torch.softmax(logits[[0, 2]], dim=0)[1].item()
        assert scores[text][column] == pytest.approx(expected, abs=1e-5)
    values = torch.tensor(list(scores.values()))
    assert values.shape == (4, 24)
    assert values.std() > 0.01


def test_each_distinct_text_is_asked_once_and_blank_ones_never(model):
    scores = model.score([TEXTS[0], TEXTS[2], TEXTS[0], "  ", ""])
    assert sorted(scores) == sorted([TEXTS[0], TEXTS[2]])
    assert model.score([]) == {}


def test_the_size_of_batches_does_not_change_scores(folder, model):
    few = EntitySettings(model=str(folder), entities=VERTICALS[:3], max_tokens=64, tokens_per_batch=64)
    together = model.score(TEXTS)
    for text, scores in EntityModel(few).score(TEXTS).items():
        assert scores == pytest.approx(together[text][:3], abs=1e-5)


def test_a_video_has_the_entities_of_all_its_texts(model):
    record = VideoRecord(
        video_id="1", title=TEXTS[0], description=" ", tags=("pasta", "sauce"), concepts=("goal",),
        comments=(Comment(author_hash="h", text="We cook", posted=1), Comment(author_hash="h", text="home", posted=2)),
    )  # fmt: skip
    assert texts_of(record) == (TEXTS[0], "pasta, sauce", "We cook home", "goal")
    scores = model.score(texts_of(record)).values()
    expected = tuple(v for column, v in enumerate(VERTICALS) if any(score[column] >= 0.5 for score in scores))
    found = find_entities([record, VideoRecord(video_id="2")], model=model)
    assert found == {"1": expected, "2": ()}
    assert len(expected) > 0


def test_a_model_that_cannot_be_had_is_told_with_the_way_out(tmp_path):
    with pytest.raises(
        UserError, match=r"is a folder without a usable network .* name a folder that holds facebook/bart"
    ):
        EntityModel(EntitySettings(model=str(tmp_path)))


def test_a_model_not_trained_on_inference_is_refused(folder, tmp_path):
    network = BartForSequenceClassification.from_pretrained(folder)
    network.config.id2label = {0: "bad", 1: "fine", 2: "good"}
    network.config.label2id = {"bad": 0, "fine": 1, "good": 2}
    network.save_pretrained(tmp_path)
    PreTrainedTokenizerFast.from_pretrained(folder).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="trained on inference, with 'entailment' and 'contradiction'"):
        EntityModel(EntitySettings(model=str(tmp_path)))


@pytest.mark.parametrize(
    ("change", "match"), [({"threshold": 1.0}, "threshold 1.0"), ({"max_tokens": 8}, "max_tokens 8: use 16 to")]
)
def test_settings_are_checked(change, match):
    with pytest.raises(UserError, match=match):
        EntitySettings(**change)
