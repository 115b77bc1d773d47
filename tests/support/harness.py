# SPDX-License-Identifier: Apache-2.0
"""What the Python suites share: our two programs as objects that end with the test, raw disks with
known content, and waiting for a condition with a deadline."""

import contextlib
import http.client
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("NBD_MIRROR_BUILD", ROOT / "build"))
SERVER = BUILD / "server" / "nbd-mirror-server"
CLIENT = BUILD / "client" / "nbd-mirror"
KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30


def need(program):
    """Skips the test where another project's program is missing."""
    path = shutil.which(program)
    if path is None:
        import pytest  # the benchmarks, which share the rest, do without it
        pytest.skip(f"{program} is not installed")
    return path


def wait_for(condition, limit=30.0, what="the condition"):
    """Asks until `condition` answers with something true, and returns that. The limit is for what
    never comes; a busy machine, or a sanitizer, may make anything take a while."""
    deadline = time.monotonic() + limit
    while True:
        answer = condition()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"{what}: not within {limit} s"
        time.sleep(0.01)


def accepts(path):
    """Whether somebody listens on this Unix socket. Its file may be there before."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def make_disk(path, size, pieces=(), seed=1):
    """A sparse file with random data at each (offset, length) of `pieces`."""
    content = random.Random(seed)
    with open(path, "wb") as disk:
        disk.truncate(size)
        for offset, length in pieces:
            disk.seek(offset)
            while length > 0:
                part = min(length, 16 * MIB)
                disk.write(content.randbytes(part))
                length -= part
    return path


def content(path, offset, length):
    with open(path, "rb") as file:
        file.seek(offset)
        return file.read(length)


def same_content(a, b, size=None):
    """Whether two files agree, over the first `size` bytes if it is given."""
    with open(a, "rb") as left, open(b, "rb") as right:
        done = 0
        while size is None or done < size:
            step = MIB if size is None else min(MIB, size - done)
            x, y = left.read(step), right.read(step)
            if x != y:
                return False
            if not x:
                return True
            done += len(x)
    return True


def allocated_bytes(path):
    return os.stat(path).st_blocks * 512


@contextlib.contextmanager
def loop_device(image, *options):
    """A block device over a file, where that can be had."""
    need("losetup")
    made = subprocess.run(["losetup", "--find", "--show", *options, str(image)], check=False,
                          capture_output=True, text=True)
    if made.returncode != 0:
        import pytest  # the benchmarks, which share the rest, do without it
        pytest.skip(f"no loop device: {made.stderr}")
    device = pathlib.Path(made.stdout.strip())
    try:
        yield device
    finally:
        subprocess.run(["losetup", "--detach", str(device)], check=True)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=30):
        super().__init__("localhost", timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask(control, method, path, body=None, timeout=30):
    """One HTTP request over a control socket: (status, JSON or text)."""
    return ask_all(control, method, path, body, timeout)[:2]


def ask_all(control, method, path, body=None, timeout=30):
    """The same, with the headers of the answer."""
    connection = UnixConnection(control, timeout)
    try:
        connection.request(method, path, None if body is None else json.dumps(body))
        answer = connection.getresponse()
        text = answer.read().decode()
        is_json = answer.getheader("Content-Type") == "application/json"
        return answer.status, json.loads(text) if is_json else text, answer.headers
    finally:
        connection.close()


class Process:
    """A program that is ended, and must end well, when its `with` block is left."""

    def __init__(self, arguments, env, log, expect=(0,)):
        self.log = pathlib.Path(log)
        self.expect = expect
        with open(self.log, "wb") as stderr:
            self.process = subprocess.Popen(
                [str(each) for each in arguments], env=env, stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=stderr, text=True)

    @property
    def pid(self):
        return self.process.pid

    def messages(self):
        return self.log.read_text()

    def wait_for_message(self, text):
        """Its log has a thread of its own, which may be a moment behind; at its end nothing is
        left of it."""
        wait_for(lambda: text in self.messages() or not self.running(), what=f"'{text}' in the log")
        assert text in self.messages(), self.messages()

    def running(self):
        return self.process.poll() is None

    def wait_until(self, ready, what):
        """Waits for a sign of life. When there is none, or it ends instead, it is killed: nobody
        has entered its `with` block yet."""
        try:
            wait_for(lambda: ready() or not self.running(), what=what)
            assert self.running(), self.messages()
        except BaseException:
            self.kill()
            raise

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.expect = None

    def stop(self, limit=60):
        if self.running():
            self.process.send_signal(signal.SIGTERM)
        return self.wait(limit)

    def wait(self, limit=120):
        self.output, _ = self.process.communicate(timeout=limit)
        return self.process.returncode

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.expect is None:
            return
        try:
            status = self.stop()
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        if kind is None:
            assert status in self.expect, f"exit {status}\n{self.messages()}"


class World:
    """One test's directories: one for disks, and one for what must not wait for a disk that others
    keep busy, sockets, logs, and the runtime and state directories of our programs."""

    def __init__(self, directory, quick_directory=None):
        self.directory = pathlib.Path(directory)
        self.quick_directory = pathlib.Path(quick_directory or directory)
        self.env = dict(os.environ, NBD_MIRROR_RUNTIME_DIR=str(self.quick("run")),
                        NBD_MIRROR_STATE_DIR=str(self.quick("state")))
        self.count = 0

    def path(self, name):
        return self.directory / name

    def quick(self, name):
        return self.quick_directory / name

    def server(self, *exports, options=(), listen=None, expect=(0,), name=None, before=()):
        self.count += 1
        name = name or f"server{self.count}"
        return Server(self, name, exports, options, listen, expect, before)

    @contextlib.contextmanager
    def serving_hidden(self, disk, **options):
        """A server of export "d" whose disk nobody else sees, so that a mirror reads it over NBD."""
        path = self.path("hidden")
        path.symlink_to(disk)
        with self.server(f"d={path}", **options) as server:
            path.unlink()
            yield server

    @contextlib.contextmanager
    def pair(self, size, pieces, hidden=False):
        """Export "d" of a source server, with data at `pieces`, and an empty one of a target
        server."""
        source = make_disk(self.path("source"), size, pieces)
        target = make_disk(self.path("target"), size)
        serving = self.serving_hidden(source, name="source-server") if hidden else \
            self.server(f"d={source}", name="source-server")
        with serving as a, self.server(f"d={target}", name="target-server") as b:
            yield a, b

    def client(self, *arguments, limit=120):
        """Runs `nbd-mirror` to its end."""
        return subprocess.run([str(CLIENT), *map(str, arguments)], env=self.env,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=limit, cwd=self.directory)

    def run_server(self, *arguments, before=()):
        """Runs `nbd-mirror-server`, which is to end by itself, to its end."""
        return subprocess.run(list(map(str, [*before, SERVER, *arguments])), env=self.env,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                              cwd=self.directory)

    def mirror(self, source, target, *options, job="job", expect=(0,)):
        return Mirror(self, source, target, options, job, expect)


class Server(Process):
    """An nbd-mirror-server that listens on a Unix socket and on a TCP port of its own."""

    def __init__(self, world, name, exports, options, listen, expect, before):
        self.socket = world.quick(f"{name}.sock")
        self.control = world.quick(f"{name}.control")
        listen = listen or [f"unix:{self.socket}", "tcp:127.0.0.1:0"]
        arguments = [*before, SERVER, *exports, "--control", self.control, *options]
        for address in listen:
            arguments += ["--listen", address]
        super().__init__(arguments, world.env, world.quick(f"{name}.log"), expect)
        self.wait_until(lambda: accepts(self.control), "the server's start")

    @property
    def port(self):
        # Announced once everything else stands.
        line = wait_for(lambda: re.search(r"listening on tcp:127\.0\.0\.1:(\d+)", self.messages()))
        return int(line.group(1))

    def uri(self, export="", tcp=False):
        if tcp:
            return f"nbd://127.0.0.1:{self.port}/{export}"
        return f"nbd+unix:///{export}?socket={self.socket}"

    def source(self, export):
        return f"server:{export}@{self.control}"

    def ask(self, method, path, body=None, timeout=30):
        return ask(self.control, method, path, body, timeout)

    def export(self, name):
        status, answer = self.ask("GET", f"/v1/exports/{name}")
        assert status == 200
        return answer

    def hold(self, name="d", lease_ms=60_000):
        """Keeps an export's writers waiting, for longer than any test does: what the hold is called."""
        status, answer = self.ask("POST", f"/v1/exports/{name}/hold", {"lease_ms": lease_ms})
        assert status == 200, answer
        return answer["hold"]

    def release(self, hold, name="d"):
        """Lets them go on: how long they have waited."""
        status, answer = self.ask("POST", f"/v1/exports/{name}/release", {"hold": hold})
        assert status == 200, answer
        return answer

    def connections(self):
        status, answer = self.ask("GET", "/v1/connections")
        assert status == 200
        return answer["connections"]

    def metric(self, name):
        """Of those without labels, which are whole numbers."""
        return int(re.search(rf"^{name} (\d+)$", self.ask("GET", "/metrics")[1],
                             re.MULTILINE).group(1))

    def in_flight(self):
        """Requests that it has received and not answered, of all clients."""
        return sum(each["in_flight"] for each in self.connections())

    def cpu_threads(self):
        """Names of the threads, as `top -H` shows them."""
        names = []
        for task in pathlib.Path(f"/proc/{self.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it may end meanwhile
                names.append((task / "comm").read_text().strip())
        return sorted(names)


class Mirror(Process):
    """A running `nbd-mirror mirror`. Where nothing else is said its writers may be held for as long
    as a busy machine and its disk take for the last pass: the default of half a second is seldom
    enough there."""

    def __init__(self, world, source, target, options, job, expect):
        self.world = world
        self.job = job
        if "--max-downtime" not in options:
            options = [*options, "--max-downtime", "20000"]
        sides = [] if source is None else [source, target]  # resumed: as recorded
        super().__init__([CLIENT, "mirror", *sides, "--job", job, "--progress", "none",
                          *options], world.env, world.quick(f"mirror-{job}.log"), expect)

    @property
    def control(self):
        return self.world.quick("run") / "jobs" / f"{self.job}.sock"

    def status(self):
        """The job's status, or nothing while it cannot be asked."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            return ask(self.control, "GET", "/v1/job")[1]
        return None

    def phase(self):
        status = self.status()
        return status and status["phase"]

    def wait_for_phase(self, *phases, limit=120):
        def there():
            phase = self.phase()
            if phase in phases:
                return phase
            assert self.running(), f"ended instead of {phases}: {self.messages()}"
            return None
        return wait_for(there, limit, f"phase {phases}")

    def cutover(self):
        return self.world.client("cutover", self.job)


@contextlib.contextmanager
def fio_writer(world, uri, seconds=600, size=64 * MIB, rate="100m", seed=1, block="16k", depth=16):
    """fio's NBD engine, writing at random; `.stop()` and look at `.output` afterwards. A thread and
    not a process of fio's, which would be in a session of its own and outlive a fio that is killed."""
    need("fio")
    with Process(["fio", "--name=writer", "--thread", "--ioengine=nbd", f"--uri={uri}",
                  "--rw=randwrite", f"--bs={block}", f"--iodepth={depth}", f"--rate={rate}", "--time_based",
                  f"--runtime={seconds}", f"--randseed={seed}", f"--size={size}",
                  "--buffer_compress_percentage=0", "--refill_buffers"],
                 world.env, world.quick("fio.log"), expect=(0, 1, 128, 129)) as writer:
        yield writer


class background(threading.Thread):
    """Calls a function while the `with` block runs; `.result` is there afterwards."""

    def __init__(self, call):
        super().__init__(daemon=True)
        self.call = call
        self.result = None

    def run(self):
        self.result = self.call()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.join(60)


class Writer(threading.Thread):
    """Writes and zeroes at random until it is told to stop or meets an error; `shadow` is
    what the disk must contain."""

    def __init__(self, world, server, seed=1, area=None):
        from nbd_client import connect, nbd  # the benchmarks, which share the rest, do without it
        super().__init__(daemon=True)
        self.random = random.Random(seed)
        self.area = area  # only the first bytes of the disk are written
        self.handle = connect(server)
        self.refusal = nbd.Error
        self.shadow = bytearray(world.path("source").read_bytes())
        self.count = 0
        self.longest = 0
        self.error = None
        self.stopped = threading.Event()

    def run(self):
        size = self.area or len(self.shadow)
        while not self.stopped.is_set():
            length = self.random.choice([1, 511, 4096, 65536, 100_000])
            offset = self.random.randrange(size - length + 1)
            begin = time.monotonic()
            try:
                if self.random.random() < 0.8:
                    data = self.random.randbytes(length)
                    self.handle.pwrite(data, offset)
                else:
                    data = bytes(length)
                    self.handle.zero(length, offset)
            except self.refusal as error:
                self.error = error
                return
            self.shadow[offset:offset + length] = data
            self.longest = max(self.longest, time.monotonic() - begin)
            self.count += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.join(60)
