"The models that ship with the library: whole, as their cards say, and usable where nothing was trained."
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from bert_ner.core import BertNerError, file_hash, read_json
from bert_ner.data import load_corpus, to_dataset, words_and_tags
from bert_ner.tagger import Tagger
from bert_ner.checkpoint import pretrained_dir
from bert_ner.metrics import entity_scores
from bert_ner.synthetic import generate_corpus

TEXT = "Angela Merkel met officials in Paris on Monday."


@pytest.fixture(scope="module", params=["", "fast"], ids=["default", "fast"])
def name(request): return request.param


@pytest.fixture(scope="module")
def card(name): return read_json(pretrained_dir(name)/"card.json")


@pytest.fixture(scope="module")
def tagger(name): return Tagger.from_pretrained(name)


def test_files_are_the_ones_on_the_card(name, card):
    folder = pretrained_dir(name)
    assert (
        {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
        == {*card["sha256"], "card.json", "README.md"}
        == {
            "onnx/model_quantized.onnx", "config.json", "tokenizer.json", "tokenizer_config.json", "tagger.json",
            "card.json", "README.md",
        }
    )  # fmt: skip
    assert {n: file_hash(folder/n) for n in card["sha256"]} == card["sha256"]
    assert sum(p.stat().st_size for p in folder.rglob("*")) < 47e6


def test_the_card_a_person_reads_has_the_measured_figures(name, card):
    text = (pretrained_dir(name)/"README.md").read_text()
    assert len(card["figures"]) == 3
    for part, f in card["figures"].items():
        assert f"| {part} | {f['sentences']:,} | {f['micro_f1']:.4f} | {f['macro_f1']:.4f} |" in text


def reproduces(tagger, card, part, words, gold):
    said = card["figures"][part]
    assert len(words) == said["sentences"]
    # int8 products differ a little between processors
    assert (
        abs(entity_scores(gold, [t.tags for t in tagger.tag_tokenized(words)])["micro"]["f1"] - said["micro_f1"])
        < 0.003
    )


def test_figure_on_the_sample(tagger, card):
    reproduces(tagger, card, "sample corpus test split", *words_and_tags(to_dataset(list(generate_corpus()))["test"]))


@pytest.mark.gmb
def test_figure_on_the_real_corpus(tagger, card):
    words, gold = words_and_tags(to_dataset(load_corpus("gmb")[0])["test"])
    reproduces(tagger, card, "GMB test split, first 500 sentences", words[:500], gold[:500])


def test_it_finds_entities(tagger):
    found = [(e.text, e.label) for e in tagger.tag(TEXT)]
    assert ("Paris", "geo") in found and ("Monday", "tim") in found and ("Angela Merkel", "per") in found
    assert all(TEXT[e.start:e.end] == e.text for e in tagger.tag(TEXT))


def test_fast_is_another_model_and_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    fast, default = (Tagger.from_pretrained(n, "onnx-int8") for n in ("fast", None))
    assert fast.folder != default.folder and fast.tags == default.tags
    again = pickle.loads(pickle.dumps(fast))
    assert again.folder == fast.folder and again.tag(TEXT) == fast.tag(TEXT)
    assert str(fast.folder).encode() not in pickle.dumps(fast)         # elsewhere the library is in another folder
    monkeypatch.chdir(tmp_path)
    (tmp_path/"fast").mkdir()
    with pytest.raises(BertNerError, match="fast"): Tagger.from_pretrained("fast")


@pytest.mark.parametrize("model", [[], ["--model", "fast"]], ids=["default", "fast"])
def test_the_shell_uses_it_where_nothing_was_trained(tmp_path, model):
    program = Path(sys.executable).parent/"bert-ner"
    out = subprocess.run(
        [str(program), "infer", TEXT, "--json", *model],
        cwd=tmp_path,
        env={**os.environ, "BERT_NER_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (out.returncode, out.stderr) == (0, "")
    assert "Paris" in [e["text"] for e in json.loads(out.stdout)]
