"""`load(...).plot()`: the figure of `results plot` on the axes of matplotlib."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
from matplotlib.patches import Rectangle

from llm_energy_measure import load
from llm_energy_measure.exceptions import ConfigurationError


@pytest.fixture(autouse=True)
def closed_figures() -> Iterator[None]:
    yield
    plt.close("all")


def test_plot_returns_axes_with_the_labels_and_means(examples: Path) -> None:
    runs = load(examples, where="verdict = complete")
    axes = runs.plot("config.batch_size", kind="bars")
    assert axes.get_ylabel() == "energy per output token [mJ/token]"
    assert axes.get_xlabel() == "batch size"
    groups = runs.repeats("j_per_output_token").data.groups
    heights = [patch.get_height() for patch in axes.patches if isinstance(patch, Rectangle)]
    assert heights == pytest.approx([1000 * (group.statistics["j_per_output_token"].mean or 0.0) for group in groups])


def test_plot_draws_on_given_axes_with_a_legend(examples: Path) -> None:
    _, given = plt.subplots()
    axes = load(examples).plot("itl_p50", by="config.batch_size", pareto=True, ax=given)
    assert axes is given
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["1", "4"]


def test_plot_refuses_an_unknown_kind(examples: Path) -> None:
    with pytest.raises(ConfigurationError, match="use one of points, bars, box, line"):
        load(examples).plot("itl_p50", kind="pie")  # type: ignore[arg-type]  # the test passes a wrong kind
