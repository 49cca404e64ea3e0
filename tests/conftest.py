"What several tests share: a tagger in miniature, real in everything but its knowledge."
import functools
import os
import shutil
import subprocess
from importlib.util import find_spec

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper, save as save_onnx
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from bert_ner.core import GMB_TAGS
from bert_ner.pieces import save_tokenizer_config

VOCAB = {w: i for i, w in enumerate("[PAD] [UNK] [CLS] [SEP] new york paris monday bush mr . in on met".split())}
KNOWN = dict(paris="B-geo", new="B-geo", york="I-geo", monday="B-tim", mr="B-per", bush="I-per")


@pytest.fixture(scope="session")
def mini_tagger_folder(tmp_path_factory):
    """A tagger's folder (both ONNX files, tokenizer.json, tagger.json) that knows `Paris`, `New York`, `Monday` and `Mr. Bush`.

    The graph looks up one row of logits a piece; the second file is the first under another name. Read it, do not write to it.
    """
    table = np.full((len(VOCAB), len(GMB_TAGS)), -4., dtype=np.float32)
    table[:, 0] = 0
    for word, tag in KNOWN.items(): table[VOCAB[word], GMB_TAGS.index(tag)] = 4
    inputs = [helper.make_tensor_value_info(n, TensorProto.INT64, ["batch", "length"]) for n in ("input_ids", "attention_mask", "token_type_ids")]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", "length", len(GMB_TAGS)])
    graph = helper.make_graph([helper.make_node("Gather", ["table", "input_ids"], ["logits"])], "mini", inputs, [output], [numpy_helper.from_array(table, "table")])
    tokenizer = Tokenizer(models.WordPiece(VOCAB, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    folder = save_tokenizer_config(tmp_path_factory.mktemp("tagger")/"mini", tokenizer, GMB_TAGS, case_feature=True, max_length=64)
    save_onnx(helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)]), folder/"model.onnx")
    shutil.copy(folder/"model.onnx", folder/"model.int8.onnx")
    return folder


def pytest_collection_modifyitems(config, items):
    "What this machine cannot do, or was not asked to do, is deselected, and the header says so."
    gone = [i for i in items if any(i.get_closest_marker(m) for m, why in missing().items() if why)]
    items[:] = [i for i in items if i not in gone]
    config.hook.pytest_deselected(items=gone)


@functools.cache
def missing():
    "Marker of tests -> why they do not run here, \"\" where they do."
    def tool(*command):
        try: return "" if not subprocess.run(command, capture_output=True).returncode else f"`{' '.join(command)}` fails"
        except FileNotFoundError: return f"there is no {command[0]}"
    return dict(gmb="" if os.environ.get("BERT_NER_GMB") else "BERT_NER_GMB does not name the real corpus", long="" if os.environ.get("BERT_NER_LONG") else "BERT_NER_LONG is not set",
                node=tool("node", "--version"), curl=tool("curl", "--version"), compose=tool("docker", "compose", "version"),
                pyright=tool("pyright", "--version"), mypy=tool("mypy", "--version"), spacy="" if find_spec("spacy") else "spaCy is not installed")


def pytest_report_header(config): return [f"tests marked {m}: {f'do not run, {why}' if why else 'run'}" for m, why in missing().items()]
