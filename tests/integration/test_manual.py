# SPDX-License-Identifier: Apache-2.0
"""The examples of the manual pages, run as they are printed."""

import os
import re
import subprocess

from harness import CLIENT, MIB, ROOT, SERVER, accepts, make_disk, same_content, wait_for


def examples(page):
    text = (ROOT / "man" / page).read_text()
    section = re.search(r"^\.Sh EXAMPLES\n(.*?)^\.Sh", text, re.MULTILINE | re.DOTALL).group(1)
    blocks = re.findall(r"^\.Bd.*?\n(.*?)^\.Ed", section, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def shell(world, command, **more):
    env = dict(world.env, PATH=f"{SERVER.parent}:{CLIENT.parent}:{os.environ['PATH']}")
    return subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=world.directory, env=env,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)


def run(world, command):
    process = shell(world, command)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, f"{command}: {err}"
    return out


def test_the_examples_of_both_pages_work(world):
    serve, look = examples("nbd-mirror-server.1")
    copy, verify, mirror, status = examples("nbd-mirror.1")
    make_disk(world.path("disk.img"), 4 * MIB, [(MIB, MIB)])
    run(world, copy)
    run(world, verify)
    assert same_content(world.path("disk.img"), world.path("copy.img"))
    server = shell(world, serve)
    try:
        wait_for(lambda: accepts(world.path("vm1.control")))
        assert '"name":"vm1"' in run(world, look)
        target = make_disk(world.path("new.img"), 1024 * MIB)
        with world.server(f"vm1={target}",
                          listen=[f"unix:{world.path('new.sock')}"]):
            assert "cut over: downtime" in run(world, mirror)
            assert "vm1: done" in run(world, status)
    finally:
        server.terminate()
        server.communicate(timeout=60)
    assert same_content(world.path("vm1.img"), target)
