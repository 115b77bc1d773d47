# SPDX-License-Identifier: Apache-2.0
"""System calls of a program that last, or fail, as a test wants it: by strace(1)."""

import contextlib
import pathlib
import subprocess
import tempfile
import time

import pytest

from harness import need, wait_for


def tracer(calls, what, *more):
    """What is put before a program's arguments: `calls` are met by `what`, as strace injects it.
    `when=N` in it counts the calls of each thread."""
    # A look for leaks traces too, and two cannot.
    return [need("strace"), "-f", "-E", "ASAN_OPTIONS=detect_leaks=0", "-o", "/dev/null", "-e",
            f"trace={calls}", "-e", f"inject={calls}:{what}", *more]


@contextlib.contextmanager
def meddling(program, calls, what, *more):
    """The same of a program that runs, until the end of the block or until this is called."""
    with tempfile.TemporaryFile("w+") as said:
        strace = subprocess.Popen([*tracer(calls, what, *more), "-p", str(program.pid)], stderr=said)

        def attached():
            said.seek(0)
            return "attached" in said.read()

        def stop():
            strace.terminate()
            try:
                strace.wait(timeout=10)
            except subprocess.TimeoutExpired:  # seen where what it traced was killed
                strace.kill()
                strace.wait()

        try:
            wait_for(lambda: attached() or strace.poll() is not None, what="strace")
            if strace.poll() is not None:
                pytest.skip("processes cannot be traced here")
            yield stop
        finally:
            stop()


def standstill(program, calls, when=1):
    return meddling(program, calls, f"delay_enter=300s:when={when}")


def is_stuck(program, thread):
    """Whether the thread of this name is kept in a system call, and not just looked at in one."""
    def is_stopped():
        for task in pathlib.Path(f"/proc/{program.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it may end meanwhile
                name, _, state = (task / "stat").read_text().partition("(")[2].rpartition(") ")
                if name == thread:
                    return state[0] == "t"
        return False

    for _ in range(5):
        if not is_stopped():
            return False
        time.sleep(0.02)
    return True
