"""The registry of all checks: what each finding code means, when the check fails, and what a user can do.

To add a check, add one entry here, and to the module of its family a function whose finding the function `check_...`
of this module yields. The entries of the families `energy` and `attribution` are in `energy_registry.py`.
`docs/reference/checks.md` is generated from this registry.
"""

from __future__ import annotations

from llm_energy_measure.verification.check import Check
from llm_energy_measure.verification.energy_registry import ENERGY_CHECKS

__all__ = ["CHECKS", "Check"]

CHECKS: dict[str, Check] = {
    **ENERGY_CHECKS,
    "identity.repeated_gpu": Check(
        "Several processes that overlap in time name the same GPU.",
        "Never fails. Reported for each GPU that appears in the records of several processes of one host, if the times "
        "of these processes overlap or are unknown. Indices are compared only if a GPU of the host has no UUID. "
        "Records without a host count as records of one host.",
        "Record the UUID of each GPU. `attribution.repeated_gpu` shows if energy is counted twice.",
        severity="warning",
    ),
    "identity.unnamed_gpu": Check(
        "A process that read a GPU does not name it.",
        "Never fails. Reported if a record has neither `gpu_id` nor `gpu_uuid`, unless the process read no GPU, or "
        "another process read its sensors. Also reported if some GPUs of a host have only a UUID, and others only an "
        "index.",
        "Record `gpu_uuid` or `gpu_id`.",
        severity="warning",
    ),
    "identity.mig_slice": Check(
        "A process ran on a MIG slice of a GPU.",
        "Never fails. Reported if a record has `gpu_is_mig`, a MIG profile or a UUID that begins with `MIG-`.",
        "Treat the energy as the energy of the whole GPU. In the next run, let one process per GPU read the sensor.",
        "NVML does not support power and energy for MIG device handles, so tools read the whole GPU.",
        severity="warning",
    ),
    "completeness.missing_process": Check(
        "An expected process has no readable result.",
        "Fails if an index from 0 to n-1 has no readable result. The number n comes from the user "
        "(`--expected-processes`), the manifest, `world_size` or the configuration. Not checked if only the highest "
        "index gives n. A failure is a warning, because the sums are marked as lower bounds.",
        "Run the missing processes. Until then, the sums are lower bounds.",
        "",
        "In the collection of 0112, 751 of 2,221 process files are empty.",
        severity="warning",
    ),
    "completeness.unreadable_file": Check(
        "A file with the name of a result can't be read.",
        "Fails if a file has the name of a result and can't be read as one.",
        "Run `llm-energy-measure results check`; it names the reason.",
        "",
        "3b_0213: every file has 0 bytes.",
    ),
    "completeness.unexpected_process": Check(
        "A process has an index beyond the expected number.",
        "Fails if a process index is not below the expected number of processes.",
        "Find out whether two runs share the folder.",
    ),
    "completeness.world_size": Check(
        "The processes record different numbers of processes.",
        "Fails if `world_size` has more than one value.",
        "Store each run as an experiment of its own.",
    ),
    "completeness.no_energy": Check(
        "A process has no total energy.",
        "Fails if `total_energy_j` is null. Passes if the user switched all sensors off (`sources=[]`), or if another "
        "process reads the sensors of this process. If components are known, the finding names them, and their sum is "
        "the partial total.",
        "The sum is a lower bound; measure again.",
        severity="warning",
    ),
    "completeness.sensor_time": Check(
        "Processes ran on a host while no process read its shared sensor.",
        "Compares two times: the time in which a process of the host read the sensor, and the time in which a process "
        "that could read the sensor ran. Overlapping times count once. Fails if the first time is more than 1 % "
        "shorter than the second. Checked only for sensors that a process left to another process.",
        "Treat the energy as a lower bound. In current releases, another process continues when the reading process "
        "ends. A gap remains if the reading process was killed, if the sensor gives power and not energy, or if "
        "processes end while the reading process saves its result.",
        severity="warning",
    ),
    "completeness.unfinished_process": Check(
        "A process failed, was interrupted, or left only a checkpoint.",
        "Fails if a `status` is recorded and is not `completed`. A failure is an error, because the result looks like "
        "the result of a whole run. The energy is neither a lower nor an upper bound: a process that failed early used "
        "less than a whole run, and a process that hung used more. If all unfinished processes left checkpoints, the "
        "failure is a warning, because the sums are then marked as lower bounds.",
        "Run the process again, because its figures cover only a part of the run.",
    ),
    "completeness.duplicate_process": Check(
        "One result is stored under two process indices.",
        "Fails if host, GPU, start, duration, total and GPU energy are equal to the last digit under two indices. A "
        "failure is an error only if the scope is `device` and the GPU is identified by its UUID, or by host and "
        "index; else it is a warning. Readings of scope `host` or `process` are not compared, because several "
        "processes can report one reading, or equal shares of a reading.",
        "Remove the copy.",
        "Two counters in millijoules almost never agree to the last digit by chance.",
    ),
    "time.no_overlap": Check(
        "There is no instant at which all processes ran.",
        "Fails if the earliest end is not after the latest start. `found` is the common time divided by the time from "
        "the earliest start to the latest end. Not checked for one process, or if a start or an end is unknown. If "
        "`time.clock_offset` failed, the times are first converted to the store's clock. The check is then not made if "
        "a host has no reading of the store's clock.",
        "Aggregate runs from different times as separate experiments.",
        "",
        "0112 and similar files have no end times, so the check is not made.",
        severity="warning",
    ),
    "time.short_overlap": Check(
        "Processes did not run concurrently.",
        "Sorts the processes by their start. Fails if two neighbours overlap by less than half of the shorter run; "
        "`found` is the smallest overlap as a part of the shorter run. Not checked if `time.no_overlap` is not "
        "checked. If `time.no_overlap` failed, a failure of this check is reported as not checked. The flag "
        "`temporal_overlap_verified` is true if this check passed.",
        "Don't add the throughputs of the processes. Start all processes together in the next run.",
        severity="warning",
    ),
    "time.impossible_span": Check(
        "An end is before its start, a duration is negative, or timestamps can't be compared.",
        "Fails if an end is before its start, a duration is negative, or only one of two timestamps has a UTC offset. "
        "Applies to the run and to the energy window.",
        "Correct the tool that wrote the times. The energy is still valid.",
    ),
    "time.mixed_offsets": Check(
        "Some timestamps have a UTC offset and some have none.",
        "Fails if one experiment has both kinds of timestamps.",
        "Write timestamps with a UTC offset.",
        severity="warning",
    ),
    "time.naive_stamps": Check(
        "Timestamps of several hosts have no UTC offset.",
        "Fails if timestamps of several hosts have no UTC offset. Not checked on one host.",
        "Write timestamps with a UTC offset.",
        "RFC 3339.",
        "All `v2` files.",
        severity="warning",
    ),
    "time.duration_mismatch": Check(
        "A duration differs from end - start.",
        "Fails if |duration - (end - start)| is above 1 s and above 5 % of end - start.",
        "Trust the duration; find out whether a clock was set.",
        "The wall clock can be set, the monotonic clock can't (`clock_gettime(2)`).",
        severity="warning",
    ),
    "time.clock_jump": Check(
        "A wall clock was set while the processes ran.",
        "Fails if wall time minus monotonic time differs by more than 1 s between readings of one boot.",
        "Trust durations, not timestamps.",
        "`clock_gettime(2)`: CLOCK_MONOTONIC is never set.",
        severity="warning",
    ),
    "time.clock_offset": Check(
        "The clocks of two hosts differ, or start and end of one host are shifted against another host.",
        "The store's clock is the clock that sets the mtimes of the store (`clock.store_start_sec`, "
        "`store_end_sec`). The check uses the most exact reading of each host, and computes wall time minus store "
        "time. Fails if two hosts differ by more than 1 s plus the errors of both readings. The error "
        "(`clock.store_error_sec`) is half of the sum of the reading's duration and the clock's tick. The tick is "
        "10 ms, or 1 or 2 s if mtimes are whole seconds. Not checked if a host has no reading, or if the hosts use "
        "several stores. The times of each host are then compared with the times of the first host. A host is reported "
        "if its start and end are shifted by the same time (to 10 %), and this time is above 1 s and above 5 % of the "
        "run.",
        "Synchronise the clocks of the hosts (NTP). Durations and energies are still valid; see `time.no_overlap`.",
        "Wall and monotonic time alone can't show the difference, because each monotonic clock begins at the boot of "
        "its host (`clock_gettime(2)`). A shared file system gives one clock for all hosts. The recorder reads the "
        "store's clock and the wall clock one after the other; the monotonic clock gives the time between the two "
        "readings.",
        severity="warning",
    ),
    "window.mismatch": Check(
        "Energy and inference cover different times.",
        "Fails if |energy window - inference time| is above 10 % of the inference time. A process without an "
        "inference time is compared with the longest inference time of the experiment.",
        "Don't use joules per token. Measure the energy over the inference.",
        "Joules per token need energy and tokens from one time span.",
        "0129: 605 to 622 s of energy for 23.4 s of inference.",
        severity="warning",
    ),
    "window.unknown": Check(
        "No energy window is recorded, and run and inference have different lengths.",
        "Fails if there is no energy window, and run and inference differ by more than 10 %.",
        "Find out which time the tool covers; record `energy_metrics.window`.",
        "",
        "`v2` baseline: 40.1 s of run, 9.5 s of inference, window 0.",
        severity="info",
    ),
    "plausibility.power_above_limit": Check(
        "A reported power is above what the board can draw.",
        "Fails if `gpu_power_w` is above 1.05 times the sum of the power limits of the boards. For the scope "
        "`host`, these are the boards of the host; for other scopes, those of the process. An unknown scope counts "
        "as `host` if the record states the boards of the host. Not checked if a limit is unknown. A failure is a "
        "warning in three cases: the scope is unknown, the power is at most 1.2 times the limit, or sensor noise "
        "explains the powers of all processes. The noise is 10 %, as for `energy.exceeds_devices`.",
        "Use energy / window as the power. `gpu_power_w` is one sample, and the sensor can overshoot.",
        "NVML, as for `energy.over_counted`.",
        "`v2` batch_32: 329 W on a board of 250 W.",
    ),
    "plausibility.impossible_power": Check(
        "A power is above what any hardware draws.",
        "Fails if a reported power, or energy / window (else energy / longest known time), is above 3 kW per GPU or "
        "above 50 kW per host. CPU power and total energy are compared with 50 kW. GPU power and GPU energy are "
        "compared with 3 kW per board that the process can have read, or with 50 kW if this number of boards is "
        "unknown. A power above 3 kW per board that the process names is a warning if the scope or the number of "
        "boards is unknown. This exception does not apply if the record states the boards of the host. Energies of "
        "listed devices are compared one by one.",
        "Find the wrong unit: J, Wh and kWh, W and kW, or s and ms.",
        "The highest board limits of 2025 are 1,400 W (NVIDIA GB300, AMD MI355X). A DGX B200 draws at most 14.3 kW "
        "(NVIDIA's data sheet), a Cerebras CS-2 23 kW.",
        "A file of the collection reports 308,957 W for one GPU.",
    ),
    "plausibility.power_contradicts_energy": Check(
        "A reported power is less than half, or more than twice, the power that the energy implies.",
        "Fails if `gpu_power_w` is 0 although there is GPU energy. Also fails if `gpu_power_w` is less than half of "
        "GPU energy / longest known time, or more than twice GPU energy / shortest known time. Compares `cpu_power_w` "
        "(if not 0) with the CPU energy in the same way. Up to a factor of 10, a failure is a warning, because one "
        "sample can differ by this factor.",
        "Never compute energy from a reported power.",
        "A reported power is one instantaneous sample: one file of the collection has 308,957 W.",
        "`v2` batch_1: a power of 0 W with a GPU energy of 4.5 kJ. 0129: a power of 62 W; GPU energy / time is 512 W.",
    ),
    "plausibility.below_idle": Check(
        "The energy is less than idle power times window.",
        "Fails if the total is below 0.95 times idle power times window.",
        "Check the window, and whether a component is missing.",
    ),
    "plausibility.components": Check(
        "The total contradicts the sum of GPU, CPU and memory energy.",
        "Fails if the sum is above 1.01 times the total. Also fails if the total is more than 10 times the sum (900 "
        "times if one of the three is unknown). A total between these limits passes, because it may have more "
        "components. The factors 1,000, 3,600 and 3,600,000 suggest that Wh, J and kWh were confused.",
        "Find out which component is wrong. The total is used without change.",
        "CodeCarbon: the total is the exact sum.",
    ),
    "plausibility.throughput": Check(
        "A throughput is not tokens / time.",
        "Computes three rates: total, output and input tokens, each divided by the time. Fails if the throughput "
        "differs by more than 25 % from the nearest rate.",
        "Find out which quantities the tool divides.",
        "Means over batches differ from the mean of a run.",
        severity="warning",
    ),
    "plausibility.tokens": Check(
        "Token counts contradict each other.",
        "Fails if input + output is above the total, or if the requests have more output tokens than "
        "`output_tokens`. Also fails if there are more times to first token than requests.",
        "Correct the counts.",
    ),
    "plausibility.missing_gpu_energy": Check(
        "A process has no GPU energy although other processes of the experiment have GPU energy.",
        "Fails if the GPU energy is null or 0, and other processes have GPU energy. Passes if a process of the same "
        "host read the whole host, or if another process read the sensors of this process. Also passes if this "
        "process names no GPU or has no total energy.",
        "Treat the sum as a lower bound, because a GPU is missing.",
        severity="warning",
    ),
    "plausibility.outlier": Check(
        "The power of one process is far from the power of the other processes.",
        "Compares at least three processes with the same scope and GPU name, and for GPU energies also with the same "
        "number and limits of boards. Fails if the power of a process is "
        "more than 3 times, or less than a third of, their median power. The power is the GPU energy (else the CPU "
        "energy, else the total) divided by the window (else by the longest known time).",
        "Check the window, the sensor and the work of this process.",
        severity="warning",
    ),
    "counter.recorded": Check(
        "The records contain no sensor readings for the energy.",
        "Never fails. Reported if no process has `energy_metrics.sensors`.",
        "Record sensor readings.",
        "",
        "All files from before 2026.",
        severity="info",
    ),
    "counter.reset": Check(
        "An energy counter was reset within the window.",
        "Fails if a counter without a recorded range decreased, or if the recorder reported `counter_reset`.",
        "The energy is unknown; measure again.",
        "NVML: the counter starts when the driver is loaded.",
    ),
    "counter.wrap": Check(
        "An energy counter wrapped, or the energy is not the difference of its readings.",
        "Fails if the increase of the counter is negative or differs from the energy by more than 1 %. The increase is "
        "end - start + number of wraps x range.",
        "Compute the energy from the counter readings, if the recorder sampled often enough to count each wrap.",
        "RAPL: `max_energy_range_uj` of powercap.",
    ),
    "counter.cumulative": Check(
        "The reading of a cumulative counter was used as the energy of the window.",
        "Fails if the energy equals the end reading of the counter (to 1 %), and not the increase of the counter.",
        "Use the end reading minus the start reading.",
        "",
        "A public log of cumulative rows: the sum of the rows of one run is 189 times its energy.",
    ),
    "counter.lost": Check(
        "A sensor was lost within the window.",
        "Fails if the recorder reported `sensor_lost`.",
        "The energy is a lower bound.",
        severity="warning",
    ),
    "counter.gap": Check(
        "A sensor was not sampled for some time.",
        "Fails if the recorder reported `sampling_gap`.",
        "The energy over the gap is interpolated; use it with care.",
        severity="warning",
    ),
    "counter.mismatch": Check(
        "The energy of a component is not the sum of its sensors.",
        "Compares GPU, CPU and memory energy with the sum over all sensors of the component, and with the sum over "
        "the sensors of each source. Fails if the energy differs from all these sums by more than 1 %. A sensor "
        "without energy counts with the increase of its counter. Not checked if a sensor failed, or if another "
        "process read it.",
        "Use the sensor readings.",
    ),
    "likeness.model": Check(
        "Processes ran different models.",
        "Fails if `model_name` differs between processes.",
        "Aggregate the processes as separate experiments.",
    ),
    "likeness.backend": Check(
        "Processes ran different backends, or different versions of one backend.",
        "Fails if the backend or its version differs between processes.",
        "Aggregate the processes as separate experiments, or document why different backends or versions are "
        "valid here.",
    ),
    "likeness.precision": Check(
        "Processes computed in different precisions.",
        "Fails if `compute_precision` differs between processes.",
        "Aggregate the processes as separate experiments.",
    ),
    "likeness.library_versions": Check(
        "Processes ran different versions of libraries.",
        "Fails if `library_versions` differs between processes.",
        "Install the same versions on all hosts.",
        severity="warning",
    ),
    "likeness.batch_size": Check(
        "Processes had different batch sizes.",
        "Fails if a setting of `effective_config` differs between processes, and its name contains `batch`.",
        "Aggregate the processes as separate experiments.",
    ),
    "likeness.configuration": Check(
        "Processes had different configurations.",
        "Fails if a setting of `effective_config` without `batch` in its name differs between processes. Settings of a "
        "single process (`rank`, `gpu_id`, `seed` and similar) are not compared, nor are fields that an import copied "
        "from its source file. If the manifest has a `config_digest` (SHA-256 of the configuration's JSON with sorted "
        "names) and no process has a configuration with this digest, the check is not made.",
        "Aggregate the processes as separate experiments. Ignore the finding if the difference does not change the "
        "work.",
        severity="warning",
    ),
    "zero.duration": Check(
        "The energy window is 0 s although there is energy.",
        "Fails if `energy_metrics.duration_sec` is 0 and there is energy.",
        "Treat the window as unknown.",
        "",
        "All `v2` files.",
        severity="info",
    ),
    "zero.energy": Check(
        "The energy is 0 J although there are tokens.",
        "Fails if `total_energy_j` is 0 and there are tokens.",
        "Treat the energy as unknown: the sum is too small.",
        severity="info",
    ),
    "zero.energy_per_token": Check(
        "The energy per token is 0 J although there are energy and tokens.",
        "Fails if `energy_per_token_j` is 0 and there are energy and tokens.",
        "Divide energy by tokens yourself.",
        "",
        "All `v2` files.",
        severity="info",
    ),
    "zero.peak_memory": Check(
        "The peak memory is 0 although there are tokens.",
        "Fails if `peak_memory_mb` is 0 and there are tokens.",
        "Treat the peak memory as unknown.",
        "",
        "All `v2` files.",
        severity="info",
    ),
    "zero.cpu_power": Check(
        "The CPU power is 0 W although there is CPU energy.",
        "Fails if `cpu_power_w` is 0 and there is CPU energy.",
        "Treat the power as unknown.",
        severity="info",
    ),
    "device.throttled": Check(
        "A GPU was slowed down by heat, by its power supply or by its power limit.",
        "Reads the throttle reasons in the samples of the GPU (`record --samples`); without samples, in its state "
        "at the start and the end. Fails if one of them is `hw_slowdown`, `hw_thermal_slowdown`, `hw_power_brake` or "
        "`sw_thermal_slowdown`. If the only reasons are `sw_power_cap` (the GPU draws its power limit) and "
        "`throttled` (AMD SMI gives no reason), the severity is `info`. Without the state of any GPU, there is no "
        "finding.",
        "Improve the cooling or the power supply, wait until the GPU is cool, and measure again. Compare only runs "
        "with the same throttle reasons.",
        "NVML API reference: nvmlClocksEventReasons. AMD SMI Python API: amdsmi_get_violation_status.",
        severity="warning",
    ),
    "device.drift": Check(
        "The clock or the power limit of a GPU changed during the run.",
        "Fails if the mean clocks of the first and the last quarter of the samples differ by more than 5 %. The "
        "samples (`record --samples`) of an idle GPU are left out. Also fails if the power limits at the start and "
        "at the end differ.",
        "Warm the GPU up before the measurement, set the power limit before the run, and measure longer.",
        severity="warning",
    ),
    "zero.cpu_energy": Check(
        "The CPU energy is 0 J although there is CPU power.",
        "Fails if `cpu_energy_j` is 0 and there is CPU power.",
        "Treat the CPU energy as unknown: the total lacks the CPU.",
        severity="info",
    ),
    "provenance.modelled": Check(
        "A part of the total was modelled, not measured.",
        "Never fails. Reports the sum of the components whose provenance is `modelled`.",
        "State next to the total that a part is modelled.",
        "",
        "0112: CPU energy is 112.5 W times the window, 13 % of the total. The examples of this repository are modelled "
        "completely.",
        severity="info",
    ),
    "provenance.unknown": Check(
        "The provenance of the energy is not recorded.",
        "Never fails. Reported if a component has no provenance.",
        "Record the provenance.",
        "",
        "All `v2` files.",
        severity="info",
    ),
    "provenance.tool_warning": Check(
        "The measuring tool warned about its own figures.",
        "Never fails. Reported if `energy_measurement_warning` is set.",
        "Read the warning.",
        "",
        "The examples of this repository.",
        severity="warning",
    ),
    "provenance.schema_version": Check(
        "A file names no schema version.",
        "Fails if a file has no `schema_version`; the file is read as 2.0.0.",
        "Do nothing if the figures are plausible.",
        severity="warning",
    ),
    "sources.missing": Check(
        "A raw file from which the aggregate was made is missing.",
        "Fails if a source of the aggregate is not among the raw files.",
        "Restore the file; the aggregate contains a copy.",
        "The aggregate stores the SHA-256 of each source.",
    ),
    "sources.changed": Check(
        "A raw file changed since the aggregate was made.",
        "Fails if the SHA-256 of a raw file is not the one in the aggregate.",
        "Find out who changed the file; `llm-energy-measure aggregate` recomputes the aggregate.",
        "The aggregate stores the SHA-256 of each source.",
    ),
    "sources.added": Check(
        "A raw file was added since the aggregate was made.",
        "Fails if a raw file is not a source of the aggregate.",
        "Run `llm-energy-measure aggregate`.",
    ),
    "sources.embedded": Check(
        "The aggregate does not contain an exact copy of a raw file.",
        "Fails if a value of an unchanged raw file differs from the copy in the aggregate. Also fails if the "
        "aggregate has more or fewer processes than source files. Each of the first 20 differences has a separate "
        "finding.",
        "Recompute the aggregate with `llm-energy-measure aggregate --force`, because it was edited.",
    ),
    "aggregate.altered": Check(
        "Another program changed values of the aggregate.",
        "Fails if the values of the aggregate do not match the digest in its file. Another layout of the same values "
        "passes. Not checked if the file has no digest. `aggregate.recomputed` and `sources.embedded` name the changed "
        "values.",
        "Find out who changed the file; `llm-energy-measure aggregate` recomputes it and keeps the changed file.",
    ),
    "aggregate.recomputed": Check(
        "A value of the aggregate does not follow from its raw files.",
        "Recomputes the aggregate and compares totals, attribution, bounds, times, latencies, completeness, sources, "
        "configuration, flags, warnings and the codes of failed checks. Fails if the relative difference of a number "
        "is above 1e-9, or if another value differs. Not checked if the aggregate names a rule of attribution or a "
        "strategy that is not installed. For an aggregate of another tool, only the totals are compared.",
        "Run `llm-energy-measure aggregate --force`: the aggregate was edited, or made with another rule.",
    ),
    "aggregate.readable": Check(
        "The aggregate can't be read.",
        "Fails if the aggregate can't be read. Not checked if there is no aggregate.",
        "Run `llm-energy-measure aggregate --force`.",
    ),
    "aggregate.possible": Check(
        "The raw files can't be combined into one result.",
        "Fails if the raw files can't be combined. The other checks continue as far as possible.",
        "Read the message of the finding; it names the cause.",
    ),
    "suspicion.identical_readings": Check(
        "The readings of several processes are almost identical.",
        "Never fails. Reported if the GPU energies of processes of unknown scope on one host agree within 1 %.",
        "Find out what the sensor covers.",
        "Separate readings of GPUs with equal work also agree to a fraction of a percent.",
        "3b_0088: 29,040 to 29,218 J in three processes.",
        severity="warning",
    ),
    "suspicion.grows_with_processes": Check(
        "The energy grows with the number of processes, although work and time stay the same.",
        "Never fails. Compares each experiment to the one with the fewest processes that has the same model, "
        "configuration and number of tokens. Reported if k times as many processes take the same time (within 10 %) "
        "and at least 0.75 k times the energy. Only `results verify` of several experiments reports it.",
        "Follow the advice for `energy.over_counted`.",
        "If more GPUs share the same work, a run normally takes less time. Here only the energy grows, so several "
        "processes may have measured the same hardware.",
        "0109 to 0112: 16.2, 43.1, 74.8, 109.9 kJ on 1 to 4 processes, all in 23 s.",
        severity="warning",
    ),
}
"""Every check by the code of its findings. Codes are stable: they don't change between versions."""
