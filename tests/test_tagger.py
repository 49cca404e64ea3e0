"""A tagger as programs use it: from any collection of texts, any thread, any event loop, any process, on a device;
and which model answers."""
import asyncio
import copy
import itertools
import json
import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from bert_ner import engines
from bert_ner.core import ROOT, BertNerError
from bert_ner.checkpoint import pretrained_dir
from bert_ner.engines import ENGINES, select_engine, load_engine, runnable_engines
from bert_ner.tagger import AsyncTagger, Tagger
from bert_ner.windows import load_tokenizer_config, model_info, save_tokenizer_config

TEXTS = ["Mr. Bush met Paris in New York on Monday.", "", "Monday", "nothing here", "in Paris"]


@pytest.fixture(scope="module")
def tagger(mini_tagger_folder): return Tagger.from_pretrained(mini_tagger_folder, "onnx", threads=1)


def as_file(texts, tmp_path):
    path = tmp_path/"texts.txt"
    path.write_text("".join(t + "\n" for t in texts))
    return path.open()


COLLECTIONS = dict(
    list=list,
    tuple=tuple,
    generator=lambda t: (x for x in t),
    map=lambda t: map(str, t),
    chain=lambda t: itertools.chain(t[:2], t[2:]),
    keys=lambda t: dict.fromkeys(t),
    filter=lambda t: filter(lambda x: True, t),
    series=lambda t: pd.Series(t, index=range(len(t))[::-1]),
    named=lambda t: pd.Series(t, index=list("vwxyz")),
    double=lambda t: pd.Series(t, index=[0] * len(t)),
    index=pd.Index,
    numpy=np.array,
    objects=lambda t: np.array(t, dtype=object),
)


@pytest.mark.parametrize("make", COLLECTIONS.values(), ids=COLLECTIONS)
def test_any_collection_of_texts_in_its_order(tagger, make):
    want = [tagger.tag(t) for t in TEXTS]
    assert tagger.tag_batch(make(TEXTS)) == want == [*tagger.pipe(make(TEXTS), chunk_chars=20)]
    assert [t.tags for t in tagger.tag_tokenized(make(TEXTS) for _ in range(2))] == [
        t.tags for t in tagger.tag_tokenized([TEXTS, TEXTS])
    ]


def test_an_open_file_is_its_lines(tagger, tmp_path):
    want = tagger.tag_batch([t + "\n" for t in TEXTS])
    with as_file(TEXTS, tmp_path) as f: assert tagger.tag_batch(f) == want
    with as_file(TEXTS, tmp_path) as f: assert [*tagger.pipe(f)] == want


@pytest.mark.parametrize("given, message", [
    ("Paris", "one string was given"), (b"Paris", "one string was given"), (np.str_("Paris"), "one string was given"), (5, "int is not a collection"), (None, "NoneType is not a collection"), (["Paris", None], "text 1 is NoneType"),
    (["Paris", 5], "text 1 is int"), ([b"Paris"], "text 0 is bytes, not a string: decode it first"), ([["Paris"]], "text 0 is list"), (["in", "\ud83d Paris"], "text 1 has half a character .* at 0"), (pd.Series(["a", np.nan]), "text 1 is float"),
    (["x" * 999 + "\udfff"], "at 999"), (pd.DataFrame(dict(text=["Paris"])), "DataFrame has 2 dimensions, .*: pass a single column"), (np.array([["in", "Paris"]]), "ndarray has 2 dimensions"), (np.array("Paris"), "ndarray has 0 dimensions")])
def test_what_is_no_collection_of_texts_is_one_sentence(tagger, given, message):
    with pytest.raises(BertNerError, match=message) as e: tagger.tag_batch(given)
    assert "\n" not in str(e.value)
    with pytest.raises(BertNerError, match=message): [*tagger.pipe(given, chunk_chars=1)]


def test_a_string_alone_is_refused_before_the_first_answer_is_asked_for(tagger):
    with pytest.raises(BertNerError, match="one string was given"): tagger.pipe("Paris")


def test_a_stream_counts_its_texts_from_the_start(tagger):
    found, got = tagger.pipe((t for t in ["Paris", "Monday", None]), chunk_chars=1), []
    with pytest.raises(BertNerError, match="text 2 is NoneType"): got += [e for entities in found for e in [entities]]
    found = tagger.pipe(["Paris", "Monday", "\udc00"], chunk_chars=1)
    assert [len(next(found)), len(next(found))] == [1, 1]


@pytest.mark.parametrize("given, message", [
    ("in Paris", "one string was given in place of sentences"), (["in", "Paris"], "sentence 0 is a string, not a list of words"), ([["in"], "Paris"], "sentence 1 is a string"), ([["in", None]], "word 1 of sentence 0 is NoneType"),
    ([["in"], None], "sentence 1 is NoneType"), (None, "NoneType is not a collection of sentences"), ([["Pa\ud83dris"]], "word 0 of sentence 0 has half a character"), ([[b"Paris"]], "word 0 of sentence 0 is bytes"), (pd.Series(["in Paris"]), "sentence 0 is a string")])
def test_what_is_no_sentences_is_one_sentence(tagger, given, message):
    with pytest.raises(BertNerError, match=message): tagger.tag_tokenized(given)


@pytest.mark.parametrize("text, message", [("\ud83d Paris", "half a character"), (None, "is NoneType"), (["Paris"], "is list"), (b"Paris", "bytes, not a string: decode it")])
def test_what_is_no_text_is_one_sentence(tagger, text, message):
    with pytest.raises(BertNerError, match=message): tagger.tag(text)
    with pytest.raises(BertNerError, match=message): asyncio.run(AsyncTagger(tagger).tag(text))


# threads

def test_eight_threads_share_one_tagger_whose_cache_overflows(mini_tagger_folder):
    tagger = Tagger.from_pretrained(mini_tagger_folder, "onnx", threads=1)
    known = tagger.window_tokenizer.word_encoder.cache
    # 5,000 new words for each of 24
    def texts(k): return [" ".join(f"w{k}x{i}x{j} Paris" for j in range(250)) for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        counts = [*pool.map(lambda k: [len(e) for e in tagger.tag_batch(texts(k))], range(24))]
    # it did overflow
    assert counts == [[250] * 20] * 24 and tagger.window_tokenizer.word_encoder.cache is not known


def test_pieces_are_right_while_another_thread_empties_the_cache(mini_tagger_folder):
    "The other thread is made to come in at the worst moment: while this one waits for the tokenizer."
    window_tokenizer = load_tokenizer_config(mini_tagger_folder)[0]
    encoder = window_tokenizer.word_encoder
    want, inner = window_tokenizer.encode_words(["paris", "monday", "in"]), encoder.tokenizer
    encoder.cache = {}
    window_tokenizer.encode_words(["paris", "monday"])
    class Interrupted:
        def encode_batch(self, words, **kw): encoder.cache = {}; return inner.encode_batch(words, **kw)
    encoder.tokenizer = Interrupted()
    assert window_tokenizer.encode_words(["paris", "monday", "in"]) == want


def test_eight_threads_open_the_same_model(mini_tagger_folder):
    for name in ("onnx", "openvino"):
        if name in runnable_engines(mini_tagger_folder):
            with ThreadPoolExecutor(8) as pool:
                found = [
                    *pool.map(lambda _: Tagger.from_pretrained(mini_tagger_folder, name).tag("in Paris"), range(8))
                ]
            assert found == [found[0]] * 8 and len(found[0]) == 1


# event loops

class Slow(Tagger):
    "Waits in its batches until it is let go."
    def __init__(self, *a): super().__init__(*a); self.entered, self.go = threading.Event(), threading.Event()
    def tag_batch(self, texts, progress=None):
        self.entered.set(); assert self.go.wait(60); return super().tag_batch(texts, progress)


@pytest.fixture
def slow(tagger): return Slow(tagger.engine, tagger.window_tokenizer, tagger.tags)


def within(seconds, what): return asyncio.run(asyncio.wait_for(what, seconds))


def test_the_next_event_loop_is_served_after_one_that_ended_in_a_batch(slow):
    served = AsyncTagger(slow)
    async def left():
        task = asyncio.create_task(served.tag("in Paris"))  # noqa: F841  (without a reference it may be collected)
        await asyncio.to_thread(slow.entered.wait, 60)
        raise KeyError("an error elsewhere")
    with pytest.raises(KeyError): asyncio.run(left())
    threading.Timer(.2, slow.go.set).start()
    assert within(60, served.tag("in Paris")) == slow.tag("in Paris")


def test_the_next_event_loop_is_served_after_a_timeout(slow):
    served = AsyncTagger(slow, max_batch_size=2)
    async def impatient():
        await asyncio.wait_for(asyncio.gather(*(served.tag(f"{i} in Paris") for i in range(9))), .05)
    for _ in range(3):
        with pytest.raises(TimeoutError): asyncio.run(impatient())
    slow.go.set()
    assert [within(60, served.tag("in Paris")) for _ in range(3)] == [slow.tag("in Paris")] * 3


def test_a_loop_that_is_closed_with_all_its_tasks_pending(slow):
    "As a program does that manages its loop by hand; nothing is printed by the thread that brings the answers."
    served, loop = AsyncTagger(slow, max_batch_size=1), asyncio.new_event_loop()
    async def ask(): return [served.tag(f"{i} in Paris") for i in range(3)]
    tasks = [loop.create_task(c) for c in loop.run_until_complete(ask())]
    async def wait(): await asyncio.to_thread(slow.entered.wait, 60)
    loop.run_until_complete(wait())
    # asyncio's own complaint is not the matter here
    for t in tasks: t._log_destroy_pending = False
    loop.run_until_complete(loop.shutdown_default_executor()); loop.close()
    failed = []
    hook, threading.excepthook = threading.excepthook, failed.append
    try:
        slow.go.set()
        assert within(60, served.tag("in Paris")) == slow.tag("in Paris")
    finally: threading.excepthook = hook
    assert not failed


def test_a_loop_that_stops_and_goes_on_gets_its_answers(tagger):
    served, loop = AsyncTagger(tagger), asyncio.new_event_loop()
    task = loop.create_task(served.tag("in Paris"))
    async def once(): await asyncio.sleep(0)
    loop.run_until_complete(once())
    assert within(60, served.tag("Monday")) == tagger.tag("Monday")
    assert loop.run_until_complete(asyncio.wait_for(task, 60)) == tagger.tag("in Paris")
    loop.close()


def test_many_loops_in_many_threads_share_one(tagger):
    served = AsyncTagger(tagger, max_batch_size=7)
    def run(k):
        async def ask(): return await asyncio.gather(*(served.tag(f"{k} {i} in Paris") for i in range(50)))
        return asyncio.run(asyncio.wait_for(ask(), 120))
    with ThreadPoolExecutor(8) as pool: found = [*pool.map(run, range(8))]
    assert found == [tagger.tag_batch([f"{k} {i} in Paris" for i in range(50)]) for k in range(8)]


def test_batches_are_full_and_start_at_once(tagger):
    sizes = []
    class Counted(Tagger):
        def tag_batch(self, texts, progress=None): sizes.append(len(texts)); return super().tag_batch(texts, progress)
    served = AsyncTagger(Counted(tagger.engine, tagger.window_tokenizer, tagger.tags), max_batch_size=50)
    async def ask(): return await asyncio.gather(*(served.tag(f"{i} in Paris") for i in range(300)))
    assert len(within(60, ask())) == 300 and sizes == [50] * 6
    with pytest.raises(BertNerError, match="max_batch_size is 0"): AsyncTagger(tagger, max_batch_size=0)


def test_one_bad_text_fails_alone(tagger):
    served = AsyncTagger(tagger)
    texts = [f"{i} in Paris" for i in range(64)]
    texts[17], texts[40] = "\ud83d Paris", None
    async def ask(): return await asyncio.gather(*(served.tag(t) for t in texts), return_exceptions=True)
    found = within(60, ask())
    assert [i for i, f in enumerate(found) if isinstance(f, BertNerError)] == [17, 40] and not isinstance(
        found[17], asyncio.CancelledError
    )
    assert all([e.text for e in f] == ["Paris"] for i, f in enumerate(found) if i not in (17, 40))


@pytest.mark.parametrize("error", [RuntimeError("broken"), MemoryError(), StopIteration(), OverflowError("too long")], ids=repr)
def test_a_text_that_the_tagger_fails_on_fails_alone(tagger, error):
    class Fails(Tagger):
        def tag_batch(self, texts, progress=None):
            if any("bad" in t for t in texts): raise error
            return super().tag_batch(texts, progress)
    served = AsyncTagger(Fails(tagger.engine, tagger.window_tokenizer, tagger.tags), max_batch_size=20)
    async def ask():
        return await asyncio.gather(
            *(served.tag("bad" if i in (3, 25) else f"{i} in Paris") for i in range(64)), return_exceptions=True
        )
    found = within(60, ask())
    assert [i for i, f in enumerate(found) if isinstance(f, Exception)] == [3, 25]
    assert type(found[3]) is (RuntimeError if isinstance(error, StopIteration) else type(error))
    assert within(60, served.tag("in Paris")) == tagger.tag("in Paris")


def test_a_tagger_that_loses_answers_hangs_nobody(tagger):
    class Loses(Tagger):
        def tag_batch(self, texts, progress=None): return super().tag_batch(texts, progress)[:-1]
    with pytest.raises(RuntimeError, match="0 answers to 1 texts"):
        within(60, AsyncTagger(Loses(tagger.engine, tagger.window_tokenizer, tagger.tags)).tag("in Paris"))


# copies and processes

def test_a_copy_and_a_pickled_one_answer_alike(mini_tagger_folder, tmp_path, monkeypatch):
    tagger = Tagger.from_pretrained(mini_tagger_folder, "onnx", threads=1, num_streams=1)
    tagger.max_batch_tokens = 64
    monkeypatch.chdir(tmp_path)
    for again in (
        copy.copy(tagger),
        copy.deepcopy(tagger),
        pickle.loads(pickle.dumps(tagger)),
        copy.copy(pickle.loads(pickle.dumps(copy.deepcopy(tagger)))),
    ):
        assert again.tag_batch(TEXTS) == tagger.tag_batch(TEXTS) and repr(again) == repr(tagger)
        assert (
            type(again),
            again.max_batch_tokens,
            again.folder,
            again.about,
            again.tags,
            again.engine.num_streams,
        ) == (Tagger, 64, tagger.folder, tagger.about, tagger.tags, 1)
    deep = copy.deepcopy(tagger)
    assert (
        deep.window_tokenizer is not tagger.window_tokenizer
        and deep.tags is not tagger.tags
        and deep.window_tokenizer.word_encoder.cache is not tagger.window_tokenizer.word_encoder.cache
    )
    assert len(pickle.dumps(tagger)) < 1000                                      # the files are not in it


def test_a_relative_folder_is_found_from_anywhere(mini_tagger_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(mini_tagger_folder.parent)
    data = pickle.dumps(Tagger.from_pretrained(mini_tagger_folder.name, "onnx"))
    monkeypatch.chdir(tmp_path)
    assert len(pickle.loads(data).tag("in Paris")) == 1


def test_the_shipped_model_is_found_where_the_library_is_elsewhere():
    assert str(pretrained_dir()).encode() not in pickle.dumps(Tagger.from_pretrained(engine="onnx-int8"))


def tag_there(tagger): return tagger.tag("in Paris")


def test_another_process_gets_one(tagger):
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(tag_there, (tagger,)) == tagger.tag("in Paris")


def test_a_tagger_over_an_engine_object_says_that_it_cannot_be_pickled(tagger):
    made = Tagger(tagger.engine, tagger.window_tokenizer, tagger.tags)
    with pytest.raises(BertNerError, match="pickle one that `Tagger.from_pretrained` opened"): pickle.dumps(made)
    assert copy.deepcopy(made).tag("in Paris") == copy.copy(made).tag("in Paris") == made.tag("in Paris")
    other = copy.copy(tagger)
    other.engine = made.engine
    with pytest.raises(BertNerError, match="cannot be pickled"): pickle.dumps(other)


def test_a_pickled_one_whose_model_is_gone_says_so(mini_tagger_folder, tmp_path):
    shutil.copytree(mini_tagger_folder, tmp_path/"m")
    data = pickle.dumps(Tagger.from_pretrained(tmp_path/"m", "onnx"))
    shutil.rmtree(tmp_path/"m")
    with pytest.raises(BertNerError, match="no trained model in"): pickle.loads(data)


def test_an_async_one_can_be_pickled(tagger):
    again = pickle.loads(pickle.dumps(AsyncTagger(tagger, 9)))
    assert again.max_batch_size == 9 and within(60, again.tag("in Paris")) == tagger.tag("in Paris")


# engines and devices

def no_cuda(monkeypatch): monkeypatch.setattr(engines, "_has_cuda", lambda package: False)


def test_device(mini_tagger_folder, monkeypatch):
    assert (
        Tagger.from_pretrained(mini_tagger_folder, device="cpu").tag("in Paris")
        == Tagger.from_pretrained(mini_tagger_folder, "onnx", device="cpu").tag("in Paris")
        != []
    )
    for name in ("openvino", "onnx-int8"):
        with pytest.raises(BertNerError, match=f"'{name}' does not run on cuda: onnx, torch, tensorrt can"):
            Tagger.from_pretrained(mini_tagger_folder, name, device="cuda")
    with pytest.raises(BertNerError, match="'tensorrt' does not run on cpu"):
        Tagger.from_pretrained(mini_tagger_folder, "tensorrt", device="cpu")
    for bad in ("gpu", "cuda:0", "", 0):
        for name in ("auto", "onnx", "torch"):
            with pytest.raises(BertNerError, match=f"no device '{bad}': there are cpu and cuda"):
                Tagger.from_pretrained(mini_tagger_folder, name, device=bad)
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(BertNerError, match="this ONNX Runtime has no CUDA: .*device=\"cpu\""):
        Tagger.from_pretrained(mini_tagger_folder, "onnx", device="cuda")
    no_cuda(monkeypatch)
    for load in (lambda **kw: Tagger.from_pretrained(mini_tagger_folder, **kw), Tagger.from_pretrained):
        with pytest.raises(BertNerError, match="no CUDA for the model in .*device=\"cpu\""): load(device="cuda")


def test_a_gpu_that_onnx_runtime_cannot_use_is_no_silent_fallback(mini_tagger_folder, monkeypatch):
    "The package has CUDA, the machine has not: ONNX Runtime warns and takes the processor."
    import onnxruntime
    opened = onnxruntime.InferenceSession
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(
        onnxruntime,
        "InferenceSession",
        lambda path, options, providers: opened(path, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(BertNerError, match="cannot use the GPU"):
        Tagger.from_pretrained(mini_tagger_folder, "onnx", device="cuda")
    assert len(Tagger.from_pretrained(mini_tagger_folder, "onnx", device="cpu").tag("in Paris")) == 1
    assert Tagger.from_pretrained(mini_tagger_folder, "onnx").max_batch_tokens == 1024      # the processor's batches


def test_an_engine_for_a_gpu_of_another_machine(mini_tagger_folder, monkeypatch):
    monkeypatch.setattr(engines, "_has_cuda", lambda package: False)
    assert select_engine(mini_tagger_folder, "cuda", here=False) == "onnx"
    with pytest.raises(BertNerError, match="no CUDA for the model"): select_engine(pretrained_dir(), "cuda", here=False)


def test_torch_on_a_device(monkeypatch):
    import torch
    from bert_ner.engines import TorchEngine
    class Model(torch.nn.Module): config = SimpleNamespace()
    assert TorchEngine(Model(), device="cpu").device == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BertNerError, match="PyTorch sees no NVIDIA GPU"): TorchEngine(Model(), device="cuda")


def test_auto_on_cuda_takes_what_can(mini_tagger_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "_has_cuda", lambda package: package == "onnxruntime")
    assert select_engine(mini_tagger_folder, "cuda") == "onnx"
    (tmp_path/"model.safetensors").touch(); (tmp_path/"config.json").write_text('{"model_type": "bert"}')
    monkeypatch.setattr(engines, "_has_cuda", lambda package: package == "torch")
    assert select_engine(tmp_path, "cuda") == select_engine(tmp_path) == "torch"


@pytest.mark.parametrize("load", [lambda **kw: Tagger.from_pretrained(pretrained_dir(), **kw), Tagger.from_pretrained, lambda engine="onnx-int8", **kw: load_engine(engine, pretrained_dir(), **kw)], ids=["load", "pretrained", "load_engine"])
@pytest.mark.parametrize("wrong", ["thread", "stream", "bf16", "model", "path", "provider"])
def test_a_wrong_keyword_names_the_right_ones(load, wrong):
    with pytest.raises(
        BertNerError, match=f"no option '{wrong}' for the engine 'onnx-int8': .* device, threads, num_streams"
    ) as e:
        load(engine="onnx-int8", **{wrong: 1})
    assert "Engine" not in str(e.value) and "__init__" not in str(e.value)


def test_a_tagger_without_an_engine_says_so(mini_tagger_folder):
    with pytest.raises(BertNerError, match="has no engine"):
        Tagger.from_pretrained(mini_tagger_folder, None).tag("in Paris")
    with pytest.raises(BertNerError, match="no engine ''"): Tagger.from_pretrained(mini_tagger_folder, "")


def test_a_folder_without_a_model_is_named():
    with pytest.raises(BertNerError, match="no trained model in .*nowhere"): Tagger.from_pretrained("nowhere")


def test_an_engine_without_its_file_names_it_and_those_that_can(mini_tagger_folder, tmp_path):
    with pytest.raises(
        BertNerError,
        match=r"model\.safetensors is missing, which the engine 'torch' reads: this folder has files for onnx, onnx-int8",
    ):
        Tagger.from_pretrained(mini_tagger_folder, "torch")
    shutil.copy(mini_tagger_folder/"tagger.json", tmp_path); shutil.copy(mini_tagger_folder/"tokenizer.json", tmp_path)
    with pytest.raises(BertNerError, match="model.onnx is missing"): Tagger.from_pretrained(tmp_path, "onnx")
    (tmp_path/"model.safetensors").touch(); (tmp_path/"config.json").write_text("{}")
    with pytest.raises(
        BertNerError,
        match="model.safetensors is not the weights that the engine 'torch' reads: this folder has files for baseline",
    ):
        Tagger.from_pretrained(tmp_path, "torch")


def test_engines_are_the_same_whatever_was_imported():
    "And none is imported before it is asked for."
    code = """import sys
from bert_ner.engines import ENGINES
before = list(ENGINES)
assert not {"torch", "transformers", "openvino", "onnxruntime"} & set(sys.modules)
import bert_ner.bert, bert_ner.baseline, bert_ner.tensorrt
print(before == list(ENGINES) == ["onnx", "onnx-int8", "openvino", "openvino-int8", "torch", "tensorrt", "baseline"])"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"
    assert {n for n, opener in ENGINES.items() if isinstance(opener, str)} == {"torch", "tensorrt", "baseline"}
    with pytest.raises(BertNerError, match=f"no engine 'pytorch': there are {', '.join(ENGINES)}$"):
        load_engine("pytorch", ".")


def test_an_engine_whose_package_is_missing_names_it(tmp_path, monkeypatch):
    (tmp_path/"model.safetensors").touch(); (tmp_path/"config.json").write_text('{"model_type": "bert"}')
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BertNerError, match=r"the engine 'torch' needs the package torch: `pip install 'bert-ner\[train\]'`"):
        load_engine("torch", tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"tags": ["O"]}', "null"])
def test_a_broken_tagger_json_is_one_sentence(mini_tagger_folder, tmp_path, content):
    shutil.copytree(mini_tagger_folder, tmp_path/"m")
    (tmp_path/"m"/"tagger.json").write_text(content)
    with pytest.raises(BertNerError, match="tagger.json is broken"): Tagger.from_pretrained(tmp_path/"m")
    shutil.copy(mini_tagger_folder/"tagger.json", tmp_path/"m"); (tmp_path/"m"/"tokenizer.json").write_text(content)
    with pytest.raises(BertNerError, match="tokenizer.json is broken"): Tagger.from_pretrained(tmp_path/"m")
    (tmp_path/"m"/"tokenizer.json").unlink()
    with pytest.raises(BertNerError, match="tokenizer.json is missing"): Tagger.from_pretrained(tmp_path/"m")


# which model answers

def project(top, params="data: {name: own}\n", corpus="", model=None):
    "A project of ours in `top`, with a model trained on `corpus`."
    for name, text in {
        "settings.ini": "[DEFAULT]\nlib_name = bert-ner\n",
        "dvc.yaml": "",
        "params.yaml": params,
    }.items():
        (top/name).write_text(text)
    if corpus: shutil.copytree(model, top/"models"/corpus/"onnx")
    return top


def answers(top, code="from bert_ner.engines import default_model_dir; print(default_model_dir())", **env):
    "What a program in the folder `top` prints, for a library that lies elsewhere."
    elsewhere = top.parent/"library"
    if not elsewhere.exists():
        elsewhere.mkdir()
        shutil.copytree(ROOT/"bert_ner", elsewhere/"bert_ner", ignore=shutil.ignore_patterns("__pycache__"))
    environment = (
        {k: v for k, v in os.environ.items() if not k.startswith("BERT_NER")}
        | dict(PYTHONPATH=str(elsewhere), PYTHONDONTWRITEBYTECODE="1")
        | env
    )
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            "import sys\nfrom bert_ner import "
            f"BertNerError\ntry:\n    {code}\nexcept BertNerError as e: print('error:', e)",
        ],
        cwd=top,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    return done.stdout.strip()


@pytest.fixture
def top(tmp_path): (tmp_path/"here").mkdir(); return tmp_path/"here"


def test_the_model_of_a_corpus_of_ones_own_answers_in_its_project(top, mini_tagger_folder):
    assert answers(project(top)).endswith("library/bert_ner/pretrained")           # not trained yet
    assert answers(project(top, corpus="own", model=mini_tagger_folder)) == str(top/"models"/"own"/"onnx")


def test_the_made_up_sample_does_not_replace_the_shipped_model(top, mini_tagger_folder):
    assert answers(project(top, "data: {name: sample}\n", "sample", mini_tagger_folder)).endswith(
        "bert_ner/pretrained"
    )
    assert answers(top, BERT_NER_MODEL="models/sample/onnx") == str(top/"models"/"sample"/"onnx")
    assert answers(top, BERT_NER_MODEL=str(mini_tagger_folder)) == str(mini_tagger_folder)
    assert answers(top, BERT_NER_MODEL="").endswith("bert_ner/pretrained")


FOREIGN = dict(
    other="data:\n  path: x\n",
    no_data="model: 5\n",
    a_list="- 1\n",
    empty="",
    broken="a: [\n",
    latin=b"name: \xff",
    number="data: {name: 5}\n",
    text="data: x\n",
    keys="1: 2\n",
)


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("env", [dict(), dict(BERT_NER_ROOT=".")], ids=["", "as root"])
def test_in_a_foreign_folder_the_shipped_model_answers_and_no_folder_is_made(top, content, env):
    (top/"dvc.yaml").write_text("stages: {}\n")
    (top/"params.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert answers(
        top,
        "from bert_ner import Tagger; from bert_ner.engines import default_model_dir; "
        "print(Tagger.from_pretrained(default_model_dir()).folder)",
        **env,
    ).endswith("library/bert_ner/pretrained")
    assert sorted(p.name for p in top.iterdir()) == ["dvc.yaml", "params.yaml"]


@pytest.mark.parametrize("content", FOREIGN.values(), ids=FOREIGN)
def test_a_broken_params_yaml_in_our_project_is_one_sentence(top, content):
    project(top); (top/"params.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    said = answers(
        top,
        "from bert_ner import Tagger; from bert_ner.engines import default_model_dir; "
        "print(Tagger.from_pretrained(default_model_dir()).folder)",
    )
    assert said.startswith("error: ") and "params.yaml" in said and "\n" not in said


def test_a_read_only_project_is_read(top, mini_tagger_folder):
    project(top, corpus="own", model=mini_tagger_folder)
    before = sorted(str(p) for p in top.rglob("*"))
    answers(top)                                                                   # the library is copied beside it
    for p in [*top.rglob("*"), top]: p.chmod(p.stat().st_mode & ~0o222)
    try:
        assert (
            answers(
                top,
                "from bert_ner import Tagger; from bert_ner.engines import default_model_dir; t = "
                "Tagger.from_pretrained(default_model_dir()); print(t.folder, len(t.tag('in Paris')))",
            )
            == f"{top / 'models' / 'own' / 'onnx'} 1"
        )
    finally:
        for p in [top, *top.rglob("*")]: p.chmod(p.stat().st_mode | 0o200)
    assert sorted(str(p) for p in top.rglob("*")) == before


def test_advice_fits_who_asks(top):
    code = "from bert_ner import Tagger; Tagger.from_pretrained('nothing')"
    outside = answers(top, code)
    assert "make repro" not in outside and "Tagger.from_pretrained()" in outside and "no trained model in" in outside
    assert answers(project(top), code).endswith("`make repro` trains one")


def test_a_tagger_says_which_model_answers(mini_tagger_folder, tmp_path):
    shipped = Tagger.from_pretrained(engine="onnx-int8")
    assert (
        shipped.about == model_info(pretrained_dir())
        and set(shipped.about) == {"encoder", "corpus", "sentences", "date"}
        and shipped.about["corpus"] == "gmb"
    )
    assert (
        shipped.description
        == f"all-minilm-l6-v2, int8, trained on gmb (38,527 sentences, {shipped.about['date']}), onnx-int8"
        and shipped.description in repr(shipped)
    )
    unknown = Tagger.from_pretrained(mini_tagger_folder, "onnx")
    assert (
        unknown.about == {} == model_info(mini_tagger_folder)
        and unknown.description == f"{mini_tagger_folder.parent.name}/mini, onnx"
    )
    window_tokenizer, tags = load_tokenizer_config(mini_tagger_folder)
    for about, said in (
        (dict(encoder="bert-base-cased"), "bert-base-cased, onnx"),
        (dict(corpus="own"), "trained on own, onnx"),
        (dict(corpus="own", date="2026-01-02"), "trained on own (2026-01-02), onnx"),
        (dict(encoder="x", corpus="own", sentences=7), "x, trained on own (7 sentences), onnx"),
    ):
        folder = save_tokenizer_config(tmp_path/"m", window_tokenizer.tokenizer, tags, True, 64, about)
        shutil.copy(mini_tagger_folder/"model.onnx", folder)
        assert model_info(folder) == about and Tagger.from_pretrained(folder, "onnx").description == said
    save_tokenizer_config(tmp_path/"m", window_tokenizer.tokenizer, tags, True, 64)
    assert model_info(tmp_path/"m") == {} and "about" not in json.loads((tmp_path/"m"/"tagger.json").read_text())
    class Plain: logits = None
    assert Tagger(Plain(), window_tokenizer, tags).description == "Plain" and Tagger.from_pretrained(
        mini_tagger_folder, None
    ).description.endswith("no engine")
    with pytest.raises(BertNerError, match="no trained model in"): model_info(tmp_path/"nothing")
