"""`py.typed` is a promise: the programs in `clients/`, written as a user would, pass the type checkers in their strict modes.

A program for another part of the library is one more file there.
"""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bert_ner.core import ROOT

CLIENTS = sorted((Path(__file__).parent/"clients").glob("*.py"))


@pytest.mark.pyright
def test_clients_pass_pyright_strict(tmp_path):
    """Copied elsewhere: pyright looks for its settings in the folders above, and takes no program by its path when it
    reads some."""
    for client in CLIENTS: shutil.copy(client, tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(
        json.dumps(dict(include=["."], typeCheckingMode="strict", extraPaths=[str(ROOT)]))
    )
    done = subprocess.run(
        ["pyright", "--pythonpath", sys.executable, "-p", str(tmp_path)], capture_output=True, text=True
    )
    assert "0 errors, 0 warnings" in done.stdout and done.returncode == 0, done.stdout


@pytest.mark.mypy
@pytest.mark.parametrize("client", CLIENTS, ids=lambda c: c.stem)
def test_clients_pass_mypy_strict(tmp_path, client):
    done = subprocess.run(
        [
            "mypy",
            "--strict",
            "--follow-imports=silent",
            "--python-executable",
            sys.executable,
            "--cache-dir",
            str(tmp_path),
            str(client),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_there_are_clients(): assert CLIENTS
