"""The program `bert-ner` as a person or a script calls it: what it reads, what it rejects, how it ends, what it
leaves behind."""
import importlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest
import yaml

from bert_ner import cli, core, pipeline
from bert_ner.core import ROOT
from bert_ner.engines import default_model_dir

PROGRAM = str(Path(sys.executable).parent/"bert-ner")
VERBS = "run-stage train to-onnx to-tensorrt experiments push publish infer infer-tensorrt annotate stats convert prepare-triton rollback setup-triton serve demo-local label-studio review agreement demo-triton".split()
OURS = [v for v in VERBS if v not in ("annotate", "stats")]


@pytest.fixture
def call(monkeypatch, capsys):
    "The program in this process: `call(*args, stdin=bytes)` -> exit status, standard output, standard error."
    def run(*args, stdin=b""):
        monkeypatch.setattr(sys, "argv", ["bert-ner", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with patch.dict(os.environ), pytest.raises(SystemExit) as end: cli.main()     # what it sets is its own
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return SimpleNamespace(status=end.value.code or 0, out=out, err=err)
    return run


@pytest.fixture
def infer(call, mini_tagger_folder):
    return lambda *args, **kw: call("infer", "--model", mini_tagger_folder, "--engine", "onnx", *args, **kw)


def places(said): return [(e["start"], e["text"]) for e in json.loads(said.out)]
def last_line(said): return said.err.strip().splitlines()[-1]


# what it says of itself

@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_is_whole(call, monkeypatch, verb, flag):
    monkeypatch.setenv("COLUMNS", "80"); monkeypatch.setenv("TERMINAL_WIDTH", "80")
    said = call(*filter(None, [verb]), flag)
    assert (said.status, said.err) == (0, "") and "..." not in re.sub(r"\{?[A-Z]+\}?\.\.\.", "", said.out).replace(
        "COMMAND [ARGS]...", ""
    )
    assert max(map(len, said.out.splitlines())) <= 80
    about = said.out.split("\n\n")[1].strip()
    assert about[0].isupper() and about.endswith(".")


@pytest.mark.parametrize("verb", OURS)
def test_every_option_is_explained_in_a_sentence(verb):
    import typer
    for p in typer.main.get_command(cli.app).commands[verb].params:
        text = re.sub(r"\s+\[default: .*\]$", "", p.help)
        assert text[0].isupper() and text.endswith("."), f"{verb} {p.name}: {text}"


def test_list_of_verbs(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80"); monkeypatch.setenv("TERMINAL_WIDTH", "80")
    listed = call().out or call("-h").out
    rows = re.split(r"\n  (?=\S)", listed.partition("Commands:")[2].rstrip())[1:]
    assert [r.split()[0] for r in rows] == VERBS and all(r.endswith(".") for r in rows)


def test_version_and_module():
    "Neither `--version` nor `--help` waits for what only the work needs."
    from bert_ner import __version__
    for command in ([PROGRAM], [sys.executable, "-m", "bert_ner"]):
        said = subprocess.run([*command, "--version"], capture_output=True, text=True)
        assert (said.returncode, said.stdout, said.stderr) == (0, f"bert-ner {__version__}\n", "")
    code = "import sys, bert_ner.cli; print(*{'numpy', 'torch', 'pandas', 'tokenizers', 'transformers', 'IPython', 'dvc'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "\n"


def test_engines_are_one_list(call):
    from bert_ner.engines import ENGINES
    assert sorted(cli.ENGINE_NAMES) == sorted({*ENGINES, "triton"})
    wrong, about = call("infer", "Paris", "--engine", "onyx"), " ".join(call("infer", "-h").out.split())
    assert wrong.status == 2 and "'onyx' is not one of" in last_line(wrong)
    for name in cli.ENGINE_NAMES:
        assert re.search(rf"\b{name}\b", last_line(wrong)) and re.search(rf"\b{name}\b", about)


# what is a text, and what an option

@pytest.mark.parametrize("text", ["-5 degrees in Paris", "-5 in Paris", "- Paris", "-- Paris", "--- in Paris", "-from Paris to London", "--json in Paris", "-.5 Paris", "-é Paris", "-$5 in\nParis", "-f in Paris"])
@pytest.mark.parametrize("where", ["first", "last", "between"])
def test_a_text_may_begin_with_a_dash(infer, text, where):
    said = infer(
        *dict(first=[text, "--json", "-v"], last=["--json", "-v", text], between=["-v", text, "--json"])[where]
    )
    assert said.status == 0 and places(said) == [(text.index("Paris"), "Paris")]


@pytest.mark.parametrize("args", [["-5"], ["--", "-Paris"], ["--", "--json"], ["-"], ["--json", "--", "-"]])
def test_short_texts_with_a_dash(infer, args): assert infer(*args).status == 0


@pytest.mark.parametrize("wrong", ["--jsn", "-x", "--jsn=1", "-Paris", "--Model", "--file-name"])
def test_a_mistyped_option_is_none(infer, wrong):
    for args in ([wrong, "in Paris"], ["in Paris", wrong], [wrong]):
        said = infer(*args)
        assert (
            (said.status, said.out) == (2, "")
            and "No such option: " in last_line(said)
            and "after --" in last_line(said)
        )


def test_the_value_of_an_option_may_begin_with_a_dash(infer, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path); Path("-odd name.txt").write_text("in Paris")
    assert places(infer("--file", "-odd name.txt", "--json")) == [(3, "Paris")]


def test_a_text_without_quotes(infer):
    said = infer("in", "Paris")
    assert said.status == 2 and "quotes" in last_line(said)


# what it reads

TEXTS = {
    "lf": (b"met\nMonday in Paris\n", "", [(4, "Monday"), (14, "Paris")]),
    "crlf": (b"met\r\nMonday in\r\n\r\nParis\r\n", "", [(5, "Monday"), (18, "Paris")]),
    "cr": (b"met\rMonday\r", "", [(4, "Monday")]),
    "byte order mark": (b"\xef\xbb\xbfMonday", "", [(0, "Monday")]),
    "utf-16 with mark": (b"\xff\xfe" + "in Paris".encode("utf-16-le"), "", [(3, "Paris")]),
    "utf-16 without": ("in Paris\r\n".encode("utf-16-be"), "", "UTF-16-BE"),
    "utf-16 named": ("in Paris\r\n".encode("utf-16-be"), "utf-16-be", [(3, "Paris")]),
    "utf-32 with mark": ("in Paris".encode("utf-32"), "", [(3, "Paris")]),
    "cp1252": ("für Monday".encode("cp1252"), "", "is not UTF-8"),
    "cp1252 named": ("für Monday".encode("cp1252"), "cp1252", [(4, "Monday")]),
    "emoji": ("🙂 in Paris".encode(), "UTF8", [(5, "Paris")]),
    "a surrogate": (b"in \xed\xa0\xbd Paris", "", "is not UTF-8"),
    "NULs": (bytes(100), "", "NUL"),
    "a NUL": (b"Paris" + b" in Paris" * 40 + b"\0", "", "NUL"),
    "gzip": (b"\x1f\x8b\x08\0\0\0\0\0", "", "is not UTF-8"),
    "no such encoding": (b"Paris", "utf-88", "there is no encoding 'utf-88'"),
    "no encoding of text": (b"Paris", "base64", "base64 is not a text encoding"),
    "another encoding": (b"Paris\xff", "ascii", "is not ASCII"),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_file_and_standard_input_are_read_by_one_rule(infer, tmp_path, kind):
    data, encoding, wanted = TEXTS[kind]
    (tmp_path/"t.txt").write_bytes(data)
    options = ["--json", *(["--encoding", encoding] if encoding else [])]
    for args, name in (
        (["--file", tmp_path / "t.txt"], "t.txt"),
        ([], "standard input"),
        (["-"], "standard input"),
        (["-f", "-"], "standard input"),
    ):
        said = infer(*args, *options, stdin=data)
        if isinstance(wanted, list): assert (said.status, said.err) == (0, "") and places(said) == wanted
        else:
            assert (
                (said.status, said.out, said.err.count("\n")) == (1, "", 1)
                and wanted in said.err
                and (name in said.err or "encoding" in wanted)
            )


def test_files_that_are_none(infer, tmp_path):
    (tmp_path/"loop").symlink_to("loop"); (tmp_path/"gone").symlink_to("nowhere")
    for path, why in (
        (tmp_path, "directory"),
        (tmp_path / "nothing", "no file"),
        (tmp_path / "gone", "no file"),
        (tmp_path / "loop", "loop"),
        ("x" * 300, "too long"),
        (tmp_path / "nothing" / "x", "no file"),
    ):
        said = infer("--file", path)
        assert (
            (said.status, said.out, said.err.count("\n")) == (1, "", 1)
            and why in said.err.lower()
            and str(path) in said.err
        )
    said = infer("--file", "")
    assert said.status == 2 and "needs the name of a file" in last_line(said)


def test_nothing_found_is_said(infer):
    for text, why in (("met in on", "no entities found"), ("", "the text is empty"), (" \n", "the text is empty")):
        said = infer(text)
        assert (said.status, said.out) == (0, "") and why in said.err and said.err.count("\n") == 1
        said = infer(stdin=text.encode())
        assert (said.status, said.out) == (0, "") and why in said.err
        assert infer(text, "--json").out == "[]\n"
    assert infer("in Paris").err == ""


@pytest.mark.parametrize("args, why", [
    (["Paris", "--file", "x.txt"], "use one of them"), (["-", "--file", "x.txt"], "use one of them"), (["Paris", "--encoding", "cp1252"], "--encoding"),
    (["Paris", "--engine", "triton", "--model", "/x"], "--model"), (["Paris", "--url", "localhost:8001"], "--url"), (["--engine"], "--engine"), (["Paris", "-f"], "'-f' requires an argument"), (["-5 in Paris", "--file"], "'--file' requires"),
    (["Paris", "--model", ""], "name of the folder is empty"), (["--json=1", "Paris"], "does not take a value")])
def test_options_that_contradict(call, args, why):
    said = call("infer", *args)
    assert (said.status, said.out) == (2, "") and why in last_line(said)


def test_bytes_that_are_no_text(mini_tagger_folder):
    said = subprocess.run(
        [PROGRAM.encode(), b"infer", b"Par\xefs", b"--model", os.fsencode(mini_tagger_folder)],
        capture_output=True,
        text=True,
    )
    assert (said.returncode, said.stdout, said.stderr.count("\n")) == (
        1,
        "",
        1,
    ) and "not valid Unicode at character 3" in said.stderr
    said = subprocess.run([PROGRAM.encode(), b"infer", b"--file", b"no\xff.txt"], capture_output=True, text=True)
    assert (said.returncode, said.stderr.count("\n")) == (1, 1) and "there is no file no" in said.stderr


def test_a_lone_surrogate(infer):
    said = infer("\ud83d in Paris")
    assert (said.status, said.err.count("\n")) == (1, 1) and "character 0" in said.err


# which model answers

def test_verbose_names_the_model(infer, mini_tagger_folder, monkeypatch):
    from bert_ner.tagger import Tagger
    said = infer("in Paris", "-v")
    assert (
        said.err == f"bert-ner: {Tagger.from_pretrained(mini_tagger_folder, 'onnx').description}\n"
        and "Paris" in said.out
    )
    assert places(infer("in Paris", "--verbose", "--json")) == [(3, "Paris")]


def test_verbose_names_the_server(call, monkeypatch):
    from bert_ner.tagger import Entities
    from bert_ner.triton.client import TritonTagger
    from tritonclient.grpc import InferenceServerClient
    monkeypatch.setattr(
        InferenceServerClient, "get_model_metadata", lambda *a, **kw: SimpleNamespace(name="bert_ner", versions=["3"])
    )
    monkeypatch.setattr(TritonTagger, "tag", lambda self, text: Entities([], text))
    said = call("infer", "Paris", "--engine", "triton", "-v")
    assert said.status == 0 and "version 3 of bert_ner on the Triton server at localhost:8001" in said.err


def test_an_engine_finds_its_own_model(call, monkeypatch, tmp_path):
    "BERT and the baseline do not lie where the ONNX files lie."
    monkeypatch.delenv("BERT_NER_MODEL", raising=False)
    monkeypatch.setattr(core, "ROOT", project(tmp_path))
    asked = []
    monkeypatch.setattr("bert_ner.tagger.Tagger.from_pretrained", lambda model, engine, **more: asked.append((model, engine)))
    for engine in ("torch", "baseline", "onnx", "auto"): cli.load_tagger(engine, None, None)
    assert asked == [
        (tmp_path / "models/sample/bert", "torch"),
        (tmp_path / "models/sample/baseline", "baseline"),
        (default_model_dir(), "onnx"),
        (default_model_dir(), "auto"),
    ]


# addresses and ports

@pytest.mark.parametrize("url", ["localhost", "localhost:0", "localhost:70000", "localhost:port", "http://localhost:8001", ":8001", "localhost:", "", "a b:1", "localhost:8001/x", "localhost:٣", "[::1:8001"])
@pytest.mark.parametrize("verb", [["infer", "Paris", "--engine", "triton"], ["demo-triton"]])
def test_bad_addresses(call, url, verb):
    said = call(*verb, "--url", url)
    assert (said.status, said.out) == (2, "") and "use host:port" in last_line(said)


def test_nobody_answers(call):
    for verb in (
        ["infer", "Paris", "--engine", "triton", "-v"],
        ["infer", "Paris", "--engine", "triton"],
        ["demo-triton", "--no-browser"],
    ):
        said = call(*verb, "--url", "127.0.0.1:9")
        assert (said.status, said.out, said.err.count("\n")) == (
            1,
            "",
            1,
        ) and "no Triton server responds at 127.0.0.1:9" in said.err


@pytest.mark.parametrize("port", ["0", "70000", "-1", "x", "1.5", ""])
@pytest.mark.parametrize("verb", [["serve", "--http"], ["serve", "--grpc"], ["serve", "--metrics"], ["serve", "--docker", "--http"], ["demo-local", "--port"], ["demo-triton", "--port"]])
def test_bad_ports(call, verb, port):
    said = call(*verb, port)
    assert (said.status, said.out) == (2, "") and "is not a port: choose one from 1 to 65535" in last_line(said)


def test_taken_ports(call):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0)); s.listen(); port = s.getsockname()[1]
        for verb in (
            ["serve", "--http"],
            ["serve", "--docker", "--grpc"],
            ["demo-local", "--port"],
            ["demo-triton", "--port"],
        ):
            said = call(*verb, port)
            assert (said.status, said.out, said.err.count("\n")) == (
                1,
                "",
                1,
            ) and f"port {port} cannot be used" in said.err
    assert "three different ports" in last_line(call("serve", "--http", 9000, "--grpc", 9000))
    assert "--docker" in last_line(call("serve", "--backend", "onnx"))


def test_a_page_without_its_model_does_not_start(call):
    said = call("demo-local", "--model", "/nowhere", "--no-browser")
    assert (said.status, said.out, said.err.count("\n")) == (1, "", 1) and "/nowhere" in said.err


# how it ends

def test_output_that_cannot_hold_the_characters(tmp_path, mini_tagger_folder):
    text, model = "für İn Paris", ["--model", str(mini_tagger_folder), "--engine", "onnx"]
    (tmp_path/"nämé").write_bytes(b"\xff")
    for env in (dict(PYTHONIOENCODING="ascii"), dict(LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")):
        env = {**os.environ, **env}
        said = subprocess.run([PROGRAM, "infer", "--json", *model], input=text.encode(), capture_output=True, env=env)
        assert (
            said.returncode == 0 and said.stderr == b"" and [e["text"] for e in json.loads(said.stdout)][-1] == "Paris"
        )
        said = subprocess.run([PROGRAM, "infer", "--file", str(tmp_path/"nämé"), *model], capture_output=True, env=env)
        assert said.returncode == 1 and said.stderr.count(b"\n") == 1 and b"is not UTF-8" in said.stderr


def test_json_of_an_ascii_stream(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="backslashreplace")
    monkeypatch.setattr(sys, "stdout", out)
    cli.print_json([dict(text="Zürich 🙂")]); out.flush()
    assert json.loads(out.buffer.getvalue()) == [dict(text="Zürich 🙂")]


@pytest.mark.parametrize("line, status, err", [
    ("$P infer Paris >&-", 0, ""), ("$P --version >&-", 0, ""),
    ("$P infer Paris > /dev/full", 1, "No space left"), ("$P infer <&-", 1, "standard input is closed"), ("$P infer --model /nowhere x 2>&-", 1, ""), ("$P infer 2>&- <&- >&-", 1, ""), ("$P infer", 0, "the text is empty")])
def test_quiet_ends(line, status, err):
    said = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "P": PROGRAM},
    )
    assert said.returncode == status and said.stdout == ""
    assert (
        (err in said.stderr and "Traceback" not in said.stderr and said.stderr.count("\n") == 1)
        if err
        else said.stderr == ""
    )


@pytest.mark.parametrize("args", [["--help"], ["infer", "Paris"], ["infer", "Paris", "--json"]])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nobody_reads_on(args, unbuffered):
    "As in `bert-ner infer ... | head -0`."
    theirs, ours = os.pipe(); os.close(theirs)
    try:
        said = subprocess.run(
            [PROGRAM, *args],
            stdout=ours,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    finally: os.close(ours)
    assert (said.returncode, said.stderr) == (128 + signal.SIGPIPE, "")


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(.02)


def test_ctrl_c_while_it_waits_for_a_text():
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    p = subprocess.Popen([PROGRAM, "infer"], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert "Ctrl-D" in p.stderr.readline()                          # it says what it waits for
        p.send_signal(signal.SIGINT)
        assert (*p.communicate(timeout=60), p.returncode) == ("", "", 130)
    finally: p.kill(); p.wait(); os.close(ours); os.close(theirs)


def test_ctrl_c_while_a_server_does_not_answer():
    "The client's threads are not waited for: that would take the client's own deadline of a minute."
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0)); s.listen()
        p = subprocess.Popen(
            [PROGRAM, "infer", "Paris", "--engine", "triton", "--url", f"127.0.0.1:{s.getsockname()[1]}"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            s.settimeout(60); link, _ = s.accept(); time.sleep(.5)
            start = time.monotonic(); p.send_signal(signal.SIGINT)
            assert (*p.communicate(timeout=60), p.returncode) == ("", "", 130)
            assert time.monotonic() - start < 15                       # gRPC alone gives up after 20 s
            link.close()
        finally: p.kill(); p.wait()


# in a project, and outside of one

def project(folder):
    "A project in miniature."
    (folder/"conf"/"data").mkdir(parents=True); (folder/".dvc").mkdir()
    (folder/"settings.ini").write_text("[DEFAULT]\nlib_name = bert-ner\n")
    (folder/"dvc.yaml").write_text("stages: {}\n")
    (folder / "conf" / "config.yaml").write_text(
        "defaults:\n  - _self_\n  - data: sample\nseed: 42\nbert:\n  lr: 0.1\n  epochs: 2\n"
    )
    for name in ("sample", "gmb"): (folder/"conf"/"data"/f"{name}.yaml").write_text(f"name: {name}\n")
    (folder/"params.yaml").write_text("# by hand\nseed: 42\nbert: {lr: 0.1, epochs: 2}\ndata: {name: sample}\n")
    for name in ("metrics/sample/bert.json", "plots/sample/f1.csv", "dvc.lock"):
        (folder/name).parent.mkdir(parents=True, exist_ok=True); (folder/name).write_text(name)
    return folder


@pytest.mark.parametrize("args", [["train"], ["train", "-S", "bert.epochs=1"], ["to-onnx"], ["to-tensorrt"], ["run-stage", "bert"], ["publish"], ["serve"], ["serve", "--docker"], ["demo-local"], ["demo-triton"],
                                  ["setup-triton"], ["infer", "Paris", "--engine", "torch"]])
def test_verbs_outside_of_a_project(call, monkeypatch, tmp_path, args):
    for name in (
        "core",
        "cli",
        "triton.repository",
        "triton.environment",
        "triton.server",
        "triton.container",
        "demo",
        "engines",
    ):
        monkeypatch.setattr(importlib.import_module(f"bert_ner.{name}"), "ROOT", tmp_path)
    monkeypatch.delenv("BERT_NER_ROOT", raising=False); monkeypatch.delenv("BERT_NER_MODEL", raising=False)
    said = call(*args)
    assert (said.status, said.out, said.err.count("\n")) == (1, "", 1) and str(tmp_path) in said.err
    assert list(tmp_path.iterdir()) == []                              # nothing was made


def test_it_says_so_for_a_folder_that_is_none(tmp_path):
    said = subprocess.run(
        [PROGRAM, "train"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "BERT_NER_ROOT": str(tmp_path)},
    )
    assert (said.returncode, said.stdout, said.stderr) == (
        1,
        "",
        f"bert-ner: {tmp_path} is no bert-ner project: "
        "run this inside the project, or set BERT_NER_ROOT to its folder\n",
    )


@pytest.mark.parametrize("bad, why", [
    ("bad", "not KEY=VALUE"), ("", "not KEY=VALUE"), ("=3", "not KEY=VALUE"), ("bert.epoch=1", "params.yaml has no 'bert.epoch' (do you mean bert.epochs"), ("data=nope", "there is no data 'nope', only gmb, own, sample"),
    ("bert.lr=1,2", "it needs one value"), ("bert=3", "bert is a block"), ("~bert", "bert is a block"), ("bert.lr=[1", "cannot be applied"), ("a b=c", "cannot be applied"), ("nothing.here=1", "params.yaml has no 'nothing"), ("bert.lr.x=1", "bert.lr.x=1")])
def test_settings_that_do_not_fit(call, bad, why):
    before = (ROOT/"params.yaml").read_bytes()
    said = call("train", "-S", "seed=1", "-S", bad)
    assert (
        (said.status, said.out, said.err.count("\n")) == (1, "", 1) and why in said.err and f"-S '{bad}'" in said.err
    )
    assert (ROOT/"params.yaml").read_bytes() == before


def test_settings_that_fit():
    assert pipeline.compose_params(
        [
            "params.yaml:bert.epochs=9",
            "model=bert_base_cased",
            "bert.seeds=[1,2]",
            "other.yaml:x=1",
            "bert.model_name_or_path=package:a/b",
        ]
    )["bert"] | {} == {
        **pipeline.compose_params(["model=bert_base_cased"])["bert"],
        "epochs": 9,
        "seeds": [1, 2],
        "model_name_or_path": "package:a/b",
    }


# a run that fails leaves everything as before

STUB = '''
import os, signal, sys, time
from pathlib import Path
Path("params.yaml").write_text({composed!r}); Path("dvc.lock").write_text("half"); Path("metrics/sample/bert.json").unlink()
{then}
'''
COMPOSED = "bert:\n  epochs: 7\n  lr: 0.1\ndata:\n  name: sample\nseed: 42\n"


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """`run(then)`: `bert-ner train -S bert.epochs=7` over a stub of DVC that does what DVC does, and `then` something
    else."""
    for module in (core, cli, pipeline):
        monkeypatch.setattr(module, "ROOT", project(tmp_path) if not (tmp_path/"conf").exists() else tmp_path)
    def go(then, sets=("bert.epochs=7",)):
        (tmp_path/"stub.py").write_text(STUB.format(composed=COMPOSED, then=then))
        monkeypatch.setattr(pipeline, "dvc_command", lambda stage, sets: [sys.executable, "stub.py"])
        try: pipeline.dvc_run("bert", list(sets)); status = 0
        except SystemExit as e: status = e.code
        return SimpleNamespace(
            status=status, err=capsys.readouterr().err, root=tmp_path, params=(tmp_path / "params.yaml").read_text()
        )
    return go


def as_before(root):
    return all(
        (root / n).is_file() and (root / n).read_text() == n
        for n in ("metrics/sample/bert.json", "plots/sample/f1.csv", "dvc.lock")
    )


@pytest.mark.parametrize("then, status", [("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", 137), ("Path('params.yaml').unlink(); sys.exit(1)", 1)])
def test_a_failed_experiment(run, then, status):
    said = run(then)
    assert (said.status, said.err) == (status, "") and said.params.startswith("# by hand") and as_before(said.root)


def test_an_experiment_that_succeeds(run):
    said = run("")
    assert (said.status, said.err, said.params) == (0, "", COMPOSED) and not as_before(said.root)


@pytest.mark.parametrize("mine", ["# mine\nseed: 5\n", "{ half", "[1]", "\0"])
def test_an_edit_during_the_run_is_left(run, mine):
    said = run(f"Path('params.yaml').write_text({mine!r}); sys.exit(1)")
    assert said.status == 1 and said.params == mine and "edited during the run" in said.err and as_before(said.root)


@pytest.mark.parametrize("then", ["sys.exit(1)", ""])
def test_values_by_hand_are_kept(run, tmp_path, then):
    mine = "# mine\nseed: 42\nbert: {lr: 0.5, epochs: 2}\ndata: {name: sample}\n"
    (tmp_path/"params.yaml").write_text(mine)
    said = run(then)
    assert "bert.lr" in said.err and "bert.epochs" not in said.err and "is not used" in said.err
    assert (tmp_path/".dvc/tmp/params.before.yaml").read_text() == mine
    assert said.params == (mine if then else COMPOSED)


def test_without_settings_nothing_is_put_back(run):
    assert run("sys.exit(4)", sets=()).params == COMPOSED


@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_experiment(tmp_path, number, status):
    "Both DVC and what it started hear of it, and `params.yaml` is put back once they have ended."
    (project(tmp_path)/"stub.py").write_text(STUB.format(composed=COMPOSED, then='''
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stderr=subprocess.DEVNULL)
def end(*_): child.wait(); time.sleep(.3); Path("ended").touch(); os._exit(1)
for s in (signal.SIGINT, signal.SIGTERM): signal.signal(s, end)
Path("ready").touch(); time.sleep(600)
'''))
    code = "import sys; from bert_ner import cli, pipeline; pipeline.dvc_command = lambda *a: [sys.executable, 'stub.py']; sys.argv = ['bert-ner', 'train', '-S', 'bert.epochs=7']; cli.main()"
    p = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "BERT_NER_ROOT": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        wait_for((tmp_path/"ready").exists); time.sleep(.2)
        p.send_signal(number); out, err = p.communicate(timeout=60)
        assert (p.returncode, out, err) == (status, "", "") and (tmp_path/"ended").exists()
        assert (tmp_path/"params.yaml").read_text().startswith("# by hand") and as_before(tmp_path)
    finally:
        if p.poll() is None: os.killpg(p.pid, signal.SIGKILL); p.wait()


@pytest.mark.long
def test_a_real_experiment_that_fails(tmp_path):
    "DVC itself: it removes the model and the figures before the stage runs, and leaves its own params.yaml."
    (project(tmp_path)/".dvc").rmdir()
    for name in ("metrics/sample/bert.json", "plots/sample/f1.csv", "dvc.lock"): (tmp_path/name).unlink()
    (tmp_path/"stage.py").write_text("""
import sys, yaml
from pathlib import Path
epochs = yaml.safe_load(open("params.yaml"))["bert"]["epochs"]
Path("model").write_text(f"half of {epochs}")
if epochs > 5: sys.exit("too many")
Path("model").write_text(f"model of {epochs}"); Path("metrics/sample/bert.json").write_text("1"); Path("report").mkdir(); Path("report/a.html").write_text("a")
""")
    (tmp_path/"other.py").write_text("open('other', 'w').write('made')")
    (tmp_path / "dvc.yaml").write_text(
        yaml.safe_dump(
            dict(
                stages=dict(
                    bert=dict(
                        cmd=f"{sys.executable} stage.py",
                        params=["bert"],
                        outs=["model", "report"],
                        metrics=[{"metrics/sample/bert.json": dict(cache=False)}],
                    ),
                    other=dict(cmd=f"{sys.executable} other.py", outs=["other"]),
                )
            )
        )
    )
    env = {
        **os.environ,
        "BERT_NER_ROOT": str(tmp_path),
        "DVC_NO_ANALYTICS": "1",
        **{f"GIT_{who}_{what}": "t@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
    }
    def do(*command):
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    dvc = [sys.executable, "-m", "dvc"]
    for command in (
        ["git", "init", "-q"],
        [*dvc, "init", "-q"],
        [*dvc, "repro", "-q"],
        ["git", "add", "-A"],
        ["git", "commit", "-qm", "all"],
    ):
        said = do(*command)
        assert said.returncode == 0, said.stderr
        if "init" in command and "dvc" in command:
            (tmp_path/".dvc"/"config").write_text("[hydra]\n    enabled = true\n")
    (tmp_path/"other").write_text("changed by hand, and no part of the run")
    (tmp_path/"params.yaml").write_text("# more by hand\n" + (tmp_path/"params.yaml").read_text())
    def tree():
        return {
            p.relative_to(tmp_path).as_posix(): p.read_bytes()
            for p in tmp_path.rglob("*")
            if p.is_file() and not {".git", ".dvc"} & set(p.relative_to(tmp_path).parts)
        }
    before = tree()
    said = do(PROGRAM, "train", "-S", "bert.epochs=9")
    assert said.returncode not in (0, 1, 2) and "too many" in said.stderr
    assert (
        tree() == before
        and before["model"] == b"model of 2"
        and do("git", "status", "--short").stdout == " M params.yaml\n"
    )


def test_the_eight_verbs_of_the_reference_system():
    assert {
        "train",
        "to-onnx",
        "to-tensorrt",
        "infer",
        "infer-tensorrt",
        "prepare-triton",
        "demo-local",
        "demo-triton",
    } <= set(VERBS)
    assert yaml.safe_load((ROOT/"dvc.yaml").read_text())["stages"]["bert"]["cmd"].endswith("stage bert")
