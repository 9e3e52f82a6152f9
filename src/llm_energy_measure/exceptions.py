"""All exceptions that llm-energy-measure raises.

    LLMEnergyMeasureError
    ├── ConfigurationError                  a wrong argument, id, path or setting
    │   └── ResultsError                    anything about stored results
    │       ├── ResultNotFoundError         (+ FileNotFoundError)
    │       ├── ResultExistsError           (+ FileExistsError)
    │       ├── ResultCorruptError          (+ ValueError)
    │       │   ├── SchemaVersionError      the schema version is not supported
    │       │   └── ResultAlteredError      another program changed a value of an aggregate
    │       ├── InvalidResultError          (+ ValueError) a record is invalid; has the path of the kept record
    │       ├── ExperimentIdError           (+ ValueError) an id is invalid, or another experiment uses its folder
    │       ├── UnsafePathError             (+ ValueError) a path leaves its base folder
    │       ├── StorageError                (+ OSError) the file system returned an error
    │       ├── CatalogueError              the catalogue cannot be used
    │       ├── ImportFormatError           (+ ValueError) a file cannot be imported; has its path, line and tool
    │       ├── ExportError                 (+ OSError) an export cannot be written
    │       ├── BundleError                 (+ ValueError) a bundle is unsafe to read; has the code of the reason
    │       └── MissingExtraError           (+ ImportError) a package is not installed
    ├── AggregationError                    raw results cannot be aggregated
    │   ├── IncompleteExperimentError       results of processes are missing; has the CompletenessReport
    │   └── IncompatibleResultsError        (+ ValueError) results differ in a field; has the field and both values
    └── RecorderError                       (+ RuntimeError) a process or a sensor cannot be measured

A message is one line: `what failed: why; what to do`. The attributes `doing`, `found` and `advice` hold these three
parts, so that callers do not parse the text.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class LLMEnergyMeasureError(Exception):
    """Base class of all errors of this package.

    Args:
        doing: What failed, with its name, such as `cannot load raw result exp_7/process_3.json`.
        found: The reason, with the value. May be empty.
        advice: What the user can do. May be empty.
    """

    def __init__(self, doing: str, found: str = "", advice: str = "") -> None:
        """Store the three parts of the message."""
        self.doing = doing
        self.found = found
        self.advice = advice
        super().__init__(str(self))

    def __str__(self) -> str:
        """Return the message: the three parts in one sentence."""
        return self.doing + (f": {self.found}" if self.found else "") + (f"; {self.advice}" if self.advice else "")


class ConfigurationError(LLMEnergyMeasureError):
    """A wrong argument, id, path or setting."""


class ResultsError(ConfigurationError):
    """A stored result cannot be found, read, written or exported."""


class ResultNotFoundError(ResultsError, FileNotFoundError):
    """The requested result or file does not exist."""


class ResultExistsError(ResultsError, FileExistsError):
    """Different content is already stored for the same process.

    Attributes:
        path: The stored file, which is unchanged. None if the error is not about one file.
        kept: File that keeps the refused content. None if the content was not kept.
        digests: SHA-256 of the stored content and SHA-256 of the refused content, in lower-case hexadecimal. None if
            unknown.
    """

    path: Path | None = None
    kept: Path | None = None
    digests: tuple[str, str] | None = None


class ResultCorruptError(ResultsError, ValueError):
    """A stored file is not a valid result.

    Attributes:
        unreadable: Why each file is unreadable, by file name.
    """

    unreadable: Mapping[str, str] = {}


class SchemaVersionError(ResultCorruptError):
    """The schema version of a file is newer than this release supports, or is not a version."""


class ResultAlteredError(ResultCorruptError):
    """The values of an aggregate do not match the digest in its file: another program changed the values.

    `results show` prints the changed values. `results verify` prints the values that it recomputes from the raw files.
    """


class InvalidResultError(ResultsError, ValueError):
    """A record is invalid and was not saved.

    Attributes:
        kept: File that keeps the refused record. None if this file could not be written.
        problems: One sentence for each problem in the record.
    """

    kept: Path | None = None
    problems: tuple[str, ...] = ()


class ExperimentIdError(ResultsError, ValueError):
    """An experiment id is invalid, differs from the id in the record, or shares a folder with another experiment.

    Attributes:
        kept: File that keeps the refused record. None if no record was being saved.
    """

    kept: Path | None = None


class UnsafePathError(ResultsError, ValueError):
    """A path leads out of its base folder, or could lead out of it."""


class StorageError(ResultsError, OSError):
    """The file system returned an error, such as no space, no permission or not a directory."""


class CatalogueError(ResultsError):
    """The catalogue cannot be used. The advice says how to rebuild the catalogue from the results."""


class ImportFormatError(ResultsError, ValueError):
    """No importer recognises the file, the requested format is unknown, or the column mapping is invalid.

    Attributes:
        file: The file. None if the error is in the arguments.
        line: Number of the line, from 1, at which a truncated JSON file ends. None if the file is not truncated.
        tool: Name of the requested format. None if the format was detected automatically.
    """

    file: Path | None = None
    line: int | None = None
    tool: str | None = None


class ExportError(ResultsError, OSError):
    """An export could not be written."""


class BundleError(ResultsError, ValueError):
    """A file is not a bundle, or is unsafe to read. No file was extracted.

    Attributes:
        code: Stable code of the reason, such as `name.parent`.
        name: The file in the bundle. None if the reason is about the whole bundle.
        reason: The reason as a clause.
    """

    code: str = ""
    name: str | None = None
    reason: str = ""


class MissingExtraError(ResultsError, ImportError):
    """A feature needs a package that is not installed. The advice is a `pip install` command that names the package."""


class AggregationError(LLMEnergyMeasureError):
    """Raw results cannot be aggregated."""


class Completeness(Protocol):
    """Expected and found processes of an experiment: a `llm_energy_measure.domain.CompletenessReport`.

    Modules of `domain` import this module, so this module can't import the class itself.
    """

    @property
    def expected_processes(self) -> int:
        """Number of processes that should have a result, at least 0."""

    @property
    def found_processes(self) -> int:
        """Number of expected processes with a readable result, at least 0."""

    @property
    def missing(self) -> list[int]:
        """Expected indices without a readable result, in ascending order."""

    @property
    def unexpected(self) -> list[int]:
        """Indices of results at or above `expected_processes`, in ascending order."""


class IncompleteExperimentError(AggregationError):
    """Strict aggregation found that results of some processes are missing.

    Attributes:
        report: The expected, found, missing and unreadable processes: a `CompletenessReport`.
    """

    report: Completeness | None = None


class IncompatibleResultsError(AggregationError, ValueError):
    """The results belong to different experiments or use different settings.

    Attributes:
        field: Name of the first field that differs.
        values: The two values of this field.
    """

    field: str = ""
    values: tuple[object, object] = (None, None)


class RecorderError(LLMEnergyMeasureError, RuntimeError):
    """A process cannot be measured as requested, or a sensor cannot be read."""
