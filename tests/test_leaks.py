"""Nothing leaks: the test split is read once, repeats stay together (tests/test_corpus.py), and a tagger taught
nonsense knows nothing."""
import json
import random
import re

import pytest

from bert_ner.baseline import BiLSTMEngine, train_bilstm
from bert_ner.core import ROOT
from bert_ner.data import to_dataset, words_and_tags
from bert_ner.tagger import Tagger
from bert_ner.metrics import entity_scores
from bert_ner.windows import load_tokenizer_config
from bert_ner.synthetic import generate_corpus


def code_cells(notebook: str) -> list[str]:
    return [
        "".join(c["source"])
        for c in json.loads((ROOT / "nbs" / notebook).read_text())["cells"]
        if c["cell_type"] == "code"
    ]


@pytest.mark.parametrize("notebook", ["02_baseline.ipynb", "03_bert.ipynb"])
def test_the_test_part_is_read_by_one_cell_only(notebook):
    stage = [c for c in code_cells(notebook) if "#| slow" in c]
    reads = [c for c in stage if re.search(r"""ds\[["']test["']\]""", c)]
    assert len(stage) >= 4 and len(reads) == 1 and "evaluate(" in reads[0]
    other = [c for c in stage if c not in reads and re.search(r"for \w+ in ds\b|ds\.(items|values|keys)\(", c)]
    assert other == []                                                       # nor by going through all parts


@pytest.mark.parametrize("module", ["baseline", "bert", "windows", "engines", "tagger"])
def test_the_library_never_names_the_test_part(module):
    source = (ROOT/"bert_ner"/f"{module}.py").read_text()
    assert source and not re.search(r"""["']test["']""", source)


def trained_f1(ds, folder) -> float:
    "Strict micro F1 on the validation part of a small baseline trained on `ds`."
    train_bilstm(ds, folder, 4, 4, 1e-2, 512, 50, 32, .2, 0.)
    words, gold = words_and_tags(ds["validation"])
    return entity_scores(
        gold, [t.tags for t in Tagger(BiLSTMEngine.load(folder), *load_tokenizer_config(folder)).tag_tokenized(words)]
    )["micro"]["f1"]


def test_shuffled_labels_collapse(tmp_path):
    rows = list(generate_corpus(42, 800))
    labels = [t for _, t in rows]
    random.Random(42).shuffle(labels)                                        # each sentence gets another one's tags
    shuffled = [(w, (t + ["O"] * len(w))[:len(w)]) for (w, _), t in zip(rows, labels)]
    honest, nonsense = (to_dataset(r) for r in (rows, shuffled))
    nonsense["validation"] = honest["validation"]
    assert trained_f1(honest, tmp_path/"honest") > .3
    assert trained_f1(nonsense, tmp_path/"nonsense") < .1
