"A Docker daemon for the tests: the machine's own or, as root on Debian, one that lives as long as the tests."
import os
import shutil
import subprocess
import time
from pathlib import Path

BASE = "debian:bookworm-slim"


def docker(*args, check=True, **kw):
    "Its standard output and error."
    done = subprocess.run(["docker", *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=600, **kw)
    assert not check or not done.returncode, done.stdout[-3000:]
    return done.stdout.strip()


def answers():
    try: return not subprocess.run(["docker", "info"], capture_output=True, timeout=60).returncode
    except (FileNotFoundError, subprocess.TimeoutExpired): return False


def why_not() -> str:
    "Why there is no daemon and none can be started; \"\" if there is, or can be."
    if answers() or os.geteuid() == 0 and shutil.which("apt-get"): return ""
    return "there is no Docker daemon, and only root on Debian can start one for the tests"


def apt_install(*packages):
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]):
        subprocess.run(command, check=True, capture_output=True, timeout=600, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


def start_daemon(folder: Path):
    "A process of dockerd with its data in `folder`."
    if lacks := [p for p, name in {"dockerd": "docker.io", "iptables": "iptables"}.items() if not shutil.which(p)]:
        apt_install(*({"dockerd": "docker.io", "iptables": "iptables"}[p] for p in lacks))
    socket = f"unix://{folder}/d.sock"
    command = ["dockerd", "--data-root", folder/"data", "--exec-root", folder/"exec", "-H", socket, "--pidfile", folder/"pid"]
    with open(folder/"log", "wb") as log: process = subprocess.Popen([str(c) for c in command], stdout=log, stderr=log)
    os.environ["DOCKER_HOST"] = socket
    end = time.monotonic() + 60
    while not answers():
        assert process.poll() is None and time.monotonic() < end, (folder/"log").read_text()[-2000:]
        time.sleep(.5)
    return process


def make_base(folder: Path):
    "The base image, pulled or, without a registry, put together from Debian's packages."
    if BASE in docker("images", "--format", "{{.Repository}}:{{.Tag}}"): return
    try:
        if not subprocess.run(["docker", "pull", "--quiet", BASE], capture_output=True, timeout=120).returncode: return
    except subprocess.TimeoutExpired: pass
    if not shutil.which("debootstrap"): apt_install("debootstrap")
    root = folder/"root"
    subprocess.run(["debootstrap", "--variant=minbase", "--include=ca-certificates", "bookworm", str(root)], check=True, capture_output=True, timeout=600)
    for name in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        for part in (root/name).iterdir(): shutil.rmtree(part) if part.is_dir() and not part.is_symlink() else part.unlink()
    tar = subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE)
    docker("import", "-", BASE, stdin=tar.stdout)
    assert not tar.wait()
    shutil.rmtree(root)


def compose_program():
    "Compose, by its plugin or its own program; Debian's is installed where there is none."
    if not subprocess.run(["docker", "compose", "version"], capture_output=True).returncode: return ["docker", "compose"]
    if not shutil.which("docker-compose"): apt_install("docker-compose")
    return ["docker-compose"]
