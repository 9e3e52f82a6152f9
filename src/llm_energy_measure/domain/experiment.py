"""The two stored records: the raw result of one process, and the aggregated result of an experiment.

The order of the fields is the order in the files. Fields that older files do not contain are optional.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Literal, Self

import msgspec
from msgspec import UNSET, Struct, UnsetType, field

from llm_energy_measure.constants import DEFAULT_STRATEGY, PROCESS_FILE_PATTERN, SCHEMA_VERSION
from llm_energy_measure.domain.assumptions import Assumptions
from llm_energy_measure.domain.environment import Environment
from llm_energy_measure.domain.findings import SEVERITIES, Finding, Severity
from llm_energy_measure.domain.latency import LatencyStatistics
from llm_energy_measure.domain.metrics import ComputeMetrics, EnergyMetrics, InferenceMetrics, Phase, Timestamps
from llm_energy_measure.domain.record import Record
from llm_energy_measure.domain.run_values import RunValues
from llm_energy_measure.domain.units import (
    Count,
    Factor,
    Flops,
    Joules,
    JoulesPerToken,
    ProcessCount,
    ProcessIndex,
    Seconds,
    Sha256,
    Tokens,
    TokensPerSecond,
    Watts,
    ratio,
)

Status = Literal["completed", "failed", "interrupted", "partial"]
"""How a run ended: normally, with an exception, or by a signal. `partial` is a checkpoint of an unfinished run."""

AttributionStatus = Literal["exact", "estimated", "undetermined"]
"""How precisely the attributed energy is known. `exact`: recorded facts determine it. `estimated`: one energy is given,
and `attribution_basis` names the reasons. `undetermined`: no energy is known, at most bounds."""

Integrity = Literal["sealed", "unsealed", "altered"]
"""Whether a stored aggregate agrees with the digest in its file; `unsealed` if the file has no digest."""

UnknownFields = dict[str, Any] | UnsetType


_PROCESS_FILE = re.compile(PROCESS_FILE_PATTERN)


@lru_cache(maxsize=4096)
def process_index_of(name: str) -> int | None:
    """Return the process index in the name of a raw file, or None if the name is not that of a raw result.

    Example:
        >>> process_index_of("process_12.json"), process_index_of("process_x.json"), process_index_of("process_07.json")
        (12, None, None)
    """
    match = _PROCESS_FILE.fullmatch(name)
    return int(match[1]) if match else None


def config_digest(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the JSON of a configuration with sorted keys, in lower-case hexadecimal."""
    return hashlib.sha256(msgspec.json.encode(config, order="deterministic")).hexdigest()


class ClockEvidence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Clock readings at the start and the end of a run, which show clock jumps and offsets between hosts.

    The only clock that all hosts share is the clock of the store, which sets the mtime of their files. None means
    unknown. All times are in seconds; wall and store clocks count from 1970-01-01 UTC.

    Attributes:
        boot_id: Id of the boot from which the monotonic clock counts.
        wall_start_sec: Wall clock at the start.
        monotonic_start_sec: Monotonic clock at the start.
        wall_end_sec: Wall clock at the end.
        monotonic_end_sec: Monotonic clock at the end.
        store_id: Id of the store whose clock was read. Only readings of one store can be compared.
        store_start_sec: Clock of the store at the start. None if hosts may see different clocks.
        store_end_sec: Clock of the store at the end. None if hosts may see different clocks.
        store_error_sec: Greater error of the two store readings, in seconds, at least 0. The error of a reading is half
            of the sum of its duration and the resolution of the clock.
    """

    boot_id: str | None = None
    wall_start_sec: float | None = None
    monotonic_start_sec: float | None = None
    wall_end_sec: float | None = None
    monotonic_end_sec: float | None = None
    store_id: str | None = None
    store_start_sec: float | None = None
    store_end_sec: float | None = None
    store_error_sec: Seconds | None = None


class Launcher(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The launcher that started the process, as its environment variables describe it. None means unknown.

    Attributes:
        name: `torchrun`, `slurm`, `mpi`, `flux`, `ray`, or `environment` if another program set rank and size. None
            without a launcher.
        job_id: Id of the job, such as SLURM_JOB_ID.
        step_id: Id of the step of the job.
        node: Name or number of the node in the job.
        local_rank: Index of the process on its node, from 0.
        attempt: Number of earlier starts of the job, at least 0.
    """

    name: str | None = None
    job_id: str | None = None
    step_id: str | None = None
    node: str | None = None
    local_rank: Count | None = None
    attempt: Count | None = None


class ImportOrigin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Origin of a record that was imported, or that a merge renamed.

    Attributes:
        tool: Tool that wrote the source file. `llm-energy-measure` for a record that was only renamed.
        version: Version of the tool. None if unknown.
        file: Name of the source file. None if unknown.
        sha256: SHA-256 of the source file, in lower-case hexadecimal. None if unknown.
        row: Row of the record in a table, from 1. None if the source file is not a table.
        experiment_id: Id before a merge renamed the experiment. UNSET if it was not renamed.
    """

    tool: str
    version: str | None = None
    file: str | None = None
    sha256: Sha256 | None = None
    row: Count | None = None
    experiment_id: str | UnsetType = UNSET


class SourceFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Identity of a raw file from which an aggregate was computed.

    Attributes:
        name: File name in the folder of the experiment.
        size_bytes: Size in bytes, at least 0.
        sha256: SHA-256 of the bytes, in lower-case hexadecimal.
    """

    name: str
    size_bytes: Count
    sha256: Sha256


class UnreadableFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A raw file that is not a readable result.

    Attributes:
        name: File name in the folder of the experiment.
        reason: Why the file cannot be read, as a sentence for a person.
        size_bytes: Size in bytes, at least 0. None if unknown.
        sha256: SHA-256 of the bytes, in lower-case hexadecimal. None if the bytes could not be read.
    """

    name: str
    reason: str
    size_bytes: Count | None = None
    sha256: Sha256 | None = None


class StoredBytes(Struct, frozen=True, kw_only=True):
    """The bytes from which a record was decoded, and their identity."""

    source: SourceFile
    data: bytes


class RawProcessResult(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Raw result of one process. Aggregates are computed from raw results and can be recomputed.

    The constructor checks only the names of the fields, and its error names all missing fields. Saving a record checks
    all values. None means unknown, unless an attribute states another meaning.

    Attributes:
        schema_version: Version of the file format.
        experiment_id: Id of the experiment, before characters are replaced for the folder name.
        backend: Inference library, such as `pytorch`.
        backend_version: Version of the inference library.
        process_index: Rank of the process, from 0.
        gpu_id: Index of the GPU on its host. None if unknown or if the process has no GPU.
        gpu_name: Model name of the GPU board.
        gpu_is_mig: True if the GPU is a MIG slice.
        gpu_mig_profile: Profile of the MIG slice.
        energy_measurement_warning: Warning of the measuring tool about the energy.
        config_name: Name of the configuration.
        model_name: Name of the model.
        timestamps: Time span of the run.
        inference_metrics: Tokens and throughput. None if the process counted no tokens, as in tensor-parallel ranks
            above 0.
        energy_metrics: Energy of the process.
        compute_metrics: Floating-point operations and memory of the process.
        effective_config: Configuration of the run.
        cli_overrides: Parts of the configuration that the command line set.
        config_warnings: Warnings about the configuration.
        world_size: Number of processes of the experiment in the configuration of this process, at least 1.
        host: Name of the machine.
        gpu_uuid: UUID of the GPU.
        gpu_power_limit_w: Power limit of the GPU, in watts, at least 0.
        clock: Clock readings at the start and the end.
        launcher: Launcher that started the process.
        origin: Source file of an imported record. None if the record was not imported.
        status: How the run ended. None means `completed`.
        error_type: Type of the exception, or name of the signal, that ended the run. None if there was none.
        library_versions: Versions of the libraries that did the work, by name.
        phases: Parts of the run with their energy. None if the run has no phases.
        recording_environment: Software and machine of the process. UNSET if unknown.
        unknown_fields: Fields of the file that this release does not know. UNSET if there are none.
    """

    schema_version: str = SCHEMA_VERSION
    experiment_id: str
    backend: str | None = None
    backend_version: str | None = None
    process_index: ProcessIndex
    gpu_id: int | None
    gpu_name: str | None = None
    gpu_is_mig: bool | None = None
    gpu_mig_profile: str | None = None
    energy_measurement_warning: str | None = None
    config_name: str | None
    model_name: str | None
    timestamps: Timestamps
    inference_metrics: InferenceMetrics | None
    energy_metrics: EnergyMetrics
    compute_metrics: ComputeMetrics | None
    effective_config: dict[str, Any] = field(default_factory=dict)
    cli_overrides: dict[str, Any] = field(default_factory=dict)
    config_warnings: list[str] = field(default_factory=list)
    world_size: ProcessCount | None = None
    host: str | None = None
    gpu_uuid: str | None = None
    gpu_power_limit_w: Watts | None = None
    clock: ClockEvidence | None = None
    launcher: Launcher | None = None
    origin: ImportOrigin | None = None
    status: Status | None = None
    error_type: str | None = None
    library_versions: dict[str, str] | None = None
    phases: list[Phase] | None = None
    recording_environment: Environment | UnsetType = UNSET
    unknown_fields: UnknownFields = UNSET

    @classmethod
    def of(
        cls,
        experiment_id: str,
        process_index: int = 0,
        *,
        start: datetime | str | float | None = None,
        end: datetime | str | float | None = None,
        duration_sec: float | None = None,
        energy_j: float | None = None,
        gpu_energy_j: float | None = None,
        cpu_energy_j: float | None = None,
        ram_energy_j: float | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        inference_time_sec: float | None = None,
        config: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Self:
        """Return a record with these values. Totals, durations and rates are computed from the arguments.

        Args:
            experiment_id: Id of the experiment.
            process_index: Rank of the process, from 0.
            start: Start of the run; see `Timestamps.from_times`.
            end: End of the run.
            duration_sec: Duration of the run in seconds. [default: from start to end]
            energy_j: Total energy in joules. Without it, the sum of the energies of components is a lower bound.
            gpu_energy_j: Energy of the GPU in joules.
            cpu_energy_j: Energy of the CPU in joules.
            ram_energy_j: Energy of the memory in joules.
            input_tokens: Number of prompt tokens.
            output_tokens: Number of generated tokens.
            inference_time_sec: Time in inference in seconds. [default: the duration]
            config: Configuration of the run (`effective_config`).
            fields: Other fields of the record, such as `model_name`, `host` or `world_size`.

        Raises:
            ConfigurationError: Values are missing (the message names all of them), or a name in `fields` is no field.

        Example:
            >>> RawProcessResult.of("exp_7", start=0.0, end=10.0, energy_j=50.0).timestamps.duration_sec
            10.0
        """
        values = RunValues(
            start=start,
            end=end,
            duration_sec=duration_sec,
            energy_j=energy_j,
            components_j={"gpu_energy_j": gpu_energy_j, "cpu_energy_j": cpu_energy_j, "ram_energy_j": ram_energy_j},
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            inference_time_sec=inference_time_sec,
        )
        values.require_complete(experiment_id, fields, cls.__struct_fields__)
        parts = {"effective_config": dict(config or {}), "process_index": process_index, **values.parts(), **fields}
        return cls(experiment_id=experiment_id, **parts)

    def __repr__(self) -> str:
        energy, inference = self.energy_metrics, self.inference_metrics
        tokens = None if inference is None else inference.total_tokens
        named = f"{self.experiment_id!r}, process_index={self.process_index}"
        return f"{type(self).__name__}({named}, total_energy_j={energy.total_energy_j}, total_tokens={tokens})"

    @property
    def stored(self) -> StoredBytes | None:
        """The bytes from which this record was decoded. None if it was not read from a file.

        These bytes are not part of the record: comparison, encoding and `msgspec.structs.replace` ignore them.
        """
        stored: StoredBytes | None = self.__dict__.get("_stored")
        return stored

    def attach_stored(self, stored: StoredBytes) -> RawProcessResult:
        """Set `stored` and return this record. Only decoders call this method."""
        self.__dict__["_stored"] = stored
        return self


class Manifest(Record, frozen=True, kw_only=True):
    """Facts about an experiment that all its processes know before they start. None means unknown.

    Attributes:
        experiment_id: Exact id of the experiment that owns the folder.
        expected_processes: Number of processes, at least 1.
        launcher: Launcher and its job.
        config_digest: Digest of the configuration.
        attempt: Number of earlier starts of the experiment, at least 0.
        schema_version: Version of the file format.
    """

    experiment_id: str
    expected_processes: ProcessCount | None = None
    launcher: Launcher | None = None
    config_digest: str | None = None
    attempt: Count = 0
    schema_version: str = SCHEMA_VERSION

    def difference(self, other: Manifest) -> tuple[str, object, object] | None:
        """Return name and both values of the first fact that differs, or None. Unknown facts are not compared.

        Example:
            >>> Manifest(experiment_id="e", expected_processes=4).difference(Manifest(experiment_id="e", attempt=1))
            ('attempt', 0, 1)
        """
        job, other_job = (manifest.launcher.job_id if manifest.launcher else None for manifest in (self, other))
        facts = (
            ("attempt", self.attempt, other.attempt),
            ("launcher job", job, other_job),
            ("expected_processes", self.expected_processes, other.expected_processes),
            ("config_digest", self.config_digest, other.config_digest),
        )
        known = (fact for fact in facts if None not in fact)
        return next((fact for fact in known if fact[1] != fact[2]), None)

    def includes(self, other: Manifest) -> bool:
        """Return True if this manifest knows all facts that `other`, a manifest of the same run, knows."""
        lacks_job = self.launcher is None or self.launcher.job_id is None
        return not (
            (self.expected_processes is None and other.expected_processes is not None)
            or (self.config_digest is None and other.config_digest is not None)
            or (lacks_job and other.launcher is not None and other.launcher.job_id is not None)
        )


class CompletenessReport(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Expected and found processes of an experiment.

    Attributes:
        expected_processes: Number of processes that should have a result, at least 0.
        expected_from: Source of `expected_processes`: `argument`, `manifest`, `world_size`,
            `effective_config.num_processes` or `highest index`.
        found_processes: Number of expected processes with a readable result, at least 0.
        missing: Expected indices without a readable result, in ascending order.
        unexpected: Indices of results at or above `expected_processes`, in ascending order.
        unreadable: Raw files that cannot be read.
    """

    expected_processes: Count
    expected_from: str
    found_processes: Count
    missing: list[int] = field(default_factory=list)
    unexpected: list[int] = field(default_factory=list)
    unreadable: list[UnreadableFile] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """True if all expected processes have a readable result."""
        return not self.missing

    @property
    def coverage(self) -> float | None:
        """Fraction of expected processes with a readable result, 0 to 1. None if no process is expected."""
        return ratio(self.found_processes, self.expected_processes)


class AggregationMetadata(Record, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Method and checks of an aggregate.

    Attributes:
        method: Name of the aggregation strategy. [default: the strategy that the format's own tool uses]
        num_processes: Number of aggregated results, at least 0.
        temporal_overlap_verified: True if the processes ran concurrently: in the order of starts, each overlaps with
            the next by at least half of the shorter run. False for one process.
        gpu_attribution_verified: True if each process names its GPU, the GPUs of a host are distinct among processes
            that overlap in time, and no check proves that a joule was counted twice.
        warnings: Warnings for the reader, one sentence each.
    """

    method: str = DEFAULT_STRATEGY
    num_processes: Count
    temporal_overlap_verified: bool = False
    gpu_attribution_verified: bool = False
    warnings: list[str] = field(default_factory=list)


class AggregatedSummary(Record, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """Aggregated result of an experiment without the raw records. It can be recomputed from the raw results.

    Functions that need no raw records have arguments of this type, so that mypy reports a use of the raw records.
    Numbers are at least 0; None means unknown. Aggregates of other tools have no `model_name` (the raw records have it)
    and none of the fields from `is_lower_bound` to `findings`. Older aggregates lack all fields after `sources`.

    Attributes:
        schema_version: Version of the file format.
        experiment_id: Id of the experiment.
        backend: Inference library.
        backend_version: Version of the inference library.
        model_name: Name of the model.
        aggregation: Method and checks of this aggregate.
        total_tokens: Number of tokens of all processes.
        total_energy_j: Energy of the experiment by its strategy, in joules. By default, the plain sum over processes.
        total_inference_time_sec: Sum of the inference times of all processes, in seconds.
        avg_tokens_per_second: Mean of the known throughputs of the processes, in tokens per second.
        avg_energy_per_token_j: `total_energy_j / total_tokens`, in joules per token.
        total_flops: Number of floating-point operations of all processes.
        start_time: Earliest start.
        end_time: Latest known end.
        effective_config: Configuration of the first process.
        cli_overrides: Command line overrides of the first process.
        config_warnings: Distinct warnings of all processes.
        latency_stats: Latency over all requests. None without samples.
        is_lower_bound: True if a process or an energy value is missing, so that the sums are too low.
        completeness: Expected and found processes.
        sources: Identities of the raw files, in the order of `process_results`.
        plain_energy_j: Plain sum of the energy over all processes, in joules, independent of the strategy.
        partial_energy_j: Lower bound of the energy, in joules, if a process has energies of components but no total.
            This is the sum of all totals, and of the components of processes without a total. None in all other cases.
        attributed_energy_j: Energy with each joule counted once, in joules. At most `plain_energy_j`.
        attributed_bounds_j: Least and greatest attributed energy that the evidence allows, in joules.
        attribution_factor: `plain_energy_j / attributed_energy_j`, at least 1. It is 1 if no joule is counted twice.
        attribution_rule: Rule that computed the attributed energy, as `name@version`.
        attribution_status: How precisely the attributed energy is known: `exact`, `estimated` or `undetermined`.
        attribution_basis: Reasons for an estimated energy, such as `tool_scope`. `assumed` also marks undetermined
            bounds that may follow from `assumptions`. Empty in all other cases.
        attributed_gpu_energy_j: Attributed energy of the GPUs, in joules.
        attributed_cpu_energy_j: Attributed energy of the CPUs, in joules.
        attributed_ram_energy_j: Attributed energy of the memory, in joules.
        assumptions: Facts that the user stated with `--assume`. UNSET if the user stated none.
        findings: Findings at the time of aggregation, without passed checks. `results verify` recomputes them.
        unknown_fields: Fields of the file that this release does not know. UNSET if there are none.
    """

    schema_version: str = SCHEMA_VERSION
    experiment_id: str
    backend: str | None = None
    backend_version: str | None = None
    model_name: str | None = None
    aggregation: AggregationMetadata
    total_tokens: Tokens | None
    total_energy_j: Joules | None
    total_inference_time_sec: Seconds | None = None
    avg_tokens_per_second: TokensPerSecond | None = None
    avg_energy_per_token_j: JoulesPerToken | None = None
    total_flops: Flops | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    effective_config: dict[str, Any] = field(default_factory=dict)
    cli_overrides: dict[str, Any] = field(default_factory=dict)
    config_warnings: list[str] = field(default_factory=list)
    latency_stats: LatencyStatistics | None = None
    is_lower_bound: bool | None = None
    completeness: CompletenessReport | None = None
    sources: list[SourceFile] | None = None
    plain_energy_j: Joules | None = None
    partial_energy_j: Joules | None = None
    attributed_energy_j: Joules | None = None
    attributed_bounds_j: tuple[Joules, Joules] | None = None
    attribution_factor: Factor | None = None
    attribution_rule: str | None = None
    attribution_status: AttributionStatus | None = None
    attribution_basis: list[str] | None = None
    attributed_gpu_energy_j: Joules | None = None
    attributed_cpu_energy_j: Joules | None = None
    attributed_ram_energy_j: Joules | None = None
    assumptions: Assumptions | UnsetType = UNSET
    findings: list[Finding] | None = None
    unknown_fields: UnknownFields = UNSET

    def __repr__(self) -> str:
        found = f"processes={self.aggregation.num_processes}, total_energy_j={self.total_energy_j}"
        return f"{type(self).__name__}({self.experiment_id!r}, {found}, total_tokens={self.total_tokens})"

    @property
    def integrity(self) -> Integrity | None:
        """Whether the file of this aggregate has the values that were saved. None if it was not read from a file.

        The integrity is not part of the record: comparison, encoding and `msgspec.structs.replace` ignore it.
        """
        integrity: Integrity | None = self.__dict__.get("_integrity")
        return integrity

    def attach_integrity(self, integrity: Integrity | None) -> Self:
        """Set `integrity` and return this record. Only decoders call this method."""
        self.__dict__["_integrity"] = integrity
        return self

    @property
    def duration_sec(self) -> float | None:
        """Seconds from the earliest start to the latest end. None if one is unknown or only one has a UTC offset."""
        if self.start_time is None or self.end_time is None:
            return None
        if (self.start_time.tzinfo is None) != (self.end_time.tzinfo is None):
            return None
        return (self.end_time - self.start_time).total_seconds()

    @property
    def tokens_per_joule(self) -> float | None:
        """`total_tokens / total_energy_j`. None if one of them is unknown or if the energy is 0."""
        return ratio(self.total_tokens, self.total_energy_j)

    @property
    def attributed_tokens_per_joule(self) -> float | None:
        """`total_tokens / attributed_energy_j`. None if one of them is unknown, or if the energy is 0."""
        return ratio(self.total_tokens, self.attributed_energy_j)

    @property
    def attributed_joules_per_token(self) -> float | None:
        """`attributed_energy_j / total_tokens`. None if one of them is unknown, or if `total_tokens` is 0."""
        return ratio(self.attributed_energy_j, self.total_tokens)

    @property
    def failed_codes(self) -> list[str]:
        """Distinct codes of the checks that failed at the time of aggregation, of any severity."""
        return self.codes_of(*SEVERITIES)

    @property
    def warning_codes(self) -> list[str]:
        """Distinct codes of the reported findings with severity `warning`, at the time of aggregation."""
        found = (one.code for one in self.findings or () if one.is_reported and one.severity == "warning")
        return list(dict.fromkeys(found))

    def codes_of(self, *severities: Severity) -> list[str]:
        """Return the distinct codes of the failed checks with one of these severities."""
        return list(dict.fromkeys(finding.code for finding in self.findings or () if finding.problem in severities))


class AggregatedResult(AggregatedSummary, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The result of one experiment, over all its processes.

    Attributes:
        process_results: The raw records, by process index.
    """

    process_results: list[RawProcessResult] = field(default_factory=list)


class AggregatedFile(AggregatedResult, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The result of one experiment, with the digests that its file contains.

    Attributes:
        values_sha256: Digest of the values of all other fields except `process_results`. UNSET in older files.
        processes_sha256: Digest of the values of `process_results`. UNSET in older files.
    """

    values_sha256: Sha256 | UnsetType = UNSET
    processes_sha256: Sha256 | UnsetType = UNSET


def summary_of(record: AggregatedSummary) -> AggregatedSummary:
    """Return a copy of a record that has only the fields of `AggregatedSummary`, and the `integrity` of the record."""
    summary = AggregatedSummary(**{name: getattr(record, name) for name in AggregatedSummary.__struct_fields__})
    return summary.attach_integrity(record.integrity)
