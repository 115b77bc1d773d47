# SPDX-License-Identifier: Apache-2.0
"""What the options of nbd-mirror-server do to a server that runs."""

import ctypes
import os
import socket

import pytest

from harness import MIB, make_disk, wait_for
from nbd_client import connect, nbd


@pytest.fixture
def disk(world):
    return make_disk(world.path("disk"), MIB)


def configured(world, text):
    path = world.path("server.conf")
    path.write_text(text)
    return ["--config", path]


def test_a_file_says_what_the_command_line_would(world, disk):
    options = configured(world, f"""
# for tonight
EXPORT = ["d={disk},ro", "other={world.path('other')},size=2M,description=a disk"]
max-connections = 1
log-level = debug
""")
    with world.server(options=options) as server:
        assert server.export("d")["read_only"] and server.export("other")["size_bytes"] == 2 * MIB
        assert server.metric("nbd_mirror_connections_limit") == 1
    # The command line comes first.
    with world.server(f"d={disk}", options=[*options, "--max-connections", "7"]) as server:
        assert not server.export("d")["read_only"]
        assert server.ask("GET", "/v1/exports/other")[0] == 404
        assert server.metric("nbd_mirror_connections_limit") == 7


@pytest.mark.parametrize("text, sentence", [
    ("exprot = d", "--config: there is no option 'exprot'"),
    ("max-connections = many", "--max-connections: "),
    ("EXPORT = d=disk,ro", "export 'ro': ro is told behind a comma"),
    ("EXPORT = d=disk,size=4M", "export 'size=4M': size is told behind a comma"),
    ('EXPORT = "d=disk', "a quote is not closed"),
    ("nonsense", "--config: there is no option 'nonsense'"),
    ("help = true", "not allowed"),
    ("take-ownership = d", "take-ownership: This option is not allowed"),
    (None, "--config: ")])
def test_a_file_that_makes_no_sense_is_wrong_usage(world, disk, text, sentence):
    options = ["--config", "missing"] if text is None else configured(world, text)
    exports = [] if "EXPORT" in (text or "") else [f"d={disk}"]
    result = world.run_server(*exports, "--listen", "unix:s", *options)
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert sentence in line


def test_threads_are_pinned_in_turn_to_the_cpus_that_are_named(world, disk):
    cpus = sorted(os.sched_getaffinity(0))[:2]
    options = ["--cpus", ",".join(map(str, cpus))]
    with world.server(f"d={disk}", options=options) as server:
        handles = [connect(server) for _ in range(4)]
        seen = server.connections()
        for each in seen:
            assert os.path.exists(f"/proc/{server.pid}/task/{each['thread']}")
            assert os.sched_getaffinity(each["thread"]) == {each["cpu"]}
        assert {each["cpu"] for each in seen} == set(cpus)
        del handles


def test_no_more_clients_than_allowed_are_let_in(world, disk):
    with world.server(f"d={disk}", options=["--max-connections", "4"]) as server:
        handles = [connect(server) for _ in range(4)]
        with pytest.raises(nbd.Error):
            connect(server)
        server.wait_for_message("is turned away: there are 4 connections already")
        handles.pop().shutdown()
        wait_for(lambda: len(server.connections()) == 3)
        connect(server).pread(512, 0)


def test_the_empty_name_is_written_as_a_dash(world, disk):
    with world.server(disk) as server:
        assert server.export("-")["name"] == ""
        assert server.ask("PUT", "/v1/exports/-/trackers/t", {})[0] == 201


@pytest.mark.parametrize("keys", ["ro,size=3M", "size=3M,ro,cache=direct"])
def test_a_disk_may_be_made_and_served_read_only(world, keys):
    with world.server(f"d={world.path('new')},{keys}") as server:
        assert server.export("d")["size_bytes"] == 3 * MIB and server.export("d")["read_only"]


def test_small_answers_are_not_kept_for_larger_ones(world, disk):
    """TCP_NODELAY of the server's end, looked at through a duplicate of its descriptor."""
    pidfd_getfd = 438  # the same on all architectures
    with world.server(f"d={disk}") as server, \
            socket.create_connection(("127.0.0.1", server.port)) as client:
        client.recv(18)
        pidfd = os.pidfd_open(server.pid)
        seen = []
        for name in os.listdir(f"/proc/{server.pid}/fd"):
            taken = ctypes.CDLL(None).syscall(pidfd_getfd, pidfd, int(name), 0)
            if taken < 0:
                pytest.skip("descriptors of other processes cannot be had here")
            try:
                end = socket.socket(fileno=taken)
            except OSError:  # not a socket
                os.close(taken)
                continue
            with end:
                if end.family == socket.AF_INET and not end.getsockopt(socket.SOL_SOCKET,
                                                                       socket.SO_ACCEPTCONN):
                    seen.append(end.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        os.close(pidfd)
        assert seen == [1]
