"""Every engine keeps one contract: a sentence's answer does not depend on its neighbors, their order, the padding, or the number of streams.

fp32 engines keep it to the last digits, so their tags are the same always. int8 has fixed ranges, so it keeps it too, but for the rare activation that lies on the border of two steps. With bf16 the
order of a sum depends on the batch's shape and each result is rounded to 8 bits: probabilities agree to a few hundredths, and a tag can change where two are about equally probable.
"""
import asyncio
import os

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from tokenizers import Tokenizer, models
from transformers import BertConfig, BertForTokenClassification

from bert_ner import engines, windows as windows_module
from bert_ner.core import GMB_TAGS, BertNerError, seed_everything
from bert_ner.export import export_model
from bert_ner.tagger import AsyncTagger, Tagger
from bert_ner.checkpoint import pretrained_dir
from bert_ner.engines import OpenVINOEngine, select_engine, cpu_has_bf16
from bert_ner.windows import save_tokenizer_config, word_log_probs

WORDS = [f"w{i}" for i in range(90)]
sentences = st.lists(st.lists(st.sampled_from(WORDS), max_size=80), min_size=1, max_size=8)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A BERT of two layers with random weights, as `fine_tune` would leave it and as `export_model` makes it: windows
    of 32 tokens."""
    top = tmp_path_factory.mktemp("engines")
    seed_everything()
    config = BertConfig(
        vocab_size=99,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        num_labels=17,
        max_position_embeddings=64,
        initializer_range=0.3,
    )
    BertForTokenClassification._from_config(config).save_pretrained(top/"bert")
    tokenizer = Tokenizer(
        models.WordLevel({w: i for i, w in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}, unk_token="[UNK]")
    )
    save_tokenizer_config(top/"bert", tokenizer, GMB_TAGS, True, 32)
    rng = np.random.default_rng(42)
    words = [rng.choice(WORDS, n).tolist() for n in rng.integers(1, 25, 40)]
    gold = [t.tags for t in Tagger.from_pretrained(top/"bert", "torch").tag_tokenized(words)]
    export_model(top/"bert", top/"onnx", words, gold, words, max_f1_drop=1.)
    return top


@pytest.fixture(scope="module", params=["torch", "torch bf16", "onnx", "onnx-int8", "onnx-int8, two streams", "openvino", "openvino, two streams", "openvino-int8",
    "openvino-int8, two streams"])
def tagger(request, folders):
    name, _, more = request.param.partition(",")
    if name == "torch bf16": return Tagger.from_pretrained(folders/"bert", "torch", bf16=True)
    return Tagger.from_pretrained(
        folders / ("bert" if name == "torch" else "onnx"),
        name,
        **(dict(num_streams=2, threads=2 if "openvino" in name else 1) if more else {}),
    )


def rounds(tagger):
    "Whether activations are bf16."
    return getattr(tagger.engine, "bf16", False) or tagger.engine.name == "openvino bf16"


def logps(tagger, many, budget): return word_log_probs(tagger.engine, tagger.window_tokenizer, many, budget)


@given(many=sentences, budget=st.sampled_from([1, 64, 4096]), data=st.data())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_an_answer_is_the_same_alone_in_company_and_in_any_order(tagger, many, budget, data):
    order = data.draw(st.permutations(range(len(many))))
    alone = [logps(tagger, [s], 4096)[0] for s in many]
    together = logps(tagger, [many[i] for i in order], budget)
    tolerance = .15 if rounds(tagger) else .02
    assert max(np.abs(np.exp(alone[i]) - np.exp(x)).max(initial=0.) for i, x in zip(order, together)) < tolerance


def test_tags_in_bulk_are_the_tags_one_by_one(tagger):
    """With bf16 but for one word of 20, in this model of large random weights, which knows nothing for certain (of
    500 real sentences and a trained model none changed)."""
    rng = np.random.default_rng(1)
    many = [rng.choice(WORDS, n).tolist() for n in rng.integers(0, 60, 60)]
    same = np.concatenate(
        [np.array(a.tags) == tagger.tag_tokenized([s])[0].tags for a, s in zip(tagger.tag_tokenized(many), many) if s]
    )
    assert len(same) > 1000 and same.mean() >= (.95 if rounds(tagger) else 1)


@pytest.mark.parametrize("name", ["onnx", "openvino"])
def test_fp32_engines_find_what_pytorch_finds(folders, name):
    rng = np.random.default_rng(2)
    many = [rng.choice(WORDS, n).tolist() for n in rng.integers(0, 60, 60)]
    a, b = (
        Tagger.from_pretrained(folders / "bert", "torch").tag_tokenized(many),
        Tagger.from_pretrained(folders / "onnx", name).tag_tokenized(many),
    )
    same = np.concatenate([np.array(x.tags) == y.tags for x, y in zip(a, b) if x.tags])
    assert len(same) > 1000 and same.mean() >= (
        0.95 if Tagger.from_pretrained(folders / "onnx", name).engine.name == "openvino bf16" else 1
    )


@pytest.mark.parametrize("flags, installed, choice", [
    ({"avx2"}, True, "onnx-int8"), ({"avx512_vnni"}, True, "openvino-int8"), ({"avx512_vnni"}, False, "onnx-int8"), ({"avx512_vnni", "avx512_bf16"}, True, "openvino-int8"),
    ({"avx512_vnni", "avx512_bf16", "amx_bf16"}, True, "openvino"), ({"avx512_vnni", "amx_bf16"}, False, "onnx-int8"), ({"avx_vnni"}, True, "onnx-int8")])
def test_the_processor_decides_which_engine_is_taken(folders, tmp_path, monkeypatch, flags, installed, choice):
    monkeypatch.setattr(engines, "cpu_flags", lambda: frozenset(flags))
    monkeypatch.setattr(engines, "cpu_has_bf16", lambda: installed and bool(flags & {"avx512_bf16", "amx_bf16"}))
    monkeypatch.setattr(engines, "find_spec", lambda name: installed or None)
    assert select_engine(folders/"onnx") == choice
    # what ships with the library: int8 alone
    for name in ("model.int8.onnx", "tagger.json"): (tmp_path/name).touch()
    assert select_engine(tmp_path) == ("openvino-int8" if installed and "avx512_vnni" in flags else "onnx-int8")
    (tmp_path/"model.int8.onnx").rename(tmp_path/"model.onnx")
    assert select_engine(tmp_path) == ("openvino" if engines.cpu_has_bf16() else "onnx")


def test_the_engine_taken_by_itself_is_named(folders):
    for folder in (folders/"onnx", pretrained_dir()):
        assert f", {select_engine(folder)}, 17 tags" in repr(Tagger.from_pretrained(folder))
    assert repr(Tagger.from_pretrained()) == repr(Tagger.from_pretrained(pretrained_dir()))


@pytest.mark.parametrize("name", ["onnx", "onnx-int8", "openvino", "openvino-int8"])
def test_many_batches_go_to_streams_of_one_thread_and_few_do_not(folders, monkeypatch, name):
    monkeypatch.setattr(engines, "available_cpus", lambda: 3)
    monkeypatch.setattr(windows_module, "available_cpus", lambda: 3)
    tagger, few = Tagger.from_pretrained(folders/"onnx", name), [["w1"], ["w2"] * 9]
    tagger.max_batch_tokens = 64
    tagger.tag_tokenized(few)
    assert "bulk" not in vars(tagger.engine)                                    # not opened before it is needed
    many = [[w] * n for w in WORDS[:20] for n in (1, 9, 20)]
    assert [t.tags for t in tagger.tag_tokenized(many)] == [
        t.tags
        for t in Tagger(tagger.engine.throughput_engine, tagger.window_tokenizer, tagger.tags).tag_tokenized(many)
    ]
    assert tagger.engine.throughput_engine.num_streams == 3 and tagger.engine.num_streams == 1
    assert Tagger.from_pretrained(folders/"onnx", name, num_streams=1).engine.throughput_engine.num_streams == 1


def test_openvino_without_the_property_that_spares_shapes(folders, monkeypatch):
    import openvino
    compiled = openvino.Core.compile_model
    def refuses(self, model, device, options):
        if "SNIPPETS_MODE" in options: raise RuntimeError("Unsupported property SNIPPETS_MODE by CPU plugin")
        return compiled(self, model, device, options)
    ids = np.ones((2, 5), np.int64)
    want = OpenVINOEngine(folders/"onnx"/"model.onnx", num_streams=1).logits(ids, ids, ids)
    monkeypatch.setattr(openvino.Core, "compile_model", refuses)
    np.testing.assert_allclose(
        OpenVINOEngine(folders / "onnx" / "model.onnx", num_streams=1).logits(ids, ids, ids),
        want,
        atol=0.1 if cpu_has_bf16() else 1e-4,
    )


@pytest.mark.parametrize("more", [dict(), dict(threads=1, num_streams=1)])
def test_openvino_pins_no_thread(folders, more):
    # pinned, the first threads of two processes share a core
    assert not OpenVINOEngine(folders/"onnx"/"model.int8.onnx", **more).model.get_property("ENABLE_CPU_PINNING")


def test_a_broken_model_is_one_sentence(folders, tmp_path):
    save_tokenizer_config(
        tmp_path, Tagger.from_pretrained(folders / "onnx").window_tokenizer.tokenizer, GMB_TAGS, True, 32
    )
    for name in ("onnx", "onnx-int8", "openvino", "openvino-int8"):
        with pytest.raises(BertNerError, match="is missing"): Tagger.from_pretrained(tmp_path, name)
    for file in ("model.onnx", "model.int8.onnx"): (tmp_path/file).write_bytes(os.urandom(1000))
    for name in ("onnx", "onnx-int8", "openvino", "openvino-int8"):
        with pytest.raises(BertNerError, match="export it again"): Tagger.from_pretrained(tmp_path, name)


def test_stream_equals_batch_and_reads_no_further_than_it_must(mini_tagger_folder):
    tagger, read = Tagger.from_pretrained(mini_tagger_folder, "onnx"), 0
    texts = [f"Mr. Bush met Paris in New York {'on Monday' * (i % 3)} {i}" for i in range(500)]
    def lines():
        nonlocal read
        for t in texts: read += 1; yield t
    found = tagger.pipe(lines(), chunk_chars=1000)
    first = next(found)
    assert read < 40 and [first, *found] == tagger.tag_batch(texts) == [tagger.tag(t) for t in texts]


def test_a_text_of_a_megabyte(mini_tagger_folder):
    "Every place of 250,000 words, in windows of 64 tokens."
    text = "Paris met in on " * 62_500
    found = Tagger.from_pretrained(mini_tagger_folder, "onnx").tag(text)
    assert len(found) == 62_500 and all(text[e.start:e.end] == "Paris" for e in found)


def test_async_callers_share_batches_and_a_cancelled_one_stops_nobody(mini_tagger_folder):
    tagger, sizes = Tagger.from_pretrained(mini_tagger_folder, "onnx"), []
    class Counted(Tagger):
        def tag_batch(self, texts, progress=None): sizes.append(len(texts)); return super().tag_batch(texts, progress)
    served = AsyncTagger(Counted(tagger.engine, tagger.window_tokenizer, tagger.tags), max_batch_size=50)
    texts = [f"{i} in Paris" for i in range(300)]
    async def crowd():
        tasks = [asyncio.create_task(served.tag(t)) for t in texts]
        await asyncio.sleep(0)
        tasks[7].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)
    found = asyncio.run(crowd())
    assert isinstance(found.pop(7), asyncio.CancelledError)
    assert found == tagger.tag_batch(texts[:7] + texts[8:]) and max(sizes) == 50 and len(sizes) <= 7
    assert asyncio.run(served.tag("Paris")) == tagger.tag("Paris")     # another event loop
