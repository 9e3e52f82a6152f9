"""Import of perun's JSON and HDF5 files."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import h5py
import pytest

from tests.support import peers
from tests.support.imports import codes, read_all

if TYPE_CHECKING:
    from pathlib import Path


SENSORS = [
    peers.perun_sensor("cpu_pkg_0", "cpu", "J", [100.0, 130.0, 160.0], mag=1.0, max=262143.0),
    peers.perun_sensor("dram_0", "ram", "J", [1e6, 2e6, 3e6], mag=1e-6, max=2e12),
    peers.perun_sensor("CUDA:0", "gpu", "W", [200.0, 100.0, 200.0]),
    peers.perun_sensor("CPU_USAGE", "cpu", "%", [1.0, 2.0, 3.0]),
]


@pytest.mark.parametrize("form", ["list", "mapping", "hdf5"])
def test_each_node_is_a_record_of_its_host(tmp_path: Path, form: str) -> None:
    tree = peers.perun_tree({"node-1": SENSORS, "node-2": SENSORS[:1]}, wrapped=form != "mapping")
    path = tmp_path / "x"
    _ = peers.write_perun_hdf5(path, tree) if form == "hdf5" else peers.write_json(path, tree)
    records, entries = read_all(path)
    assert codes(entries) == ["whole", "whole"]
    first, second = records
    assert (first.host, second.host, first.world_size) == ("node-1", "node-2", 2)
    assert first.experiment_id == second.experiment_id
    assert (first.process_index, second.process_index) == (0, 1)
    energy = first.energy_metrics
    assert (energy.cpu_energy_j, energy.gpu_energy_j) == (60.0, 300.0)
    assert energy.ram_energy_j == pytest.approx(2.0)
    assert energy.total_energy_j == pytest.approx(362.0)
    assert (energy.total_scope, energy.cpu_provenance, energy.gpu_provenance) == ("host", "measured", "integrated")
    assert [device.energy_j for device in energy.devices or []] == [300.0]
    assert energy.duration_sec == 4.0
    assert first.timestamps.start == datetime.fromisoformat("2026-11-23T08:47:39.352521")
    assert {sensor.instance for sensor in energy.sensors or []} == {"cpu_pkg_0", "dram_0", "CUDA:0"}
    assert first.origin is not None
    assert first.origin.version == "1.0.0"


@pytest.mark.parametrize(("name", "kind"), [("psys", "psys"), ("psys_0", "other"), ("ipmi", "node")])
def test_sensor_of_the_whole_node_is_the_only_part_of_the_total(tmp_path: Path, name: str, kind: str) -> None:
    whole = peers.perun_sensor(name, kind, "J", [0.0, 500.0])
    [record], [entry] = read_all(peers.write_json(tmp_path / "x", peers.perun_tree({"n": [*SENSORS, whole]})))
    energy = record.energy_metrics
    assert (energy.total_energy_j, energy.cpu_energy_j, energy.gpu_energy_j) == (500.0, 60.0, 300.0)
    assert (entry.outcome, entry.code, name in entry.message) == ("kept", "components_disagree", True)


@pytest.mark.parametrize("others", [["other"], ["net", "disk"], ["psys", "node"], [""]], ids=str)
def test_sensor_of_unknown_type_makes_the_total_unknown(tmp_path: Path, others: list[str]) -> None:
    sensors = [peers.perun_sensor(f"s{kind}", kind, "J", [0.0, 500.0]) for kind in others]
    [record], [entry] = read_all(peers.write_json(tmp_path / "x", peers.perun_tree({"n": [*SENSORS, *sensors]})))
    assert (record.energy_metrics.total_energy_j, record.energy_metrics.cpu_energy_j) == (None, 60.0)
    assert (entry.code, f"s{others[0]}" in entry.message) == ("no_energy", True)


def test_wrap_of_a_counter_is_added(tmp_path: Path) -> None:
    wrapping = peers.perun_sensor("cpu", "cpu", "J", [900.0, -1.0, 990.0, 40.0, 100.0], max=1000.0)
    [record], [entry] = read_all(peers.write_json(tmp_path / "x", peers.perun_tree({"n": [wrapping]})))
    assert (record.energy_metrics.total_energy_j, entry.code) == (200.0, "whole")
    assert [(sensor.wraps, sensor.samples) for sensor in record.energy_metrics.sensors or []] == [(1, 4)]


def test_decreasing_counter_without_a_range_gives_no_energy(tmp_path: Path) -> None:
    reset = peers.perun_sensor("cpu", "cpu", "J", [900.0, 10.0])
    [record], [entry] = read_all(peers.write_json(tmp_path / "x", peers.perun_tree({"n": [reset, SENSORS[2]]})))
    assert (record.energy_metrics.total_energy_j, record.energy_metrics.gpu_energy_j) == (None, 300.0)
    assert entry.code == "no_energy"


@pytest.mark.parametrize(
    ("samples", "problem"),
    [
        ({"values": [7.0]}, "sensor_lost"),
        ({"values": []}, "sensor_lost"),
        ({"timesteps": [0.0, 2.0, 1.0]}, "sampling_gap"),
        ({"timesteps": [0.0, 1.0]}, "sampling_gap"),
    ],
    ids=str,
)
@pytest.mark.parametrize("unit", ["J", "W"])
def test_sensor_with_unusable_samples_makes_the_total_unknown(
    tmp_path: Path, samples: dict[str, Any], problem: str, unit: str
) -> None:
    lost, whole = peers.perun_sensor("gpu", "gpu", unit, [1.0, 2.0, 4.0]), [1.0, 2.0, 4.0]
    lost["raw_data"] |= samples
    if "values" in samples:
        lost["raw_data"]["timesteps"] = [0.0] * len(samples["values"])
    nodes = {"n": [peers.perun_sensor("cpu", "cpu", "J", whole), lost]}
    [record], [entry] = read_all(peers.write_json(tmp_path / "x", peers.perun_tree(nodes)))
    energy = record.energy_metrics
    assert (energy.total_energy_j, energy.cpu_energy_j, energy.gpu_energy_j) == (None, 3.0, None)
    assert (entry.code, f"gpu ({problem})" in entry.message) == ("no_energy", True)
    nodes["n"] = [lost]
    if "values" in samples:
        assert codes(read_all(peers.write_json(tmp_path / "x", peers.perun_tree(nodes)))[1]) == ["no_sensor"]


def test_runs_are_experiments_and_regions_are_not(tmp_path: Path) -> None:
    tree = peers.perun_tree({"n": SENSORS[:1]}, runs=2)
    [of_app] = tree["nodes"]
    [of_run] = next(iter(of_app.values()))["nodes"]
    of_run["0"]["regions"] = {"work": {"metrics": {"energy": {"value": 1e9}}}}
    records, _ = read_all(peers.write_json(tmp_path / "x", tree))
    assert len({record.experiment_id for record in records}) == 2
    assert [record.energy_metrics.total_energy_j for record in records] == [60.0, 60.0]
    assert {record.timestamps.start for record in records} == {None}


def test_own_energy_of_perun_is_compared_without_its_pue(tmp_path: Path) -> None:
    tree = peers.perun_tree({"n": SENSORS[:1]})
    [of_app] = tree["nodes"]
    multi = next(iter(of_app.values()))
    multi["metadata"]["post-processing.pue"] = "1.5"
    [of_run] = multi["nodes"]
    [of_node] = of_run["0"]["nodes"]
    for own, code in ((90.0, "whole"), (60.0, "own_aggregate_differs")):
        of_node["n"]["metrics"]["energy"] = {"value": own, "metric_md": {"unit": "J", **peers.PERUN_UNITS}}
        [record], [entry] = read_all(peers.write_json(tmp_path / "x", tree))
        assert (record.energy_metrics.total_energy_j, entry.code) == (60.0, code)


def test_links_out_of_an_hdf5_file_are_not_followed(tmp_path: Path) -> None:
    other = peers.write_perun_hdf5(tmp_path / "other", peers.perun_tree({"secret": SENSORS}))
    path = peers.write_perun_hdf5(tmp_path / "x", peers.perun_tree({"n": SENSORS[3:]}))
    with h5py.File(path, "a") as file:
        stamp = next(iter(file["app/nodes"]))
        place = file[f"app/nodes/{stamp}/nodes/0/nodes"]
        place["linked"] = h5py.ExternalLink(str(other), f"app/nodes/{stamp}/nodes/0/nodes/secret")
        values = place["n/nodes/cpu/nodes/CPU_USAGE/raw_data"]
        del values["values"]
        values["values"] = h5py.ExternalLink(
            str(other), f"app/nodes/{stamp}/nodes/0/nodes/secret/nodes/cpu/nodes/cpu_pkg_0/raw_data/values"
        )
        place["soft"] = h5py.SoftLink(f"/app/nodes/{stamp}/nodes/0/nodes/n")
    records, entries = read_all(path)
    assert (records, codes(entries)) == ([], ["no_sensor"])


def test_chunk_of_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    path = peers.write_perun_hdf5(tmp_path / "x", peers.perun_tree({"n": SENSORS[:1]}))
    with h5py.File(path, "a") as file:
        place = file[f"app/nodes/{next(iter(file['app/nodes']))}/nodes/0/nodes/n/nodes/cpu/nodes/cpu_pkg_0/raw_data"]
        del place["values"]
        place.create_dataset(
            "values", shape=(3,), maxshape=(None,), chunks=(400_000_000,), dtype="float64", compression="gzip"
        )
    records, entries = read_all(path)
    assert (records, codes(entries)) == ([], ["too_large"])


@pytest.mark.parametrize("cut", [8, 100, 900, 2048])
def test_damaged_hdf5_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = peers.write_perun_hdf5(tmp_path / "x", peers.perun_tree({"n": SENSORS}))
    path.write_bytes(path.read_bytes()[:cut])
    records, entries = read_all(path)
    assert (records, codes(entries)) == ([], ["unreadable"])
