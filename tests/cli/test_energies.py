"""The energies in `results list`, `show` and `repeats`: attributed by default, with signs, or plain sums."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure import load
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.verification.verdicts import verdict_of
from tests.support import factories
from tests.support.aggregation import aggregate_one
from tests.support.command import as_process, run

if TYPE_CHECKING:
    from pathlib import Path

    from llm_energy_measure.domain.experiment import RawProcessResult
    from llm_energy_measure.domain.metrics import EnergyMetrics

HOST_SCOPE: dict[str, Any] = dict.fromkeys(("gpu_scope", "cpu_scope", "ram_scope"), "host")


def of_host() -> EnergyMetrics:
    """Return 1000 J that one sensor of the whole host measured."""
    parts: dict[str, Any] = {"gpu_energy_j": 1000.0, "cpu_energy_j": None, "ram_energy_j": None, "cpu_power_w": None}
    return factories.energy(total_energy_j=1000.0, **parts, **HOST_SCOPE)


def save(results: Path, records: list[RawProcessResult], **rule: Any) -> None:
    repository = FileSystemRepository(results)
    for record in records:
        repository.save_raw(record.experiment_id, record)
    aggregate_one(repository, records[0].experiment_id, strict=False, **rule)


@pytest.fixture
def energies(tmp_path: Path) -> Path:
    """Experiments whose energy is exact, corrected, undetermined and a lower bound."""
    save(tmp_path, factories.raws(1, "exact_c0", energy_metrics=of_host()))
    save(tmp_path, factories.raws(2, "twice_c0", host="node-1", energy_metrics=of_host()))
    save(tmp_path, factories.raws(2, "open_c0"))
    save(tmp_path, factories.raws(2, "open_part_c0", world_size=3))
    return tmp_path


def rows(results: Path, *arguments: str) -> dict[str, str]:
    """Return the line of each experiment in a list, with one space between words, and the footnote."""
    lines = run("-o", results, "results", "list", *arguments).out.splitlines()[2:]
    return {line.split()[0]: " ".join(line.split()) for line in lines}


def fields(results: Path, name: str, *arguments: str) -> dict[str, str]:
    shown = run("-o", results, "results", "show", name, *arguments).out.partition("\n\n")[0]
    return {key: value for key, _, value in (re.split(r"( {2,})", line, maxsplit=1) for line in shown.splitlines())}


def test_list_shows_attributed_energies_with_signs(energies: Path) -> None:
    found = rows(energies)
    assert " 1/1 1 kJ 8,192 862.5 8.192 complete " in found["exact_c0"]
    assert " 2/2 * 1 kJ 16,484 867.5 * 16.48 over-counted " in found["twice_c0"]
    assert " 2/2 ≤ 4.193 kJ 16,484 867.5 ≥ 3.931 undetermined " in found["open_c0"]
    assert " 2/3 ≥ 2.221 kJ 16,484 867.5 ≥ 3.931 partial " in found["open_part_c0"]
    assert found["*"] == (
        "* corrected: the plain sum counts some energy more than once; ≤ undetermined: the greatest energy that the "
        "records allow; 'results show ID' explains it; --energy plain shows the plain sums"
    )


def test_list_shows_plain_sums_on_request(energies: Path) -> None:
    found = rows(energies, "--energy", "plain")
    assert " 2/2 2 kJ 16,484 867.5 8.242 over-counted " in found["twice_c0"]
    assert " 2/2 4.193 kJ 16,484 867.5 3.931 undetermined " in found["open_c0"]
    assert " 2/3 ≥ 4.193 kJ " in found["open_part_c0"]
    assert len(found) == 4, "no footnote"


def test_list_without_signs_has_no_footnote(energies: Path) -> None:
    assert list(rows(energies, "--where", "id = exact_c0")) == ["exact_c0"]


def test_groups_show_attributed_totals(energies: Path) -> None:
    found = rows(energies, "--by", "verdict")
    assert found["complete"] == "complete 1 1 kJ 8,192 8.192 0 0"
    assert found["over-counted"] == "over-counted 1 * 1 kJ 16,484 * 16.48 0 0"
    assert found["undetermined"] == "undetermined 1 ≤ 4.193 kJ 16,484 ≥ 3.931 0 0"
    assert found["partial"] == "partial 1 ≥ 2.221 kJ 16,484 ≥ 3.931 0 1"
    plain = rows(energies, "--by", "verdict", "--energy", "plain")
    assert plain["over-counted"] == "over-counted 1 2 kJ 16,484 8.242 0 0"


@pytest.mark.parametrize("key", ["energy", "efficiency"])
def test_sort_uses_the_figures_that_the_table_shows(energies: Path, key: str) -> None:
    only = ("--where", "id in (exact_c0, twice_c0, open_c0)")
    wanted = {"energy": ["exact_c0", "twice_c0", "open_c0"], "efficiency": ["open_c0", "exact_c0", "twice_c0"]}[key]
    assert list(rows(energies, *only, "--sort", key))[:3] == wanted
    assert list(rows(energies, *only, "--by", "id", "--sort", key))[:3] == wanted
    by_plain = rows(energies, *only, "--sort", key, "--energy", "plain")
    assert list(by_plain) == (["exact_c0", "twice_c0", "open_c0"] if key == "energy" else ["open_c0", *wanted[1:]])


@pytest.mark.parametrize("kind", ["attributed", "plain"])
def test_conditions_use_the_figures_that_the_table_shows(energies: Path, kind: str) -> None:
    """twice_c0 has 1 kJ and a plain sum of 2 kJ; open_c0 has at most 4.193 kJ; open_part_c0 at least 2.221 kJ."""

    def found(condition: str) -> set[str]:
        listed = run("-o", energies, "results", "list", "--json", "--energy", kind, "--where", condition).json()
        loaded = load(energies, condition, energy="plain" if kind == "plain" else "attributed").ids
        names = {row["experiment_id"] for row in listed}
        assert names == set(loaded)
        return names

    small = {"exact_c0"} if kind == "plain" else {"exact_c0", "twice_c0"}
    assert found("energy <= 1 kJ") == small
    assert found("energy < 3 kJ") == {"exact_c0", "twice_c0"} | (set() if kind == "plain" else {"open_part_c0"})
    assert found("tokens/J > 16") == (set() if kind == "plain" else {"twice_c0"})
    assert found("energy_j <= 1 kJ") == {"exact_c0"}, "the plain sum"


def test_warnings_are_their_number_in_conditions_sort_and_groups(energies: Path) -> None:
    listed = run("-o", energies, "results", "list", "--columns", "id,warnings", "--sort", "warnings", "--json").json()
    numbers = {row["id"]: row["warnings"] for row in listed}
    assert list(numbers.values()) == sorted(numbers.values())
    assert len(set(numbers.values())) > 1
    shown = {name: int(line.split()[-3]) for name, line in rows(energies).items() if name in numbers}
    assert shown == numbers
    for number in set(numbers.values()):
        matching = run("-o", energies, "results", "list", "--where", f"warnings = {number}", "--json").json()
        assert {row["experiment_id"] for row in matching} == {name for name in numbers if numbers[name] == number}
    groups = run("-o", energies, "results", "list", "--by", "warnings", "--json").json()
    assert {group["by"]["warnings"] for group in groups} == set(numbers.values())
    done = run("-o", energies, "results", "list", "--where", "warnings ~ GPU")
    assert (done.status, "is not an operator for numbers" in done.err) == (2, True)
    assert run("-o", energies, "results", "list", "--where", "warning_texts ~ twice", "--json").status == 0


def test_show_of_a_corrected_energy_has_the_plain_sum_next_to_it(energies: Path) -> None:
    found = fields(energies, "twice_c0")
    assert list(found)[5:8] == ["energy", "plain sum", "attribution"]
    assert found["energy"].startswith("* 1 kJ")
    assert found["plain sum"] == "2 kJ, 2 times the attributed energy"
    assert found["tokens per joule"] == "* 16.48"
    footnote = run("-o", energies, "results", "show", "twice_c0").out.splitlines()[-1]
    assert (
        footnote == "* corrected: the plain sum counts some energy more than once; --energy plain shows the plain sums"
    )


def test_show_of_an_undetermined_energy_has_range_and_advice(energies: Path) -> None:
    found = fields(energies, "open_c0")
    assert (found["energy"], found["plain sum"]) == ("2.221 kJ to 4.193 kJ", "4.193 kJ")
    assert found["energy per token"] == "134.8 mJ/token to 254.4 mJ/token"
    assert found["tokens per joule"] == "3.931 to 7.42"
    shown = run("-o", energies, "results", "show", "open_c0").out
    assert "--assume gpu-scope=device" in shown
    assert "--assume hosts=1" in shown
    assert fields(energies, "open_part_c0")["energy"] == "at least 2.221 kJ (recorded: 2.221 kJ to 4.193 kJ)"


def test_show_of_plain_energy_keeps_the_attributed_energy_visible(energies: Path) -> None:
    found = fields(energies, "twice_c0", "--energy", "plain")
    assert found["energy"] == "2 kJ"
    assert found["attributed"].endswith("counted 2 times")
    assert found["tokens per joule"] == "8.242"


def test_signs_are_ascii_if_the_terminal_is_not_utf8(energies: Path) -> None:
    done = as_process("-o", energies, "results", "list", env={"PYTHONIOENCODING": "ascii"})
    assert "<= 4.193 kJ" in done.out
    assert ">= 2.221 kJ" in done.out
    assert "<= undetermined: the greatest energy" in done.out
    assert "\\u" not in done.out


def test_throughput_of_the_whole_experiment_is_marked(tmp_path: Path) -> None:
    save(tmp_path, factories.raws(2, "wall"), strategy="wall_clock_throughput")
    assert " (total) " in rows(tmp_path)["wall"]
    assert fields(tmp_path, "wall")["throughput"].endswith("token/s (whole experiment)")


def test_repeats_show_the_attributed_energy(energies: Path) -> None:
    save(energies, factories.raws(1, "twice_c1", energy_metrics=of_host()))
    save(energies, factories.raws(2, "open_c1"))
    done = run("-o", energies, "results", "repeats")
    out = " ".join(done.out.split())
    assert " * 1 - " in out
    assert "* corrected: " in out
    assert "left out: open_c0: undetermined: " in out
    assert "left out: open_part_c0: lower bound: 2 of 3 processes" in out
    assert "corrected" not in run("-o", energies, "results", "repeats", "--energy", "plain").out


def test_ratios_of_a_partial_total_are_bounds(tmp_path: Path) -> None:
    parts = factories.energy(total_energy_j=None, gpu_energy_j=4096.0, cpu_energy_j=None, ram_energy_j=None)
    save(tmp_path, [factories.raw("exp", energy_metrics=parts)])
    shown = fields(tmp_path, "exp")
    assert (shown["energy"], shown["energy per token"]) == ("at least 4.096 kJ", "at least 0.5 J/token")
    assert shown["tokens per joule"] == "at most 2"
    assert "≤ 2" in run("-o", tmp_path, "results", "list").out


def test_provenance_omits_processes_whose_sensor_another_process_reads(tmp_path: Path) -> None:
    reader = factories.energy(total_scope="host", total_provenance="measured", **HOST_SCOPE)
    nothing: dict[str, Any] = dict.fromkeys(("total_energy_j", "gpu_energy_j", "cpu_energy_j", "ram_energy_j"), 0.0)
    records = factories.raws(2, "exp", host="node-1", energy_metrics=reader)
    records[1] = factories.raw("exp", 1, host="node-1", energy_metrics=factories.energy(**nothing, sensors=[]))
    save(tmp_path, records)
    assert fields(tmp_path, "exp")["provenance"].startswith("measured (scope host)")
    assert "unknown" not in fields(tmp_path, "exp")["provenance"]


@pytest.mark.parametrize(
    ("code", "severity", "changes", "verdict"),
    [
        ("energy.over_counted", "error", {}, "over-counted"),
        ("likeness.library_versions", "warning", {}, "complete"),
        ("zero.total_energy_j", "info", {}, "complete"),
        ("time.impossible_span", "error", {}, "failed"),
        ("time.impossible_span", "error", {"is_lower_bound": True}, "partial"),
        ("time.impossible_span", "error", {"attribution_status": "undetermined"}, "failed"),
        ("likeness.library_versions", "warning", {"attribution_status": "undetermined"}, "undetermined"),
        ("likeness.library_versions", "warning", {"attribution_status": "estimated"}, "complete"),
    ],
)
def test_verdict_comes_from_errors_completeness_and_attribution(
    code: str, severity: Any, changes: dict[str, Any], verdict: str
) -> None:
    findings = [Finding(code=code, outcome="failed", severity=severity)]
    assert verdict_of(factories.aggregated(findings=findings, **changes)) == verdict


def test_conditions_accept_the_verdict_undetermined(energies: Path) -> None:
    assert list(rows(energies, "--where", "verdict = undetermined", "--energy", "plain")) == ["open_c0"]
