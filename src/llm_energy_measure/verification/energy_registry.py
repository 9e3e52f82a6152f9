"""The part of the registry for checks of energy and attribution: powers, double counts, and missing evidence."""

from __future__ import annotations

from llm_energy_measure.verification.check import Check

ENERGY_CHECKS: dict[str, Check] = {
    "energy.over_counted": Check(
        "The processes of a host together imply more GPU power than its boards can draw.",
        "Divides the GPU energy of a host, where scopes are unknown, by the union of the energy windows. Fails above "
        "1.2 times the power that the stated boards (`4 x A100`) can draw (1.23 times for two readings); up to this "
        "factor, the error of the sensors can explain the excess. Not checked if the number of boards or their limit "
        "is not known. The power limit of a consumer board proves nothing, because users can raise it.",
        "Record the scope of the sensor, or state it with `--assume gpu-scope=host`. In the next run, let one process "
        "read the host, or let each process read its own GPU and record this in `gpu_scope`.",
        "NVML documents its power as accurate to within 5 % (`nvmlDeviceGetPowerUsage`).",
        "0112: 4 processes imply 3,156 W, and the boards can draw 1,000 W.",
    ),
    "energy.exceeds_devices": Check(
        "A process implies more GPU power than the boards that it read can draw.",
        "Divides GPU energy / energy window of each process by the limit of the GPUs that it read (scope `device`) or "
        "of all stated boards of its host (other scopes). Fails if a sensor noise of 10 % does not explain the "
        "greatest ratio (above 1.31 for one process, 1.37 for 8, at most 1.5) or the mean ratio of several processes "
        "(above 1.2). Also fails if the shares of processes (scope `process`) together are above the limit of their "
        "board, and noise does not explain it. `effect_j` is the energy above limit x window; it is a lower bound.",
        "Check the scope and the energy. The reading covers other boards, or its unit is wrong.",
        "NVML, as for `energy.over_counted`.",
    ),
    "attribution.repeated_gpu": Check(
        "Several processes measured the same GPU at the same time.",
        "Fails if readings of scope `device` overlap in time on one GPU UUID, or on one index of a known host, and the "
        "energy of the GPU is less than 0.98 of their sum. Readings of one index that differ by more than 25 % do not "
        "count as one GPU: some tools count the GPUs of each process from 0.",
        "Use the attributed energy. If the energy was really divided between the processes, record the scope "
        "`process`.",
        "NVML counts energy per device, not per process (`nvmlDeviceGetTotalEnergyConsumption`).",
    ),
    "attribution.shared_sensor": Check(
        "Several processes measured parts that share one sensor.",
        "Like `attribution.repeated_gpu`, for MIG slices of one GPU and for the dies of one MI250 module. Not checked "
        "if nothing identifies the boards of several parts (slices known only by their own UUID or index, dies only by "
        "UUID). The lower bound then counts them as parts of one board.",
        "Use the attributed energy. The part of one slice can't be determined.",
        "NVML does not support power and energy for MIG device handles, so tools read the parent board. AMD: both dies "
        "of an MI250 share one package sensor.",
    ),
    "attribution.host_counted": Check(
        "Several processes measured the same host, or parts of it, at the same time.",
        "Fails if readings of scope `host` of one component and host overlap in time. Also fails if a reading of scope "
        "`host` overlaps with readings of the host's devices or processes, because it contains them. The scope is "
        "recorded, documented for the tool, or stated by the user. A total of scope `host` without components contains "
        "every component.",
        "Use the attributed energy. In the next run, let one process read the host.",
        "",
        "0112: 4 processes that each measured the whole node; the plain sum is about four times the node's energy.",
    ),
    "attribution.two_names_one_host": Check(
        "One GPU appears at the same time on two machines.",
        "Fails if processes with different boot ids that ran at the same time name the same GPU UUID. Different host "
        "names with one boot id are containers of one machine, which is no problem.",
        "Check which machine the records come from.",
        "Linux: `/proc/sys/kernel/random/boot_id` is unique per boot, and the same in all containers of a machine.",
    ),
    "attribution.module_sensor": Check(
        "The GPU sensor may include the CPU of the module, and the CPU energy also counts.",
        "Never fails. Reported if GPU energy and CPU or memory energy count on one host at the same time, and a "
        "process there names a GH200, GB200 or MI300A. `effect_j` is the CPU and memory energy, at most the GPU "
        "energy; the lower bound leaves this energy out.",
        "Find out which power scope the tool read. If it read the module, leave out the CPU energy.",
        "NVML has the power scopes GPU and module (`NVML_POWER_SCOPE_MODULE`). The data sheets give one limit for CPU, "
        "GPU and memory.",
        severity="warning",
    ),
    "attribution.contradictory": Check(
        "No explanation fits the readings: the evidence contradicts itself.",
        "Fails if readings that the records assign to one counter differ from the energy of this counter by more than "
        "25 %. Also fails if readings of parts of a host exceed the reading of the whole host by more than 25 %. The "
        "upper bound is then the plain sum.",
        "Check scopes, windows and units of the processes that the finding names.",
    ),
    "attribution.scope_unknown": Check(
        "The scope of the sensors of several processes on one host is unknown.",
        "Never fails. Reported if several processes of one host have a component without scope, and neither the tool, "
        "nor the times, nor the power determine the scope. The finding names the explanations that remain.",
        "Record the scope, or state it with `--assume gpu-scope=device` (or `host`, `process`).",
        "",
        "Most published files: no tool of 2025 writes scopes.",
        severity="warning",
    ),
    "attribution.hosts_unknown": Check(
        "The records don't show on how many hosts the processes ran, and the energy depends on it.",
        "Never fails. Reported if no record has a host, a boot id, a node or a local rank, and different numbers of "
        "hosts give different energies.",
        "Record the host or the local rank, or state the number of hosts with `--assume hosts=N`.",
        severity="warning",
    ),
    "attribution.window_unknown": Check(
        "Several processes read one sensor, and their energy windows are unknown or overlap in part.",
        "Never fails. Reported if the energy that the windows have in common is not known.",
        "Record the start and the end of the energy window.",
        severity="warning",
    ),
    "attribution.concurrent_experiments": Check(
        "Another experiment read the same sensors at the same time, so both count the same joules.",
        "Compares experiments. Fails if processes of two experiments have one boot id and one sensor, and their times "
        "have more than 1 % in common. The finding gives an interval for the energy of this experiment: at least "
        "an equal share, at each instant, of the energy above the idle power, and at most all energy of these sensors. "
        "`expected` is an equal share of all energy, idle energy included. Only `results verify` of several "
        "experiments reports it.",
        "Do not add these experiments up. Run them one after the other, or as processes of one experiment, which share "
        "a sensor. `record --idle 10` measures the idle power.",
        "Linux: the monotonic clock and the boot id are the same in all processes of a machine.",
        severity="warning",
    ),
    "attribution.assumed": Check(
        "The user states facts that the records don't contain.",
        "Never fails. Reported if the energy was attributed with `--assume`.",
        "Record the facts in the next run.",
        severity="info",
    ),
}
"""The checks of the families `energy` and `attribution`, by code."""
