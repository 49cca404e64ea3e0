"""A model trained here, in a folder as the hub has it: transformers reads the same entities from it, capitals included, and
`bert-ner push` says what it would upload, and why it did not."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from families import apart, make_checkpoint, spans_of
from huggingface_hub import ModelCard

from bert_ner import Tagger
from bert_ner.bert import fine_tune
from bert_ner.core import GMB_LABELS, ROOT, read_json, write_json
from bert_ner.data import to_dataset, words_and_tags
from bert_ner.export import export_model
from bert_ner.hub import HUB_NAMES, hub_files, model_card, write_hub_folder
from bert_ner.metrics import entity_scores
from bert_ner.synthetic import generate_corpus

FACTS = dict(
    corpus="tiny", corpus_sha256="0" * 64, sentences=800, seed=42, base_model=None, case_feature=True, ceiling=None,
    hardware=dict(cpu="a processor", cores=2, gpu=None),
)  # fmt: skip
FIGURES = {"tiny, test split": dict(sentences=100, micro_f1=0.5, macro_f1=0.25)}


@pytest.fixture(scope="module")
def corpus(): return to_dataset(list(generate_corpus(42, 1100)))


@pytest.fixture(scope="module")
def models(corpus, tmp_path_factory):
    "`models/tiny` of a project: an encoder that lowercases, trained with capitals, and its ONNX files."
    top = tmp_path_factory.mktemp("project")
    base = make_checkpoint("distilbert", top/"base", epochs=3, n=800)
    folder = top/"models"/"tiny"
    args = dict(num_train_epochs=8, per_device_train_batch_size=16, learning_rate=3e-3, bf16=False, disable_tqdm=True)
    fine_tune(corpus, folder/"bert", str(base), case_feature=True, max_length=128, seed=42, **args)
    words, gold = words_and_tags(corpus["validation"])
    export_model(folder/"bert", folder/"onnx", words, gold, list(corpus["train"]["words"])[:64], max_f1_drop=1)
    return folder


@pytest.fixture(scope="module")
def hub(models, tmp_path_factory):
    files = hub_files(models/"bert", models/"onnx")
    return write_hub_folder(
        tmp_path_factory.mktemp("hub")/"model", files, model_card("me/tiny", ["O", "B-geo"], FIGURES, FACTS)
    )


@pytest.fixture(scope="module")
def pipe(hub):
    from transformers import pipeline
    return pipeline("token-classification", str(hub), aggregation_strategy="first")


def test_it_has_the_files_of_the_hub_and_no_pickle(hub):
    names = {p.relative_to(hub).as_posix() for p in hub.rglob("*") if p.is_file()}
    assert names == {*(n for where in HUB_NAMES.values() for n in where.values()), "README.md"}
    settings = read_json(hub/"tokenizer_config.json")
    assert (settings["tokenizer_class"], settings["model_max_length"]) == ("PreTrainedTokenizerFast", 128)
    assert "max_length" not in settings and "truncation_strategy" not in settings
    assert {v[2:] for v in read_json(hub/"config.json")["id2label"].values() if v != "O"} == {*GMB_LABELS}


def test_the_pipeline_finds_the_taggers_entities(corpus, hub, pipe):
    some = [apart(w, t) for w, t in zip(*words_and_tags(corpus["test"]))]
    best = Tagger.from_pretrained(hub, "torch", decoding="argmax").tag_tokenized([w for w, _ in some])
    theirs = [[(e["start"], e["end"], e["entity_group"]) for e in pipe(" ".join(w))] for w, _ in some]
    assert sum(map(len, theirs)) > 50
    assert [spans_of(w, t.tags) for (w, _), t in zip(some, best)] == theirs


def test_words_that_wordpiece_splits_are_one_entity_in_the_pipeline(corpus, hub, pipe):
    "It takes the parts of `U.S.` for words; they are labeled, so few entities break."
    words, gold = words_and_tags(corpus["test"])
    def tags(sentence):
        out, starts = ["O"] * len(sentence), [sum(map(len, sentence[:i])) + i for i in range(len(sentence))]
        for e in pipe(" ".join(sentence)):
            covered = [i for i, w in enumerate(sentence) if starts[i] < e["end"] and starts[i] + len(w) > e["start"]]
            for k, i in enumerate(covered): out[i] = ("I-" if k else "B-") + e["entity_group"]
        return out
    best = [t.tags for t in Tagger.from_pretrained(hub, "torch", decoding="argmax").tag_tokenized(words)]
    own, theirs = (entity_scores(gold, p)["micro"]["f1"] for p in (best, [tags(list(w)) for w in words]))
    assert own > 0.2 and abs(theirs - own) < 0.03, (own, theirs)


def test_capitals_are_read_without_code_of_ours(hub, pipe):
    text = "Officials met Angela Merkel in Paris on Monday ."
    upper, lower = pipe(text), pipe(text.lower())
    assert [e["word"] for e in upper] and [e["start"] for e in upper] != [e["start"] for e in lower]


def test_a_folder_without_our_settings_is_the_same_model(corpus, hub, tmp_path):
    words, _ = words_and_tags(corpus["test"])
    bare = shutil.copytree(hub, tmp_path/"bare")
    (bare/"tagger.json").unlink()
    for engine in ("torch", "onnx", "onnx-int8"):
        a, b = (Tagger.from_pretrained(f, engine).tag_tokenized(words) for f in (hub, bare))
        assert [t.tags for t in a] == [t.tags for t in b]


def test_the_card_is_read_by_the_hub(hub):
    card = ModelCard.load(hub/"README.md")
    result = card.data.eval_results[0]
    assert (result.metric_value, result.dataset_name) == (0.5, "tiny, test split")
    assert card.data.language is None and card.data.license is None and card.data.base_model is None and "Capital letters" in card.text
    assert "| tiny, test split | 100 | 0.5000 | 0.2500 |" in card.text


def test_a_word_memory_goes_to_the_hub_in_onnx_only(corpus, models, tmp_path):
    "transformers would leave the table out of PyTorch's weights, so there are none; every engine reads it from ONNX."
    from transformers import AutoModelForTokenClassification
    args = dict(num_train_epochs=3, per_device_train_batch_size=16, learning_rate=3e-3, bf16=False, disable_tqdm=True)
    fine_tune(corpus, tmp_path/"bert", str(models.parent.parent/"base"), True, 128, seed=42, word_memory=True, **args)
    words, gold = words_and_tags(corpus["validation"])
    export_model(tmp_path/"bert", tmp_path/"onnx", words, gold, list(corpus["train"]["words"])[:64], max_f1_drop=.02)
    card = model_card("me/tiny", ["O", "B-geo"], FIGURES, {**FACTS, "word_memory": True})
    hub = write_hub_folder(tmp_path/"hub", hub_files(tmp_path/"bert", tmp_path/"onnx"), card)
    assert not (hub/"model.safetensors").exists() and 'subfolder="onnx"' in (hub/"README.md").read_text()
    with pytest.raises(OSError, match="model.safetensors"): AutoModelForTokenClassification.from_pretrained(hub)
    trained = Tagger.from_pretrained(tmp_path/"bert", "torch")
    assert trained.engine.model.word_memory.table.weight.abs().max() > 0
    wanted = [t.tags for t in trained.tag_tokenized(words)]
    assert [t.tags for t in Tagger.from_pretrained(hub, "onnx").tag_tokenized(words)] == wanted
    trained.engine.model.word_memory.table.weight.data.zero_()
    assert [t.tags for t in trained.tag_tokenized(words)] != wanted


@pytest.fixture
def push(models):
    "`push(*arguments)` in a project that trained on `tiny`."
    top = models.parent.parent
    for name in ("params.yaml", "settings.ini", "dvc.yaml"): shutil.copy(ROOT/name, top)
    params = (top/"params.yaml").read_text()
    (top/"params.yaml").write_text(params.replace("name: sample", "name: tiny"))
    sample = read_json(ROOT/"metrics/sample/bert.json")
    for stage in ("bert", "data"): write_json(top/f"metrics/tiny/{stage}.json", read_json(ROOT/f"metrics/sample/{stage}.json"))
    assert sample["model"].startswith("package:")
    env = {**os.environ, "BERT_NER_ROOT": str(top), "HF_ENDPOINT": "http://127.0.0.1:1", "HF_TOKEN": "hf_none"}
    def run(*args):
        return subprocess.run(
            [str(Path(sys.executable).parent/"bert-ner"), "push", *args], cwd=top, env=env, capture_output=True, text=True
        )
    run.folder = models/"hub"
    yield run
    shutil.rmtree(run.folder, ignore_errors=True)


def test_a_dry_run_writes_the_folder_and_asks_nobody(push):
    done = push("someone/tiny", "--dry-run")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    *files, last = done.stdout.splitlines()
    assert last == f"wrote {push.folder}" and any(l.endswith("onnx/model_quantized.onnx") for l in files)
    sizes = {l.split()[1]: int(l.split()[0].replace(",", "")) for l in files}
    assert sizes == {p.relative_to(push.folder).as_posix(): p.stat().st_size for p in push.folder.rglob("*") if p.is_file()}
    assert 'pipeline("token-classification", "someone/tiny"' in (push.folder/"README.md").read_text()
    assert json.dumps(push("someone/tiny", "--dry-run").stdout) == json.dumps(done.stdout)      # it replaces its own


def test_an_upload_that_fails_says_so_in_one_sentence(push):
    done = push("someone/tiny")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "someone/tiny was not uploaded" in done.stderr and "HF_TOKEN" in done.stderr and str(push.folder) in done.stderr


def test_what_is_not_ours_is_not_replaced(push):
    push.folder.mkdir()
    (push.folder/"notes.txt").write_text("mine")
    done = push("someone/tiny", "--dry-run")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert [p.name for p in push.folder.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["a/b/c", "", "with space/x"])
def test_a_name_that_the_hub_does_not_allow(push, name):
    done = push(name, "--dry-run")
    assert done.returncode == 1 and "use USER/NAME" in done.stderr and not push.folder.exists()
