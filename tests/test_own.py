"""A corpus of one's own, with tags that no other corpus has, goes the whole way: file, split, Bi-LSTM, BERT, ONNX,
int8, Triton, demo."""
import random
import re

import pytest
import yaml
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from bert_ner.core import ROOT, BertNerError, list_notebooks, seed_everything
from bert_ner.data import load_corpus, to_dataset, words_and_tags
from bert_ner.corpus import build_tag_list

FRAMES = [
    "Take {drug} {dose} with water .",
    "She was given {dose} of {drug} in March .",
    "No {drug} before {time} , please .",
    "Since {time} he has had {drug} .",
    "The doctor wrote : {dose} , then rest .",
    "Nothing was found .",
    "{drug} and {drug} do not mix .",
    "Normal food until {time} .",
]
SLOTS = dict(drug=["Normacol Plus", "Aspirin", "Zinc Forte Retard", "Ibuprofen", "Codeine", "Vitamin C"],
             dose=["2 pills", "10 ml", "half a spoon", "3 drops"], time=["noon", "Monday evening", "ten o'clock"])
TAGS = ("O", *(f"{p}-{t}" for t in sorted(SLOTS) for p in "BI"))


def make_corpus(n=240) -> list:
    "(words, tags) of `n` sentences from `FRAMES`."
    rng, out = random.Random(42), []
    for i in range(n):
        words, tags = [], []
        for part in re.split(r"[{}]", rng.choice(FRAMES)):
            chosen = rng.choice(SLOTS[part]).split() if part in SLOTS else part.split()
            words += chosen
            tags += [f"{'I' if k else 'B'}-{part}" if part in SLOTS else "O" for k in range(len(chosen))]
        out.append(([*words, f"({i})"], [*tags, "O"]))
    return out


def as_conll(corpus) -> str:
    return "-DOCSTART- -X- O O\n\n" + "\n".join("".join(f"{w} _ _ {t}\n" for w, t in zip(*s)) for s in corpus)


def as_csv(corpus) -> str:
    rows = [
        f'{f"Sentence: {i}" if not k else ""},"{w}",NN,{t}'
        for i, s in enumerate(corpus, 1)
        for k, (w, t) in enumerate(zip(*s))
    ]
    return "\n".join(["Sentence #,Word,POS,Tag", *rows]) + "\n"


@pytest.fixture(scope="module")
def corpus(): return make_corpus()


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """What the stages baseline, bert and export make of the corpus, in miniature: a BERT of two layers that was not
    pretrained. (root folder, data set, records)"""
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
    from bert_ner.baseline import train_bilstm
    from bert_ner.bert import fine_tune
    from bert_ner.export import export_model
    top = tmp_path_factory.mktemp("own")
    (top/"drugs.conll").write_text(as_conll(corpus), encoding="utf-8")
    sentences, _ = load_corpus("drugs", str(top/"drugs.conll"))
    ds = to_dataset(sentences, build_tag_list(sentences))
    base = train_bilstm(ds, top/"baseline", 8, 4, 1e-2, 256, 32, 32, .1, .05)
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        *sorted({w.lower() for s, _ in sentences for w in re.findall(r"\w+|[^\w\s]", " ".join(s))}),
    ]
    tokenizer = Tokenizer(models.WordPiece({w: i for i, w in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = (
        normalizers.BertNormalizer(lowercase=True),
        pre_tokenizers.BertPreTokenizer(),
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(top / "small")
    seed_everything()
    BertModel._from_config(
        BertConfig(
            vocab_size=len(words),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=64,
            initializer_range=0.1,
        )
    ).save_pretrained(top / "small")
    bert = fine_tune(
        ds,
        top / "bert",
        str(top / "small"),
        True,
        64,
        0.0,
        seed=42,
        learning_rate=3e-3,
        num_train_epochs=4,
        per_device_train_batch_size=16,
        logging_steps=50,
        disable_tqdm=True,
    )
    validation = words_and_tags(ds["validation"])
    export_model(top/"bert", top/"onnx", *validation, list(ds["train"]["words"]), max_f1_drop=.05)
    return top, ds, dict(baseline=base, bert=bert)


def test_csv_and_conll_are_the_same_corpus(corpus, tmp_path):
    for name, text, encoding in (
        ("a.csv", as_csv(corpus), "utf-8"),
        ("a.conll", as_conll(corpus), "utf-8"),
        ("b.csv", as_csv(corpus), "cp1252"),
        ("a.txt", as_conll(corpus).replace(" ", "\t"), "utf-8"),
    ):
        (tmp_path/name).write_bytes(text.encode(encoding))
        assert load_corpus("drugs", str(tmp_path/name), encoding=encoding)[0] == corpus
    assert build_tag_list(corpus) == TAGS


def test_letters_of_the_western_code_page_and_what_is_said_without_it(tmp_path):
    (tmp_path/"a.conll").write_bytes("Dr. O\nMüller’s B-doctor\n".encode("cp1252"))
    assert load_corpus("a", str(tmp_path / "a.conll"), encoding="cp1252")[0] == [
        (["Dr.", "Müller’s"], ["O", "B-doctor"])
    ]
    with pytest.raises(BertNerError, match="row 2: not utf-8"): load_corpus("a", str(tmp_path/"a.conll"))


def test_both_models_learn_the_new_tags(trained):
    top, ds, done = trained
    assert ds["train"].features["tags"].feature.names == list(TAGS)
    assert done["baseline"]["f1"] > .8 and done["bert"]["f1"] > .8


def test_the_exported_tagger_finds_them_in_text(trained):
    from bert_ner.tagger import Tagger
    from bert_ner.engines import model_labels
    top, ds, _ = trained
    text = "She was given 10 ml of Normacol Plus in March."
    for folder, engine in (("bert", "torch"), ("onnx", "onnx"), ("onnx", "onnx-int8"), ("baseline", "baseline")):
        tagger = Tagger.from_pretrained(top/folder, engine)
        assert tagger.tags == list(TAGS)
        assert [(e.label, e.text) for e in tagger.tag(text)] == [("dose", "10 ml"), ("drug", "Normacol Plus")], engine
    assert model_labels(top/"onnx") == sorted(SLOTS)


def test_scores_and_error_tables_speak_of_the_new_types(trained):
    from bert_ner.error_analysis import (
        expected_calibration_error,
        most_confused_words,
        error_breakdown,
        entity_confidences,
        label_confusions,
    )
    from bert_ner.tagger import Tagger
    from bert_ner.metrics import evaluate
    top, ds, _ = trained
    tagger, (words, gold) = Tagger.from_pretrained(top/"onnx", "onnx"), words_and_tags(ds["test"])
    scores = evaluate(tagger.tag_tokenized, dict(test=(words, gold)))["test"]
    tagged = tagger.tag_tokenized(words)
    pred = [t.tags for t in tagged]
    assert set(scores["labels"]) == set(SLOTS) and scores["micro"]["f1"] > .8
    assert set(error_breakdown(gold, pred).index) == {*SLOTS, "all"} and {
        a for a, _ in label_confusions(gold, pred)
    } == set(SLOTS)
    assert (
        0 <= expected_calibration_error(*entity_confidences(tagged, gold)) < 0.5
        and len(most_confused_words(words, gold, pred)) <= 20
    )


def test_a_real_triton_server_speaks_of_the_new_types(trained, tmp_path):
    from bert_ner.tagger import Tagger
    from bert_ner.triton.server import TritonServer
    from bert_ner.triton.client import TritonTagger, find_mismatches
    from bert_ner.triton.repository import build_repository
    top, ds, _ = trained
    texts = [" ".join(w) for w in ds["test"]["words"]]
    local = Tagger.from_pretrained(top/"onnx", "onnx").tag_batch(texts)
    with TritonServer(
        build_repository(tmp_path / "models", model=top / "onnx"), log=tmp_path / "log", timeout=120
    ) as server:
        with TritonTagger(server.urls["grpc"]) as client: assert find_mismatches(local, client.tag_batch(texts)) == []
        with TritonTagger(server.urls["http"], "http", labels=["drug"]) as client:
            assert {e.label for es in client.tag_batch(texts) for e in es} == {"drug"}
        with TritonTagger(server.urls["grpc"], labels=["geo"]) as client:
            with pytest.raises(BertNerError, match="'geo': there are dose, drug, time"): client.tag("Aspirin")


def test_the_demo_comes_up_and_the_new_types_have_colors(trained):
    from bert_ner.demo import demo
    from bert_ner.tagger import Tagger
    from bert_ner.engines import model_labels
    from bert_ner.render import LABEL_COLORS, label_color, highlight, legend
    demo(trained[0]/"onnx", engine="onnx")
    text = "Take Aspirin 2 pills with water."
    marked = re.findall(
        r'<mark class="ner-(\w+)" data-label="(\w+)"',
        highlight(text, Tagger.from_pretrained(trained[0] / "onnx", "onnx").tag(text)),
    )
    assert (
        marked == [(label_color(t), t) for t in ("drug", "dose")]
        and len({label_color(t) for t in SLOTS} & set(LABEL_COLORS)) == 3
    )
    explained = legend(model_labels(trained[0]/"onnx"))
    assert re.findall("</mark> (\\w+)", explained) == sorted(SLOTS)


def test_the_data_stage_takes_its_corpus_from_parameters_alone(corpus, tmp_path, monkeypatch):
    "The notebook as DVC runs it, in a project of its own, on a file in IOB1 and Windows' Western encoding."
    from datasets import load_from_disk
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    from bert_ner.stages import run_notebook, stage_parameters
    (tmp_path/"nbs").symlink_to(ROOT/"nbs")
    iob1 = [(w, [t.replace("B-", "I-") for t in tags]) for w, tags in corpus]
    (tmp_path/"mine.conll").write_bytes(as_conll([*iob1, (["Müller", "’"], ["I-time", "O"])]).encode("cp1252"))
    overrides = ["data=own", "data.name=mine", "data.path=mine.conll", "data.encoding=cp1252", "data.scheme=iob1"]
    with initialize_config_dir(str(ROOT/"conf"), version_base=None):
        values = OmegaConf.to_container(compose("config", overrides), resolve=True)
    assert (
        values["watch"] == "mine.conll"
        and "${watch}" in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["data"]["deps"]
    )
    (tmp_path/"params.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setenv("BERT_NER_ROOT", str(tmp_path))
    run_notebook(
        ROOT / "nbs/01_data.ipynb",
        tmp_path / "reports/mine/01_data.ipynb",
        stage_parameters(
            {"name", "path", "member", "more", "sentences", "encoding", "scheme", "seed"}, "data", values
        ),
    )
    ds = load_from_disk(str(tmp_path/"data/mine/arrow"))
    assert ds["train"].features["tags"].feature.names == list(TAGS)
    assert {tuple(w): t for p in ds for w, t in zip(*words_and_tags(ds[p]))} == {
        tuple(w): t for w, t in [*corpus, (["Müller", "’"], ["B-time", "O"])]
    }
    assert (tmp_path / "plots/mine/data/tags.csv").read_text().splitlines()[0].startswith("type") and len(
        (tmp_path / "plots/mine/data/tags.csv").read_text().splitlines()
    ) == 4


def test_every_stage_knows_the_parameters_of_an_own_corpus():
    import papermill as pm
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    from bert_ner.stages import stage_parameters
    with initialize_config_dir(str(ROOT/"conf"), version_base=None):
        values = OmegaConf.to_container(compose("config", ["data=own"]), resolve=True)
    for stage in (stages := "data baseline bert export bench bulk tensorrt triton demo".split()):
        notebook, = [p for p in list_notebooks() if p.stem.partition("_")[2] == stage]
        given = stage_parameters(set(pm.inspect_notebook(str(notebook))), stage, values)
        assert given["seed"] == 42 and given.get("corpus", given.get("name")) == "own"
    assert len(stages) == 9
