"The image for the processor, built and run as its users run it: read-only, without rights, killed, starved, updated."
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import containers
import pytest
import yaml
from containers import BASE, docker

from bert_ner import Tagger, TritonTagger
from bert_ner.core import ROOT, BertNerError
from bert_ner.synthetic import generate_corpus
from bert_ner.triton.environment import find_free_ports
from bert_ner.triton.repository import build_repository, list_versions, rollback

pytestmark = [pytest.mark.long, pytest.mark.docker, pytest.mark.timeout(1800)]
HARDENED = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--shm-size", "1g"]
TEXT = "Angela Merkel met officials in Paris on Monday."
SECONDS = float(os.environ.get("BERT_NER_SOAK", "30"))   # of the tests under load


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    "The name of the image, built by `make image` from the base image."
    folder, process, before = tmp_path_factory.mktemp("docker"), None, os.environ.get("DOCKER_HOST")
    if not containers.answers(): process = containers.start_daemon(folder)
    try:
        containers.make_base(folder)
        done = subprocess.run(["make", "--old-file", ".venv/ready", "image", f"BASE={BASE}"], cwd=ROOT, capture_output=True, text=True, timeout=1200)
        assert not done.returncode, done.stdout[-2000:] + done.stderr[-2000:]
        yield "bert-ner"
    finally:
        if process:
            process.terminate(); process.wait(60)
            if before is None: os.environ.pop("DOCKER_HOST")


class Container:
    "A running container with its ports on loopback."
    def __init__(self, image, *options):
        self.ports = find_free_ports((0, 0, 0))
        ports = [x for p, inside in zip(self.ports, (8000, 8001, 8002)) for x in ("-p", f"127.0.0.1:{p}:{inside}")]
        self.id = docker("run", "--detach", *HARDENED, *ports, *options, image)

    def state(self, what): return docker("inspect", "--format", f"{{{{.State.{what}}}}}", self.id)
    def logs(self): return [json.loads(line) for line in docker("logs", self.id).splitlines()]
    def says(self, words): return any(words in line["message"] for line in self.logs())
    def client(self, **kw): return TritonTagger(f"127.0.0.1:{self.ports[1]}", **kw)

    def wait(self, true=None, seconds=90):
        "Wait until `true()`; until it answers by default."
        end = time.monotonic() + seconds
        while not (true or self.answers)():
            assert time.monotonic() < end, docker("logs", "--tail", "30", self.id)
            time.sleep(.2)
        return self

    def answers(self):
        try:
            with self.client(retries=0, timeout=5) as tagger: return bool(tagger.tag(TEXT))
        except BertNerError: return False

    def __enter__(self): return self
    def __exit__(self, *_): docker("rm", "--force", "--volumes", self.id)


@pytest.fixture(scope="module")
def server(image):
    with Container(image) as c: yield c.wait()


@pytest.fixture
def repository(tmp_path):
    "A model repository with the model that ships, which the container's user may read."
    for folder in (tmp_path, *tmp_path.parents[:2]): folder.chmod(folder.stat().st_mode | 0o055)
    return build_repository(tmp_path/"models", model=ROOT/"bert_ner"/"pretrained", engine="onnx-int8")


class Load:
    "Eight callers, from entering to leaving the context; what failed, and how many were answered."
    def __init__(self, client): self.client, self.failed, self.done, self.stop = client, [], 0, False

    def _call(self):
        while not self.stop:
            try: self.client.tag(TEXT); self.done += 1
            except BertNerError as e: self.failed.append(str(e))

    def __enter__(self):
        self.threads = [threading.Thread(target=self._call) for _ in range(8)]
        for t in self.threads: t.start()
        return self

    def __exit__(self, *_):
        self.stop = True
        for t in self.threads: t.join()


def test_the_image(image):
    about = json.loads(docker("image", "inspect", image))[0]
    assert about["Size"] < 700e6, about["Size"]
    assert about["Config"]["User"] == "1000:1000" and "Healthcheck" in about["Config"]
    print(f"image: {about['Size'] / 1e6:.0f} MB")


def test_same_entities_as_here(server):
    texts = [" ".join(words) for words, _ in generate_corpus(n=300)]
    here = [[(e.start, e.end, e.label) for e in es] for es in Tagger.from_pretrained().tag_batch(texts)]
    for protocol, port in (("grpc", server.ports[1]), ("http", server.ports[0])):
        with TritonTagger(f"127.0.0.1:{port}", protocol=protocol) as tagger:
            assert [[(e.start, e.end, e.label) for e in es] for es in tagger.tag_batch(texts)] == here


def test_the_log_is_json_and_names_the_engine(server):
    logs = server.logs()
    assert all(set(line) == {"time", "level", "source", "message"} for line in logs)
    assert server.says("the model repository is /srv/models") and server.says("runs on o")
    assert {line["level"] for line in logs} <= {"info", "warning", "error"}


def test_it_has_no_rights(server):
    run = lambda *command: docker("exec", server.id, *command, check=False)
    assert "Read-only file system" in run("touch", "/opt/bert-ner/x")
    assert re.search(r"CapEff:\s+0+$", run("cat", "/proc/1/status"), re.M)
    assert run("id", "-u") == "1000"


def test_it_gets_healthy(server): server.wait(lambda: server.state("Health.Status") == "healthy", 60)


def test_metrics_and_control(server):
    text = urllib.request.urlopen(f"http://127.0.0.1:{server.ports[2]}/metrics", timeout=10).read().decode()
    assert 'nv_inference_request_success{model="bert_ner"' in text
    request = urllib.request.Request(f"http://127.0.0.1:{server.ports[0]}/v2/repository/models/bert_ner/unload", method="POST")
    with pytest.raises(urllib.error.HTTPError, match="403"): urllib.request.urlopen(request, timeout=10)


def test_a_killed_python_process_heals(server):
    pids = [line.split()[0] for line in docker("top", server.id, "-eo", "pid,args").splitlines() if "python_backend_stub" in line]
    for pid in pids: os.kill(int(pid), signal.SIGKILL)
    server.wait(lambda: server.says("the server was restarted")).wait()
    assert server.state("Status") == "running"


def test_a_killed_container_is_started_again(image):
    with Container(image, "--restart", "unless-stopped") as c, c.wait().client(retries=0) as tagger:
        assert tagger.tag(TEXT)
        os.kill(int(c.state("Pid")), signal.SIGKILL)
        with pytest.raises(BertNerError, match="no Triton server responds at|did not respond|lost") as e:
            for _ in range(200): tagger.tag(TEXT)
        assert "\n" not in str(e.value)
        c.wait()
        with c.client() as again: assert again.tag(TEXT)
        assert docker("inspect", "--format", "{{.RestartCount}}", c.id) == "1"


def test_versions_come_and_go_under_load(image, repository):
    "A mounted repository: a new version, then the old one again; no request fails."
    with Container(image, "-v", f"{repository}:/models:ro") as c:
        c.wait()
        with c.client() as tagger, Load(tagger) as load:
            build_repository(repository, model=ROOT/"bert_ner"/"pretrained", engine="onnx-int8")
            c.wait(lambda: c.says("version 2 of bert_ner is served"))
            rollback(repository)
            c.wait(lambda: c.says("version 1 of bert_ner is served"))
            done = load.done
            c.wait(lambda: load.done > done + 100)
        assert load.failed == [] and load.done > 100


def test_a_broken_version_is_not_served(image, repository):
    with Container(image, "-v", f"{repository}:/models:ro") as c:
        c.wait()
        with c.client() as tagger, Load(tagger) as load:
            made = build_repository(repository.parent/"other", model=ROOT/"bert_ner"/"pretrained", engine="onnx-int8")
            (made/"bert_ner"/"1"/"model.int8.onnx").write_bytes(b"no model")
            (made/"bert_ner"/"1").rename(repository/"bert_ner"/"2")
            c.wait(lambda: c.says("version 2 of bert_ner is not served, version 1 still is: "))
            time.sleep(3)
        assert load.failed == [] and list_versions(repository) == [1, 2]
        assert sum("is not served" in line["message"] for line in c.logs()) == 1     # tried once


def test_a_repository_without_a_good_model_ends_in_a_sentence(image, repository):
    (repository/"bert_ner"/"1"/"tokenizer.json").write_bytes(b"{}")
    with Container(image, "-v", f"{repository}:/models:ro") as c:
        c.wait(lambda: c.state("Status") == "exited")
        last = c.logs()[-1]
        assert (c.state("ExitCode"), last["level"], last["source"]) == ("1", "error", "bert-ner")
        assert "tokenizer.json has changed since it was prepared" in last["message"]


def test_a_full_disk(image):
    code = "from bert_ner.triton.repository import *; build_repository('/full/models', model='/srv/models/bert_ner/1', engine='onnx-int8')"
    said = docker("run", "--rm", *HARDENED, "--tmpfs", "/full:size=5m,uid=1000", "--entrypoint", "sh", image, "-c",
                  f'/opt/bert-ner/bin/python -c "{code}"; ls -A /full', check=False)
    assert said.splitlines()[-1] == "bert_ner.core.BertNerError: /full/models cannot be written: No space left on device"


def test_a_gigabyte_is_enough(image):
    "Mixed lengths for a while under a memory limit."
    short = [" ".join(words) for words, _ in generate_corpus(n=200)]
    mixed = short + [" ".join(short[:n]) for n in (10, 50, 200)] + [" ".join(short) * 4]
    with Container(image, "--memory", "1g", "--memory-swap", "1g") as c:
        c.wait()
        end, used = time.monotonic() + SECONDS, []
        def call(k):
            n = 0
            with c.client(timeout=300) as tagger:
                while time.monotonic() < end: tagger.tag(mixed[(n * 8 + k) % len(mixed)]); n += 1
            return n
        def measure():
            while time.monotonic() < end:
                used.append(docker("stats", "--no-stream", "--format", "{{.MemUsage}}", c.id).split()[0])
        with ThreadPoolExecutor(9) as pool:
            pool.submit(measure)
            done = sum(pool.map(call, range(8)))
        assert (c.state("OOMKilled"), c.state("Status"), c.says("was restarted")) == ("false", "running", False)
        print(f"{done} requests in {SECONDS:g} s, memory {used[0]} to {used[-1]}")


def test_stopping_drains(image):
    long = " ".join(" ".join(words) for words, _ in generate_corpus(n=3000))[:200_000]
    with Container(image) as c:
        c.wait()
        with c.client(timeout=120, retries=0) as tagger, ThreadPoolExecutor(1) as pool:
            answer = pool.submit(tagger.tag, long)
            time.sleep(1)
            began = time.monotonic(); docker("stop", "--time", "30", c.id)
            assert len(answer.result()) > 1000 and time.monotonic() - began < 25
        assert c.state("ExitCode") == "0" and c.logs()[-1]["message"] == "stopped"


class Composed:
    "Services of a Compose file on free ports, from entering to leaving the context."
    def __init__(self, file, *options, text=None, **variables):
        self.ports = dict(zip(("HTTP", "GRPC", "METRICS", "PROMETHEUS"), find_free_ports([0] * 4)))
        self.command = [*containers.compose_program(), "-p", f"test{os.getpid()}", *file, *options]
        self.text, self.variables = text, {k: str(v) for k, v in {**self.ports, **variables}.items()}

    def __call__(self, *args):
        done = subprocess.run([*self.command, *args], env={**os.environ, **self.variables}, input=self.text, cwd=ROOT/"deploy",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600)
        assert not done.returncode, done.stdout[-3000:]
        return done.stdout

    def until(self, true, seconds=90):
        end = time.monotonic() + seconds
        while not (found := true()): assert time.monotonic() < end, self("logs", "--tail", "20"); time.sleep(.5)
        return found

    def client(self, **kw): return TritonTagger(f"127.0.0.1:{self.ports['GRPC']}", timeout=10, **kw)

    def answers(self):
        try:
            with self.client(retries=0) as tagger: return bool(tagger.tag(TEXT))
        except BertNerError: return False

    def __enter__(self):
        try: self("up", "--detach", "--build")
        except BaseException: self.__exit__(); raise
        return self

    def __exit__(self, *_): self("down", "--volumes")


@pytest.fixture
def composed(image):
    "The server and Prometheus."
    with Composed(["-f", str(ROOT/"deploy"/"cpu"/"compose.yaml")], "--profile", "watch", BASE=BASE) as compose: yield compose


def test_compose_with_prometheus(composed):
    "The server answers, Prometheus has what the dashboard asks it for, and a killed server is started again."
    composed.until(composed.answers)
    def query(expression):
        url = f"http://127.0.0.1:{composed.ports['PROMETHEUS']}/api/v1/query?" + urllib.parse.urlencode(dict(query=expression))
        try: return composed.answers() and json.load(urllib.request.urlopen(url, timeout=10))["data"]["result"]
        except OSError: return []
    dashboard = json.loads((ROOT/"deploy"/"grafana"/"bert-ner.json").read_text())
    expressions = [t["expr"] for panel in dashboard["panels"] for t in panel["targets"]]
    assert len(expressions) > 4
    for expression in expressions: assert composed.until(lambda: query(expression)), expression
    rate = 'rate(nv_inference_request_success{model="bert_ner"}[1m])'
    assert composed.until(lambda: [r for r in query(rate) if float(r["value"][1]) > 0])
    server = composed("ps", "-q", "triton").split()[-1]
    os.kill(int(docker("inspect", "--format", "{{.State.Pid}}", server)), signal.SIGKILL)
    composed.until(composed.answers)
    assert docker("inspect", "--format", "{{.RestartCount}}", server) == "1"


# --- NVIDIA's image, but for its base

def download(folder, *requirements):
    "Their wheels, and those that they need."
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder, "-c", ROOT/"constraints.txt", *requirements],
                   check=True, capture_output=True, timeout=600)


NVIDIA_BASE = """
FROM bert-ner
USER root
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip
COPY wheels /wheels
COPY tritonserver /usr/local/bin/tritonserver
ENV PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels
ENTRYPOINT []
"""
TRITONSERVER = """#!/bin/sh
packages=/opt/bert-ner/lib/python3.11/site-packages
export LD_LIBRARY_PATH=$packages/nvidia_pytriton.libs
exec $packages/pytriton/tritonserver/bin/tritonserver --backend-directory=/opt/bert-ner/backends "$@"
"""


def test_nvidias_image_and_its_compose_file(image, mini_tagger_folder, tmp_path):
    "Our base in place of NVIDIA's: the same program without its ONNX Runtime backend, so an embedded model is served."
    shutil.copytree(ROOT/"build"/"image"/"wheels", tmp_path/"wheels")
    download(tmp_path/"wheels", "huggingface_hub")       # which tokenizers asks for
    (tmp_path/"Dockerfile").write_text(NVIDIA_BASE)
    repository = build_repository(tmp_path/"models", model=mini_tagger_folder)
    for folder in (tmp_path, *tmp_path.parents[:2]): folder.chmod(folder.stat().st_mode | 0o055)
    (tmp_path/"tritonserver").write_text(TRITONSERVER)
    (tmp_path/"tritonserver").chmod(0o755)
    docker("build", "--quiet", "--tag", "tritonserver-base", tmp_path)
    file = yaml.safe_load((ROOT/"deploy"/"compose.yaml").read_text())
    del file["name"]          # Compose 1, which Debian has, does not know it
    with Composed(["-f", "-"], text=json.dumps(file), IMAGE="tritonserver-base",
                  REPOSITORY=repository, BERT_NER_KEY="secret") as compose:
        compose.until(compose.answers)
        texts = [" ".join(words) for words, _ in generate_corpus(n=100)]
        with compose.client() as tagger: there = tagger.tag_batch(texts)
        assert [[(e.start, e.end, e.label) for e in es] for es in there] == [
            [(e.start, e.end, e.label) for e in es] for es in Tagger.from_pretrained(mini_tagger_folder).tag_batch(texts)]
        server = compose("ps", "-q", "triton").split()[-1]
        assert docker("exec", server, "id", "-u") == "1000"
        url = f"http://127.0.0.1:{compose.ports['HTTP']}/v2/repository/models/bert_ner/load"
        ask = lambda **headers: urllib.request.urlopen(urllib.request.Request(url, b"{}", headers, method="POST"), timeout=60)
        with pytest.raises(urllib.error.HTTPError, match="403"): ask()
        assert ask(**{"bert-ner-key": "secret"}).status == 200
        compose.until(lambda: docker("inspect", "--format", "{{.State.Health.Status}}", server) == "healthy")


# --- Ray

RAY_BASE = """
FROM {base}
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv && useradd -m -u 1000 -g users ray
COPY wheels /wheels
USER ray
RUN python3 -m venv /home/ray/venv
ENV PATH=/home/ray/venv/bin:$PATH PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_DISABLE_PIP_VERSION_CHECK=1
"""


@pytest.fixture
def cluster(image, tmp_path):
    "(head, what starts a worker, folder that all of them have at /data): deploy/kuberay's image on Debian instead of Ray's image."
    download(tmp_path/"wheels", f"{next((ROOT/'build'/'image'/'wheels').glob('bert_ner-*.whl'))}[ray]", "s3fs")
    (tmp_path/"Dockerfile").write_text(RAY_BASE.format(base=BASE))
    docker("build", "--quiet", "--tag", "ray-base", tmp_path)
    subprocess.run(["make", "--old-file", ".venv/ready", "rayimage", "RAY_BASE=ray-base"], cwd=ROOT, check=True, capture_output=True, timeout=600)
    (tmp_path/"data").mkdir(); (tmp_path/"data").chmod(0o777)
    docker("network", "create", "ray")
    ids = []
    def start(name, *command):
        ids.append(docker("run", "--detach", "--network", "ray", "--name", name, "--shm-size", "1g", "-v", f"{tmp_path/'data'}:/data",
                          "bert-ner-ray", "ray", "start", *command, "--block", "--disable-usage-stats"))
        return ids[-1]
    def nodes(): return docker("exec", "head", "python", "-c", "import ray; ray.init('auto', logging_level='ERROR'); print(sum(n['Alive'] for n in ray.nodes()))", check=False).splitlines()[-1:]
    def worker(name):
        before = nodes(); start(name, "--address=head:6379", "--num-cpus=2")
        end = time.monotonic() + 120
        while nodes() == before: assert time.monotonic() < end, docker("logs", name); time.sleep(1)
    try:
        head = start("head", "--head", "--num-cpus=0", "--include-dashboard=false")
        end = time.monotonic() + 120
        while nodes() != ["1"]: assert time.monotonic() < end, docker("logs", head); time.sleep(1)
        yield head, worker, tmp_path/"data"
    finally:
        for i in ids: docker("rm", "--force", "--volumes", i)
        docker("network", "rm", "ray")


def test_a_ray_cluster_of_containers_survives_the_loss_of_its_worker(cluster, tmp_path):
    head, worker, data = cluster
    worker("first")
    texts = [" ".join(words) for words, _ in generate_corpus(n=12_000)]
    (data/"texts.jsonl").write_text("".join(json.dumps(dict(text=t)) + "\n" for t in texts))
    job = subprocess.Popen(["docker", "exec", head, "bert-ner", "annotate", "/data/texts.jsonl", "/data/entities", "--ray-address", "auto",
                            "--num-actors", "2", "--rows-per-shard", "200", "--format", "jsonl"],
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    parts = lambda: len(list((data/"entities").glob("**/*.jsonl")))
    end = time.monotonic() + 300
    while parts() < 5: assert job.poll() is None and time.monotonic() < end, job.communicate()[0]; time.sleep(.2)
    docker("kill", "first")
    assert parts() < 50 and job.poll() is None
    worker("second")
    said = job.communicate(timeout=600)[0]
    assert job.returncode == 0, said
    subprocess.run([Path(sys.executable).with_name("bert-ner"), "annotate", data/"texts.jsonl", tmp_path/"here", "--engine", "onnx-int8",
                    "--rows-per-shard", "200", "--format", "jsonl"], check=True, timeout=600)
    shards = lambda folder: {file.name: file.read_text() for file in folder.glob("*.jsonl")}
    assert shards(data/"entities") == shards(tmp_path/"here") and len(shards(data/"entities")) == 60


# --- Kubernetes

@pytest.mark.parametrize("version", ["1.30", "1.33", "1.36"])
def test_kubernetes_takes_the_manifests(version):
    import kubernetes_validate
    parts = list(yaml.safe_load_all((ROOT/"deploy"/"kubernetes.yaml").read_text()))
    assert [p["kind"] for p in parts] == ["Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler"]
    for part in parts: kubernetes_validate.validate(part, version, strict=True)
    broken = {**parts[0], "spec": {**parts[0]["spec"], "replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError): kubernetes_validate.validate(broken, version, strict=True)
