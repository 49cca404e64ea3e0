"""TensorRT without a GPU: the refusals, the names and signatures in NVIDIA's own bindings, the path of the data through a stand-in.

No engine is built here. What these tests cannot see: whether TensorRT accepts the graph, how fast it is, how close its fp16 is.
"""
import ast
import contextlib
import ctypes
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import types
from importlib.util import find_spec

import numpy as np
import onnxruntime as ort
import pytest
import torch

from bert_ner import tensorrt as module
from bert_ner.core import BertNerError, file_hash, read_json, write_json
from bert_ner.infer import OnnxEngine, Tagger, open_engine
from bert_ner.tensorrt import TensorRTEngine, export_engine, find_profile, length_profiles, need_tensorrt

BUCKETS = [4, 16]
WORDS = ["Mr Bush met Paris in New York on Monday .".split(), ["Paris"], "in Paris on Monday in Paris".split()] * 5


# ---------------------------------------------------------------- a stand-in: TensorRT's calls, ONNX Runtime's arithmetic
class Runs:
    "An execution context that insists on the order and the limits of the real one."
    def __init__(self, plan):
        self.profiles, self.session = plan
        self.active_optimization_profile, self.shapes, self.at, self.log = 0, {}, {}, []
    def set_optimization_profile_async(self, index, stream):
        self.active_optimization_profile, self.shapes, self.at = index, {}, {}
        return stream == 7 and index < len(self.profiles)
    def set_input_shape(self, name, shape):
        low, _, high = self.profiles[self.active_optimization_profile]
        self.shapes[name] = shape
        return all(a <= n <= b for a, n, b in zip(low, shape, high))
    def set_tensor_address(self, name, address):
        self.at[name] = address
        return address > 0
    def execute_async_v3(self, stream):
        read = {n: np.ctypeslib.as_array(ctypes.cast(self.at[n], ctypes.POINTER(ctypes.c_int64)), s).copy() for n, s in self.shapes.items()}
        out, = self.session.run(["logits"], read)
        self.log.append((self.active_optimization_profile, out.shape))
        ctypes.memmove(self.at["logits"], np.ascontiguousarray(out, np.float32).ctypes.data, out.nbytes)
        return stream == 7


class Engine:
    def __init__(self, plan): self.plan, self.names = plan, ["input_ids", "attention_mask", "token_type_ids", "logits"]
    num_io_tensors = 4
    def get_tensor_name(self, i): return self.names[i]
    def get_tensor_dtype(self, name): return "float32" if name == "logits" else "int64"
    def get_tensor_shape(self, name): return (-1, -1, 17)
    def create_execution_context(self): return Runs(self.plan)


class Builder:
    def __init__(self, logger): pass
    def create_network(self, flags):
        assert flags == 2
        return types.SimpleNamespace(num_inputs=3, get_input=lambda i: types.SimpleNamespace(name=f"input {i}"))
    def create_builder_config(self): self.profiles = []; return types.SimpleNamespace(add_optimization_profile=self.profiles.append)
    def create_optimization_profile(self):
        shapes = []
        return types.SimpleNamespace(set_shape=lambda name, *s: shapes.append((name, s)), shapes=shapes)
    def build_serialized_network(self, network, config):
        if not network.onnx: return None
        for p in self.profiles: assert [n for n, _ in p.shapes] == ["input 0", "input 1", "input 2"]
        return json.dumps([p.shapes[0][1] for p in self.profiles]).encode() + b"\n" + network.onnx


class Parser:
    num_errors = 1
    def __init__(self, network, logger): self.network = network
    def parse(self, data): self.network.onnx = data; return data != b"bad"
    def get_error(self, i): return types.SimpleNamespace(desc=lambda: "no such operator")


class Runtime:
    def __init__(self, logger): pass
    def deserialize_cuda_engine(self, data):
        head, onnx = data.split(b"\n", 1)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        return Engine((json.loads(head), ort.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])))


def stand_in():
    return types.SimpleNamespace(__version__="11.4.0.106", Logger=type("Logger", (), dict(WARNING=2, __init__=lambda self, level: None)), Builder=Builder,
        OnnxParser=Parser, Runtime=Runtime, DataType=types.SimpleNamespace(FLOAT="float32", INT64="int64"),
        NetworkDefinitionCreationFlag=types.SimpleNamespace(STRONGLY_TYPED=1))


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "tensorrt", stand_in())
    monkeypatch.setattr(module, "find_spec", lambda name: True)


@pytest.fixture
def gpu(no_gpu, monkeypatch):
    "A machine that looks as if it had a GPU and TensorRT; engines run on the processor."
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Test GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: types.SimpleNamespace(cuda_stream=7))
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    monkeypatch.setattr(module, "to_fp16", lambda source, path, batches: shutil.copy(source, path))
    monkeypatch.setitem(module.ENGINES, "tensorrt", lambda folder, **kw: TensorRTEngine(module.engine_folder(folder), device="cpu", **kw))


@pytest.fixture
def onnx(tmp_path, mini_tagger_folder):
    shutil.copytree(mini_tagger_folder, tmp_path/"onnx")
    shutil.copy(tmp_path/"onnx"/"model.onnx", tmp_path/"onnx"/"model.plain.onnx")
    return tmp_path/"onnx"


def build(onnx, name="tensorrt", **kw):
    gold = [t.tags for t in Tagger.load(onnx).tag_words(WORDS)]
    return export_engine(onnx, onnx.parent/name, WORDS[:3], WORDS, gold, BUCKETS, 128, **kw)


def left(onnx): return sorted(p.name for p in onnx.parent.iterdir())


# ---------------------------------------------------------------- refusals: one sentence, nothing written
INSTALL = r'run `pip install "bert-ner\[tensorrt\]"`'

def test_without_the_package(gpu, onnx, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BertNerError, match="TensorRT needs the package tensorrt: .*" + INSTALL): build(onnx)
    with pytest.raises(BertNerError, match="the package tensorrt: .*" + INSTALL): open_engine("tensorrt", onnx)
    assert left(onnx) == ["onnx"]


def test_without_a_gpu(no_gpu, onnx):
    with pytest.raises(BertNerError, match="TensorRT needs an NVIDIA GPU that PyTorch can use: .*" + INSTALL): build(onnx)
    with pytest.raises(BertNerError, match="an NVIDIA GPU"): TensorRTEngine(onnx)
    assert left(onnx) == ["onnx"]


def test_all_that_is_missing_in_one_sentence(no_gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(BertNerError) as e: need_tensorrt(build=True)
    assert "an NVIDIA GPU that PyTorch can use and the package tensorrt and the package nvidia-modelopt: on" in str(e.value)
    assert "\n" not in str(e.value)


def test_an_old_tensorrt(gpu, onnx, monkeypatch):
    monkeypatch.setattr(sys.modules["tensorrt"], "__version__", "10.3.0")
    with pytest.raises(BertNerError, match=r"TensorRT 10\.12 or later \(here is 10\.3\.0\)"): build(onnx)
    for enough in ("10.12.0.36", "11.4.0.106"):
        monkeypatch.setattr(sys.modules["tensorrt"], "__version__", enough)
        need_tensorrt(build=True)


def test_without_the_onnx_file(gpu, onnx):
    (onnx/"model.plain.onnx").unlink()
    with pytest.raises(BertNerError, match=r"model\.plain\.onnx is missing: run `bert-ner to-onnx` first"): build(onnx)
    assert left(onnx) == ["onnx"]


def test_a_graph_that_tensorrt_does_not_read(gpu, onnx):
    (onnx/"model.plain.onnx").write_bytes(b"bad")
    with pytest.raises(BertNerError, match=r"TensorRT 11\.4\.0\.106 does not read model\.fp16\.onnx: no such operator"): build(onnx)
    (onnx/"model.plain.onnx").write_bytes(b"")
    with pytest.raises(BertNerError, match="built no engine"): build(onnx)
    assert left(onnx) == ["onnx"]


def test_without_an_engine(gpu, onnx):
    with pytest.raises(BertNerError, match="no engine in .*tensorrt: build it with `bert-ner to-tensorrt`"): open_engine("tensorrt", onnx)


@pytest.mark.parametrize("field, said", [("gpu", "for the GPU"), ("compute_capability", "for compute capability"), ("tensorrt", "by TensorRT"),
                                         ("onnx_sha256", "from the ONNX file"), ("plan_sha256", "as a plan")])
def test_a_stamp_that_differs(gpu, onnx, field, said):
    build(onnx)
    path = onnx.parent/"tensorrt"/"engine.json"
    stamp = read_json(path)
    right = stamp[field]
    write_json(path, {**stamp, field: "another"})
    with pytest.raises(BertNerError, match=f"was built {said}.* another where here is {re.escape(right)}: build it again with `bert-ner to-tensorrt`"):
        open_engine("tensorrt", onnx)
    write_json(path, {k: v for k, v in stamp.items() if k != field})
    with pytest.raises(BertNerError, match="None where here is"): open_engine("tensorrt", onnx)


def test_fields_of_the_stamp_are_all_tried():
    tried, = (m.args[1] for m in test_a_stamp_that_differs.pytestmark)
    assert {f for f, _ in tried} == set(module.STAMP)


def test_files_changed_after_the_build(gpu, onnx):
    build(onnx)
    with open(onnx/"model.plain.onnx", "ab") as f: f.write(b"\n")
    with pytest.raises(BertNerError, match="from the ONNX file"): open_engine("tensorrt", onnx)
    shutil.rmtree(onnx)                                            # an engine that travelled alone has nothing to be compared with
    engine = open_engine("tensorrt", onnx)
    with open(onnx.parent/"tensorrt"/"model.plan", "ab") as f: f.write(b"\n")
    with pytest.raises(BertNerError, match="as a plan"): open_engine("tensorrt", onnx)


@pytest.mark.parametrize("gate", [dict(min_agreement=1.1), dict(max_f1_loss=-1.)])
def test_a_failing_gate_publishes_nothing(gpu, onnx, gate):
    with pytest.raises(BertNerError, match="nothing was published"): build(onnx, **gate)
    assert left(onnx) == ["onnx"]
    build(onnx)
    before = read_json(onnx.parent/"tensorrt"/"engine.json")
    with pytest.raises(BertNerError, match="nothing was published"): build(onnx, **gate)
    assert read_json(onnx.parent/"tensorrt"/"engine.json") == before and left(onnx) == ["onnx", "tensorrt"]


# ---------------------------------------------------------------- the path of the data
def test_an_engine_is_built_stamped_and_found(gpu, onnx):
    report = build(onnx)
    folder = onnx.parent/"tensorrt"
    assert sorted(p.name for p in folder.iterdir()) == ["engine.json", "model.plan", "tagger.json", "tokenizer.json"]
    stamp = read_json(folder/"engine.json")
    assert stamp == report["stamp"] == dict(gpu="Test GPU", compute_capability="9.0", tensorrt="11.4.0.106", driver=None, precision="fp16",
        onnx_sha256=file_hash(onnx/"model.plain.onnx"), plan_sha256=file_hash(folder/"model.plan"), profiles=length_profiles(BUCKETS, 128, 64))
    assert report["parity"]["agreement"] == 1. and report["gates"]["agreement"] == dict(value=1., least=.995)
    for place in (onnx, folder):
        tagger = Tagger.load(place, engine="tensorrt")
        assert [(e.text, e.label) for e in tagger.tag("Mr. Bush met Paris on Monday.")] == [("Mr. Bush", "per"), ("Paris", "geo"), ("Monday", "tim")]


def test_every_shape_takes_its_profile_and_gives_onnx_runtimes_logits(gpu, onnx):
    build(onnx)
    engine, reference = open_engine("tensorrt", onnx), OnnxEngine(onnx/"model.onnx", threads=1)
    rng = np.random.default_rng(42)
    for batch, length in [(1, 1), (32, 4), (33, 4), (1, 5), (8, 16), (100, 7), (5, 64), (1, 17), (2, 3), (2, 3)]:
        arrays = {k: rng.integers(0, 14, (length, batch)).T for k in module.INPUTS}            # not contiguous
        got = engine.logits(**arrays)
        assert got.dtype == np.float32 and got.shape == (batch, length, 17)
        np.testing.assert_array_equal(got, reference.logits(**arrays))
    log, profiles = engine.context.log, engine.profiles
    assert len(log) == 25 and {i for i, _ in log} == {0, 1, 2}
    for i, (batch, length, _) in log: assert i == find_profile(profiles, length) and batch <= profiles[i]["max"][0]
    with pytest.raises(BertNerError, match="65 pieces at once: this engine takes 1 to 64"): engine.logits(*[np.ones((1, 65), np.int64)] * 3)


def test_a_call_that_fails_is_not_passed_over(gpu, onnx, monkeypatch):
    build(onnx)
    one = [np.ones((1, 3), np.int64)] * 3
    for call in ("set_input_shape", "set_tensor_address", "execute_async_v3"):
        engine = open_engine("tensorrt", onnx)
        monkeypatch.setattr(engine.context, call, lambda *a: False)
        with pytest.raises(RuntimeError, match=call): engine.logits(*one)
    monkeypatch.setattr(Engine, "get_tensor_dtype", lambda self, name: "float16")              # a buffer of another size
    with pytest.raises(RuntimeError, match="types of its inputs and outputs"): open_engine("tensorrt", onnx)


# ---------------------------------------------------------------- names and signatures, in NVIDIA's own bindings
DUMP = """
import json, tensorrt_bindings as trt
assert trt.Dims((1, 2, 17))[-1] == 17
doc = lambda o: d if isinstance(d := getattr(o, "__doc__", ""), str) else ""
print(json.dumps(dict(version=trt.__version__, names={n: {m: doc(getattr(o, m, None)) for m in dir(o)} for n, o in vars(trt).items()})))
"""
STUBS = dict(
    nvinfer="createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL getBuilderPluginRegistry getPluginRegistry",
    nvinfer_plugin="initLibNvInferPlugins",
    nvonnxparser="createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL getNvOnnxParserVersion")


def read_bindings(folder, tmp):
    "Every name of the bindings in `folder` (None: those installed) with its signature; three empty libraries stand in for TensorRT's own."
    cc = shutil.which("cc") or shutil.which("gcc")
    assert cc, "a C compiler is needed to make three empty libraries: apt-get install gcc"
    for lib, functions in STUBS.items():
        for major in (10, 11):
            code = "".join(f"void *{f}(void) {{ return 0; }}\n" for f in functions.split())
            subprocess.run([cc, "-shared", "-fPIC", "-x", "c", "-", "-o", str(tmp/f"lib{lib}.so.{major}")], input=code.encode(), check=True)
    env = dict(os.environ, LD_LIBRARY_PATH=str(tmp), **({"PYTHONPATH": str(folder)} if folder else {}))
    done = subprocess.run([sys.executable, "-c", DUMP], env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"the bindings do not import: pip install --no-deps tensorrt_cu13_bindings==11.4.0.106\n{done.stderr}"
    return json.loads(done.stdout)


class Uses(ast.NodeVisitor):
    "Follows what a program does with the module `trt`, by the types that the signatures give, and looks every name up."
    def __init__(self, names): self.names, self.types, self.seen, self.faults = names, {"trt": ("module", "")}, set(), set()

    def member(self, owner, name):
        if name not in (self.names if owner == "" else self.names[owner]): self.faults.add(f"{owner or 'trt'}.{name} does not exist")
        self.seen.add(f"{owner or 'trt'}.{name}")

    def signatures(self, owner, name):
        found = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> (\S.*)$", self.names[owner].get(name, ""), re.M)
        return [([p for p in re.split(r", (?=\w+: )", a) if p and not p.startswith("self:")], r) for a, r in found if "*args" not in a]

    def kind(self, node):
        "(\"module\" | \"class\" | \"object\" | \"method\", name) of an expression, None where it has nothing to do with TensorRT."
        if ast.unparse(node) in self.types: return self.types[ast.unparse(node)]
        if isinstance(node, ast.Attribute) and (base := self.kind(node.value)):
            what, owner = base
            if what == "method": return None
            self.member(owner, node.attr)
            if what == "module": return ("class", node.attr) if node.attr in self.names else None
            return ("method", f"{owner}.{node.attr}") if what == "object" and self.signatures(owner, node.attr) else None
        if isinstance(node, ast.Call) and (f := self.kind(node.func)):
            owner, name = (f[1], "__init__") if f[0] == "class" else f[1].split(".")
            overloads = self.signatures(owner, name)
            fitting = [r for p, r in overloads if sum("=" not in x for x in p) <= len(node.args) + len(node.keywords) <= len(p)
                       and {k.arg for k in node.keywords} <= {x.split(":")[0] for x in p}]
            if not fitting: self.faults.add(f"{owner}.{name} does not take {len(node.args)} arguments: {[p for p, _ in overloads]}")
            given = re.split(r"\.|::", fitting[0])[-1] if fitting and name != "__init__" else owner
            given = given if given in self.names else given.removeprefix("I")
            return ("object", given) if given in self.names else None

    def visit_FunctionDef(self, node):
        outside = self.types
        self.types = dict(outside)
        self.generic_visit(node)
        self.types = {**outside, **{k: v for k, v in self.types.items() if k.startswith("self.")}}      # locals end here

    def visit_Attribute(self, node): self.kind(node); self.generic_visit(node)
    def visit_Call(self, node): self.kind(node); self.generic_visit(node)
    def visit_Assign(self, node):
        self.generic_visit(node)
        target = node.targets[0]
        pairs = zip(target.elts, node.value.elts) if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple) else [(target, node.value)]
        for t, v in pairs:
            found = self.kind(v)
            self.types.pop(ast.unparse(t), None)
            if found: self.types[ast.unparse(t)] = found


def uses(source, names):
    found = Uses(names)
    found.visit(ast.parse(source))
    return found


BINDINGS = [None, *filter(None, os.environ.get("BERT_NER_TENSORRT_BINDINGS", "").split(os.pathsep))]  # folders with other versions, unpacked

@pytest.fixture(scope="module", params=BINDINGS, ids=lambda f: os.path.basename(f or "installed"))
def bindings(request, tmp_path_factory): return read_bindings(request.param, tmp_path_factory.mktemp("stubs"))


def test_every_name_and_signature_is_in_the_real_bindings(bindings):
    found = uses(inspect.getsource(module), bindings["names"])
    print(bindings["version"], *sorted(found.seen), sep="\n  ")
    assert not found.faults
    assert found.seen >= {"trt.Builder", "Builder.create_network", "NetworkDefinitionCreationFlag.STRONGLY_TYPED", "OnnxParser.parse", "ParserError.desc",
        "ITensor.name", "IOptimizationProfile.set_shape", "IBuilderConfig.add_optimization_profile", "Builder.build_serialized_network",
        "Runtime.deserialize_cuda_engine", "ICudaEngine.get_tensor_dtype", "ICudaEngine.create_execution_context", "DataType.INT64",
        "IExecutionContext.set_optimization_profile_async", "IExecutionContext.set_input_shape", "IExecutionContext.execute_async_v3"}


@pytest.mark.parametrize("line, fault", [
    ("trt.Builders(logger)", "trt.Builders does not exist"),
    ("config.set_flag(trt.BuilderFlag.F16)", "BuilderFlag.F16 does not exist"),
    ("config.int8_calibrators", "IBuilderConfig.int8_calibrators does not exist"),
    ("builder.create_builder_config(1)", "does not take 1 arguments"),
    ("network.get_input(0).nom", "ITensor.nom does not exist"),
    ("engine = trt.Runtime(logger).deserialize_cuda_engine(b''); engine.create_execution_context().execute_async_v2(7)", "execute_async_v2 does not exist")])
def test_the_check_finds_what_is_wrong(bindings, line, fault):
    start = ("logger = trt.Logger(trt.Logger.WARNING); builder = trt.Builder(logger)\n"
             "network = builder.create_network(0); config = builder.create_builder_config()\n")
    assert not uses(start, bindings["names"]).faults
    faults = uses(start + line, bindings["names"]).faults
    assert len(faults) == 1 and fault in faults.pop()


# ---------------------------------------------------------------- the fp16 graph, by NVIDIA's Model Optimizer
# Collected only where the extra `tensorrt` is installed; needs no GPU.
if find_spec("modelopt"):
    def test_the_fp16_graph_gives_the_same_logits(tmp_path):
        import onnx
        from transformers import BertConfig, BertForTokenClassification
        from bert_ner.export import to_onnx
        torch.manual_seed(42)
        model = BertForTokenClassification._from_config(BertConfig(vocab_size=99, hidden_size=64, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=128, num_labels=17, max_position_embeddings=64), attn_implementation="eager").eval()
        plain = to_onnx(model, tmp_path/"model.plain.onnx")
        mask = np.array([[1] * 9, [1] * 4 + [0] * 5])
        batch = dict(input_ids=np.arange(18).reshape(2, 9) * mask, attention_mask=mask, token_type_ids=mask // 2)
        half = module.to_fp16(plain, tmp_path/"model.fp16.onnx", [batch, {k: v[:, :3] for k, v in batch.items()}])
        graph = onnx.load(half).graph
        assert [(o.name, o.type.tensor_type.elem_type) for o in [*graph.input, *graph.output]] == \
            [("input_ids", 7), ("attention_mask", 7), ("token_type_ids", 7), ("logits", 1)]
        weights = [t.data_type for t in graph.initializer if t.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)]
        assert len(weights) > 20 and set(weights) == {onnx.TensorProto.FLOAT16}
        got, want = (OnnxEngine(p, threads=1).logits(**batch) for p in (half, plain))
        assert got.dtype == np.float32 and 0 < np.abs(got - want)[mask == 1].max() < 2e-3
