"The real Triton server over a miniature tagger: same entities, faults answered, nothing left behind."
import os, signal, socket, subprocess, sys, time
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient import grpc, http
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import InferenceServerException

from bert_ner.core import ROOT, BertNerError
from bert_ner.infer import Tagger
from bert_ner.triton import START_RACE, STEPS, Server, TritonTagger, model_config, pick_ports, prepare, server_ready

APIS = dict(grpc=grpc, http=http)
TEXTS = ["Mr. Bush met Paris in New York on Monday.", "", " \r\n", "🎉 Paris\0! Cafe\u0301 in\r\nNew York", "x" * 10_000, "in Paris " * 400, "東京 Paris"]


def processes():
    "(id, parent, process group, command line) of every living process."
    for p in Path("/proc").glob("[0-9]*"):
        try: (state, parent, leader), command = (p/"stat").read_text().rsplit(")", 1)[1].split()[:3], (p/"cmdline").read_text()
        except OSError: continue
        if state != "Z": yield int(p.name), int(parent), int(leader), command


def group(leader):
    "Ids of the living processes in the process group `leader`."
    return [p for p, _, g, _ in processes() if g == leader]


def named(word):
    "Ids of the living processes, other than this one, whose command line has `word` in it."
    return [p for p, _, _, command in processes() if word in command and p != os.getpid()]


def gone(leader, seconds=30):
    "Whether the process group `leader` is empty before `seconds` are over."
    end = time.monotonic() + seconds
    while group(leader) and time.monotonic() < end: time.sleep(.1)
    return not group(leader)


@pytest.fixture(scope="module")
def repository(mini_tagger_folder, tmp_path_factory): return prepare(tmp_path_factory.mktemp("triton")/"models", model=mini_tagger_folder)


@pytest.fixture(scope="module")
def server(repository):
    with Server(repository, log=repository.parent/"triton.log", timeout=120) as server: yield server
    assert server_ready(server.urls["http"]) is False


@pytest.fixture(params=APIS)
def client(server, request):
    with TritonTagger(server.urls[request.param], request.param) as client: yield client


def send(server, protocol, value, name="TEXT", kind="BYTES", model="bert_ner"):
    "Ask the server directly; returns the raw answer."
    api = APIS[protocol]
    given = api.InferInput(name, list(value.shape), kind)
    given.set_data_from_numpy(value)
    link = api.InferenceServerClient(server.urls[protocol])
    try: return link.infer(model, [given])
    finally: link.close()


# the same entities as in this process

def test_same_entities(client, mini_tagger_folder):
    tagger = Tagger.load(mini_tagger_folder)
    want = tagger.tag_batch(TEXTS)
    assert sum(map(len, want)) > 400 and len(want[5]) == 400   # longer than the window, and nothing lost
    assert client.tag_batch(TEXTS) == want
    assert [client.tag(t) for t in TEXTS] == want
    for text, found in zip(TEXTS, client.tag_batch(TEXTS)):
        for e in found: assert text[e.start:e.end] == e.text


def test_many_texts_keep_their_order(client, mini_tagger_folder):
    texts = [f"{'in ' * (i % 7)}{'Paris' if i % 3 else 'Monday'}" for i in range(300)]
    assert client.tag_batch(texts) == Tagger.load(mini_tagger_folder).tag_batch(texts)


# a request that is wrong gets a sentence, and the server goes on

BAD = {
    "wrong dtype": (dict(value=np.ones(2, dtype=np.float32), kind="FP32"), "FP32"),
    "wrong name": (dict(value=np.array([b"Paris"], dtype=object), name="TXT"), "TXT"),
    "wrong shape": (dict(value=np.array([[b"Paris"]], dtype=object)), "shape"),
    "no text": (dict(value=np.array([], dtype=object)), "TEXT holds no text"),
    "not UTF-8": (dict(value=np.array([b"Paris", b"caf\xe9"], dtype=object)), r"TEXT\[1\] is not UTF-8"),
    "no such model": (dict(value=np.array([b"Paris"], dtype=object), model="nobody"), "unknown model"),
    "half the inputs": (dict(value=np.ones((1, 4), dtype=np.int64), name="input_ids", kind="INT64", model="bert_ner_encoder"), "expected 3 inputs"),
}

@pytest.mark.parametrize("protocol", APIS)
@pytest.mark.parametrize("fault", BAD)
def test_bad_request(server, protocol, fault):
    request, sentence = BAD[fault]
    with pytest.raises(InferenceServerException, match=sentence): send(server, protocol, **request)
    assert server.alive() and server_ready(server.urls["http"])
    assert len(send(server, protocol, np.array([b"Paris"], dtype=object)).as_numpy("ENTITIES")) == 1


def test_encoder_refuses_unequal_shapes(server):
    link = grpc.InferenceServerClient(server.urls["grpc"])
    given = [grpc.InferInput(n, [1, k], "INT64") for n, k in (("input_ids", 4), ("attention_mask", 3), ("token_type_ids", 4))]
    for t in given: t.set_data_from_numpy(np.ones(t.shape(), dtype=np.int64))
    with pytest.raises(InferenceServerException, match="one shape"): link.infer("bert_ner_encoder", given)
    link.close()
    assert server_ready(server.urls["http"])


def test_encoder_refuses_a_piece_that_is_not_in_the_vocabulary(server):
    link = grpc.InferenceServerClient(server.urls["grpc"])
    given = [grpc.InferInput(n, [1, 4], "INT64") for n in ("input_ids", "attention_mask", "token_type_ids")]
    for t in given: t.set_data_from_numpy(np.full((1, 4), 999_999))
    with pytest.raises(InferenceServerException): link.infer("bert_ner_encoder", given)
    link.close()
    assert server_ready(server.urls["http"])


@pytest.mark.parametrize("body", [b"", b"{}", b"{", b"\xff" * 100, b'{"inputs":[{"name":"TEXT","datatype":"BYTES","shape":[2],"data":["a"]}]}'])
def test_bad_json(server, body):
    host, port = server.urls["http"].split(":")
    import http.client as plain
    link = plain.HTTPConnection(host, int(port), timeout=20)
    link.request("POST", "/v2/models/bert_ner/infer", body, {"Content-Type": "application/json"})
    assert 400 <= link.getresponse().status < 600
    link.close()
    assert server_ready(server.urls["http"])


def test_plain_json_is_enough(server):
    import http.client as plain, json
    host, port = server.urls["http"].split(":")
    link = plain.HTTPConnection(host, int(port), timeout=20)
    link.request("POST", "/v2/models/bert_ner/infer", json.dumps({"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1], "data": ["in Paris"]}]}))
    answer = json.load(link.getresponse())
    link.close()
    assert json.loads(answer["outputs"][0]["data"][0])[0]["text"] == "Paris"


# the client, when the server is not there

@pytest.mark.parametrize("protocol", APIS)
def test_nobody_answers(protocol):
    with TritonTagger(f"127.0.0.1:{pick_ports([0])[0]}", protocol, timeout=5) as client:
        start = time.monotonic()
        with pytest.raises(BertNerError, match="no Triton server answers at 127.0.0.1:.*bert-ner serve"): client.tag("Paris")
        assert time.monotonic() - start < 8


@pytest.mark.parametrize("protocol", APIS)
def test_deadline(protocol):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0)); silent.listen()
        with TritonTagger(f"127.0.0.1:{silent.getsockname()[1]}", protocol, timeout=1) as client:
            start = time.monotonic()
            with pytest.raises(BertNerError, match="no answer within 1 s"): client.tag("Paris")
            assert time.monotonic() - start < 8


@pytest.mark.parametrize("protocol,other", [("http", "grpc"), ("grpc", "http")])
def test_wrong_port(server, protocol, other):
    with TritonTagger(server.urls[other], protocol, timeout=3) as client:
        with pytest.raises(BertNerError, match=server.urls[other]): client.tag("Paris")
    assert server_ready(server.urls["http"])


# servers that cannot start

def test_port_in_use(server, repository):
    port = int(server.urls["http"].split(":")[1])
    with pytest.raises(BertNerError, match=f"port {port} cannot be used"): Server(repository, (port, 0, 0))
    assert server_ready(server.urls["http"])


def test_port_taken_while_it_starts(server, repository, tmp_path, monkeypatch):
    port = int(server.urls["grpc"].split(":")[1])
    ours = pick_ports([0, 0])
    monkeypatch.setattr("bert_ner.triton.pick_ports", lambda wanted: [ours[0], port, ours[1]])
    with pytest.raises(BertNerError, match="did not start: .*(in use|bind|start)"): Server(repository, log=tmp_path/"log", timeout=120)
    assert not named(f"--http-port={ours[0]}") and server.alive()


def test_broken_model(mini_tagger_folder, tmp_path):
    broken = prepare(tmp_path/"models", model=mini_tagger_folder)
    (broken/"bert_ner_encoder"/"1"/"model.onnx").write_bytes(b"not a model")
    with pytest.raises(BertNerError, match="did not start: bert_ner_encoder: .*not a model that ONNX Runtime reads") as e: Server(broken, log=tmp_path/"log", timeout=120)
    assert "\n" not in str(e.value)
    assert not named(str(broken))


@pytest.mark.parametrize("fails,starts", [(1, 2), (3, 3)])
def test_a_start_that_races_is_tried_again(repository, fails, starts):
    class Shaky(Server):
        tried = 0
        def _start(self, env, ports): Shaky.tried += 1
        def _wait(self, timeout):
            if Shaky.tried <= fails: raise BertNerError(f"Triton did not start: {START_RACE}")
    if fails < 3: Shaky(repository)
    else:
        with pytest.raises(BertNerError, match="lock_exception"): Shaky(repository)
    assert Shaky.tried == starts


def test_no_repository(tmp_path):
    with pytest.raises(BertNerError, match="bert-ner prepare-triton"): Server(tmp_path)


# nothing left behind

def test_clean_stop(repository, tmp_path):
    server = Server(repository, log=tmp_path/"log", timeout=120)
    leader = server.process.pid
    assert len(group(leader)) >= 5    # the watcher, tritonserver, three Python steps
    server.stop(); server.stop()
    assert not group(leader) and not server_ready(server.urls["http"]) and not server.alive()
    assert not list(Path("/dev/shm").glob(f"{server.memory}*"))


SERVE = "import sys; from bert_ner.triton import serve; serve(sys.argv[1], (0, 0, 0), log=sys.argv[2], timeout=120)"

@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_parent_ends(repository, tmp_path, how):
    parent = subprocess.Popen([sys.executable, "-c", SERVE, repository, tmp_path/"log"], stdout=subprocess.PIPE, text=True)
    try:
        assert "Triton serves bert_ner" in parent.stdout.readline()
        leader, = (p for p, mother, _, _ in processes() if mother == parent.pid)
        assert len(group(leader)) >= 5
        parent.send_signal(how)
        rest = parent.communicate(timeout=60)[0]
        assert (parent.returncode, rest) == ((-9, "") if how == signal.SIGKILL else (0, "stopped\n"))
        assert gone(leader)
    finally: parent.kill(); parent.wait()


# what is in git

@pytest.mark.parametrize("name", ["bert_ner", *STEPS])
def test_committed_configuration(name):
    text = (ROOT/"model_repository"/name/"config.pbtxt").read_text(encoding="utf-8")
    assert text == model_config(name)
    assert text_format.Parse(text, ModelConfig()).name == name
