"The tests' own eyes: other programs on the machine may be called anything, and end while they are looked at."
import os
import subprocess
import sys
import uuid
from types import SimpleNamespace

import pytest
from processes import group, memory, named, processes

# other copies of these tests may run beside this one
MARK = f"--mark={uuid.uuid4().hex}"


@pytest.fixture
def odd():
    "A process whose command line is no UTF-8, in a process group of its own."
    code = "import sys; print('up', flush=True); sys.stdin.read()"
    process = subprocess.Popen(
        [os.fsencode(sys.executable), b"-c", code.encode(), b"\xff\xfe \xc3", MARK.encode()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    process.stdout.readline()
    yield process
    process.kill(); process.communicate()


def test_any_command_line_is_read(odd):
    (found,) = [p for p in processes() if p[0] == odd.pid]
    assert found[1:3] == (os.getpid(), odd.pid) and MARK in found[3]
    assert (
        named(MARK) == [odd.pid]
        and named(MARK[:-1]) == []
        and group(odd.pid) == group(odd.pid, MARK[-9:]) == [odd.pid]
        and group(odd.pid, MARK + "1") == []
    )
    assert 1 < memory(SimpleNamespace(process=odd)) < 200


def test_one_that_has_ended_is_not_seen(odd):
    odd.kill()
    os.waitid(os.P_PID, odd.pid, os.WEXITED | os.WNOWAIT)                  # a zombie: ended, not yet asked for
    assert named(MARK) == group(odd.pid) == []
    odd.wait()
    assert named(MARK) == group(odd.pid) == [] and memory(SimpleNamespace(process=odd)) == 0
