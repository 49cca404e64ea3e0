"""What an operations team does to a Triton server, or has done to it: new versions, dead processes, full queues, odd
clients, odd bytes, long days."""
import asyncio
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from hypothesis import given, settings, strategies as st
from tritonclient import grpc
from tritonclient.utils import InferenceServerException

from bert_ner.core import ROOT, BertNerError, read_json
from bert_ner.tagger import Tagger
from bert_ner.checkpoint import pretrained_dir
from bert_ner.synthetic import generate_corpus
from bert_ner.triton.server import ADMIN_HEADER, TritonServer, infer_request, post_json, server_ready
from bert_ner.triton.client import AsyncTritonTagger, TritonTagger, ServerUnavailable
from bert_ner.triton.repository import build_repository, list_versions, rollback

from processes import memory, stubs

DEPLOY = ROOT/"deploy"
TEXT = "Mr. Bush met Paris in New York on Monday."


@pytest.fixture(scope="module")
def repository(mini_tagger_folder, tmp_path_factory):
    return build_repository(tmp_path_factory.mktemp("operations")/"models", model=mini_tagger_folder)


@pytest.fixture(scope="module")
def server(repository):
    with TritonServer(repository, log=repository.parent/"triton.log", timeout=120) as server: yield server


@contextmanager
def callers(server, want, count=4, **kw):
    "Asks for `TEXT` from `count` threads meanwhile; yields [answers, [errors]]. Every answer must be `want`."
    tally, stop, lock = [0, []], threading.Event(), threading.Lock()
    def ask():
        with TritonTagger(server.urls["grpc"], timeout=20, **kw) as client:
            while not stop.is_set():
                try: found, error = client.tag(TEXT), None
                except BertNerError as e: found, error = want, e
                with lock:
                    if error or found != want: tally[1].append(error or found)
                    else: tally[0] += 1
    threads = [threading.Thread(target=ask) for _ in range(count)]
    for t in threads: t.start()
    try: yield tally
    finally:
        stop.set()
        for t in threads: t.join()


# versions

@pytest.mark.parametrize("backend", ["embedded", "python"])
def test_versions_come_and_go_under_load(mini_tagger_folder, tmp_path, backend):
    "A new one, back again, a broken one, one that does not answer: nobody who asks meanwhile notices."
    folder = build_repository(tmp_path/"models", backend, model=mini_tagger_folder)
    want = Tagger.from_pretrained(mini_tagger_folder).tag(TEXT)
    with TritonServer(folder, log=tmp_path/"log", timeout=120) as server, callers(server, want, retries=0) as tally:
        assert server.reconcile() == ""
        build_repository(folder, backend, model=mini_tagger_folder)
        assert (server.reconcile(), server.versions, list_versions(folder)) == ("version 2 of bert_ner is served", dict(bert_ner=2), [1, 2])
        rollback(folder)
        assert (server.reconcile(), server.versions) == ("version 1 of bert_ner is served", dict(bert_ner=1))
        build_repository(folder, backend, model=mini_tagger_folder)
        (folder/"bert_ner"/"2"/"tagger.json").write_text("{}")
        said = server.reconcile()
        assert re.fullmatch(
            "version 2 of bert_ner was set aside, version 1 is still served: bert_ner was not loaded: .*tagger.json has "
            "changed since it was prepared.*",
            said,
        ) and list_versions(folder) == [1]
        build_repository(folder, backend, model=mini_tagger_folder)
        # it loads, and then it does not answer
        about = read_json(folder/"bert_ner"/"2"/"prepared.json"); model = folder/"bert_ner"/"2"/"model.py"
        model.write_text(model.read_text().replace("self.model.execute(requests)", "raise ValueError('no')"))
        (folder / "bert_ner" / "2" / "prepared.json").write_text(
            json.dumps({**about, "sha256": {k: v for k, v in about["sha256"].items() if k != "model.py"}})
        )
        before, tally[1][:] = tally[0], []
        assert (
            server.reconcile().startswith("version 2 of bert_ner was set aside, version 1 is still served: bert_ner does not respond")
            and server.reconcile() == ""
        )
        # until what was asked by then has been answered
        time.sleep(1)
        broken = [str(e) for e in tally[1]]
        time.sleep(.3)
    # what asked in the moment of the last one may have heard its fault
    assert tally[0] > before and all("ValueError" in e for e in broken)
    assert len(tally[1]) == len(broken)


def test_serve_takes_up_what_is_prepared(mini_tagger_folder, tmp_path):
    folder = build_repository(tmp_path/"models", model=mini_tagger_folder)
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from bert_ner.triton.server import serve; "
            "serve(sys.argv[1], (0, 0, 0), log=sys.argv[2], timeout=120)",
            folder,
            tmp_path / "log",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = re.search(r"gRPC (\S+),", parent.stdout.readline())[1]
        build_repository(folder, model=mini_tagger_folder)
        assert parent.stdout.readline() == "version 2 of bert_ner is served\n"
        rollback(folder)
        assert parent.stdout.readline() == "version 1 of bert_ner is served\n"
        with TritonTagger(url) as client: assert len(client.tag(TEXT)) == 4
        parent.terminate()
        assert parent.communicate(timeout=60)[0] == "stopped\n"
    finally: parent.kill(); parent.wait()


# processes that die

def test_a_killed_python_process_is_replaced(mini_tagger_folder, tmp_path):
    """Under load, by kill -9: every request ends, with an answer or an error that says to ask again; callers that do
    get their answers."""
    folder = build_repository(tmp_path/"models", model=mini_tagger_folder)
    want = Tagger.from_pretrained(mini_tagger_folder).tag(TEXT)
    with TritonServer(folder, log=tmp_path/"log", timeout=120) as server:
        stop = threading.Event()
        def tend():
            while not stop.wait(.3): said.extend(filter(None, [server.reconcile()]))
        said, tending = [], threading.Thread(target=tend)
        with callers(server, want, retries=6) as patient, callers(server, want, retries=0) as hasty:
            tending.start(); time.sleep(.5)
            for _ in range(2):
                old = stubs(server); os.kill(old[0], signal.SIGKILL)
                end = time.monotonic() + 60
                while not any(said) and time.monotonic() < end: time.sleep(.1)
                before = patient[0]
                while patient[0] < before + 20 and time.monotonic() < end: time.sleep(.1)
                assert said.pop() and patient[0] >= before + 20 and not set(stubs(server)) & set(old)
        stop.set(); tending.join()
    assert not patient[1] and hasty[1] and all(isinstance(e, ServerUnavailable) for e in hasty[1])


def test_a_killed_server_is_noticed(repository, tmp_path):
    "Whoever waits for an answer hears of it well before the deadline."
    with TritonServer(repository, log=tmp_path/"log", timeout=120) as server:
        faults, seconds = [], []
        def ask(protocol):
            with TritonTagger(server.urls[protocol], protocol, timeout=30, retries=0) as client:
                try:
                    while True: client.tag_batch(["in Paris " * 20_000] * 3)
                except BertNerError as e: faults.append(str(e)); seconds.append(time.monotonic())
        threads = [threading.Thread(target=ask, args=(p,)) for p in ("grpc", "http")]
        for t in threads: t.start()
        time.sleep(1); began = time.monotonic(); os.killpg(server.process.pid, signal.SIGKILL)
        for t in threads: t.join()
    assert (
        len(faults) == 2
        and all(s - began < 10 for s in seconds)
        and all(re.match("no Triton server responds at 127.0.0.1", f) for f in faults)
    ), faults


def test_health_asks_the_model(repository, tmp_path):
    def health(url): return subprocess.run([sys.executable, DEPLOY/"health.py", url], capture_output=True, text=True)
    sys.path.insert(0, str(DEPLOY))
    try: from health import healthy
    finally: sys.path.remove(str(DEPLOY))
    with TritonServer(repository, log=tmp_path/"log", timeout=120) as server:
        url = server.urls["http"]
        assert (healthy(url), health(url).returncode) == (True, 0)
        os.kill(stubs(server)[0], signal.SIGKILL); time.sleep(1.5)
        # Triton calls itself ready all the same
        assert server_ready(url) and healthy(url) is False and health(url).returncode == 1
        while server.reconcile() == "": time.sleep(.1)
        assert healthy(url) is True
    assert healthy(url) is None and health(url).returncode == 1


# more than it can take

@pytest.fixture(scope="module")
def slow_server(mini_tagger_folder, tmp_path_factory):
    "Each batch costs a product of two large matrices, whatever is in it."
    model = onnx.load(mini_tagger_folder/"model.onnx")
    model.graph.node[0].output[0] = "known"
    side = np.full((3500, 3500), 1e-9, dtype=np.float32)
    model.graph.initializer.extend(
        [onnx.numpy_helper.from_array(side, "side"), onnx.numpy_helper.from_array(np.zeros((), np.float32), "zero")]
    )
    steps = [
        ("Cast", ["input_ids"], "floats", dict(to=onnx.TensorProto.FLOAT)),
        ("ReduceMax", ["floats"], "top", dict(keepdims=0)),
        ("Mul", ["side", "top"], "left", {}),
        ("MatMul", ["left", "side"], "product", {}),
        ("ReduceMax", ["product"], "most", dict(keepdims=0)),
        ("Mul", ["most", "zero"], "nothing", {}),
        ("Add", ["known", "nothing"], "logits", {}),
    ]
    model.graph.node.extend(onnx.helper.make_node(kind, given, [made], **more) for kind, given, made, more in steps)
    folder = shutil.copytree(mini_tagger_folder, tmp_path_factory.mktemp("slow")/"tagger")
    onnx.save(model, folder/"model.onnx")
    with TritonServer(
        build_repository(folder.parent / "models", model=folder), log=folder.parent / "log", timeout=120
    ) as server:
        yield server


def test_a_full_queue(slow_server, mini_tagger_folder):
    """1,500 requests come faster than they are answered: 512 wait, the rest is rejected at once (HTTP: 503), and that
    is all."""
    want = Tagger.from_pretrained(mini_tagger_folder).tag(TEXT)
    async def crowd():
        async with AsyncTritonTagger(slow_server.urls["grpc"], concurrency=4000, retries=0) as client:
            asked = []
            # a batch may have made room by the time HTTP asks
            for _ in range(8):
                more = [asyncio.create_task(client.tag(TEXT)) for _ in range(1500)]
                # the queue is full
                while not any(t.done() and t.exception() for t in more) and not all(t.done() for t in more): await asyncio.sleep(.01)
                asked += more
                request = slow_server.urls["http"], "/v2/models/bert_ner/infer", infer_request([TEXT]), {}, 30
                probes = await asyncio.gather(*(asyncio.to_thread(post_json, *request) for _ in range(8)))
                http = max(probes, key=lambda answer: answer[0] == 503)
                if http[0] == 503: break
            return await asyncio.gather(*asked, return_exceptions=True), http
    answers, (status, said) = asyncio.run(crowd())
    refused = [a for a in answers if isinstance(a, Exception)]
    assert refused and all(isinstance(a, ServerUnavailable) and "a full queue" in str(a) for a in refused)
    assert len(answers) - len(refused) >= 64 and all(a == want for a in answers if not isinstance(a, Exception))
    assert status == 503 and json.loads(said)["error"] == "the server is overloaded: 512 requests are waiting"


def test_slow_and_half_open_clients(server):
    host, port = server.urls["http"].split(":")
    held = []
    try:
        for i in range(200):
            s = socket.create_connection((host, int(port)), timeout=5)
            s.sendall(
                b"POST /v2/models/bert_ner/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n"
                + (b"\r\n{" if i % 2 else b"")
            )
            # gone without a word
            if i % 4 == 3: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)); s.close()
            else: held.append(s)
        for protocol in ("grpc", "http"):
            with TritonTagger(server.urls[protocol], protocol, timeout=10) as client: assert len(client.tag(TEXT)) == 4
    finally:
        for s in held: s.close()
    assert server_ready(server.urls["http"])


def test_a_body_of_64_megabytes(server):
    "It is read, and refused by the model in a sentence, over HTTP and gRPC."
    body, said = (
        json.dumps(infer_request(["x" * (64 << 20)])).encode(),
        "TEXT[0] has 67,108,864 characters: send at most 1,000,000",
    )
    link = http.client.HTTPConnection(server.urls["http"], timeout=120)
    link.request("POST", "/v2/models/bert_ner/infer", body)
    answer = link.getresponse()
    assert (answer.status, json.loads(answer.read())) == (400, dict(error=said))
    link.close()
    link = grpc.InferenceServerClient(server.urls["grpc"])
    value = grpc.InferInput("TEXT", [1, 1], "BYTES")
    value.set_data_from_numpy(np.array([[b"x" * (64 << 20)]], dtype=object))
    with pytest.raises(InferenceServerException, match=re.escape(said)): link.infer("bert_ner", [value])
    link.close()
    with TritonTagger(server.urls["grpc"]) as client: assert len(client.tag(TEXT)) == 4


# what only the operator may do

def test_control_of_models_needs_the_key(server):
    http_url, path = server.urls["http"], "/v2/repository/models/bert_ner/unload"
    for headers in ({}, {ADMIN_HEADER: "guess"}): assert post_json(http_url, path, {}, headers, 10)[0] == 403
    assert (
        post_json(
            http_url, "/v2/systemsharedmemory/region/x/register", dict(key="/x", byte_size=64, offset=0), {}, 10
        )[0]
        == 403
    )
    assert post_json(http_url, "/v2/logging", dict(log_verbose_level=1), {}, 10)[0] == 403
    link = grpc.InferenceServerClient(server.urls["grpc"])
    for attempt in (
        lambda: link.unload_model("bert_ner"),
        lambda: link.register_system_shared_memory("x", "/x", 64),
        lambda: link.update_log_settings({"log_verbose_level": 1}),
    ):
        with pytest.raises(InferenceServerException, match=ADMIN_HEADER): attempt()
    link.close()
    with TritonTagger(server.urls["grpc"], retries=0) as client: assert len(client.tag(TEXT)) == 4
    listening = [
        l.split()[1]
        for file in ("tcp", "tcp6")
        for l in (Path("/proc/net") / file).read_text().splitlines()[1:]
        if l.split()[3] == "0A"
    ]
    # loopback
    for port in (int(u.split(":")[1]) for u in server.urls.values()):
        assert {l.split(":")[0] for l in listening if l.endswith(f":{port:04X}")} <= {
            "0100007F",
            "0000000000000000FFFF00000100007F",
        }


# odd bytes

MANY = bool(os.environ.get("BERT_NER_LONG"))
ODD = st.one_of(
    st.binary(max_size=200),
    st.text(max_size=200).map(lambda t: t.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [
            b"",
            b"\0",
            b"Paris\0" * 9,
            b"\xef\xbb\xbfParis",
            "\u202eParis\u0301🏴󠁧󠁢󠁥󠁮󠁧󠁿 ".encode(),
            b"\xff\xfe",
            b" " * 500,
            b"in Paris " * 80,
        ]
    ),
)


@pytest.fixture(scope="module")
def asked(server, mini_tagger_folder):
    "A connection that is kept, and the tagger that the server has."
    link = grpc.InferenceServerClient(server.urls["grpc"])
    yield link, Tagger.from_pretrained(mini_tagger_folder)
    link.close()


@settings(max_examples=2000 if MANY else 200, deadline=None)
@given(texts=st.lists(ODD, min_size=1, max_size=5), threshold=st.one_of(st.none(), st.floats(), st.text(max_size=5)))
def test_odd_texts(asked, texts, threshold):
    "The local entities where all is well, one sentence about TEXT or threshold where it is not; never a dead server."
    link, tagger = asked
    value = grpc.InferInput("TEXT", [len(texts), 1], "BYTES")
    value.set_data_from_numpy(np.array([[t] for t in texts], dtype=object))
    try: answer = link.infer("bert_ner", [value], parameters=None if threshold is None else dict(threshold=threshold))
    except InferenceServerException as e: assert re.search(r"TEXT\[\d\] is not UTF-8|parameter threshold is", str(e))
    else:
        least = float(threshold or 0)
        want = [
            [e.to_dict() for e in found if e.score >= least] for found in tagger.tag_batch([t.decode() for t in texts])
        ]
        assert [json.loads(a) for a in answer.as_numpy("ENTITIES")[:, 0]] == want and 0 <= least <= 1


@settings(max_examples=2000 if MANY else 100, deadline=None)
@given(body=st.one_of(st.binary(max_size=300), st.recursive(st.one_of(st.none(), st.integers(), st.text(max_size=9)), lambda x: st.one_of(st.lists(x, max_size=3), st.dictionaries(
    st.sampled_from(["inputs", "name", "datatype", "shape", "data", "parameters", "outputs"]), x, max_size=5)), max_leaves=12).map(lambda x: json.dumps(x).encode())),
    length=st.one_of(st.none(), st.just(0), st.integers(-2, 400)))
def test_odd_bodies(server, asked, body, length):
    """Over HTTP: a body without a JSON header is one text; what is no request is rejected with a reason; the server
    goes on."""
    link = http.client.HTTPConnection(server.urls["http"], timeout=30)
    try:
        link.request(
            "POST",
            "/v2/models/bert_ner/infer",
            body,
            {} if length is None else {"Inference-Header-Content-Length": str(length)},
        )
        answer = link.getresponse(); status, said = answer.status, answer.read()
    finally: link.close()
    if length == 0 or length is None and not body:
        try: want = [e.to_dict() for e in asked[1].tag(body.decode())]
        except UnicodeDecodeError: assert status == 400 and "TEXT[0] is not UTF-8" in json.loads(said)["error"]
        else: assert status == 200 and json.loads(said[said.index(b"}]}") + 7:]) == want
    else:  # Triton's parser answers 500, its checks of a parsed request 400
        reason = json.loads(said)["error"]
        outside = length is not None and not 0 <= length <= len(body)
        assert (
            re.search("inference header size should be in range", reason) and status == 400
            if outside
            else (
                status == 500
                and re.search("parse|failed to get request params|access", reason)
                or status == 400
                and re.fullmatch(r"[^\n]*\w[^\n]*", reason)
                and "Traceback" not in reason
            )
        ), (status, reason)
    assert server_ready(server.urls["http"])


# long days

@pytest.mark.long
def test_ten_thousand_requests_one_after_the_other(server):
    with TritonTagger(server.urls["grpc"]) as client:
        for _ in range(1000): client.tag(TEXT)
        before = memory(server)
        for _ in range(10_000): client.tag(TEXT)
    assert memory(server) < before + 20


@pytest.mark.long
@pytest.mark.timeout(900)
def test_mixed_lengths_for_a_while(tmp_path):
    """The shipped model, 5 to 2,000 words per text, 32 callers at once: no error, memory that stays, and the local
    entities but for the few that depend on what else is in an int8 batch."""
    words = [w for row in generate_corpus(42, 3000) for w in row[0]]
    rng = random.Random(42)
    texts = [
        " ".join(words[i : i + n])
        for n in [5, 2000, *(round(5 * 400 ** rng.random()) for _ in range(62))]
        for i in [rng.randrange(len(words) - n)]
    ]
    tagger = Tagger.from_pretrained(pretrained_dir())      # the engine that the server selects, too
    want = tagger.tag_batch(texts)
    folder = build_repository(tmp_path/"models", model=pretrained_dir(), engine="onnx-int8")
    seconds = float(os.environ.get("BERT_NER_SOAK", 60))
    found, shared = 0, 0
    with TritonServer(folder, log=tmp_path/"log", timeout=120) as server:
        async def crowd():
            async with AsyncTritonTagger(server.urls["grpc"], timeout=120, concurrency=32, retries=8) as client:
                end, sizes, done = time.monotonic() + seconds, [], 0
                async def caller(seed):
                    nonlocal done, found, shared
                    mine = random.Random(seed)
                    while time.monotonic() < end:
                        i = mine.randrange(len(texts))
                        here, there = ({(e.start, e.end, e.label, e.text) for e in x} for x in (want[i], await client.tag(texts[i])))
                        found, shared, done = found + len(here | there), shared + len(here & there), done + 1
                async def watch():
                    while time.monotonic() < end:
                        await asyncio.sleep(seconds / 10); sizes.append(await asyncio.to_thread(memory, server))
                await asyncio.gather(watch(), *(caller(s) for s in range(32)))
                return sizes, done
        sizes, done = asyncio.run(crowd())
    print(f"{done} requests in {seconds:g} s, {shared / found:.2%} of the entities, MiB {[round(s) for s in sizes]}")
    assert done > 100 and shared > .95 * found and max(sizes[5:]) < 1.1 * max(sizes[2:5]) + 20


# what deploy/ says

def test_compose_file():
    file = yaml.safe_load((DEPLOY/"compose.yaml").read_text())
    triton = file["services"]["triton"]
    assert (
        triton["user"] != "0:0"
        and triton["read_only"]
        and triton["cap_drop"] == ["ALL"]
        and triton["volumes"][0]["read_only"]
    )
    for service in file["services"].values():
        assert all(p.startswith("127.0.0.1:") for p in service["ports"]) and "latest" not in service["image"]
        for v in service["volumes"]:
            if v["source"].startswith("./"): assert (DEPLOY/v["source"]).exists(), v
    image = (DEPLOY/"Dockerfile").read_text()
    assert re.search(r"IMAGE=(\S+)", image)[1] == re.search(r"IMAGE:-([^}]+)}", triton["build"]["args"]["IMAGE"])[1]
    pins = {
        l
        for l in (ROOT / "triton-constraints.txt").read_text().splitlines()
        if l.split("==")[0] in ("numpy", "onnxruntime", "tokenizers")
    }
    assert pins == set(re.search(r"pip install .*", image)[0].split()[-3:])
    assert "deploy" in yaml.safe_load((DEPLOY/"compose.gpu.yaml").read_text())["services"]["triton"]
    scraped = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"][0][
        "targets"
    ]
    assert scraped == ["triton:8002"] and "EXPOSE 8000 8001 8002" in image


@pytest.mark.compose
@pytest.mark.parametrize("more", [[], ["-f", "compose.gpu.yaml"], ["--profile", "watch"]])
def test_compose_reads_its_file(more):
    done = subprocess.run(
        ["docker", "compose", "-f", "compose.yaml", *more, "config", "--quiet"],
        cwd=DEPLOY,
        capture_output=True,
        text=True,
        env={**os.environ, "REPOSITORY": "/tmp", "BERT_NER_KEY": "k"},
    )
    assert done.returncode == 0, done.stderr


def test_the_dashboard_asks_for_what_there_is(server):
    "Every metric and every label of the dashboard is one that the server has."
    with TritonTagger(server.urls["grpc"]) as client: client.tag(TEXT)
    link = http.client.HTTPConnection(server.urls["metrics"])
    link.request("GET", "/metrics"); said = link.getresponse().read().decode(); link.close()
    there = set(re.findall(r"^(nv_\w+)", said, re.M))
    asked = [t["expr"] for p in read_json(DEPLOY/"grafana"/"bert-ner.json")["panels"] for t in p["targets"]]
    names = {n for e in asked for n in re.findall(r"\bnv_\w+", e)}
    assert len(asked) == 5 and len(names) == 6 and names <= there, names - there
    assert 'model="bert_ner"' in said and 'reason="' in said


# what docs/triton.md says to other languages

def shell_lines(language, word):
    (block,) = [
        b
        for b in re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs/triton.md").read_text(encoding="utf-8"), re.S)
        if word in b
    ]
    return block


@pytest.mark.curl
def test_curl(server):
    line, = [l for l in shell_lines("shell", "curl -s localhost:8000").splitlines() if l.startswith("curl")]
    said = subprocess.run(
        [
            "bash",
            "-c",
            line.replace("localhost:8000", server.urls["http"]).replace(
                "Angela Merkel met officials in Paris.", "in Paris"
            ),
        ],
        capture_output=True,
        text=True,
    )
    assert json.loads(json.loads(said.stdout)["outputs"][0]["data"][0])[0]["text"] == "Paris", said


@pytest.mark.node
def test_node(server, tmp_path):
    (tmp_path / "ask.mjs").write_text(
        shell_lines("js", "fetch(")
        .replace("localhost:8000", server.urls["http"])
        .replace("Angela Merkel met officials in Paris on Monday.", "🎉 in Paris")
    )
    said = subprocess.run(["node", tmp_path/"ask.mjs"], capture_output=True, text=True)
    assert said.stdout.split() == ["5", "10", "geo", "Paris"], said
