# SPDX-License-Identifier: Apache-2.0
"""The server under a service manager: sockets that it has opened, and what it is told."""

import contextlib
import fcntl
import socket
import subprocess
import time

import pytest

from harness import MIB, SERVER, accepts, make_disk, wait_for

nbd = pytest.importorskip("nbd")


class Systemd:
    """The receiving end of sd_notify."""

    def __init__(self, world):
        self.path = world.path("notify")
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(self.path))
        self.socket.settimeout(60)
        self.lines = []

    def wait_for(self, line):
        while line not in self.lines:
            self.lines += self.socket.recv(4096).decode().splitlines()


@contextlib.contextmanager
def service(world, sockets=(), notify=None, watchdog_us=None, expect=(0,), arguments=()):
    """The server as systemd starts it: `sockets` are its descriptors 3 and on."""
    disk = world.path("disk")
    if not disk.exists():
        make_disk(disk, MIB)
    env = dict(world.env, SERVER=str(SERVER))
    # LISTEN_PID is the process that becomes the server.
    script = "export LISTEN_PID=$$; "
    for number, each in enumerate(sockets):
        script += f"exec {3 + number}<&{each.fileno()}; "
    if sockets:
        env["LISTEN_FDS"] = str(len(sockets))
    if notify:
        env["NOTIFY_SOCKET"] = str(notify.path)
    if watchdog_us:
        env["WATCHDOG_USEC"] = str(watchdog_us)
    script += 'exec "$SERVER" "$@"'
    command = ["bash", "-c", script, "-", f"d={disk}", "--control", world.path("control"),
               *arguments]
    log = world.quick("service.log")
    with open(log, "wb") as stderr:
        process = subprocess.Popen([str(each) for each in command], env=env, stderr=stderr,
                                   stdin=subprocess.DEVNULL,
                                   pass_fds=[each.fileno() for each in sockets])
    process.log = log
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        assert process.wait(60) in expect


def listening(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as made:
        made.bind(address)
        made.listen()
        return out_of_the_way(made)


def out_of_the_way(made):
    """The same socket, far above the descriptors that the server gets it as."""
    return socket.socket(fileno=fcntl.fcntl(made.fileno(), fcntl.F_DUPFD, 50))


def read(uri):
    handle = nbd.NBD()
    handle.connect_uri(uri)
    data = handle.pread(512, 0)
    handle.shutdown()
    return data


def test_inherited_sockets_are_served_and_the_default_is_not(world):
    path = world.quick("inherited.sock")
    with listening(socket.AF_UNIX, str(path)) as one, \
            listening(socket.AF_INET, ("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with service(world, [one, other]) as process:
            wait_for(lambda: "listening on tcp" in process.log.read_text())
            for uri in (f"nbd+unix:///d?socket={path}", f"nbd://127.0.0.1:{port}/d"):
                assert len(read(uri)) == 512
            lines = [line for line in process.log.read_text().splitlines() if "listening" in line]
            assert lines == [f"listening on unix:{path}", f"listening on tcp:127.0.0.1:{port}"]
        # It is the systemd's: the next service is given it again.
        assert path.exists()


def test_listen_adds_to_what_is_inherited(world):
    path, own = world.quick("inherited.sock"), world.quick("own.sock")
    with listening(socket.AF_UNIX, str(path)) as one:
        with service(world, [one], arguments=["--listen", f"unix:{own}"]):
            wait_for(lambda: accepts(own))
            assert len(read(f"nbd+unix:///d?socket={own}")) == 512
            assert len(read(f"nbd+unix:///d?socket={path}")) == 512


def test_a_descriptor_that_is_no_listening_socket_is_refused(world):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
        datagrams.bind(str(world.path("datagrams")))
        high = out_of_the_way(datagrams)
        with high, service(world, [high], expect=(1,)) as process:
            assert process.wait(60) == 1
    [line] = process.log.read_text().splitlines()
    assert "descriptor 3" in line and "no listening stream socket" in line


def test_the_manager_learns_of_readiness_clients_and_the_end(world):
    systemd = Systemd(world)
    path = world.quick("own.sock")
    arguments = ["--listen", f"unix:{path}"]
    with service(world, notify=systemd, watchdog_us=400_000, arguments=arguments) as process:
        systemd.wait_for("READY=1")
        systemd.wait_for("STATUS=serving 1 export to 0 clients")
        handle = nbd.NBD()
        handle.connect_uri(f"nbd+unix:///d?socket={path}")
        systemd.wait_for("STATUS=serving 1 export to 1 client")
        # Twice in each interval, with much room for a busy machine.
        systemd.lines.clear()
        begun = time.monotonic()
        for _ in range(4):
            systemd.wait_for("WATCHDOG=1")
            systemd.lines.clear()
        assert time.monotonic() - begun < 4
        process.terminate()
        systemd.wait_for("STOPPING=1")
    systemd.socket.close()


def test_without_a_watchdog_none_is_fed(world):
    systemd = Systemd(world)
    with service(world, notify=systemd, arguments=["--listen", f"unix:{world.path('s')}"]):
        systemd.wait_for("READY=1")
    with contextlib.suppress(TimeoutError):
        systemd.socket.settimeout(0.1)
        systemd.wait_for("WATCHDOG=1")
    assert "WATCHDOG=1" not in systemd.lines
    systemd.socket.close()


def test_a_client_of_a_socket_for_both_families_has_its_own_address(world):
    """A mirror finds by that whether its target is its source."""
    made = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    port = made.getsockname()[1]
    with contextlib.closing(out_of_the_way(made)) as inherited, made:
        with service(world, [inherited]):
            wait_for(lambda: accepts(world.path("control")))
            result = world.client("mirror", f"server:d@{world.path('control')}",
                                  f"nbd://127.0.0.1:{port}/d")
            assert result.returncode == 1 and "is the source itself" in result.stderr
