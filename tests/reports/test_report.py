"""`results report`: the page is closed to the network, and its numbers are those of the other commands."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from msgspec import structs

from llm_energy_measure.analysis.observations import METRICS, read_observations
from llm_energy_measure.analysis.repeats import repeats_of
from llm_energy_measure.exceptions import ResultNotFoundError
from llm_energy_measure.reports import sections
from llm_energy_measure.reports.build import write_report
from llm_energy_measure.reports.experiments import breakdown, details_section, read_aggregates
from llm_energy_measure.reports.reading import read_results
from llm_energy_measure.reports.sections import MOST_ROWS, shown_experiments
from llm_energy_measure.reports.tables import Cell, Row, limited
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from tests.support import factories
from tests.support.command import as_process, run
from tests.support.pages import Page

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "\u202egpj.exe",
    "{{ 7 * 7 }}",
    r"$\frac{1}{2}$ 50 % #&_^~\\",
    "n" * 10_000,
)


def page_of(folder: Path, target: Path, *options: str) -> Page:
    """Return the report of a results directory."""
    done = run("-o", folder, "results", "report", *options, "--to", target)
    assert done.status == 0, done.err
    return Page(target.read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def page(examples: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    target = tmp_path_factory.mktemp("page") / "report.html"
    return page_of(examples, target, "--by", "config.batch_size", "--base", "1")


def test_policy_allows_only_the_style_and_script_of_the_page(page: Page) -> None:
    digests = [
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in (*page.styles, *page.scripts)
    ]
    assert len(digests) == 2
    assert page.policy == (
        f"default-src 'none'; style-src {digests[0]}; script-src {digests[1]}; base-uri 'none'; form-action 'none'"
    )


def test_page_has_no_style_or_handler_attribute(page: Page) -> None:
    names = {name for _, attributes in page.tags for name in attributes}
    assert "style" not in names
    assert {name for name in names if name.startswith("on")} == set()
    assert {tag for tag, _ in page.tags} & {"img", "link", "iframe", "object", "base", "form"} == set()


def test_links_stay_in_the_page_and_lead_to_an_id(page: Page) -> None:
    assert {link for link in page.links if not link.startswith("#")} == set()
    assert {link[1:] for link in page.links} <= set(page.ids)


def test_ids_are_unique(page: Page) -> None:
    assert len(page.ids) == len(set(page.ids))


def test_figures_have_a_title_a_description_and_the_ink_of_the_page(page: Page) -> None:
    drawn = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(drawn) == 3
    for attributes in drawn:
        title, description = str(attributes["aria-labelledby"]).split()
        assert {title, description} <= set(page.ids)
    fills = {attributes.get("fill") for tag, attributes in page.tags if tag == "text"}
    assert fills == {"currentColor"}


def test_experiments_equal_show_json(examples: Path, page: Page) -> None:
    rows = page.rows("experiments-table")
    assert len(rows) == 5
    for row in rows:
        shown = run("-o", examples, "results", "show", row["experiment"].text, "--json").json()
        tokens = shown["total_tokens"]
        output = sum(one["inference_metrics"]["output_tokens"] for one in shown["process_results"])
        assert row["energy"].value == shown["attributed_energy_j"]
        assert row["plain sum"].value == shown["total_energy_j"]
        assert row["tokens"].value == tokens
        assert row["J/token"].value == shown["attributed_energy_j"] / tokens
        assert row["J/output token"].value == shown["attributed_energy_j"] / output
        assert row["token/s per process"].value == shown["avg_tokens_per_second"]
        assert row["TTFT median"].value == shown["latency_stats"]["ttft_median_ms"]
        assert row["ITL median"].value == shown["latency_stats"]["itl_median_ms"]


def test_a_lower_bound_is_shown_as_a_lower_bound(page: Page) -> None:
    rows = {row["experiment"].text: row for row in page.rows("experiments-table")}
    assert rows["smollm2_b1_crash"]["energy"].text == "≥ 141.7 J"
    assert rows["smollm2_b1_crash"]["verdict"].text == "partial"
    assert "smollm2_b1_crash" in {row["experiment"].text for row in page.rows("excluded-table")}


def test_repeats_equal_repeats_json(examples: Path, page: Page) -> None:
    metrics = ["j_per_output_token", "j_per_token", "energy", "tokens_per_s", "ttft_p50", "itl_p50"]
    done = run("-o", examples, "results", "repeats", "--metrics", ",".join(metrics), "--json")
    titles, *rows = page.tables["repeats-table"]
    places = {title.text: place for place, title in enumerate(titles)}
    groups = done.json()["groups"]
    assert [row[0].text for row in rows] == [group["name"] for group in groups]
    for row, group in zip(rows, groups, strict=True):
        for metric in metrics:
            found = group["statistics"][metric]
            place = places[METRICS[metric].label]
            mean, half, cv = (cell.value for cell in row[place : place + 3])
            assert (mean, cv) == (found["mean"], found["cv"])
            assert half == found["ci_95_upper"] - found["mean"]


def test_figure_data_equal_repeats_json(examples: Path, page: Page) -> None:
    done = run("-o", examples, "results", "repeats", "--metrics", "j_per_output_token,itl_p50", "--json")
    groups = [group["statistics"] for group in done.json()["groups"]]
    drawn = page.rows("per-output-token-data")
    title = "energy per output token"
    means = [one["j_per_output_token"]["mean"] for one in groups]
    assert [row[title].value for row in drawn] == means
    assert [row["low"].value for row in drawn] == [one["j_per_output_token"]["ci_95_lower"] for one in groups]
    trade_off = {row[title].value: row["median inter-token latency"].value for row in page.rows("trade-off-data")}
    assert trade_off == {mean: one["itl_p50"]["mean"] for mean, one in zip(means, groups, strict=True)}


def test_comparison_equals_compare_json(examples: Path, page: Page) -> None:
    done = run("-o", examples, "results", "compare", "--by", "config.batch_size", "--base", "1", "--json")
    [table] = done.json()["tables"]
    [row] = table["rows"]
    cells = page.tables["comparison-0"][1]
    assert [cell.value for cell in cells[1:6]] == [
        row["base"]["mean"],
        row["new"]["mean"],
        row["ratio"],
        row["interval"][0],
        row["p"],
    ]
    assert cells[6].text == row["verdict"]


def test_total_equals_the_group_of_results_list(examples: Path, page: Page) -> None:
    [group] = run("-o", examples, "results", "list", "--by", "backend", "--json").json()
    assert f"≥ {group['attributed_low_j']:.4g} J (5 experiments with an aggregate)" in page.text


def test_compare_option_compares_two_conditions(examples: Path, tmp_path: Path) -> None:
    sides = ["config.batch_size = 1", "config.batch_size = 4"]
    found = page_of(examples, tmp_path / "report.html", "--compare", *sides)
    done = run("-o", examples, "results", "compare", *sides, "--json")
    assert found.tables["comparison-0"][1][3].value == done.json()["tables"][0]["rows"][0]["ratio"]


def test_an_undetermined_energy_is_a_range(ranges: Path, tmp_path: Path) -> None:
    found = page_of(ranges, tmp_path / "report.html")
    rows = {row["experiment"].text: row for row in found.rows("experiments-table")}
    shown = run("-o", ranges, "results", "show", "wide", "--json").json()
    low, high = shown["attributed_bounds_j"]
    assert (rows["wide"]["energy"].low, rows["wide"]["energy"].value) == (low, high)
    assert " to " in rows["wide"]["energy"].text
    drawn = {row["configuration"].text: row for row in found.rows("per-output-token-data")}
    assert drawn["wide (undetermined)"]["energy per output token"].value is None
    output = sum(one["inference_metrics"]["output_tokens"] for one in shown["process_results"])
    assert (drawn["wide (undetermined)"]["low"].value, drawn["wide (undetermined)"]["high"].value) == (
        low / output,
        high / output,
    )
    assert drawn["wide (undetermined)"]["verdict"].text == "undetermined"
    excluded = {row["experiment"].text: row for row in found.rows("excluded-table")}
    assert set(excluded) == {"wide", "pending"}
    assert excluded["pending"]["reason"].text.startswith("no aggregate; run")


def test_ids_and_condition_select_experiments(examples: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    found = page_of(examples, target, "smollm2_b1_c0", "smollm2_b4_c0", "--where", "config.batch_size = 4")
    assert [row["experiment"].text for row in found.rows("experiments-table")] == ["smollm2_b4_c0"]
    found = page_of(examples, target, "*_c[0]")
    assert [row["experiment"].text for row in found.rows("experiments-table")] == ["smollm2_b1_c0", "smollm2_b4_c0"]
    done = run("-o", examples, "results", "report", "smollm2_b9", "--to", target)
    assert done.status == 1
    assert "did you mean" in done.err


def test_equal_results_give_equal_bytes(examples: Path, tmp_path: Path) -> None:
    pages = [write_report(FileSystemRepository(examples), tmp_path / f"{name}.html").read_bytes() for name in "ab"]
    assert pages[0] == pages[1]


def test_five_experiments_give_a_small_page(examples: Path, tmp_path: Path) -> None:
    target = write_report(FileSystemRepository(examples), tmp_path / "report.html")
    assert target.stat().st_size <= 150_000


def test_no_experiment_is_one_sentence_and_status_1(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    done = run("-o", tmp_path, "results", "report", "--to", tmp_path / "report.html")
    assert (done.status, done.err.count("\n")) == (1, 1)
    assert done.err.startswith("error: cannot write a report: no experiment in ")
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(ResultNotFoundError, match="is selected"):
        write_report(FileSystemRepository(tmp_path), tmp_path / "report.html")
    with pytest.raises(ResultNotFoundError, match='is selected; = compares the whole text; .*"model ~ llama"'):
        write_report(FileSystemRepository(tmp_path), tmp_path / "report.html", where="model = llama")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Experiments with a hostile model, host, configuration, tag and id."""
    folder = tmp_path_factory.mktemp("hostile") / "results"
    repository = FileSystemRepository(folder)
    for number, text in enumerate(HOSTILE):
        name = f"exp {number} {text[:40]}"
        record = factories.raw(
            name, 0, model_name=text, host=text, backend=text, gpu_name=text, effective_config={text[:60]: text}
        )
        repository.save_raw(name, record)
    assert {one.result for one in aggregate_all(repository)} == {"aggregated"}
    assert run("-o", folder, "results", "tag", f"exp 0 {HOSTILE[0]}", f"paper={HOSTILE[1]}").status == 0
    return folder


def test_hostile_names_are_text(hostile: Path, tmp_path: Path) -> None:
    target = tmp_path / "report.html"
    found = page_of(hostile, target)
    text = target.read_text(encoding="utf-8")
    assert len(found.scripts) == 1
    assert {tag for tag, _ in found.tags} & {"img", "iframe"} == set()
    assert "<script>alert(1)</script>" in found.text
    assert '"><img src=x onerror=alert(1)>' in found.text
    assert r"\u202egpj.exe" in found.text
    assert "\u202e" not in text
    assert "{{ 7 * 7 }}" in found.text
    assert r"$\frac{1}{2}$ 50 % #&_^~" in found.text
    assert "n" * 400 not in text
    assert len(found.ids) == len(set(found.ids))
    assert {link[1:] for link in found.links} <= set(found.ids)


def test_the_page_function_uses_the_numbers_of_repeats(examples: Path) -> None:
    """`repeats_of` is the only source of means; see `sections.repeats_section`."""
    repeats = repeats_of(read_observations(examples), ["energy"])
    assert [group.statistics["energy"].n for group in repeats.groups] == [2, 2]


@pytest.mark.parametrize("package", ["matplotlib", "jinja2"])
def test_a_missing_package_is_named(examples: Path, package: str, tmp_path: Path) -> None:

    blocked = tmp_path / "blocked" / package
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text(f"raise ImportError('no {package}')\n")
    path = f"{blocked.parent}:{Path(__file__).resolve().parents[2] / 'src'}"
    target = tmp_path / "report.html"
    done = as_process("-o", examples, "results", "report", "--to", target, env={"PYTHONPATH": path})
    assert done.status == 1
    assert done.err == (
        f"error: cannot draw a figure: the package {package} is not installed; run: pip install matplotlib jinja2\n"
    )
    assert not target.exists()


def test_report_names_unreadable_files_and_exits_1(examples: Path, tmp_path: Path) -> None:

    folder = shutil.copytree(examples, tmp_path / "results")
    (folder / "aggregated" / "smollm2_b4_c0.json").write_bytes(b"{")
    done = run("-o", folder, "results", "report", "--to", tmp_path / "report.html")
    assert done.status == 1
    assert "smollm2_b4_c0.json is unreadable" in done.err
    found = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    rows = {row["experiment"].text: row for row in found.rows("experiments-table")}
    assert rows["smollm2_b4_c0"]["verdict"].text == "unreadable"
    assert re.search(r"unreadable: aggregated/smollm2_b4_c0\.json", found.text)


def test_json_of_the_examples_is_complete(examples: Path) -> None:
    """The fixture has the experiments that the other tests expect."""
    rows = json.loads(run("-o", examples, "results", "list", "--json").out)
    assert [row["verdict"] for row in rows].count("partial") == 1


def test_many_experiments_show_those_that_are_not_complete_first(examples: Path) -> None:
    results = read_results(FileSystemRepository(examples))
    assert shown_experiments(results, 2) == ["smollm2_b1_c0", "smollm2_b1_crash"]
    found = read_aggregates(results, most=2)
    assert [part.title for part in found.details] == ["smollm2_b1_c0", "smollm2_b1_crash"]
    assert details_section(found).paragraphs[0].startswith("2 of 5 experiments are shown.")


def test_a_limited_table_says_so() -> None:
    rows = [Row([Cell(str(number))]) for number in range(5)]
    assert limited(rows, 3, "rows", "Use X.") == (rows[:3], ["The table shows 3 of 5 rows. Use X."])
    assert limited(rows, 5, "rows", "Use X.") == (rows, [])
    advice = "To see the other rows, make a report of fewer experiments with --where."
    assert limited(rows, 3, "rows")[1] == [f"The table shows 3 of 5 rows. {advice}"]


def test_limited_sections_advise_how_to_see_the_other_rows(examples: Path) -> None:
    few = read_results(FileSystemRepository(examples))
    one, observation = few.experiments[0], few.observations[0]
    names = [f"many_{number}" for number in range(MOST_ROWS + 1)]
    results = structs.replace(
        few,
        experiments=[
            one._replace(
                summary=structs.replace(one.summary, experiment_id=name, hosts=[name], attribution_basis=[name])
            )
            for name in names
        ],
        observations=[structs.replace(observation, experiment_id=name) for name in names],
    )
    figures = repeats_of(few.observations, sections.REPEATS_METRICS)
    [group, *_] = figures.groups
    groups = [structs.replace(group, experiment_ids=[name]) for name in names]
    repeats = structs.replace(figures, groups=groups, left_out=dict.fromkeys(names, "a copy"))
    found = {
        table.caption: table.notes[0]
        for section in (
            sections.repeats_section(results, repeats),
            sections.provenance(results),
            sections.experiments_table(results),
            sections.excluded(results, repeats),
            sections.environment(results),
        )
        for table in section.tables
    }
    # Only a report has the columns of the last three tables, and the experiments without an aggregate.
    assert {caption: note.partition(" of ")[2].partition(". ")[2] for caption, note in found.items()} == {
        "Repeats": "'llm-energy-measure results repeats --json' prints all configurations.",
        "Experiments": (
            "Experiments that are not complete are chosen first. "
            "'llm-energy-measure results list --json' prints all experiments."
        ),
        "Provenance and scope": "To see the other rows, make a report of fewer experiments with --where.",
        "Environment": "To see the other rows, make a report of fewer experiments with --where.",
        "Experiments outside the statistics": (
            "To see the other experiments, make a report of fewer experiments with --where."
        ),
    }


def test_experiments_without_tokens_show_their_energy(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    for number in range(3):
        name = f"plain_c{number}"
        repository.save_raw(name, factories.raw(name, 0, inference_metrics=None))
    assert {one.result for one in aggregate_all(repository)} == {"aggregated"}
    found = page_of(tmp_path / "results", tmp_path / "report.html")
    [row] = found.rows("energy-data")
    assert row["energy"].value == 1971.5


def test_energy_and_speed_of_different_experiments_give_no_trade_off(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    without_speed = factories.inference(tokens_per_second=None)
    without_tokens = factories.inference(total_tokens=0, input_tokens=0, output_tokens=0)
    repository.save_raw("a", factories.raw("a", model_name="a", inference_metrics=without_speed))
    repository.save_raw("b", factories.raw("b", model_name="b", inference_metrics=without_tokens))
    assert {one.result for one in aggregate_all(repository)} == {"aggregated"}
    found = page_of(tmp_path / "results", tmp_path / "report.html")
    assert len(found.rows("repeats-table")) == 2
    assert "trade-off-section" not in found.ids


def test_the_breakdown_says_what_it_leaves_out(examples: Path) -> None:
    results = read_results(FileSystemRepository(examples))
    repeats = repeats_of(results.observations, ["energy"])
    section = breakdown(results, repeats, read_aggregates(results, most=4))
    assert section is not None
    assert section.plots[0].notes[-1] == "The means are over the 4 experiments of the section Findings."
    complete = breakdown(results, repeats, read_aggregates(results))
    assert complete is not None
    assert len(complete.plots[0].notes) == 1
    sums = {mark.name: mark.y for mark in complete.plots[0].marks() if mark.y}
    assert sums["batch_size=1"] == repeats.groups[0].statistics["energy"].mean


def test_a_comparison_by_tag_equals_results_compare(ranges: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(ranges, tmp_path / "results")
    for number in range(3):
        assert run("-o", folder, "results", "tag", f"known_c{number}", f"commit={number // 2}").status == 0
    options = ("--by", "tag.commit", "--base", "0")
    found = page_of(folder, tmp_path / "report.html", *options)
    done = run("-o", folder, "results", "compare", *options, "--json")
    assert found.tables["comparison-0"][1][3].value == done.json()["tables"][0]["rows"][0]["ratio"]
    groups = run("-o", folder, "results", "repeats", "--json").json()["groups"]
    assert [row["n"].value for row in found.rows("repeats-table")] == [len(one["experiment_ids"]) for one in groups]
