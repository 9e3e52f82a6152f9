"""The classes of simulated experiments: worlds x sensors x evidence, each with the laws that hold for it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from tests.truth import plan as sim
from tests.truth.experiment import Experiment, simulate
from tests.truth.plan import FULL, NONE, Evidence, GpuReading, Plan

Level = Literal["full", "none", "assumed"]

LEGACY_TOOL = "llm-energy-measure 1.x"
"""A tool whose scope is documented: it reads the whole host."""


@dataclass(frozen=True)
class SimulatedClass:
    """A class of experiments.

    Attributes:
        name: Stable name; it seeds the runs of the class.
        plans: Variants, one of which is chosen at random for each run.
        level: How much the records or the user state.
        exempt: Whether no point is required at the levels `full` and `assumed`: windows of one sensor overlap in part,
            or the evidence can't decide.
        always: Whether a point is required in each run.
        assume: Facts that the user states; `hosts` and `boards` take the true numbers.
    """

    name: str
    plans: tuple[Plan, ...]
    level: Level
    exempt: bool = False
    always: bool = False
    assume: tuple[str, ...] = ()

    def run(self, seed: int, number: int) -> Experiment:
        """One run, a function of the class, the seed and the number alone."""
        rng = Random(f"{seed} {self.name} {number}")
        plan = rng.choice(self.plans)
        experiment = simulate(plan, rng)
        experiment.meta.update(plan=plan, assume=self.assumptions(plan))
        return experiment

    def assumptions(self, plan: Plan) -> dict[str, object]:
        """Keyword arguments of `Assumptions` for a run of that plan."""
        stated: dict[str, object] = {}
        for fact in self.assume:
            if fact in ("hosts", "boards"):
                stated[fact] = getattr(plan, fact)
            else:
                stated["gpu_scope"] = fact
        return stated


ALL_NAMES = Evidence(boards="all")
NULL_INDEX = Evidence(index="null", boards="all")
ZERO_INDEX = Evidence(index="zero")
CONTAINERS = replace(FULL, containers=True)
LISTED = replace(FULL, devices="energies")
LOCAL_RANK = Evidence(local_rank=True, boards="all")
CPU_SCOPE = Evidence(cpu_scope=True, boards="all", index="null", tool="codecarbon", window="duration")
LEGACY = Evidence(index="null", boards="all", local_rank=True, tool=LEGACY_TOOL, window="length")
LEGACY_UNRANKED = replace(LEGACY, local_rank=False, tool=None)

LOW, MIDDLE, HIGH = (0.2, 0.45), (0.4, 0.75), (0.75, 0.98)

NOISES = (0.01, 0.05, 0.10)


def _full() -> list[SimulatedClass]:
    def one(
        name: str, *variants: Plan, evidence: Evidence = FULL, exempt: bool = False, always: bool = False
    ) -> SimulatedClass:
        plans = tuple(replace(plan, evidence=evidence) for plan in variants)
        return SimulatedClass(f"full_{name}", plans, "full", exempt=exempt, always=always)

    two_hosts = Plan(hosts=2, boards=2)
    classes = [
        one("single_process", Plan(boards=1), Plan(boards=4, ranks=1, gpu="host"), always=True),
        one("own", *(Plan(model=model, boards=n) for n in (2, 4, 8) for model in (sim.A100, sim.H100_PCIE, sim.L4))),
        one("own_two_hosts", two_hosts, replace(two_hosts, boards=4, load=HIGH)),
        one("own_cyclic", Plan(hosts=2, cyclic=True), Plan(hosts=2, cyclic=True, windows="partial")),
        one("host_cyclic", Plan(hosts=2, gpu="host", cyclic=True)),
        one("own_four_hosts", Plan(hosts=4, boards=2, spread=0.4)),
        one("own_staggered", Plan(windows="staggered"), Plan(windows="partial")),
        one("own_serial", Plan(windows="serial"), always=True),
        one("own_many_ranks", Plan(hosts=4, boards=8)),
        one("own_raised_geforce", Plan(model=sim.RTX_4090_RAISED, boards=2, load=(0.8, 0.98))),
        one("own_missing_rank", Plan(missing=1), Plan(hosts=2, missing=1)),
        one("host", *(Plan(boards=n, gpu="host", load=load) for n in (2, 4, 8) for load in (LOW, HIGH))),
        one("host_two_hosts", replace(two_hosts, gpu="host"), Plan(hosts=2, gpu="host", load=HIGH)),
        one("host_slightly_staggered", Plan(gpu="host", windows="slightly_staggered")),
        one("host_staggered", Plan(gpu="host", windows="staggered"), exempt=True),
        one("host_partial", Plan(gpu="host", windows="partial", ripple=0.5), exempt=True),
        one("host_partial_noise_1", Plan(gpu="host", windows="partial", noise=0.01), exempt=True),
        one("cpu_partial", Plan(gpu="none", cpu="each", windows="partial", ripple=0.8), exempt=True),
        one("host_nested", Plan(gpu="host", windows="nested"), Plan(gpu="host", windows="nested", ripple=0.6)),
        one("host_serial", Plan(gpu="host", windows="serial"), always=True),
        one("host_waves", Plan(gpu="host", windows="waves"), Plan(gpu="host", windows="waves", ripple=0.5)),
        one("host_overhead", Plan(gpu="host", overhead=0.17, load=HIGH)),
        one("host_rest", Plan(gpu="host", cpu="each", rest="each"), Plan(gpu="host", rest="each", hosts=2)),
        one("host_touching", Plan(gpu="host", boards=2, windows="touching")),
        one("host_bursts", Plan(gpu="host", ripple=0.8)),
        one("host_missing_rank", Plan(gpu="host", missing=1)),
        one("each_drives_several", *(Plan(boards=8, driven=n, gpu="driven") for n in (2, 4)), evidence=LISTED),
        one("visible_groups", Plan(gpu="visible", group=2), Plan(gpu="visible", group=4), evidence=LISTED),
        one("two_groups_of_four", Plan(boards=8, gpu="visible", group=4, spread=0.02), evidence=LISTED),
        one("visible_staggered", Plan(gpu="visible", group=2, windows="staggered"), evidence=LISTED, exempt=True),
        one("share_two", Plan(boards=1, ranks=2, gpu="share"), Plan(boards=4, ranks=8, gpu="share")),
        one("share_four", Plan(boards=1, ranks=4, gpu="share"), Plan(boards=2, ranks=8, gpu="share")),
        one("shared_device", Plan(boards=1, ranks=2), Plan(boards=2, ranks=4), Plan(boards=1, ranks=4)),
        one("shared_device_staggered", Plan(boards=1, ranks=2, windows="staggered"), exempt=True),
        one("shared_device_nested", Plan(boards=2, ranks=4, windows="nested"), exempt=True),
        one("rank0", Plan(gpu="rank0"), Plan(gpu="rank0", hosts=2), always=True),
        one("rank0_reads_all_others_own", Plan(gpu="mixed"), Plan(gpu="mixed", hosts=2)),
        one("rank0_reads_all_staggered", Plan(gpu="mixed", windows="staggered"), exempt=True),
        one("containers_own", Plan(boards=2), Plan(), evidence=CONTAINERS),
        one("containers_all", Plan(boards=2, gpu="visible", group=2), evidence=replace(LISTED, containers=True)),
        one("containers_host", Plan(gpu="host"), evidence=CONTAINERS),
        one("cpu_in_each", Plan(cpu="each"), Plan(cpu="each", ram="each", hosts=2)),
        one("cpu_in_each_noise_5", Plan(cpu="each", noise=0.05), Plan(cpu="each", ram="each", gpu="host", noise=0.05)),
        one("cpu_in_rank0", Plan(cpu="rank0", ram="rank0"), Plan(cpu="rank0", hosts=2)),
        one("cpu_model_in_each", Plan(cpu="constant"), Plan(cpu="constant", hosts=2, gpu="host")),
        one("cpu_share", Plan(cpu="share"), Plan(cpu="share", ram="each")),
        one("cpu_only", Plan(gpu="none", cpu="each", ram="each"), Plan(gpu="none", cpu="share")),
        one("dies_of_modules", Plan(model=sim.MI250X, boards=2), Plan(model=sim.MI250X)),
        one("slices_read_the_board", Plan(boards=1, ranks=2, mig=True), Plan(boards=2, ranks=4, mig=True), exempt=True),
        one("slices_share", Plan(boards=1, ranks=2, mig=True, gpu="share")),
        one("module_with_cpu", Plan(model=sim.GH200, boards=1, hosts=2, cpu="each"), exempt=True),
        one("module_without_cpu", Plan(model=sim.GH200_GPU_ONLY, boards=1, hosts=2, cpu="each"), exempt=True),
    ]
    for noise in NOISES:
        percent = round(100 * noise)
        classes += [
            one(f"own_noise_{percent}", *(Plan(noise=noise, load=HIGH, hosts=n) for n in (1, 2))),
            one(f"host_noise_{percent}", Plan(noise=noise, gpu="host"), Plan(noise=noise, gpu="host", load=HIGH)),
            one(f"host_nested_noise_{percent}", Plan(noise=noise, gpu="host", windows="nested")),
        ]
    return classes


def _none() -> list[SimulatedClass]:
    def one(name: str, *variants: Plan, evidence: Evidence = NONE, always: bool = False) -> SimulatedClass:
        plans = tuple(replace(plan, evidence=evidence) for plan in variants)
        return SimulatedClass(f"none_{name}", plans, "none", always=always)

    sizes = (2, 4)
    host = Plan(gpu="host")
    classes = [
        one("single_process", Plan(boards=1), Plan(boards=1, cpu="each"), always=True),
        one("own", *(Plan(boards=n, load=load) for n in (2, 4, 8) for load in (LOW, MIDDLE, HIGH))),
        one(
            "own_named_boards", *(Plan(boards=n, load=load) for n in sizes for load in (LOW, HIGH)), evidence=ALL_NAMES
        ),
        one("own_null_index", *(Plan(boards=n, load=load) for n in sizes for load in (LOW, HIGH)), evidence=NULL_INDEX),
        one("own_pods", Plan(), Plan(load=LOW), evidence=replace(ZERO_INDEX, boards="one")),
        one("own_two_hosts", *(Plan(hosts=2, boards=n) for n in (1, 2, 4))),
        one("own_two_hosts_named", *(Plan(hosts=2, boards=n, load=HIGH) for n in (2, 4)), evidence=ALL_NAMES),
        one("own_unknown_board", Plan(model=sim.UNKNOWN_BOARD), Plan(model=sim.AMBIGUOUS_A100)),
        one("own_no_name", Plan(), Plan(boards=2), evidence=Evidence(boards="none", index="null")),
        one("own_staggered", Plan(windows="staggered"), Plan(windows="partial")),
        one("own_equal_power", Plan(spread=0.0, ripple=0.0), Plan(spread=0.01, hosts=2)),
        one("own_cpu_in_each", Plan(cpu="each"), Plan(cpu="each", ram="each", boards=2)),
        one("own_cpu_in_each_noise_5", Plan(cpu="each", noise=0.05), Plan(cpu="each", hosts=2, noise=0.05)),
        one("own_cpu_in_rank0", Plan(cpu="rank0"), Plan(cpu="rank0", boards=2)),
        one("own_cpu_model", Plan(cpu="constant"), Plan(cpu="constant", boards=2, load=LOW)),
        one("own_cpu_model_two_hosts", Plan(cpu="constant", hosts=2, boards=2)),
        one("own_cpu_share", Plan(cpu="share"), Plan(cpu="share", boards=2)),
        one("own_total_only", Plan(), Plan(cpu="share"), evidence=Evidence(only_total=True)),
        one("own_short_duration", Plan(boards=2, load=HIGH), Plan(load=HIGH), evidence=Evidence(window="short")),
        one("own_field_times", Plan(), Plan(load=HIGH), Plan(boards=1), evidence=Evidence(window="field")),
        one("own_missing_rank", Plan(missing=1), Plan(missing=2)),
        one("own_raised_geforce", Plan(model=sim.RTX_4090_RAISED, boards=2, load=HIGH)),
        one("own_raised_geforce_named", Plan(model=sim.RTX_3090_RAISED, load=HIGH), evidence=ALL_NAMES),
        one("own_stated_limit", Plan(load=HIGH), evidence=Evidence(limit=True, boards="all")),
        one("own_lowered_limit", Plan(model=sim.A100_LOWERED, load=HIGH), evidence=Evidence(limit=True, boards="all")),
        one("own_many_ranks", Plan(hosts=4, boards=8), Plan(hosts=8, boards=4)),
        one("own_cyclic", *(Plan(hosts=2, boards=n, cyclic=True) for n in (1, 2, 4))),
        one("own_cyclic_local_rank", Plan(hosts=2, cyclic=True, load=HIGH), evidence=LOCAL_RANK),
        one("host_cyclic", *(Plan(hosts=2, boards=n, cyclic=True, gpu="host", spread=0.4) for n in (2, 4))),
        one("host_cyclic_named", Plan(hosts=2, cyclic=True, gpu="host", load=HIGH), evidence=NULL_INDEX),
        one("host_cyclic_local_rank", Plan(hosts=2, cyclic=True, gpu="host", load=HIGH), evidence=LOCAL_RANK),
        one("own_cpu_scope", Plan(cpu="each", ram="each"), Plan(cpu="each", load=HIGH), evidence=CPU_SCOPE),
        one("own_cpu_scope_two_hosts", Plan(cpu="each", ram="each", hosts=2, boards=2), evidence=CPU_SCOPE),
        one("host_cpu_scope", Plan(cpu="each", ram="each", gpu="host"), evidence=CPU_SCOPE),
        one("own_waves", Plan(windows="waves"), Plan(windows="waves", hosts=2)),
        one("each_drives_several", *(Plan(boards=8, driven=n, gpu="driven", load=HIGH) for n in (2, 4))),
        one(
            "each_drives_several_index_0", *(Plan(driven=2, gpu="driven", hosts=n) for n in (1, 2)), evidence=ZERO_INDEX
        ),
        one("each_drives_several_named", Plan(driven=2, gpu="driven", load=HIGH), evidence=ALL_NAMES),
        one("own_local_rank", Plan(), Plan(load=HIGH), evidence=LOCAL_RANK),
        one("own_local_rank_two_hosts", Plan(hosts=2), Plan(hosts=2, load=HIGH), evidence=LOCAL_RANK),
        one("own_hostname", Plan(), Plan(hosts=2), evidence=Evidence(host=True)),
        one("own_uuid", Plan(), Plan(hosts=2), evidence=Evidence(uuid=True)),
        one("own_boot_id", Plan(), Plan(hosts=2), evidence=Evidence(boot=True, containers=True, host=True)),
        one("own_listed", Plan(), Plan(hosts=2), evidence=Evidence(devices="energies")),
        one("host", *(Plan(gpu="host", boards=n, load=load) for n in sizes for load in (LOW, MIDDLE, HIGH))),
        one("host_named_boards", replace(host, load=HIGH), replace(host, load=MIDDLE), evidence=ALL_NAMES),
        one("host_null_index", replace(host, load=HIGH), replace(host, load=LOW), evidence=NULL_INDEX),
        one("host_two_hosts", Plan(gpu="host", hosts=2, boards=2), Plan(gpu="host", hosts=2)),
        one("host_two_hosts_named", Plan(gpu="host", hosts=2, boards=2, load=HIGH), evidence=NULL_INDEX),
        one("host_staggered", Plan(gpu="host", windows="staggered"), evidence=NULL_INDEX),
        one("host_nested", Plan(gpu="host", windows="nested"), evidence=NULL_INDEX),
        one("host_waves", Plan(gpu="host", windows="waves"), evidence=NULL_INDEX),
        one("host_overhead", Plan(gpu="host", overhead=0.17, load=HIGH), evidence=NULL_INDEX),
        one("host_rest", Plan(gpu="host", cpu="each", rest="each"), Plan(gpu="host", rest="each", hosts=2)),
        one("own_rest_in_rank0", Plan(rest="rank0", cpu="rank0"), Plan(rest="rank0", load=HIGH)),
        one("own_rest_in_each", Plan(rest="each"), Plan(rest="each", hosts=2, boards=2)),
        one("host_many_ranks", Plan(hosts=2, boards=8, gpu="host"), Plan(hosts=4, boards=4, gpu="host")),
        one("host_length_only", Plan(gpu="host", windows="same_start", load=HIGH), evidence=LEGACY_UNRANKED),
        one("host_total_only", Plan(gpu="host", cpu="each"), Plan(gpu="host"), evidence=Evidence(only_total=True)),
        one(
            "host_lowered_limit", Plan(model=sim.A100_LOWERED, gpu="host"), evidence=Evidence(limit=True, boards="all")
        ),
        one("host_local_rank", replace(host, load=HIGH), replace(host, load=MIDDLE), evidence=LOCAL_RANK),
        one("host_hostname", replace(host, load=HIGH), replace(host, load=LOW), evidence=Evidence(host=True)),
        one("host_missing_rank", Plan(gpu="host", missing=1), Plan(gpu="host", missing=1, load=HIGH)),
        one("host_cpu_model", Plan(gpu="host", cpu="constant"), Plan(gpu="host", cpu="constant", boards=2)),
        one("visible_pairs", *(Plan(gpu="visible", group=2, load=load) for load in (LOW, MIDDLE, HIGH))),
        one("visible_pairs_listed", Plan(gpu="visible", group=2), evidence=Evidence(devices="listed")),
        one(
            "two_groups_of_four",
            Plan(boards=8, gpu="visible", group=4, load=HIGH),
            Plan(boards=8, gpu="visible", group=4),
        ),
        one("two_groups_of_four_named", Plan(boards=8, gpu="visible", group=4, load=HIGH), evidence=NULL_INDEX),
        one("shared_device", Plan(boards=1, ranks=2), Plan(boards=2, ranks=4), Plan(boards=4, ranks=8)),
        one("two_per_board", Plan(ranks=8), Plan(boards=2, ranks=4), evidence=NULL_INDEX),
        one("three_per_board", Plan(boards=1, ranks=3), Plan(boards=2, ranks=6), evidence=NULL_INDEX),
        one("four_per_board", Plan(boards=1, ranks=4), Plan(boards=2, ranks=8), evidence=NULL_INDEX),
        one("share_two", Plan(boards=1, ranks=2, gpu="share"), Plan(boards=2, ranks=4, gpu="share")),
        one("share_four_null_index", Plan(boards=2, ranks=8, gpu="share"), evidence=NULL_INDEX),
        one("rank0", *(Plan(gpu="rank0", boards=n) for n in sizes), always=True),
        one("rank0_zeros", Plan(gpu="rank0"), evidence=Evidence(zero=True, index="null"), always=True),
        one("rank0_with_cpu", Plan(gpu="rank0", cpu="rank0", ram="rank0"), evidence=ALL_NAMES, always=True),
        one("serial_own", Plan(windows="serial"), Plan(windows="serial", boards=2), always=True),
        one("serial_host", Plan(gpu="host", windows="serial"), evidence=NULL_INDEX, always=True),
        one("rank0_reads_all_others_own", Plan(gpu="mixed"), Plan(gpu="mixed", load=HIGH), evidence=ALL_NAMES),
        one("rank0_reads_all_unnamed", Plan(gpu="mixed", boards=2), Plan(gpu="mixed", load=HIGH)),
        one("dies_of_modules", Plan(model=sim.MI250X, boards=2), Plan(model=sim.MI250X)),
        one("slices_read_the_board", Plan(boards=1, ranks=2, mig=True)),
        one("slices_share", Plan(boards=1, ranks=2, mig=True, gpu="share")),
        one("module_with_cpu", Plan(model=sim.GH200, boards=1, cpu="each"), Plan(model=sim.GH200, boards=1, hosts=2)),
        one("module_without_cpu", Plan(model=sim.GH200_GPU_ONLY, boards=1, cpu="each")),
    ]
    for noise in NOISES:
        percent = round(100 * noise)
        classes += [
            one(f"own_noise_{percent}", *(Plan(noise=noise, load=HIGH, boards=n) for n in (2, 4))),
            one(f"host_noise_{percent}", Plan(noise=noise, gpu="host", load=HIGH), evidence=NULL_INDEX),
        ]
    return classes


def _known_tool() -> list[SimulatedClass]:
    """Records of the earliest files: the local rank is known, and the tool reads the host. The times are not known."""
    host = Plan(gpu="host", cpu="constant", windows="same_start", load=MIDDLE, noise=0.01, evidence=LEGACY)
    return [
        SimulatedClass("tool_legacy_host", (host, replace(host, load=HIGH)), "none"),
        SimulatedClass("tool_legacy_two_ranks", (replace(host, ranks=2), replace(host, ranks=3)), "none"),
        SimulatedClass("tool_legacy_two_hosts", (replace(host, hosts=2), replace(host, hosts=2, boards=2)), "none"),
        SimulatedClass("tool_legacy_cyclic", (replace(host, hosts=2, cyclic=True),), "none"),
        SimulatedClass(
            "tool_legacy_missing_rank", (replace(host, missing=1), replace(host, hosts=2, missing=1)), "none"
        ),
        SimulatedClass("tool_legacy_single_process", (replace(host, ranks=1),), "none", always=True),
    ]


def _cases() -> list[SimulatedClass]:
    """The 16 cases of known wrong answers, with powers, lengths and counts that vary."""
    all_null = Evidence(index="null", boards="all")
    any_load = (LOW, MIDDLE, HIGH)
    pods = replace(ZERO_INDEX, boards="one")
    h100 = Plan(model=sim.H100, gpu="host")

    def one(number: int, name: str, *plans: Plan, evidence: Evidence | None = None) -> SimulatedClass:
        given = plans if evidence is None else tuple(replace(plan, evidence=evidence) for plan in plans)
        is_full = all(plan.evidence.scope for plan in given)
        return SimulatedClass(f"case_{number:02d}_{name}", given, "full" if is_full else "none")

    return [
        one(1, "two_nodes_index_0", *(Plan(hosts=2, boards=1, load=load, spread=0.4) for load in any_load)),
        one(2, "masked_index_0", *(Plan(load=load, spread=0.3) for load in any_load), evidence=ZERO_INDEX),
        one(3, "groups_above_one_limit", Plan(gpu="visible", group=2, load=(0.8, 0.98))),
        one(4, "two_processes_per_board", *(Plan(ranks=8, load=load) for load in any_load), evidence=all_null),
        one(5, "pods", *(Plan(load=load) for load in any_load), evidence=pods),
        one(6, "rank0_reads_node", Plan(gpu="mixed", load=HIGH), Plan(gpu="mixed", load=MIDDLE), evidence=ALL_NAMES),
        one(7, "both_read_both_below_limit", replace(h100, boards=2, load=(0.3, 0.49))),
        one(8, "all_read_all_below_limit", replace(h100, load=(0.15, 0.249))),
        one(9, "eight_unknown_boards", Plan(model=sim.UNKNOWN_BOARD, boards=8, gpu="host")),
        one(
            10,
            "containers_both_read_both",
            Plan(model=sim.H100, boards=2, gpu="visible", group=2),
            evidence=replace(LISTED, containers=True),
        ),
        one(11, "containers_own", Plan(model=sim.H100, boards=2), evidence=CONTAINERS),
        one(12, "raised_geforce", Plan(model=sim.RTX_4090_RAISED, boards=2, load=(0.8, 0.95))),
        one(13, "host_touching", Plan(gpu="host", windows="touching", ranks=2), evidence=FULL),
        one(14, "cpu_model_each", *(Plan(cpu="constant", load=load) for load in any_load)),
        one(15, "two_shares", *(Plan(boards=1, ranks=2, gpu="share", load=load) for load in any_load)),
        one(
            16,
            "two_nodes_each_read",
            *(Plan(hosts=2, boards=2, gpu="host", load=load) for load in (HIGH, MIDDLE)),
            evidence=all_null,
        ),
    ]


def _assumed() -> list[SimulatedClass]:
    def one(name: str, *plans: Plan, assume: tuple[str, ...], exempt: bool = False) -> SimulatedClass:
        return SimulatedClass(f"assume_{name}", plans, "assumed", exempt=exempt, assume=assume)

    device, host, process = (("device", "hosts"), ("host", "hosts"), ("process", "hosts"))
    return [
        one("device_own", *(Plan(boards=n, load=load) for n in (2, 4, 8) for load in (LOW, HIGH)), assume=device),
        one("device_own_two_hosts", *(Plan(hosts=2, boards=n, load=HIGH) for n in (1, 2, 4)), assume=device),
        one("device_own_noise", Plan(noise=0.05), Plan(noise=0.05, hosts=2), assume=device),
        one("device_own_cpu_in_rank0", Plan(cpu="rank0"), Plan(cpu="rank0", ram="rank0"), assume=device),
        one(
            "host_whole", *(Plan(gpu="host", boards=n, load=load) for n in (2, 4) for load in (LOW, HIGH)), assume=host
        ),
        one("host_whole_named", Plan(gpu="host", evidence=NULL_INDEX), assume=host),
        one("host_whole_two_hosts", Plan(gpu="host", hosts=2, boards=2), Plan(gpu="host", hosts=2), assume=host),
        one("host_whole_noise", Plan(gpu="host", noise=0.05), assume=host),
        one("host_whole_cpu_model", Plan(gpu="host", cpu="constant"), assume=host),
        one("process_share", Plan(boards=1, ranks=2, gpu="share"), Plan(ranks=8, gpu="share"), assume=process),
        one("process_share_two_hosts", Plan(hosts=2, boards=1, ranks=2, gpu="share"), assume=process),
        one("boards_of_groups", Plan(gpu="visible", group=2, load=(0.8, 0.98)), assume=("boards",), exempt=True),
        one("one_host_two_per_board", Plan(ranks=8, evidence=NULL_INDEX), assume=("hosts",), exempt=True),
    ]


def _random_plan(rng: Random, gpu: GpuReading) -> Plan:
    """Any combination of a world and evidence in which no evidence is false."""
    noise = rng.choice((0.0, 0.01, 0.05, 0.10))
    hosts, boards = rng.choice(((1, 1), (1, 2), (1, 4), (1, 8), (2, 1), (2, 2), (2, 4), (3, 2)))
    has_scope = rng.random() < 0.2
    evidence = Evidence(
        scope=has_scope,
        host=rng.random() < 0.3,
        boot=rng.random() < 0.3,
        uuid=rng.random() < 0.3,
        # An index that a mask has changed is false next to the scope `device`.
        index=rng.choice(("real", "null") if has_scope else ("real", "zero", "null")),
        local_rank=rng.random() < 0.4,
        boards=rng.choice(("bare", "all", "one", "none")),
        # A reading of several boards with the scope `device` has to list them.
        devices="energies" if has_scope and gpu == "visible" else rng.choice(("no", "no", "listed")),
        window=rng.choice(("full", "duration", "run", "short", "field")),
        limit=rng.random() < 0.3,
        naive=rng.random() < 0.5,
    )
    return Plan(
        model=rng.choice((sim.A100, sim.A100_SXM, sim.H100, sim.L4, sim.UNKNOWN_BOARD, sim.AMBIGUOUS_A100)),
        hosts=hosts,
        boards=boards,
        ranks=boards * rng.choice((1, 1, 2)) if gpu != "visible" else boards,
        gpu=gpu,
        group=max(boards // 2, 1),
        cpu=rng.choice(("none", "none", "each", "rank0", "constant", "share")),
        ram=rng.choice(("none", "none", "each", "rank0")),
        cyclic=rng.random() < 0.3,
        missing=rng.choice((0, 0, 0, 1)) if boards > 1 and gpu != "rank0" else 0,
        windows=rng.choice(
            ("same", "same", "slightly_staggered", "staggered", "partial", "nested", "same_start", "serial")
        ),
        load=rng.choice((LOW, MIDDLE, HIGH)),
        spread=rng.choice((0.0, 0.05, 0.2, 0.5)) if noise <= 0.05 else 0.05,
        ripple=rng.choice((0.0, 0.15, 0.5)),
        noise=noise,
        evidence=evidence,
    )


def _random() -> list[SimulatedClass]:
    patterns: tuple[GpuReading, ...] = ("own", "host", "visible", "share", "mixed", "rank0")
    scopes: tuple[tuple[GpuReading, str], ...] = (("own", "device"), ("host", "host"), ("share", "process"))
    return [
        *(
            SimulatedClass(f"random_{gpu}", tuple(_random_plan(Random(f"{gpu} {i}"), gpu) for i in range(1000)), "none")
            for gpu in patterns
        ),
        *(_with_lost_facts(gpu) for gpu in patterns),
        *(_assumed_at_random(gpu, scope) for gpu, scope in scopes),
    ]


def _with_lost_facts(gpu: GpuReading) -> SimulatedClass:
    """Random worlds with full evidence, in which each record lacks some facts that others have."""
    rng = Random(f"lost {gpu}")
    plans = (_random_plan(Random(f"lost {gpu} {i}"), gpu) for i in range(1000))
    full = replace(FULL, devices="energies" if gpu == "visible" else "no", sensors=False)
    stated = tuple(replace(plan, evidence=replace(full, lost_facts=rng.choice((0.15, 0.5)))) for plan in plans)
    return SimulatedClass(f"lost_facts_{gpu}", stated, "none")


def _assumed_at_random(gpu: GpuReading, scope: str) -> SimulatedClass:
    """Random plans whose scope the user states; an assumption about devices needs their index on the host."""
    plans = (_random_plan(Random(f"assume {gpu} {i}"), gpu) for i in range(1000))
    stated = tuple(
        replace(plan, evidence=replace(plan.evidence, scope=False, index="real"), cyclic=False, missing=0)
        for plan in plans
    )
    return SimulatedClass(f"assume_random_{gpu}", stated, "assumed", exempt=True, assume=(scope, "hosts"))


def _near_limit() -> list[SimulatedClass]:
    """Honest runs whose true power is just below the limit of the boards, read by sensors with 10 % of noise."""
    stated, from_table = FULL, replace(FULL, limit=False, boards="all")
    unknown = Evidence(host=True, limit=True, boards="all")
    classes: list[SimulatedClass] = []
    for percent in (90, 95, 99.5):
        plans = {
            "nodes_8": Plan(hosts=8, gpu="rank0", evidence=from_table),
            "shares_8": Plan(ranks=8, gpu="share", evidence=stated),
            "unknown_scope_4": Plan(evidence=unknown),
            "unknown_scope_8_hosts": Plan(hosts=8, boards=2, evidence=unknown),
        }
        for boards in (1, 4, 8):
            plans[f"own_stated_{boards}"] = Plan(boards=boards, evidence=stated)
            plans[f"own_table_{boards}"] = Plan(boards=boards, evidence=from_table)
        for boards in (4, 8):
            plans[f"node_stated_{boards}"] = Plan(boards=boards, gpu="rank0", evidence=replace(stated, boards="all"))
            plans[f"node_table_{boards}"] = Plan(boards=boards, gpu="rank0", evidence=from_table)
        for name, plan in plans.items():
            exact = (plan.model.limit_w * percent / 100,) * (plan.hosts * plan.boards)
            noisy = replace(plan, noise=0.10, board_w=exact)
            level: Level = "full" if plan.evidence.scope else "none"
            classes.append(SimulatedClass(f"limit_{name}_at_{percent:g}", (noisy,), level))
    return classes


CLASSES: tuple[SimulatedClass, ...] = (
    *_full(),
    *_none(),
    *_near_limit(),
    *_known_tool(),
    *_cases(),
    *_assumed(),
    *_random(),
)
