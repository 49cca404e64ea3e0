"""Checkpoints from elsewhere: each family of encoders finds what transformers' pipeline finds, over every engine, in bulk, over
the real Triton server and in the page. The checkpoints are made here, see `families`."""
import json
import shutil
import subprocess
import sys

import pytest
from safetensors.torch import load_file, save_file
from families import FAMILIES, held_out, make_checkpoint, spans_of

from bert_ner import Tagger
from bert_ner.core import GMB_TAGS, BertNerError, read_json
from bert_ner.checkpoint import read_settings
from bert_ner.engines import runnable_engines, select_engine
from bert_ner.export import export_checkpoint
from bert_ner.metrics import entity_scores
from bert_ner.packing import TextPacker
from bert_ner.spans import tokenize_words
from bert_ner.windows import split_unspaced

QUICK = ("bert", "roberta", "deberta-v2")     # WordPiece, byte-level BPE, Unigram; the others take minutes
EVERY = [f if f in QUICK else pytest.param(f, marks=pytest.mark.long) for f in FAMILIES]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    "`checkpoint(family)`: its folder."
    made = {}
    def get(family):
        if family not in made: made[family] = make_checkpoint(family, tmp_path_factory.mktemp(family)/"model")
        return made[family]
    return get


@pytest.fixture(scope="session")
def converted(checkpoint, tmp_path_factory):
    "`converted(family)`: the folder that `export_checkpoint` wrote, and its report."
    made = {}
    def get(family):
        if family not in made:
            folder = tmp_path_factory.mktemp(family)/"onnx"
            made[family] = folder, export_checkpoint(checkpoint(family), folder, [w for w, _ in held_out(300)])
        return made[family]
    return get


def trimmed(text, start, end):
    "Unigram's offsets may include the space before a word."
    return end - len(text[start:end].lstrip()), end


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("family", EVERY)
def test_the_same_entities_as_transformers_pipeline(checkpoint, family):
    """The pipeline takes the best tag of each word, so that is compared; the valid tags that are the default have a better
    F1. Sentences in which a space is a token of its own are left out: the pipeline takes it for a word."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline
    folder = checkpoint(family)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForTokenClassification.from_pretrained(folder)
    some = [s for s in held_out(1000) if not {"Ġ", "▁"} & {*tokenizer.tokenize(" ".join(s[0]))}][:300]
    texts = [" ".join(w) for w, _ in some]
    pipe = pipeline("token-classification", model=model, tokenizer=tokenizer, aggregation_strategy="first")
    theirs = [
        [(*trimmed(t, e["start"], e["end"]), e["entity_group"]) for e in found]
        for t, found in zip(texts, pipe(texts, batch_size=16))
    ]
    best = Tagger.from_pretrained(folder, "torch", decoding="argmax").tag_tokenized([w for w, _ in some])
    assert len(some) == 300 and sum(map(len, theirs)) > 100
    assert [spans_of(w, t.tags) for (w, _), t in zip(some, best)] == theirs
    valid = Tagger.from_pretrained(folder, "torch").tag_tokenized([w for w, _ in some])
    gold = [g for _, g in some]
    f1, best_f1 = (entity_scores(gold, [t.tags for t in found])["micro"]["f1"] for found in (valid, best))
    assert f1 >= best_f1 > .1


@pytest.mark.parametrize("family", EVERY)
def test_onnx_and_int8(converted, family):
    folder, report = converted(family)
    assert report["onnx"]["exact_match"] >= .999
    assert report["onnx_int8"]["f1"] >= .97, report
    assert {"onnx", "onnx-int8"} <= {*runnable_engines(folder)}
    assert not (folder/"model.plain.onnx").exists() and read_json(folder/"tagger.json")["tags"] == [*GMB_TAGS]


@pytest.mark.parametrize("family", EVERY)
def test_bulk(checkpoint, family, tmp_path):
    "Bulk annotation reads the checkpoint as it is."
    from bert_ner.annotate.run import annotate
    texts = [" ".join(w) for w, _ in held_out(60)]
    (tmp_path/"in.txt").write_text("".join(t + "\n" for t in texts), encoding="utf-8")
    done = annotate(tmp_path/"in.txt", tmp_path/"out.jsonl", model=checkpoint(family), engine="torch", progress=False)
    assert (done["rows"], done["rejected"]) == (60, 0)
    rows = [json.loads(line) for line in (tmp_path/"out.jsonl").read_text(encoding="utf-8").splitlines()]
    expected = Tagger.from_pretrained(checkpoint(family), "torch").tag_batch(texts)
    assert [[(e["start"], e["end"], e["label"]) for e in r["entities"]] for r in rows] \
        == [[(e.start, e.end, e.label) for e in found] for found in expected]


@pytest.mark.parametrize("family", EVERY)
def test_the_triton_server(converted, family, tmp_path):
    from bert_ner.triton.client import TritonTagger
    from bert_ner.triton.repository import build_repository
    from bert_ner.triton.server import TritonServer
    folder, _ = converted(family)
    texts = [" ".join(w) for w, _ in held_out(60)]
    local = Tagger.from_pretrained(folder, "onnx").tag_batch(texts)
    with TritonServer(build_repository(tmp_path/"repository", model=folder), log=tmp_path/"triton.log") as server:
        for protocol in ("grpc", "http"):
            with TritonTagger(server.urls[protocol], protocol) as client: served = client.tag_batch(texts)
            assert [[e.to_dict() for e in f] for f in served] == [[e.to_dict() for e in f] for f in local]


@pytest.mark.parametrize("family", EVERY)
def test_the_page(checkpoint, family, monkeypatch):
    from bert_ner.demo import NerWidget, page_model
    monkeypatch.delenv("BERT_NER_ENGINE", raising=False); monkeypatch.delenv("BERT_NER_MODEL", raising=False)
    folder, engine = page_model(checkpoint(family))
    assert engine == select_engine(folder) == "torch"
    text = " ".join(held_out(1)[0][0])
    side, = NerWidget(folder, "", engine).handle_message(dict(kind="tag", text=text, engines=[engine], url=""))["sides"]
    expected = Tagger.from_pretrained(folder, "torch").tag(text)
    assert [tuple(e[:3]) for e in side["entities"]] == [(e.start, e.end, e.label) for e in expected]
    assert all(others is not None for *_, others in side["entities"])


# tag schemes, labels, aggregation

def to_bioes(tags):
    after = [*tags[1:], "O"]
    ends = [not n.startswith("I-") for n in after]
    return [t if t == "O" else ("S" if end else "B") + t[1:] if t[0] == "B" else ("E" if end else "I") + t[1:] for t, end in zip(tags, ends)]


def to_plain(tags): return [t[2:] or "O" for t in tags]


LABELS = [t[2:] for t in GMB_TAGS if t[0] == "B"]
SCHEMES = dict(bioes=(["O", *(f"{p}-{t}" for t in LABELS for p in "BIES")], to_bioes), io=(["O", *LABELS], to_plain))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_schemes(scheme, tmp_path):
    "A checkpoint of another scheme gives IOB2, valid, and exact offsets."
    tags, translate = SCHEMES[scheme]
    tagger = Tagger.from_pretrained(make_checkpoint("modernbert", tmp_path/"m", tags, translate=translate), "torch")
    assert tagger.scheme == scheme
    some = held_out(200)
    found = tagger.tag_tokenized([w for w, _ in some])
    assert {t for f in found for t in f.tags} <= {*GMB_TAGS}
    assert entity_scores([g for _, g in some], [f.tags for f in found])["micro"]["f1"] > .2
    for text in (" ".join(w) for w, _ in some[:50]):
        for e in tagger.tag(text): assert text[e.start:e.end] == e.text and e.label in LABELS


def test_labels_are_renamed_and_dropped(checkpoint):
    text = " ".join(held_out(1)[0][0])
    before = Tagger.from_pretrained(checkpoint("bert"), "torch").tag_batch([" ".join(w) for w, _ in held_out(50)])
    after = Tagger.from_pretrained(checkpoint("bert"), "torch", labels=dict(geo="LOC", tim="O")).tag_batch([" ".join(w) for w, _ in held_out(50)])
    known = {e.label for f in after for e in f}
    assert "LOC" in known and not {"geo", "tim"} & known and {e.label for f in before for e in f} >= {"geo", "tim"}
    with pytest.raises(BertNerError, match="the model has no label 'PERSON': it has art, eve"):
        Tagger.from_pretrained(checkpoint("bert"), "torch", labels=dict(PERSON="per")).tag(text)


@pytest.mark.filterwarnings("ignore:Tokenizer does not support real words")
@pytest.mark.parametrize("aggregation", ["average", "max"])
def test_aggregation(checkpoint, aggregation):
    from transformers import AutoModelForTokenClassification, AutoTokenizer, pipeline
    folder = checkpoint("bert")
    pipe = pipeline("token-classification", model=AutoModelForTokenClassification.from_pretrained(folder),
                    tokenizer=AutoTokenizer.from_pretrained(folder), aggregation_strategy=aggregation)
    some = held_out(200)
    theirs = [[(e["start"], e["end"], e["entity_group"]) for e in found] for found in pipe([" ".join(w) for w, _ in some], batch_size=16)]
    tagger = Tagger.from_pretrained(folder, "torch", aggregation=aggregation, decoding="argmax")
    found = [spans_of(w, t.tags) for (w, _), t in zip(some, tagger.tag_tokenized([w for w, _ in some]))]
    assert found == theirs
    first = Tagger.from_pretrained(folder, "torch", decoding="argmax").tag_tokenized([w for w, _ in some])
    assert found != [spans_of(w, t.tags) for (w, _), t in zip(some, first)]


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "modernbert"])
def test_scripts_without_spaces(checkpoint, family):
    "Words of Chinese, Japanese and Thai are the model's own tokens; every offset is exact, and every character belongs to a word."
    tagger = Tagger.from_pretrained(checkpoint(family), "torch")
    for text in ("东京和北京", "東京タワーはParisにある。", "กรุงเทพ in 2024年", "北京\u200b市 🎉", "한국 서울"):
        packed = TextPacker(tagger.window_tokenizer)([text])
        offsets = [*zip(packed.start.tolist(), packed.end.tolist())]
        assert offsets == split_unspaced(text, tokenize_words(text), tagger.window_tokenizer.word_encoder)[0]
        assert all(b <= c for (_, b), (c, _) in zip(offsets, offsets[1:]))
        for e in tagger.tag(text): assert text[e.start:e.end] == e.text


def test_a_long_text_has_windows(checkpoint):
    "Far longer than the encoder's positions: as many words are scored as there are."
    for family in QUICK:
        tagger = Tagger.from_pretrained(checkpoint(family), "torch")
        words = [w for s, _ in held_out(60) for w in s]
        tagged, = tagger.tag_tokenized([words])
        assert len(tagged.tags) == len(words) > 2 * tagger.window_tokenizer.max_length == 256


def test_tagger_again(checkpoint, tmp_path):
    "Pickled, it opens the checkpoint again, with all its options."
    import pickle
    tagger = Tagger.from_pretrained(checkpoint("roberta"), "torch", labels=dict(geo="LOC"), decoding="argmax")
    again = pickle.loads(pickle.dumps(tagger))
    text = " ".join(w for s, _ in held_out(5) for w in s)
    assert again.tag(text) == tagger.tag(text) and again.decoding == "argmax" and "B-LOC" in again.tags


# the hub's own layout, the shell

def test_onnx_folder_of_the_hub(converted, checkpoint, tmp_path):
    "`onnx/model.onnx` and `onnx/model_quantized.onnx` beside `config.json`, as optimum writes them, are used."
    folder, _ = converted("roberta")
    hub = shutil.copytree(checkpoint("roberta"), tmp_path/"hub")
    (hub/"model.safetensors").unlink(); (hub/"onnx").mkdir()
    shutil.copy(folder/"model.onnx", hub/"onnx"/"model.onnx")
    shutil.copy(folder/"model.int8.onnx", hub/"onnx"/"model_quantized.onnx")
    text = " ".join(w for s, _ in held_out(5) for w in s)
    assert {"onnx", "onnx-int8"} <= {*runnable_engines(hub)}
    for engine in ("onnx", "onnx-int8"):
        assert Tagger.from_pretrained(hub, engine).tag(text) == Tagger.from_pretrained(folder, engine).tag(text)


def test_shell(checkpoint, tmp_path):
    def run(*args): return subprocess.run([sys.executable, "-m", "bert_ner", *map(str, args)], cwd=tmp_path, capture_output=True, text=True)
    text = " ".join(w for s, _ in held_out(5) for w in s)
    said = run("infer", text, "--model", checkpoint("bert"), "--json", "--labels", "geo=LOC")
    assert (said.returncode, said.stderr) == (0, "")
    expected = Tagger.from_pretrained(checkpoint("bert"), labels=dict(geo="LOC")).tag(text)
    assert json.loads(said.stdout) == [e.to_dict() for e in expected]
    said = run("to-onnx", "--model", checkpoint("bert"), "--output", "new", "--labels", "geo=LOC")
    assert said.returncode == 0 and said.stdout.startswith("wrote new: ONNX finds PyTorch's entities in ") and said.stderr == "", said
    assert read_settings(tmp_path/"new")["tags"] == [t.replace("geo", "LOC") for t in GMB_TAGS]
    said = run("infer", text, "--model", "new", "--engine", "onnx", "--json")
    assert [(e["start"], e["label"]) for e in json.loads(said.stdout)] == [(e.start, e.label) for e in expected]
    again = run("to-onnx", "--model", checkpoint("bert"), "--output", checkpoint("roberta"))
    assert again.returncode == 1 and again.stderr.count("\n") == 1 and (checkpoint("roberta")/"config.json").exists()


# what cannot be used says so in one sentence

def changed(source, folder, **config):
    shutil.copytree(source, folder)
    (folder/"config.json").write_text(json.dumps({**read_json(folder/"config.json"), **config}))
    return folder


def test_unusable_checkpoints(checkpoint, tmp_path):
    good = checkpoint("bert")
    cases = {
        "has no token-classification head (it is a BertForMaskedLM)": changed(good, tmp_path/"1", architectures=["BertForMaskedLM"]),
        "its labels have no names (LABEL_0": changed(good, tmp_path/"2", id2label={str(i): f"LABEL_{i}" for i in range(17)}),
        "the tokenizer has": changed(good, tmp_path/"3", vocab_size=100),
        "is a pickle": changed(good, tmp_path/"4"),
        "tokenizer.json is missing": changed(good, tmp_path/"5"),
        "config.json is broken": changed(good, tmp_path/"6"),
        "no folder here": "someone/no-such-model",
        "transformers cannot load it": changed(good, tmp_path/"7", intermediate_size=99),
        "lacks the weights": changed(good, tmp_path/"8"),
    }
    (tmp_path/"4"/"model.safetensors").rename(tmp_path/"4"/"pytorch_model.bin")
    (tmp_path/"5"/"tokenizer.json").unlink()
    (tmp_path/"6"/"config.json").write_text("{")
    weights = load_file(tmp_path/"8"/"model.safetensors"); del weights["classifier.weight"]
    save_file(weights, tmp_path/"8"/"model.safetensors", metadata=dict(format="pt"))
    for said, folder in cases.items():
        with pytest.raises(BertNerError) as e: Tagger.from_pretrained(folder)
        assert said in str(e.value) and "\n" not in str(e.value), e.value
        with pytest.raises(BertNerError): export_checkpoint(folder, tmp_path/"never", [["a"]])
        assert not (tmp_path/"never").exists()


def test_a_graph_with_external_data_is_not_served(converted, tmp_path):
    import onnx
    from bert_ner.triton.repository import build_repository
    folder, _ = converted("bert")
    shutil.copytree(folder, tmp_path/"m"); (tmp_path/"m"/"model.onnx").unlink()
    onnx.save(onnx.load(folder/"model.onnx"), tmp_path/"m"/"model.onnx", save_as_external_data=True, size_threshold=0)
    with pytest.raises(BertNerError, match="has external data, and a server needs a single file"):
        build_repository(tmp_path/"repository", model=tmp_path/"m")
    assert not (tmp_path/"repository").exists()


# fine-tuning

@pytest.mark.parametrize("family", ["roberta", *(pytest.param(f, marks=pytest.mark.long) for f in ("distilbert", "deberta-v2", "mpnet", "modernbert"))])
def test_it_fine_tunes(checkpoint, family, tmp_path):
    "The same checkpoint is a start for training; what was trained exports, with PyTorch's entities."
    from bert_ner.bert import fine_tune
    from bert_ner.data import to_dataset
    from bert_ner.export import export_model
    from bert_ner.synthetic import generate_corpus
    ds = to_dataset([*generate_corpus(n=300)])
    done = fine_tune(
        ds, tmp_path/"bert", str(checkpoint(family)), max_length=100, dropout=.1, layerwise_lr_decay=.9, rdrop_alpha=.1,
        seed=42, num_train_epochs=2, learning_rate=1e-3, per_device_train_batch_size=16, disable_tqdm=True)
    assert done["f1"] > .05
    words, gold = list(ds["validation"]["words"]), [[GMB_TAGS[t] for t in y] for y in ds["validation"]["tags"]]
    made = export_model(tmp_path/"bert", tmp_path/"onnx", words, gold, list(ds["train"]["words"]), max_f1_drop=.05)
    assert made["onnx"]["exact_match"] >= .999
    found, wanted = (Tagger.from_pretrained(tmp_path/f, e).tag(" ".join(words[0])) for f, e in (("onnx", "onnx"), ("bert", "torch")))
    assert [(e.start, e.end, e.label) for e in found] == [(e.start, e.end, e.label) for e in wanted]
    assert [e.score for e in found] == pytest.approx([e.score for e in wanted], abs=.001)


def test_labels_in_bulk_and_on_the_page(mini_tagger_folder, tmp_path):
    "A run has the names it was started with; another choice is another run."
    from bert_ner.annotate.run import annotate
    from bert_ner.demo import demo
    (tmp_path/"in.csv").write_text("text\nin Paris on Monday\nNew York\n")
    named = dict(model=mini_tagger_folder, progress=False, labels=dict(geo="LOC", tim="O"))
    annotate(str(tmp_path/"in.csv"), str(tmp_path/"out.jsonl"), **named)
    rows = [json.loads(l) for l in (tmp_path/"out.jsonl").read_text().splitlines()]
    assert [[(e["label"], e["text"]) for e in r["entities"]] for r in rows] == [[("LOC", "Paris")], [("LOC", "New York")]]
    assert annotate(str(tmp_path/"in.csv"), str(tmp_path/"out.jsonl"), **named)["rows"] == 2       # the same run
    for other in (None, dict(geo="PLACE")):
        with pytest.raises(BertNerError, match="was started with another label_map"):
            annotate(str(tmp_path/"in.csv"), str(tmp_path/"out.jsonl"), **{**named, "labels": other})
    with pytest.raises(BertNerError, match="no label 'city'"):
        annotate(str(tmp_path/"in.csv"), str(tmp_path/"new.jsonl"), **{**named, "labels": dict(city="LOC")})
    assert not (tmp_path/"new.jsonl").exists()
    widget = demo(mini_tagger_folder, engine="onnx", labels=dict(geo="LOC", tim="O"))
    assert "LOC" in widget.start["types"] and not {"geo", "tim"} & {*widget.start["types"]}
    sides = widget.handle_message(dict(kind="tag", text="in Paris on Monday", engines=["onnx"], url=""))["sides"]
    assert [e[2] for e in sides[0]["entities"]] == ["LOC"]
