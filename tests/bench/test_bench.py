# SPDX-License-Identifier: Apache-2.0
"""The benchmarks' own ends: what they cannot do is one line, and nothing of them is left."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from harness import accepts, need, wait_for

HERE = pathlib.Path(__file__).parent
RUNS = [("run.py", "copy"), ("run.py", "sparse"), ("run.py", "verify"), ("run.py", "mirror"),
        ("run.py", "resume"), ("server_ratios.py",), ("server_sweep.py",), ("mirror_ratios.py",)]


def start(script, *arguments, **options):
    # A session of its own: what a terminal's Ctrl-C would end, and what must not outlive it.
    return subprocess.Popen([sys.executable, HERE / script, *map(str, arguments)], text=True,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, start_new_session=True, **options)


def one_line(process, status, *words):
    _, errors = process.communicate(timeout=120)
    assert process.returncode == status, errors
    lines = errors.splitlines()
    assert len(lines) == 1, errors
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("run", RUNS, ids=" ".join)
@pytest.mark.parametrize("arguments", [("--rounds", "0"), ("--rounds=-1",), ("--rounds", "many"),
                                       ("--rounds", "1.5"), ("--faster",), ("nonsense",)],
                         ids=" ".join)
def test_wrong_usage_is_status_2(run, arguments):
    one_line(start(*run, *arguments), 2, arguments[0].split("=")[0])


@pytest.mark.parametrize("arguments", [
    ("run.py", "fly"), ("run.py",), ("run.py", "copy", "--mib", "0"),
    ("run.py", "copy", "--directory", "/nowhere"), ("server_ratios.py", "--mib=-1"),
    ("server_ratios.py", "--seconds", "0"), ("server_ratios.py", "--disk", "/nowhere"),
    ("server_sweep.py", "--seconds", "x"), ("server_sweep.py", "--memory", "/nowhere")],
    ids=" ".join)
def test_values_that_make_no_sense_are_status_2(arguments):
    one_line(start(*arguments), 2)


@pytest.mark.parametrize("run, peer", [
    (("run.py", "copy"), "nbdkit"), (("run.py", "verify"), "nbdkit"),
    (("run.py", "mirror"), "fio"), (("server_ratios.py",), "nbdkit"),
    (("server_sweep.py",), "fio"), (("mirror_ratios.py",), "fio")])
def test_a_peer_that_is_not_installed_is_named(tmp_path, run, peer):
    one_line(start(*run, env=dict(os.environ, PATH=str(tmp_path))), 1, "not installed", peer)


def test_programs_that_are_not_built_are_named(tmp_path):
    for run in RUNS:
        one_line(start(*run, env=dict(os.environ, NBD_MIRROR_BUILD=str(tmp_path))), 1, "not built")


def test_too_little_room_is_said_before_anything_is_written(tmp_path):
    for program in ("nbdkit", "nbdcopy", "qemu-nbd", "qemu-img", "fio"):
        need(program)
    huge = ["--mib", "1000000000"]
    for run, where in ((("run.py", "copy"), "--directory"), (("run.py", "verify"), "--directory"),
                       (("server_ratios.py",), "--memory")):
        one_line(start(*run, *huge, where, tmp_path), 1, str(tmp_path), "MiB are needed")
    assert not list(tmp_path.iterdir())


def test_too_little_data_for_a_sparse_disk_is_said(tmp_path):
    one_line(start("run.py", "sparse", "--mib", "31", "--directory", tmp_path), 1, "32 MiB")


def serves(directory):
    with contextlib.suppress(FileNotFoundError):  # a part of it is gone meanwhile
        return any(accepts(each) for each in directory.rglob("*.sock"))
    return False


def processes_of(session):
    """Those that have not ended, by name."""
    names = []
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = stat.read_text().split(" ", 1)[1].rsplit(")", 1)
        except OSError:  # it has ended meanwhile
            continue
        state, _, _, its_session = rest.split()[:4]
        if int(its_session) == session and state != "Z":
            names.append(name)
    return names


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM], ids=lambda each: each.name)
@pytest.mark.parametrize("run", [
    ("run.py", "copy", "--mib", 64), ("run.py", "sparse", "--mib", 64),
    ("run.py", "verify", "--mib", 64), ("run.py", "mirror", "--mib", 64),
    ("server_ratios.py", "small-read", "--mib", 64), ("server_sweep.py",),
    ("mirror_ratios.py", "uniform", "--mib", 64)],
    ids=lambda each: " ".join(map(str, each[:2])))
def test_an_interrupt_leaves_nothing_behind(tmp_path, run, end):
    for program in ("nbdkit", "nbdcopy", "qemu-nbd", "qemu-img", "fio"):
        need(program)
    options = {"run.py": ["--directory"], "mirror_ratios.py": ["--directory"],
               "server_ratios.py": ["--memory", "--disk"],
               "server_sweep.py": ["--memory", "--disk"]}[run[0]]
    process = start(*run, *(part for each in options for part in (each, tmp_path)))
    wait_for(lambda: serves(tmp_path), what="a server")
    if end == signal.SIGINT:
        os.killpg(process.pid, end)  # as a terminal does
    else:
        process.send_signal(end)
    one_line(process, 1, "interrupted")
    # One that was being started at that very moment is nobody's child, and ends by itself.
    wait_for(lambda: processes_of(process.pid) == [], what="the end of all programs")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("work, rows, ratio", [
    ("copy --tcp", 5, "qemu-img to qemu-nbd: "), ("copy --direct", 5, "qemu-img to qemu-nbd: "),
    ("verify", 6, "nbd-mirror-server / others: ")])
def test_a_small_disk_is_measured_too(tmp_path, work, rows, ratio):
    for program in ("nbdkit", "nbdcopy", "qemu-nbd", "qemu-img"):
        need(program)
    process = start("run.py", *work.split(), "--rounds", 1, "--mib", 16, "--directory", tmp_path)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert output.count(" s ") == rows and ratio in output
    assert not list(tmp_path.iterdir())
