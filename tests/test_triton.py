"The real Triton server over a miniature tagger: same entities, faults answered, nothing left behind."
import asyncio, json, os, signal, socket, subprocess, sys, threading, time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient import grpc, http
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import InferenceServerException

from bert_ner.core import ROOT, BertNerError
from bert_ner.infer import Tagger
from bert_ner.triton import CHARS, MOST, START_RACE, AsyncTritonTagger, Server, TritonTagger, pick_ports, prepare, server_ready, text_config

from processes import group, named, processes

APIS = dict(grpc=grpc, http=http)
TEXTS = ["Mr. Bush met Paris in New York on Monday.", "", " \r\n", "🎉 Paris\0! Cafe\u0301 in\r\nNew York", "x" * 10_000, "in Paris " * 400, "東京 Paris"]


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


@pytest.fixture(scope="module")
def two_models(mini_tagger_folder, tmp_path_factory):
    "The container's layout: a model for the text, which asks a second one for the logits."
    folder = prepare(tmp_path_factory.mktemp("two")/"models", "python", model=mini_tagger_folder)
    with Server(folder, log=folder.parent/"triton.log", timeout=120) as server: yield server


@pytest.fixture(params=APIS)
def client(server, request):
    with TritonTagger(server.urls[request.param], request.param) as client: yield client


def send(server, protocol, value, name="TEXT", kind="BYTES", model="bert_ner", **more):
    "Ask the server directly; returns the raw answer."
    api = APIS[protocol]
    given = api.InferInput(name, list(value.shape), kind)
    given.set_data_from_numpy(value)
    link = api.InferenceServerClient(server.urls[protocol])
    try: return link.infer(model, [given], **more)
    finally: link.close()


def column(*texts): return np.array([[t] for t in texts], dtype=object).reshape(-1, 1)


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
    "wrong dtype": (dict(value=np.ones((2, 1), dtype=np.float32), kind="FP32"), "FP32"),
    "wrong name": (dict(value=column(b"Paris"), name="TXT"), "TXT"),
    "wrong shape": (dict(value=np.array([[b"Paris", b"Rome"]], dtype=object)), "shape"),
    "one axis": (dict(value=np.array([b"Paris"], dtype=object)), "shape"),
    "no text": (dict(value=column()), "TEXT.*(got 0|no text)|(got 0|no text).*TEXT"),
    "too many": (dict(value=column(*[b"Paris"] * (MOST + 1))), f"batch-size must be <= {MOST}"),
    "not UTF-8": (dict(value=column(b"Paris", b"caf\xe9")), r"TEXT\[1\] is not UTF-8"),
    "too long": (dict(value=column(b"x" * (CHARS + 1))), r"TEXT\[0\] has 1,000,001 characters: send at most 1,000,000"),
    "threshold": (dict(value=column(b"Paris"), parameters=dict(threshold=7)), "threshold is .*7.*: send a number from 0 to 1"),
    "labels": (dict(value=column(b"Paris"), parameters=dict(labels="geo,dog")), "labels names 'dog'"),
    "no such model": (dict(value=column(b"Paris"), model="nobody"), "unknown model"),
}

@pytest.mark.parametrize("protocol", APIS)
@pytest.mark.parametrize("fault", BAD)
def test_bad_request(server, protocol, fault):
    request, sentence = BAD[fault]
    with pytest.raises(InferenceServerException, match=sentence): send(server, protocol, **request)
    assert server.alive() and server_ready(server.urls["http"])
    assert len(send(server, protocol, column(b"Paris")).as_numpy("ENTITIES")) == 1


@pytest.mark.parametrize("protocol", APIS)
def test_a_request_may_ask_for_less(server, protocol):
    def found(**parameters): return [e["text"] for e in json.loads(send(server, protocol, column(b"Mr. Bush met Paris on Monday"), parameters=parameters).as_numpy("ENTITIES")[0, 0])]
    assert found() == ["Mr. Bush", "Paris", "Monday"]
    assert found(labels="per, tim") == ["Mr. Bush", "Monday"] and found(threshold=1) == [] and found(threshold=.5, labels="geo") == ["Paris"]


def test_one_bad_request_among_many(server, mini_tagger_folder):
    "They come in together and are batched together; only the bad ones are refused."
    tagger, link = Tagger.load(mini_tagger_folder), grpc.InferenceServerClient(server.urls["grpc"])
    answers, done = {}, threading.Semaphore(0)
    def keep(i, result, error): answers[i] = error or result.as_numpy("ENTITIES"); done.release()
    sent = {i: b"\xff" if i % 10 == 3 else f"{i} in Paris".encode() for i in range(200)}
    for i, text in sent.items():
        given = grpc.InferInput("TEXT", [1, 1], "BYTES"); given.set_data_from_numpy(column(text))
        link.async_infer("bert_ner", [given], partial(keep, i))
    for _ in sent: assert done.acquire(timeout=60)
    for i, text in sent.items():
        if i % 10 == 3: assert "TEXT[0] is not UTF-8" in str(answers[i])
        else: assert json.loads(answers[i][0, 0]) == [e.as_dict() for e in tagger.tag(text.decode())]
    link.close()


# the container's layout

@pytest.mark.parametrize("protocol", APIS)
def test_two_models_find_the_same(two_models, mini_tagger_folder, protocol):
    with TritonTagger(two_models.urls[protocol], protocol) as client: assert client.tag_batch(TEXTS) == Tagger.load(mini_tagger_folder).tag_batch(TEXTS)


def ask_encoder(server, **arrays):
    link = grpc.InferenceServerClient(server.urls["grpc"])
    given = [grpc.InferInput(n, list(a.shape), "INT64") for n, a in arrays.items()]
    for t, a in zip(given, arrays.values()): t.set_data_from_numpy(a)
    try: return link.infer("bert_ner_encoder", given)
    finally: link.close()


@pytest.mark.parametrize("fault,sentence", [
    (dict(input_ids=np.ones((1, 4), dtype=np.int64)), "expected 3 inputs"),
    (dict(input_ids=np.ones((1, 4), dtype=np.int64), attention_mask=np.ones((1, 3), dtype=np.int64), token_type_ids=np.ones((1, 4), dtype=np.int64)), "one shape"),
    ({n: np.full((1, 4), 999_999) for n in ("input_ids", "attention_mask", "token_type_ids")}, "indices|index|out of"),
])
def test_the_encoder_refuses(two_models, fault, sentence):
    with pytest.raises(InferenceServerException, match=sentence): ask_encoder(two_models, **fault)
    assert server_ready(two_models.urls["http"])


@pytest.mark.parametrize("body", [b"{}", b"{", b"\xff" * 100, b'{"inputs":[{"name":"TEXT","datatype":"BYTES","shape":[2,1],"data":["a"]}]}'])
def test_bad_json(server, body):
    host, port = server.urls["http"].split(":")
    import http.client as plain
    link = plain.HTTPConnection(host, int(port), timeout=20)
    link.request("POST", "/v2/models/bert_ner/infer", body, {"Content-Type": "application/json"})
    assert 400 <= link.getresponse().status < 600
    link.close()
    assert server_ready(server.urls["http"])


def test_plain_json_is_enough(server):
    import http.client as plain
    host, port = server.urls["http"].split(":")
    link = plain.HTTPConnection(host, int(port), timeout=20)
    link.request("POST", "/v2/models/bert_ner/infer", json.dumps({"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": ["in Paris"]}]}))
    answer = json.load(link.getresponse())
    link.close()
    assert json.loads(answer["outputs"][0]["data"][0])[0]["text"] == "Paris"


def test_a_text_alone_is_a_request_too(server, mini_tagger_folder):
    "Triton's raw binary request: the body is the text, nothing else."
    import http.client as plain
    for text in ("in Paris", "", "Mr. Bush, 東京\n"):
        link = plain.HTTPConnection(*server.urls["http"].split(":"), timeout=20)
        link.request("POST", "/v2/models/bert_ner/infer", text.encode(), {"Inference-Header-Content-Length": "0"})
        answer = link.getresponse().read(); link.close()
        assert json.loads(answer[answer.index(b"}]}") + 7:]) == [e.as_dict() for e in Tagger.load(mini_tagger_folder).tag(text)]


# the client, when the server is not there

@pytest.mark.parametrize("protocol", APIS)
def test_nobody_answers(protocol):
    with TritonTagger(f"127.0.0.1:{pick_ports([0])[0]}", protocol, timeout=5) as client:
        start = time.monotonic()
        with pytest.raises(BertNerError, match="no Triton server answers at 127.0.0.1:.*bert-ner serve"): client.tag("Paris")
        assert time.monotonic() - start < 8


@pytest.mark.parametrize("protocol", APIS)
def test_a_server_that_comes_up_late_is_waited_for(repository, tmp_path, protocol):
    ports = pick_ports([0, 0, 0])
    late = []
    starter = threading.Timer(.5, lambda: late.append(Server(repository, tuple(ports), log=tmp_path/"log", timeout=120)))
    starter.start()
    with TritonTagger(f"127.0.0.1:{ports[protocol == 'grpc']}", protocol, retries=7) as client: assert client.tag("in Paris")[0].text == "Paris"
    starter.join(); late[0].stop()


def test_async_clients(server, mini_tagger_folder):
    tagger, texts = Tagger.load(mini_tagger_folder), [f"{i} in Paris" for i in range(300)] + TEXTS
    async def crowd():
        async with AsyncTritonTagger(server.urls["grpc"], concurrency=16) as client:
            alone = await asyncio.gather(*(client.tag(t) for t in texts))
            return alone, await client.tag_batch(texts)
    alone, together = asyncio.run(crowd())
    assert alone == together == tagger.tag_batch(texts)
    async def nobody():
        async with AsyncTritonTagger(f"127.0.0.1:{pick_ports([0])[0]}", retries=0) as client: await client.tag("Paris")
    with pytest.raises(BertNerError, match="no Triton server answers"): asyncio.run(nobody())


def test_parameters_of_a_client(server):
    for protocol in APIS:
        with TritonTagger(server.urls[protocol], protocol, labels=["per"], threshold=.1) as client: assert [e.label for e in client.tag("Mr. Bush in Paris")] == ["per"]
    with TritonTagger(server.urls["grpc"], threshold=3) as client:
        with pytest.raises(BertNerError, match="refused: .*threshold"): client.tag("Paris")


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


@pytest.mark.parametrize("flavour,file,said", [("embedded", "bert_ner/1/model.onnx", "bert_ner: .*model.onnx is not the file that was prepared"),
    ("embedded", "bert_ner/1/bert_ner/spans.py", "bert_ner: .*spans.py is not the file that was prepared"),
    ("python", "bert_ner_encoder/1/model.onnx", "bert_ner(_encoder)?: .*bert_ner_encoder/1/model.onnx is not ")])
def test_broken_file(mini_tagger_folder, tmp_path, flavour, file, said):
    broken = prepare(tmp_path/"models", flavour, model=mini_tagger_folder)
    with open(broken/file, "ab" if file.endswith(".py") else "wb") as f: f.write(b"# not a model")
    with pytest.raises(BertNerError, match=f"did not start: {said}") as e: Server(broken, log=tmp_path/"log", timeout=120)
    assert "\n" not in str(e.value)
    assert not named(str(broken))


@pytest.mark.parametrize("fails,starts", [(1, 2), (3, 3)])
def test_a_start_that_races_is_tried_again(repository, fails, starts):
    class Shaky(Server):
        tried = 0
        def _start(self): Shaky.tried += 1
        def _wait(self):
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
    assert len(group(leader)) >= 3    # the watcher, tritonserver, the Python model
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
        assert len(group(leader)) >= 3
        parent.send_signal(how)
        rest = parent.communicate(timeout=60)[0]
        assert (parent.returncode, rest) == ((-9, "") if how == signal.SIGKILL else (0, "stopped\n"))
        assert gone(leader)
    finally: parent.kill(); parent.wait()


# what is in git

def test_committed_configuration():
    assert [p.name for p in (ROOT/"model_repository").iterdir()] == ["bert_ner"]
    text = (ROOT/"model_repository"/"bert_ner"/"config.pbtxt").read_text(encoding="utf-8")
    assert text == text_config() and text_format.Parse(text, ModelConfig()).name == "bert_ner"
