"""Tables of repeats and comparisons for notebooks, data frames and papers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from llm_energy_measure.analysis import repeats_text
from llm_energy_measure.analysis.comparison import Comparison
from llm_energy_measure.analysis.documents import Form
from llm_energy_measure.analysis.energies import CORRECTED_NOTE, EnergyKind, require_unit
from llm_energy_measure.analysis.observations import METRICS
from llm_energy_measure.analysis.repeats import Repeats
from llm_energy_measure.api.html import table_html
from llm_energy_measure.domain import formatting
from llm_energy_measure.exceptions import MissingExtraError
from llm_energy_measure.reports import comparison_text
from llm_energy_measure.results.exporters import write_export

if TYPE_CHECKING:
    import pandas as pd


class RepeatTable:
    """Mean and spread over the repeats of each configuration.

    Attributes:
        data: The statistics of each configuration, and the runs that were left out.
        energy: Kind of the energies: `attributed` or `plain`.
    """

    def __init__(self, data: Repeats, energy: EnergyKind) -> None:
        """Store the arguments."""
        self.data = data
        self.energy: EnergyKind = energy

    def __len__(self) -> int:
        return len(self.data.groups)

    def records(self) -> list[dict[str, Any]]:
        """Return one dictionary per configuration. Its values are scalars in base units, such as J/token."""
        rows = []
        for group in self.data.groups:
            row: dict[str, Any] = {**group.differs, "n": len(group.experiment_ids)}
            for metric, found in group.statistics.items():
                row[metric] = found.mean
                row |= {
                    f"{metric}_{part}": getattr(found, part) for part in ("ci_95_lower", "ci_95_upper", "std", "cv")
                }
            rows.append(row)
        return rows

    def to_pandas(self) -> pd.DataFrame:
        """Return `records` as a DataFrame. Raises `MissingExtraError` if pandas is not installed."""
        return _frame(self.records())

    def to_latex(self, path: str | os.PathLike[str] | None = None, *, unit: str | None = None) -> str:
        """Return the table of `results repeats --format latex`, and write the table to `path`.

        Args:
            path: The file. None writes no file.
            unit: Unit of energies and energies per token: `J`, `mJ`, `kJ`, `MJ`, `Wh` or `kWh`. None chooses a unit for
                each column.

        Raises:
            ConfigurationError: The unit is unknown, or a unit is given and no metric is an energy.
            ExportError: The file can't be written.
        """
        return self._document("latex", path, unit)

    def to_markdown(self, path: str | os.PathLike[str] | None = None, *, unit: str | None = None) -> str:
        """Return the table of `results repeats --format markdown`; see `to_latex`."""
        return self._document("markdown", path, unit)

    def _document(self, form: Form, path: str | os.PathLike[str] | None, unit: str | None) -> str:
        require_unit(unit, list(self.data.units.values()))
        return written(repeats_text.document(self.data, self.energy, unit).encoded(form).decode(), path)

    def __repr__(self) -> str:
        metrics = ", ".join(self.data.units)
        return f"<RepeatTable {metrics}: {formatting.plural(len(self), 'configuration')}>"

    def _repr_html_(self) -> str:
        scales = repeats_text.scales(self.data)
        headers = [("configuration", "left"), ("n", "right")]
        headers += [(f"{METRICS[metric].label} [{scales[metric][1]}]", "right") for metric in self.data.units]
        rows = [
            [group.name, str(len(group.experiment_ids)), *repeats_text.means(group, scales)]
            for group in self.data.groups
        ]
        notes = ["±: half of the t-based 95 % interval of the mean"] if rows else []
        if any(group.corrected for group in self.data.groups):
            notes.append(CORRECTED_NOTE)
        if self.data.left_out:
            notes.append(
                f"left out: {formatting.plural(len(self.data.left_out), 'run')}; data.left_out has the reasons"
            )
        return table_html(f"Repeats: {formatting.plural(len(self), 'configuration')}", headers, rows, notes=notes)


class ComparisonTable:
    """Candidates compared with one base.

    Attributes:
        data: The comparison, with ratio, interval and verdict for each row.
        energy: Kind of the energies: `attributed` or `plain`.
    """

    def __init__(self, data: Comparison, energy: EnergyKind) -> None:
        """Store the arguments."""
        self.data = data
        self.energy: EnergyKind = energy

    def __len__(self) -> int:
        return len(self.data.rows())

    def records(self) -> list[dict[str, Any]]:
        """Return one dictionary per candidate, metric and configuration. Its values are scalars in base units."""
        return [
            {
                "candidate": table.candidate,
                "metric": table.metric,
                "unit": table.unit,
                "configuration": row.configuration,
                "base_n": row.base.n,
                "base_mean": row.base.mean,
                "new_n": row.new.n,
                "new_mean": row.new.mean,
                "ratio": row.ratio,
                "ratio_lower": None if row.interval is None else row.interval[0],
                "ratio_upper": None if row.interval is None else row.interval[1],
                "p": row.p,
                "verdict": row.verdict,
                "confounded": ", ".join(row.confounded) or None,
            }
            for table in self.data.tables
            for row in table.rows
        ]

    def to_pandas(self) -> pd.DataFrame:
        """Return `records` as a DataFrame. Raises `MissingExtraError` if pandas is not installed."""
        return _frame(self.records())

    def to_latex(self, path: str | os.PathLike[str] | None = None, *, unit: str | None = None) -> str:
        """Return the tables of `results compare --format latex`; see `RepeatTable.to_latex`."""
        self._require_unit(unit)
        return written(comparison_text.latex(self.data, self.energy, unit), path)

    def to_markdown(self, path: str | os.PathLike[str] | None = None, *, unit: str | None = None) -> str:
        """Return the tables of `results compare --format markdown`; see `RepeatTable.to_latex`."""
        self._require_unit(unit)
        return written(comparison_text.markdown(self.data, self.energy, unit), path)

    def _require_unit(self, unit: str | None) -> None:
        require_unit(unit, [table.unit for table in self.data.tables])

    def __repr__(self) -> str:
        verdicts = [row.verdict or "no verdict" for row in self.data.rows()]
        words = ", ".join(f"{verdicts.count(word)} {word}" for word in dict.fromkeys(verdicts))
        return f"<ComparisonTable base {self.data.base}: {words or 'no common configuration'}>"

    def _repr_html_(self) -> str:
        headers = (
            *(
                ("candidate", "left"),
                ("metric", "left"),
                ("configuration", "left"),
                ("base", "right"),
                ("new", "right"),
            ),
            *(("change", "right"), ("95 % interval", "right"), ("verdict", "left")),
        )
        rows = [
            [
                table.candidate,
                f"{table.metric} [{table.unit}]",
                row.configuration,
                f"{row.base.mean:.4g} (n={row.base.n})",
                f"{row.new.mean:.4g} (n={row.new.n})",
                f"{row.ratio - 1:+.1%}",
                "-" if row.interval is None else f"{row.interval[0] - 1:+.1%} … {row.interval[1] - 1:+.1%}",
                row.verdict or "no verdict",
            ]
            for table in self.data.tables
            for row in table.rows
        ]
        notes = list(dict.fromkeys(warning for row in self.data.rows() for warning in row.warnings))
        return table_html(f"Comparison with {self.data.base}", headers, rows, notes=notes)


def written(text: str, path: str | os.PathLike[str] | None) -> str:
    """Return the text. If the path is not None, write the text to this file."""
    if path is not None:
        write_export(os.fspath(path), text.encode())
    return text


def _frame(records: list[dict[str, Any]]) -> pd.DataFrame:
    try:
        import pandas as pd
    except ImportError as error:
        raise MissingExtraError(
            "cannot make a pandas frame", "pandas is not installed", "pip install pandas"
        ) from error
    return pd.DataFrame(records)
