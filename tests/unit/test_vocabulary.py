from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs import vocabulary
from jobs.vocabulary import Config, run
from pipeline import captions, labelsets
from pipeline.errors import UserError
from pipeline.labelsets import ClassName, kinetics400, read_labelset
from pipeline.store import FolderStore
from pipeline.vocabulary import (
    Query,
    concept_queries,
    lemma_of,
    merge_classes,
    merges_csv,
    normalise,
    read_concepts,
    read_queries,
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
        ("gas", "gas"), ("as", "as"), ("2m", "2m"), ("grilled", "grill"), ("bowling", "bowling"), ("bowls", "bowl"),
        ("sunglasses", "sunglasses"), ("games", "game"), ("lost", "lost"), ("texting", "texting"),
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


def names(*pairs):
    return [ClassName(*pair) for pair in pairs]


def test_names_in_another_order_are_merged_only_on_request_under_the_key_that_most_names_have():
    given = names(
        ("ucf101", "HorseRiding"), ("hvu", "horse riding"), ("hmdb51", "ride_horse"), ("k", "riding a horse"),
        ("k", "mowing lawn"), ("anet", "Mowing the lawn"), ("k", "waxing the wax"),
    )  # fmt: skip
    assert len(merge_classes(given)) == 6
    concepts = merge_classes(given, merge_order=True, search_text="original")
    assert [c.concept for c in concepts] == ["horse ride", "mow lawn", "wax the wax"]
    assert concepts[0].query_texts == ("horse riding", "ride horse", "riding a horse")
    assert merge_classes(reversed(given), merge_order=True, search_text="original") == concepts
    assert concept_queries(merge_classes(given, merge_order=True))[0] == Query(
        text="horse ride", concept="horse ride", kind="concept"
    )


@pytest.mark.parametrize(
    "pair",
    [
        names(("hvu", "dog sled"), ("hvu", "sled dog")),  # no verb: two things
        names(("hvu", "cheese pizza"), ("hvu", "pizza cheese")),
        names(("hvu", "bow tie"), ("k", "tying bow tie")),  # not the same words
        names(("mine", "Pulling from left to right"), ("mine", "Pulling from right to left")),
        names(("mine", "turning left hand"), ("mine", "hand turning left")),
        names(("mine", "Putting something on a cup"), ("mine", "Putting a cup on something")),
        names(("something_something", "Closing doors"), ("mine", "door closing")),
        names(("something_something v1", "Closing doors"), ("mine", "door closing")),
        names(("mine", "moving paper into box"), ("mine", "moving box into paper")),
    ],
)
def test_names_whose_order_matters_stay_apart(pair):
    assert len(merge_classes(pair, merge_order=True)) == 2


def test_a_doubtful_merge_is_shown_for_review_and_can_be_kept_apart():
    given = names(("hvu", "frying pan"), ("k", "pan frying"), ("k", "frying pans"), ("mine", "a pan"), ("k", "pan"))
    store_text = merges_csv(merge_classes(given, merge_order=True))
    assert store_text.splitlines() == [
        "concept,dataset,raw,tier",
        "fry pan,hvu,frying pan,lemma",
        "fry pan,k,frying pans,lemma",
        "fry pan,k,pan frying,order",
        "pan,k,pan,lemma",
        "pan,mine,a pan,order",
    ]
    apart = merge_classes(given, merge_order=True, keep_apart=["pan fry"])
    assert [c.concept for c in apart] == ["fry pan", "pan", "pan fry"]
    with pytest.raises(UserError, match="keep_apart 'frying pan' is no concept: write it as in the column concept"):
        merge_classes(given, merge_order=True, keep_apart=["frying pan"])


def test_no_names_are_no_vocabulary():
    with pytest.raises(UserError, match="an empty vocabulary has nothing to search for"):
        merge_classes([])


def test_a_vocabulary_is_read_back_as_it_was_written(tmp_path):
    store = FolderStore(tmp_path)
    concepts = merge_classes([ClassName("a", "Diving"), ClassName("b", "dive, really"), ClassName("b", "dive")])
    queries = [*concept_queries(concepts), Query(text="a person dive", concept="a person dive", kind="sentence")]
    write_vocabulary(store, concepts=concepts, queries=queries)
    assert read_concepts(store) == concepts
    assert read_queries(store) == queries
    assert store.read("vocabulary/merges.csv").decode() == (
        "concept,dataset,raw,tier\ndive,a,Diving,lemma\ndive,b,dive,lemma\n"
    )


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
    concepts = {c.concept: c for c in merge_classes(noisy)}
    assert len(concepts) == 4575
    assert {name.raw for name in concepts["pond"].sources} == {"pond", "Pond"}
    assert {"bowl", "bowling", "box", "boxing", "angle", "angling"} & set(concepts) == {
        "bowl", "bowling", "box", "boxing", "angle", "angling",
    }  # fmt: skip
    everything = [*ucf, *hmdb, *noisy, *kinetics400()]
    assert len(merge_classes(everything)) == 4688
    assert len(merge_classes(everything, merge_order=True)) == 4659


def test_the_verb_reads_labels_and_captions_and_tells_what_became_of_them(tmp_path, capsys):
    (tmp_path / "classes.txt").write_text("c000 Holding some clothes\nc001 Hold some clothes\n")
    (tmp_path / "a.txt").write_text("A man is riding two brown horses. He falls.\n")
    (tmp_path / "b.tsv").write_text("a man is riding two BROWN horses\thttps://a.b/c.jpg\n")
    config = Config(
        root=str(tmp_path / "root"),
        labels=((f"charades=mine:{tmp_path}/classes.txt",),),
        captions=((f"plain:{tmp_path}/a.txt", f"conceptual_captions:{tmp_path}/b.tsv"),),
    )
    assert run(config) == 0
    store = FolderStore(tmp_path / "root")
    assert [(q.text, q.kind) for q in read_queries(store)] == [
        ("hold some clothes", "concept"),
        ("a man be ride two brown horse", "sentence"),
    ]
    assert {name.dataset for name in read_concepts(store)[0].sources} == {"mine"}
    told = capsys.readouterr().out
    assert "charades: 2 classes, the official list has 157: is the file whole?" in told
    assert "1 concepts merged by lemma" in told
    assert "repeated" in told
    assert "too_short" in told
    assert "2 names -> 1 concepts, 1 sentences -> 2 queries" in told


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({}, "no action names: give --labels FORMAT:PATH, --names, --kinetics400 or --captions FORMAT:PATH"),
        (
            {"labels": (("classInd.txt",),)},
            "--labels 'classInd.txt': write FORMAT:PATH, FORMAT being one of plain",
        ),
        ({"labels": (("ucf101=:x",),)}, "--labels 'ucf101=:x': write FORMAT:PATH"),
        (
            {"captions": (("coc:x.json",),)},
            "--captions 'coc:x.json': write FORMAT:PATH, FORMAT being one of plain",
        ),
        ({"captions": (("plain:{tmp}/short.txt",),)}, "no sentence of 5 to 20 words in .*short.txt: set --min-words"),
        ({"names": ("a",), "min_words": 9, "max_words": 3}, "need 1 <= min_words <= max_words"),
        ({"names": ("a",), "max_sentences": 0}, "max_sentences 0 must be at least 1, or None for all"),
    ],
)
def test_the_verb_answers_a_mistake_with_a_line_and_writes_nothing(tmp_path, fields, match):
    (tmp_path / "short.txt").write_text("too short\n")
    if "captions" in fields:
        fields = {"captions": tuple(tuple(t.replace("{tmp}", str(tmp_path)) for t in g) for g in fields["captions"])}
    with pytest.raises(UserError, match=match):
        run(Config(root=str(tmp_path / "root"), **fields))
    assert not (tmp_path / "root").exists()


def test_the_help_names_every_format_and_its_official_file():
    for formats in (labelsets.FORMATS, captions.FORMATS):
        for name, kind in formats.items():
            assert f"{name} " in vocabulary.__doc__
            assert kind.file in vocabulary.__doc__
