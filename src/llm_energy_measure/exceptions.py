"""Every error that llm-energy-measure raises.

    LLMEnergyMeasureError
    ├── ConfigurationError                  a wrong argument, id, path or setting
    │   └── ResultsError                    anything about stored results
    │       ├── ResultNotFoundError         (+ FileNotFoundError)
    │       ├── ResultExistsError           (+ FileExistsError)
    │       ├── ResultCorruptError          (+ ValueError)
    │       │   └── SchemaVersionError      newer than this version knows, or unknown
    │       ├── InvalidResultError          (+ ValueError) refused at save; names the kept file
    │       ├── ExperimentIdError           (+ ValueError) empty, impossible, not the record's, or taken
    │       ├── UnsafePathError             (+ ValueError)
    │       ├── StorageError                (+ OSError)
    │       ├── CatalogueError              ends with how to rebuild
    │       ├── ImportFormatError           (+ ValueError) file, line, tool
    │       ├── ExportError                 (+ OSError)
    │       └── MissingExtraError           (+ ImportError) names the packages to install
    ├── AggregationError
    │   ├── IncompleteExperimentError       carries the completeness report
    │   └── IncompatibleResultsError        (+ ValueError) field and both values
    └── RecorderError                       (+ RuntimeError) a process can't be measured, or a sensor can't be read

A message is one sentence, `what was being done: what was found; what to do`, and the three parts stand in
the attributes `doing`, `found` and `advice`, so that nobody parses text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from llm_energy_measure.domain.experiment import CompletenessReport


class LLMEnergyMeasureError(Exception):
    """Root of all errors of this package.

    Args:
        doing: What was being done, as the start of a sentence: `cannot load raw result exp_7/process_3.json`.
        found: What was found instead of what was needed, with the value.
        advice: What the reader can do about it.
    """

    def __init__(self, doing: str, found: str = "", advice: str = "") -> None:
        """Join the parts into one sentence and keep each of them."""
        self.doing = doing
        self.found = found
        self.advice = advice
        super().__init__(doing + (f": {found}" if found else "") + (f"; {advice}" if advice else ""))


class ConfigurationError(LLMEnergyMeasureError):
    """A wrong argument, id, path or setting."""


class ResultsError(ConfigurationError):
    """Anything about stored results."""


class ResultNotFoundError(ResultsError, FileNotFoundError):
    """A result that was asked for is not there."""


class ResultExistsError(ResultsError, FileExistsError):
    """Different content is already stored for the same process.

    Attributes:
        path: The stored file, untouched.
        kept: Where the refused content was kept, or None if it could not be.
        digests: SHA-256 of the stored and of the refused content, in hexadecimal.
    """

    path: Path | None = None
    kept: Path | None = None
    digests: tuple[str, str] | None = None


class ResultCorruptError(ResultsError, ValueError):
    """A stored result can't be read as what it should be.

    Attributes:
        unreadable: File name to reason, for every file that could not be read.
    """

    unreadable: Mapping[str, str] = {}


class SchemaVersionError(ResultCorruptError):
    """A schema version that is newer than this version knows, or that is no version at all."""


class InvalidResultError(ResultsError, ValueError):
    """A record that was refused when it was saved; nothing of it is lost.

    Attributes:
        kept: The file that holds the refused record, or None if even that could not be written.
        problems: One sentence for each thing that is wrong with it.
    """

    kept: Path | None = None
    problems: tuple[str, ...] = ()


class ExperimentIdError(ResultsError, ValueError):
    """An experiment id that is empty, impossible, not the record's own, or taken by another experiment.

    Attributes:
        kept: The file that holds the refused record where one was being saved, else None.
    """

    kept: Path | None = None


class UnsafePathError(ResultsError, ValueError):
    """A path that leads, or could lead, out of where it has to stay."""


class StorageError(ResultsError, OSError):
    """The file system refused: no space, no permission, not a directory."""


class CatalogueError(ResultsError):
    """The catalogue can't answer; it is derived, and the advice says how to make it anew."""


class ImportFormatError(ResultsError, ValueError):
    """A file that no format recognises, a format that there is none of, or a mapping that is none.

    Attributes:
        file: The file; None where the fault lies in what was asked for.
        line: Line at which a torn file of JSON breaks off, from 1; None if nothing is known to be torn.
        tool: Name of the one format that was asked for; None if any would do.
    """

    file: Path | None = None
    line: int | None = None
    tool: str | None = None


class ExportError(ResultsError, OSError):
    """An export could not be written."""


class MissingExtraError(ResultsError, ImportError):
    """A feature needs a package that is not installed. The advice is a `pip install` command that names the package."""


class AggregationError(LLMEnergyMeasureError):
    """Raw results can't be made into one result."""


class IncompleteExperimentError(AggregationError):
    """Strict aggregation found processes missing.

    Attributes:
        report: What was expected, found, missing and unreadable.
    """

    report: CompletenessReport | None = None


class IncompatibleResultsError(AggregationError, ValueError):
    """Results that don't belong together.

    Attributes:
        field: Name of the field in which they differ.
        values: The two values that differ.
    """

    field: str = ""
    values: tuple[object, object] = (None, None)


class RecorderError(LLMEnergyMeasureError, RuntimeError):
    """A process can't be measured as was asked, or a sensor can't be read."""
