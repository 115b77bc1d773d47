# SPDX-License-Identifier: Apache-2.0
"""Exactly one side may write to a disk: retire, its record, and taking ownership back."""

import errno
import fcntl
import json
import subprocess

import pytest

from harness import MIB, SERVER, make_disk, wait_for
from nbd_client import connect, nbd


def retire(server, lease_ms=60_000):
    held = server.hold(lease_ms=lease_ms)
    return server.ask("POST", "/v1/exports/d/retire",
                      {"hold": held, "moved_to": "nbd://elsewhere/d", "job": "j"})


def start(world, *arguments):
    return world.run_server(*arguments, "--listen", "unix:x.sock", "--control", "x.control")


def test_a_retired_disk_refuses_writes_and_says_shutdown(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        idle, busy = connect(server), connect(server)
        busy.pwrite(b"x" * 512, 0)
        assert 'nbd_mirror_export_retired{export="d"} 0' in server.ask("GET", "/metrics")[1]
        assert retire(server)[0] == 200
        assert 'nbd_mirror_export_retired{export="d"} 1' in server.ask("GET", "/metrics")[1]
        for handle in (busy, idle):
            with pytest.raises(nbd.Error) as refused:
                handle.pwrite(b"y" * 512, 0)
            assert refused.value.errnum == errno.ESHUTDOWN
        late = connect(server)
        assert late.is_read_only()
        assert late.pread(512, 0) == b"x" * 512
        # The old clients are disconnected, the reader stays.
        wait_for(lambda: server.export("d")["connections"] == 1)
        assert server.export("d")["state"] == "retired"
        assert server.ask("POST", "/v1/exports/d/hold", {})[0] == 409
        assert server.ask("PUT", "/v1/exports/d/trackers/t", {})[0] == 409


def test_a_disk_that_moved_away_is_not_served_for_writing_again(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        assert retire(server)[0] == 200
    for export in (f"d={disk}", f"other={disk}"):
        result = start(world, export)
        assert result.returncode == 1
        assert len(result.stderr.splitlines()) == 1
        assert "nbd://elsewhere/d" in result.stderr and "--take-ownership" in result.stderr
    link = world.path("link")
    link.symlink_to(disk)
    assert start(world, f"d={link}").returncode == 1
    with world.server(f"d={disk},ro") as server:
        assert connect(server).is_read_only()


def test_ownership_is_taken_back_once_and_for_all(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        assert retire(server)[0] == 200
    with world.server(f"d={disk}", options=["--take-ownership", "d"]) as server:
        connect(server).pwrite(b"x", 0)
    with world.server(f"d={disk}") as server:
        connect(server).pwrite(b"x", 0)


def test_a_server_that_cannot_start_takes_no_ownership(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        assert retire(server)[0] == 200
    result = start(world, f"d={disk}", "--take-ownership", "d", "--listen", "tcp:192.0.2.1:1")
    assert result.returncode == 1
    assert "nbd://elsewhere/d" in start(world, f"d={disk}").stderr


def test_a_disk_that_moved_away_does_not_keep_others_from_being_served(world):
    disk, other = make_disk(world.path("disk"), MIB), make_disk(world.path("other"), MIB)
    with world.server(f"d={disk}", f"o={other}") as server:
        assert retire(server)[0] == 200
    with world.server(f"d={disk}", f"o={other}") as server:
        server.wait_for_message("nbd://elsewhere/d")
        assert server.export("d")["state"] == "retired"
        assert connect(server).is_read_only()
        handle = nbd.NBD()
        handle.connect_uri(server.uri("o"))
        handle.pwrite(b"x", 0)


def test_a_new_disk_at_an_old_place_is_nobody_elses(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        assert retire(server)[0] == 200
    disk.unlink()
    make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        assert not connect(server).is_read_only()


def bar_records(world):
    """Their directory is made when a server announces itself, which may be after its first answer."""
    directory = world.quick("state/moved")
    wait_for(directory.exists)
    directory.rmdir()
    directory.write_text("in the way")


def test_a_move_that_cannot_be_recorded_does_not_happen(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        bar_records(world)
        handle = connect(server)
        status, answer = retire(server, lease_ms=5000)
        assert status == 500 and "moved" in answer["error"]
        assert server.export("d")["state"] == "held"
        handle.pwrite(b"x", 0)  # once the lease has lapsed
        assert server.export("d")["state"] == "serving"


def retire_together(server, holds):
    return server.ask("POST", "/v1/retire", {"job": "j", "exports": [
        {"name": name, "hold": held, "moved_to": f"nbd://elsewhere/{name}"}
        for name, held in holds.items()]})


def states(server, *names):
    return [server.export(name)["state"] for name in names]


def test_disks_that_are_retired_together_all_move_by_one_record(world):
    disks = {name: make_disk(world.path(name), MIB) for name in ("a", "b", "c")}
    exports = [f"{name}={path}" for name, path in disks.items()]
    with world.server(*exports) as server:
        status, answer = retire_together(server, {name: server.hold(name) for name in ("a", "b")})
        assert status == 200
        assert [each["name"] for each in answer["exports"]] == ["a", "b"]
        assert all(each["downtime_ms"] >= 0 for each in answer["exports"])
        assert states(server, "a", "b", "c") == ["retired", "retired", "serving"]
        assert server.export("b")["moved"]["to"] == "nbd://elsewhere/b"
    assert len(list(world.quick("state/moved").iterdir())) == 1
    with world.server(*exports) as server:
        assert states(server, "a", "b", "c") == ["retired", "retired", "serving"]
    # One of them is taken back: the other stays where it went.
    with world.server(*exports, options=["--take-ownership", "a"]) as server:
        assert states(server, "a", "b") == ["serving", "retired"]
    with world.server(*exports) as server:
        assert states(server, "a", "b") == ["serving", "retired"]


def test_of_disks_that_are_retired_together_none_moves_when_one_cannot(world):
    disks = [f"{name}={make_disk(world.path(name), MIB)}" for name in ("a", "b")]
    with world.server(*disks) as server:
        holds = {name: server.hold(name) for name in ("a", "b")}
        for wrong in ({**holds, "b": "x"}, {"b": holds["a"]}):
            status, answer = retire_together(server, wrong)
            assert status == 409 and "export 'b' stays here" in answer["error"]
        assert retire_together(server, {**holds, "c": "x"})[0] == 404
        both = {"name": "a", "hold": holds["a"]}
        for body in ({"exports": [both, both]}, {"exports": []}, {"exports": "a"}, {},
                     {"exports": [{"name": "a"}]}):
            assert server.ask("POST", "/v1/retire", body)[0] == 400, body
        assert states(server, "a", "b") == ["held", "held"]
        assert list(world.quick("state").rglob("*.json")) == []
        assert retire_together(server, holds)[0] == 200


def test_disks_whose_common_move_cannot_be_recorded_stay(world):
    disks = [f"{name}={make_disk(world.path(name), MIB)}" for name in ("a", "b")]
    with world.server(*disks) as server:
        holds = {name: server.hold(name) for name in ("a", "b")}
        bar_records(world)
        assert retire_together(server, holds)[0] == 500
        assert states(server, "a", "b") == ["held", "held"]


def test_a_disk_stays_when_it_cannot_be_told_whether_it_had_arrived(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        arrived = world.quick("state/arrived")
        wait_for(arrived.parent.exists)
        arrived.write_text("in the way")
        assert retire(server)[0] == 500
        assert not list(world.quick("state/moved").iterdir())
        assert states(server, "d") == ["held"]


def test_a_disk_that_has_moved_is_fenced_also_when_other_records_cannot_be_read(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        client = connect(server)
        (world.quick("state/moved") / "other.json").write_text("")
        assert retire(server)[0] == 200
        assert states(server, "d") == ["retired"]
        assert server.export("d")["moved"]["to"] == "nbd://elsewhere/d"
        wait_for(lambda: not server.ask("GET", "/v1/connections")[1]["connections"])
        with pytest.raises(nbd.Error):
            client.pwrite(b"x" * 512, 0)


def test_a_deeply_nested_request_is_refused(world):
    deep = b'{"exports":[{"name":"d","hold":"h","z":' + b"[" * 400_000 + b"]" * 400_000 + b"}]}"
    with world.server(f"d={make_disk(world.path('disk'), MIB)}") as server:
        result = subprocess.run(["curl", "-sS", "--unix-socket", server.control, "-d@-",
                                 "http://x/v1/retire"], input=deep, capture_output=True,
                                timeout=60, check=True)
        assert b"error" in result.stdout
        assert states(server, "d") == ["serving"]


def test_a_disk_whose_path_is_not_utf8_moves_away_and_is_known_again(world):
    disk = str(world.path("disk-")) + "\udcff"
    make_disk(disk, MIB)
    with world.server(f"d={disk}") as server:
        assert retire(server)[0] == 200
    again = [SERVER, f"d={disk}", "--listen", f"unix:{world.quick('x')}"]
    result = subprocess.run(again, env=world.env, capture_output=True, timeout=60)
    assert result.returncode == 1 and b"has moved away" in result.stderr


def test_a_record_that_cannot_be_read_lets_nobody_write(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        assert retire(server)[0] == 200
    record = next(world.quick("state/moved").iterdir())
    for text in ("", "{}", '{"disks": 1}', record.read_text().replace("storage", "stor")):
        record.write_text(text)
        result = start(world, f"d={disk}")
        assert result.returncode == 1 and "is damaged" in result.stderr, text


def test_records_that_cannot_be_looked_for_are_not_to_be_left_behind(world):
    disk = make_disk(world.path("disk"), MIB)
    moved = world.quick("state/moved")
    moved.parent.mkdir()
    moved.symlink_to(moved)  # nobody can look into that, whoever runs this
    result = start(world, f"d={disk}")
    assert result.returncode == 1
    assert "would be served for writing" in result.stderr and "--state-dir" not in result.stderr


def test_who_waits_long_for_other_servers_records_says_so(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}") as server:
        assert retire(server)[0] == 200
    with open(world.quick("state/moved.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = start(world, f"d={disk}", "--take-ownership", "d")
    assert result.returncode == 1
    assert "moved.lock': other servers have kept it for 5 s" in result.stderr


def job_status(world):
    return json.loads(world.client("status", "job", "--json").stdout)


def test_of_a_mirror_that_died_in_its_cutover_the_source_is_asked(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}", name="source-server") as source:
        with world.mirror(source.source("d"), make_disk(world.path("copy"), MIB)) as mirror:
            mirror.wait_for_phase("ready")
            mirror.kill()
        # As if it had died a little later.
        record = world.quick("state/jobs/job.json")
        record.write_text(json.dumps({**json.loads(record.read_text()), "phase": "cutting_over"}))
        status = job_status(world)
        assert status["owner"] == "source" and "the source is in service" in status["error"]
        held = source.hold()
        assert job_status(world)["owner"] == "unknown"  # it might be moved yet
        assert source.ask("POST", "/v1/exports/d/retire",
                          {"hold": held, "moved_to": "there", "job": "job"})[0] == 200
        status = job_status(world)
        assert status["owner"] == "unknown" and "the source has handed over" in status["error"]
    assert is_in_doubt(world, "the source's server knows")  # nobody answers
    with world.server(f"d={disk}", name="source-server", options=["--take-ownership", "d"]):
        # Who has it now need not have had it all the time.
        assert is_in_doubt(world, "knows whether it is this one")


def is_in_doubt(world, why):
    status = job_status(world)
    return status["owner"] == "unknown" and why in status["error"]


def test_status_says_that_a_disk_that_has_moved_was_taken_back(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}", name="source-server") as source:
        with world.mirror(source.source("d"), make_disk(world.path("copy"), MIB), "--cutover",
                          "auto") as mirror:
            assert mirror.wait() == 0
        assert job_status(world)["owner"] == "target"
    assert job_status(world)["owner"] == "target"
    with world.server(f"d={disk}", name="source-server", options=["--take-ownership", "d"]):
        status = job_status(world)
        assert status["owner"] == "unknown" and "was taken back" in status["error"]
        assert "guests may write at the target" not in world.client("status", "job").stdout
