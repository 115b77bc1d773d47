# SPDX-License-Identifier: Apache-2.0
"""What a running mirror tells machines: its metrics, and its block map; and what dashboards make of
them."""

import json
import re

import pytest

from harness import MIB, ROOT, ask, fio_writer, wait_for
from nbd_client import connect

SIZE = 256 * MIB


@pytest.fixture
def pair(world):
    """A quarter of the source is a hole."""
    with world.pair(SIZE, [(0, 3 * SIZE // 4)]) as both:
        yield both


def metrics(control):
    """Name and labels, as they are printed -> value."""
    status, text = ask(control, "GET", "/metrics")
    assert status == 200
    samples = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in samples}


def names_of(control):
    return set(re.findall(r"^# TYPE (\S+)", ask(control, "GET", "/metrics")[1], re.M))


def test_the_metrics_of_a_job_follow_its_status(world, pair):
    a, b = pair
    of_job, of_disk = '{job="job"}', f'{{job="job",source="{a.source("d")}"}}'
    with world.mirror(a.source("d"), b.uri("d"), "--bwlimit", "32M", "-c", "2",
                      "--max-downtime", "700") as mirror:
        wait_for(lambda: (mirror.status() or {}).get("connections") == 2)
        wait_for(lambda: mirror.status()["disks"][0]["moved_bytes"] > 0)
        now = metrics(mirror.control)
        assert now['nbd_mirror_job_phase{job="job",phase="copying"}'] == 1
        assert now["nbd_mirror_job_bandwidth_limit_bytes_per_second" + of_job] == 32 * MIB
        assert now["nbd_mirror_job_max_downtime_seconds" + of_job] == 0.7
        assert now["nbd_mirror_job_connections" + of_disk] == 2
        assert now["nbd_mirror_job_size_bytes" + of_disk] == SIZE
        assert now["nbd_mirror_job_passes_total" + of_disk] == 1
        assert now["nbd_mirror_job_copy_rate_bytes_per_second" + of_disk] > 0
        assert "nbd_mirror_job_expected_downtime_seconds" + of_job not in now
        assert world.client("pause", "job").returncode == 0
        assert metrics(mirror.control)['nbd_mirror_job_paused{job="job",by="operator"}'] == 1
        assert world.client("set", "job", "--bwlimit", "off").returncode == 0
        assert world.client("resume", "job").returncode == 0
        mirror.wait_for_phase("ready")
        now = metrics(mirror.control)
        assert 0 <= now["nbd_mirror_job_expected_downtime_seconds" + of_job] <= 0.7
        assert "nbd_mirror_job_bandwidth_limit_bytes_per_second" + of_job not in now
        assert now["nbd_mirror_job_moved_bytes_total" + of_disk] == SIZE
        assert mirror.cutover().returncode == 0
        mirror.wait()


def test_each_metric_of_a_job_is_in_its_manual_page(world, pair):
    a, b = pair
    page = (ROOT / "man" / "nbd-mirror.1").read_text()
    with world.mirror(a.source("d"), b.uri("d"), expect=(0, 4)) as mirror:
        mirror.wait_for_phase("ready")
        assert names_of(mirror.control) == set(re.findall(r"nbd_mirror_\w+", page))


def queries(value):
    """All expressions in a dashboard, those of its variables too, and all legends."""
    if isinstance(value, list):
        return [query for each in value for query in queries(each)]
    if not isinstance(value, dict):
        return []
    own = [value[key] for key in ("expr", "legendFormat", "query") if isinstance(value.get(key), str)]
    return own + queries(list(value.values()))


def families(control):
    """Names of samples, those of histograms too -> names of their labels."""
    found = {}
    for line in ask(control, "GET", "/metrics")[1].splitlines():
        if name := re.match(r"# TYPE (\S+)", line):
            found[name[1]] = set()
        elif not line.startswith("#"):
            name = re.match(r"\w+", line)[0]
            found.setdefault(name, set()).update(re.findall(r'(\w+)="', line))
    return found


def dashboard(name):
    return json.loads((ROOT / "dist" / "grafana" / f"{name}.json").read_text())


def test_the_dashboards_use_only_metrics_that_exist(world, pair):
    a, b = pair
    with world.mirror(a.source("d"), b.uri("d"), expect=(0, 4)) as mirror:
        mirror.wait_for_phase("ready")
        for name, control in (("jobs", mirror.control), ("servers", a.control)):
            there = families(control)
            used = "\n".join(queries(dashboard(name)))
            assert set(re.findall(r"nbd_mirror_\w+", used)) - set(there) == set()
            labels = set(re.findall(r"{{(\w+)}}", used)) | set(re.findall(r"(\w+)=~?\"", used))
            labels |= {each for group in re.findall(r"by \(([^)]*)\)", used)
                       for each in group.split(", ")}
            # The label of jobs is a variable; Prometheus adds where it has found a sample.
            assert labels - {"$label", "label", "instance"} - set().union(*there.values()) == set()


@pytest.mark.parametrize("name", ["jobs", "servers"])
def test_the_panels_of_a_dashboard_lie_beside_one_another(name):
    panels = dashboard(name)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells


def test_a_downtime_is_expected_once_the_first_round_is_through(world, pair):
    a, b = pair
    with fio_writer(world, a.uri("d"), size=SIZE, rate="20m"), \
            world.mirror(a.source("d"), b.uri("d"), "--handover", "release") as mirror:
        mirror.wait_for_phase("ready")
        expected = wait_for(lambda: mirror.status()["expected_downtime_ms"])
        assert 0 < expected <= 60_000
        assert mirror.cutover().returncode == 0
        mirror.wait()
    assert world.client("status", "job", "--json").stdout.count('"expected_downtime_ms": null') == 1


def block_map(mirror):
    status, answer = ask(mirror.control, "GET", "/v1/job/map")
    assert status == 200 and answer["job"] == "job"
    [disk] = answer["disks"]
    return disk


def test_the_block_map_shows_holes_and_what_is_moved(world, pair):
    a, b = pair
    with world.mirror(a.source("d"), b.uri("d"), "--bwlimit", "16M") as mirror:
        wait_for(lambda: (mirror.status() or {}).get("phase") == "copying")
        # All of the source was seen, and of the last quarter none is sent.
        disk = wait_for(lambda: (disk := block_map(mirror))["moved"].startswith("9") and disk)
        assert disk["source"] == a.source("d") and disk["size_bytes"] == SIZE
        assert disk["cells"] == 1024 and disk["cell_bytes"] == SIZE // 1024
        assert all(len(disk[state]) == 1024 for state in
                   ("hole", "to_do", "moved", "dirty", "in_flight", "written"))
        assert "9" in disk["to_do"] and "0" in disk["to_do"]
        assert set(disk["dirty"]) == {"0"} and set(disk["written"]) == {"9"}
        wait_for(lambda: set(block_map(mirror)["in_flight"]) > {"0"})
        assert world.client("set", "job", "--bwlimit", "off").returncode == 0
        mirror.wait_for_phase("ready")
        disk = block_map(mirror)
        assert disk["moved"] == "9" * 768 + "0" * 256
        assert disk["hole"] == "0" * 768 + "9" * 256
        assert mirror.cutover().returncode == 0
        mirror.wait()


def test_the_block_map_shows_what_is_written_again(world, pair):
    a, b = pair
    with world.mirror(a.source("d"), b.uri("d")) as mirror:
        mirror.wait_for_phase("ready")
        handle = connect(a)
        handle.pwrite(b"n" * 4096, SIZE // 2)
        written = wait_for(lambda: (text := block_map(mirror)["written"]) != "9" * 1024 and text)
        assert written[512] in "0123" and written.count("9") == 1023
        assert world.client("set", "job", "--bwlimit", "1M").returncode == 0
        handle.pwrite(b"n" * 8 * MIB, 0)
        disk = wait_for(lambda: "9" in (disk := block_map(mirror))["dirty"] and disk)
        assert set(disk["to_do"]) == {"0"}
        assert world.client("set", "job", "--bwlimit", "off").returncode == 0
        wait_for(lambda: set(block_map(mirror)["dirty"]) == {"0"})
        mirror.wait_for_phase("ready")
        assert mirror.cutover().returncode == 0
        mirror.wait()


def test_the_latencies_of_an_export_are_those_of_its_clients(world, pair):
    a, b = pair

    def latency():
        return a.export("d")["latency"]

    world.path("source").rename(world.path("elsewhere"))  # or a mirror would read it there
    handle = connect(a)
    handle.pread(MIB, 0)
    handle.pwrite(b"x" * MIB, 0)
    wait_for(lambda: latency()["write"]["requests"] == 1)
    before = latency()
    assert before["read"]["requests"] == 1 and before["flush"] == {"requests": 0, "total_us": 0}
    assert before["write"]["total_us"] > 0
    with world.mirror(a.source("d"), b.uri("d"), "--bwlimit", "8M", expect=(4,)) as mirror:
        wait_for(lambda: b.export("d")["written_bytes"] > 0)
        connections = a.connections()
        assert any("read" in each["requests"] for each in connections if each["background"])
        assert len([each for each in connections if not each["background"]]) == 1
        assert all(each["background"] for each in b.connections() if each["export"] == "d")
        assert latency() == before
        assert world.client("cancel", "job").returncode == 0
        assert mirror.wait() == 4
    wait_for(lambda: len(a.connections()) == 1)
    assert latency() == before
