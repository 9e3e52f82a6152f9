"""`import`: what it writes and reports, and that a repeated import changes nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.exporters import to_codecarbon
from llm_energy_measure.results.store.samples import load_samples
from llm_energy_measure.results.store.tags import load_tags
from tests.support import peers
from tests.support.children import open_folder, outcome_in_child
from tests.support.command import Done, as_process, on_terminal, run
from tests.support.peers import LATEST, line

POWER_LOGS = Path(__file__).parents[1] / "data" / "power_logs"

__all__ = ["open_folder"]  # a fixture


TORN = line(run_id="r9", duration="x", energy_consumed="y")
"""A row with two damaged cells, which can be shifted."""


@pytest.fixture
def emissions(tmp_path: Path) -> Path:
    """Return a log of two runs, one of them with cumulative rows, and a torn row."""
    path = tmp_path / "emissions.csv"
    first = line(run_id="r2", timestamp="2026-01-25T14:31:35")
    grown = line(run_id="r2", timestamp="2026-01-25T14:31:40", duration="15.0", energy_consumed="1.5")
    path.write_text("\n".join([",".join(LATEST), line(), first, grown, TORN]) + "\n")
    return path


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_import_writes_raw_results_and_reports_refused_rows(emissions: Path, results: Path) -> None:
    assert run("-o", results, "import", emissions, "--dry-run").out.count("would write") == 2
    done = run("-v", "-o", results, "import", emissions)
    assert done.status == 0
    assert done.out == (
        "codecarbon-llama-r1: 1 of 1 processes, 3.6 MJ, unknown tokens\n"
        "codecarbon-llama-r2: 1 of 1 processes, 5.4 MJ, unknown tokens\n"
    )
    assert f"warning: {emissions}:5: refused (torn): duration is 'x', which is not valid in this column\n" in done.err
    assert f"warning: {emissions}:3: refused (cumulative): line 4 of the same run has 1.5 kWh" in done.err
    assert done.err.endswith("2 experiments: 4 seen, 2 kept, 0 repaired, 2 refused\n")
    repository = FileSystemRepository(results)
    assert repository.list_experiments() == ["codecarbon-llama-r1", "codecarbon-llama-r2"]
    [record] = repository.load_all_raw("codecarbon-llama-r1")
    assert record.origin is not None
    assert (record.origin.tool, record.origin.version, record.origin.file, record.origin.row) == (
        *("codecarbon", "3.2.1", "emissions.csv"),
        2,
    )


def test_a_repeated_import_changes_nothing(emissions: Path, results: Path) -> None:
    run("-o", results, "import", emissions)
    before = files(results)
    done = run("-o", results, "import", emissions, "--json")
    assert files(results) == before
    assert (done.status, done.json()["kept"]) == (0, 2)
    assert [entry["code"] for entry in done.json()["entries"]] == [
        *("already_there", "cumulative", "already_there", "torn"),
    ]


def test_tags_of_imported_experiments_are_set(emissions: Path, results: Path) -> None:
    assert run("-o", results, "import", emissions, "--dry-run", "--tag", "commit=abc").status == 0
    assert not (results / "tags").exists()
    assert run("-o", results, "import", emissions, "--tag", "commit=abc").status == 0
    ids = FileSystemRepository(results).list_experiments()
    assert [load_tags(FileSystemRepository(results).store, name).tags for name in ids] == [{"commit": "abc"}] * len(ids)


def test_a_repeated_import_reports_repairs_again(results: Path, tmp_path: Path) -> None:
    path = tmp_path / "emissions.csv"
    unmeasured = {"energy_consumed": "", "gpu_energy": "", "cpu_energy": "", "run_id": "r2"}
    path.write_text("\n".join([",".join(LATEST), line().replace(",r1,", ", r1,"), line(**unmeasured)]) + "\n")
    first, second = (run("-o", results, "import", path, "--json") for _ in range(2))
    assert first.err.endswith("2 seen, 1 kept, 1 repaired, 0 refused\n")
    assert second.err.endswith("2 seen, 1 kept, 1 repaired, 0 refused (2 already stored)\n")
    assert [entry["code"] for entry in second.json()["entries"]] == ["padded", "already_there"]
    for before, after in zip(first.json()["entries"], second.json()["entries"], strict=True):
        assert after["message"] == f"{before['message']}; the results already contain the same measurement"


@pytest.mark.parametrize("name", ["x" * 300, "loop"])
def test_an_invalid_path_does_not_stop_the_import_of_others(
    emissions: Path, results: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    done = run("-o", results, "import", tmp_path / name, emissions, "--json")
    assert (done.status, done.json()["kept"]) == (0, 2)
    assert (done.json()["entries"][0]["code"], done.json()["entries"][0]["row"]) == ("unreadable", None)


def test_a_file_without_permission_does_not_stop_the_import(emissions: Path, open_folder: Path) -> None:
    secret, log = open_folder / "secret", open_folder / "log"
    secret.touch(mode=0)
    log.write_bytes(emissions.read_bytes())
    done = outcome_in_child(
        lambda: run("-v", "-o", open_folder / "results", "import", secret, log, "--join", secret), unprivileged=True
    )
    assert isinstance(done, Done)
    assert (done.status, done.out.count("\n")) == (0, 2)
    assert f"{secret}: refused (unreadable): the operating system cannot read it: Permission denied" in done.err
    assert done.err.endswith("6 seen, 2 kept, 0 repaired, 4 refused\n")


def test_a_file_name_that_is_not_utf8_is_imported(emissions: Path, results: Path, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"a\xff.csv")
    path.write_bytes(emissions.read_bytes())
    done = run("-o", results, "import", path, "--json")
    assert (done.status, done.json()["kept"]) == (0, 2)
    [record] = FileSystemRepository(results).load_all_raw("codecarbon-llama-r1")
    assert record.origin is not None
    assert record.origin.file == "a\\xff.csv"


def test_a_copy_of_a_log_with_new_rows_adds_only_new_rows(emissions: Path, results: Path, tmp_path: Path) -> None:
    run("-o", results, "import", emissions)
    before = files(results)
    copy = tmp_path / "emissions.csv.bak"
    copy.write_bytes(emissions.read_bytes() + line(run_id="r3").encode() + b"\n")
    assert run("-o", results, "import", copy).status == 0
    after = files(results)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {
        f"raw/codecarbon-llama-r3/{name}" for name in ("manifest.json", "process_0.json")
    }


def test_a_different_measurement_of_a_run_is_a_conflict_and_is_kept(emissions: Path, results: Path) -> None:
    run("-o", results, "import", emissions)
    emissions.write_text(emissions.read_text().replace("r2,e1,15.0", "r2,e1,16.0"))
    done = run("-o", results, "import", emissions, "--json")
    [entry] = [entry for entry in done.json()["entries"] if entry["code"] == "conflict"]
    assert (done.status, entry["outcome"], entry["row"]) == (0, "refused", 4)
    assert "a different result is stored" in entry["message"]
    assert (results / "raw" / "codecarbon-llama-r2" / "rejected-process_0-1.json.kept").is_file()


def test_json_has_counts_and_one_entry_per_row(emissions: Path, results: Path) -> None:
    done = run("-o", results, "import", emissions, "--json")
    document = done.json()
    assert list(document) == ["seen", "kept", "repaired", "refused", "entries"]
    assert [document[name] for name in ("seen", "kept", "repaired", "refused")] == [4, 2, 0, 2]
    for entry in document["entries"]:
        assert list(entry) == ["file", "row", "outcome", "code", "message", "experiment_id"]
    assert document["entries"][-1] == {
        "file": str(emissions),
        "row": 5,
        "outcome": "refused",
        "code": "torn",
        "message": "duration is 'x', which is not valid in this column",
        "experiment_id": None,
    }


def test_a_dry_run_writes_nothing_and_prints_files_and_verdicts(emissions: Path, results: Path) -> None:
    done = run("-o", results, "import", emissions, "--dry-run")
    assert done.status == 0
    assert not results.exists()
    # A kilowatt-hour in ten seconds fails a check. The dry run prints this verdict before anything is written.
    first = done.out.splitlines()[0]
    assert first.startswith("codecarbon-llama-r1: 1 of 1 processes, 3.6 MJ, unknown tokens, failed, failed checks ")
    assert "energy.exceeds_devices" in first
    assert first.endswith("; would write raw/codecarbon-llama-r1/process_0.json")
    assert done.err.endswith("; nothing was written\n")
    peers.write_json(emissions.parent / "result.json", peers.vllm_result())
    done = run("-o", results, "import", emissions.parent / "result.json", "--dry-run")
    assert ", partial, failed checks completeness.no_energy; would write" in done.out
    assert "process 0 has no energy; the total and the energy per token are lower bounds" in done.err


def test_a_dry_run_recognises_stored_results(emissions: Path, results: Path) -> None:
    run("-o", results, "import", emissions)
    before = files(results)
    done = run("-o", results, "import", emissions, "--dry-run")
    assert "would write" not in done.out
    assert done.out.count("; already stored\n") == 2
    assert "(2 already stored); nothing was written" in done.err
    emissions.write_text(emissions.read_text() + line(run_id="r3") + "\n")
    done = run("-o", results, "import", emissions, "--dry-run", "--json")
    assert [entry["code"] for entry in done.json()["entries"]] == [
        *("already_there", "cumulative", "already_there", "torn", "whole"),
    ]
    assert files(results) == before


@pytest.mark.parametrize("is_stored", [True, False], ids=["in the results", "in the same import"])
def test_a_dry_run_refuses_the_same_records_as_an_import(
    emissions: Path, results: Path, tmp_path: Path, *, is_stored: bool
) -> None:
    paths = [emissions, emissions.with_suffix(".changed")]
    paths[1].write_text(emissions.read_text().replace("r2,e1,15.0", "r2,e1,16.0"))
    if is_stored:
        run("-o", results, "import", paths.pop(0))
    before = files(results)
    planned = run("-o", results, "import", *paths, "--dry-run", "--json").json()
    assert files(results) == before
    done = run("-o", results, "import", *paths, "--json").json()
    assert [entry["code"] for entry in planned["entries"]] == [entry["code"] for entry in done["entries"]]
    assert [planned[name] for name in ("kept", "refused")] == [done[name] for name in ("kept", "refused")]
    assert "conflict" in {entry["code"] for entry in planned["entries"]}
    table = tmp_path / "t.csv"
    table.write_text("id,j\na/b,1\na_b,2\n")
    mapping = ["--map", "experiment_id=id", "--map", "energy_j=j", "--json"]
    for dry_run in (["--dry-run"], []):
        entries = run("-o", results, "import", table, *mapping, *dry_run).json()["entries"]
        assert [entry["code"] for entry in entries] == ["whole", "refused_at_save"]


def test_a_dry_run_warns_of_energy_counted_twice(results: Path, tmp_path: Path) -> None:
    text = "rank,j\n0,100\n1,100\n"
    (tmp_path / "t.csv").write_text(text)
    mapping = [
        "--map=experiment_id='e'",
        "--map=process_index=rank",
        "--map=energy_j=j",
        "--map=total_scope='host'",
        "--map=world_size=3",
    ]
    done = run("-o", results, "import", tmp_path / "t.csv", "--dry-run", "--host", "node-1", *mapping)
    assert "e: processes 0, 1 on host node-1 read the whole host" in done.err
    assert "e: 2 of 3 processes" in done.out
    assert ", over-counted, attributed 100 J" in done.out
    assert "; would write raw/e/process_0.json, raw/e/process_1.json\n" in done.out


def test_the_maximum_file_size_is_that_of_all_commands(emissions: Path, results: Path) -> None:
    done = run("-o", results, "import", "--max-file-size", "100", emissions)
    assert done.status == 1
    assert "and the limit is 100; raise --max-file-size, or split the file" in done.err
    assert run("-o", results, "import", "--max-file-size", "1MB", emissions).status == 0


def test_exit_status_is_1_if_nothing_is_imported(tmp_path: Path, results: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    for arguments in (["notes.txt"], ["nowhere"], ["notes.txt", "nowhere"]):
        done = run("-o", results, "import", "--json", *(tmp_path / name for name in arguments))
        assert (done.status, done.json()["kept"], done.json()["refused"]) == (1, 0, len(arguments))
    assert not results.exists()


def test_a_missing_path_does_not_stop_the_import_of_others(tmp_path: Path, results: Path, emissions: Path) -> None:
    done = run("-o", results, "import", tmp_path / "nowhere", emissions)
    assert done.status == 0
    assert f"warning: {tmp_path / 'nowhere'}: refused (unreadable): the path does not exist\n" in done.err
    assert len(FileSystemRepository(results).list_experiments()) == 2


def test_quiet_prints_the_reason_if_nothing_is_imported(results: Path, tmp_path: Path) -> None:
    (file := tmp_path / "notes.json").write_text("{}")
    done = run("-q", "-o", results, "import", file)
    assert done.status == 1
    assert done.err.startswith(f"warning: {file}: refused (unknown_format): ")
    assert len(done.err.splitlines()) == 1


def test_verbose_prints_all_entries_and_quiet_no_counts(emissions: Path, results: Path) -> None:
    rows = [line(run_id=f"r{index}", duration="x", energy_consumed="y") for index in range(3, 6)]
    emissions.write_text("\n".join([",".join(LATEST), *rows, line()]) + "\n")
    messages = run("-o", results, "import", emissions, "--dry-run").err
    assert f"{emissions}:2: refused (torn)" in messages
    assert f"{emissions}:3" not in messages
    assert "2 more with code torn; -v or --json prints them" in messages
    messages = run("-v", "-o", results, "import", emissions, "--dry-run").err
    assert f"{emissions}:3: refused (torn)" in messages
    assert f"{emissions}:5: kept (whole)" in messages
    assert "seen" not in run("-q", "-o", results, "import", emissions, "--dry-run").err


def test_a_folder_of_legacy_results_is_imported(real_data: Path, results: Path) -> None:
    done = run("-o", results, "import", real_data / "legacy_v1", "--json", "--host", "node-1")
    assert done.status == 0
    assert [done.json()[name] for name in ("seen", "kept", "repaired", "refused")] == [39, 35, 0, 4]
    assert run("-o", results, "aggregate", "--all").status == 0
    record = FileSystemRepository(results).load_all_raw("0112")[3]
    assert (record.host, record.world_size) == ("node-1", 4)
    before = files(results)
    assert run("-o", results, "import", real_data / "legacy_v1", "--host", "node-1").status == 0
    assert files(results) == before


def test_a_lower_bound_is_marked(tmp_path: Path, results: Path) -> None:
    (tmp_path / "table.csv").write_text("id,p,j,w\ne,0,100,2\n")
    mapping = [f"--map={pair}" for pair in ("experiment_id=id", "process_index=p", "energy_j=j", "world_size=w")]
    done = run("-o", results, "import", tmp_path / "table.csv", *mapping)
    assert done.out == "e: 1 of 2 processes, at least 100 J, unknown tokens\n"


def test_join_takes_energy_from_a_record_of_the_same_time(tmp_path: Path, results: Path) -> None:
    energy = tmp_path / "emissions.csv"
    energy.write_text(f"{','.join(LATEST)}\n{line(timestamp='2026-08-16T16:08:54', duration='100.0')}\n")
    result = peers.write_json(tmp_path / "result.json", peers.vllm_result())
    done = run("-o", results, "import", result, "--join", energy, "--json")
    assert [(entry["outcome"], entry["code"]) for entry in done.json()["entries"]] == [("repaired", "energy_joined")]
    [name] = FileSystemRepository(results).list_experiments()
    [record] = FileSystemRepository(results).load_all_raw(name)
    assert record.energy_metrics.total_energy_j == 3.6e6


def test_samples_of_a_joined_power_log_are_stored(tmp_path: Path, results: Path) -> None:
    header, *rows = (POWER_LOGS / "nvidia_smi.csv").read_text().splitlines()
    log = tmp_path / "power.csv"
    log.write_text("\n".join([header, *rows]))
    result = peers.write_json(tmp_path / "result.json", peers.vllm_result(date="20260401-100010", duration=8.0))
    for _ in range(2):  # a repeated import changes nothing
        done = run("-o", results, "import", result, "--join", log, "--json")
        assert [entry["code"] for entry in done.json()["entries"]] == ["energy_joined"]
        assert "power_log" not in done.json()["entries"][0]
        repository = FileSystemRepository(results)
        [name] = repository.list_experiments()
        traces = load_samples(repository.store, name, 0)
        assert [(trace.device, trace.times[0], trace.times[-1]) for trace in traces] == [
            ("0", 0.0, 8.0),
            ("1", 0.0, 8.0),
        ]
    [record] = repository.load_all_raw(name)
    assert record.energy_metrics.total_energy_j == 8 * 610.0
    done = run("-o", results, "import", log, "--dry-run")
    assert "nothing was written" in done.err
    assert repository.list_experiments() == [name]


def test_log_without_header_is_imported_with_column_names(results: Path) -> None:
    log = POWER_LOGS / "nvidia_smi_noheader_nounits.csv"
    assert run("-o", results, "import", log).status == 1
    done = run("-o", results, "import", log, "--columns", "timestamp, index, power.draw", "--to", "2026-04-01T10:00:05")
    assert "3.05 kJ" in done.out
    repository = FileSystemRepository(results)
    [name] = repository.list_experiments()
    assert [trace.times[-1] for trace in load_samples(repository.store, name, 0)] == [5.0, 5.0]


def test_energy_joined_later_needs_overwrite(tmp_path: Path, results: Path) -> None:
    energy = tmp_path / "emissions.csv"
    energy.write_text(f"{','.join(LATEST)}\n{line(timestamp='2026-08-16T16:08:54', duration='100.0')}\n")
    result = peers.write_json(tmp_path / "result.json", peers.vllm_result())
    assert run("-o", results, "import", result).status == 0
    [name] = FileSystemRepository(results).list_experiments()
    folder = results / "raw" / name
    planned = run("-o", results, "import", result, "--join", energy, "--dry-run", "--json").json()["entries"]
    done = run("-o", results, "import", result, "--join", energy, "--json")
    [entry] = done.json()["entries"]
    assert (done.status, entry["code"], [one["code"] for one in planned]) == (1, "conflict", ["conflict"])
    assert entry["message"].endswith(
        "; compare both results, or replace the stored result with --overwrite, which keeps a copy of it; "
        "the record is kept in "
        f"{folder / 'rejected-process_0-1.json.kept'}"
    )
    assert "replace the stored result with --overwrite" in planned[0]["message"]
    for dry_run in (["--dry-run"], []):
        done = run("-o", results, "import", result, "--join", energy, "--overwrite", "--json", *dry_run)
        assert [one["code"] for one in done.json()["entries"]] == ["energy_joined"]
        replaced = "would replace" if dry_run else "replaced"
        assert f"0 refused; {replaced} 1 stored result, keeping a copy" in done.err
    [record] = FileSystemRepository(results).load_all_raw(name)
    assert record.energy_metrics.total_energy_j == 3.6e6
    assert b'"total_energy_j": null' in (folder / "superseded-process_0-1.json.kept").read_bytes()


@pytest.mark.parametrize("host", [[], ["--host", "node-1"]])
def test_a_record_with_joined_energy_keeps_it(tmp_path: Path, results: Path, host: list[str]) -> None:
    energy = tmp_path / "emissions.csv"
    energy.write_text(f"{','.join(LATEST)}\n{line(timestamp='2026-08-16T16:08:54', duration='100.0')}\n")
    result = peers.write_json(tmp_path / "result.json", peers.vllm_result())
    run("-o", results, "import", result, "--join", energy, *host)
    before = files(results)
    for more in ([], ["--overwrite"], ["--join", energy], ["--dry-run"]):
        done = run("-o", results, "import", result, *more, *host)
        assert done.status == 0, more
        assert "0 refused (1 already stored)" in done.err
        assert files(results) == before


def test_energy_of_a_time_with_two_runs_is_not_joined(tmp_path: Path, results: Path) -> None:
    energy = tmp_path / "emissions.csv"
    energy.write_text(f"{','.join(LATEST)}\n{line(timestamp='2026-08-16T16:08:54', duration='100.0')}\n")
    one = peers.write_json(tmp_path / "one.json", peers.vllm_result())
    copy = peers.write_json(tmp_path / "copy.json", peers.vllm_result())
    other = peers.write_json(tmp_path / "other.json", peers.vllm_result(num_prompts=7))
    together = run("-o", results, "import", one, other, "--join", energy, "--json").json()["entries"]
    assert [entry["code"] for entry in together] == ["energy_unjoined"] * 2
    assert "also matches vllm-" in together[0]["message"]
    assert together[1]["experiment_id"] != together[0]["experiment_id"]
    records = [FileSystemRepository(results).load_all_raw(entry["experiment_id"])[0] for entry in together]
    assert [record.energy_metrics.total_energy_j for record in records] == [None, None]
    of_copies = run("-o", tmp_path / "copies", "import", one, copy, "--join", energy, "--json").json()["entries"]
    assert {entry["code"] for entry in of_copies} == {"energy_joined"}


def test_unusable_join_files_are_reported(tmp_path: Path, results: Path) -> None:
    energy = tmp_path / "emissions.csv"
    same = line(timestamp="2026-08-16T16:08:54", duration="100.0")
    energy.write_text(
        "\n".join([",".join(LATEST), same, TORN, line(run_id="r3", energy_consumed="", gpu_energy="", cpu_energy="")])
    )
    result = peers.write_json(tmp_path / "result.json", peers.vllm_result())
    done = run("-o", results, "import", result, "--join", energy, "--join", tmp_path / "nowhere", "--json")
    assert [(entry["row"], entry["code"]) for entry in done.json()["entries"]] == [
        *((3, "torn"), (4, "no_measurement"), (None, "unreadable"), (1, "energy_joined")),
    ]
    assert [done.json()[name] for name in ("seen", "repaired", "refused")] == [4, 1, 3]


def test_a_file_of_unknown_format_does_not_stop_the_import(tmp_path: Path, results: Path, emissions: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    done = run("-o", results, "import", tmp_path / "notes.txt", emissions, "--join", tmp_path / "notes.txt", "--json")
    assert done.status == 0
    entries = [(entry["file"], entry["code"]) for entry in done.json()["entries"][:2]]
    assert entries == [(str(tmp_path / "notes.txt"), "unknown_format")] * 2
    assert [done.json()[name] for name in ("seen", "kept", "refused")] == [6, 2, 4]
    assert "found 5 bytes that are neither JSON nor a table; a table needs" in done.err


def test_join_reads_raw_results_of_this_tool(tmp_path: Path, results: Path) -> None:
    energy = tmp_path / "emissions.csv"
    energy.write_text(f"{','.join(LATEST)}\n{line(timestamp='2026-08-16T16:08:54', duration='100.0')}\n")
    run("-o", tmp_path / "own", "import", energy, "--host", "node-1")
    result = peers.write_json(tmp_path / "result.json", peers.vllm_result())
    raw = tmp_path / "own" / "raw" / "codecarbon-llama-r1"
    for number, path in enumerate((raw / "process_0.json", raw)):
        done = run("-o", results / str(number), "import", result, "--join", path, "--json")
        assert "energy_joined" in [entry["code"] for entry in done.json()["entries"]]
        repository = FileSystemRepository(results / str(number))
        [record] = repository.load_all_raw(repository.list_experiments()[0])
        assert (record.energy_metrics.total_energy_j, record.host) == (3.6e6, "node-1")


def test_gpu_uuids_accepts_one_or_several_values(tmp_path: Path, results: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(peers.zeus_lines([(1.0, "w", 10.0, [5.0, 6.0])]))
    for number, given in enumerate((["--gpu-uuids", "GPU-a, GPU-b"], ["--gpu-uuids", "GPU-a", "--gpu-uuids", "GPU-b"])):
        folder = results / str(number)
        assert run("-o", folder, "import", log, *given).status == 0
        repository = FileSystemRepository(folder)
        [record] = repository.load_all_raw(repository.list_experiments()[0])
        assert [device.gpu_uuid for device in record.energy_metrics.devices or []] == ["GPU-a", "GPU-b"]


def test_unused_gpu_uuids_are_reported(tmp_path: Path, results: Path) -> None:
    log = tmp_path / "log.csv"
    log.write_text(peers.zeus_lines([(1.0, "w", 10.0, [5.0, 6.0])]))
    done = run("-o", results, "import", log, "--gpu-uuids", "GPU-a,GPU-b,GPU-c")
    assert done.status == 0
    assert "--gpu-uuids: no imported record has a GPU with the index of GPU-c" in done.err


@pytest.mark.parametrize(
    "arguments", [["import"], ["import", "x", "--format", "nonsense"]], ids=["no path", "no such format"]
)
def test_wrong_usage_is_exit_status_2(arguments: list[str]) -> None:
    assert run(*arguments).status == 2


def test_an_invalid_mapping_is_wrong_usage(emissions: Path, results: Path) -> None:
    done = run("-o", results, "import", emissions, "--map", "energy_j=system('x')")
    assert (done.status, done.out) == (2, "")
    assert "Invalid value for --map: cannot map" in done.err
    assert not results.exists()


def test_two_copies_of_a_log_count_once(emissions: Path, results: Path) -> None:
    emissions.write_text(f"{','.join(LATEST)}\n{line()}\n")
    copy = emissions.with_suffix(".bak")
    copy.write_bytes(emissions.read_bytes() + b"\n")
    for arguments in (["--dry-run"], []):
        done = run("-o", results, "import", emissions.parent / "emissions.csv", copy, "--json", *arguments)
        assert [done.json()[name] for name in ("seen", "kept", "refused")] == [2, 2, 0]
    assert [name for name in files(results) if "process_" in name] == ["raw/codecarbon-llama-r1/process_0.json"]
    both = run("-o", results, "import", emissions.parent, "--dry-run")
    assert "two results" not in both.err


def test_a_failed_write_is_reported_for_each_record(emissions: Path, results: Path) -> None:
    results.mkdir()
    (results / "raw").write_text("no folder")
    done = run("-o", results, "import", emissions, "--json")
    assert (done.status, done.json()["kept"]) == (1, 0)
    assert [entry["code"] for entry in done.json()["entries"]].count("refused_at_save") == 2


def test_escape_sequences_in_files_are_not_printed(tmp_path: Path, results: Path) -> None:
    path = tmp_path / "emissions.csv"
    path.write_text(f"{','.join(LATEST)}\n{line(duration=chr(27) + '[2Jx')}\n{line(project_name=chr(27) + '[2J')}\n")
    done = run("-o", results, "import", path)
    assert "\x1b" not in done.out + done.err
    assert run("-o", results, "import", path, "--json").out.count("\x1b") == 0


def test_progress_is_drawn_on_a_terminal_and_removed(emissions: Path, results: Path) -> None:
    done = on_terminal("-o", results, "import", emissions, columns=200)
    assert done.status == 0
    assert "2 experiments: 4 seen, 2 kept, 0 repaired, 2 refused" in done.shown
    assert "codecarbon-llama-r1: " not in done.out
    assert as_process("-o", results, "import", emissions).err.count("\r") == 0


# Exchange formats


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.ndjson"])
def test_json_lines_have_the_rows_of_the_json_export(results: Path, emissions: Path, tmp_path: Path, name: str) -> None:
    run("-o", results, "import", emissions)
    assert run("-o", results, "results", "export", "--raw", "--to", tmp_path / name).status == 0
    lines = (tmp_path / name).read_text().splitlines()
    rows: list[dict[str, Any]] = run(
        "-o", results, "results", "export", "--raw", "--to", "-", "--format", "json"
    ).json()
    assert [json.loads(text) for text in lines] == rows
    assert len(rows) == 2


def test_codecarbon_export_leaves_out_results_without_an_end(results: Path, emissions: Path, tmp_path: Path) -> None:
    run("-o", results, "import", peers.write_experiment(tmp_path / "0042"))
    table = tmp_path / "again.csv"
    export = ("-o", results, "results", "export", "--format", "codecarbon", "--to", table)
    done = run(*export)
    assert (done.status, table.exists()) == (1, False)
    assert done.err.count("is left out: its end or its duration is unknown") == 2
    run("-o", results, "import", emissions)
    assert run(*export).status == 1
    assert [entry["code"] for entry in run("-o", results, "import", table, "--json").json()["entries"]] == [
        *("already_there", "already_there"),
    ]
    with pytest.raises(ConfigurationError, match="process 0 of 0042"):
        to_codecarbon(FileSystemRepository(results).load_all_raw("0042"))


def test_codecarbon_rows_without_on_cloud_can_be_imported_again(results: Path, tmp_path: Path) -> None:
    layout = tuple(name for name in LATEST if name != "on_cloud")
    table = tmp_path / "emissions.csv"
    table.write_text(f"{','.join(layout)}\n{line(layout)}\n")
    run("-o", results, "import", table)
    run("-o", results, "results", "export", "--format", "codecarbon", "--to", table)
    assert run("-o", results / "again", "import", table, "--json").json()["kept"] == 1


def test_a_codecarbon_export_can_be_imported_again(results: Path, emissions: Path, tmp_path: Path) -> None:
    run("-o", results, "import", emissions)
    table = tmp_path / "again.csv"
    assert run("-o", results, "results", "export", "--format", "codecarbon", "--to", table).status == 0
    assert table.read_text().splitlines()[0] == ",".join(LATEST)
    before = files(results)
    done = run("-o", results, "import", table, "--json")
    assert {entry["code"] for entry in done.json()["entries"]} == {"already_there"}
    assert files(results) == before


def test_row_that_an_earlier_import_stored_alone_is_not_imported_twice(tmp_path: Path, results: Path) -> None:
    ranks = [line(run_id=f"rank-{index}") for index in range(3)]
    path = tmp_path / "emissions.csv"
    path.write_text("\n".join([",".join(LATEST), *ranks]) + "\n")
    assert run("-o", results, "import", path, "--group-by", "run_id").status == 0
    entries = run("-o", results, "import", path, "--json").json()["entries"]
    assert [entry["code"] for entry in entries] == ["already_there", "stored_elsewhere", "stored_elsewhere"]
    assert "results delete codecarbon-llama-rank-1" in entries[1]["message"]
    assert len(FileSystemRepository(results).list_experiments()) == 3


@pytest.mark.parametrize("dry_run", [False, True])
def test_import_in_another_grouping_says_what_to_delete(tmp_path: Path, results: Path, dry_run: bool) -> None:
    path = tmp_path / "emissions.csv"
    path.write_text("\n".join([",".join(LATEST), *(line(run_id=f"rank-{index}") for index in range(2))]) + "\n")
    assert run("-o", results, "import", path, "--group-by", "run_id").status == 0
    grouped = ["-o", results, "import", path, "--host", "n1", "--json", *(["--dry-run"] if dry_run else [])]
    entries = run(*grouped).json()["entries"]
    assert [(entry["outcome"], entry["code"]) for entry in entries] == [
        ("refused", "conflict"),
        ("refused", "stored_elsewhere"),
    ]
    command = "results delete codecarbon-llama-rank-0 codecarbon-llama-rank-1"
    for entry, stored in zip(entries, ("rank-0", "rank-1"), strict=True):
        assert entry["message"] == (
            f"an earlier import stored this row as experiment codecarbon-llama-{stored}; to store the rows as "
            f"processes of codecarbon-llama-rank-0, run '{command}' and import again, or use another results "
            "directory with -o"
        )
    if not dry_run:
        assert run("-o", results, *command.split(), "--yes").status == 0
        assert run(*grouped).status == 0
        assert FileSystemRepository(results).list_experiments() == ["codecarbon-llama-rank-0"]
