# SPDX-License-Identifier: Apache-2.0
"""What the benchmarks share: options, peers, room for the disks, fio, and one line and a clean end
when something is not as it should be."""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))

from harness import MIB, SERVER, Process, World, accepts  # noqa: E402


class Failed(Exception):
    """Nothing can be measured: the line that says why."""


# --- Options ---

def whole_number(text):
    """Of rounds, MiB or seconds: without at least one nothing is measured."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from 1 on")
    return number


def directory(text):
    path = pathlib.Path(text)
    if not path.is_dir() or not os.access(path, os.W_OK):
        raise argparse.ArgumentTypeError(f"'{text}' is not a directory that can be written to")
    return path


class Parser(argparse.ArgumentParser):
    def __init__(self, description):
        super().__init__(description=description,
                         formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message):
        self.exit(2, f"{self.prog}: {message} (--help)\n")


def add_number(parser, option, default, text):
    parser.add_argument(option, type=whole_number, default=default, metavar="N",
                        help=f"{text} ({default})")


def add_directory(parser, option, default, text):
    parser.add_argument(option, type=directory, default=default, metavar="DIRECTORY",
                        help=f"{text} ({default})")


# --- What has to be there ---

def need_built(*programs):
    for program in programs:
        if not os.access(program, os.X_OK):
            raise Failed(f"'{program}' is not built: 'meson setup build && ninja -C build', or "
                         "NBD_MIRROR_BUILD names the build directory")


def need_installed(*programs):
    missing = [each for each in programs if shutil.which(each) is None]
    if missing:
        raise Failed(f"not installed: {', '.join(missing)} (dist/install-deps.sh installs what is "
                     "measured against)")


def need_fio():
    need_installed("fio")
    if "uri" not in subprocess.run(["fio", "--enghelp=nbd"], capture_output=True, text=True,
                                   check=False).stdout:
        raise Failed("this fio was built without its NBD engine")


def is_in_memory(path):
    device = os.stat(path).st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo", encoding="utf-8", errors="replace") as mounts:
        # ID, parent, device, root, where, options, any number of fields, "-", type, ...
        kinds = [line.split(" - ")[1].split()[0] for line in mounts if line.split()[2] == number]
    return kinds[-1:] == ["tmpfs"]


def need_room(where, size):
    """Room for files of `size` bytes, which is memory on a tmpfs, and then some to work in."""
    free = shutil.disk_usage(where).free
    what = "free"
    if is_in_memory(where):
        with open("/proc/meminfo", encoding="ascii") as file:
            available = next(line for line in file if line.startswith("MemAvailable:"))
        available = int(available.split()[1]) * 1024
        if available < free:
            free, what = available, "of memory to spare"
    wanted = size + 256 * MIB
    if free < wanted:
        raise Failed(f"{where} has {free // MIB} MiB {what}, {wanted // MIB} MiB are needed")


# --- A clean end ---

class Undivided:
    """What an interrupt does not come between: it is raised at the end of the `with` block."""
    depth = 0
    interrupted = False

    def __enter__(self):
        Undivided.depth += 1

    def __exit__(self, *_):
        Undivided.depth -= 1
        if Undivided.interrupted and not Undivided.depth:
            raise KeyboardInterrupt


@contextlib.contextmanager
def undivided(make):
    """What `make()` starts is ended with the `with` block, also when an interrupt meets its start."""
    with contextlib.ExitStack() as stack:
        with Undivided():
            made = stack.enter_context(make())
        yield made


def started(world, arguments, log, expect=(0,)):
    return undivided(lambda: Process(arguments, world.env, world.path(log), expect))


def run_benchmark(main):
    """However `main` ends, the `with` blocks that it is in are left: their processes and files are
    gone. What was foreseen is one line and status 1."""
    def interrupted(*_):
        # Once: what is under way now is cleaning up. Not ignored, which programs would inherit.
        for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, lambda *_: None)
        Undivided.interrupted = True
        if not Undivided.depth:
            raise KeyboardInterrupt

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, interrupted)
    try:
        main()
        sys.stdout.flush()
        return
    except KeyboardInterrupt:
        line = "interrupted"
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads any more
        line = "nobody takes the results"
    except (Failed, subprocess.TimeoutExpired) as error:
        line = str(error)
    except OSError as error:
        line = f"{error.filename}: {error.strerror}" if error.filename else str(error)
    except AssertionError as error:  # of the harness: something did not happen in time
        line = (str(error).splitlines() or ["something did not happen"])[0]
    with contextlib.suppress(KeyboardInterrupt):
        time.sleep(0.2)  # what failed may be what an interrupt has ended that is still to be seen here
    if Undivided.interrupted:
        line = "interrupted"
    sys.exit(f"{pathlib.Path(sys.argv[0]).name}: {line}")


@contextlib.contextmanager
def workspace(where):
    with tempfile.TemporaryDirectory(prefix="nbd-mirror-bench-", dir=where) as made:
        yield World(made)


# --- Programs ---

def last_line(text):
    return (text.strip().splitlines() or ["it said nothing"])[-1]


def run(arguments, **options):
    """Runs a client to its end, which must be a good one: what it printed."""
    arguments = [str(each) for each in arguments]
    with contextlib.ExitStack() as stack:
        with Undivided():
            # A group of its own: fio's jobs are processes, which have to be ended with it.
            client = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                      text=True, process_group=0, **options)
            stack.callback(end_group, client)
        output, errors = client.communicate()
    if client.returncode != 0:
        raise Failed(f"{pathlib.Path(arguments[0]).name} failed with {client.returncode}: "
                     + last_line(errors or output))
    return output


def end_group(leader):
    if leader.poll() is None:
        os.killpg(leader.pid, signal.SIGKILL)
        leader.wait()


# Where a server listens: the path of a Unix socket, or a port of this host.

def free_port():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def uri(where):
    return f"nbd://127.0.0.1:{where}" if isinstance(where, int) else f"nbd+unix:///?socket={where}"


def ours(target, where, direct=False):
    cache = ",cache=direct" if direct else ""
    listen = f"tcp:127.0.0.1:{where}" if isinstance(where, int) else f"unix:{where}"
    return [SERVER, f"={target}{cache}", "--listen", listen, "--control", f"{target}.control",
            "--log-level", "error"]


def nbdkit(target, where):
    listen = ["-i", "127.0.0.1", "-p", where] if isinstance(where, int) else ["-U", where]
    return ["nbdkit", "-f", *listen, "file", target]


def qemu_nbd(target, where, *options):
    listen = ["-b", "127.0.0.1", "-p", where] if isinstance(where, int) else ["-k", where]
    return ["qemu-nbd", "-t", "-f", "raw", *listen, "-e", "16", "--discard=unmap", *options, target]


def is_up(where):
    if not isinstance(where, int):
        return accepts(where)
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", where)):
        return True
    return False


@contextlib.contextmanager
def serving(world, arguments, where):
    """A server, ours or another's, that listens there."""
    if isinstance(where, pathlib.Path):
        where.unlink(missing_ok=True)
    with started(world, arguments, "server.log", expect=(0, -15)) as server:
        server.wait_until(lambda: is_up(where), f"the start of {arguments[0]}")
        yield server


def fio(world, uri, kind, **options):
    """Reads or writes at random for a while: what fio reports of it."""
    report = world.path("fio.json")
    run(["fio", "--name=bench", "--thread", "--ioengine=nbd", f"--uri={uri}", f"--rw=rand{kind}",
         *(f"--{name}={value}" for name, value in options.items()), "--group_reporting",
         "--time_based", "--norandommap", "--output-format=json", f"--output={report}"])
    text = report.read_text()  # warnings may stand before it
    seen = json.loads(text[text.index("{"):])["jobs"][0][kind]
    if not seen["total_ios"]:
        raise Failed("fio has done nothing in its time: --seconds")
    return seen


def p99_us(seen):
    return seen["clat_ns"]["percentile"]["99.000000"] / 1000


def cpu_seconds(pid):
    """All of a process's threads, the kernel's workers for its rings among them."""
    # The clock of another process: clock_getcpuclockid(3), which Python does not have.
    return time.clock_gettime((~pid << 3) | 2)


def have_memory(world, size):
    """Takes memory for a target of `size` bytes and frees it. A virtual machine may give what is
    free to its host some seconds later, and to get a page back takes longer than to copy it."""
    if is_in_memory(world.directory):
        path = world.path("memory")
        with open(path, "wb") as file:
            for _ in range(size // MIB):
                file.write(bytes(MIB))
        path.unlink()


def random_file(path, size):
    with open(path, "wb") as file:
        for _ in range(size // MIB):
            file.write(os.urandom(MIB))
    return path
