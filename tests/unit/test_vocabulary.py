from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.labelsets import ClassName, kinetics400, read_labelset
from pipeline.store import FolderStore
from pipeline.vocabulary import (
    Query,
    concept_queries,
    lemma_of,
    merge_classes,
    normalise,
    read_concepts,
    read_queries,
    sentence_queries,
    write_vocabulary,
)

DATA = Path(__file__).parents[3] / "shared" / "data"
official = pytest.mark.skipif(not DATA.is_dir(), reason="needs the official lists in ../shared/data")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("HorseRiding", "horse riding"),
        ("brush_hair", "brush hair"),
        ("Blow-drying hair", "blow drying hair"),
        ("adult+male+singing", "adult male singing"),
        ("bend/bow (at the waist)", "bend bow at the waist"),
        ("Putting [something] onto [something]", "putting something onto something"),
        ("ABCNews", "abc news"),
        ("playing DVDs", "playing dvds"),
        ("rock 'n' roll", "rock n roll"),
        ("child\N{RIGHT SINGLE QUOTATION MARK}s play", "child's play"),
        ("Snowboarding  ", "snowboarding"),
        ("Canci\N{LATIN SMALL LETTER O WITH ACUTE}n", "canci\N{LATIN SMALL LETTER O WITH ACUTE}n"),
    ],
)  # fmt: skip
def test_normalise(raw, words):
    assert normalise(raw) == words


@given(st.text(max_size=40))
def test_normalising_and_lemmatising_normal_words_changes_nothing_more(raw):
    words = normalise(raw)
    assert normalise(words) == words
    assert words == words.lower().strip()


@pytest.mark.parametrize(
    ("word", "lemma"),
    [
        ("playing", "play"), ("riding", "ride"), ("cutting", "cut"), ("swinging", "swing"), ("knives", "knife"),
        ("geese", "goose"), ("teeth", "tooth"), ("pushups", "pushup"), ("situps", "situp"), ("leaves", "leaf"),
        ("left", "left"), ("ground", "ground"), ("does", "do"), ("morning", "morning"), ("evening", "evening"),
        ("something", "something"), ("tennis", "tennis"), ("billiards", "billiards"), ("red", "red"), ("bed", "bed"),
        ("gas", "gas"), ("as", "as"), ("2m", "2m"), ("grilled", "grill"),
    ],
)  # fmt: skip
def test_lemmas(word, lemma):
    assert lemma_of(word) == lemma


def test_classes_are_merged_on_equal_lemmas_only_and_keep_where_they_came_from():
    names = [
        ClassName("ucf101", "HorseRiding"),
        ClassName("mine", "horse riding"),
        ClassName("hmdb51", "ride_horse"),
        ClassName("mine", "horse riding"),
    ]
    concepts = merge_classes(names)
    assert [c.concept for c in concepts] == ["horse ride", "ride horse"]
    assert concepts[0].sources == (ClassName("mine", "horse riding"), ClassName("ucf101", "HorseRiding"))
    assert merge_classes(reversed(names)) == concepts


@pytest.mark.parametrize(
    ("search_text", "texts"),
    [("lemma", ["rake leaf"]), ("original", ["raking leaves"]), ("both", ["rake leaf", "raking leaves"])],
)
def test_what_is_searched_for_can_be_the_lemma_the_original_or_both(search_text, texts):
    concepts = merge_classes([ClassName("k", "raking leaves")], search_text=search_text)
    assert concept_queries(concepts) == [Query(text=t, concept="rake leaf", kind="concept") for t in texts]


def test_a_name_without_words_is_refused():
    with pytest.raises(UserError, match=r"class name '\?\?' of mine has no word in it"):
        merge_classes([ClassName("mine", "??")])


def test_sentences_have_length_limits_and_are_asked_once():
    captions = [
        "A dog runs",
        "A man is riding two horses.",
        "a man is riding TWO horse",
        "one two three four five six seven",
    ]
    queries = sentence_queries(captions, min_words=4, max_words=6)
    assert queries == [Query(text="a man be ride two horse", concept="a man be ride two horse", kind="sentence")]
    assert sentence_queries(captions[1:2], search_text="original")[0].text == "a man is riding two horses"
    with pytest.raises(UserError, match="need 1 <= min_words <= max_words"):
        sentence_queries([], min_words=7, max_words=6)


def test_a_vocabulary_is_read_back_as_it_was_written(tmp_path):
    store = FolderStore(tmp_path)
    concepts = merge_classes([ClassName("a", "Diving"), ClassName("b", "dive, really"), ClassName("b", "dive")])
    queries = concept_queries(concepts) + sentence_queries(["a person dives into the blue sea"])
    write_vocabulary(store, concepts=concepts, queries=queries)
    assert read_concepts(store) == concepts
    assert read_queries(store) == queries
    assert store.read("vocabulary/merges.csv").decode() == "concept,dataset,raw\ndive,a,Diving\ndive,b,dive\n"


def test_reading_without_a_vocabulary_names_the_verb(tmp_path):
    with pytest.raises(UserError, match="run the verb 'vocabulary' first"):
        read_queries(FolderStore(tmp_path))


@official
def test_official_lists_merge_as_counted():
    ucf = read_labelset(DATA / "ucf101" / "classInd.txt", format="ucf101")
    hmdb = read_labelset(DATA / "hmdb51" / "classInd.txt", format="hmdb51")
    noisy = read_labelset(DATA / "noisyactions2m" / "multi_classInd25k.txt", format="noisyactions2m")
    assert [len(merge_classes(names)) for names in (ucf, hmdb, kinetics400())] == [101, 51, 400]
    together = {c.concept: c for c in merge_classes([*ucf, *hmdb, *kinetics400()])}
    assert len(together) == 514
    assert {name.raw for name in together["brush hair"].sources} == {"brush hair", "brushing hair"}
    assert "ride horse" in together
    assert "horse ride" in together
    # Lower case alone merges the 792 case duplicates; lemmas merge some more.
    assert len({name.raw.casefold() for name in noisy}) == 5499 - 792
    assert 4500 < len(merge_classes(noisy)) < 5499 - 792
