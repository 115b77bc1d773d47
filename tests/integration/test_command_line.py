# SPDX-License-Identifier: Apache-2.0
"""Bad input: one clear line on standard error, the right exit status, nothing changed."""

import os
import re
import socket
import subprocess
import threading

import pytest

from harness import CLIENT, MIB, SERVER, make_disk


def one_line(result, status, *words):
    assert result.returncode == status, result.stderr
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    for word in words:
        assert word in lines[0], lines[0]


@pytest.fixture
def source(world):
    return make_disk(world.path("source"), MIB, [(0, MIB)])


def test_a_missing_source(world):
    one_line(world.client("copy", "missing", "target", "--create"), 1, "'missing'", "No such file")
    assert not world.path("target").exists()


def test_an_empty_source(world):
    world.path("empty").touch()
    one_line(world.client("copy", "empty", "target", "--create"), 1, "empty")
    assert not world.path("target").exists()


def test_a_source_that_is_a_directory(world):
    one_line(world.client("copy", ".", "target", "--create"), 1, "directory")


def test_a_named_pipe_is_no_disk_and_is_not_waited_for(world, source):
    os.mkfifo(world.path("pipe"))
    one_line(world.client("copy", "pipe", "target", "--create"), 1, "'pipe'")
    one_line(world.client("copy", source, "pipe"), 1, "'pipe'")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_source(world, source):
    source.chmod(0)
    one_line(world.client("copy", source, "target", "--create"), 1, "Permission denied")


def test_a_missing_target_without_create(world, source):
    one_line(world.client("copy", source, "target"), 1, "'target'", "No such file", "--create")


def test_a_target_that_is_too_small_is_not_touched(world, source):
    target = make_disk(world.path("target"), MIB - 1, [(0, 100)], seed=9)
    before = target.read_bytes()
    one_line(world.client("copy", source, target), 1, "too small", str(MIB))
    with world.server(f"d={target}") as server:
        one_line(world.client("copy", source, server.uri("d")), 1, "too small")
    assert target.read_bytes() == before


def test_a_target_that_is_a_directory(world, source):
    one_line(world.client("copy", source, world.directory), 1, "directory")


def test_a_read_only_target_is_not_touched(world, source):
    target = make_disk(world.path("target"), MIB)
    with world.server(f"d={target},ro") as server:
        one_line(world.client("copy", source, server.uri("d")), 1, "read-only")


def test_source_and_target_are_the_same_file(world, source):
    one_line(world.client("copy", source, source), 1, "both the source and the target")


def test_an_unknown_export(world, source):
    target = make_disk(world.path("target"), MIB)
    with world.server(f"d={target}") as server:
        one_line(world.client("copy", source, server.uri("other")), 1, "other")


def test_nobody_listens(world, source):
    one_line(world.client("copy", source, "nbd+unix:///d?socket=nobody.sock"), 1, "nobody.sock")
    one_line(world.client("copy", source, "nbd://127.0.0.1:1/d"), 1, "127.0.0.1:1", "refused")


@pytest.mark.parametrize("greeting", [b"SSH-2.0-OpenSSH_9.2\r\n" + b" " * 200, b""])
def test_a_server_that_is_something_else(world, source, greeting):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def serve():
            client, _ = listener.accept()
            client.sendall(greeting)
            client.close()

        thread = threading.Thread(target=serve)
        thread.start()
        uri = f"nbd://127.0.0.1:{listener.getsockname()[1]}/d"
        one_line(world.client("copy", source, uri), 1, uri)
        thread.join()


def test_a_server_that_says_nothing_is_given_up(world, source):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        uri = f"nbd://127.0.0.1:{listener.getsockname()[1]}/d"
        one_line(world.client("copy", source, uri), 1, uri)


@pytest.mark.parametrize("arguments", [
    [], ["fly"], ["copy", "one"], ["copy", "a", "b", "--wings"], ["copy", "a", "b", "-c", "0"],
    ["copy", "a", "b", "--request-size", "5000"], ["copy", "a", "gopher://x"], ["copy", "a", "server:x"],
    ["mirror", "a", "b"], ["mirror", "nbd://h/x", "b"],
    ["mirror", "server:d", "b", "--granularity", "1K"], ["mirror", "server:d", "b", "--job", "a/b"],
    ["copy", "a", "tcp:host:10809", "--create"],
    ["copy", "a", "192.0.2.7:10809", "--create"], ["cutover"], ["cutover", "../x"], ["status", "a b"],
])
def test_wrong_usage_is_status_2(world, arguments):
    one_line(world.client(*arguments), 2)


def test_a_source_that_cannot_track_is_sent_to_copy(world, source):
    one_line(world.client("mirror", source, "target"), 2, "copy", "written")


def test_a_mirror_of_an_unknown_export_or_server(world, source):
    one_line(world.client("mirror", "server:d@/nowhere/x.sock", "t"), 1, "/nowhere/x.sock")
    with world.server(f"d={source}") as server:
        one_line(world.client("mirror", server.source("e"), "t"), 1, "'e'")


def test_commands_on_a_job_that_is_not_there(world):
    for command in ("cutover", "cancel", "status"):
        one_line(world.client(command, "nobody"), 1, "nobody")
    assert world.client("status").stdout == ""


@pytest.mark.parametrize("arguments", [
    [], ["--wings", "d=x"], ["d=a", "d=b"], ["d="], ["d=x,size=0"], ["d=x,size=many"],
    ["d=x,cache=maybe"], ["d=x,what"], ["d=x", "--listen", "udp:x:1"], ["d=x", "--cpus", "a"],
    ["d=x", "--cpus", "0,5-3"], ["\udcff=x"],
    ["d=x", "--take-ownership", "e"], ["d=x", "--max-connections", "0"], ["--", "-=x"],
    ["d=x", "--listen", "tcp:127.0.0.1:99999"],
])
def test_wrong_server_usage_is_status_2(world, arguments):
    one_line(world.run_server(*arguments), 2)


COMMANDS = "copy, mirror, verify, status, cutover, pause, resume, cancel, set"


@pytest.mark.parametrize("program, arguments, sentence", [
    (SERVER, "", "EXPORT is required"),
    (SERVER, "--wings d=x", "option --wings is not known here"),
    (SERVER, "--exprot=d=x", "option --exprot is not known here"),
    (SERVER, "d=x -x", "option -x is not known here"),
    (SERVER, "d=x -l", "--listen: a value is missing"),
    (SERVER, "d=x --max-connections", "--max-connections: a value is missing"),
    (SERVER, "d=x --request-timeout=", "--request-timeout: a value is missing"),
    (SERVER, "d=x --cpus 0 --cpus 0", "--cpus is given more than once"),
    (SERVER, "d=x --max-connections many",
     "--max-connections: Value many not in range 1 to 65536"),
    (SERVER, "d=x --handshake-timeout 0", "--handshake-timeout: Value 0 not in range 1 to 3600"),
    (SERVER, "d=x --log-level loud", "--log-level: loud not in {error,warning,info,debug}"),
    (SERVER, "d=x --buffer-memory 1M", "--buffer-memory '1M': a size of at least 96M is expected"),
    (SERVER, "d=x --listen tcp", "--listen 'tcp': tcp:HOST:PORT or unix:PATH is expected"),
    (SERVER, "d=x,ro=1", "export 'd': ro takes no value"),
    (CLIENT, "", f"a command is missing, one of {COMMANDS}"),
    (CLIENT, "fly a b", f"'fly' is not one of the commands {COMMANDS}"),
    (CLIENT, "--wings copy a b", "option --wings is not known here"),
    (CLIENT, "copy a b --window 22:00-06:00", "option --window is not known here"),
    (CLIENT, "copy --wings a", "option --wings is not known here"),
    (CLIENT, "copy a", "TARGET is required"),
    (CLIENT, "copy a b c d", "argument 'c' is one too many"),
    (CLIENT, "copy a b -c", "--connections: a value is missing"),
    (CLIENT, "copy a b -c 1 -c 2", "--connections is given more than once"),
    (CLIENT, "copy a b -c 65", "--connections: Value 65 not in range 1 to 64"),
    (CLIENT, "copy a b --progress loud", "--progress: loud not in {auto,bar,json,none}"),
    (CLIENT, "set a --bwlimit", "--bwlimit: a value is missing"),
])
def test_wrong_usage_is_said_in_one_sentence(world, program, arguments, sentence):
    result = subprocess.run([program, *arguments.split()], env=world.env, capture_output=True,
                            text=True, timeout=60, cwd=world.directory)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"{program.name}: {sentence}\n"


def test_a_server_without_its_disk(world):
    listen = ["--listen", "unix:s.sock", "--control", "c.sock"]
    one_line(world.run_server("d=missing", *listen), 1, "'missing'")
    one_line(world.run_server("d=.", *listen), 1, "directory")


def test_a_writable_export_in_another_image_format_is_served_with_a_warning(world):
    disk = make_disk(world.path("disk"), MIB)
    with open(disk, "r+b") as file:
        file.write(b"QFI\xfb\0\0\0\3")
    for keys, warned in (("", 1), (",cache=direct", 1), (",ro", 0)):
        with world.server(f"d={disk}{keys}") as server:
            assert server.port  # said last
            lines = [line for line in server.messages().splitlines() if "warning" in line]
            assert len(lines) == warned
            for line in lines:
                assert "export 'd'" in line and "qcow2" in line and "raw bytes" in line
            assert server.export("d")["size_bytes"] == MIB


def test_a_port_or_socket_in_use(world, source):
    served = make_disk(world.path("served"), MIB)
    with world.server(f"d={served}") as server:
        one_line(world.run_server(f"d={source}", "--listen", f"tcp:127.0.0.1:{server.port}",
                                  "--control", "c.sock"), 1, str(server.port), "in use", "--listen")
        one_line(world.run_server(f"d={source}", "--listen", f"unix:{server.socket}",
                                  "--control", "c.sock"), 1, str(server.socket), "in use", "--listen")
        one_line(world.run_server(f"d={source}", "--listen", "unix:other.sock", "--control",
                                  server.control), 1, str(server.control), "in use", "--control")
        assert server.socket.exists() and server.control.exists()


def test_one_disk_is_not_two_exports(world, source):
    link = world.path("link")
    link.symlink_to(source)
    for other in (source, link):
        one_line(world.run_server(f"a={source}", f"b={other}", "--listen", "unix:s", "--control",
                                  "c"), 2, "'a'", "'b'", "are one disk")
    with world.server(f"a={source},ro", f"b={link},ro"):
        pass


def test_what_prevents_a_start_names_the_option_that_helps(world, source):
    def refused(*words, listen="unix:s.sock", control="c.sock", **env):
        world.env.update(env)
        options = ["--listen", listen, *(["--control", control] if control else [])]
        one_line(world.run_server(f"d={source}", *options), 1, *words)

    refused("'source'", "no socket", "--control", control="source")
    refused("'/nowhere/c.sock'", "directory is missing", "--control", control="/nowhere/c.sock")
    refused("'/nowhere/s.sock'", "directory is missing", "--listen", listen="unix:/nowhere/s.sock")
    refused("tcp:192.0.2.1:1", "no such address", "--listen", listen="tcp:192.0.2.1:1")
    # Nobody can make anything there, whoever runs this.
    refused("'/proc/nbd-mirror'", "--control", "NBD_MIRROR_RUNTIME_DIR", control=None,
            NBD_MIRROR_RUNTIME_DIR="/proc/nbd-mirror")
    refused(f"'{source}/moved'", "look for records", "--state-dir", "NBD_MIRROR_STATE_DIR",
            NBD_MIRROR_STATE_DIR=str(source))


def test_without_a_place_for_records_the_server_says_so_and_serves(world, source):
    with world.server(f"d={source}", options=["--state-dir", "/proc/nbd-mirror"]) as server:
        assert server.port
        [line] = [each for each in server.messages().splitlines() if "warning" in each]
        assert "'/proc/nbd-mirror'" in line and "--state-dir" in line


def test_a_mirror_that_cannot_have_its_socket_or_state_names_the_variable(world, source):
    with world.server(f"d={source}") as server:
        for variable in ("NBD_MIRROR_RUNTIME_DIR", "NBD_MIRROR_STATE_DIR"):
            before = world.env[variable]
            world.env[variable] = "/proc/nbd-mirror"
            one_line(world.client("mirror", server.source("d"), "t", "--create"), 1,
                     "'/proc/nbd-mirror'", variable)
            world.env[variable] = before
    assert not world.path("t").exists()


def test_a_server_with_too_few_descriptors_for_a_mirror_does_not_start(world, source):
    def limited(descriptors, disk, *options):
        return world.run_server(f"d={disk}", "--listen", "unix:s", "--control", "c", *options,
                                before=["prlimit", f"--nofile={descriptors}"])

    # 128 in reserve, one for the disk, four for each of four clients.
    one_line(limited(144, source), 1, "4 clients", "144 descriptors", "ulimit -n", "LimitNOFILE=",
             "145 are needed")
    lines = limited(145, "missing").stderr.splitlines()
    assert "no more than 4 clients at a time instead of 256" in lines[0]
    assert "'missing'" in lines[1]
    # One client was all that was asked for.
    one_line(limited(144, "missing", "--max-connections", "3"), 1, "'missing'")


def test_a_socket_left_by_a_dead_server_is_replaced(world, source):
    with world.server(f"d={source}", name="s", expect=None) as server:
        server.kill()
    with world.server(f"d={source}", name="s") as server:
        assert world.client("verify", source, server.uri("d")).returncode == 0
    assert not server.socket.exists() and not server.control.exists()


def test_help_and_version_are_on_standard_output(world):
    for program in (SERVER, CLIENT):
        for option in ("--help", "--version"):
            result = subprocess.run([program, option], capture_output=True, text=True, timeout=60)
            assert result.returncode == 0 and result.stdout and not result.stderr
        assert re.match(r"nbd-mirror(-server)? \d+\.\d+\.\d+", result.stdout)
