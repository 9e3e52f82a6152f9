"""`results verify`: its findings, its output and its exit status, and the verdicts of other commands."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from llm_energy_measure import importers
from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.domain.findings import SEVERITIES
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.verify import VerifiedExperiment, verify_all, verify_experiment
from llm_energy_measure.results.store import codec
from llm_energy_measure.results.store.checkpoints import save_checkpoint
from llm_energy_measure.verification.codes import CODES
from tests.support import factories
from tests.support.aggregation import aggregate_one
from tests.support.command import on_terminal, run
from tests.support.faults_of_records import NO_SCOPE, NODE, honest, records

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult

KEYS = [
    *("experiment_id", "outcome", "verdict", "total_energy_j", "partial_energy_j", "is_lower_bound"),
    *("attributed_energy_j", "attributed_bounds_j", "attribution_status", "attribution_basis", "factor", "findings"),
]
FINDING_KEYS = ["code", "outcome", "severity", "reason", "message", "expected", "found", "effect_j", "processes"]


def save(folder: Path, name: str, raws: list[RawProcessResult], *, aggregate: bool = True) -> None:
    repository = FileSystemRepository(folder)
    for raw in raws:
        repository.save_raw(name, msgspec.structs.replace(raw, experiment_id=name))
    if aggregate:
        aggregate_one(repository, name, strict=False)


def node(count: int) -> list[RawProcessResult]:
    """Return processes that each measured a node of four boards."""
    return [
        msgspec.structs.replace(raw, energy_metrics=factories.energy(**_node_energy(raw.process_index)))
        for raw in records(count, energy=NO_SCOPE, **NODE)
    ]


def _node_energy(index: int) -> dict[str, Any]:
    joules = 33_000.0 + 1000 * index
    return {"total_energy_j": joules, "gpu_energy_j": joules, "cpu_energy_j": None, "ram_energy_j": None,
            "duration_sec": 40.0, "gpu_power_w": 850.0, "cpu_power_w": None}  # fmt: skip


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """An experiment that passes all checks, and one in which each of four processes measured the whole node."""
    save(tmp_path, "good", honest())
    save(tmp_path, "node", node(4))
    return tmp_path


def failures(verdict: VerifiedExperiment) -> dict[str, str]:
    return {finding.code: finding.message for finding in verdict.findings if finding.outcome == "failed"}


def test_a_correct_experiment_passes(mixed: Path) -> None:
    done = run("-o", mixed, "results", "verify", "good")
    assert (done.status, done.err) == (0, "")
    assert done.out == "good: complete, plain sum 32.01 kJ, attributed 32.01 kJ\n"


def test_a_failed_check_is_explained_with_numbers(mixed: Path) -> None:
    done = run("-o", mixed, "results", "verify", "node")
    assert done.status == 1
    first, *explained = done.out.splitlines()
    assert first == "node: over-counted, plain sum 138 kJ, attributed 34.5 kJ (33 kJ to 36 kJ), counted 4 times"
    assert explained[0] == (
        "  error energy.over_counted: 4 processes on host node-1 imply 3,450 W of GPU power together, and the boards "
        "of the host can draw 1,000 W; each reading alone implies more power than all boards except the smallest can "
        "draw, so every process read the whole host; the plain sum counts 103,500.0 J more than once"
    )


def test_several_experiments_have_counts_per_code_and_then_errors(mixed: Path) -> None:
    done = run("-o", mixed, "results", "verify", "--all")
    assert done.status == 1
    head, *lines = done.out.splitlines()
    assert head == "experiments  severity  code"
    counts = [line.split() for line in lines if line.strip()[0].isdigit()]
    assert ["1", "error", "energy.over_counted"] in counts
    severities = [severity for _, severity, _ in counts]
    assert severities == sorted(severities, key=SEVERITIES.index)
    errors = lines[len(counts) :]
    assert errors[0].startswith("node: over-counted, plain sum 138 kJ, attributed ")
    assert all(line.startswith("  error ") for line in errors[1:])
    assert done.err == "2 experiments verified: 1 complete, 1 over-counted\n"


def test_summary_of_300_experiments_fits_on_a_screen(tmp_path: Path) -> None:
    tokens = factories.inference(output_tokens=10**6)
    for number in range(300):
        save(tmp_path, f"exp_{number}", [factories.raw(inference_metrics=tokens)], aggregate=False)
    done = run("-o", tmp_path, "results", "verify", "--all")
    assert done.status == 1
    assert len(done.out.splitlines()) <= 40
    assert "        300  error     plausibility.tokens\n" in done.out
    assert done.out.endswith("294 more experiments with errors; -v prints all\n")
    assert "exp_299: failed" in run("-v", "-o", tmp_path, "results", "verify", "--all").err


def test_infos_of_one_experiment_are_named_and_explained_with_verbose(tmp_path: Path) -> None:
    save(tmp_path, "exp", factories.raws(2, compute_metrics=factories.compute(peak_memory_mb=0.0)))
    done = run("-o", tmp_path, "results", "verify", "exp")
    assert done.status == 0
    assert "zero.peak_memory" in done.out.splitlines()[-1]
    assert done.out.endswith(" (-v explains)\n")
    assert (
        "  info zero.peak_memory: compute_metrics.peak_memory_mb of process 0, 1 is 0"
        in run("-v", "-o", tmp_path, "results", "verify", "exp").err
    )


def test_json_has_a_verdict_with_all_findings_per_experiment(mixed: Path) -> None:
    done = run("-o", mixed, "results", "verify", "--all", "--json")
    assert done.status == 1
    good, bad = done.json()
    assert list(good) == list(bad) == KEYS
    assert (good["outcome"], bad["outcome"]) == ("passed", "failed")
    assert (good["verdict"], bad["verdict"]) == ("complete", "over-counted")
    assert (bad["total_energy_j"], bad["attributed_energy_j"], bad["factor"]) == (138000.0, 34500.0, 4.0)
    assert bad["attributed_bounds_j"] == [33000.0, 36000.0]
    for finding in good["findings"] + bad["findings"]:
        assert list(finding) == FINDING_KEYS
        assert finding["code"] in CODES
    [over] = [finding for finding in bad["findings"] if finding["code"] == "energy.over_counted"]
    assert (over["outcome"], over["expected"], over["found"], over["effect_j"]) == ("failed", 1000, 3450, 103500)


@pytest.mark.parametrize(
    ("fail_on", "status"),
    [
        ("energy.over_counted", 1),
        ("energy", 1),
        ("time.no_overlap, energy.exceeds_devices", 0),
        ("error", 1),
        ("warning", 1),
        ("sources.changed", 0),
        ("time,zero", 0),
    ],
)
def test_fail_on_selects_the_codes_that_set_the_exit_status(mixed: Path, fail_on: str, status: int) -> None:
    assert run("-o", mixed, "results", "verify", "--all", "--fail-on", fail_on).status == status


@pytest.mark.parametrize(("fail_on", "status"), [("error", 0), ("warning", 1), ("info", 1), ("window.unknown", 0)])
def test_fail_on_warning_is_stricter_than_error(tmp_path: Path, fail_on: str, status: int) -> None:
    later = factories.timestamps(factories.START + timedelta(hours=1))
    serial = [factories.raw(gpu_id=0), factories.raw(process_index=1, gpu_id=1, timestamps=later)]
    save(tmp_path, "serial", serial)
    assert run("-o", tmp_path, "results", "verify", "serial", "--fail-on", fail_on).status == status
    assert run("-o", tmp_path, "results", "verify", "serial").status == 0


def test_an_unknown_code_is_wrong_usage(mixed: Path) -> None:
    done = run("-o", mixed, "results", "verify", "--all", "--fail-on", "energy.overcounted")
    assert done.status == 2
    assert "unknown severity, code or family 'energy.overcounted'" in done.err
    assert "the severities are error, warning, info, and the families are energy, attribution" in done.err


@pytest.mark.parametrize("arguments", [[], ["--all", "good"]])
def test_ids_and_all_exclude_each_other(mixed: Path, arguments: list[str]) -> None:
    assert run("-o", mixed, "results", "verify", *arguments).status == 2


def test_an_unknown_experiment_is_refused(mixed: Path) -> None:
    done = run("-o", mixed, "results", "verify", "godo")
    assert done.status == 1
    assert "did you mean good" in done.err


def test_verify_writes_nothing(mixed: Path) -> None:
    def state() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in mixed.rglob("*") if path.is_file()}

    before = state()
    run("-o", mixed, "results", "verify", "--all")
    assert state() == before


def test_verbose_prints_passed_and_impossible_checks(tmp_path: Path) -> None:
    save(tmp_path, "exp", factories.raws(2))
    done = run("-v", "-o", tmp_path, "results", "verify", "exp")
    assert "attribution.repeated_gpu passed" in done.err
    assert "counter.recorded not checked: no process recorded sensor readings" in done.err


def test_a_narrow_terminal_shows_the_whole_text(mixed: Path) -> None:
    done = on_terminal("-o", mixed, "results", "verify", "--all", columns=40)
    assert done.status == 1
    assert "the plain sum counts 103,500.0 J more than once" in " ".join(done.shown.split())


# The aggregate and its raw files


def test_a_changed_raw_file_is_found(mixed: Path) -> None:
    path = mixed / "raw" / "good" / "process_1.json"
    path.write_bytes(path.read_bytes().replace(b'"batch_size": 8', b'"batch_size": 9'))
    found = failures(verify_experiment(FileSystemRepository(mixed), "good"))
    assert found["sources.changed"] == "changed after the aggregation: process_1.json"
    assert run("-o", mixed, "results", "verify", "good", "--fail-on", "sources.changed").status == 1


def test_missing_new_and_torn_raw_files_are_found(mixed: Path) -> None:
    folder = mixed / "raw" / "good"
    (folder / "process_0.json").unlink()
    (folder / "process_2.json").write_bytes(b'{"experiment_id": ')
    (folder / "process_9.json").write_bytes(codec.encode_raw(factories.raw("good", 9)))
    found = failures(verify_experiment(FileSystemRepository(mixed), "good"))
    assert found["sources.missing"] == "removed after the aggregation: process_0.json"
    assert found["sources.changed"] == "changed after the aggregation: process_2.json"
    assert found["sources.added"] == "added after the aggregation: process_9.json"
    assert "completeness.unreadable_file" in found
    assert "completeness.missing_process" in found


@pytest.mark.parametrize(
    "field", ["total_energy_j", "total_tokens", "attributed_energy_j", "attributed_bounds_j", "avg_energy_per_token_j"]
)
def test_a_changed_number_of_an_aggregate_is_found(mixed: Path, field: str) -> None:
    path = mixed / "aggregated" / "good.json"
    document = json.loads(path.read_bytes())
    value = document[field]
    document[field] = [joules / 2 for joules in value] if isinstance(value, list) else value * 2
    data = path.read_bytes()
    old, new = (json.dumps(part).encode() for part in (value, document[field]))
    if isinstance(value, list):
        old, new = (json.dumps(part, indent=2).replace("\n", "\n  ").encode() for part in (value, document[field]))
    line = b'"' + field.encode() + b'": '
    assert data.count(line + old) >= 1
    path.write_bytes(data.replace(line + old, line + new, 1))
    found = failures(verify_experiment(FileSystemRepository(mixed), "good"))
    assert list(found) == ["aggregate.altered", "aggregate.recomputed"]
    assert found["aggregate.recomputed"].startswith(field)


def rewrite(path: Path, **changes: Any) -> None:
    """Set fields of an aggregate, nested ones by dotted names, and keep its embedded raw records unchanged."""
    head, mark, embedded = path.read_bytes().partition(b',\n  "process_results"')
    document = json.loads(head + b"}")
    for name, value in changes.items():
        *way, last = name.split(".")
        inner = document
        for part in way:
            inner = inner[part]
        inner[last] = value
    path.write_bytes(json.dumps(document, indent=2).encode().removesuffix(b"\n}") + mark + embedded)


@pytest.mark.parametrize(
    "change",
    [
        {"attributed_bounds_j": None},
        {"attributed_gpu_energy_j": 1.0},
        {"is_lower_bound": True},
        {"is_lower_bound": None},
        {"start_time": "2020-01-01T00:00:00Z"},
        {"end_time": None},
        {"latency_stats.ttft_p99_ms": 1.0},
        {"latency_stats": None},
        {"completeness.expected_processes": 5},
        {"aggregation.gpu_attribution_verified": True},
        {"aggregation.temporal_overlap_verified": False},
        {"aggregation.warnings": []},
        {"aggregation.num_processes": 3},
        {"findings": []},
        {"model_name": "another/model"},
        {"effective_config": {}},
        {"plain_energy_j": 5.0, "attribution_rule": "mine@1"},
    ],
    ids="+".join,
)
def test_any_changed_field_of_an_aggregate_is_found(tmp_path: Path, change: dict[str, Any]) -> None:
    latencies = factories.inference(latency_measurements=factories.latency([35.5, 36.5], [1.0, 1.5], [0.5, 9.0]))
    save(tmp_path, "node", [msgspec.structs.replace(raw, inference_metrics=latencies) for raw in node(4)])
    repository = FileSystemRepository(tmp_path)
    assert "aggregate.recomputed" not in failures(verify_experiment(repository, "node"))
    rewrite(tmp_path / "aggregated" / "node.json", **change)
    found = failures(verify_experiment(repository, "node"))
    name = next(iter(change)).replace("findings", "failed_codes").removeprefix("aggregation.warnings[")
    assert name.partition("[")[0] in found["aggregate.recomputed"]


@pytest.mark.parametrize("rule", ["scope_then_physics@2", None])
def test_an_attribution_by_an_unknown_rule_is_not_checked(tmp_path: Path, rule: str | None) -> None:
    save(tmp_path, "node", node(4))
    claims: dict[str, Any] = {
        "attributed_energy_j": 126_000.0,
        "attribution_factor": 1.0,
        "attributed_bounds_j": None,
        "findings": [],
    }
    path = tmp_path / "aggregated" / "node.json"
    rewrite(path, attribution_rule=rule, **claims, **{"aggregation.gpu_attribution_verified": True})
    verdict = verify_experiment(FileSystemRepository(tmp_path), "node")
    [finding] = [finding for finding in verdict.findings if finding.code == "aggregate.recomputed"]
    assert finding.outcome == "not_checked"
    assert str(rule or "no rule") in str(finding.reason)
    assert "energy.over_counted" in failures(verdict)


def test_an_embedded_process_without_a_raw_file_is_found(mixed: Path) -> None:
    path = mixed / "aggregated" / "good.json"
    data = path.read_bytes()
    invented = codec.encode_raw(factories.raw("good", 9))
    path.write_bytes(data.removesuffix(b"\n  ]\n}\n") + b",\n" + invented + b"\n  ]\n}\n")
    found = failures(verify_experiment(FileSystemRepository(mixed), "good"))
    assert found.pop("aggregate.altered")
    assert found == {"sources.embedded": "the aggregate contains 5 processes and names 4 source files"}


def test_an_embedded_record_that_differs_from_its_file_is_found(mixed: Path) -> None:
    path = mixed / "aggregated" / "good.json"
    head, mark, embedded = path.read_bytes().partition(b'"process_results"')
    path.write_bytes(head + mark + embedded.replace(b'"process_index": 1,', b'"process_index": 7,'))
    found = failures(verify_experiment(FileSystemRepository(mixed), "good"))
    assert found.pop("aggregate.altered")
    assert found == {"sources.embedded": "process_1.json, process_index is 7 in the aggregate, and 1 in the raw file"}


def test_an_unreadable_aggregate_is_found_and_raw_files_are_verified(mixed: Path) -> None:
    (mixed / "aggregated" / "good.json").write_bytes(b"{")
    verdict = verify_experiment(FileSystemRepository(mixed), "good")
    assert list(failures(verdict)) == ["aggregate.readable"]
    assert verdict.attributed_energy_j == pytest.approx(32006.0)


def test_an_experiment_without_readable_files_fails(mixed: Path) -> None:
    for path in (mixed / "raw" / "good").iterdir():
        if path.name.startswith("process_"):
            path.write_bytes(b"")
    verdict = verify_experiment(FileSystemRepository(mixed), "good")
    assert verdict.outcome == "failed"
    assert "no raw result can be read: process_0.json" in failures(verdict)["aggregate.possible"]
    assert json.loads(run("-o", mixed, "results", "verify", "good", "--json").out)[0]["experiment_id"] == "good"


def test_a_pending_experiment_is_verified_by_its_raw_files(tmp_path: Path) -> None:
    save(tmp_path, "node", node(2), aggregate=False)
    verdict = verify_experiment(FileSystemRepository(tmp_path), "node")
    assert "energy.over_counted" in failures(verdict)
    [finding] = [finding for finding in verdict.findings if finding.code == "aggregate.readable"]
    assert (finding.outcome, finding.reason) == ("not_checked", "it is not aggregated yet")


def test_processes_that_cannot_be_aggregated_are_verified(tmp_path: Path) -> None:
    mixed_up = [factories.raw("exp", 0, backend="pytorch"), factories.raw("exp", 1, backend="vllm")]
    save(tmp_path, "exp", mixed_up, aggregate=False)
    found = failures(verify_experiment(FileSystemRepository(tmp_path), "exp"))
    assert "backend is 'pytorch', and in process 1 it is 'vllm'" in found["aggregate.possible"]
    assert "likeness.backend" in found


def test_verification_uses_the_options_of_the_aggregation(tmp_path: Path) -> None:
    save(tmp_path, "exp", factories.raws(2), aggregate=False)
    repository = FileSystemRepository(tmp_path)
    aggregate_one(repository, "exp", strategy="model_parallel", expected_processes=3, strict=False)
    found = failures(verify_experiment(repository, "exp"))
    assert "aggregate.recomputed" not in found
    assert "(expected number from argument)" in found["completeness.missing_process"]


def test_an_external_aggregate_is_compared_where_possible(real_data: Path) -> None:
    repository = FileSystemRepository(real_data / "v2_results" / "baseline")
    verdict = verify_experiment(repository, "0001_c0")
    outcomes = {finding.code: finding.outcome for finding in verdict.findings}
    assert outcomes["sources.changed"] == "not_checked"
    assert outcomes["aggregate.recomputed"] == "passed"


def test_verify_before_and_after_aggregate_agree_about_a_checkpoint(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    whole, other = (msgspec.structs.replace(raw, experiment_id="exp", status=None) for raw in records(2))
    repository.save_raw("exp", whole)
    save_checkpoint(repository.store, "exp", msgspec.structs.replace(other, status="partial"))
    before = verify_experiment(repository, "exp")
    aggregate_one(repository, "exp", strict=False)
    after = verify_experiment(repository, "exp")
    assert (before.total_energy_j, before.outcome) == (after.total_energy_j, after.outcome) == (16_001.0, "passed")
    assert (before.verdict, after.verdict) == ("partial", "partial")
    assert failures(before) == failures(after)


# The verdict


def test_a_range_and_a_partial_total_are_printed(tmp_path: Path) -> None:
    save(tmp_path, "open", records(2, energy=NO_SCOPE), aggregate=False)
    parts = factories.energy(total_energy_j=None, gpu_energy_j=200.0, cpu_energy_j=40.0, ram_energy_j=None)
    save(tmp_path, "parts", [factories.raw(energy_metrics=parts)], aggregate=False)
    lines = run("-o", tmp_path, "results", "verify", "open").out.splitlines()
    assert lines[0] == "open: undetermined, plain sum 16 kJ, attributed 8.001 kJ to 16 kJ"
    lines = run("-o", tmp_path, "results", "verify", "parts").out.splitlines()
    assert lines[0] == "parts: partial, plain sum ≥ 240 J"
    assert "its known components are GPU 200.0 J, CPU 40.0 J" in lines[1]


def test_list_counts_the_warnings_that_verify_prints(mixed: Path) -> None:
    save(mixed, "open", records(2, energy=NO_SCOPE))
    [row] = run("-o", mixed, "results", "list", "--where", "id = open", "--json").json()
    printed = run("-o", mixed, "results", "verify", "open").out.splitlines()
    codes = {line.split()[1].rstrip(":") for line in printed if line.startswith("  warning ")}
    assert set(row["warning_codes"]) == codes
    assert "attribution.scope_unknown" in codes


def verdicts(folder: Path) -> dict[str, tuple[str, str]]:
    """Return the verdicts of `list` and of `verify` by experiment id."""
    listed = run("-o", folder, "results", "list", "--all", "--json").json()
    names = [row["experiment_id"] for row in listed]
    verified = run("-o", folder, "results", "verify", *names, "--json").json()
    by_id = {row["experiment_id"]: row["verdict"] for row in verified}
    return {row["experiment_id"]: (row["verdict"], by_id[row["experiment_id"]]) for row in listed}


def test_verify_and_list_agree_about_the_verdict(mixed: Path) -> None:
    save(mixed, "open", records(2, energy=NO_SCOPE))
    save(mixed, "part", honest()[:3])
    aggregate_one(FileSystemRepository(mixed), "part", expected_processes=4, strict=False)
    impossible = factories.inference(output_tokens=10**9)
    save(mixed, "wrong", [factories.raw(inference_metrics=impossible)])
    for name in ("changed", "grown", "broken"):
        save(mixed, name, honest())
    changed = mixed / "raw" / "changed" / "process_1.json"
    changed.unlink()  # `list` compares the mtimes of folders, which an edit in place does not change
    changed.write_bytes(b"")
    FileSystemRepository(mixed).save_raw("grown", factories.raw("grown", 9))
    (mixed / "aggregated" / "broken.json").write_bytes(b"{")
    FileSystemRepository(mixed).begin_experiment(Manifest(experiment_id="killed", expected_processes=2))
    assert verdicts(mixed) == {
        name: (word, word)
        for name, word in {
            "good": "complete",
            "node": "over-counted",
            "open": "undetermined",
            "part": "partial",
            "wrong": "failed",
            "changed": "stale",
            "grown": "stale",
            "broken": "unreadable",
            "killed": "interrupted",
        }.items()
    }


def test_verify_judges_raw_files_without_a_current_aggregate(mixed: Path) -> None:
    save(mixed, "new", node(4), aggregate=False)
    save(mixed, "torn", honest()[:1], aggregate=False)
    (mixed / "raw" / "torn" / "process_0.json").write_bytes(b"")
    found = verdicts(mixed)
    assert found["new"] == ("pending", "over-counted")
    assert found["torn"] == ("pending", "unreadable")


def test_verdict_is_stale_if_the_manifest_expects_more_processes(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    save(tmp_path, "exp", honest()[:2])
    path = tmp_path / "raw" / "exp" / "manifest.json"
    document = json.loads(path.read_bytes()) | {"expected_processes": 7}
    path.write_bytes(json.dumps(document).encode())
    assert verify_experiment(repository, "exp").verdict == "stale"
    assert verdicts(tmp_path)["exp"] == ("stale", "stale")


# Several experiments


def test_energy_that_grows_with_the_processes_is_suspected(real_data: Path, tmp_path: Path) -> None:
    for name in ("0109", "0110", "0111", "0112"):
        save(tmp_path, name, list(importers.read(real_data / "legacy_v1" / name)))
    verdicts = verify_all(FileSystemRepository(tmp_path), ["0109", "0110", "0111", "0112"])
    grown = {
        verdict.experiment_id: finding
        for verdict in verdicts
        for finding in verdict.findings
        if finding.code == "suspicion.grows_with_processes"
    }
    assert list(grown) == ["0110", "0111", "0112"]
    assert grown["0112"].outcome == "not_checked"
    assert "used 6.78 times the energy of '0109'" in grown["0112"].message


def test_more_work_or_less_time_is_not_suspected(tmp_path: Path) -> None:
    for count in (1, 2, 4):
        for raw in records(count, seconds=40.0 / count):
            FileSystemRepository(tmp_path).save_raw(
                f"s{count}", msgspec.structs.replace(raw, experiment_id=f"s{count}")
            )
    verdicts = list(verify_all(FileSystemRepository(tmp_path), ["s1", "s2", "s4"]))
    assert [f.code for verdict in verdicts for f in verdict.findings if f.code.startswith("suspicion.grows")] == []


# Verdicts of other commands


def test_aggregate_warns_of_over_counting_and_exits_with_0(tmp_path: Path) -> None:
    save(tmp_path, "node", node(4), aggregate=False)
    done = run("-o", tmp_path, "aggregate", "node")
    assert done.status == 0
    assert "(plain sum 138,000.0 J, attributed 34,500.0 J, factor 4)" in done.err
    assert "warning: node: processes 0, 1, 2, 3 do not name their GPUs" in done.err
    assert done.err.count("warning:") == 2
    [row] = json.loads(run("-o", tmp_path, "aggregate", "node", "--force", "--json").out)
    assert (row["attributed_energy_j"], row["attribution_factor"]) == (34500.0, 4.0)
    assert "energy.over_counted" in row["failed"]


def test_aggregate_names_failed_checks_without_a_warning(tmp_path: Path) -> None:
    versions = [factories.raw(process_index=n, library_versions={"torch": f"2.{n}"}) for n in range(2)]
    save(tmp_path, "exp", versions, aggregate=False)
    done = run("-o", tmp_path, "aggregate", "exp")
    assert done.status == 0
    assert done.err == (
        "exp: 1 check failed (likeness.library_versions); run 'llm-energy-measure results verify exp' for details\n"
    )


def test_aggregate_prints_nothing_about_a_fact_worth_knowing(tmp_path: Path) -> None:
    save(tmp_path, "exp", factories.raws(1, compute_metrics=factories.compute(peak_memory_mb=0.0)), aggregate=False)
    assert run("-o", tmp_path, "aggregate", "exp").err == ""
    assert run("-o", tmp_path, "results", "list", "--json").json()[0]["verdict"] == "complete"


def test_list_and_show_print_the_verdict(mixed: Path) -> None:
    rows = run("-o", mixed, "results", "list", "--json").json()
    assert [(row["verdict"], row["attribution_factor"]) for row in rows] == [("complete", 1.0), ("over-counted", 4.0)]
    shown = run("-o", mixed, "results", "show", "node").out
    assert "* 34.5 kJ (33 kJ to 36 kJ)\nplain sum         138 kJ, 4 times the attributed energy\n" in shown
    assert "errors            energy.over_counted; run" in shown
    assert "plain sum" not in run("-o", mixed, "results", "show", "good").out


def test_show_prints_the_plain_sum_if_the_total_differs(tmp_path: Path) -> None:
    save(tmp_path, "node", node(4), aggregate=False)
    aggregate_one(FileSystemRepository(tmp_path), "node", strategy="attributed_energy", strict=False)
    shown = run("-o", tmp_path, "results", "show", "node").out
    assert "plain sum" in shown
    assert "138 kJ" in shown
