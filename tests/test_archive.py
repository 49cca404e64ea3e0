"""A copy of the project without `.git`, as a downloaded archive is: DVC runs in it, also where it was unpacked inside
somebody's repository, and no tracked file changes."""
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bert_ner.core import ROOT


@pytest.fixture
def copy(tmp_path):
    "What `make` and DVC read of the project, in a folder below `tmp_path`, with this environment as its own."
    to = tmp_path/"bert-ner-main"
    for name in (
        ".dvc/config",
        ".dvc/.gitignore",
        ".dvcignore",
        ".gitignore",
        "Makefile",
        "dvc.yaml",
        "params.yaml",
        "settings.ini",
        "setup.py",
        "pyproject.toml",
        "constraints.txt",
    ):
        (to/name).parent.mkdir(parents=True, exist_ok=True); shutil.copy(ROOT/name, to/name)
    for name in ("nbs", "bert_ner"): (to/name).symlink_to(ROOT/name)
    (to/".venv").symlink_to(Path(sys.prefix))
    return to


def run(folder, *command):
    env = {
        k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "DVC_", "MAKE", "MFLAGS", "BERT_NER_ROOT"))
    }
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        env={**env, "DVC_NO_ANALYTICS": "1", "GIT_CEILING_DIRECTORIES": ""},
    )


# the environment is there already
def make(folder, target): return run(folder, "make", "-o", ".venv/ready", target)
def stage(folder): return run(folder, sys.executable, "-m", "dvc", "repro", "--dry", "--single-item", "code")


@pytest.mark.parametrize("inside", [False, True])
def test_the_pipeline_runs_without_git(copy, inside):
    if inside: assert run(copy.parent, "git", "init", "-q").returncode == 0
    before = {p.name: p.read_bytes() for p in copy.iterdir() if p.is_file()}
    if not inside: assert "is not a git repository" in stage(copy).stderr
    said = make(copy, "scm")
    assert (
        said.returncode == 0
        and said.stdout.count("\n") == 1
        and "DVC runs without git" in said.stdout
        and said.stderr == ""
    )
    done = stage(copy)
    assert done.returncode == 0 and "bert-ner stage-code" in done.stdout and "ERROR" not in done.stderr, done.stderr
    assert {p.name: p.read_bytes() for p in copy.iterdir() if p.is_file()} == before and (
        copy / ".dvc/config"
    ).read_bytes() == (ROOT / ".dvc/config").read_bytes()
    again = make(copy, "scm")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    if inside: assert run(copy.parent, "git", "status", "--porcelain").stdout.split() == ["??", "bert-ner-main/"]


def test_a_copy_that_becomes_a_repository_has_git_again(copy):
    make(copy, "scm")
    run(copy, "git", "init", "-q")
    said = make(copy, "scm")
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "") and "no_scm" not in (
        copy / ".dvc/config.local"
    ).read_text()
    assert stage(copy).returncode == 0


def test_a_remote_of_ones_own_is_kept(copy):
    (copy/".dvc/config.local").write_text("['remote \"mine\"']\n    url = /somewhere\n")
    make(copy, "scm")
    text = (copy/".dvc/config.local").read_text()
    assert "url = /somewhere" in text and "no_scm = true" in text


def test_what_needs_git_says_so(copy):
    said = run(copy, "make", "-o", ".venv/ready", "-o", "setup", "pretrained")
    assert (
        said.returncode != 0
        and "git init && git add . && git commit" in said.stderr
        and "Traceback" not in said.stderr
    )
