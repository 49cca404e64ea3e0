"The real Triton server over a miniature tagger: same entities, faults answered, nothing left behind."
import asyncio, http.client as plain, json, os, shutil, signal, socket, subprocess, sys, threading, time
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from google.protobuf import text_format
from tritonclient import grpc, http
from tritonclient.grpc.model_config_pb2 import ModelConfig
from tritonclient.utils import InferenceServerException

from bert_ner.core import ROOT, BertNerError, read_json
from bert_ner.tagger import Tagger
from bert_ner.triton.model import MAX_CHARS, MAX_TEXTS
from bert_ner.triton.client import REQUEST_CHARS, AsyncTritonTagger, TritonTagger
from bert_ner.triton.server import STARTUP_LOCK_ERROR, TritonServer, serve, server_ready
from bert_ner.triton.repository import WARMUP_LENGTHS, is_signed, build_repository, ner_config, list_models, list_versions, rollback
from bert_ner.triton.environment import find_free_ports

from processes import group, named, processes

APIS = dict(grpc=grpc, http=http)
TEXTS = [
    "Mr. Bush met Paris in New York on Monday.",
    "",
    " \r\n",
    "🎉 Paris\0! Cafe\u0301 in\r\nNew York",
    "x" * 10_000,
    "in Paris " * 400,
    "東京 Paris",
]


def gone(leader, seconds=30):
    "Whether the process group `leader` is empty before `seconds` are over."
    end = time.monotonic() + seconds
    while group(leader) and time.monotonic() < end: time.sleep(.1)
    return not group(leader)


@pytest.fixture(scope="module")
def repository(mini_tagger_folder, tmp_path_factory):
    return build_repository(tmp_path_factory.mktemp("triton")/"models", model=mini_tagger_folder)


@pytest.fixture(scope="module")
def server(repository):
    with TritonServer(repository, log=repository.parent/"triton.log", timeout=120) as server: yield server
    assert server_ready(server.urls["http"]) is False


@pytest.fixture(scope="module")
def two_models(mini_tagger_folder, tmp_path_factory):
    "The container's layout: a model for the text, which asks a second one for the logits."
    folder = build_repository(tmp_path_factory.mktemp("two")/"models", "python", model=mini_tagger_folder)
    with TritonServer(folder, log=folder.parent/"triton.log", timeout=120) as server: yield server


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
    tagger = Tagger.from_pretrained(mini_tagger_folder)
    want = tagger.tag_batch(TEXTS)
    assert sum(map(len, want)) > 400 and len(want[5]) == 400   # longer than the window, and nothing lost
    assert client.tag_batch(TEXTS) == want
    assert [client.tag(t) for t in TEXTS] == want
    for text, found in zip(TEXTS, client.tag_batch(TEXTS)):
        for e in found: assert text[e.start:e.end] == e.text


def test_many_texts_keep_their_order(client, mini_tagger_folder):
    texts = [f"{'in ' * (i % 7)}{'Paris' if i % 3 else 'Monday'}" for i in range(300)]
    assert client.tag_batch(texts) == Tagger.from_pretrained(mini_tagger_folder).tag_batch(texts)


ITERABLES = {
    "a generator": iter,
    "map": lambda texts: map(str, texts),
    "a tuple": tuple,
    "numpy": lambda texts: np.array(texts, dtype=object),
    "a Series with another index": lambda texts: pd.Series(texts, index=range(len(texts), 0, -1)),
    "keys of a dict": dict.fromkeys,
}

@pytest.mark.parametrize("kind", ITERABLES)
def test_any_iterable_in_its_order(client, server, mini_tagger_folder, kind):
    texts = ["in Paris", "Mr. Bush", "", "New York on Monday", "x" * 70_000]
    want = Tagger.from_pretrained(mini_tagger_folder).tag_batch(texts)
    assert client.tag_batch(ITERABLES[kind](texts)) == want
    async def ask():
        async with AsyncTritonTagger(server.urls["grpc"]) as other:
            return await other.tag_batch(ITERABLES[kind](texts))
    assert asyncio.run(ask()) == want


def test_lines_of_an_open_file(client, tmp_path):
    (tmp_path/"in.txt").write_text("in Paris\nMr. Bush\n")
    with open(tmp_path/"in.txt") as file:
        assert [[e.text for e in found] for found in client.tag_batch(file)] == [["Paris"], ["Mr. Bush"]]


@pytest.mark.parametrize("wrong,said", [("Paris", "one string was given"), (b"Paris", "one string was given"), (["ok", None], "text 1 is NoneType"), (["ok", b"Paris"], "text 1 is bytes"),
                                        (iter(["ok", "\ud83d Paris"]), "text 1 has half a character .a lone surrogate. at 0"), (5, "int is not a collection"), (["x" * (MAX_CHARS + 1)], "text 0 has 1,000,001 characters")])
def test_what_is_no_text_is_refused_before_anything_is_sent(wrong, said):
    # nobody is there
    with pytest.raises(BertNerError, match=said), TritonTagger("127.0.0.1:9", retries=0) as client:
        client.tag_batch(wrong)
    async def ask():
        async with AsyncTritonTagger("127.0.0.1:9", retries=0) as client:
            await client.tag_batch(["ok", "\ud83d"] if not isinstance(wrong, (str, bytes, int)) else wrong)
    with pytest.raises(BertNerError, match="one string was given|half a character|int is not a collection"):
        asyncio.run(ask())


# a request that is wrong gets a sentence, and the server goes on

BAD = {
    "wrong dtype": (dict(value=np.ones((2, 1), dtype=np.float32), kind="FP32"), "FP32"),
    "wrong name": (dict(value=column(b"Paris"), name="TXT"), "TXT"),
    "wrong shape": (dict(value=np.array([[b"Paris", b"Rome"]], dtype=object)), "shape"),
    "one axis": (dict(value=np.array([b"Paris"], dtype=object)), "shape"),
    "no text": (dict(value=column()), "TEXT.*got 0|got 0.*TEXT|TEXT is empty"),
    "too many": (dict(value=column(*[b"Paris"] * (MAX_TEXTS + 1))), f"batch-size must be <= {MAX_TEXTS}"),
    "not UTF-8": (dict(value=column(b"Paris", b"caf\xe9")), r"TEXT\[1\] is not UTF-8"),
    "half a character": (
        dict(value=column(b"Paris", "\ud83d".encode("utf-8", "surrogatepass"))),
        r"TEXT\[1\] is not UTF-8: byte 0xed at 0",
    ),
    "too long together": (
        dict(value=column(*[b"x" * 300_000] * 4)),
        "1,200,000 characters together: send at most 1,000,000",
    ),
    "too long": (
        dict(value=column(b"x" * (MAX_CHARS + 1))),
        r"TEXT\[0\] has 1,000,001 characters: send at most 1,000,000",
    ),
    "threshold": (
        dict(value=column(b"Paris"), parameters=dict(threshold=7)),
        "threshold is .*7.*: send a number from 0 to 1",
    ),
    "labels": (dict(value=column(b"Paris"), parameters=dict(labels="geo,dog")), "labels names 'dog'"),
    "no such model": (dict(value=column(b"Paris"), model="nobody"), "unknown model"),
}

@pytest.mark.parametrize("protocol", APIS)
@pytest.mark.parametrize("fault", BAD)
def test_bad_request(server, protocol, fault):
    request, sentence = BAD[fault]
    with pytest.raises(InferenceServerException, match=sentence): send(server, protocol, **request)
    assert server.is_alive() and server_ready(server.urls["http"])
    assert len(send(server, protocol, column(b"Paris")).as_numpy("ENTITIES")) == 1


@pytest.mark.parametrize("protocol", APIS)
def test_a_request_may_ask_for_less(server, protocol):
    def found(**parameters):
        return [
            e["text"]
            for e in json.loads(
                send(server, protocol, column(b"Mr. Bush met Paris on Monday"), parameters=parameters).as_numpy(
                    "ENTITIES"
                )[0, 0]
            )
        ]
    assert found() == ["Mr. Bush", "Paris", "Monday"]
    assert (
        found(labels="per, tim") == ["Mr. Bush", "Monday"]
        and found(threshold=1) == []
        and found(threshold=0.5, labels="geo") == ["Paris"]
    )


def test_one_bad_request_among_many(server, mini_tagger_folder):
    "They come in together and are batched together; only the bad ones are rejected."
    tagger, link = Tagger.from_pretrained(mini_tagger_folder), grpc.InferenceServerClient(server.urls["grpc"])
    answers, done = {}, threading.Semaphore(0)
    def keep(i, result, error): answers[i] = error or result.as_numpy("ENTITIES"); done.release()
    sent = {i: b"\xff" if i % 10 == 3 else f"{i} in Paris".encode() for i in range(200)}
    for i, text in sent.items():
        given = grpc.InferInput("TEXT", [1, 1], "BYTES"); given.set_data_from_numpy(column(text))
        link.async_infer("bert_ner", [given], partial(keep, i))
    for _ in sent: assert done.acquire(timeout=60)
    for i, text in sent.items():
        if i % 10 == 3: assert "TEXT[0] is not UTF-8" in str(answers[i])
        else: assert json.loads(answers[i][0, 0]) == [e.to_dict() for e in tagger.tag(text.decode())]
    link.close()


# a long text and short ones

def test_a_book_holds_nobody_up(server, mini_tagger_folder):
    """50 short requests that come after a text of a million characters and a shorter long one are answered before
    these, nearly all; nobody is rejected, the entities are the local ones."""
    tagger, link = Tagger.from_pretrained(mini_tagger_folder), grpc.InferenceServerClient(server.urls["grpc"])
    books = {
        "book": ("Mr. Bush met Paris in New York " * 40_000)[:MAX_CHARS],
        "report": "Mr. Bush met Paris in New York " * 4_000,
    }
    short = {f"short {n}": f"{n} in Paris" for n in range(50)}
    answers, done = {}, threading.Semaphore(0)
    # in the order of coming
    def keep(name, result, error): answers[name] = error or result.as_numpy("ENTITIES"); done.release()
    def send_off(texts):
        for name, text in texts.items():
            given = grpc.InferInput("TEXT", [1, 1], "BYTES"); given.set_data_from_numpy(column(text.encode()))
            link.async_infer("bert_ner", [given], partial(keep, name))
    send_off(books); send_off(short)
    for _ in (*books, *short): assert done.acquire(timeout=200)
    order = list(answers)
    # on a busy machine a few may be sent so late that the shorter one is done
    assert order[-1] == "book" and sum(order.index(n) < order.index("report") for n in short) >= 40
    for name, text in {**short, **books}.items():
        assert not isinstance(answers[name], Exception), answers[name]
        assert json.loads(answers[name][0, 0]) == [e.to_dict() for e in tagger.tag(text)]
    link.close()


def test_a_long_text_by_the_client(client, mini_tagger_folder):
    text = "in Paris " * 15_000
    assert len(text) > REQUEST_CHARS and client.tag(text) == Tagger.from_pretrained(mini_tagger_folder).tag(text)


def test_the_encoder_is_warm_before_it_is_ready(mini_tagger_folder, tmp_path):
    "One batch of each warm-up length that the model can read."
    repository = build_repository(tmp_path/"models", "python", mini_tagger_folder)
    program = next(repository.glob("bert_ner_encoder/*/model.py"))
    answer = "    def answer(self, request):\n"
    say = "        print('warm:', pb.get_input_tensor_by_name(request, 'input_ids').as_numpy().shape, flush=True)\n"
    assert answer in (text := program.read_text())
    program.write_text(text.replace(answer, answer + say))
    with TritonServer(repository, log=tmp_path/"log"): pass
    shapes = [l for l in (tmp_path/"log").read_text().splitlines() if "warm:" in l]
    longest = read_json(mini_tagger_folder/"tagger.json")["max_length"]
    assert shapes == [f"warm: (1, {n})" for n in WARMUP_LENGTHS if n <= longest] and shapes


# the container's layout

@pytest.mark.parametrize("protocol", APIS)
def test_two_models_find_the_same(two_models, mini_tagger_folder, protocol):
    with TritonTagger(two_models.urls[protocol], protocol) as client:
        assert client.tag_batch(TEXTS) == Tagger.from_pretrained(mini_tagger_folder).tag_batch(TEXTS)


def ask_encoder(server, **arrays):
    link = grpc.InferenceServerClient(server.urls["grpc"])
    given = [grpc.InferInput(n, list(a.shape), "INT64") for n, a in arrays.items()]
    for t, a in zip(given, arrays.values()): t.set_data_from_numpy(a)
    try: return link.infer("bert_ner_encoder", given)
    finally: link.close()


@pytest.mark.parametrize("fault,sentence", [
    (dict(input_ids=np.ones((1, 4), dtype=np.int64)), "expected 3 inputs"),
    (dict(input_ids=np.ones((1, 4), dtype=np.int64), attention_mask=np.ones((1, 3), dtype=np.int64), token_type_ids=np.ones((1, 4), dtype=np.int64)), "same non-empty shape"),
    ({n: np.full((1, 4), 999_999) for n in ("input_ids", "attention_mask", "token_type_ids")}, "indices|index|out of"),
])
def test_the_encoder_refuses(two_models, fault, sentence):
    with pytest.raises(InferenceServerException, match=sentence): ask_encoder(two_models, **fault)
    assert server_ready(two_models.urls["http"])


def raw(server, body, headers=None):
    "(status, body of the answer) of one HTTP request."
    link = plain.HTTPConnection(*server.urls["http"].split(":"), timeout=60)
    try:
        link.request("POST", "/v2/models/bert_ner/infer", body, headers or {"Content-Type": "application/json"})
        answer = link.getresponse()
        return answer.status, answer.read()
    finally: link.close()


def as_json(**more):
    return json.dumps(
        {"inputs": [{**dict(name="TEXT", datatype="BYTES", shape=[1, 1], data=["in Paris"]), **more}]}
    ).encode()

# A body that its JSON parser does not take is a 500 in Triton, before any model sees it (tritonserver 2.51, its HTTP
# front end): nothing of ours decides it. What the parser takes and the model does not is a 400.
BODIES = [
    (b"{}", 500, "Unable to parse 'inputs'"),
    (b"{", 500, "failed to parse the request JSON buffer"),
    (b"\xff" * 100, 500, "failed to parse the request JSON buffer"),
    (b"null", 500, "Unable to parse 'inputs'"),
    (b"[" * 100_000, 500, "failed to parse the request JSON buffer"),
    (b'{"inputs": 3}', 500, "Unable to parse 'inputs'"),
    (as_json(data=None), 500, "Unable to parse 'data'"),
    (as_json(data=[1]), 500, "Unable to parse JSON bytes array"),
    (as_json(shape=[-1, 1]), 500, "Unable to parse 'shape'"),
    (as_json(data=["\ud83d"]), 500, "failed to parse the request JSON buffer"),
    (b'{"inputs": []}', 400, "expected 1 inputs but got 0"),
    (as_json(shape=[2, 1]), 400, "expected 2 string elements"),
    (as_json(data=["a", "b"]), 400, "unexpected number of string elements 2"),
    (as_json(datatype="BLOB"), 400, "invalid datatype for input TEXT"),
    (as_json(name="TXT"), 400, "TXT"),
    (as_json().replace(b"Paris", b"caf\xe9"), 400, "TEXT[0] is not UTF-8: byte 0xe9 at 6"),
]

@pytest.mark.parametrize("body,status,said", BODIES, ids=range(len(BODIES)))
def test_bad_json(server, body, status, said):
    answer = raw(server, body)
    assert answer[0] == status and said in json.loads(answer[1])["error"], answer
    assert raw(server, as_json())[0] == 200


def test_plain_json_is_enough(server):
    host, port = server.urls["http"].split(":")
    link = plain.HTTPConnection(host, int(port), timeout=20)
    link.request(
        "POST",
        "/v2/models/bert_ner/infer",
        json.dumps({"inputs": [{"name": "TEXT", "datatype": "BYTES", "shape": [1, 1], "data": ["in Paris"]}]}),
    )
    answer = json.load(link.getresponse())
    link.close()
    assert json.loads(answer["outputs"][0]["data"][0])[0]["text"] == "Paris"


def test_a_text_alone_is_a_request_too(server, mini_tagger_folder):
    "Triton's raw binary request: the body is the text, nothing else."
    for text in ("in Paris", "", "Mr. Bush, 東京\n"):
        link = plain.HTTPConnection(*server.urls["http"].split(":"), timeout=20)
        link.request("POST", "/v2/models/bert_ner/infer", text.encode(), {"Inference-Header-Content-Length": "0"})
        answer = link.getresponse().read(); link.close()
        assert json.loads(answer[answer.index(b"}]}") + 7 :]) == [
            e.to_dict() for e in Tagger.from_pretrained(mini_tagger_folder).tag(text)
        ]


# the client, when the server is not there

@pytest.mark.parametrize("protocol", APIS)
def test_nobody_answers(protocol):
    with TritonTagger(f"127.0.0.1:{find_free_ports([0])[0]}", protocol, timeout=5) as client:
        start = time.monotonic()
        with pytest.raises(BertNerError, match="no Triton server responds at 127.0.0.1:.*bert-ner serve"):
            client.tag("Paris")
        assert time.monotonic() - start < 8


@pytest.mark.parametrize("protocol", APIS)
def test_a_server_that_comes_up_late_is_waited_for(repository, tmp_path, protocol):
    ports = find_free_ports([0, 0, 0])
    late = []
    starter = threading.Timer(
        0.5, lambda: late.append(TritonServer(repository, tuple(ports), log=tmp_path / "log", timeout=120))
    )
    starter.start()
    with TritonTagger(f"127.0.0.1:{ports[protocol == 'grpc']}", protocol, retries=7) as client:
        assert client.tag("in Paris")[0].text == "Paris"
    starter.join(); late[0].stop()


def test_async_clients(server, mini_tagger_folder):
    tagger, texts = Tagger.from_pretrained(mini_tagger_folder), [f"{i} in Paris" for i in range(300)] + TEXTS
    async def crowd():
        async with AsyncTritonTagger(server.urls["grpc"], concurrency=16) as client:
            alone = await asyncio.gather(*(client.tag(t) for t in texts))
            return alone, await client.tag_batch(texts)
    alone, together = asyncio.run(crowd())
    assert alone == together == tagger.tag_batch(texts)
    async def nobody():
        async with AsyncTritonTagger(f"127.0.0.1:{find_free_ports([0])[0]}", retries=0) as client:
            await client.tag("Paris")
    with pytest.raises(BertNerError, match="no Triton server responds"): asyncio.run(nobody())


def test_an_async_client_in_one_event_loop_after_another(server):
    client = AsyncTritonTagger(server.urls["grpc"])
    for _ in range(3): assert asyncio.run(client.tag("in Paris"))[0].text == "Paris"


@pytest.mark.parametrize("options,said", [(dict(nonsense=1), "unexpected keyword argument 'nonsense'"), (dict(ssl=True, root_certificates="/no/such.pem"), "root_certificates is ./no/such.pem.: there is no such file")])
def test_options_that_tritonclient_does_not_take(options, said):
    with pytest.raises(BertNerError, match=said), TritonTagger(**options) as client: client.tag("Paris")
    async def ask():
        async with AsyncTritonTagger(**options) as client: await client.tag("Paris")
    with pytest.raises(BertNerError, match=said): asyncio.run(ask())


def test_parameters_of_a_client(server):
    for protocol in APIS:
        with TritonTagger(server.urls[protocol], protocol, labels=["per"], threshold=.1) as client:
            assert [e.label for e in client.tag("Mr. Bush in Paris")] == ["per"]
    text = "Mr. Bush in Paris on Monday"
    for labels, want in (
        ("per", ["per"]),
        ("per, tim", ["per", "tim"]),
        (iter(["geo"]), ["geo"]),
        ({"tim"}, ["tim"]),
        ("", ["per", "geo", "tim"]),
        (None, ["per", "geo", "tim"]),
    ):
        with TritonTagger(server.urls["grpc"], labels=labels) as client:
            assert [e.label for _ in range(2) for e in client.tag(text)] == want * 2
    with TritonTagger(server.urls["grpc"], labels="per,dog") as client:
        with pytest.raises(BertNerError, match="rejected the request: .*labels names 'dog': there are art, eve"):
            client.tag("Paris")
    async def ask(**kw):
        async with AsyncTritonTagger(server.urls["grpc"], **kw) as client:
            return [e.label for e in await client.tag(text)]
    assert asyncio.run(ask(labels="per")) == ["per"] and asyncio.run(ask(threshold=1)) == []
    for kind in (TritonTagger, AsyncTritonTagger):
        for wrong in (3, -1, float("nan"), "much", None):
            with pytest.raises(BertNerError, match="give a number from 0 to 1"):
                kind(server.urls["grpc"], threshold=wrong)
        for wrong in (7, [7], [""], "per,", b"per"):
            with pytest.raises(BertNerError, match="give a list of labels"): kind(server.urls["grpc"], labels=wrong)


@pytest.mark.parametrize("protocol", APIS)
def test_deadline(protocol):
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0)); silent.listen()
        with TritonTagger(f"127.0.0.1:{silent.getsockname()[1]}", protocol, timeout=1) as client:
            start = time.monotonic()
            with pytest.raises(BertNerError, match="did not respond within 1 s"): client.tag("Paris")
            assert time.monotonic() - start < 8


@pytest.mark.parametrize("protocol,other", [("http", "grpc"), ("grpc", "http")])
def test_wrong_port(server, protocol, other):
    with TritonTagger(server.urls[other], protocol, timeout=3) as client:
        with pytest.raises(BertNerError, match=server.urls[other]): client.tag("Paris")
    assert server_ready(server.urls["http"])


# servers that cannot start

def test_port_in_use(server, repository):
    port = int(server.urls["http"].split(":")[1])
    with pytest.raises(BertNerError, match=f"port {port} cannot be used"): TritonServer(repository, (port, 0, 0))
    assert server_ready(server.urls["http"])


def test_port_taken_while_it_starts(server, repository, tmp_path, monkeypatch):
    port = int(server.urls["grpc"].split(":")[1])
    ours = find_free_ports([0, 0])
    monkeypatch.setattr("bert_ner.triton.server.find_free_ports", lambda wanted: [ours[0], port, ours[1]])
    with pytest.raises(BertNerError, match="did not start: .*(in use|bind|start)"):
        TritonServer(repository, log=tmp_path/"log", timeout=120)
    assert not named(f"--http-port={ours[0]}") and server.is_alive()


@pytest.mark.parametrize("backend,file,said", [("embedded", "bert_ner/1/model.onnx", "bert_ner: .*model.onnx has changed since it was prepared"),
    ("embedded", "bert_ner/1/bert_ner/spans.py", "bert_ner: .*spans.py has changed since it was prepared"),
    ("python", "bert_ner_encoder/1/model.onnx", "bert_ner(_encoder)?: .*bert_ner_encoder/1/model.onnx (is not|has changed) ")])
def test_broken_file(mini_tagger_folder, tmp_path, backend, file, said):
    broken = build_repository(tmp_path/"models", backend, model=mini_tagger_folder)
    with open(broken/file, "ab" if file.endswith(".py") else "wb") as f: f.write(b"# not a model")
    with pytest.raises(BertNerError, match=f"did not start: {said}") as e:
        TritonServer(broken, log=tmp_path/"log", timeout=120)
    assert "\n" not in str(e.value)
    assert not named(str(broken))


@pytest.mark.parametrize("fails,starts", [(1, 2), (3, 3)])
def test_a_start_that_races_is_tried_again(repository, fails, starts):
    class Shaky(TritonServer):
        tried = 0
        def _start(self): Shaky.tried += 1
        def _wait(self):
            if Shaky.tried <= fails: raise BertNerError(f"Triton did not start: {STARTUP_LOCK_ERROR}")
    if fails < 3: Shaky(repository)
    else:
        with pytest.raises(BertNerError, match="lock_exception"): Shaky(repository)
    assert Shaky.tried == starts


def test_no_repository(tmp_path):
    with pytest.raises(BertNerError, match="bert-ner prepare-triton"): TritonServer(tmp_path)


@pytest.mark.parametrize("ports,said", [((70_000, 0, 0), "70000 is not a port"), ((0, -1, 0), "-1 is not a port"), (("8000", 0, 0), "'8000' is not a port"), ((0, 0), "ports must be three"),
                                        ((40_123, 40_123, 0), "port 40123 is given twice")])
def test_serve_refuses_ports_at_once(repository, ports, said):
    with pytest.raises(BertNerError, match=said) as e: serve(repository, ports)
    assert "\n" not in str(e.value)


def test_a_version_that_is_broken(repository, tmp_path):
    broken = shutil.copytree(repository, tmp_path/"models")
    for text in ("{", "[]", "{}"):
        (broken/"bert_ner"/"1"/"prepared.json").write_text(text)
        for attempt in (
            lambda: TritonServer(broken, log=tmp_path / "log"),
            lambda: build_repository(broken, model=repository / "bert_ner" / "1"),
        ):
            with pytest.raises(
                BertNerError,
                match="bert_ner/1 was not written by `bert-ner prepare-triton`, or is broken: move it away",
            ):
                attempt()


@pytest.mark.parametrize("log", ["folder", "file/log"])
def test_a_log_that_cannot_be_written(repository, tmp_path, log):
    (tmp_path/"folder").mkdir(); (tmp_path/"file").touch()
    with pytest.raises(BertNerError, match=f"{log} cannot be written"): TritonServer(repository, log=tmp_path/log)


# what somebody else put there stays

def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


FOREIGN = [
    "bert_ner/7/model.py",
    "bert_ner/12/1/x",
    "bert_ner/config.pbtxt",
    "bert_ner/notes.txt",
    "bert_ner/bad-3/x",
    "bert_ner_encoder/1/model.onnx",
    "bert_ner_encoder/config.pbtxt",
    "bert_ner",
]

@pytest.mark.parametrize("name", FOREIGN)
def test_a_model_of_somebody_else_is_not_replaced(mini_tagger_folder, tmp_path, name):
    (tmp_path/"models"/name).parent.mkdir(parents=True); (tmp_path/"models"/name).write_text("mine")
    before = tree(tmp_path)
    for fresh in (False, True):
        with pytest.raises(BertNerError, match=r"models/bert_ner\S* was not written by `bert-ner prepare-triton`"):
            build_repository(tmp_path/"models", "python", model=mini_tagger_folder, reset=fresh)
        assert tree(tmp_path) == before


@pytest.mark.parametrize("name", ["bert_ner/1/notes.txt", "bert_ner/3/model.py", "bert_ner_encoder/3/model.onnx", "bert_ner_encoder/1/data/x"])
def test_a_file_beside_ours_is_not_lost(mini_tagger_folder, tmp_path, name):
    "Version 3 would remove version 1, and replace an unknown 3."
    folder = tmp_path/"models"
    for _ in range(2): build_repository(folder, "python", model=mini_tagger_folder)
    (folder/name).parent.mkdir(parents=True, exist_ok=True); (folder/name).write_text("mine")
    before = tree(tmp_path)
    for fresh in (False, True):
        with pytest.raises(BertNerError, match="was not written by"):
            build_repository(folder, "python", model=mini_tagger_folder, reset=fresh)
        assert tree(tmp_path) == before


def test_other_models_and_edited_configurations_stay(mini_tagger_folder, tmp_path):
    folder = tmp_path/"models"
    build_repository(folder, "python", model=mini_tagger_folder)
    config = folder/"bert_ner_encoder"/"config.pbtxt"
    config.write_text(config.read_text().replace("count: 1", "count: 2"))
    mine = ["other/1/model.onnx", "bert_ner_mine/2/x", "bert_ner/bad-2/x", "readme.txt"]
    for name in mine: (folder/name).parent.mkdir(parents=True, exist_ok=True); (folder/name).write_text("mine")
    build_repository(folder, "python", model=mini_tagger_folder)
    assert rollback(folder) == 1 and {p.name for p in (folder / "bert_ner").iterdir()} == {
        "config.pbtxt",
        "1",
        "bad-2",
        "bad-2-2",
    }
    build_repository(folder, "python", model=mini_tagger_folder); assert rollback(folder) == 1
    # what was set aside before is ours
    assert {p.name for p in (folder/"bert_ner").iterdir()} == {"config.pbtxt", "1", "bad-2", "bad-2-2"}
    # another backend: all of bert_ner would go
    with pytest.raises(BertNerError, match="was not written by"): build_repository(folder, model=mini_tagger_folder)
    shutil.rmtree(folder/"bert_ner"/"bad-2")
    build_repository(folder, model=mini_tagger_folder)
    assert (
        list_versions(folder) == [1]
        and "count: 2" in config.read_text()
        and all((folder / name).read_text() == "mine" for name in mine if "bad" not in name)
    )


def test_an_empty_name_is_no_repository(mini_tagger_folder, tmp_path):
    (tmp_path/"file").touch()
    for attempt in (lambda f: build_repository(f, model=mini_tagger_folder), rollback, TritonServer):
        with pytest.raises(BertNerError, match="is empty"): attempt("")
        with pytest.raises(BertNerError, match="is a file"): attempt(tmp_path/"file")


def test_git_sees_nothing_of_what_is_prepared_served_and_withdrawn(mini_tagger_folder, tmp_path):
    shutil.copy(ROOT/".gitignore", tmp_path); folder = tmp_path/"model_repository"
    build_repository(folder, model=mini_tagger_folder)
    def git(*args):
        return subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *args],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    git("init"); git("add", "."); git("commit", "-m", "all")
    assert git("ls-files").split() == [".gitignore", "model_repository/bert_ner/config.pbtxt"]
    build_repository(folder, model=mini_tagger_folder)
    assert git("status", "--short") == ""
    with TritonServer(folder, log=tmp_path/"reports"/"triton.log", timeout=120): assert git("status", "--short") == ""
    rollback(folder)
    # of one that was killed
    (tmp_path/".model_repository.x1y2"/"bert_ner").mkdir(parents=True)
    (tmp_path/".model_repository.x1y2"/"bert_ner"/"config.pbtxt").touch()
    assert git("status", "--short") == "" and (folder/"bert_ner"/"bad-2").is_dir()


def test_a_log_is_continued(repository, tmp_path):
    (tmp_path/"log").write_text('E1122 "an older fault"\n')
    with TritonServer(repository, log=tmp_path/"log", timeout=120) as server:
        assert server.said() and "older fault" not in server.said()
    assert (tmp_path/"log").read_text().startswith('E1122 "an older fault"\n')


# nothing left behind

def test_clean_stop(repository, tmp_path):
    server = TritonServer(repository, log=tmp_path/"log", timeout=120)
    leader = server.process.pid
    assert len(group(leader)) >= 3    # the watcher, tritonserver, the Python model
    server.stop(); server.stop()
    assert not group(leader) and not server_ready(server.urls["http"]) and not server.is_alive()
    assert not list(Path("/dev/shm").glob(f"{server.memory}*"))


SERVE = (
    "import sys; from bert_ner.triton.server import serve; serve(sys.argv[1], (0, 0, 0), log=sys.argv[2], timeout=120)"
)

@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_parent_ends(repository, tmp_path, how):
    parent = subprocess.Popen(
        [sys.executable, "-c", SERVE, repository, tmp_path / "log"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert "Triton serves bert_ner" in parent.stdout.readline()
        leader, = (p for p, mother, _, _ in processes() if mother == parent.pid)
        assert len(group(leader)) >= 3
        parent.send_signal(how)
        rest = parent.communicate(timeout=60)[0]
        assert (parent.returncode, rest) == ((-9, "") if how == signal.SIGKILL else (0, "stopped\n"))
        assert gone(leader)
    finally: parent.kill(); parent.wait()


# words instead of texts

WORDS = [["Mr.", "Bush", "met", "in", "Paris"], [], ["on", "Monday"], ["a b", "Paris\t", "\u00e9", ""], ["Paris"]]


def test_words_get_their_tags(client, mini_tagger_folder):
    "As by the tagger, whatever the words are, in any number and from any iterable."
    local = Tagger.from_pretrained(mini_tagger_folder)
    for given in (WORDS, [], [iter(s) for s in WORDS], WORDS * 50):
        given = [list(s) for s in given]
        found, want = client.tag_tokenized(tuple(s) for s in given), local.tag_tokenized(given)
        assert [t.tags for t in found] == [t.tags for t in want] and len(found) == len(given)
        for a, b in zip(found, want): np.testing.assert_allclose(a.probs, b.probs, atol=1e-5)


def test_words_and_texts_at_once_over_asyncio(server, mini_tagger_folder):
    local = Tagger.from_pretrained(mini_tagger_folder)
    async def ask():
        async with AsyncTritonTagger(server.urls["grpc"]) as client:
            return await asyncio.gather(*(
                client.tag_tokenized(WORDS) if i % 2 else client.tag_batch(TEXTS) for i in range(40)
            ))
    for i, found in enumerate(asyncio.run(ask())):
        if i % 2: assert [t.tags for t in found] == [t.tags for t in local.tag_tokenized(WORDS)]
        else: assert found == local.tag_batch(TEXTS)


def test_words_that_are_none(client, server):
    for wrong, said in (("Paris", "one string was given"), ([["Paris", 2]], "word 1 of sentence 0"), ([5], "sentence 0 is int")):
        with pytest.raises(BertNerError, match=said): client.tag_tokenized(wrong)
    for text in (b"in Paris", b'["in", 2]', b'{"a": 1}'):
        with pytest.raises(Exception, match=r"TEXT\[0\] is not a JSON list of words"):
            send(server, "grpc", np.array([[text]], dtype=object), parameters=dict(words=True))
    with pytest.raises(Exception, match="labels is for texts, not for words"):
        send(server, "grpc", np.array([[b"[]"]], dtype=object), parameters=dict(words=True, labels="geo"))


# several models

@pytest.mark.parametrize("backend", ["embedded", "python"])
def test_models_side_by_side(mini_tagger_folder, tmp_path, backend):
    "Each has its own name, labels, versions; one that comes later is served, and one that is broken harms no other."
    folder, text = tmp_path/"models", "Mr. Bush in Paris"
    build_repository(folder, backend, model=mini_tagger_folder)
    build_repository(folder, backend, model=mini_tagger_folder, name="places-2.0", labels=dict(geo="LOC", per="O"))
    def found(name):
        with TritonTagger(server.urls["grpc"], model_name=name, retries=0) as client: return [e.label for e in client.tag(text)]
    with TritonServer(folder, log=tmp_path/"log", timeout=120) as server:
        assert server.versions == {"bert_ner": 1, "places-2.0": 1} and server.reconcile() == ""
        assert (found("bert_ner"), found("places-2.0")) == (["per", "geo"], ["LOC"])
        link = grpc.InferenceServerClient(server.urls["grpc"])
        told = {n: link.get_model_config(n, as_json=True)["config"]["parameters"] for n in server.versions}
        link.close()
        assert "LOC" in told["places-2.0"]["labels"]["string_value"] and "per" not in told["places-2.0"]["labels"]["string_value"]
        assert told["bert_ner"]["labels"]["string_value"] == "art,eve,geo,gpe,nat,org,per,tim"
        assert told["bert_ner"]["max_chars"]["string_value"] == str(MAX_CHARS)
        # a new version of one, a new model, a new model that is broken
        build_repository(folder, backend, model=mini_tagger_folder, name="places-2.0", labels=dict(geo="LOC", per="O"))
        assert server.reconcile() == "version 2 of places-2.0 is served" and server.versions["bert_ner"] == 1
        build_repository(folder, backend, model=mini_tagger_folder, name="third")
        assert server.reconcile() == "version 1 of third is served" and found("third") == ["per", "geo"]
        build_repository(folder, backend, model=mini_tagger_folder, name="broken")
        (folder/"broken"/"1"/"tagger.json").write_text("{}")
        assert server.reconcile().startswith("version 1 of broken is not served: broken was not loaded: ")
        assert server.reconcile() == "" and found("bert_ner") == found("third") == ["per", "geo"]
        assert rollback(folder, "places-2.0") == 1 and list_versions(folder) == [1]
        assert server.reconcile() == "version 1 of places-2.0 is served" and found("places-2.0") == ["LOC"]
        with pytest.raises(BertNerError, match="rejected the request: .*nobody"): found("nobody")
    assert list_models(folder) == ["bert_ner", "broken", "places-2.0", "third"]


@pytest.mark.parametrize("name", ["", "a/b", "../x", "x_encoder", "a b", ".hidden"])
def test_names_that_a_model_cannot_have(mini_tagger_folder, tmp_path, name):
    for attempt in (lambda: build_repository(tmp_path/"m", model=mini_tagger_folder, name=name), lambda: rollback(tmp_path, name)):
        with pytest.raises(BertNerError, match="is not a valid name of a model"): attempt()
    assert not [*tmp_path.iterdir()]


# what is in git

def test_committed_configuration():
    file = ROOT/"model_repository"/"bert_ner"/"config.pbtxt"
    text = file.read_text(encoding="utf-8")
    assert text == ner_config() and is_signed(file) and text_format.Parse(text, ModelConfig()).name == "bert_ner"


def test_the_shell_serves_the_model_that_it_tags_with(tmp_path):
    "In a project that has trained nothing it is the one that ships with the library, int8 alone."
    for name in ("params.yaml", "settings.ini", "dvc.yaml"): shutil.copy(ROOT/name, tmp_path)
    env = {k: v for k, v in os.environ.items() if k != "BERT_NER_MODEL"} | {"BERT_NER_ROOT": str(tmp_path)}
    program = Path(sys.executable).parent/"bert-ner"
    done = subprocess.run([program, "prepare-triton"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("wrote version 1 of bert_ner in ")
    assert [e.text for e in Tagger.from_pretrained(tmp_path/"model_repository"/"bert_ner"/"1").tag("He is in Paris.")] == ["Paris"]
