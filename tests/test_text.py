"Spans, offsets and windows hold for any text that Python can hold."
import subprocess
import sys

import pytest
from hypothesis import given, settings, strategies as st

from bert_ner.core import TAGS, TYPES
from bert_ner.infer import Tagger
from bert_ner.spans import spans_to_tags, split_words, tags_to_spans

odd = st.sampled_from(["Paris", "New York", " ", "\r\n", "\0", "🎉", "👩‍👩‍👧", "e\u0301", "ﬁ", "İstanbul", "U.S.", "Mr. ", "x" * 10_000, "\u200b", "\u00a0", "東京", "'s", "n't", "<b>"])
texts = st.one_of(st.text(), st.lists(st.one_of(odd, st.text(max_size=5))).map("".join))


@pytest.fixture(scope="module")
def tagger(mini_tagger_folder): return Tagger.load(mini_tagger_folder)


@given(texts)
@settings(max_examples=500, deadline=None)
def test_words_hold_all_but_white_space(text):
    spans = split_words(text)
    assert "".join(text[a:b] for a, b in spans) == "".join(text.split())
    assert all(a < b for a, b in spans) and all(b <= c for (_, b), (c, _) in zip(spans, spans[1:]))


@given(text=texts)
@settings(max_examples=300, deadline=None)
def test_an_entity_is_its_own_text(tagger, text):
    entities = tagger.tag(text)
    for e in entities:
        assert text[e.start:e.end] == e.text and e.text.strip() == e.text != "" and e.label in TYPES and 0 <= e.score <= 1
    assert all(a.end <= b.start for a, b in zip(entities, entities[1:]))


@given(many=st.lists(texts, max_size=6))
@settings(max_examples=100, deadline=None)
def test_batched_equals_one_by_one(tagger, many): assert tagger.tag_batch(many) == [tagger.tag(t) for t in many]


@pytest.mark.parametrize("text", ["", " \r\n\t ", "\0", "🎉", "x" * 10_000, "e\u0301"])
def test_texts_without_entities(tagger, text): assert tagger.tag(text) == []


def test_a_text_longer_than_the_window_loses_nothing(tagger):
    "2,000 places among 8,000 words, where the window holds 62 pieces."
    text = "Paris met in bush " * 2000
    assert sum(e.text == "Paris" for e in tagger.tag(text)) == 2000


@given(st.data())
def test_spans_and_tags_are_two_views_of_one_thing(data):
    n = data.draw(st.integers(0, 30))
    cuts = sorted(data.draw(st.sets(st.integers(0, n), max_size=10)))
    spans = [(data.draw(st.sampled_from(TYPES)), a, b) for a, b in zip(cuts, cuts[1:]) if data.draw(st.booleans())]
    assert tags_to_spans(spans_to_tags(spans, n)) == spans


@given(st.lists(st.sampled_from(TAGS), max_size=20))
def test_spans_are_seqevals_strict_ones(tags):
    from seqeval.scheme import IOB2, Entities
    entities = Entities([tags], IOB2).entities[0]
    assert tags_to_spans(tags) == [(e.tag, e.start, e.end) for e in entities]


@pytest.mark.parametrize("module", ["core", "spans", "pieces", "infer", "triton"])
def test_the_servers_modules_import_without_torch(module):
    "The Triton server's environment has numpy, tokenizers and onnxruntime, nothing more."
    code = f"""import sys
for name in ("torch", "transformers", "datasets", "pandas", "seqeval", "yaml", "fastcore", "tqdm"): sys.modules[name] = None
import bert_ner.{module}"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""
