"""Bulk annotation where it hurts: odd rows, killed processes, a cluster that is not there, and Ray beside the single
process."""
import csv
import gzip
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import jsonschema
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
import yaml
from hypothesis import given, settings, strategies as st

from bert_ner.annotate.manifest import RECORDS_DIR, REJECTED
from bert_ner.annotate.run import annotate, start_ray, entity_stats, stop_ray
from bert_ner.core import ROOT, BertNerError, detect_encoding, read_json
from bert_ner.tagger import Tagger

# Ray's, about its own settings
pytestmark = pytest.mark.filterwarnings(r"ignore::DeprecationWarning:ray\.data\.context")
odd = st.sampled_from(
    [
        "Mr. Bush met Paris in New York on Monday.",
        "",
        " ",
        "Paris",
        "\0",
        "🎉 Paris",
        "a\tb",
        'a "quote',
        '"',
        ",",
        "x" * 300,
        "Paris " * 60,
        "İstanbul",
        "\u2028",
        "e\u0301",
        "\ufeff",
        "ends\r",
    ]
)
texts = st.one_of(odd, st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
faulty = st.sampled_from(
    [
        b"",
        b"Paris \xff\xfe",
        b"not JSON",
        b'{"text": null}',
        b'{"text": 1}',
        b'{"id": 1}',
        b"[]",
        b'{"text": "\\ud800"}',
        b'{"text": "Paris", "entities": []}',
        b"1,2,3,4",
        b'"never closed',
        b"[" * 3000,
        b"Paris " * 3000,
    ]
)
LIMIT = dict(max_chars=250, rows_per_shard=3, progress=False)


def run(work, name, data, model, target="out", **kw):
    work.mkdir(parents=True, exist_ok=True)
    (work/name).write_bytes(data)
    return annotate(work/name, work/target, model=model, **LIMIT | kw)


def tree(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(Path(folder).rglob("*")) if p.is_file()}
def rejected(folder): return [*csv.reader(io.StringIO((Path(folder)/REJECTED).read_text()))][1:]


@given(data=st.data(), ending=st.sampled_from(["txt", "jsonl", "csv", "tsv.gz", "txt.zst", "jsonl.gz"]), format=st.sampled_from(["parquet", "jsonl"]))
@settings(max_examples=120, deadline=None, derandomize=True)
def test_any_mix_of_rows_keeps_the_row_count(data, ending, format, mini_tagger_folder, tmp_path_factory):
    "Rows in = rows out + rows rejected; what is out is in order, with the entities that the tagger alone finds."
    work, kind = tmp_path_factory.mktemp("mix"), ending.split(".")[0]
    rows = data.draw(st.lists(st.one_of(texts, texts, faulty), max_size=12))
    def line(r):
        if isinstance(r, bytes): return r + b"\n"
        if kind == "jsonl": return json.dumps(dict(id=1, text=r)).encode() + b"\n"
        if kind == "txt": return r.replace("\n", " ").encode() + b"\n"
        # no quotes in TSV
        if kind == "tsv": return r.replace("\n", " ").replace("\t", " ").encode() + b"\t1\n"
        out = io.StringIO(); csv.writer(out).writerow([r, 1]); return out.getvalue().encode()
    head = {"csv": b"text,id\n", "tsv": b"text\tid\n"}.get(kind, b"")
    body = head + b"".join(map(line, rows))
    if ending.endswith("gz"): body = gzip.compress(body)
    if ending.endswith("zst"): body = pa.compress(body, codec="zstd", asbytes=True)
    plain = head + b"".join(map(line, rows))
    none = (
        kind == "jsonl"
        and any(r in rows for r in (b'{"id": 1}', b'{"text": 1}'))
        and not any(isinstance(r, str) or b"null" in r or b"ud800" in r for r in rows)
    )
    taken = (
        kind == "jsonl"
        and b'{"text": "Paris", "entities": []}' in rows
        and not any(isinstance(r, str) or b"null" in r or b"ud800" in r for r in rows)
    )
    # rejected as a whole
    if none or taken or not detect_encoding(plain)[0].startswith("utf-8"):
        with pytest.raises(BertNerError, match="column 'text'|column 'entities' already|looks like UTF"):
            run(work, f"a.{ending}", body, mini_tagger_folder, format=format)
        assert [*work.iterdir()] == [work/f"a.{ending}"]
        return
    done = run(work, f"a.{ending}", body, mini_tagger_folder, format=format)
    parts = sorted((work/"out").glob("part-*"))
    out = [
        r
        for p in parts
        for r in (
            pq.read_table(p).to_pylist() if format == "parquet" else map(json.loads, p.read_text().split("\n")[:-1])
        )
    ]
    records = [read_json(p) for p in sorted((work/"out"/RECORDS_DIR).glob("*"))]
    assert sum(r["rows"] for r in records) == done["rows"] + done["rejected"] == len(out) + len(rejected(work/"out"))
    if kind in ("txt", "jsonl", "tsv"): assert len(out) + len(rejected(work/"out")) == len(rows)
    if not any(isinstance(r, bytes) for r in rows): assert len(out) + len(rejected(work/"out")) == len(rows)
    tagger = Tagger.from_pretrained(mini_tagger_folder)
    assert [r["entities"] for r in out] == [[e.to_dict() for e in tagger.tag(r["text"])] for r in out]


def test_every_kind_of_bad_row_is_named_with_its_number(mini_tagger_folder, tmp_path):
    lines = [b'{"text": "Paris"}', b'{"text": null}', b'{"text": 7}', b'{"a": 1}', b"nonsense", b"",
        b'{"text": "\xff"}', json.dumps(dict(text="x" * 251)).encode(), b'{"text": "York"}']
    done = run(tmp_path, "a.jsonl", b"\n".join(lines), mini_tagger_folder)
    assert (done["rows"], done["rejected"]) == (2, 7)
    assert [(int(n), why) for _, n, why in rejected(tmp_path / "out")] == [
        (2, "null"),
        (3, "not text but int"),
        (4, "no 'text'"),
        (5, "not JSON"),
        (6, "empty line"),
        (7, "not valid UTF-8"),
        (8, "251 characters, more than 250"),
    ]


def test_a_parquet_row_keeps_everything_it_had(mini_tagger_folder, tmp_path):
    "Types too, those of nested columns as well; a row with broken UTF-8 in any column is rejected."
    from datetime import datetime
    from decimal import Decimal
    broken = pa.StringArray.from_buffers(
        4, pa.array([0, 5, 6, 6, 11], pa.int32()).buffers()[1], pa.py_buffer(b"Paris\xffParis")
    )
    when = pa.array([datetime(2020, 1, i + 1) for i in range(4)], pa.timestamp("ns", "UTC"))
    table = pa.table(
        dict(
            text=broken,
            when=when,
            price=pa.array([Decimal("1.10")] * 4),
            tags=pa.array([["a"], [], None, ["b", None]]),
            kind=pa.array(["x", "y", "x", None]).dictionary_encode(),
            raw=pa.array([b"\0\xff"] * 4),
            deep=pa.array([dict(a=1, b=[dict(c="d")])] * 4),
            n=pa.array([2**63, 1, 2, 3], pa.uint64()),
        )
    )
    pq.write_table(table, tmp_path/"a.parquet")
    done = annotate(tmp_path/"a.parquet", tmp_path/"out", model=mini_tagger_folder, **LIMIT)
    assert (done["rows"], done["rejected"]) == (3, 1) and rejected(tmp_path/"out")[0][1:] == ["2", "not valid UTF-8"]
    out = pa.concat_tables([pq.read_table(p) for p in sorted((tmp_path/"out").glob("part-*"))])
    expected = pq.read_table(tmp_path/"a.parquet").take([0, 2, 3])
    assert out.drop_columns("entities").cast(expected.schema).equals(expected) and [
        len(e) for e in out["entities"].to_pylist()
    ] == [1, 0, 1]
    annotate(tmp_path/"a.parquet", tmp_path/"out.jsonl", model=mini_tagger_folder, **LIMIT)
    assert [json.loads(l)["tags"] for l in (tmp_path / "out.jsonl").read_text().splitlines()] == [
        ["a"],
        None,
        ["b", None],
    ]


def test_columns_of_jsonl_that_do_not_fit_stay_in_the_row(mini_tagger_folder, tmp_path):
    rows = [dict(text="Paris", id=i, extra=dict(a=[i])) for i in range(1500)] + [
        dict(text="York", id="late", new=1.5),
        dict(text="Monday", id=2**70),
    ]
    run(
        tmp_path,
        "a.jsonl",
        "".join(json.dumps(r) + "\n" for r in rows).encode(),
        mini_tagger_folder,
        "out.parquet",
        rows_per_shard=700,
    )
    def whole(r):
        kept = {k: v for k, v in r.items() if v is not None and k not in ("entities", "other_json")}
        return kept | json.loads(r["other_json"] or "{}")
    assert [whole(r) for r in pq.read_table(tmp_path/"out.parquet").to_pylist()] == rows


def test_a_line_of_a_hundred_megabytes_is_passed_over(mini_tagger_folder, tmp_path):
    with open(tmp_path/"a.txt", "wb") as f:
        f.write(b"Paris\n")
        for _ in range(100): f.write(b"x" * 2**20)
        f.write(b"\nYork\n")
    before = psutil.Process().memory_info().rss
    assert annotate(tmp_path/"a.txt", tmp_path/"out", model=mini_tagger_folder, **LIMIT)["rows"] == 2
    assert (
        rejected(tmp_path / "out") == [[str(tmp_path / "a.txt"), "2", "line too long"]]
        and psutil.Process().memory_info().rss - before < 80 * 2**20
    )


@pytest.mark.parametrize("given, says", [
    (dict(gpus_per_actor=1), "gpus-per-actor is for Ray"),
    (dict(gpus_per_actor=1, num_actors=1, engine="onnx-int8"), "'onnx-int8' does not run on cuda: onnx, torch, tensorrt can"),
])
def test_a_gpu_is_not_reserved_for_work_of_the_processor(mini_tagger_folder, tmp_path, given, says):
    (tmp_path/"a.txt").write_text("in Paris\n")
    with pytest.raises(BertNerError, match=says): annotate(tmp_path/"a.txt", tmp_path/"out", model=mini_tagger_folder, **given)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    "A folder of three files, 1,200 rows, of which 12 are bad."
    folder = tmp_path_factory.mktemp("many")/"in"; folder.mkdir()
    lines = [f"Mr. Bush met Paris in New York on Monday {i}" if i % 100 else None for i in range(1200)]
    (folder/"a.jsonl").write_text("".join(json.dumps(dict(text=t, id=i)) + "\n" for i, t in enumerate(lines[:600])))
    (folder / "b.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps(dict(text=t, id=i)) + "\n" for i, t in enumerate(lines[600:])).encode())
    )
    (folder/"c.jsonl").write_text("")
    return folder


@pytest.fixture(scope="module")
def expected(many, mini_tagger_folder, tmp_path_factory):
    "What one process writes in one go."
    out = tmp_path_factory.mktemp("expected")/"out"
    assert {
        k: v
        for k, v in annotate(many, out, model=mini_tagger_folder, rows_per_shard=20, progress=False).items()
        if k != "seconds"
    } == dict(rows=1188, rejected=12, shards=61, skipped=[])
    return tree(out)


def finished(out): return len([*(out/RECORDS_DIR).glob("*.json")]) if out.exists() else 0


def killed(process, out, count):
    "Kill `process` with SIGKILL once it has written `count` parts."
    try:
        while finished(out) < count:
            assert process.poll() is None, process.stderr.read()
            time.sleep(.002)
    finally: process.send_signal(signal.SIGKILL); process.wait()


def command(*args, **env):
    return subprocess.Popen(
        [sys.executable, "-c", "from bert_ner.cli import main; main()", "annotate", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | env,
    )


def test_killed_at_any_moment_the_same_command_goes_on(many, expected, mini_tagger_folder, tmp_path):
    out, args = tmp_path/"out", ("--model", mini_tagger_folder, "--rows-per-shard", 20)
    for count in (1, 12, 30): killed(command(many, out, *args), out, count)
    assert 30 <= finished(out) < 61
    # as a kill leaves it
    (out/f".part-00000-000029.jsonl.{os.getpid()}").write_bytes(b"half")
    last = command(many, out, *args)
    said, error = last.communicate()
    assert (
        (last.returncode, error) == (0, "")
        and said.startswith("1,188 rows in ")
        and f"12 rejected: {out / REJECTED}" in said
    )
    assert tree(out) == expected


def test_another_input_model_or_layout_is_refused(many, mini_tagger_folder, tmp_path):
    source, model, out = tmp_path/"in", tmp_path/"model", tmp_path/"out"
    shutil.copytree(many, source); shutil.copytree(mini_tagger_folder, model)
    def again(**kw): return annotate(source, out, **dict(model=model, progress=False, rows_per_shard=2000) | kw)
    again()
    before = tree(out)
    with pytest.raises(BertNerError, match="started with another rows_per_shard"): again(rows_per_shard=6)
    with pytest.raises(BertNerError, match="started with another format"): again(format="parquet")
    (model/"tagger.json").write_text((model/"tagger.json").read_text() + " ")
    with pytest.raises(BertNerError, match="started with another model: .* --overwrite"): again()
    with (source/"c.jsonl").open("a") as f: f.write('{"text": "Paris"}\n')
    with pytest.raises(BertNerError, match="another input and another model"): again()
    assert tree(out) == before
    assert again(overwrite=True)["rows"] == 1189
    for what, where in ((many, source), (source, source/"out"), (many, ROOT/"nbs")):
        with pytest.raises(BertNerError): annotate(what, where, model=model, overwrite=True, progress=False)
    assert (ROOT/"nbs/index.ipynb").exists()


def test_a_run_that_lost_rows_does_not_finish(many, mini_tagger_folder, tmp_path):
    out = tmp_path/"out"
    annotate(many, out, model=mini_tagger_folder, rows_per_shard=400, progress=False)
    part = out/"part-00000-000001.jsonl"
    lines = part.read_text().splitlines(keepends=True)
    # the same size, one row less
    part.write_text("".join(lines[:-1]) + " " * (len(lines[-1]) - 1) + " ")
    manifest = read_json(out/"_manifest.json")
    manifest["done"] = None; (out/"_manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BertNerError, match="part-00000-000001.jsonl does not hold the rows"):
        annotate(many, out, model=mini_tagger_folder, rows_per_shard=400, progress=False)


def test_stats_count_what_is_there(many, mini_tagger_folder, tmp_path):
    annotate(many, tmp_path/"out.parquet", model=mini_tagger_folder, progress=False)
    found = entity_stats(tmp_path/"out.parquet")
    assert (found["rows"], found["rejected"], found["entities"]) == (1188, 12, 4 * 1188) and found["labels"]["geo"][
        "most"
    ] == [("Paris", 1188), ("New York", 1188)]
    said = subprocess.run(
        [sys.executable, "-c", "from bert_ner.cli import main; main()", "stats", str(tmp_path / "out.parquet")],
        capture_output=True,
        text=True,
    )
    assert (
        said.stderr == ""
        and said.stdout.splitlines()[0] == "1,188 rows, 12 rejected, 4,752 entities"
        and "Paris (1,188), New York (1,188)" in said.stdout
    )


@pytest.fixture(scope="module")
def two_actors(tmp_path_factory):
    "Ray on this machine, with room for two actors."
    logs = tmp_path_factory.mktemp("r")
    start_ray(ray, 2, str(logs))
    yield
    stop_ray(ray)


def test_ray_writes_what_one_process_writes(two_actors, many, expected, mini_tagger_folder, tmp_path):
    annotate(many, tmp_path/"out", model=mini_tagger_folder, rows_per_shard=20, num_actors=2, progress=False)
    assert tree(tmp_path/"out") == expected


def test_an_actor_that_is_killed_loses_nothing(two_actors, many, expected, mini_tagger_folder, tmp_path):
    out, seen = tmp_path/"out", []
    def kill():
        while finished(out) < 10: time.sleep(.01)
        mine = {c.pid for c in psutil.Process().children(recursive=True)}
        actor = next(
            p
            for p in psutil.process_iter(["pid", "cmdline"])
            if p.pid in mine and "MapBatches(Annotator)" in " ".join(p.info["cmdline"] or ())
        )
        actor.kill(); seen.append(finished(out))
    killer = threading.Thread(target=kill); killer.start()
    annotate(many, out, model=mini_tagger_folder, rows_per_shard=20, num_actors=2, progress=False)
    killer.join()
    assert 10 <= seen[0] < 61 and tree(out) == expected


@pytest.fixture
def short_tmp():
    "A folder whose name is short enough for the sockets that Ray makes in it."
    with tempfile.TemporaryDirectory(prefix="r", ignore_cleanup_errors=True) as d: yield d


def test_a_killed_driver_takes_its_ray_along_and_its_run_goes_on(
    two_actors, many, expected, mini_tagger_folder, tmp_path, short_tmp
):
    out = tmp_path/"out"
    driver = command(
        many, out, "--model", mini_tagger_folder, "--rows-per-shard", 20, "--num-actors", 2, TMPDIR=short_tmp
    )
    processes = []
    def watch():
        while driver.poll() is None:
            try: processes[:] = {*processes, *psutil.Process(driver.pid).children(recursive=True)}
            except psutil.NoSuchProcess: return
            time.sleep(.2)
    watcher = threading.Thread(target=watch); watcher.start()
    killed(driver, out, 10); watcher.join()
    assert 10 <= finished(out) < 61 and len(processes) >= 4
    # Ray's two agents go too, when they have noticed
    working = [p for p in processes if p.is_running() and "Agent" not in p.name()]
    assert psutil.wait_procs(working, timeout=60)[1] == []
    annotate(many, out, model=mini_tagger_folder, rows_per_shard=20, num_actors=2, progress=False)
    assert tree(out) == expected


def test_an_error_in_an_actor_is_one_sentence(two_actors, many, mini_tagger_folder, tmp_path):
    (tmp_path/"a.csv").write_text("id,body\n1,Paris\n")
    with pytest.raises(BertNerError, match="a.csv: no column 'text': there are id, body"):
        annotate(tmp_path/"a.csv", tmp_path/"out", model=mini_tagger_folder, num_actors=2, progress=False)


def test_an_unreachable_cluster_is_one_sentence(many, mini_tagger_folder, tmp_path):
    # listens, but is no Ray
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0)); deaf.listen()
        for address in ("127.0.0.1:9", "nowhere", f"127.0.0.1:{deaf.getsockname()[1]}"):
            said = command(many, tmp_path/"out", "--model", mini_tagger_folder, "--ray-address", address)
            out, error = said.communicate(timeout=120)
            assert (
                (said.returncode, out, error.count("\n")) == (1, "", 1)
                and address in error
                and error.startswith("bert-ner: ")
            ), error


# The fields of KubeRay's v1 types (ray-operator/apis/ray/v1/rayjob_types.go and raycluster_types.go), and of
# Kubernetes' Container and PodSpec those that the file uses.
def strict(required=(), **fields):
    return dict(type="object", properties=fields, required=list(required), additionalProperties=False)
TEXT, WHOLE, YES, WORDS, ANY = (
    dict(type="string"),
    dict(type="integer", minimum=0),
    dict(type="boolean"),
    dict(type="object", additionalProperties=dict(type="string")),
    {},
)
QUANTITY = dict(
    type="object", additionalProperties=dict(type=["string", "integer"], pattern=r"^[0-9]+(\.[0-9]+)?(m|[kMGTPE]i?)?$")
)
CONTAINER = strict(
    ["name", "image"],
    name=dict(TEXT, pattern="^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"),
    image=TEXT,
    env=dict(type="array"),
    resources=strict(requests=QUANTITY, limits=QUANTITY),
    envFrom=dict(
        type="array", items=strict(secretRef=strict(["name"], name=TEXT), configMapRef=strict(["name"], name=TEXT))
    ),
)
TEMPLATE = strict(
    ["spec"],
    metadata=ANY,
    spec=strict(
        ["containers"],
        containers=dict(type="array", items=CONTAINER, minItems=1),
        volumes=ANY,
        nodeSelector=WORDS,
        tolerations=ANY,
    ),
)
GROUP = dict(serviceType=TEXT, headService=ANY, enableIngress=YES, rayStartParams=WORDS, template=TEMPLATE)
WORKERS = dict(
    groupName=TEXT,
    replicas=WHOLE,
    minReplicas=WHOLE,
    maxReplicas=WHOLE,
    numOfHosts=WHOLE,
    rayStartParams=WORDS,
    template=TEMPLATE,
    scaleStrategy=ANY,
)
CLUSTER = strict(
    ["headGroupSpec"],
    headGroupSpec=strict(["rayStartParams", "template"], **GROUP),
    rayVersion=TEXT,
    enableInTreeAutoscaling=YES,
    autoscalerOptions=ANY,
    headServiceAnnotations=WORDS,
    suspend=YES,
    workerGroupSpecs=dict(
        type="array",
        items=strict(["groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"], **WORKERS),
    ),
)
SPEC = strict(
    activeDeadlineSeconds=WHOLE,
    backoffLimit=WHOLE,
    rayClusterSpec=CLUSTER,
    submitterPodTemplate=TEMPLATE,
    metadata=WORDS,
    clusterSelector=WORDS,
    submitterConfig=strict(backoffLimit=WHOLE),
    managedBy=TEXT,
    deletionStrategy=ANY,
    entrypoint=TEXT,
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    submissionMode=dict(enum=["K8sJobMode", "HTTPMode", "InteractiveMode"]),
    entrypointResources=TEXT,
    entrypointNumCpus=dict(type="number"),
    entrypointNumGpus=dict(type="number"),
    ttlSecondsAfterFinished=WHOLE,
    shutdownAfterJobFinishes=YES,
    suspend=YES,
)
RAYJOB = strict(
    ["apiVersion", "kind", "metadata", "spec"],
    apiVersion=dict(const="ray.io/v1"),
    kind=dict(const="RayJob"),
    metadata=strict(["name"], name=TEXT, namespace=TEXT, labels=WORDS),
    spec=SPEC,
)


def test_the_kubernetes_job_has_the_fields_that_kuberay_knows():
    job = yaml.safe_load((ROOT/"deploy/kuberay/rayjob.yaml").read_text())
    jsonschema.validate(job, RAYJOB)
    for wrong in (dict(entryPoint="x"), dict(backoffLimit="3")):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**job, "spec": {**job["spec"], **wrong}}, RAYJOB)


def test_the_kubernetes_job_gives_a_command_that_there_is_and_the_ray_that_is_pinned():
    import shlex
    from typer.main import get_command
    from bert_ner.cli import app
    spec = yaml.safe_load((ROOT/"deploy/kuberay/rayjob.yaml").read_text())["spec"]
    program, verb, *args = shlex.split(spec["entrypoint"])
    given = get_command(app).commands[verb].make_context(verb, args).params
    assert program == "bert-ner" and given["ray_address"] == "auto" and given["num_actors"] == 64
    cores = sum(
        g["replicas"] * int(g["template"]["spec"]["containers"][0]["resources"]["limits"]["cpu"])
        for g in spec["rayClusterSpec"]["workerGroupSpecs"]
    )
    assert cores == 64
    pinned = next(
        l.partition("==")[2] for l in (ROOT / "constraints.txt").read_text().splitlines() if l.startswith("ray==")
    )
    assert (
        spec["rayClusterSpec"]["rayVersion"] == pinned == ray.__version__
        and f"rayproject/ray:{pinned}-py311" in (ROOT / "deploy/kuberay/Dockerfile").read_text()
    )
