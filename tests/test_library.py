"`bert_ner` from outside: what `from bert_ner import …` gives, what it costs, and where results go."
import copy
import json
import pickle
import subprocess
import sys
from importlib.util import find_spec

import pytest

import bert_ner
from bert_ner import BertNerError, Entities, Entity, Tagger
from bert_ner.core import ROOT
from bert_ner.data import conll_rows, tagged_rows

TEXT = "Mr. Bush met Paris in New York on Monday.\nThey met Paris."


@pytest.fixture(scope="module")
def found(mini_tagger_folder): return Tagger.load(mini_tagger_folder, "onnx").tag(TEXT)


def test_importing_costs_next_to_nothing():
    code = ("import sys; import bert_ner; a = {'numpy', 'tokenizers'} & set(sys.modules); from bert_ner import Tagger, Entity, TritonTagger;"
            "print(sorted(a), sorted({'torch', 'transformers', 'fastcore', 'pandas', 'spacy', 'onnxruntime', 'datasets'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True).stdout.strip() == "[] []"


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
    for again in (pickle.loads(pickle.dumps(found)), copy.copy(found), copy.deepcopy(found)): assert (type(again), again, again.text) == (Entities, found, TEXT)
    assert json.loads(found.to_json()) == [e.as_dict() for e in found]
    tagger = Tagger.load(mini_tagger_folder, "onnx")
    assert [(e, e.text) for e in tagger.stream([TEXT, ""])] == [(found, TEXT), ([], "")]


def test_results_show_themselves(found):
    assert repr(found).splitlines()[2].split() == ["22", "30", "geo", f"{found[2].score:.3f}", "New", "York"] and len(repr(found).splitlines()) == 5
    html = found._repr_html_()
    assert html.count("<mark") == 5 and 'data-label="tim"' in html
    assert repr(Entities([], "x")) == "no entities" and "<mark" not in Entities([], "x")._repr_html_()
    with pytest.raises(ValueError, match="another text"): Entities(found, "another")._repr_html_()


def test_conll_is_what_the_data_stage_reads(found):
    rows = list(tagged_rows(conll_rows(found.to_conll().splitlines()), None))
    assert [w for _, w, _ in rows] == "Mr. Bush met Paris in New York on Monday . They met Paris .".split()
    assert [i for i, (opens, *_) in enumerate(rows) if opens] == [0, 10]
    assert [t for *_, t in rows] == "B-per I-per O B-geo O B-geo I-geo O B-tim O O O B-geo O".split()


def test_a_data_frame_has_a_row_an_entity(found):
    table = found.to_pandas()
    assert list(table.columns) == ["start", "end", "label", "text", "score"] and len(table) == 5 and (table.text == [e.text for e in found]).all()


def test_spacy_gets_the_same_entities_or_is_asked_for(found):
    "Where spaCy is not installed (it is an extra), the sentence that says so is what is tested."
    if find_spec("spacy") is None:
        with pytest.raises(BertNerError, match="pip install spacy"): found.to_spacy()
        return
    import spacy
    for doc in (found.to_spacy(), found.to_spacy(spacy.blank("en"))):
        assert doc.text == TEXT and [(e.start_char, e.end_char, e.label_) for e in doc.ents] == [(e.start, e.end, e.label) for e in found]
    inside = Entities([Entity(1, 3, "x", "ar", 1.), Entity(0, 2, "y", "Pa", 1.)], "Paris")
    assert [e.text for e in inside.to_spacy().ents] == ["Paris"]
