"What several tests share: the tiny tagger, and which tests this machine can run."
import functools
import os
import subprocess
from importlib.util import find_spec

import containers
import pytest

pytest.register_assert_rewrite("demo_pages", "families")

from bert_ner.testing import make_tiny_tagger  # noqa: E402


@pytest.fixture(scope="session")
def mini_tagger_folder(tmp_path_factory):
    "The folder of the tiny tagger, both ONNX files in it. Read it, do not write to it."
    return make_tiny_tagger(tmp_path_factory.mktemp("tagger")/"mini", int8=True)


def pytest_collection_modifyitems(config, items):
    "What this machine cannot do, or was not asked to do, is deselected, and the header says so."
    gone = [i for i in items if any(i.get_closest_marker(m) for m, why in missing().items() if why)]
    items[:] = [i for i in items if i not in gone]
    config.hook.pytest_deselected(items=gone)


@functools.cache
def missing():
    "Marker of tests -> why they do not run here, \"\" where they do."
    def tool(*command):
        try:
            return (
                "" if not subprocess.run(command, capture_output=True).returncode else f"`{' '.join(command)}` fails"
            )
        except FileNotFoundError: return f"there is no {command[0]}"
    return dict(
        gmb="" if os.environ.get("BERT_NER_GMB") else "BERT_NER_GMB does not name the real corpus",
        long="" if os.environ.get("BERT_NER_LONG") else "BERT_NER_LONG is not set",
        node=tool("node", "--version"),
        curl=tool("curl", "--version"),
        compose=tool("docker", "compose", "version"),
        docker=containers.why_not(),
        pyright=tool("pyright", "--version"),
        mypy=tool("mypy", "--version"),
        spacy="" if find_spec("spacy") else "spaCy is not installed",
    )


def pytest_report_header(config):
    return [f"tests marked {m}: {f'do not run, {why}' if why else 'run'}" for m, why in missing().items()]
