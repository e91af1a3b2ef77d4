import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.sentences import Choice, choose_sentences, sentence_queries
from pipeline.vocabulary import Query

MANY = [f"a man number {number} rides a horse" for number in range(300)]
CAPTIONS = [
    "A dog runs",
    "A man is riding two horses.",
    "a man is riding TWO horse",
    "one two three four five six seven",
    "!",
]


def test_sentences_have_length_limits_and_are_asked_once():
    chosen = choose_sentences(CAPTIONS, Choice(min_words=4, max_words=6))
    assert sentence_queries(chosen) == [
        Query(text="a man be ride two horse", concept="a man be ride two horse", kind="sentence")
    ]
    assert chosen.outcomes == {"kept": 1, "repeated": 1, "too_short": 2, "too_long": 1}
    assert [q.text for q in sentence_queries(chosen, search_text="original")] == ["a man is riding two horse"]
    assert {q.text for q in sentence_queries(chosen, search_text="both")} == {
        "a man be ride two horse", "a man is riding two horse",
    }  # fmt: skip


def test_limits_must_make_sense():
    with pytest.raises(UserError, match="sentences of 7 to 6 words: need 1 <= min_words <= max_words"):
        Choice(min_words=7, max_words=6)
    with pytest.raises(UserError, match="max_sentences 0 must be at least 1"):
        Choice(max_sentences=0)


def test_the_choice_is_the_same_in_any_order_and_other_for_another_seed():
    chosen = choose_sentences(MANY, Choice(max_sentences=40))
    assert len(chosen.sentences) == 40
    assert list(choose_sentences(reversed(MANY), Choice(max_sentences=40)).sentences.items()) == list(
        chosen.sentences.items()
    )
    assert chosen.outcomes == {"kept": 40, "not_chosen": 260}
    other = choose_sentences(MANY, Choice(max_sentences=40, seed=1))
    assert len(set(other.sentences) & set(chosen.sentences)) < 20
    assert list(choose_sentences(MANY, Choice(max_sentences=None)).sentences)[:40] == list(chosen.sentences)


def test_more_sentences_only_add_and_another_file_replaces_only_what_it_beats():
    few = list(choose_sentences(MANY[:200], Choice(max_sentences=40)).sentences)
    assert list(choose_sentences(MANY[:200], Choice(max_sentences=90)).sentences)[:40] == few
    both = list(choose_sentences(MANY, Choice(max_sentences=40)).sentences)
    stayed = [lemmas for lemmas in both if lemmas in few]
    assert stayed == few[: len(stayed)]  # in the same order, the best first
    assert 15 < len(stayed) < 40


@given(st.lists(st.sampled_from([*CAPTIONS, *MANY[:12]])), st.integers(1, 5))
def test_what_became_of_sentences_adds_up(captions, most):
    chosen = choose_sentences(captions, Choice(min_words=4, max_words=6, max_sentences=most))
    assert chosen.outcomes.total() == len(captions)
    assert chosen.outcomes["kept"] == len(chosen.sentences) <= most


def test_only_kept_sentences_are_held():
    sentences = (" ".join("yes" if bit == "1" else "no" for bit in f"{number:016b}") for number in range(20_000))
    tracemalloc.start()
    assert choose_sentences(sentences, Choice(max_sentences=50)).outcomes.total() == 20_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300_000  # all would be 5 MB
