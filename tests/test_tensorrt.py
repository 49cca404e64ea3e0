"""TensorRT without a GPU: the refusals, the checks before an engine is published, the names and signatures in NVIDIA's own bindings.

No engine is built or run here. What these tests cannot see: whether TensorRT accepts the graph, how fast it is, how close its fp16 is (the stage `gpu/dvc.yaml:tensorrt` does).
"""
import ast
import contextlib
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import types
from importlib.util import find_spec
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from bert_ner import tensorrt as module
from bert_ner.core import BertNerError, file_hash, read_json, write_json
from bert_ner.engines import OnnxEngine, load_engine
from bert_ner.tagger import Tagger
from bert_ner.tensorrt import TensorRTEngine, build_serialized_engine, export_engine, make_profiles, require_tensorrt

WORDS = ["Mr Bush met Paris in New York on Monday .".split(), ["Paris"], "in Paris on Monday in Paris".split()] * 5
HERE = dict(gpu="Test GPU", compute_capability="9.0", tensorrt="11.4.0.106", driver=None)
INSTALL = r'run `pip install "bert-ner\[tensorrt\]"`'


@pytest.fixture
def no_gpu(monkeypatch):
    "TensorRT can be imported, and has a version; nothing else of it is there."
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(sys.modules, "tensorrt", types.SimpleNamespace(__version__=HERE["tensorrt"]))
    monkeypatch.setattr(module, "find_spec", lambda name: True)


@pytest.fixture
def gpu(no_gpu, monkeypatch):
    "A machine that looks as if it had a GPU."
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(module, "runtime_info", lambda: dict(HERE))


@pytest.fixture
def onnx(tmp_path, mini_tagger_folder):
    shutil.copytree(mini_tagger_folder, tmp_path/"onnx")
    shutil.copy(tmp_path/"onnx"/"model.onnx", tmp_path/"onnx"/"model.plain.onnx")
    return tmp_path/"onnx"


@pytest.fixture
def stamped(onnx):
    "A folder beside `onnx` with the stamp of an engine that was built here, and bytes in place of its plan."
    folder = onnx.parent/"tensorrt"
    folder.mkdir()
    (folder/"model.plan").write_bytes(b"a plan")
    write_json(
        folder / "engine.json",
        dict(
            HERE,
            onnx_sha256=file_hash(onnx / "model.plain.onnx"),
            plan_sha256=file_hash(folder / "model.plan"),
            precision="fp16",
            profiles=[],
        ),
    )
    return folder


def export(onnx, **kw):
    gold = [t.tags for t in Tagger.from_pretrained(onnx, "onnx").tag_tokenized(WORDS)]
    return export_engine(onnx, onnx.parent/"tensorrt", WORDS[:3], WORDS, gold, [4, 16], 128, **kw)


def left(onnx): return sorted(p.name for p in onnx.parent.iterdir())


# ---------------------------------------------------------------- refusals: one sentence, nothing written
def test_without_the_package(gpu, onnx, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BertNerError, match="TensorRT needs the package tensorrt: .*" + INSTALL): export(onnx)
    with pytest.raises(BertNerError, match="the package tensorrt: .*" + INSTALL): load_engine("tensorrt", onnx)
    assert left(onnx) == ["onnx"]


def test_without_a_gpu(no_gpu, onnx):
    with pytest.raises(BertNerError, match="TensorRT needs an NVIDIA GPU that PyTorch can use: .*" + INSTALL):
        export(onnx)
    with pytest.raises(BertNerError, match="an NVIDIA GPU"): TensorRTEngine(onnx)
    assert left(onnx) == ["onnx"]


def test_all_that_is_missing_in_one_sentence(no_gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(BertNerError) as e: require_tensorrt(build=True)
    assert "an NVIDIA GPU that PyTorch can use and the package tensorrt and the package nvidia-modelopt: on" in str(
        e.value
    )
    assert "\n" not in str(e.value)


def test_an_old_tensorrt(gpu, onnx, monkeypatch):
    monkeypatch.setattr(sys.modules["tensorrt"], "__version__", "10.3.0")
    with pytest.raises(BertNerError, match=r"TensorRT 10\.12 or later \(here is 10\.3\.0\)"): export(onnx)
    for enough in ("10.12.0.36", "11.4.0.106"):
        monkeypatch.setattr(sys.modules["tensorrt"], "__version__", enough)
        require_tensorrt(build=True)


def test_without_the_onnx_file(gpu, onnx):
    (onnx/"model.plain.onnx").unlink()
    with pytest.raises(BertNerError, match=r"model\.plain\.onnx is missing: run `bert-ner to-onnx` first"):
        export(onnx)
    assert left(onnx) == ["onnx"]


def test_a_graph_that_tensorrt_does_not_read(gpu, onnx, monkeypatch):
    # whether these calls exist is asked of the real bindings, below
    trt = MagicMock(__version__=HERE["tensorrt"])
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    parser, builder = trt.OnnxParser.return_value, trt.Builder.return_value
    parser.parse.return_value, parser.num_errors, parser.get_error.return_value.desc.return_value = (
        False,
        2,
        "no such operator",
    )
    with pytest.raises(
        BertNerError, match=r"TensorRT 11\.4\.0\.106 does not read model\.onnx: no such operator; no such operator$"
    ):
        build_serialized_engine(onnx/"model.onnx", [])
    parser.parse.return_value, builder.build_serialized_network.return_value = True, None
    with pytest.raises(BertNerError, match="built no engine from model.onnx"):
        build_serialized_engine(onnx/"model.onnx", [])


def test_without_an_engine(gpu, onnx, stamped):
    (stamped/"engine.json").unlink()
    with pytest.raises(BertNerError, match="no engine in .*tensorrt: build it with `bert-ner to-tensorrt`"):
        load_engine("tensorrt", onnx)


@pytest.mark.parametrize("field, said", [("gpu", "for the GPU"), ("compute_capability", "for compute capability"), ("tensorrt", "by TensorRT"),
                                         ("onnx_sha256", "from the ONNX file"), ("plan_sha256", "as a plan")])
def test_a_stamp_that_differs(gpu, onnx, stamped, field, said):
    stamp = read_json(stamped/"engine.json")
    write_json(stamped/"engine.json", {**stamp, field: "another"})
    with pytest.raises(
        BertNerError,
        match=f"was built {said}.* another where here is {re.escape(stamp[field])}: build it again with `bert-ner to-tensorrt`",
    ):
        load_engine("tensorrt", onnx)
    write_json(stamped/"engine.json", {k: v for k, v in stamp.items() if k != field})
    with pytest.raises(BertNerError, match="None where here is"): load_engine("tensorrt", onnx)


def test_fields_of_the_stamp_are_all_tried():
    tried, = (m.args[1] for m in test_a_stamp_that_differs.pytestmark)
    assert {f for f, _ in tried} == set(module.ENGINE_METADATA)


def test_files_changed_after_the_build(gpu, onnx, stamped, monkeypatch):
    def stream(device): raise RuntimeError("the stamp fits")                # the first thing that is asked for then
    monkeypatch.setattr(torch.cuda, "Stream", stream)
    def opened():
        with pytest.raises((BertNerError, RuntimeError)) as e: load_engine("tensorrt", onnx)
        return str(e.value)
    assert opened() == "the stamp fits"
    with open(onnx/"model.plain.onnx", "ab") as f: f.write(b"\n")
    assert "from the ONNX file" in opened()
    # an engine that travelled alone has nothing to be compared with
    shutil.rmtree(onnx)
    assert opened() == "the stamp fits"
    with open(stamped/"model.plan", "ab") as f: f.write(b"\n")
    assert "as a plan" in opened()


# ---------------------------------------------------------------- nothing is published unchecked
@pytest.fixture
def engine(gpu, monkeypatch):
    "What is compared with ONNX Runtime: ONNX Runtime under another name, `wrong` (a list) in a share of the logits."
    wrong = []
    class Other(OnnxEngine):
        def logits(self, *a, **kw): out = super().logits(*a, **kw); return np.roll(out, 1, -1) if wrong else out
    def write(source, folder, *rest):
        shutil.copytree(source, folder)
        write_json(folder/"engine.json", dict(HERE))
        return dict(HERE)
    monkeypatch.setattr(module, "build_engine", write)
    monkeypatch.setitem(module.ENGINES, "tensorrt", lambda folder, **kw: Other(folder/"model.onnx", threads=1))
    return wrong


def test_an_engine_that_agrees_is_published(engine, onnx):
    report = export(onnx)
    assert left(onnx) == ["onnx", "tensorrt"] and report["stamp"] == HERE == read_json(
        onnx.parent / "tensorrt" / "engine.json"
    )
    assert (
        report["parity"]["exact_match"] == 1.0
        and report["checks"]["exact_match"] == dict(value=1.0, minimum=0.995)
        and report["checks"]["f1"]["value"] == 0
    )


@pytest.mark.parametrize("gates, said", [({}, "share of sentences"), (dict(min_exact_match=0.), "strict micro F1")])
def test_one_that_does_not_is_not(engine, onnx, gates, said):
    engine.append("wrong")
    with pytest.raises(BertNerError, match=f"{said}.*nothing was published"): export(onnx, **gates)
    assert left(onnx) == ["onnx"]
    engine.clear(); export(onnx)
    before = (onnx.parent/"tensorrt"/"engine.json").stat().st_mtime_ns
    engine.append("wrong")
    with pytest.raises(BertNerError, match="nothing was published"): export(onnx, **gates)
    assert (onnx.parent/"tensorrt"/"engine.json").stat().st_mtime_ns == before and left(onnx) == ["onnx", "tensorrt"]


# ---------------------------------------------------------------- batches to profiles
@pytest.fixture
def opened():
    "An engine that was opened without TensorRT: lengths to 4, 16 and 64, 128 tokens per batch."
    engine = object.__new__(TensorRTEngine)
    engine.profiles, engine.inputs, engine.tags, engine.device, engine.stream = (
        make_profiles([4, 16], 128, 64),
        list(module.MODEL_INPUTS),
        17,
        "cpu",
        types.SimpleNamespace(cuda_stream=7),
    )
    return engine


@pytest.mark.parametrize("batch, length, profile, sizes", [(1, 1, 0, [1]), (32, 4, 0, [32]), (33, 4, 0, [32, 1]), (1, 5, 1, [1]), (100, 7, 1, [8] * 12 + [4]), (5, 64, 2, [2, 2, 1]), (1, 17, 2, [1])])
def test_a_batch_goes_through_its_profile_in_parts_that_fit(opened, monkeypatch, batch, length, profile, sizes):
    seen = []
    def run(self, i, arrays):
        seen.append((i, len(arrays["input_ids"])))
        return arrays["input_ids"][..., None].repeat(17, -1) + arrays["attention_mask"][..., None]
    monkeypatch.setattr(TensorRTEngine, "run", run)
    ids = np.arange(batch * length).reshape(batch, length)
    out = opened.logits(ids, np.ones_like(ids), np.zeros_like(ids))
    assert (
        seen == [(profile, n) for n in sizes] and out.shape == (batch, length, 17) and (out[..., 3] == ids + 1).all()
    )


def test_a_window_that_is_too_long(opened):
    with pytest.raises(BertNerError, match="65 tokens at once: this engine takes 1 to 64"):
        opened.logits(*[np.ones((1, 65), np.int64)] * 3)


@pytest.mark.parametrize("call", ["set_optimization_profile_async", "set_input_shape", "set_tensor_address", "execute_async_v3"])
def test_a_call_that_fails_is_not_passed_over(opened, monkeypatch, call):
    monkeypatch.setattr(torch.cuda, "stream", contextlib.nullcontext)
    opened.context = MagicMock(active_optimization_profile=0)
    one = {k: np.ones((1, 9), np.int64) for k in module.MODEL_INPUTS}
    assert opened.run(1, one).shape == (1, 9, 17)
    assert opened.context.set_optimization_profile_async.call_args.args == (
        1,
        7,
    ) and opened.context.execute_async_v3.call_args.args == (7,)
    assert {c.args for c in opened.context.set_input_shape.call_args_list} == {
        (k, (1, 9)) for k in module.MODEL_INPUTS
    }
    assert {c.args[0] for c in opened.context.set_tensor_address.call_args_list} == {*module.MODEL_INPUTS, "logits"}
    getattr(opened.context, call).return_value = False
    with pytest.raises(RuntimeError, match=call): opened.run(1, one)


# ---------------------------------------------------------------- names and signatures, in NVIDIA's own bindings
DUMP = """
import json, tensorrt_bindings as trt
assert trt.Dims((1, 2, 17))[-1] == 17
doc = lambda o: d if isinstance(d := getattr(o, "__doc__", ""), str) else ""
print(json.dumps(dict(version=trt.__version__, names={n: {m: doc(getattr(o, m, None)) for m in dir(o)} for n, o in vars(trt).items()})))
"""
STUBS = dict(
    nvinfer="createInferBuilder_INTERNAL createInferRefitter_INTERNAL createInferRuntime_INTERNAL "
    "getBuilderPluginRegistry getPluginRegistry",
    nvinfer_plugin="initLibNvInferPlugins",
    nvonnxparser="createNvOnnxParser_INTERNAL createNvOnnxParserRefitter_INTERNAL getNvOnnxParserVersion",
)


def read_bindings(folder, tmp):
    """Every name of the bindings in `folder` (None: those installed) with its signature; three empty libraries stand
    in for TensorRT's own."""
    cc = shutil.which("cc") or shutil.which("gcc")
    assert cc, "a C compiler is needed to make three empty libraries: apt-get install gcc"
    for lib, functions in STUBS.items():
        for major in (10, 11):
            code = "".join(f"void *{f}(void) {{ return 0; }}\n" for f in functions.split())
            subprocess.run(
                [cc, "-shared", "-fPIC", "-x", "c", "-", "-o", str(tmp / f"lib{lib}.so.{major}")],
                input=code.encode(),
                check=True,
            )
    env = dict(os.environ, LD_LIBRARY_PATH=str(tmp), **({"PYTHONPATH": str(folder)} if folder else {}))
    done = subprocess.run([sys.executable, "-c", DUMP], env=env, capture_output=True, text=True)
    assert done.returncode == 0, (
        f"the bindings do not import: pip install --no-deps tensorrt_cu13_bindings==11.4.0.106\n{done.stderr}"
    )
    return json.loads(done.stdout)


class Uses(ast.NodeVisitor):
    """Follows what a program does with the module `trt`, by the types that the signatures give, and looks every name
    up."""
    def __init__(self, names):
        self.names, self.types, self.seen, self.faults = names, {"trt": ("module", "")}, set(), set()

    def member(self, owner, name):
        if name not in (self.names if owner == "" else self.names[owner]):
            self.faults.add(f"{owner or 'trt'}.{name} does not exist")
        self.seen.add(f"{owner or 'trt'}.{name}")

    def signatures(self, owner, name):
        found = re.findall(rf"^(?:\d+\. )?{name}\((.*)\) -> (\S.*)$", self.names[owner].get(name, ""), re.M)
        return [
            ([p for p in re.split(r", (?=\w+: )", a) if p and not p.startswith("self:")], r)
            for a, r in found
            if "*args" not in a
        ]

    def kind(self, node):
        """("module" | "class" | "object" | "method", name) of an expression, None if it has nothing to do with
        TensorRT."""
        if ast.unparse(node) in self.types: return self.types[ast.unparse(node)]
        if isinstance(node, ast.Attribute) and (base := self.kind(node.value)):
            what, owner = base
            if what == "method": return None
            self.member(owner, node.attr)
            if what == "module": return ("class", node.attr) if node.attr in self.names else None
            return (
                ("method", f"{owner}.{node.attr}") if what == "object" and self.signatures(owner, node.attr) else None
            )
        if isinstance(node, ast.Call) and (f := self.kind(node.func)):
            owner, name = (f[1], "__init__") if f[0] == "class" else f[1].split(".")
            overloads = self.signatures(owner, name)
            fitting = [
                r
                for p, r in overloads
                if sum("=" not in x for x in p) <= len(node.args) + len(node.keywords) <= len(p)
                and {k.arg for k in node.keywords} <= {x.split(":")[0] for x in p}
            ]
            if not fitting:
                self.faults.add(
                    f"{owner}.{name} does not take {len(node.args)} arguments: {[p for p, _ in overloads]}"
                )
            given = re.split(r"\.|::", fitting[0])[-1] if fitting and name != "__init__" else owner
            given = given if given in self.names else given.removeprefix("I")
            return ("object", given) if given in self.names else None

    def visit_FunctionDef(self, node):
        outside = self.types
        self.types = dict(outside)
        self.generic_visit(node)
        # locals end here
        self.types = {**outside, **{k: v for k, v in self.types.items() if k.startswith("self.")}}

    def visit_Attribute(self, node): self.kind(node); self.generic_visit(node)
    def visit_Call(self, node): self.kind(node); self.generic_visit(node)
    def visit_Assign(self, node):
        self.generic_visit(node)
        target = node.targets[0]
        pairs = (
            zip(target.elts, node.value.elts)
            if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            else [(target, node.value)]
        )
        for t, v in pairs:
            found = self.kind(v)
            self.types.pop(ast.unparse(t), None)
            if found: self.types[ast.unparse(t)] = found


def uses(source, names):
    found = Uses(names)
    found.visit(ast.parse(source))
    return found


# folders with other versions, unpacked
BINDINGS = [None, *filter(None, os.environ.get("BERT_NER_TENSORRT_BINDINGS", "").split(os.pathsep))]

@pytest.fixture(scope="module", params=BINDINGS, ids=lambda f: os.path.basename(f or "installed"))
def bindings(request, tmp_path_factory): return read_bindings(request.param, tmp_path_factory.mktemp("stubs"))


def test_every_name_and_signature_is_in_the_real_bindings(bindings):
    found = uses(inspect.getsource(module), bindings["names"])
    print(bindings["version"], *sorted(found.seen), sep="\n  ")
    assert not found.faults
    assert found.seen >= {
        "trt.Builder",
        "Builder.create_network",
        "NetworkDefinitionCreationFlag.STRONGLY_TYPED",
        "OnnxParser.parse",
        "ParserError.desc",
        "ITensor.name",
        "IOptimizationProfile.set_shape",
        "IBuilderConfig.add_optimization_profile",
        "Builder.build_serialized_network",
        "Runtime.deserialize_cuda_engine",
        "ICudaEngine.get_tensor_dtype",
        "ICudaEngine.create_execution_context",
        "DataType.INT64",
        "IExecutionContext.set_optimization_profile_async",
        "IExecutionContext.set_input_shape",
        "IExecutionContext.execute_async_v3",
    }


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
        model = BertForTokenClassification._from_config(
            BertConfig(
                vocab_size=99,
                hidden_size=64,
                num_hidden_layers=2,
                num_attention_heads=4,
                intermediate_size=128,
                num_labels=17,
                max_position_embeddings=64,
            ),
            attn_implementation="eager",
        ).eval()
        plain = to_onnx(model, tmp_path/"model.plain.onnx")
        mask = np.array([[1] * 9, [1] * 4 + [0] * 5])
        batch = dict(input_ids=np.arange(18).reshape(2, 9) * mask, attention_mask=mask, token_type_ids=mask // 2)
        half = module.to_fp16(plain, tmp_path/"model.fp16.onnx", [batch, {k: v[:, :3] for k, v in batch.items()}])
        graph = onnx.load(half).graph
        assert [(o.name, o.type.tensor_type.elem_type) for o in [*graph.input, *graph.output]] == \
            [("input_ids", 7), ("attention_mask", 7), ("token_type_ids", 7), ("logits", 1)]
        weights = [
            t.data_type for t in graph.initializer if t.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
        ]
        assert len(weights) > 20 and set(weights) == {onnx.TensorProto.FLOAT16}
        got, want = (OnnxEngine(p, threads=1).logits(**batch) for p in (half, plain))
        assert got.dtype == np.float32 and 0 < np.abs(got - want)[mask == 1].max() < 2e-3
