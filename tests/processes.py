"The living processes of this machine, from /proc."
import os
import re
from pathlib import Path


def processes():
    "(id, parent, process group, command line) of every living process."
    for p in Path("/proc").glob("[0-9]*"):
        try: (state, parent, leader), command = (p/"stat").read_text().rsplit(")", 1)[1].split()[:3], (p/"cmdline").read_text()
        except OSError: continue
        if state != "Z": yield int(p.name), int(parent), int(leader), command


def group(leader, word=""):
    "Ids of the living processes in the process group `leader` whose command line has `word` in it."
    return [p for p, _, g, command in processes() if g == leader and word in command]


def named(word):
    "Ids of the living processes, other than this one, whose command line has `word` in it."
    return [p for p, _, _, command in processes() if word in command and p != os.getpid()]


def stubs(server):
    "Ids of the living Python processes of a `Server`'s models."
    return group(server.process.pid, "triton_python_backend_stub")


def memory(server):
    "MiB that the processes of a `Server` hold, shared pages counted once."
    return sum(int(re.search(r"^Pss:\s+(\d+)", (Path("/proc")/str(p)/"smaps_rollup").read_text(), re.M)[1]) for p in group(server.process.pid)) / 1024
