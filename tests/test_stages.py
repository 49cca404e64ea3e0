"""Stages: what a run executes, where its parameters come from, which values they may have, what a failed run leaves
behind, and what makes DVC run one again."""
import json
import os
import re
import shutil
import subprocess
import symtable
import sys
import threading
from pathlib import Path

import pytest
import yaml

from bert_ner.stages import is_stage_cell, run_stage, stage_cells, stage_code, write_stage_code
from bert_ner.core import PARAM_RULES, ROOT, BertNerError, check_params, list_notebooks, stage_params

NOTEBOOKS = {f.stem.partition("_")[2]: f for f in list_notebooks()
    if any("parameters" in c["metadata"].get("tags", []) for c in json.loads(f.read_text())["cells"])}
DVC_FILES = ("dvc.yaml", "gpu/dvc.yaml", "bench/dvc.yaml", "bulk/dvc.yaml", "ablations/dvc.yaml", "consumers/dvc.yaml")
PATH = f"{Path(sys.executable).parent}:{os.environ['PATH']}"


def code_cells(notebook): return [c for c in json.loads(notebook.read_text())["cells"] if c["cell_type"] == "code"]


def global_names(source):
    "Names of the notebook that a cell reads or writes, also from inside of functions."
    found = set()
    def walk(table, top):
        found.update(s.get_name() for s in table.get_symbols() if top or s.is_global())
        for child in table.get_children(): walk(child, False)
    walk(
        symtable.symtable("\n".join(l for l in source.splitlines() if not l.startswith(("%", "!"))), "cell", "exec"),
        True,
    )
    return found


# --- what a run executes

def test_there_are_stage_notebooks(): assert len(NOTEBOOKS) >= 11


@pytest.mark.parametrize("stage", NOTEBOOKS)
def test_tests_of_a_stage_notebook_use_no_parameter(stage):
    "Nor do its definitions: what tests call would read them for them."
    cells = code_cells(NOTEBOOKS[stage])
    own, = [c for c in cells if "parameters" in c["metadata"].get("tags", [])]
    declared = global_names("".join(own["source"])) - {"stage_params", "p"}
    assert {"corpus", "name"} & declared
    staged = re.compile(r"#\|\s*(slow|gpu|long)\b")
    others = {
        c["id"]: global_names("".join(c["source"])) & declared
        for c in cells
        if c is not own and not staged.match("".join(c["source"]))
    }
    assert {k: v for k, v in others.items() if v} == {}


@pytest.mark.parametrize("stage", NOTEBOOKS)
def test_a_stage_declares_what_params_yaml_and_the_table_have(stage):
    import papermill as pm
    declared = set(pm.inspect_notebook(str(NOTEBOOKS[stage]))) - {"p"}
    own = declared - {"seed", "corpus", "track_wandb", "track_mlflow"}
    assert own == set(PARAM_RULES.get(stage, {}))
    assert set(stage_params(stage)) - {"seed", "corpus", "track_wandb", "track_mlflow"} == own - (
        {"commits"} if stage == "sweep" else set()
    )


def test_a_stage_runs_its_marked_cells_and_no_test():
    kept = [c for c in code_cells(NOTEBOOKS["bert"]) if is_stage_cell(c)]
    assert (
        not any("test_eq" in "".join(c["source"]) for c in kept)
        and sum("#| slow" in "".join(c["source"]) for c in kept) >= 10
    )
    text = "".join(
        "".join(c["source"])
        for c in stage_cells(json.loads(NOTEBOOKS["bert"].read_text())["cells"])
        if c["cell_type"] == "markdown"
    )
    assert "# bert" in text and "## Error analysis" in text and "### Edge: no such model" not in text


# --- parameters

BAD = [
    ("bert", "lr", "abc"),
    ("bert", "lr", 0),
    ("bert", "lr", -1e-5),
    ("bert", "lr", float("inf")),
    ("bert", "epochs", 0),
    ("bert", "batch_size", 32.0),
    ("bert", "batch_size", "32"),
    ("bert", "max_train_samples", -1),
    ("bert", "max_train_samples", None),
    ("bert", "dropout", 1),
    ("bert", "warmup_ratio", 1),
    ("bert", "case_feature", "yes"),
    ("bert", "model_name_or_path", ""),
    ("bert", "seeds", 42),
    ("bert", "seeds", []),
    ("bert", "seeds", [-1]),
    ("bert", "seeds", [2**32]),
    ("bert", "max_length", 4),
    ("bert", "layerwise_lr_decay", 0),
    ("bert", "nproc_per_node", 0),
    ("bert", "rdrop_alpha", -0.1),
    ("bert", "num_hidden_layers", -1),
    ("bert", "teacher_name_or_path", None),
    ("bert", "distillation_alpha", 1.1),
    ("bert", "track_mlflow", 1),
    ("baseline", "epochs", 1.5),
    ("baseline", "patience", -1),
    ("baseline", "word_dropout", 1.1),
    ("baseline", "embedding_dim", True),
    ("baseline", "seed", -1),
    ("baseline", "corpus", "../x"),
    ("data", "name", "a/b"),
    ("data", "name", 7),
    ("data", "sentences", -5),
    ("data", "scheme", "iob3"),
    ("data", "encoding", None),
    ("export", "min_exact_match", 2),
    ("export", "calibration_samples", 0),
    ("triton", "engine", "fast"),
    ("triton", "num_test_samples", 1.5),
    ("bulk", "rows_per_shard", 0),
    ("bulk", "actors", [0]),
    ("bulk", "actors", 2),
    ("consumers", "sentences", -1),
    ("bench", "repeats", 0),
    ("bench", "stream_sentences", 9),
    ("tensorrt", "profile_lengths", [0]),
    ("tensorrt", "max_batch_tokens", "many"),
    ("ablations", "train_fraction", 0),
    ("ablations", "learning_curve_fractions", [2]),
    ("ablations", "bert", "no_regularization"),
]


@pytest.mark.parametrize("stage,name,value", BAD)
def test_a_value_that_cannot_work_is_named(stage, name, value):
    shown = {"track_mlflow": "track.mlflow", "seed": "seed", "corpus": "data.name"}.get(name, f"{stage}.{name}")
    with pytest.raises(BertNerError, match=f"^{re.escape(f'{shown} is {value!r}: it must be ')}[^.]") as e:
        check_params(stage, {name: value})
    assert "\n" not in str(e.value)


@pytest.fixture
def project(tmp_path, monkeypatch):
    "A project of one's own: the notebooks, and params.yaml to be changed with `write`."
    import bert_ner.core as core, bert_ner.pipeline as pipeline, bert_ner.stages as stages
    for name in ("dvc.yaml", "settings.ini"): shutil.copy(ROOT/name, tmp_path/name)
    shutil.copytree(ROOT/"conf", tmp_path/"conf"); (tmp_path/"nbs").symlink_to(ROOT/"nbs")
    values = yaml.safe_load((ROOT/"params.yaml").read_text())
    def write(**blocks):
        (tmp_path / "params.yaml").write_text(
            yaml.safe_dump(
                {**values, **{k: {**values[k], **v} if isinstance(v, dict) else v for k, v in blocks.items()}}
            )
        )
    write()
    monkeypatch.setenv("BERT_NER_ROOT", str(tmp_path))
    monkeypatch.setattr(core, "ROOT", tmp_path); monkeypatch.setattr(stages, "ROOT", tmp_path); monkeypatch.setattr(pipeline, "ROOT", tmp_path)
    monkeypatch.delenv("BERT_NER_QUICK", raising=False)
    return tmp_path, write


def test_numbers_that_yaml_reads_as_text_are_numbers(project):
    "DVC writes 5e-05, which YAML 1.1 takes for a text."
    folder, write = project
    file = folder/"params.yaml"
    file.write_text(re.sub(r"(?m)^  lr: 0.0005$", "  lr: 5e-05", file.read_text()))
    assert stage_params("bert")["lr"] == 5e-5


@pytest.mark.parametrize("change,said", [
    (dict(bert=dict(lrr=1)), "params.yaml: bert.lrr is not a parameter of the notebook"), (dict(bert=dict(lr="abc")), "bert.lr is 'abc': it must be a number above 0"),
    (dict(bert="none"), "params.yaml: bert is 'none', where a block"), (dict(data=dict(name="quick")), "kept for quick looks"), (dict(seed="x"), "seed is 'x'"), (dict(data=dict(name="")), "data.name is ''")])
def test_a_broken_params_yaml_ends_before_anything_runs(project, change, said):
    folder, write = project
    write(**change)
    with pytest.raises(BertNerError, match=re.escape(said)): run_stage("bert")
    assert not (folder/"reports").exists() and not (folder/"models").exists()


def test_a_missing_parameter_is_named(project):
    folder, write = project
    file = folder/"params.yaml"
    file.write_text(file.read_text().replace("  warmup_ratio: 0.1\n", ""))
    with pytest.raises(BertNerError, match="params.yaml has no bert.warmup_ratio"):
        stage_params("bert")["warmup_ratio"]


def test_a_quick_look_is_another_corpus(project, monkeypatch):
    for stage in NOTEBOOKS:
        p = stage_params(stage, quick=True)
        assert p["corpus"] == "quick" and set(p) == set(stage_params(stage))
    monkeypatch.setenv("BERT_NER_QUICK", "1")
    assert stage_params("bert") == stage_params("bert", quick=True)
    monkeypatch.setenv("BERT_NER_QUICK", "0")
    assert stage_params("bert")["corpus"] == "sample"


def test_dvc_runs_no_quick_look(project, monkeypatch):
    monkeypatch.setenv("BERT_NER_QUICK", "1"); monkeypatch.setenv("DVC_STAGE", "bert")
    with pytest.raises(BertNerError, match="DVC stages have no quick mode"): run_stage("bert")


# --- by hand, by papermill, by nbdev_test

def files(folder):
    "Everything below `folder` that a stage writes, with its bytes."
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for k in ("data", "models", "metrics", "plots", "reports", "model_repository")
        for p in sorted((folder / k).rglob("*"))
        if p.is_file()
    }


def run_all(notebook, folder, **env):
    "Every cell of a notebook in a kernel of its own that works in nbs/, as JupyterLab's Run > Run All Cells has it."
    import nbformat
    from nbclient import NotebookClient
    from unittest.mock import patch
    nb = nbformat.read(notebook, as_version=4)
    with patch.dict(os.environ, {"BERT_NER_ROOT": str(folder), "PYTHONPATH": str(ROOT), **env}):
        NotebookClient(
            nb,
            timeout=None,
            startup_timeout=300,
            kernel_name="python3",
            resources=dict(metadata=dict(path=str(notebook.parent))),
        ).execute()
    return nb


SMALL = dict(data=dict(sentences=320), baseline=dict(epochs=1, embedding_dim=12, hidden_size=9))
run_ner = lambda *args, **env: subprocess.run(
    [sys.executable, "-c", "from bert_ner.cli import main; main()", *args],
    capture_output=True,
    text=True,
    cwd=ROOT,
    env={**{k: v for k, v in os.environ.items() if k != "BERT_NER_QUICK"}, "PYTHONPATH": str(ROOT), **env},
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project whose stages data and baseline were run by papermill, with values of its own params.yaml; what they
    wrote. The tests below leave it as it is."""
    folder = tmp_path_factory.mktemp("made")
    for name in ("dvc.yaml", "settings.ini"): shutil.copy(ROOT/name, folder/name)
    shutil.copytree(ROOT/"conf", folder/"conf")
    shutil.copytree(ROOT/"nbs", folder/"nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    values = yaml.safe_load((ROOT/"params.yaml").read_text())
    (folder/"params.yaml").write_text(yaml.safe_dump({**values, **{k: {**values[k], **v} for k, v in SMALL.items()}}))
    for stage in ("data", "baseline"):
        done = run_ner("run-stage", stage, BERT_NER_ROOT=str(folder))
        assert not done.returncode, done.stderr
    return folder, files(folder)


def untimed(found):
    return {
        k: re.sub(rb'"minutes": [\d.]+|"date": "[\d-]+"', b"", v)
        for k, v in found.items()
        if not k.startswith("reports")
    }


@pytest.mark.timeout(1800)
def test_run_all_makes_what_the_pipeline_makes(made):
    """JupyterLab's Run All and papermill give the same models and figures, with the values of params.yaml; the tests
    in between change nothing of it."""
    folder, before = made
    figures = json.loads(before["metrics/sample/baseline.json"])
    assert (figures["parameters"]["embedding_dim"], figures["parameters"]["epochs"]) == (12, 1)
    assert not any(
        "train_bilstm(tiny" in "".join(c["source"])
        for c in json.loads(before["reports/sample/02_baseline.ipynb"])["cells"]
    )
    for notebook in ("01_data", "02_baseline"): run_all(ROOT/f"nbs/{notebook}.ipynb", folder)
    assert untimed(files(folder)) == untimed(before)


@pytest.mark.timeout(1800)
def test_a_quick_run_all_touches_nothing_of_the_real_run(made):
    folder, _ = made
    before = files(folder)
    for notebook in ("01_data", "02_baseline"): run_all(ROOT/f"nbs/{notebook}.ipynb", folder, BERT_NER_QUICK="1")
    after = files(folder)
    assert {k: after[k] for k in before} == before
    assert {
        "metrics/quick/data.json",
        "metrics/quick/baseline.json",
        "models/quick/baseline/model.safetensors",
        "plots/quick/baseline/training.csv",
    } <= set(after)
    assert all(k.split("/")[1] == "quick" for k in set(after) - set(before))
    assert all(
        subprocess.run(["git", "check-ignore", "-q", k], cwd=ROOT).returncode == 0 for k in set(after) - set(before)
    )


@pytest.mark.timeout(1800)
def test_nbdev_test_writes_nothing(made):
    folder, _ = made
    before = files(folder)
    for notebook in ("01_data", "02_baseline"):
        done = subprocess.run(
            [Path(sys.executable).parent / "nbdev_test", "--path", f"nbs/{notebook}.ipynb"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            env={**os.environ, "BERT_NER_ROOT": str(folder), "PYTHONPATH": str(ROOT)},
        )
        assert not done.returncode, done.stdout + done.stderr
    assert files(folder) == before


@pytest.mark.timeout(900)
def test_a_failing_stage_leaves_the_last_good_run(made):
    "Trained, but then the figures cannot be written: model, plots, figures and report are still those of before."
    folder, _ = made
    before, notebook = files(folder), folder/"nbs/02_baseline.ipynb"
    nb = json.loads(notebook.read_text())
    figures, = [c for c in nb["cells"] if c["cell_type"] == "code" and "write_metrics(" in "".join(c["source"])]
    figures["source"] = ["#| slow\nraise BertNerError('no figures today')"]
    notebook.write_text(json.dumps(nb))
    done = run_ner("run-stage", "baseline", BERT_NER_ROOT=str(folder))
    assert done.returncode == 1 and "no figures today (the failed copy is 02_baseline.failed.ipynb)" in done.stderr
    assert {k: v for k, v in files(folder).items() if "baseline-runs" not in k and ".failed." not in k} == before


# --- DVC

STAGES = {
    (file, name): stage
    for file in DVC_FILES
    for name, stage in yaml.safe_load((ROOT / file).read_text())["stages"].items()
}


def test_outputs_stay_until_new_ones_are_whole():
    outs = {
        o: (opts or {})
        for stage in STAGES.values()
        for key in ("outs", "metrics", "plots")
        for item in stage.get(key, [])
        for o, opts in ([(item, {})] if isinstance(item, str) else item.items())
    }
    assert len(outs) > 30 and [o for o, opts in outs.items() if not opts.get("persist")] == []


def test_stages_depend_on_code_not_on_notebooks():
    deps = {name: stage.get("deps", []) for (_, name), stage in STAGES.items()}
    assert [n for n, d in deps.items() if any(x.startswith("nbs/") and x.endswith(".ipynb") for x in d)] == []
    for name in set(deps) - {"code"}: assert f".stages/{NOTEBOOKS[name].stem}.py" in deps[name]


def test_the_code_of_a_stage_is_neither_output_nor_text_nor_layout(project):
    folder, _ = project
    (folder/"nbs").unlink()
    shutil.copytree(ROOT/"nbs", folder/"nbs", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    made = write_stage_code(folder/".stages")
    assert {f.name for f in made.glob("*")} == {f"{n.stem}.py" for n in NOTEBOOKS.values()}
    times = {f.name: f.stat().st_mtime_ns for f in made.iterdir()}
    notebook = folder/"nbs/03_bert.ipynb"
    nb = json.loads(notebook.read_text())
    for c in nb["cells"]:
        if c["cell_type"] == "markdown": c["source"] = [*c["source"], " A typo."]
        elif "#| slow" in "".join(c["source"]):
            c.update(
                outputs=[dict(output_type="stream", name="stdout", text=["seen"])],
                execution_count=9,
                source=["".join(c["source"]) + "   # a remark"],
            )
        elif not is_stage_cell(c) and "test_eq" in "".join(c["source"]): c["source"] = ["test_eq(1, 1)"]
    nb["metadata"]["widgets"] = {}
    notebook.write_text(json.dumps(nb, indent=4))
    (made/"gone.py").write_text("")
    write_stage_code(made)
    assert {f.name: f.stat().st_mtime_ns for f in made.iterdir()} == times
    notebook.write_text(
        notebook.read_text().replace(
            "default_rng(seed).permutation(wrong)[:12]", "default_rng(seed).permutation(wrong)[:13]"
        )
    )
    write_stage_code(made)
    assert [f.name for f in sorted(made.iterdir()) if f.stat().st_mtime_ns != times[f.name]] == ["03_bert.py"]
    compile(stage_code(notebook), "03_bert.py", "exec")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory):
    """The pipeline in a repository of its own, every stage but `code` a stub that writes its outputs; run once, all
    in git."""
    folder = tmp_path_factory.mktemp("pipeline")/"project"
    folder.mkdir()
    for name in (
        "dvc.yaml",
        "params.yaml",
        "settings.ini",
        "triton-constraints.txt",
        "LICENSE",
        ".gitignore",
        ".dvcignore",
        "tests/stub_stage.py",
    ):
        shutil.copy(ROOT/name, folder)
    for name in ("nbs", "bert_ner", "conf"):
        shutil.copytree(ROOT/name, folder/name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    stages = yaml.safe_load((folder/"dvc.yaml").read_text())
    for name, stage in stages["stages"].items():
        if name != "code": stage["cmd"] = f"{sys.executable} stub_stage.py {name} dvc.yaml"
    (folder/"dvc.yaml").write_text(yaml.safe_dump(stages, sort_keys=False))
    with (folder/".gitignore").open("a") as f: f.write("/runs.txt\n")
    def sh(*command, ok=True, **env):
        clean = {k: v for k, v in os.environ.items() if k not in ("BERT_NER_ROOT", "BERT_NER_QUICK")}
        who = {f"GIT_{w}_{k}": "a@b.c" for w in ("AUTHOR", "COMMITTER") for k in ("NAME", "EMAIL")}
        done = subprocess.run(
            command,
            cwd=folder,
            capture_output=True,
            text=True,
            env={**clean, **who, "PATH": PATH, "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1", **env},
        )
        assert not (ok and done.returncode), done.stdout + done.stderr
        return done.stdout + done.stderr
    def ran(*command, **kw):
        "The stages that `command` ran."
        (folder/"runs.txt").write_text("")
        sh(*command, **kw)
        return (folder/"runs.txt").read_text().split()
    sh("git", "init", "-q"); sh("dvc", "init", "-q")
    assert ran("dvc", "repro") == "data baseline bert export triton demo".split()
    sh("git", "add", "-A"); sh("git", "commit", "-qm", "all")
    return folder, sh, ran


def test_dvc_runs_nothing_for_an_output_a_text_or_a_save(pipeline):
    folder, sh, ran = pipeline
    for notebook in (folder/"nbs").glob("0*.ipynb"):
        nb = json.loads(notebook.read_text())
        for c in nb["cells"]:
            if c["cell_type"] == "code" and c["source"]:
                c.update(execution_count=3, outputs=[dict(output_type="stream", name="stdout", text=["x"])])
            elif c["cell_type"] == "markdown": c["source"] = [*c["source"], " typo"]
        notebook.write_text(json.dumps(nb))
    assert ran("dvc", "repro") == []
    status = json.loads(sh("dvc", "status", "--json"))
    assert status == {"code": ["always changed"]}
    sh("git", "checkout", "nbs")


def test_dvc_runs_the_stage_whose_code_changed_and_no_other(pipeline):
    folder, sh, ran = pipeline
    notebook = folder/"nbs/03_bert.ipynb"
    notebook.write_text(
        notebook.read_text().replace(
            "default_rng(seed).permutation(wrong)[:12]", "default_rng(seed).permutation(wrong)[:13]"
        )
    )
    assert ran("dvc", "repro") == ["bert"]
    sh("git", "checkout", "nbs", "dvc.lock"); ran("dvc", "repro")
    sh("git", "checkout", ".")


def test_a_failed_experiment_leaves_the_outputs(pipeline):
    folder, sh, ran = pipeline
    before = files(folder)
    said = sh("dvc", "exp", "run", "-S", "bert.lr=0.3", ok=False, STUB_FAIL="bert")
    assert "failed to reproduce 'bert'" in said and files(folder) == before
    sh("git", "checkout", "params.yaml")
    said = sh("dvc", "exp", "run", "--temp", "-S", "bert.lr=0.3", ok=False, STUB_FAIL="bert")
    assert "failed to reproduce 'bert'" in said and files(folder) == before
    assert sh("git", "status", "--porcelain") == ""                      # in a copy: params.yaml too is as it was


# --- the grid

@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """A process that runs stages' cells in a project with 400 sentences and a BERT of two small layers with random
    weights; `run(stage, **changes)` gives its answer."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForTokenClassification
    from bert_ner.bert import resolve_checkpoint
    folder = tmp_path_factory.mktemp("grid")
    for name in ("dvc.yaml", "settings.ini", "triton-constraints.txt"): shutil.copy(ROOT/name, folder/name)
    for name in ("nbs", "conf", ".venv-triton"): (folder/name).symlink_to((ROOT/name).resolve())
    values = yaml.safe_load((ROOT/"params.yaml").read_text())
    quick = yaml.safe_load((ROOT/"conf/quick.yaml").read_text())
    small = {k: {**v, **quick.get(k, {})} if isinstance(v, dict) else v for k, v in values.items()} | dict(
        data=dict(values["data"], sentences=400)
    )
    small["bert"].update(model_name_or_path="tiny", batch_size=32)
    small["bulk"].update(actors=[])
    small["ablations"].update(model_name_or_path="tiny", bert=[], baseline=["default"])
    (folder/"params.yaml").write_text(yaml.safe_dump(small))
    torch.manual_seed(0)
    AutoTokenizer.from_pretrained(resolve_checkpoint(values["bert"]["model_name_or_path"])).save_pretrained(
        folder / "tiny"
    )
    BertForTokenClassification(
        BertConfig(
            vocab_size=30522,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=512,
        )
    ).save_pretrained(folder / "tiny")
    (folder / "own.conll").write_text(
        "".join(f"Take\tO\nPill{i % 7}\tB-drug\nnumber\tO\n{i}\tB-dose\n\n" for i in range(200))
    )
    env = {k: v for k, v in os.environ.items() if k != "BERT_NER_QUICK"} | {
        "BERT_NER_ROOT": str(folder),
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
    }
    log = open(folder/"worker.log", "w")
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/stage_worker.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        cwd=folder,
        env=env,
    )
    lock = threading.Lock()
    def run(stage, **changes):
        with lock:
            print(json.dumps(dict(stage=stage, changes=changes)), file=process.stdin, flush=True)
            line = process.stdout.readline()
        assert line, f"the worker died: {(folder/'worker.log').read_text()[-2000:]}"
        return json.loads(line)
    mine = dict(corpus="mine")
    for stage, changes in (
        ("data", {}),
        ("baseline", {}),
        ("bert", {}),
        ("export", {}),
        ("data", dict(name="mine", path="own.conll")),
        ("bert", mine),
        ("export", mine),
    ):
        done = run(stage, **changes)
        assert done["error"] is None, done
    yield folder, run
    process.stdin.close()
    process.wait(30); log.close()


TRAINED = "models/sample/bert"
WORKS = [
    ("data", dict(sentences=200)),
    ("data", dict(sentences=1000, seed=7)),
    ("data", dict(name="mine", path="own.conll", sentences=0)),
    ("data", dict(sentences=400)),
    ("baseline", dict(epochs=1)),
    ("baseline", dict(epochs=3, patience=0)),
    ("baseline", dict(embedding_dim=1, hidden_size=1)),
    ("baseline", dict(dropout=0, word_dropout=0)),
    ("baseline", dict(dropout=0.9, word_dropout=1)),
    ("baseline", dict(max_batch_tokens=1, epochs=1)),
    ("baseline", dict(max_batch_tokens=10**6)),
    ("baseline", dict(lr=0.5)),
    ("baseline", dict(seeds=[0, 2**32 - 1], epochs=1)),
    ("baseline", dict(corpus="mine", epochs=1)),
    ("bert", dict(max_train_samples=200)),
    ("bert", dict(max_train_samples=1)),
    ("bert", dict(max_train_samples=10**9)),
    ("bert", dict(batch_size=1, max_train_samples=20)),
    ("bert", dict(batch_size=33)),
    ("bert", dict(batch_size=128)),
    ("bert", dict(model_name_or_path=TRAINED)),
    ("bert", dict(model_name_or_path="tiny", case_feature=False)),
    ("bert", dict(epochs=0.5)),
    ("bert", dict(epochs=0.01)),
    ("bert", dict(epochs=1.5)),
    ("bert", dict(epochs=3)),
    ("bert", dict(evals_per_epoch=2)),
    ("bert", dict(evals_per_epoch=5, epochs=2)),
    ("bert", dict(evals_per_epoch=1000)),
    ("bert", dict(warmup_ratio=0)),
    ("bert", dict(warmup_ratio=0.5)),
    ("bert", dict(dropout=0)),
    ("bert", dict(dropout=0.5)),
    ("bert", dict(label_smoothing=0.2)),
    ("bert", dict(rare_oversampling=5)),
    ("bert", dict(rdrop_alpha=1)),
    ("bert", dict(rdrop_alpha=0.5, label_smoothing=0.1, batch_size=33)),
    ("bert", dict(layerwise_lr_decay=0.5)),
    ("bert", dict(num_hidden_layers=1, teacher_name_or_path="package:bert_ner/pretrained", rdrop_alpha=1)),
    ("bert", dict(max_length=16)),
    ("bert", dict(max_length=8)),
    ("bert", dict(weight_decay=0, lr=1e-5)),
    ("bert", dict(lr=1.0)),
    ("bert", dict(seeds=[0, 2**32 - 1])),
    ("bert", dict(nproc_per_node=2, batch_size=32)),
    ("bert", dict(corpus="mine")),
    ("bert", dict()),
    ("export", dict(calibration_samples=1)),
    ("export", dict(calibration_samples=10**6)),
    ("export", dict(min_exact_match=0, max_f1_drop=1)),
    ("export", dict(corpus="mine")),
    ("export", dict(seed=0)),
    ("ablations", dict(train_fraction=0.001)),
    ("ablations", dict(bert=["no_regularization"], baseline=[])),
    ("ablations", dict(learning_curve_fractions=[0.1], baseline=["linear_decay"])),
    ("ablations", dict(corpus="mine", train_fraction=0.5, bert=["no_regularization, document_context"])),
    ("demo", dict()),
    ("demo", dict(corpus="mine")),
    ("triton", dict(engine="onnx-int8", num_test_samples=1)),
    ("triton", dict(num_test_samples=0)),
    ("bulk", dict(rows_per_shard=1, large_file_rows=10, sentences=3)),
    ("bulk", dict(sentences=0, rows_per_shard=10**6, gpu_rate=1000)),
    ("bulk", dict(actors=[1], large_file_actors=1)),
    ("bench", dict(sentences=1, latency_samples=1, stream_sentences=10, repeats=1)),
    ("bench", dict(corpus="mine", sentences=10**6, latency_samples=10**6, repeats=2)),
]
FAILS = [
    ("data", dict(sentences=0), "data.sentences is 0"),
    ("data", dict(sentences=5), "5 sentences are too few"),
    ("data", dict(name="mine", path=""), "data.name=mine"),
    ("data", dict(name="mine", path="gone.csv"), "no corpus at"),
    ("data", dict(name="mine", path="own.conll", encoding="utf-9"), "no encoding 'utf-9'"),
    ("data", dict(path="own.conll"), "needs a name too"),
    ("baseline", dict(lr="abc"), "baseline.lr is 'abc'"),
    ("baseline", dict(corpus="nobody"), "is missing: run `dvc repro data`"),
    ("bert", dict(lr="abc"), "bert.lr is 'abc'"),
    ("bert", dict(nproc_per_node=2, batch_size=33), "make bert.batch_size a multiple of bert.nproc_per_node"),
    ("bert", dict(max_length=513), "bert.max_length is 513: 'tiny' reads 512 tokens at most"),
    ("bert", dict(max_length=1024, nproc_per_node=2), "bert.max_length is 1024"),
    ("bert", dict(model_name_or_path="nowhere"), "bert.model_name_or_path"),
    ("bert", dict(model_name_or_path="conf"), "bert.model_name_or_path"),
    ("bert", dict(model_name_or_path="package:no_such_thing/model"), "pip install no-such-thing"),
    ("bert", dict(warmup_ratio=2), "bert.warmup_ratio is 2"),
    ("export", dict(calibration_samples=0), "export.calibration_samples"),
    ("ablations", dict(bert=["no such"]), "ablations.bert has 'no such'"),
    ("triton", dict(engine="fast"), "triton.engine"),
    ("bulk", dict(rows_per_shard=0), "bulk.rows_per_shard is 0"),
    ("bench", dict(repeats=0), "bench.repeats"),
    ("sweep", dict(), "DVC finds no experiments in .*they need a git repository"),
    ("tensorrt", dict(), "TensorRT needs"),
]
name_of = lambda v: (
    v if isinstance(v, str) else ",".join(f"{k}={str(x)[:20]}" for k, x in v.items()) if isinstance(v, dict) else None
)


@pytest.mark.long
@pytest.mark.parametrize("stage,changes", WORKS, ids=name_of)
def test_any_sensible_value_works(worker, stage, changes):
    folder, run = worker
    done = run(stage, **changes)
    assert done["error"] is None, done["trace"]
    assert done["warnings"] == []


@pytest.mark.long
@pytest.mark.parametrize("stage,changes,said", FAILS, ids=name_of)
def test_any_other_value_ends_in_one_sentence_and_changes_nothing(worker, stage, changes, said):
    folder, run = worker
    before = files(folder)
    done = run(stage, **changes)
    assert done["error"] == "BertNerError", done
    assert re.search(said, done["message"]) and "\n" not in done["message"], done["message"]
    # what a run works with, and makes anew each time
    kept = lambda found: {k: v for k, v in found.items() if "-runs/" not in k and k != "data/sample/sample.csv"}
    assert kept(files(folder)) == kept(before)
