"Text that is no prose: tables pasted from a spreadsheet, paragraphs without full stops."
import asyncio

import pytest

from bert_ner.demo import tag_with_alternatives
from bert_ner.tagger import AsyncTagger, Tagger

PEOPLE = [
    ("John Smith", "London", "Barclays"),
    ("Maria Garcia", "Madrid", "Santander"),
    ("Kenji Sato", "Tokyo", "Toyota"),
    ("Anna Keller", "Paris", "Reuters"),
]


@pytest.fixture(scope="module")
def tagger(): return Tagger.from_pretrained()


def found(tagger, text): return [(e.text, e.label) for e in tagger.tag(text)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\u2028"])
@pytest.mark.parametrize("gap", ["\t", " \t", "\t\t", "\t "])
def test_no_entity_leaves_its_cell(tagger, gap, end):
    text = end.join(gap.join(row) for row in PEOPLE) + end
    entities = tagger.tag(text)
    assert all(text[e.start : e.end] == e.text for e in entities) and not any(
        "\t" in e.text or "\n" in e.text for e in entities
    )
    got = [(e.text, e.label) for e in entities]
    for name, city, firm in PEOPLE: assert (name, "per") in got and (city, "geo") in got and firm in dict(got)
    assert (
        tagger.tag_batch([text, "Paris"])[0] == entities
        and list(tagger.pipe([text]))[0] == entities
        and asyncio.run(AsyncTagger(tagger).tag(text)) == entities
    )
    assert tag_with_alternatives(tagger, text)[0] == entities                     # the page's way


def test_a_table_of_one_column_width(tagger):
    assert found(tagger, "Name\tCity\nAnna Keller\tParis")[-2:] == [("Anna Keller", "per"), ("Paris", "geo")]


@pytest.mark.parametrize("text, name", [("He flew from New\nYork to Paris.", "New\nYork"), ("\tHe flew from New\nYork to Paris.", "New\nYork"), ("He flew from New\r\nYork to Paris.\t", "New\r\nYork")])
def test_wrapped_prose_is_no_table(tagger, text, name): assert name in dict(found(tagger, text))


@pytest.mark.parametrize("blank", ["\n\n", "\n \t \n", "\r\n\r\n", "\u2029", "\n\f\n"])
def test_a_blank_line_ends_an_entity(mini_tagger_folder, blank):
    tagger = Tagger.from_pretrained(mini_tagger_folder, engine="onnx")
    assert found(tagger, f"In New{blank}York") == [("New", "geo"), ("York", "geo")]
    assert found(tagger, "In New\nYork") == [("New\nYork", "geo")]


@pytest.mark.parametrize("text", ["\t", "\t\t\n\t", "a\tb", "\tParis\t", "Paris\t" * 500, "\n".join("x\ty" for _ in range(500)), " \t" * 20_000 + "x", "\ud7ff\tParis\u200b\tNew\u00adYork"])
def test_odd_tables(tagger, text):
    for e in tagger.tag(text): assert text[e.start:e.end] == e.text and "\t" not in e.text
