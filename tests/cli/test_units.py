"""`--unit` and the LaTeX and Markdown tables: the commands and Python give the same text, and a wrong unit an error."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from llm_energy_measure import load
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from tests.support import factories
from tests.support.command import run

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two batch sizes with two repeats of 1,000 tokens: 1,000 and 1,100 J, 100 and 110 J."""
    folder = tmp_path_factory.mktemp("units") / "results"
    repository = FileSystemRepository(folder)
    for number, (batch, joules) in enumerate(((1, 1000.0), (1, 1100.0), (8, 100.0), (8, 110.0))):
        record = factories.raw(
            f"b{batch}_c{number}",
            energy_metrics=factories.energy(
                total_energy_j=joules, gpu_energy_j=joules, cpu_energy_j=0.0, ram_energy_j=0.0, gpu_power_w=None
            ),
            inference_metrics=factories.inference(total_tokens=1000, output_tokens=500),
            effective_config={"batch_size": batch},
            timestamps=factories.timestamps(factories.START.replace(minute=number)),
            world_size=1,
        )
        repository.save_raw(record.experiment_id, record)
    assert len(list(aggregate_all(repository, strict=True))) == 4
    return folder


COMPARE = ("compare", "--by", "config.batch_size", "--base", "1")


@pytest.mark.parametrize(
    ("unit", "per_token", "energy", "cells"),
    [
        (None, "[J/token]", "[kJ]", ("1.05 ± 0.64", "1.05 ± 0.64", "0.105 ± 0.064")),
        ("mJ", "[mJ/token]", "[mJ]", ("1050 ± 635", "1050000 ± 635310", "105 ± 64")),
        ("Wh", "[Wh/token]", "[Wh]", ("0.00029 ± 0.00018", "0.29 ± 0.18", "0.000029 ± 0.000018")),
    ],
)
def test_repeats_show_energies_in_the_unit(
    results: Path, unit: str | None, per_token: str, energy: str, cells: tuple[str, ...]
) -> None:
    done = run("-o", results, "results", "repeats", *(("--unit", unit) if unit else ()))
    assert done.status == 0
    assert f"j_per_token {per_token}" in done.out
    assert f"energy {energy}" in done.out
    assert "tokens_per_s [token/s]" in done.out
    for cell in cells:
        assert cell in done.out


def test_compare_shows_energies_in_the_unit(results: Path) -> None:
    done = run("-o", results, "results", *COMPARE, "--metric", "energy", "--metric", "power", "--unit", "Wh")
    assert done.status == 0
    assert "0.29 ± 0.18 Wh" in done.out
    assert " W " in done.out
    kilo = run("-o", results, "results", *COMPARE, "--unit", "kJ", "--to", "-", "--format", "junit")
    assert "0.00105 ± 0.00064 kJ" in kilo.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("repeats", "--metrics", "tokens_per_s,ttft_p50"), "no column has an energy; the columns have token/s, ms"),
        ((*COMPARE, "--metric", "power"), "no column has an energy; the columns have W"),
        (("export", "--to", "x.tex", "--columns", "id,total_tokens"), "no column has an energy"),
        (("export", "--to", "x.csv"), "--unit is for LaTeX and Markdown; the format csv has base units."),
    ],
)
def test_unit_without_an_energy_is_one_sentence(results: Path, arguments: tuple[str, ...], message: str) -> None:
    done = run("-o", results, "results", *arguments, "--unit", "mJ")
    assert (done.status, done.out) == (2, "")
    assert message in " ".join(done.err.split())


@pytest.mark.parametrize("command", ["repeats", "compare", "list", "export"])
def test_unknown_unit_names_the_units(results: Path, command: str) -> None:
    done = run("-o", results, "results", command, "--unit", "eV")
    assert done.status == 2
    assert "'J', 'mJ', 'kJ', 'MJ', 'mWh', 'Wh', 'kWh', 'MWh'" in done.err


def test_tables_of_python_refuse_the_same_units(results: Path) -> None:
    runs = load(results)
    repeats, comparison = runs.repeats("tokens_per_s"), runs.compare(by="config.batch_size", base=1, metrics="power")
    writers: list[Callable[..., str]] = [repeats.to_latex, repeats.to_markdown, comparison.to_latex]
    for write in writers:
        with pytest.raises(ConfigurationError, match="no column has an energy"):
            write(unit="mJ")
        with pytest.raises(ConfigurationError, match="unknown unit 'eV'; use one of J, mJ"):
            write(unit="eV")
    with pytest.raises(ConfigurationError, match="no column has an energy"):
        runs.to_latex(columns=["id"], unit="mJ")


@pytest.mark.parametrize("suffix", [".tex", ".md"])
@pytest.mark.parametrize("unit", [None, "mJ"])
def test_tables_of_python_are_those_of_the_commands(
    results: Path, tmp_path: Path, suffix: str, unit: str | None
) -> None:
    runs = load(results)
    tables: dict[str, Any] = {
        "repeats": (("repeats",), runs.repeats()),
        "compare": (COMPARE, runs.compare(by="config.batch_size", base=1)),
        "export": (("export",), runs),
    }
    for name, (command, table) in tables.items():
        target, own = tmp_path / f"{name}{suffix}", tmp_path / f"python{suffix}"
        done = run("-o", results, "results", *command, "--to", target, *(("--unit", unit) if unit else ()))
        assert done.status == 0, done.err
        write = table.to_latex if suffix == ".tex" else table.to_markdown
        assert write(own, unit=unit) == write(unit=unit) == target.read_text(encoding="utf-8")
        assert own.read_bytes() == target.read_bytes()


def test_a_suffix_of_another_table_format_is_refused(results: Path, tmp_path: Path) -> None:
    for command, suffix in ((COMPARE, ".csv"), (("repeats",), ".html"), (("export",), ".xlsx")):
        done = run("-o", results, "results", *command, "--to", tmp_path / f"x{suffix}")
        assert done.status == 2
        assert f"cannot write a {suffix} file; use" in done.err
    assert list(tmp_path.iterdir()) == []
