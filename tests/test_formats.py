"Every format of annotated text gives back what was written, whatever the text; libraries that own a format read it as we do."
import csv
import io
import json
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bert_ner.core import BertNerError
from bert_ner.corpus import corpus_csv
from bert_ner.formats import (
    WRITERS, AnnotatedText, ConversionReport, check_spans, convert, detect_format, read_annotated, write_annotated,
)
from bert_ner.synthetic import generate_corpus

SPANS = ["prodigy", "doccano", "label-studio", "jsonl", "brat", pytest.param("spacy", marks=pytest.mark.spacy)]
TAGS = ["conll", "csv", "datasets"]
SUFFIX = {"prodigy": ".jsonl", "doccano": ".jsonl", "label-studio": ".json", "jsonl": ".jsonl", "spacy": ".spacy", "conll": ".conll", "csv": ".csv"}
GONE = re.compile(r"rejected: (it has no word|at \d+: )")
FEW = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
CHARS = st.sampled_from("aZ9é .,-'\"#\n\t\r()@ \u00a0🎉👩‍🚒日本\u200bم́")


@st.composite
def documents(draw):
    "Texts with spans that may overlap, touch, cut words, and begin or end with white space."
    found, report = [], ConversionReport()
    for n in range(draw(st.integers(1, 3))):
        text = draw(st.text(CHARS, min_size=1, max_size=40).filter(str.strip))
        place = st.integers(0, len(text))
        spans = draw(st.lists(st.tuples(place, place, st.sampled_from(["per", "org", "Geo-x"])), max_size=6))
        found.append(AnnotatedText(text, tuple(check_spans(text, spans, f"text {n}", report)), place=f"text {n}"))
    return found


def bare(documents): return [(d.text, [(e.start, e.end, e.label) for e in d.entities]) for d in documents]


def there_and_back(documents, name, folder):
    "What is read of what was written, with both reports."
    path, wrote, read = folder/f"it{SUFFIX.get(name, '')}", ConversionReport(), ConversionReport()
    wrote.texts, wrote.spans = len(documents), sum(len(d.entities) for d in documents)
    write_annotated(path, documents, name, wrote)
    return [*read_annotated(path, name, read)], wrote, read


@pytest.mark.parametrize("name", SPANS)
@FEW
@given(documents())
def test_spans_come_back(name, tmp_path_factory, found):
    back, wrote, read = there_and_back(found, name, tmp_path_factory.mktemp("f"))
    assert [d.text for d in back] == [d.text for d in found]
    assert read.rejected_texts == read.rejected_spans == 0 and read.spans == wrote.spans - wrote.rejected_spans
    if name == "prodigy":         # has no place for a span that no word begins
        for (_, a), (_, b) in zip(bare(back), bare(found)): assert set(a) <= set(b)
    else: assert bare(back) == bare(found) and wrote.rejected_spans == 0


@pytest.mark.parametrize("name", TAGS)
@FEW
@given(documents())
def test_words_and_spans_are_written_or_rejected(name, tmp_path_factory, found):
    try: back, wrote, read = there_and_back(found, name, tmp_path_factory.mktemp("f"))
    except BertNerError as e: assert "no text is left" in str(e); return
    assert read.rejected_texts == read.rejected_spans == 0 and read.texts == wrote.sentences
    assert read.spans == wrote.spans - wrote.rejected_spans
    assert sum("rejected: " in what for _, what in wrote.notes) <= wrote.rejected_texts + wrote.rejected_spans
    written = [d for d in found if not any(place == d.place and GONE.match(what) for place, what in wrote.notes)]
    squeeze = lambda text: "".join(c for c in text if not c.isspace() and c not in "\u200b\u200d")
    assert squeeze("".join(d.text for d in back)) == squeeze("".join(d.text for d in written))
    kept = [e.text for d in back for e in d.entities]
    assert [*map(squeeze, kept)] == [x for x in map(squeeze, kept) if x in {squeeze(e.text) for d in found for e in d.entities}]


@pytest.mark.parametrize("name", ["prodigy", *TAGS, pytest.param("spacy", marks=pytest.mark.spacy)])
def test_words_of_a_corpus_come_back(name, tmp_path):
    "Formats with words keep those of the corpus, there and back."
    sentences = [*generate_corpus(n=200)]
    (tmp_path/"a.csv").write_text(corpus_csv(sentences), encoding="utf-8")
    middle = tmp_path/f"b{SUFFIX.get(name, '')}"
    there = convert(tmp_path/"a.csv", middle, target_format=name)
    back = convert(middle, tmp_path/"c.csv", source_format=name)
    assert (there.texts, there.rejected_texts, there.rejected_spans, back.rejected_texts, back.rejected_spans) == (200, 0, 0, 0, 0)
    words = lambda path: [row[1::2] for row in csv.reader(io.StringIO(path.read_text(encoding="utf-8")))]
    assert words(tmp_path/"c.csv") == words(tmp_path/"a.csv")
    if name in TAGS: assert (tmp_path/"c.csv").read_text() == (tmp_path/"a.csv").read_text()


@pytest.mark.parametrize("name", WRITERS)
def test_the_content_says_the_format(name, tmp_path):
    if name == "spacy": pytest.importorskip("spacy")
    text = "Ann met Bob."
    found = [AnnotatedText(text, tuple(check_spans(text, [(0, 3, "per")], "", ConversionReport())))]
    path = tmp_path/f"it{SUFFIX.get(name, '')}"
    write_annotated(path, found, name)
    assert detect_format(path) == name and bare(read_annotated(path)) == bare(found)
    with pytest.raises(BertNerError, match="exists: move it away"): write_annotated(path, found, name)


def test_scores_of_a_model_are_predictions(tmp_path):
    (tmp_path/"a.jsonl").write_text(json.dumps(dict(text="Ann met Bob.", entities=[dict(start=0, end=3, label="per", text="Ann", score=.7)])))
    convert(tmp_path/"a.jsonl", tmp_path/"b.json", predictions=True)
    (task,) = json.loads((tmp_path/"b.json").read_text())
    assert "annotations" not in task and task["predictions"][0]["result"][0]["score"] == .7
    convert(tmp_path/"b.json", tmp_path/"c.jsonl", target_format="jsonl", predictions=True)
    assert json.loads((tmp_path/"c.jsonl").read_text())["entities"][0]["score"] == .7


def test_two_people_on_one_file(tmp_path):
    lines = [dict(text="Ann met Bob.", spans=[dict(start=0, end=3, label=label)], answer="accept", _annotator_id=by)
             for by, label in (("x", "per"), ("y", "per"), ("z", "org"))]
    lines += [dict(text="Bob.", answer="reject"), dict(text="Eve.", answer="ignore")]
    (tmp_path/"a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = convert(tmp_path/"a.jsonl", tmp_path/"b.csv")
    assert (report.texts, report.rejected_texts) == (5, 4)
    assert [what for _, what in report.notes] == [
        "rejected: it is y's answer, x's is taken: they agree", "rejected: it is z's answer, x's is taken: they differ",
        "rejected: its answer is 'reject'", "rejected: its answer is 'ignore'",
    ]
    assert [e.label for d in read_annotated(tmp_path/"a.jsonl", annotator="z") for e in d.entities] == ["org"]


def test_what_a_user_gets_wrong(tmp_path):
    "Another tool's file, a label that is not there, an offset that does not fit its text, an ending that says nothing."
    (tmp_path/"a.jsonl").write_text('{"text": "Ann.", "label": [[0, 3, "per"]]}\n')
    with pytest.raises(BertNerError, match="has no annotated text .*it has no 'spans', 'tokens' or 'answer'"):
        convert(tmp_path/"a.jsonl", tmp_path/"b.csv", source_format="prodigy")
    assert convert(tmp_path/"a.jsonl", tmp_path/"b.csv", labels=dict(org="x")).notes[-1][1] == "no span has the label 'org', which --labels names"
    with pytest.raises(BertNerError, match="does not say its format: name it .--to."): convert(tmp_path/"a.jsonl", tmp_path/"b.tsv")
    task = dict(text="Ann.", spans=[dict(start=0, end=3, label=["per"])], tokens=[dict(start=2, end=9)], _annotator_id="x")
    (tmp_path/"d.jsonl").write_text(json.dumps(task) + "\n" + json.dumps(task | dict(_annotator_id="y")))
    report = ConversionReport()
    assert [d.words for d in read_annotated(tmp_path/"d.jsonl", report=report)] == [None] and report.rejected_spans == 1
    assert [what for _, what in report.notes][1:] == [
        "its words do not lie in the text: ours are used", "rejected: it is y's answer, x's is taken: they agree"]
    value = dict(start=0, end=2, text="Ann", labels=["per"])
    (tmp_path/"c.json").write_text(json.dumps([dict(data=dict(text="Ann."), annotations=[dict(result=[dict(type="labels", value=value)])])]))
    report = ConversionReport()
    assert not next(read_annotated(tmp_path/"c.json", report=report)).entities
    assert report.notes == [("c.json: task 1", "rejected: the span 0-2 'per' is to have the text 'Ann', and has another")]


def test_brat_fragments(tmp_path):
    (tmp_path/"in").mkdir()
    (tmp_path/"in"/"a.txt").write_text("New\nYork and Los big Angeles", newline="")
    (tmp_path/"in"/"a.ann").write_text("T1\tgeo 0 3;4 8\tNew York\nT2\tgeo 13 16;21 28\tLos Angeles\nR1\tnear Arg1:T1 Arg2:T2\nT3\tgeo x y\tz\n")
    (tmp_path/"in"/"b.ann").write_text("")
    report = ConversionReport()
    (found,) = read_annotated(tmp_path/"in", report=report)
    assert [(e.start, e.end) for e in found.entities] == [(0, 8)]
    assert (report.texts, report.rejected_texts, report.spans, report.rejected_spans) == (2, 1, 3, 2)


@pytest.mark.parametrize("text,suffix,message", [
    ("[", ".json", "is not JSON"), ("{}", ".json", "no line is of a known format"), ("x", ".spacy", "is no DocBin of spaCy"),
    ("[]", ".json", "has no annotated text"), ('{"a": 1}\n', ".jsonl", "no line is of a known format"),
    ('{"text": "x", "entities": 3}', ".jsonl", "no line is of a known format"), ("x", ".jsonl.gz", "is compressed: unpack it first"),
    ('{"text": "x", "entities": [1]}', ".json", "has no annotated text"), ('{"a": 1}', ".tsv", "row 1: "),
])
def test_files_that_are_something_else(text, suffix, message, tmp_path):
    if suffix == ".spacy": pytest.importorskip("spacy")
    (tmp_path/f"a{suffix}").write_text(text)
    with pytest.raises(BertNerError, match=message) as e: convert(tmp_path/f"a{suffix}", tmp_path/"b.csv")
    assert "\n" not in str(e.value) and not (tmp_path/"b.csv").exists()


def test_nothing_is_left_of_a_conversion_that_fails(tmp_path):
    "The second text has a label that CoNLL cannot hold."
    lines = [dict(text="Ann.", label=[[0, 3, label]]) for label in ("per", "a person")]
    (tmp_path/"a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(BertNerError, match="'a person' cannot be written"): convert(tmp_path/"a.jsonl", tmp_path/"b.conll")
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]
    assert str(convert(tmp_path/"a.jsonl", tmp_path/"b.conll", labels={"a person": "per"})).startswith("2 of 2 texts as 2 sentences and 2 of 2")


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_what_annotate_wrote(kind, mini_tagger_folder, tmp_path):
    "Its folder, under other names of the columns."
    from bert_ner.annotate.run import annotate
    rows = [dict(body=f"Mr. Bush met {n} in Paris.") for n in range(30)]
    (tmp_path/"in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    annotate([tmp_path/"in.jsonl"], tmp_path/"out", text_column="body", output_column="found", format=kind, rows_per_shard=8, model=mini_tagger_folder)
    report = convert(tmp_path/"out", tmp_path/"tasks.json", predictions=True)
    tasks = json.loads((tmp_path/"tasks.json").read_text())
    assert [t["data"]["text"] for t in tasks] == [row["body"] for row in rows] and (report.texts, report.spans) == (30, 60)
    assert all(0 < r["score"] < 1 for t in tasks for r in t["predictions"][0]["result"])
    manifest = json.loads((tmp_path/"out"/"_manifest.json").read_text())
    (tmp_path/"out"/"_manifest.json").write_text(json.dumps({**manifest, "done": None}))
    with pytest.raises(BertNerError, match="is not complete: run its"): convert(tmp_path/"out", tmp_path/"2.json")


# --- the libraries that own them

@pytest.mark.spacy
def test_spacy_takes_no_span_that_the_words_of_the_source_leave_out(tmp_path):
    pytest.importorskip("spacy")
    tokens = [dict(text="In", start=0, end=2, id=0), dict(text="now", start=9, end=12, id=1)]
    line = dict(text="In Paris now", tokens=tokens, spans=[dict(start=3, end=8, label="geo"), dict(start=9, end=12, label="tim")])
    (tmp_path/"a.jsonl").write_text(json.dumps(line))
    report = convert(tmp_path/"a.jsonl", tmp_path/"a.spacy")
    assert (report.spans, report.rejected_spans) == (2, 1) and "at 3-8 'geo' the source has no words" in report.notes[-1][1]
    assert [e.label for d in read_annotated(tmp_path/"a.spacy") for e in d.entities] == ["tim"]


@pytest.mark.spacy
def test_spacy_trains_on_it(tmp_path):
    "spaCy's own corpus reader reads the file, and its entities are ours."
    import spacy
    from spacy.training import Corpus
    sentences = [*generate_corpus(n=50)]
    (tmp_path/"a.csv").write_text(corpus_csv(sentences), encoding="utf-8")
    convert(tmp_path/"a.csv", tmp_path/"a.spacy")
    examples = [*Corpus(tmp_path/"a.spacy")(spacy.blank("en"))]
    ours = [*read_annotated(tmp_path/"a.csv")]
    assert [[(e.start_char, e.end_char, e.label_) for e in x.reference.ents] for x in examples] == [
        [(e.start, e.end, e.label) for e in d.entities] for d in ours]
    assert all(x.get_aligned_ner() is not None for x in examples)


def test_datasets_reads_it(tmp_path):
    from datasets import load_from_disk
    sentences = [*generate_corpus(n=50)]
    (tmp_path/"a.csv").write_text(corpus_csv(sentences), encoding="utf-8")
    convert(tmp_path/"a.csv", tmp_path/"ds", target_format="datasets")
    ds = load_from_disk(tmp_path/"ds")
    names = ds.features["ner_tags"].feature.names
    assert [(row["tokens"], [names[t] for t in row["ner_tags"]]) for row in ds] == [(list(w), list(t)) for w, t in sentences]
