"The living processes of this machine, by psutil; whatever else runs here has any name and may end at any moment."
import os
import re
from contextlib import suppress

import psutil

# a zombie is among the first
GONE = psutil.NoSuchProcess, psutil.AccessDenied, ProcessLookupError, PermissionError


def processes():
    "(id, parent, process group, command line) of every living process that can be looked at."
    for p in psutil.process_iter():
        with suppress(*GONE):
            with p.oneshot(): state, parent, command = p.status(), p.ppid(), p.cmdline()
            if state != psutil.STATUS_ZOMBIE: yield p.pid, parent, os.getpgid(p.pid), " ".join(command)


def group(leader, word=""):
    "Ids of the living processes in the process group `leader` whose command line has `word` in it."
    return [p for p, _, g, command in processes() if g == leader and word in command]


def named(word):
    """Ids of the living processes, other than this one, whose command line has `word` in it, and not as the beginning
    of a longer one."""
    return [
        p for p, _, _, command in processes() if re.search(re.escape(word) + r"(?!\w)", command) and p != os.getpid()
    ]


def stubs(server):
    "Ids of the living Python processes of a `TritonServer`'s models."
    return group(server.process.pid, "triton_python_backend_stub")


def memory(server):
    "MiB that the processes of a `TritonServer` hold, shared pages counted once."
    total = 0
    for p in group(server.process.pid):
        with suppress(*GONE): total += psutil.Process(p).memory_full_info().pss
    return total / 2**20
