# SPDX-License-Identifier: Apache-2.0
"""One writer of a disk at a time, also between our programs and QEMU's, by QEMU's image locks."""

import subprocess

import pytest

from harness import MIB, Process, accepts, make_disk, need, same_content, wait_for
from peers import run

IN_USE = "another program uses it"


def refused(world, *export):
    """What a second server says of the export, which it must not serve."""
    result = world.run_server(*export, "--control", world.quick("second.control"),
                              "--listen", f"unix:{world.quick('second.sock')}")
    assert result.returncode == 1
    return result.stderr


def qemu_nbd(world, *options):
    return Process([need("qemu-nbd"), "-t", "-k", world.quick("qemu.sock"), "-f", "raw", *options],
                   world.env, world.quick("qemu-nbd.log"))


@pytest.mark.parametrize("mode", ["", ",ro"])
def test_a_second_server_refuses_a_disk_that_is_served_for_writing(world, mode):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}"):
        assert IN_USE in refused(world, f"d={disk}{mode}")


def test_readers_may_be_many(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk},ro"), world.server(f"d={disk},ro"):
        assert IN_USE in refused(world, f"d={disk}")


def test_a_disk_is_free_again_when_its_server_has_ended(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}", expect=None) as server:
        server.kill()
    with world.server(f"d={disk}"):
        pass


def test_qemu_refuses_a_disk_that_is_served_for_writing(world):
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}"):
        result = run(world, "qemu-io", "-f", "raw", "-c", "write 0 512", disk)
        assert 'Failed to get "write" lock' in result.stderr


def test_qemu_img_info_says_that_an_image_is_served_for_writing(world):
    # Of a raw image qemu-img says nothing, not even under a running QEMU; of others it does.
    need("qemu-img")
    disk = world.path("disk")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "1M"], check=True)
    with world.server(f"d={disk}"):
        result = run(world, "qemu-img", "info", disk)
        assert 'Failed to get shared "write" lock' in result.stderr
        assert run(world, "qemu-img", "info", "-U", disk).returncode == 0


def test_a_disk_that_qemu_writes_to_is_refused(world):
    disk = make_disk(world.path("disk"), MIB)
    with qemu_nbd(world, disk):
        wait_for(lambda: accepts(world.quick("qemu.sock")))
        assert IN_USE in refused(world, f"d={disk}")
        assert IN_USE in refused(world, f"d={disk},ro")


def test_a_disk_in_use_is_not_copied_over(world):
    source = make_disk(world.path("source"), MIB, [(0, MIB)])
    disk = make_disk(world.path("disk"), MIB)
    with world.server(f"d={disk}"):
        result = world.client("copy", source, disk, "--progress", "none")
    assert result.returncode == 1 and IN_USE in result.stderr
    assert disk.read_bytes() == bytes(MIB)


def test_a_source_in_use_is_copied_with_a_warning(world):
    disk = make_disk(world.path("disk"), MIB, [(0, MIB)])
    with world.server(f"d={disk}"):
        result = world.client("copy", disk, "copy", "--create", "--progress", "none")
    assert result.returncode == 0 and "may be of different moments" in result.stderr
    assert same_content(disk, world.path("copy"))
