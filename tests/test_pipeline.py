"""What `make repro` leaves behind (run with `pytest -m pipeline`): figures, gates, reports, and a model that finds
entities."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bert_ner.core import ROOT, GMB_LABELS, artifact_path, load_params
from bert_ner.data import load_splits, words_and_tags
from bert_ner.tagger import Tagger, compare_taggers

pytestmark = pytest.mark.pipeline
# which has no notebook
STAGES = {
    name: stage for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items() if name != "code"
}


@pytest.fixture(scope="module")
def name(): return load_params("data")["name"]


def metrics(name, stage): return json.loads((ROOT/"metrics"/name/f"{stage}.json").read_text())


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_left_its_outputs_and_a_report(name, stage):
    outs = [
        o if isinstance(o, str) else next(iter(o))
        for key in ("outs", "metrics", "plots")
        for o in STAGES[stage].get(key, [])
    ]
    missing = [o for o in outs if not (ROOT/o.replace("${data.name}", name)).exists()]
    assert len(outs) >= 2 and missing == []


def test_reports_were_executed_without_error_or_warning(name):
    notebooks = sorted((ROOT/"reports"/name).glob("*.ipynb"))
    assert len(notebooks) == len(STAGES)
    for notebook in notebooks:
        cells = [c for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"]
        assert all(c["execution_count"] for c in cells if "".join(c["source"]).strip())
        said = "".join("".join(o.get("text", "")) for c in cells for o in c["outputs"] if o.get("name") == "stderr")
        assert "Warning" not in said, f"{notebook.name}: {said}"


def test_bert_beats_the_baseline_and_both_learned(name):
    baseline, bert = metrics(name, "baseline"), metrics(name, "bert")
    for m in (baseline, bert):
        assert (
            m["test"]["mode"] == "strict"
            and set(m["test"]["labels"]) == set(GMB_LABELS)
            and m["parameters"]["seeds"] == [42]
            and m["best_seed"] == 42
        )
        assert (
            m["mean_over_seeds"]["test"]["micro_f1"] == m["test"]["micro"]["f1"]
            and m["corpus_sha256"]
            and m["hardware"]["cores"]
        )
        low, high = m["test"]["micro_f1_ci95"]
        assert low <= m["test"]["micro"]["f1"] <= high
    assert bert["test"]["micro"]["f1"] > baseline["test"]["micro"]["f1"] > .5


def test_raw_text_costs_little(name):
    bert = metrics(name, "bert")
    assert bert["best_seed_test"]["raw_text"]["micro_f1"] >= bert["test"]["micro"]["f1"] - .005


def test_gates_were_passed(name):
    made, asked = metrics(name, "export"), load_params("export")
    assert (
        made["onnx"]["check"]["minimum"]
        == asked["min_exact_match"]
        <= made["onnx"]["exact_match"]
        == made["onnx"]["check"]["value"]
    )
    assert (
        made["onnx_int8"]["check"]["minimum"]
        == -asked["max_f1_drop"]
        <= made["onnx_int8"]["check"]["value"]
        == pytest.approx(made["onnx_int8"]["f1"] - made["onnx_int8"]["f1_reference"], abs=2e-5)
    )
    triton = metrics(name, "triton")
    assert triton["sentences"] > 0 and triton["identical"] == dict(grpc=triton["sentences"], http=triton["sentences"])


def test_published_files_are_no_pickles(name):
    files = [p for p in (ROOT/"models"/name).rglob("*") if p.is_file()]
    assert files and {p.suffix for p in files} <= {".safetensors", ".onnx", ".json"}
    assert not list((ROOT/"models"/name).rglob("*.data"))


def test_int8_and_fp32_agree_through_the_public_door(name):
    words, gold = words_and_tags(load_splits(name)["test"].select(range(200)))
    folder = artifact_path("models", "onnx", name)                # by default the sample's own model does not answer
    report = compare_taggers(
        Tagger.from_pretrained(folder, "onnx"), Tagger.from_pretrained(folder, "onnx-int8"), words, gold
    )
    assert (
        report["sentences"] == 200
        and report["exact_match"] >= 0.9
        and report["f1_reference"] > 0.5
        and abs(report["f1"] - report["f1_reference"]) < 0.03
    )


def test_the_shell_finds_entities(name):
    text = "Officials in Paris said on Monday that the French president will visit Japan ."
    out = subprocess.run(
        [str(Path(sys.executable).parent / "bert-ner"), "infer", text, "--json"], capture_output=True, text=True
    )
    entities = json.loads(out.stdout)
    assert out.stderr == "" and len(entities) >= 2
    assert all(text[e["start"]:e["end"]] == e["text"] for e in entities)


def test_another_clone_pulls_what_was_pushed(tmp_path, name):
    "One clone pushes to the default remote beside it, the other pulls and has nothing to do; the model is fetched by its tag."
    def sh(program, *command, cwd):
        beside = Path(sys.executable).with_name(program)            # dvc, which need not be on the path
        command = [beside if beside.exists() else program, *command]
        done = subprocess.run([str(c) for c in command], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
        assert not done.returncode, done.stdout[-2000:]
        return done.stdout
    one, two = tmp_path/"one", tmp_path/"two"
    sh("git", "clone", "-q", ROOT, one, cwd=tmp_path)
    for file in ("dvc.lock", "dvc.yaml", "params.yaml", ".dvc/config"): (one/file).write_bytes((ROOT/file).read_bytes())
    sh("dvc", "cache", "dir", "--local", ROOT/".dvc"/"cache", cwd=one)
    sh("dvc", "push", "--quiet", "dvc.yaml", cwd=one)
    assert (tmp_path/"bert-ner-storage"/"files").is_dir()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org"]
    sh(*git, "add", "-A", cwd=one)
    sh(*git, "commit", "-q", "--allow-empty", "-m", "the models", cwd=one)
    sh(*git, "tag", "-a", "-m", "a version", "ner@v1.0.0", cwd=one)
    sh("git", "clone", "-q", one, two, cwd=tmp_path)
    sh("dvc", "pull", "--quiet", "dvc.yaml", cwd=two)
    text, find = "Angela Merkel met officials in Paris on Monday.", lambda model: Tagger.from_pretrained(model).tag(text)
    assert find(two/"models"/name/"onnx") == find(ROOT/"models"/name/"onnx")
    sh("dvc", "artifacts", "get", one, "ner", "--rev", "v1.0.0", "--out", tmp_path/"ner", cwd=tmp_path)
    assert find(tmp_path/"ner") == find(ROOT/"models"/name/"onnx")
