"`bert-ner experiments`: what `dvc exp show` has in 144 columns, with F1 on the screen."
import json
import os
import shutil
import subprocess
import sys

import pytest
import yaml

from bert_ner.core import ROOT

PROGRAM = [sys.executable, "-c", "from bert_ner.cli import main; main()", "experiments"]


def run(folder, *command, ok=True):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "DVC_", "BERT_NER_ROOT"))}
    done = subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env={**env, "DVC_NO_ANALYTICS": "1", "BERT_NER_ROOT": str(folder)},
    )
    assert not ok or done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A repository with this project's parameters and figures, one stage that does nothing, and two experiments that
    changed a rate, seeds and a limit."""
    top = tmp_path_factory.mktemp("experiments")
    for name in (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitignore", "params.yaml", "settings.ini"):
        (top/name).parent.mkdir(exist_ok=True); shutil.copy(ROOT/name, top/name)
    shutil.copytree(ROOT/"metrics", top/"metrics")
    figures = [
        {p.relative_to(top).as_posix(): dict(cache=False)}
        for p in sorted((top / "metrics/sample/summary").glob("*.json"))
    ]
    stage = dict(cmd="true", params=[*yaml.safe_load((top/"params.yaml").read_text())], metrics=figures)
    (top/"dvc.yaml").write_text(yaml.safe_dump(dict(stages=dict(bert=stage))))
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (
        [*git, "init", "-q"],
        [*git, "config", "user.name", "a"],
        [*git, "config", "user.email", "a@b"],
        [*git, "add", "."],
        [*git, "commit", "-qm", "a"],
    ):
        run(top, *command)
    values, file = yaml.safe_load((top/"params.yaml").read_text()), top/"metrics/sample/summary/bert.json"
    for name, lr, f1 in (("slow-rate", 1e-4, .8123456), ("fast-rate", 9e-4, .9345678)):
        values["bert"] |= dict(lr=lr, max_train_samples=200)
        (top/"params.yaml").write_text(yaml.safe_dump(values))
        file.write_text(json.dumps({**json.loads(file.read_text()), "validation_micro_f1": f1}))
        run(top, sys.executable, "-m", "dvc", "exp", "save", "--name", name, "--force")
    run(top, "git", "checkout", "-q", ".")
    return top


def test_f1_is_on_a_screen_of_120_columns(project):
    lines = run(project, *PROGRAM).stdout.splitlines()
    assert max(map(len, lines)) <= 120 and lines[0].split() == "experiment micro F1 macro F1 minutes bert.lr".split()
    assert [l.split()[:2] for l in lines[1:]] == [["fast-rate", "0.9346"], ["slow-rate", "0.8123"]] and lines[
        1
    ].split()[-1] == "0.0009"


def test_without_experiments_or_git_it_is_one_sentence(project, tmp_path):
    done = run(project, *PROGRAM, "--commits", "0", ok=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for name in ("settings.ini", "params.yaml", "dvc.yaml"): shutil.copy(ROOT/name, tmp_path/name)
    done = run(tmp_path, *PROGRAM, ok=False)
    assert (
        done.returncode == 1
        and done.stderr.startswith("bert-ner: experiments need a git repository")
        and done.stderr.count("\n") == 1
    )
