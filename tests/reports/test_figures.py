"""Figures: the marks, their intervals, ranges and bounds, and the files that matplotlib writes."""

from __future__ import annotations

import math
import re
from array import array
from pathlib import Path
from typing import Any

import pytest

from llm_energy_measure.domain.power_trace import PowerTrace
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.reports import style
from llm_energy_measure.reports.figures import Choice, figure_of
from llm_energy_measure.reports.images import encode_image, page_svg
from llm_energy_measure.reports.labels import for_matplotlib, readable
from llm_energy_measure.reports.plots import (
    MOST_MARKS,
    Axis,
    Kind,
    Mark,
    Panel,
    Plot,
    Series,
    data_table,
    pareto_front,
    thinned,
)
from llm_energy_measure.reports.power import figure_of_samples
from llm_energy_measure.reports.reading import read_results
from llm_energy_measure.reports.text_plot import text_lines
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.store.samples import save_samples
from tests.support import factories
from tests.support.command import run

SINGLE = style.size_of("single")
DARK = "#15181c"
HOSTILE = (
    "<script>x</script>",
    '"><img onerror=x>',
    "\u202eabc",
    "50 % $x_1$ \\frac #&",
    "_hidden",
    "n" * 10_000,
    "漢字",
)


def plot(marks: list[Mark], **changes: Any) -> Plot:
    """Return a figure of one series."""
    fields: dict[str, Any] = {
        "name": "f",
        "title": "t",
        "description": "d",
        "kind": "points",
        "x": Axis(label="x"),
        "y": Axis(label="y", unit="J"),
        "panels": [Panel(series=[Series(name="", marks=marks)])],
    }
    return Plot(**{**fields, **changes})


def contrast(colour: str, ground: str) -> float:
    """Return the contrast of two colours. Source: WCAG 2.2, relative luminance."""

    def luminance(text: str) -> float:
        parts = [int(text[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    first, second = sorted((luminance(colour), luminance(ground)), reverse=True)
    return (first + 0.05) / (second + 0.05)


@pytest.mark.parametrize("colour", [*style.COLOURS, style.FAINT])
@pytest.mark.parametrize("ground", ["#ffffff", DARK])
def test_colours_stand_out_on_both_themes(colour: str, ground: str) -> None:
    assert contrast(colour, ground) >= 3


def test_dark_theme_of_the_page_is_the_tested_one() -> None:
    css = Path(style.__file__).with_name("templates") / "report.css"
    assert f"--ground:{DARK}" in css.read_text(encoding="utf-8")


@pytest.mark.parametrize("form", ["svg", "pdf", "png"])
@pytest.mark.parametrize("kind", ["points", "bars", "box", "line"])
def test_each_kind_gives_equal_bytes_without_a_date(examples: Path, kind: Any, form: str) -> None:
    results = read_results(FileSystemRepository(examples))
    figure = figure_of(results, Choice(x="config.batch_size", y="j_per_output_token", kind=kind))
    data = encode_image(figure, SINGLE, form)
    assert data == encode_image(figure, SINGLE, form)
    assert b"20" + b"26-" not in data
    assert b"Matplotlib v" not in data


def test_marks_are_means_with_intervals_and_links(examples: Path) -> None:
    results = read_results(FileSystemRepository(examples))
    figure = figure_of(results, Choice(x="config.batch_size", y="energy"))
    first, second = [mark for mark in figure.marks() if not mark.is_lower_bound]
    assert (first.x, second.x) == (1.0, 4.0)
    assert first.y == pytest.approx(223.4, abs=0.05)
    assert first.y_low is not None
    assert first.y is not None
    assert first.y_low < first.y
    assert len(first.repeats) == 2
    assert (first.name, first.verdict, first.target) == ("batch_size=1 (n=2)", "complete", "e-smollm2_b1_c0")


def test_a_lower_bound_is_a_triangle_and_no_mean(examples: Path) -> None:
    results = read_results(FileSystemRepository(examples))
    [bound] = [mark for mark in figure_of(results, Choice(x="backend", y="energy")).marks() if mark.is_lower_bound]
    assert (bound.name, bound.verdict, bound.y_high) == ("smollm2_b1_crash", "partial", None)


def test_a_range_has_no_value(ranges: Path) -> None:
    results = read_results(FileSystemRepository(ranges))
    figure = figure_of(results, Choice(x="config.batch_size", y="energy"))
    [wide] = [mark for mark in figure.marks() if mark.is_range]
    assert (wide.y, wide.name, wide.verdict) == (None, "wide", "undetermined")
    assert wide.y_low is not None
    assert wide.y_high is not None
    assert wide.y_low < wide.y_high
    [row] = [row for row in data_table(figure).rows if row.cells[0].text == "wide"]
    assert [cell.value for cell in row.cells[2:5]] == [None, wide.y_low, wide.y_high]


@pytest.mark.parametrize(
    ("kind", "advice"),
    [
        ("points", "To see the other values, make a report of fewer experiments with --where."),
        ("line", "The files samples-process_* in raw/ contain all samples."),
    ],
)
def test_limited_data_of_a_figure_advise_where_the_others_are(kind: Kind, advice: str) -> None:
    marks = [Mark(x=float(number), y=1.0) for number in range(501)]
    axis = Axis(label="x")
    figure = Plot(
        name="one",
        title="",
        description="",
        kind=kind,
        x=axis,
        y=axis,
        panels=[Panel(series=[Series(name="", marks=marks)])],
    )
    assert data_table(figure).notes == [f"The table shows 500 of 501 values. {advice}"]


def test_two_configurations_in_one_bar_are_refused(examples: Path) -> None:
    results = read_results(FileSystemRepository(examples))
    with pytest.raises(ConfigurationError, match=r"they also differ in config\.batching_options\.batch_size"):
        figure_of(results, Choice(x="backend", y="energy", kind="bars"))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(x="itl_p50", y="nothing"), "there is no column 'nothing'"),
        (Choice(x="itl_p50", y="backend"), "its values are text"),
        (Choice(x="itl_p50", y="energy", by="config.nothing"), "no configuration has the key 'nothing'"),
        (Choice(x="itl_p50", y="energy", by="config.precision"), r"did you mean precision or config\.fp_precision"),
        (Choice(x="tag.none", y="energy"), "no experiment has both values"),
    ],
)
def test_wrong_names_are_one_sentence(examples: Path, choice: Choice, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        figure_of(read_results(FileSystemRepository(examples)), choice)


def test_pareto_front_prefers_less_energy_and_more_throughput() -> None:
    marks = [Mark(x=10.0, y=3.0), Mark(x=20.0, y=1.0), Mark(x=30.0, y=2.0), Mark(x=5.0, y=None), Mark(x=40.0, y=9.0)]
    assert pareto_front(marks, is_greater_x_better=True) == [(20.0, 1.0), (30.0, 2.0), (40.0, 9.0)]
    assert pareto_front(marks, is_greater_x_better=False) == [(10.0, 3.0), (20.0, 1.0)]


def test_lower_bounds_are_not_on_the_front() -> None:
    assert pareto_front([Mark(x=1.0, y=1.0, is_lower_bound=True)], is_greater_x_better=False) == []


def test_thinned_keeps_the_extremes_and_says_so() -> None:
    marks = [Mark(x=float(number), y=math.sin(number)) for number in range(10 * MOST_MARKS)]
    marks[777] = Mark(x=777.0, y=99.0)
    found = thinned(plot(marks))
    values = [mark.y for mark in found.marks()]
    assert len(values) <= MOST_MARKS
    assert 99.0 in values
    assert found.notes[-1].startswith(f"{10 * MOST_MARKS - len(values):,} marks are not drawn")
    assert thinned(plot(marks[:MOST_MARKS])).notes == []


@pytest.mark.parametrize("value", [math.nan, math.inf, None])
def test_values_that_are_not_finite_are_gaps(value: float | None) -> None:
    figure = plot([Mark(x=0.0, y=1.0), Mark(x=1.0, y=value), Mark(x=2.0, y=3.0)], kind="line")
    svg = page_svg(figure)
    [line] = re.findall(r'<path d="([^"]*)"[^>]*stroke="#0072b2"', svg)
    assert line.count("M") == 2
    assert not re.search(r"nan|inf", line, re.IGNORECASE)


def test_a_svg_of_a_page_has_no_style_and_own_ids() -> None:
    figure = plot([Mark(x=0.0, y=1.0, target="e-a", name="a", verdict="complete")], name="first")
    svg = page_svg(figure)
    assert "style" not in svg
    assert "#1d2126" not in svg
    assert "currentColor" in svg
    assert {name for name in re.findall(r' id="([^"]*)"', svg) if not name.startswith("first-")} == set()
    assert '<a xlink:href="#e-a" tabindex="-1">' in svg
    assert "<title>a, 1 J, complete</title>" in svg


def test_hostile_names_are_drawn_in_every_format() -> None:
    axis = Axis(label=HOSTILE[3], categories=list(HOSTILE))
    marks = [Mark(x=float(number), y=1.0 + number, name=name) for number, name in enumerate(HOSTILE)]
    series = [Series(name=name, marks=marks) for name in HOSTILE]
    figure = plot([], x=axis, panels=[Panel(title=HOSTILE[0], series=series)], title=HOSTILE[1], by=HOSTILE[3])
    for form in ("svg", "pdf", "png"):
        assert encode_image(figure, SINGLE, form)
    svg = page_svg(figure)
    assert "<script" not in svg
    assert "<img" not in svg
    assert "&lt;script&gt;x&lt;/script&gt;" in svg
    assert "50 % $x_1$ \\frac #&amp;" in svg
    assert r"\u202eabc" in svg
    assert "n" * 50 not in svg


@pytest.mark.parametrize("text", ["fp_16", "a<b>", "{x}", "a\\b", "é", "n" * 99])
def test_a_figure_for_a_paper_has_a_font_with_all_its_characters(text: str) -> None:
    """Computer Modern of matplotlib draws `_` as a dot, and `<` as an inverted exclamation mark."""
    figure = plot([Mark(x=1.0, y=2.0)], x=Axis(label=text))
    other = encode_image(figure, SINGLE, "pdf")
    assert b"STIXGeneral" in other
    assert b"Cmr10" not in other
    usual = encode_image(plot([Mark(x=1.0, y=2.0)], x=Axis(label="batch size $1-2 (n=3)")), SINGLE, "pdf")
    assert b"Cmr10" in usual
    assert b"STIX" not in usual


def test_a_bar_of_one_part_names_the_part() -> None:
    marks = [Mark(x=0.0, y=3.0, y_low=0.0)]
    axis = Axis(label="configuration", categories=["batch_size=1"])
    panels = [Panel(series=[Series(name="CPU", marks=marks)])]
    drawn = page_svg(plot(marks, kind="stacked", x=axis, by="component", panels=panels))
    assert ">CPU<" in drawn


def test_labels_are_cut_and_dollars_are_no_formula() -> None:
    assert for_matplotlib("$") == r"\$"
    assert len(readable("n" * 10_000)) == 300


@pytest.mark.parametrize("text", ["single", "double", "8.8", "12cm", "12 cm"])
def test_widths(text: str) -> None:
    assert 8 < style.size_of(text).width_cm < 19


@pytest.mark.parametrize("text", ["", "3", "61", "wide", "-8", "nan", "1e2"])
def test_other_widths_are_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="use single, double"):
        style.size_of(text)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An experiment of two processes with power samples: 100 W and 200 W for 60 s, with a gap of 10 s."""
    folder = tmp_path_factory.mktemp("traced") / "results"
    repository = FileSystemRepository(folder)
    for process in range(2):
        repository.save_raw("traced", factories.raw("traced", process, world_size=2))
        times = array("d", [time / 10 for time in range(601) if not 200 < time < 300])
        powers = array("d", [100.0 * (process + 1)] * len(times))
        traces = [PowerTrace(device=str(process), times=times, powers=powers)]
        save_samples(repository.store, "traced", process, traces)
    assert {one.result for one in aggregate_all(repository)} == {"aggregated"}
    return folder


def test_power_over_time_has_a_gap_and_its_integral(traced: Path) -> None:
    repository = FileSystemRepository(traced)
    found = repository.load_aggregated("traced")
    assert found is not None
    figure = figure_of_samples(repository, found)
    assert figure is not None
    power, energy = figure.panels
    assert [series.name for series in power.series] == ["process 0, GPU 0", "process 1, GPU 1"]
    assert [mark.x for mark in power.series[0].marks if mark.y is None] == [25.0]
    assert energy.series[1].marks[-1].y == pytest.approx(200 * 50)
    assert encode_image(figure, SINGLE, "png")


def test_show_plot_draws_power_in_the_terminal(traced: Path, examples: Path) -> None:
    done = run("-o", traced, "results", "show", "traced", "--plot")
    assert done.status == 0
    assert "Power over time: traced" in done.out
    assert "x  process 1, GPU 1" in done.out
    shown = run("-o", examples, "results", "show", "smollm2_b1_c0", "--plot").err
    assert "has no power samples; 'llm-energy-measure record --samples'" in shown
    assert run("-o", traced, "results", "show", "traced", "--plot", "--json").status == 2


def test_plot_draws_in_the_terminal_without_a_file(examples: Path) -> None:
    done = run("-o", examples, "results", "plot", "--x", "config.batch_size", "--kind", "bars", "--y", "energy")
    assert done.status == 0
    assert [line.split()[0] for line in done.out.splitlines()[1:4]] == ["1", "1", "4"]
    assert "223.4 J" in done.out
    assert max(map(len, done.out.splitlines()[:4])) <= 80


@pytest.mark.parametrize("is_unicode", [True, False])
@pytest.mark.parametrize("width", [10, 40, 80, 200])
def test_text_figures_fit_the_width(width: int, *, is_unicode: bool) -> None:
    marks = [Mark(x=float(number), y=number**2, y_low=0.0, y_high=number**2 + 1.0) for number in range(20)]
    for lines in (
        text_lines(plot(marks, kind="line"), width, is_unicode=is_unicode),
        text_lines(
            plot(marks, x=Axis(label="x", categories=[f"c{n}" for n in range(20)])), width, is_unicode=is_unicode
        ),
    ):
        assert max(map(len, lines)) <= max(width, 40)
        assert is_unicode or "".join(lines).isascii()


def test_plot_writes_files_by_suffix(examples: Path, tmp_path: Path) -> None:
    options = ("results", "plot", "--x", "itl_p50", "--by", "config.batch_size", "--pareto", "--width", "double")
    for suffix, begin in (("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")):
        target = tmp_path / f"figure.{suffix}"
        done = run("-o", examples, *options, "--to", target)
        assert (done.status, done.err) == (0, f"figure with 2 marks written to {target}\n"), done.err
        assert target.read_bytes().startswith(begin)
    done = run("-o", examples, *options, "--to", tmp_path / "figure.jpg")
    assert (done.status, "use .pdf, .svg, .png" in done.err) == (2, True)


@pytest.mark.parametrize("axes", [("nothing", "energy"), ("itl_p50", "nothing")])
def test_plot_names_the_metrics_if_an_axis_is_unknown(examples: Path, axes: tuple[str, str]) -> None:
    done = run("-o", examples, "results", "plot", "--x", axes[0], "--y", axes[1])
    assert done.status == 2
    assert "cannot draw 'nothing': there is no value with this name; for a configuration key, write conf" in done.err
    assert "config.nothing; otherwise use a metric (j_per_token, " in done.err
    assert "a numeric column of an export, or a fact (tag.KEY, config.KEY" in done.err


def test_plot_reads_numeric_columns_of_an_export(examples: Path) -> None:
    done = run("-o", examples, "results", "plot", "--x", "config.batch_size", "--y", "ttft_p99_ms")
    assert done.status == 0
    assert "ttft p99 ms over batch size" in done.out.lower()


def test_plot_without_experiments_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    done = run("-o", tmp_path, "results", "plot", "--x", "energy")
    assert (done.status, done.err.count("\n")) == (1, 1)


def test_facets_share_series_and_axes(examples: Path) -> None:
    results = read_results(FileSystemRepository(examples))
    choice = Choice(x="config.batch_size", y="energy", facet="config.batch_size", by="model", kind="line")
    figure = figure_of(results, choice)
    assert [panel.title for panel in figure.panels] == ["1", "4"]
    assert len({tuple(series.name for series in panel.series) for panel in figure.panels}) == 1
    assert encode_image(figure, SINGLE, "png")


def test_thinned_keeps_the_extreme_repeats_and_says_so() -> None:
    repeats = [float(number) for number in range(3 * MOST_MARKS)]
    found = thinned(plot([Mark(x=0.0, y=1.0, repeats=repeats), Mark(x=1.0, y=1.0, repeats=[1.0, 2.0])]))
    kept = found.marks()[0].repeats
    assert len(kept) <= MOST_MARKS
    assert (min(kept), max(kept)) == (min(repeats), max(repeats))
    assert found.marks()[1].repeats == [1.0, 2.0]
    assert found.notes[-1].startswith(f"{len(repeats) - len(kept):,} repeats are not drawn")


def test_a_text_figure_names_the_pareto_front(examples: Path) -> None:
    done = run("-o", examples, "results", "plot", "--x", "tokens_per_s", "--pareto")
    assert "Dashed line" not in done.out
    assert done.out.splitlines()[-1] == "Pareto front: batch_size=4 (n=2)."
    assert "o" in "".join(done.out.splitlines()[1:17])
