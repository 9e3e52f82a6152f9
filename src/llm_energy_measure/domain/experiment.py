"""The two records: what one process measured (raw), and what the experiment comes to (aggregated).

Field order is the order in the files. Fields that files of the field don't have are optional, and null where they
are unknown. Long by the descriptions of its fields, which stand nowhere else.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from llm_energy_measure.constants import PROCESS_FILE_PATTERN, SCHEMA_VERSION
from llm_energy_measure.domain.findings import Finding
from llm_energy_measure.domain.latency import LatencyStatistics
from llm_energy_measure.domain.metrics import ComputeMetrics, EnergyMetrics, InferenceMetrics, Phase, Timestamps
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

if TYPE_CHECKING:
    from collections.abc import Mapping

Status = Literal["completed", "failed", "interrupted", "partial"]
"""How a run ended: by itself, by an exception, by a signal; `partial` is a checkpoint of one that may still run."""

UnknownFields = Annotated[
    dict[str, Any] | UnsetType,
    Meta(description="fields this version does not know, by JSON pointer (RFC 6901); written back where they stood"),
]


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
    """Return the SHA-256 of a configuration: of its JSON with sorted keys, in lower-case hexadecimal."""
    return hashlib.sha256(msgspec.json.encode(config, order="deterministic")).hexdigest()


class ClockEvidence(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Readings of clocks at both ends, from which jumps of one can be told, and how far those of hosts are apart.

    Hosts have no clock in common but that of the store, which stamps the files of all of them.

    Attributes:
        boot_id: Identity of the boot that the monotonic clock counts from; None if unknown.
        wall_start_sec: Wall clock at the start, in seconds since 1970-01-01 UTC.
        monotonic_start_sec: Monotonic clock at the same instant, in seconds.
        wall_end_sec: Wall clock at the end, in seconds since 1970-01-01 UTC.
        monotonic_end_sec: Monotonic clock at the same instant, in seconds.
        store_id: Which store it was recorded in: only clocks that were read beside one store's can be compared.
        store_start_sec: The store's clock at the same instant as `wall_start_sec`, in seconds since 1970-01-01 UTC;
            None if it has none that is known to be the same for all hosts.
        store_end_sec: The store's clock at the same instant as `wall_end_sec`.
        store_error_sec: How far the two may be wrong, in seconds: for as long as the reading took, and by its tick.
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
    """What started the process, as the launcher told it.

    Attributes:
        name: `torchrun`, `slurm`, `mpi`, `environment` (rank and size were set by somebody else), or None if nothing
            did.
        job_id: Job of the launcher, such as SLURM_JOB_ID.
        step_id: Step of the job.
        node: Name or number of the node in the job.
        local_rank: Index of the process on its node.
        attempt: How often the job was started before, 0 for the first time.
    """

    name: str | None = None
    job_id: str | None = None
    step_id: str | None = None
    node: str | None = None
    local_rank: Count | None = None
    attempt: Count | None = None


class ImportOrigin(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where an imported record came from.

    Attributes:
        tool: Tool that wrote the original.
        version: Version of that tool; None if unknown.
        file: Name of the original file.
        sha256: Digest of the original file.
        row: Row of the original, counted from 1, where it is a table.
    """

    tool: str
    version: str | None = None
    file: str | None = None
    sha256: Sha256 | None = None
    row: Count | None = None


class SourceFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A raw file that an aggregate was made from.

    Attributes:
        name: File name inside the experiment's folder.
        size_bytes: Its size.
        sha256: Digest of its bytes.
    """

    name: str
    size_bytes: Count
    sha256: Sha256


class UnreadableFile(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A raw file that stands where a result should, and can't be read as one.

    Attributes:
        name: File name inside the experiment's folder.
        reason: Why it can't be read, for a person.
        size_bytes: Its size; None if not even that could be read.
        sha256: Digest of its bytes; None if they could not be read.
    """

    name: str
    reason: str
    size_bytes: Count | None = None
    sha256: Sha256 | None = None


class StoredBytes(Struct, frozen=True, kw_only=True):
    """The very bytes that a record was read from, and their identity."""

    source: SourceFile
    data: bytes


class RawProcessResult(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """What one process measured. The source of truth: aggregates can be made again from it, it can't.

    Nothing is checked when a record is built; everything is when it is saved.

    Attributes:
        schema_version: Version of the format.
        experiment_id: The experiment's own id, unsanitised.
        backend: Inference library, such as `pytorch`.
        backend_version: Its version.
        process_index: Rank of the process, from 0.
        gpu_id: Index of its GPU on its host; None if it has none or that is unknown.
        gpu_name: Model of the board.
        gpu_is_mig: Whether the GPU is a MIG slice.
        gpu_mig_profile: Profile of the slice.
        energy_measurement_warning: What the measuring tool had to say about the energy.
        config_name: Name of the configuration; None where an imported file has none.
        model_name: Name of the model; None where an imported file does not tell it.
        timestamps: When the process ran.
        inference_metrics: Its work; None if it counted no tokens of its own (a tensor-parallel rank above 0).
        energy_metrics: Its energy.
        compute_metrics: Its computation; None if unknown.
        effective_config: The configuration that was in force.
        cli_overrides: What of it came from the command line.
        config_warnings: What the configuration was warned about.
        world_size: Number of processes of the experiment, as this process knew it.
        host: Name of its machine.
        gpu_uuid: UUID of its GPU.
        gpu_power_limit_w: Power limit of its GPU, in watts.
        clock: Clock readings at start and end.
        launcher: What started it.
        origin: Where it was imported from.
        status: How the run of the process ended; None in files that don't say, which is as good as `completed`.
        error_type: Type of the exception or name of the signal that ended it.
        library_versions: Versions of the libraries that did the work, by name; None if unknown.
        phases: Parts of the run, with the energy of each; None if it had none.
        unknown_fields: Fields of its file that this version does not know; unset if there are none.
    """

    schema_version: str = SCHEMA_VERSION
    experiment_id: str
    backend: str | None = None
    backend_version: str | None = None
    process_index: Annotated[ProcessIndex, Meta(description="rank of the process, from 0")]
    gpu_id: Annotated[int | None, Meta(description="index of the GPU on its host; null if unknown")]
    gpu_name: str | None = None
    gpu_is_mig: bool | None = None
    gpu_mig_profile: str | None = None
    energy_measurement_warning: str | None = None
    config_name: Annotated[str | None, Meta(description="name of the configuration; null if unknown")]
    model_name: Annotated[str | None, Meta(description="name of the model; null if unknown")]
    timestamps: Timestamps
    inference_metrics: InferenceMetrics | None
    energy_metrics: EnergyMetrics
    compute_metrics: ComputeMetrics | None
    effective_config: dict[str, Any] = field(default_factory=dict)
    cli_overrides: dict[str, Any] = field(default_factory=dict)
    config_warnings: list[str] = field(default_factory=list)
    world_size: Annotated[ProcessCount | None, Meta(description="number of processes of the experiment")] = None
    host: str | None = None
    gpu_uuid: str | None = None
    gpu_power_limit_w: Annotated[Watts | None, Meta(description="power limit of the GPU, in W")] = None
    clock: ClockEvidence | None = None
    launcher: Launcher | None = None
    origin: ImportOrigin | None = None
    status: Status | None = None
    error_type: str | None = None
    library_versions: dict[str, str] | None = None
    phases: Annotated[list[Phase] | None, Meta(description="parts of the run")] = None
    unknown_fields: UnknownFields = UNSET

    @property
    def stored(self) -> StoredBytes | None:
        """The file that this record was read from, if it came from a store.

        It is no part of the record: not compared, not written, and gone from a copy with changes.
        """
        stored: StoredBytes | None = self.__dict__.get("_stored")
        return stored

    def with_stored(self, stored: StoredBytes) -> RawProcessResult:
        """This record, told which bytes it was read from. For decoders."""
        self.__dict__["_stored"] = stored
        return self


class Manifest(Struct, frozen=True, kw_only=True):
    """What every process of an experiment knows alike before it starts.

    Attributes:
        experiment_id: The exact id, which pins the folder to it.
        expected_processes: Number of processes; None if unknown.
        launcher: The launcher's job.
        config_digest: Digest of the configuration.
        attempt: How often the experiment was started before.
        schema_version: Version of the format.
    """

    experiment_id: str
    expected_processes: ProcessCount | None = None
    launcher: Launcher | None = None
    config_digest: str | None = None
    attempt: Count = 0
    schema_version: str = SCHEMA_VERSION

    def difference(self, other: Manifest) -> tuple[str, object, object] | None:
        """The first fact that tells two runs of one id apart, with both values; what is unknown differs from nothing.

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
        """True if another manifest of the same run has no fact that this one lacks."""
        lacks_job = self.launcher is None or self.launcher.job_id is None
        return not (
            (self.expected_processes is None and other.expected_processes is not None)
            or (self.config_digest is None and other.config_digest is not None)
            or (lacks_job and other.launcher is not None and other.launcher.job_id is not None)
        )


class CompletenessReport(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How much of an experiment is there.

    Attributes:
        expected_processes: Number of processes that should have written a result.
        expected_from: Who says so: `argument`, `manifest`, `world_size`, `effective_config.num_processes` or
            `highest index`.
        found_processes: Number of readable results that were expected.
        missing: Indices without a readable result, in order.
        unexpected: Indices at or beyond the expected number, in order.
        unreadable: Files that stand there and can't be read.
    """

    expected_processes: Count
    expected_from: str
    found_processes: Count
    missing: list[int] = field(default_factory=list)
    unexpected: list[int] = field(default_factory=list)
    unreadable: list[UnreadableFile] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """True if every expected process has a readable result."""
        return not self.missing

    @property
    def coverage(self) -> float | None:
        """Fraction of the expected processes that were found, 0 to 1."""
        return ratio(self.found_processes, self.expected_processes)


class AggregationMetadata(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How an aggregate was made, and what was checked.

    Attributes:
        method: Name of the strategy.
        num_processes: Number of results that went in.
        temporal_overlap_verified: True only if all processes are known to have run at one common instant
            (`time.no_overlap` passed).
        gpu_attribution_verified: True only if every GPU is known and none is counted twice: the checks of that passed.
        warnings: What a reader has to know, a sentence each.
    """

    method: str
    num_processes: Count
    temporal_overlap_verified: bool = False
    gpu_attribution_verified: bool = False
    warnings: list[str] = field(default_factory=list)


class AggregatedResult(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an experiment comes to, over all its processes. Derived: it can be made again from the raw results.

    Attributes:
        schema_version: Version of the format.
        experiment_id: The experiment's own id.
        backend: Inference library.
        backend_version: Its version.
        model_name: The model; None in aggregates of other tools, where it stands in the processes.
        aggregation: How it was made.
        total_tokens: Tokens of all processes; None if none counted any.
        total_energy_j: Energy as the strategy makes it, by default the plain sum over processes, in joules; None if no
            process knows it.
        total_inference_time_sec: Sum of the inference times, in seconds of process time.
        avg_tokens_per_second: Mean throughput of the processes that report one.
        avg_energy_per_token_j: Total energy over total tokens, in joules; None if that can't be formed.
        total_flops: Floating-point operations of all processes; None if none knows them.
        process_results: The raw records.
        start_time: Earliest start; None if it can't be told.
        end_time: Latest known end; None if it can't be told.
        effective_config: Configuration of the first process.
        cli_overrides: Overrides of the first process.
        config_warnings: Warnings of all processes, each once.
        latency_stats: Latency over all requests; None without samples.
        is_lower_bound: True if a process or an energy is missing, so that the sums are too small; None in
            aggregates of other tools, which don't say.
        completeness: What was expected and what was found; None in aggregates of other tools.
        sources: The raw files it was made from, in the order of `process_results`; None in aggregates of other tools.
        plain_energy_j: Plain sum of the energy of all processes, in joules, whatever the strategy made the total. Like
            the fields below it, None in aggregates of other tools and in those of before verification.
        attributed_energy_j: Energy with every joule counted once, in joules, beside the plain sum and never above it;
            None if no process knows its energy.
        attributed_bounds_j: Least and greatest energy that the evidence allows, in joules.
        attribution_factor: How often the plain sum counts the attributed energy; 1 if each joule once.
        attribution_rule: The rule that attributed, as `name@version`.
        attributed_gpu_energy_j: Of it the energy of the GPUs, in joules; None if no process knows it.
        attributed_cpu_energy_j: Of it the energy of the CPUs, in joules.
        attributed_ram_energy_j: Of it the energy of the memory, in joules.
        findings: What verification found when the aggregate was made, the checks that passed left out; a cache, which
            `results verify` recomputes.
        unknown_fields: Fields of its file that this version does not know; unset if there are none.
    """

    schema_version: str = SCHEMA_VERSION
    experiment_id: str
    backend: str | None = None
    backend_version: str | None = None
    model_name: str | None = None
    aggregation: AggregationMetadata
    total_tokens: Annotated[Tokens | None, Meta(description="tokens of all processes")]
    total_energy_j: Annotated[Joules | None, Meta(description="energy of the experiment by its strategy, in J")]
    total_inference_time_sec: Annotated[Seconds | None, Meta(description="sum of inference times, in s")] = None
    avg_tokens_per_second: Annotated[TokensPerSecond | None, Meta(description="mean throughput of a process")] = None
    avg_energy_per_token_j: Annotated[JoulesPerToken | None, Meta(description="energy per token, in J")] = None
    total_flops: Annotated[Flops | None, Meta(description="floating-point operations of all processes")] = None
    process_results: list[RawProcessResult] = field(default_factory=list)
    start_time: Annotated[datetime | None, Meta(description="earliest start")] = None
    end_time: Annotated[datetime | None, Meta(description="latest known end")] = None
    effective_config: dict[str, Any] = field(default_factory=dict)
    cli_overrides: dict[str, Any] = field(default_factory=dict)
    config_warnings: list[str] = field(default_factory=list)
    latency_stats: LatencyStatistics | None = None
    is_lower_bound: bool | None = None
    completeness: CompletenessReport | None = None
    sources: list[SourceFile] | None = None
    plain_energy_j: Annotated[Joules | None, Meta(description="plain sum of the energy of all processes, in J")] = None
    attributed_energy_j: Annotated[Joules | None, Meta(description="energy with every joule counted once, in J")] = None
    attributed_bounds_j: Annotated[
        tuple[Joules, Joules] | None, Meta(description="least and greatest energy that the evidence allows, in J")
    ] = None
    attribution_factor: Annotated[
        Factor | None, Meta(description="how often the plain sum counts the attributed energy")
    ] = None
    attribution_rule: Annotated[str | None, Meta(description="the rule that attributed, as name@version")] = None
    attributed_gpu_energy_j: Annotated[Joules | None, Meta(description="of it the GPUs, in J")] = None
    attributed_cpu_energy_j: Annotated[Joules | None, Meta(description="of it the CPUs, in J")] = None
    attributed_ram_energy_j: Annotated[Joules | None, Meta(description="of it the memory, in J")] = None
    findings: Annotated[list[Finding] | None, Meta(description="what verification found")] = None
    unknown_fields: UnknownFields = UNSET

    @property
    def duration_sec(self) -> float | None:
        """Wall time from the earliest start to the latest end, in seconds; None if either is unknown."""
        if self.start_time is None or self.end_time is None:
            return None
        if (self.start_time.tzinfo is None) != (self.end_time.tzinfo is None):
            return None
        return (self.end_time - self.start_time).total_seconds()

    @property
    def tokens_per_joule(self) -> float | None:
        """Tokens per joule of the total energy; None if that can't be formed."""
        return ratio(self.total_tokens, self.total_energy_j)

    @property
    def failed_codes(self) -> list[str]:
        """Codes of the checks that failed when it was made, each once."""
        failures = (finding.code for finding in self.findings or () if finding.outcome == "failed")
        return list(dict.fromkeys(failures))
