"The wheel as other people get it: built, checked, and installed into fresh environments of each Python at hand."
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import urllib.request
import zipfile
from configparser import ConfigParser
from pathlib import Path

import pytest
from families import make_checkpoint

from bert_ner.core import _DISTRIBUTIONS, ROOT
from bert_ner.tagger import Tagger

TEXT = "Nigeria's president met officials of the United Nations in Paris on Monday."
PLAIN = {k: v for k, v in os.environ.items() if not k.startswith(("BERT_NER", "PYTHON", "VIRTUAL_ENV"))}


def run(*command, cwd, env=PLAIN, **kw):
    return subprocess.run([str(c) for c in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=600, **kw)


def made(*command, cwd, **kw):
    "Its standard output; it must succeed."
    done = run(*command, cwd=cwd, **kw)
    assert not done.returncode, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def settings():
    parser = ConfigParser(delimiters=["="], interpolation=None)
    parser.read(ROOT/"settings.ini", encoding="utf-8")
    return parser["DEFAULT"]


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    "The sdist, and the wheel that is built from it, of what git knows or does not ignore."
    top, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    if (ROOT/".git").exists():
        names = made("git", "ls-files", "-co", "--exclude-standard", "-z", cwd=ROOT).split("\0")
    else: names = [p.relative_to(ROOT).as_posix() for n in ("bert_ner", "nbs", "deploy") for p in (ROOT/n).rglob("*")] + [
        p.name for p in ROOT.iterdir()]
    for name in filter(lambda n: n and (ROOT/n).is_file(), names):
        (top/name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT/name, top/name)
    made(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, top, cwd=top)
    made(sys.executable, "-m", "build", "--no-isolation", "--wheel", "--outdir", out/"direct", top, cwd=top)
    return out


@pytest.fixture(scope="module")
def wheel(dist): return next(dist.glob("*.whl"))


def contents(wheel):
    with zipfile.ZipFile(wheel) as z: return {i.filename: i.CRC for i in z.infolist() if not i.filename.endswith("RECORD")}


def test_the_index_takes_both(dist, wheel):
    made(sys.executable, "-m", "twine", "check", "--strict", *dist.glob("*.*"), cwd=dist)
    made(Path(sys.executable).with_name("check-wheel-contents"), "--config", ROOT/"pyproject.toml", wheel, cwd=dist)


def test_the_sdist_builds_the_same_wheel(dist, wheel):
    assert contents(wheel) == contents(next((dist/"direct").glob("*.whl")))


def test_what_is_in_them(dist, wheel):
    found = contents(wheel)
    here = {p.relative_to(ROOT).as_posix() for p in (ROOT/"bert_ner").rglob("*.py")}
    assert here <= set(found)
    for name in ("bert_ner/pretrained/onnx/model_quantized.onnx", "bert_ner/page/page.js", "bert_ner/templates/model_card.md",
                 "bert_ner/project/nbs/07a_page.ipynb", "bert_ner/project/nbs/07f_review_page.ipynb", "bert_ner/page/review.js",
                 "bert_ner/project/triton-constraints.txt", "bert_ner/py.typed"):
        assert name in found
    assert {n.partition("/")[0] for n in found} == {"bert_ner", f"bert_ner-{settings()['version']}.dist-info"}
    with tarfile.open(next(dist.glob("*.tar.gz"))) as t: names = [n.partition("/")[2] for n in t.getnames()]
    assert not [n for n in names if n.startswith(("tests", "metrics", "models", "data", ".venv"))]


def test_metadata(wheel):
    with zipfile.ZipFile(wheel) as z:
        text = z.read(next(n for n in z.namelist() if n.endswith("METADATA"))).decode()
    from email import message_from_string
    found = message_from_string(text)
    from bert_ner import __version__
    assert found["Version"] == __version__ == settings()["version"]
    assert f"version: {__version__}\n" in (ROOT/"CITATION.cff").read_text()
    assert (found["License-Expression"], found["Requires-Python"]) == ("Apache-2.0", ">=3.10")
    assert {u.partition(",")[0] for u in found.get_all("Project-URL")} == {"Documentation", "Changelog", "Issues"}
    light = [r for r in found.get_all("Requires-Dist") if "extra ==" not in r]
    assert {re.match(r"[\w.-]+", r)[0] for r in light} == {
        "numpy", "tokenizers", "onnxruntime", "huggingface_hub", "typer", "pyyaml"
    }
    assert all(">=" in r for r in light)
    assert set(found.get_all("Provides-Extra")) == {
        "train", "serve", "demo", "annotate", "ray", "spacy", "openvino", "gpu", "tensorrt", "track", "bench", "dev", "all"
    }


def test_every_import_is_declared():
    "What the library imports is named in settings.ini, under the name of its distribution."
    import ast
    from importlib.metadata import packages_distributions
    normal = lambda name: re.sub(r"[-_.]+", "-", name).lower()
    words = " ".join(v for k, v in settings().items() if k == "requirements" or k.endswith("_requirements")).split()
    declared = {normal(re.match(r"[\w.-]+", w)[0]) for w in words}
    homes = packages_distributions()
    for path in (ROOT/"bert_ner").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module] if (
                isinstance(node, ast.ImportFrom) and not node.level) else []
            for top in {n.partition(".")[0] for n in names} - set(sys.stdlib_module_names) - {"bert_ner"}:
                known = {normal(d) for d in [*homes.get(top, []), _DISTRIBUTIONS.get(top, top)]}
                assert known & declared, f"{path.name} imports {top}, which settings.ini does not declare"


# a process as on Windows: it has none of what only Linux and macOS have
ELSEWHERE = """
import os, signal, sys
for name in ("fcntl", "resource", "grp", "pwd", "termios"): sys.modules[name] = None
for name in ("sched_getaffinity", "getuid", "geteuid", "fork", "killpg", "setsid"):
    if hasattr(os, name): delattr(os, name)
for name in ("SIGHUP", "SIGPIPE", "SIGQUIT", "SIGKILL"): delattr(signal, name)
sys.argv = ["bert-ner", *sys.argv[1:]]
"""


def test_without_what_only_linux_has(tmp_path):
    code = ELSEWHERE + "from bert_ner import AsyncTritonTagger, TritonTagger\nfrom bert_ner.cli import main\nmain()"
    found = made(sys.executable, "-c", code, "infer", "--json", TEXT, cwd=tmp_path, env={**PLAIN, "PYTHONPATH": str(ROOT)})
    assert [e["text"] for e in json.loads(found)] == [e.text for e in Tagger.from_pretrained().tag(TEXT)]


# --- fresh environments

def pythons():
    "The Pythons 3.10 to 3.13 on the path, or beside it as pyenv has them; this one is always there."
    found = {f"3.{sys.version_info[1]}": sys.executable}
    for minor in range(10, 14):
        beside = sorted(Path("~/.pyenv/versions").expanduser().glob(f"3.{minor}.*/bin/python"))
        for candidate in [*map(str, beside), shutil.which(f"python3.{minor}")]:
            if candidate and f"3.{minor}" not in found and not run(candidate, "-c", "import venv, ensurepip", cwd="/").returncode:
                found[f"3.{minor}"] = candidate
    return found


def install(folder, python, *what):
    "A fresh environment with `what`."
    made(python, "-m", "venv", folder, cwd="/")
    made(folder/"bin"/"pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check", *what, cwd="/")
    return folder/"bin"


@pytest.fixture(scope="module")
def light(wheel, tmp_path_factory):
    "An environment of this Python with the light install."
    return install(tmp_path_factory.mktemp("light")/"env", sys.executable, wheel)


def tags_a_text(env, folder):
    found = json.loads(made(env/"bert-ner", "infer", "--json", TEXT, cwd=folder))
    here = Tagger.from_pretrained().tag(TEXT)
    assert [(e["start"], e["end"], e["label"]) for e in found] == [(e.start, e.end, e.label) for e in here]
    assert [e["score"] for e in found] == pytest.approx([e.score for e in here], abs=.02)   # int8 on another version
    assert not list(folder.iterdir())


@pytest.mark.long
def test_a_light_install(light, tmp_path):
    tags_a_text(light, tmp_path)
    listed = {p["name"].lower() for p in json.loads(made(light/"pip", "list", "--format", "json", cwd=tmp_path))}
    assert {"numpy", "tokenizers", "onnxruntime"} <= listed
    assert not listed & {"torch", "transformers", "pandas", "dvc", "jupyterlab", "pyarrow", "scipy", "onnx", "matplotlib"}
    size = sum(p.stat().st_size for p in light.parent.rglob("*") if p.is_file() and not p.is_symlink())
    assert size < 350e6
    loaded = made(light/"python", "-c", "import bert_ner, sys; print(*sys.modules)", cwd=tmp_path).split()
    assert not {"numpy", "onnxruntime", "tokenizers", "typer"} & set(loaded)


NEEDS = {   # command -> the extra that its message names
    ("annotate", "in", "out"): "annotate", ("stats", "out"): "annotate",
    ("infer", "--engine", "triton", "Paris"): "serve", ("prepare-triton",): "serve",
    ("demo-local",): "demo", ("demo-triton",): "demo",
    ("to-tensorrt",): "tensorrt", ("infer-tensorrt", "Paris"): "tensorrt",
    ("to-onnx", "--model", "there", "--output", "new"): "train", ("experiments",): "train",
    ("infer", "--model", "there", "Paris"): "train",
}


@pytest.mark.long
def test_a_missing_extra_is_one_sentence(light, tmp_path):
    make_checkpoint("bert", tmp_path/"there", epochs=1, n=20)
    before = sorted(tmp_path.rglob("*"))
    for command, extra in NEEDS.items():
        done = run(light/"bert-ner", *command, cwd=tmp_path)
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), (command, done.stderr)
        assert f"pip install 'bert-ner[{extra}]'" in done.stderr, (command, done.stderr)
    assert sorted(tmp_path.rglob("*")) == before
    done = run(light/"python", "-c", "import bert_ner; bert_ner.TritonTagger", cwd=tmp_path)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: bert_ner.TritonTagger needs the package tenacity: `pip install 'bert-ner[serve]'`"
    )
    for command in (["train"], ["run-stage", "data"], ["push", "a/b"]):
        assert "is no bert-ner project" in run(light/"bert-ner", *command, cwd=tmp_path).stderr


@pytest.mark.long
@pytest.mark.parametrize("version", sorted({*pythons()} - {f"3.{sys.version_info[1]}"}))
def test_each_python(wheel, tmp_path, version):
    env = install(tmp_path/"env", pythons()[version], wheel)
    (tmp_path/"empty").mkdir()
    tags_a_text(env, tmp_path/"empty")
    made(env/"python", "-W", "error", "-c", "from bert_ner import Tagger; Tagger.from_pretrained()", cwd=tmp_path)
    made(env/"python", "-m", "compileall", "-q", env.parent/"lib"/f"python{version}"/"site-packages"/"bert_ner", cwd=tmp_path)


@pytest.mark.long
def test_the_lowest_versions(wheel, tmp_path):
    "Each lower bound of the light install, with the oldest Python at hand."
    oldest = min(pythons().items(), key=lambda p: int(p[0].partition(".")[2]))
    lowest = [w.replace(">=", "==") for w in settings()["requirements"].split()]
    env = install(tmp_path/"env", oldest[1], wheel, *lowest)
    (tmp_path/"empty").mkdir()
    tags_a_text(env, tmp_path/"empty")


@pytest.mark.long
def test_serving_from_a_wheel(wheel, tmp_path):
    "Outside of any project: a model repository, the server, a client, from the extra alone."
    env = install(tmp_path/"env", sys.executable, f"{wheel}[serve]")
    folder = tmp_path/"folder"; folder.mkdir()
    made(env/"bert-ner", "prepare-triton", cwd=folder)
    ports = made(sys.executable, "-c", "from bert_ner.triton.environment import *; print(*find_free_ports([0] * 3))", cwd=ROOT).split()
    names = [x for n, p in zip(("--http", "--grpc", "--metrics"), ports) for x in (n, p)]
    server = subprocess.Popen([env/"bert-ner", "serve", *names], cwd=folder, env=PLAIN, stdout=subprocess.PIPE, text=True)
    try:
        assert any("ready" in line or "Ctrl-C" in line for line in server.stdout)
        found = made(env/"bert-ner", "infer", "--json", "--engine", "triton", "--url", f"127.0.0.1:{ports[1]}", TEXT, cwd=folder)
        assert [e["text"] for e in json.loads(found)] == [e.text for e in Tagger.from_pretrained().tag(TEXT)]
    finally:
        server.terminate(); server.wait(60); server.stdout.close()


@pytest.mark.long
def test_annotating_and_the_page_from_a_wheel(wheel, tmp_path):
    env = install(tmp_path/"env", sys.executable, f"{wheel}[annotate,demo]")
    folder = tmp_path/"folder"; folder.mkdir()
    (folder/"texts.txt").write_text(f"{TEXT}\nNothing here.\n", encoding="utf-8")
    made(env/"bert-ner", "annotate", "texts.txt", "out", cwd=folder)
    assert json.loads(made(env/"bert-ner", "stats", "--json", "out", cwd=folder))["rows"] == 2
    page = subprocess.Popen([env/"bert-ner", "demo-local", "--no-browser"], cwd=folder, env=PLAIN, stdout=subprocess.PIPE, text=True)
    try:
        url = next(m[0] for line in page.stdout if (m := re.search(r"http://\S+", line)))
        end = time.time() + 120
        while True:
            body = urllib.request.urlopen(url, timeout=120).read().decode()
            if "bert-ner" in body.lower() or time.time() > end: break
        assert "jupyter" in body.lower()
    finally:
        page.terminate(); page.wait(60); page.stdout.close()
