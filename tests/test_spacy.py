"The spaCy component, as a program finds it that imports spaCy alone."
import subprocess
import sys

import pytest

from bert_ner import Tagger

pytestmark = pytest.mark.spacy
TEXTS = ["Angela Merkel met officials in Paris on Monday.", "", "Mr. Bush flew to New York.\nHe stayed.", "Zürich 🎉 and 東京"] * 8


def test_found_by_its_entry_point(tmp_path):
    code = """
import spacy
nlp = spacy.blank("en"); nlp.add_pipe("bert_ner", config=dict(labels=dict(per="PERSON")))
print([(e.text, e.label_) for e in nlp("Angela Merkel met officials in Paris.").ents])
nlp.to_disk("pipeline"); again = spacy.load("pipeline")
print([(e.text, e.label_) for e in again("Angela Merkel met officials in Paris.").ents])
"""
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert (said.returncode, said.stderr) == (0, ""), said.stderr
    first, second = said.stdout.splitlines()
    assert first == second == "[('Angela Merkel', 'PERSON'), ('Paris', 'geo')]"


def test_the_taggers_entities(tmp_path):
    "Alone, in a stream and in several processes; each score is the tagger's."
    import spacy
    def pipeline(engine="auto"):
        nlp = spacy.blank("en")
        nlp.add_pipe("bert_ner", config=dict(engine=engine))
        return nlp
    nlp = pipeline()
    expected = [[(e.start, e.end, e.label, e.score) for e in found] for found in Tagger.from_pretrained().tag_batch(TEXTS)]
    def found(docs): return [[(e.start_char, e.end_char, e.label_, e._.score) for e in d.ents] for d in docs]
    assert found(nlp.pipe(TEXTS, batch_size=5)) == expected
    assert found(map(nlp, TEXTS[:4])) == expected[:4]


def test_several_processes():
    "Each opens its own model; after OpenVINO was in use here they say that it cannot be."
    code = """
import spacy
from bert_ner import Tagger
texts = ["In Paris.", "Mr. Bush flew to New York.", "", "On Monday."] * 4
for engine in ("auto", "onnx-int8"):
    nlp = spacy.blank("en"); nlp.add_pipe("bert_ner", config=dict(engine=engine))
    several = [[(e.text, e.label_) for e in d.ents] for d in nlp.pipe(texts, batch_size=4, n_process=2)]
    alone = [[(e.text, e.label_) for e in d.ents] for d in nlp.pipe(texts)]
    print(several == alone == [[(e.text, e.label) for e in f] for f in Tagger.from_pretrained(None, "onnx-int8").tag_batch(texts)])
again = [[(e.text, e.label_) for e in d.ents] for d in nlp.pipe(texts, batch_size=4, n_process=2)]
print(again == alone)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert (said.returncode, said.stdout) == (0, "True\nTrue\nTrue\n"), said.stderr


def test_an_entity_inside_a_token():
    "It is widened to the token; where two share one, `ents` has one and `spans` both."
    import spacy
    from spacy.tokens import Doc
    nlp = spacy.blank("en")
    component = nlp.add_pipe("bert_ner")
    doc = component(Doc(nlp.vocab, words=["Paris,Berlin", "agree"]))
    assert [s.label_ for s in doc.spans["bert_ner"]] == ["geo", "geo"] and [e.text for e in doc.ents] == ["Paris,Berlin"]
