"`bert_ner` from outside: what `from bert_ner import …` gives, what it costs, and where results go."
import copy
import json
import pickle
import re
import subprocess
import sys

import pytest

import bert_ner
from bert_ner import BertNerError, Entities, Entity, Tagger, tagger
from bert_ner.core import ROOT
from bert_ner.corpus import iter_conll, iter_tagged_tokens

TEXT = "Mr. Bush met Paris in New York on Monday.\nThey met Paris."


@pytest.fixture(scope="module")
def found(mini_tagger_folder): return Tagger.from_pretrained(mini_tagger_folder, "onnx").tag(TEXT)


def test_importing_costs_next_to_nothing():
    code = (
        "import sys; import bert_ner; a = {'numpy', 'tokenizers'} & set(sys.modules); from bert_ner import "
        "Tagger, Entity, TritonTagger;"
        "print(sorted(a), sorted({'torch', 'transformers', 'fastcore', 'pandas', 'spacy', 'onnxruntime', "
        "'datasets'} & set(sys.modules)))"
    )
    assert (
        subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True).stdout.strip()
        == "[] []"
    )


def test_every_public_name_is_there_and_no_other():
    public = {n: getattr(bert_ner, n) for n in bert_ner.__all__}
    assert len(public) == 7 and set(public) == set(bert_ner._HOME) <= set(dir(bert_ner))
    assert all(v.__module__ == f"bert_ner.{bert_ner._HOME[n]}" and v.__doc__ for n, v in public.items())
    with pytest.raises(AttributeError, match="no attribute 'Taggerr'"): bert_ner.Taggerr


def test_the_package_says_that_it_is_typed():
    assert (ROOT/"bert_ner"/"py.typed").is_file() and '"py.typed"' in (ROOT/"setup.py").read_text()


def test_results_are_lists_that_know_their_text(found, mini_tagger_folder):
    plain = list(found)
    assert type(found) is Entities and type(plain) is list and found == plain and plain == found and found.text == TEXT
    assert [type(e) for e in found] == [Entity] * 5 and len(found[:2]) == 2 and found[:2].text == TEXT
    for again in (pickle.loads(pickle.dumps(found)), copy.copy(found), copy.deepcopy(found)):
        assert (type(again), again, again.text) == (Entities, found, TEXT)
    assert json.loads(found.to_json()) == [e.to_dict() for e in found]
    tagger = Tagger.from_pretrained(mini_tagger_folder, "onnx")
    assert [(e, e.text) for e in tagger.pipe([TEXT, ""])] == [(found, TEXT), ([], "")]


def test_results_show_themselves(found):
    assert (
        repr(found).splitlines()[2].split() == ["22", "30", "geo", f"{found[2].score:.3f}", "New", "York"]
        and len(repr(found).splitlines()) == 5
    )
    html = found._repr_html_()
    assert html.count("<mark") == 5 and 'data-label="tim"' in html
    assert repr(Entities([], "x")) == "no entities" and "<mark" not in Entities([], "x")._repr_html_()
    with pytest.raises(ValueError, match="another text"): Entities(found, "another")._repr_html_()


def test_conll_is_what_the_data_stage_reads(found):
    rows = list(iter_tagged_tokens(iter_conll(found.to_conll().splitlines()), None))
    assert [w for _, w, _ in rows] == "Mr. Bush met Paris in New York on Monday . They met Paris .".split()
    assert [i for i, (opens, *_) in enumerate(rows) if opens] == [0, 10]
    assert [t for *_, t in rows] == "B-per I-per O B-geo O B-geo I-geo O B-tim O O O B-geo O".split()


def test_a_data_frame_has_a_row_an_entity(found):
    table = found.to_pandas()
    assert (
        list(table.columns) == ["start", "end", "label", "text", "score"]
        and len(table) == 5
        and (table.text == [e.text for e in found]).all()
    )


def test_a_data_frame_without_rows_has_the_types_of_a_full_one(found):
    full, empty = found.to_pandas(), Entities([], "x").to_pandas()
    assert list(empty.dtypes) == list(full.dtypes) and len(empty) == 0
    assert (full.start.dtype, full.score.dtype) == ("int64", "float64") and list(
        Entities(found[:1], TEXT).to_pandas().dtypes
    ) == list(full.dtypes)


def test_spacy_is_asked_for_where_it_is_not_installed(found, monkeypatch):
    monkeypatch.setattr(tagger, "find_spec", lambda name: None)
    with pytest.raises(BertNerError, match=r"bert-ner\[spacy\]"): found.to_spacy()


def every(text, *words):
    return Entities(
        [
            Entity(m.start(), m.end(), "geo", m.group(), round(0.5 + i / 100, 2))
            for i, m in enumerate(re.finditer("|".join(words), text))
        ],
        text,
    )


@pytest.mark.spacy
@pytest.mark.parametrize("entities", [
    every(TEXT, "Mr. Bush", "Paris", "New York", "Monday"), every('"Paris",\'London\',(Berlin)', "Paris", "London", "Berlin"), every("Paris/London-Berlin", "Paris", "London", "Berlin"), every("ParisLondon", "Paris", "London"),
    every("Paris", "ar"), every("in\n\n  Paris's  \t U.S.-led", "Paris", "U.S."), every("New\u200b York\u2019s", "New\u200b York"), every("", "x"), every("x" * 1_000_001 + " Paris", "Paris"), every("👩‍👩‍👧Paris🎉", "Paris"), every("東京へ", "東京"),
    Entities([], "nothing"), every("don't can't", "do", "ca")], ids=lambda e: ascii(e.text[:20]))
def test_spacy_gets_every_entity_and_its_score(entities):
    import spacy
    for doc in (entities.to_spacy(), entities.to_spacy(spacy.blank("xx"))):
        assert doc.text == entities.text and [(e.start_char, e.end_char, e.label_, e.text) for e in doc.ents] == [
            (e.start, e.end, e.label, e.text) for e in entities
        ]
        stored = spacy.tokens.Doc(doc.vocab).from_bytes(doc.to_bytes())
        group = stored.spans["bert_ner"]
        assert [(s.text, x) for s, x in zip(group, group.attrs["scores"], strict=True)] == [
            (e.text, e.score) for e in entities
        ]


@pytest.mark.spacy
def test_spacy_refuses_what_it_cannot_hold():
    with pytest.raises(ValueError, match="overlaps"):
        Entities([Entity(1, 3, "x", "ar", 1.), Entity(0, 2, "y", "Pa", 1.)], "Paris").to_spacy()
    with pytest.raises(ValueError, match="another text"):
        Entities([Entity(0, 5, "geo", "Paris", 1.)], "London").to_spacy()


@pytest.mark.spacy
def test_spacy_keeps_the_words_that_no_entity_cuts():
    import spacy
    text = """They don't like "Paris",'London' or Oslo."""
    words = [t.text for t in spacy.blank("en")(text)]
    found = [t.text for t in every(text, "Paris", "London", "Oslo").to_spacy()]
    assert (
        words != found
        and [w for w in words if w not in found] == ["Paris\",'London"]
        and [t.text for t in Entities([], text).to_spacy()] == words
    )
