"""The part of the registry for the families `energy` and `attribution`: powers, double counts, missing facts."""

from __future__ import annotations

from llm_energy_measure.verification.check import Check

ENERGY_CHECKS: dict[str, Check] = {
    "energy.over_counted": Check(
        "The processes of a host together imply more GPU power than its boards can draw.",
        "For GPU energy of unknown scope: divides the GPU energy of a host by the length of the union of the energy "
        "windows. Fails if this power is above 1.2 times the power that the stated boards (`4 x A100`) can draw; for "
        "two equal readings, above 1.23 times. Up to this factor, the error of the sensors can explain the excess. "
        "Not checked if the number of boards or their power limit is unknown. The limit of a consumer board counts as "
        "unknown, because users can raise it.",
        "Record the scope of the sensor, or state it with `--assume gpu-scope=host`. In the next run, let one process "
        "read the host, or let each process read its own GPU and record this in `gpu_scope`.",
        "NVML documents an accuracy of 5 % for the power of Fermi and Kepler boards (`nvmlDeviceGetPowerUsage`).",
        "0112: 4 processes imply 3,156 W, and the boards can draw 1,000 W.",
    ),
    "energy.exceeds_devices": Check(
        "A process implies more GPU power than the boards that it read can draw.",
        "Computes the GPU power of each process (GPU energy / energy window), and divides this power by a limit: the "
        "limit of the GPUs that the process read (scopes `device` and `process`), or of all stated boards of its host "
        "(other scopes). Fails if a sensor noise of 10 % cannot explain the greatest ratio, or cannot explain the mean "
        "ratio of several processes. The greatest ratio fails above 1.31 for one process, above 1.37 for 8, and "
        "always above 1.5. The mean ratio fails above 1.2, for two processes above 1.22. Also fails if the shares of "
        "processes (scope `process`) together are above the limit of their board, and noise does not explain the "
        "excess. `effect_j` is the energy above limit x window; it is a lower bound.",
        "Check the scope and the unit of the energy. Either the reading covers other boards, or its unit is wrong.",
        "NVML, as for `energy.over_counted`.",
    ),
    "attribution.repeated_gpu": Check(
        "Several processes measured the same GPU at the same time.",
        "Compares readings of scope `device` that overlap in time on one GPU UUID, or on one index of a known host. "
        "Fails if the energy of the GPU is less than 0.98 times the sum of the readings. Readings of one index that "
        "differ by more than 25 % do not count as one GPU, because some tools number the GPUs of each process from "
        "0.",
        "Use the attributed energy. If the tool divided the energy of the GPU between the processes, record the scope "
        "`process`.",
        "NVML counts energy per device, not per process (`nvmlDeviceGetTotalEnergyConsumption`).",
    ),
    "attribution.shared_sensor": Check(
        "Several processes measured parts that share one sensor.",
        "Applies the rule of `attribution.repeated_gpu` to MIG slices of one GPU and to the dies of one MI250 module. "
        "Not checked if the records do not identify the boards of several slices or dies: slices that have only their "
        "own UUID or index, or dies that have only a UUID. The lower bound then counts them as parts of one board.",
        "Use the attributed energy. The part of one slice can't be determined.",
        "NVML does not support power and energy for MIG device handles, so tools read the parent board. AMD: both dies "
        "of an MI250 share one package sensor.",
    ),
    "attribution.host_counted": Check(
        "Several processes measured the same host, or parts of it, at the same time.",
        "Fails if readings of scope `host` of one component and host overlap in time. Also fails if a reading of scope "
        "`host` overlaps readings of the host's devices or processes, because the reading of the host contains these "
        "readings. The scope is recorded, documented for the tool, or stated by the user. A total of scope `host` "
        "without components contains every component.",
        "Use the attributed energy. In the next run, let one process read the host.",
        "",
        "0112: 4 processes that each measured the whole node; the plain sum is about four times the node's energy.",
    ),
    "attribution.two_names_one_host": Check(
        "One GPU appears at the same time on two machines.",
        "Fails if two processes ran at the same time, have different boot ids, and name the same GPU UUID. Processes "
        "with different host names and one boot id ran in containers of one machine, which is no problem.",
        "Check which machine the records come from.",
        "Linux: `/proc/sys/kernel/random/boot_id` is unique per boot, and the same in all containers of a machine.",
    ),
    "attribution.module_sensor": Check(
        "The GPU sensor may include the CPU of the module, and the total also contains the CPU energy.",
        "Never fails. Reported if a host has GPU energy and CPU or memory energy at the same time, and a process on "
        "this host names a GH200, GB200 or MI300A. `effect_j` is the CPU and memory energy, at most the GPU energy. "
        "The lower bound does not contain this energy.",
        "Find out which power scope the tool read. If the scope is the module, leave out the CPU energy.",
        "NVML has the power scopes GPU and module (`NVML_POWER_SCOPE_MODULE`). The data sheets give one limit for CPU, "
        "GPU and memory.",
        severity="warning",
    ),
    "attribution.contradictory": Check(
        "The readings contradict each other, so no explanation fits all of them.",
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
        "The records don't show on how many hosts the processes ran, and the energy depends on this number.",
        "Never fails. Reported if the records do not show the hosts (for example, without host, boot id, node and "
        "local rank), and different numbers of hosts give different energies.",
        "Record the host or the local rank, or state the number of hosts with `--assume hosts=N`.",
        severity="warning",
    ),
    "attribution.window_unknown": Check(
        "Several processes read one sensor, and their energy windows are unknown or overlap in part.",
        "Never fails. Reported if the energy in the common time of the windows is unknown.",
        "Record the start and the end of the energy window.",
        severity="warning",
    ),
    "attribution.concurrent_experiments": Check(
        "Another experiment read the same sensors at the same time, so both experiments count the same joules.",
        "Compares experiments. Fails if processes of two experiments have the same boot id and the same sensor, and "
        "more than 1 % of their times in common. Imported records have no boot id. They are compared if they have the "
        "same GPU UUID, or the same host name and energies that cover the host. Fails if their common time is more "
        "than 1 s plus 1 % of their times. Without a host name, only GPU UUIDs are compared. The finding gives a "
        "range for the energy of this experiment. The least energy is an equal share, at each instant, of the energy "
        "above the idle power; 0 J if the idle power is unknown. The greatest energy is all energy of these sensors. "
        "`expected` is an equal share of all energy, including idle energy. Only `results verify` of several "
        "experiments reports this finding.",
        "Do not add the energies of these experiments. Run the experiments one after the other, or as processes of one "
        "experiment: only one process of an experiment reads a shared sensor. `record --idle 10` measures the idle "
        "power.",
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
