"""Bulk aggregation, catalogue and lists at named sizes, each beside its floor and its rivals in the same run.

Usage: python benchmarks/bulk.py [SIZE] [--folder FOLDER] [--runs N] [--only PART,...]

SIZE is 100, 1k, 10k (default) or 100k experiments, of 8 processes each; FOLDER decides the disk (default: a temporary
folder on the disk of the current one) and is used again if it holds that size already. What is compared takes turns,
so that drift hits all alike, and every measurement is a process of its own; N is 5 by default, and medians are shown.

Parts: aggregate (beside the floor: the same files read and the same aggregate bytes written with bare system calls),
disk (the same with the system's cache emptied before each, which only root can), steps (processor time of what
aggregation does in memory), rivals (the same files read into memory by others; those that are not installed are left
out, by name), unchanged, list, memory.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _installed import compile_package
from _results import PROCESSES, SIZES, make_raw, name_of, record

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS = ("aggregate", "disk", "steps", "rivals", "unchanged", "list", "memory")
TOOL = str(Path(sys.executable).with_name("llm-energy-measure"))


# What is measured, each in a process of its own: it returns how much it did.


def ours(folder: Path, jobs: str) -> int:
    """`aggregate_all`, synced once a batch."""
    from llm_energy_measure.results import FileSystemRepository, aggregate_all

    outcomes = aggregate_all(FileSystemRepository(folder), jobs=int(jobs))
    return sum(outcome.result == "aggregated" for outcome in outcomes)


def ours_in_memory(folder: Path) -> int:
    """`recover_all`: every field read, checked and hashed, and the sum of each experiment."""
    from llm_energy_measure.results import FileSystemRepository, recover_all

    totals = {}
    for name, recovery in recover_all(FileSystemRepository(folder)):
        totals[name] = sum(result.energy_metrics.total_energy_j or 0.0 for result in recovery.results)
    return len(totals)


def floor(folder: Path, target: str) -> int:
    """Read the same files, and write as many bytes as each aggregate has; nothing is decoded, renamed or synced."""
    out = os.open(target, os.O_RDONLY)
    raw = os.open(folder / "raw", os.O_RDONLY)
    sizes = json.loads((folder / "sizes.json").read_bytes())
    for name in sorted(os.listdir(raw)):  # noqa: PTH208 - the floor is a bare call
        place = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=raw)
        parts = []
        for file in os.listdir(place):  # noqa: PTH208 - as above
            descriptor = os.open(file, os.O_RDONLY, dir_fd=place)
            parts.append(os.read(descriptor, 1 << 16))
            os.close(descriptor)
        os.close(place)
        data = b"".join(parts).ljust(sizes[name])[: sizes[name]]
        descriptor = os.open(f"{name}.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=out)
        os.write(descriptor, data)
        os.close(descriptor)
    return len(sizes)


def floor_of_mtimes(folder: Path) -> int:
    """List both folders with the stamp of each entry."""
    count = 0
    for name in ("raw", "aggregated"):
        with os.scandir(folder / name) as entries:
            count += sum(entry.stat(follow_symlinks=False).st_mtime_ns > 0 for entry in entries)
    return count


def loop_of_pydantic(folder: Path) -> int:
    """A loop over the files with a pydantic model of the fields that they fill, and the sum of each experiment."""
    from datetime import datetime  # noqa: TC003 - pydantic reads the annotation at run time

    import pydantic

    class Times(pydantic.BaseModel):
        start: datetime
        end: datetime
        duration_sec: float

    class Work(pydantic.BaseModel):
        total_tokens: int
        input_tokens: int
        output_tokens: int
        inference_time_sec: float
        tokens_per_second: float

    class Energy(pydantic.BaseModel):
        total_energy_j: float
        duration_sec: float | None
        gpu_energy_j: float | None
        cpu_energy_j: float | None
        ram_energy_j: float | None
        gpu_power_w: float | None
        total_scope: str | None
        gpu_scope: str | None
        gpu_provenance: str | None

    class Compute(pydantic.BaseModel):
        flops_total: float | None
        flops_method: str | None
        flops_confidence: str | None
        compute_precision: str | None

    class Record(pydantic.BaseModel):
        schema_version: str
        experiment_id: str
        backend: str | None
        backend_version: str | None
        process_index: int
        gpu_id: int | None
        gpu_name: str | None
        gpu_is_mig: bool | None
        config_name: str
        model_name: str
        timestamps: Times
        inference_metrics: Work
        energy_metrics: Energy
        compute_metrics: Compute
        world_size: int | None
        host: str | None
        gpu_uuid: str | None
        gpu_power_limit_w: float | None
        effective_config: dict[str, Any]

    totals: dict[str, float] = {}
    for place in (folder / "raw").iterdir():
        for path in place.glob("process_*.json"):
            record = Record.model_validate_json(path.read_bytes())
            totals[record.experiment_id] = totals.get(record.experiment_id, 0.0) + record.energy_metrics.total_energy_j
    return len(totals)


def loop_of_json(folder: Path) -> int:
    """The loop that everybody writes: `json.load`, and the sum of each experiment."""
    totals: dict[str, float] = {}
    for place in (folder / "raw").iterdir():
        for path in place.glob("process_*.json"):
            with path.open(encoding="utf-8") as file:
                record = json.load(file)
            name = record["experiment_id"]
            totals[name] = totals.get(name, 0.0) + record["energy_metrics"]["total_energy_j"]
    return len(totals)


def frame_of_polars(folder: Path) -> int:
    """A frame of every file, joined, and the sum of each experiment."""
    import polars as pl

    frames = [
        pl.read_json(path).select("experiment_id", pl.col("energy_metrics").struct.field("total_energy_j"))
        for path in (folder / "raw").glob("*/process_*.json")
    ]
    return pl.concat(frames).group_by("experiment_id").agg(pl.col("total_energy_j").sum()).height


def query_of_duckdb(folder: Path) -> int:
    """`read_json` over all files, and the sum of each experiment."""
    import duckdb

    query = (
        f"SELECT experiment_id, sum(energy_metrics.total_energy_j) FROM read_json('{folder}/raw/*/process_*.json') "  # noqa: S608 - a folder of ours
        "GROUP BY 1"
    )
    return len(duckdb.sql(query).fetchall())


WORK: dict[str, Callable[..., int]] = {
    function.__name__: function
    for function in (
        *(ours, ours_in_memory, floor, floor_of_mtimes),
        *(loop_of_pydantic, loop_of_json, frame_of_polars, query_of_duckdb),
    )
}


def work(name: str, *arguments: str) -> None:
    """Do one of them, and print seconds, amount and peak memory."""
    folder, *more = arguments
    cpu, start = _cpu_sec(), time.perf_counter()
    amount = WORK[name](Path(folder), *more)
    seconds, cpu = time.perf_counter() - start, _cpu_sec() - cpu
    peak = max(resource.getrusage(who).ru_maxrss for who in _WHO)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "amount": amount, "peak_mib": peak / 1024}))


_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def _cpu_sec() -> float:
    """Processor time of this process and of those that it has waited for: a busy machine hardly changes it."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, _WHO))


# Measuring


def measured(name: str, *arguments: object) -> dict[str, float]:
    """One of them, in a process of its own; empty if it needs what is not installed."""
    command = [sys.executable, __file__, "--work", name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "ModuleNotFoundError" in done.stderr:
        return {}
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def whole(*arguments: object) -> float:
    """Wall time of a whole process of the command."""
    start = time.perf_counter()
    subprocess.run([TOOL, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def show(title: str, seconds: list[float], base: float | None = None, amount: int = 1, note: str = "") -> float:
    """One line: median, best and ratio; returns the median."""
    median = statistics.median(seconds)
    ratio = f"{median / base:6.2f} x" if base else "        "
    print(
        f"{median:9.3f} s median {min(seconds):9.3f} best {median / amount * 1e6:9.1f} us each {ratio}  {title}{note}"
    )
    return median


def prepared(folder: Path, experiments: int) -> Path:
    """The folder with raw results of that many experiments, and the size of each aggregate for the floor."""
    if not (folder / "sizes.json").exists():
        shutil.rmtree(folder / "raw", ignore_errors=True)
        make_raw(folder, experiments)
        measured("ours", folder, 1)
        sizes = {path.stem: path.stat().st_size for path in (folder / "aggregated").iterdir()}
        (folder / "sizes.json").write_text(json.dumps(sizes))
    return folder


def set_aside(folder: Path, number: int) -> Path:
    """Put the aggregates out of the way: they are removed when nothing is measured any more."""
    aside = folder / f"aside_{number}"
    with contextlib.suppress(FileNotFoundError):
        (folder / "aggregated").rename(aside)
    return aside


def part_disk(folder: Path, experiments: int, runs: int) -> None:
    """As `part_aggregate`, with the files on the disk: nobody has read them since they were written."""
    if forgotten():
        part_aggregate(folder, experiments, runs, from_disk=True)
    else:
        print("\n(left out: disk, since only root can empty the system's cache)")


def part_aggregate(folder: Path, experiments: int, runs: int, *, from_disk: bool = False) -> None:
    """Ours with one process and with two, beside the floor; fresh output folders for all."""

    def one(*arguments: object) -> dict[str, float]:
        if from_disk:
            forgotten()
        else:
            remembered(folder)
        return measured(*arguments)

    times: dict[str, list[float]] = {"floor": [], "ours, 1 process": [], "ours, 2 processes": []}
    cpu: dict[str, list[float]] = {title: [] for title in times}
    peaks: dict[str, float] = {}
    aside = []
    for run in range(runs):
        target = folder / f"floor_{run}"
        target.mkdir()
        aside.append(target)
        found = {"floor": one("floor", folder, target)}
        for jobs, title in ((1, "ours, 1 process"), (2, "ours, 2 processes")):
            aside.append(set_aside(folder, 10 * run + jobs))
            found[title] = one("ours", folder, jobs)
        for title, told in found.items():
            times[title].append(told["seconds"])
            cpu[title].append(told["cpu"])
            peaks[title] = max(peaks.get(title, 0.0), told["peak_mib"])
    for path in aside:
        shutil.rmtree(path, ignore_errors=True)
    print(f"\naggregate {experiments} x {PROCESSES}, durable and verified, from the {'disk' if from_disk else 'cache'}")
    base = show("floor: read, write, no sync", times["floor"], None, experiments)
    for title in ("ours, 1 process", "ours, 2 processes"):
        show(title, times[title], base, experiments, f", peak {peaks[title]:.0f} MiB")
    # Of two processes only this one's own would be told.
    least = {title: min(cpu[title]) for title in ("floor", "ours, 1 process")}
    print("processor time, best: ", end="")
    print(", ".join(f"{least[t]:.2f} s ({least[t] / least['floor']:.1f} x) {t}" for t in least))
    print(f"the promise: at most 1.5 x with one, below 1 x with two (best of {runs}: ", end="")
    best = min(times["floor"])
    print(", ".join(f"{min(times[title]) / best:.2f} x {title}" for title in times if title != "floor") + ")")


def part_steps(_folder: Path, _experiments: int, runs: int) -> None:
    """Processor time of the steps of aggregation that touch no file, over 300 experiments."""
    from llm_energy_measure.domain.experiment import Manifest
    from llm_energy_measure.results import aggregate_results
    from llm_energy_measure.results.store import codec

    count = 300
    files = [[codec.encode_raw(record(number, process)) for process in range(PROCESSES)] for number in range(count)]
    manifests = [Manifest(experiment_id=name_of(number)) for number in range(count)]
    times: dict[str, list[float]] = {"decode and hash": [], "aggregate and verify": [], "encode": []}
    for _ in range(runs):
        marks = [time.process_time()]
        raws = [[codec.decode_raw(data, f"process_{index}.json") for index, data in enumerate(one)] for one in files]
        marks.append(time.process_time())
        results = [
            aggregate_results(manifest.experiment_id, raw, manifest=manifest)
            for manifest, raw in zip(manifests, raws, strict=True)
        ]
        marks.append(time.process_time())
        for result in results:
            codec.encode_aggregated(result)
        marks.append(time.process_time())
        for title, (before, after) in zip(times, pairwise(marks), strict=True):
            times[title].append(after - before)
    print(f"\nprocessor time of {PROCESSES} results in memory")
    for title, values in times.items():
        show(title, values, None, count)


def part_rivals(folder: Path, experiments: int, runs: int) -> None:
    """Others over the same files, in memory and without writing anything."""
    names = ("ours_in_memory", "loop_of_json", "loop_of_pydantic", "frame_of_polars", "query_of_duckdb", "ours")
    times: dict[str, list[float]] = {name: [] for name in names}
    for run in range(runs):
        for name in names:
            if name == "ours":
                set_aside(folder, 1000 + run)
            remembered(folder)
            found = measured(name, folder, *(["1"] if name == "ours" else []))
            if found:
                times[name].append(found["seconds"])
    for run in range(runs):
        shutil.rmtree(folder / f"aside_{1000 + run}", ignore_errors=True)
    print(f"\nthe same {experiments * PROCESSES} files in memory, and the energy of each experiment")
    base = show("ours in memory: every field read, checked, hashed", times["ours_in_memory"], None, experiments)
    for name in names[1:]:
        if times[name]:
            title = (
                "aggregate_all, which verifies and writes as well" if name == "ours" else name.replace("_of_", " of ")
            )
            show(title, times[name], base, experiments)
        else:
            print(f"  (left out: {name.rpartition('_')[2]} is not installed)")


def change(folder: Path, number: int) -> None:
    """Put another result in the place of one, as saving does: its aggregate has to be made anew."""
    path = folder / "raw" / name_of(number) / "process_0.json"
    stored = path.read_bytes()
    one, other = (b": 4096,", b": 4095,") if b": 4096," in stored else (b": 4095,", b": 4096,")
    beside = path.with_name("new")
    beside.write_bytes(stored.replace(one, other))
    beside.replace(path)


def part_unchanged(folder: Path, experiments: int, runs: int) -> None:
    """A sweep in which nothing, or one experiment, changed, as a whole process."""
    measured("ours", folder, 1)
    empty = Path(tempfile.mkdtemp(dir=folder))
    times: dict[str, list[float]] = {"scandir": [], "start": [], "nothing": [], "one": []}
    for run in range(runs):
        times["scandir"].append(measured("floor_of_mtimes", folder)["seconds"])
        times["start"].append(whole("-o", empty, "aggregate", "--all"))
        times["nothing"].append(whole("-o", folder, "aggregate", "--all"))
        change(folder, run)
        times["one"].append(whole("-o", folder, "aggregate", "--all"))
    print(f"\naggregate --all of {experiments}, nothing changed, and one result replaced by another")
    base = show("floor: scandir of both folders with stamps", times["scandir"], None, experiments)
    empty.rmdir()
    start = show("start-up: the same command without results", times["start"])
    nothing = show("nothing changed, whole process", times["nothing"], base, experiments)
    one = show("one changed, whole process", times["one"], nothing, experiments)
    print(f"the promise: at most 3 x the floor and start-up ({nothing / (3 * base + start):.2f} of that); ", end="")
    print(f"one changed 10 % more ({one / nothing - 1:+.0%})")


def part_list(folder: Path, experiments: int, runs: int) -> None:
    """Lists as whole processes, beside the same at 100."""
    measured("ours", folder, 1)
    small = Path(tempfile.mkdtemp(dir=folder))
    make_raw(small, SIZES["100"])
    measured("ours", small, 1)
    lists = {
        "list --limit 20": ["results", "list", "--limit", 20],
        "filtered and sorted": [
            *("results", "list", "--limit", 20, "--sort", "energy", "--reverse"),
            *("--where", "model ~ llama and energy_j > 1000 and date < 2026-12"),
        ],
        "--by model,precision": ["results", "list", "--by", "model,precision"],
    }
    time.sleep(3)  # stamps of just now are not trusted
    first = whole("-o", folder, *lists["list --limit 20"], "--refresh")
    whole("-o", small, *lists["list --limit 20"])
    refresh: list[float] = []
    times: dict[str, list[float]] = {}
    for _ in range(runs):
        refresh.append(whole("-o", folder, *lists["list --limit 20"], "--refresh"))
        for title, arguments in lists.items():
            times.setdefault(f"at 100: {title}", []).append(whole("-o", small, *arguments))
            times.setdefault(title, []).append(whole("-o", folder, *arguments))
    shutil.rmtree(small)
    print(f"\nresults list at {experiments}, whole processes (the first, which made the catalogue: {first:.1f} s)")
    for title in lists:
        base = show(f"at 100: {title}", times[f"at 100: {title}"])
        show(f"at {experiments}: {title}", times[title], base)
    show(f"at {experiments}: list --limit 20 --refresh", refresh)
    print("the promise at 100k: --limit 20, and filtered and sorted, at most 0.25 s and 1.5 x")


def forgotten() -> bool:
    """True if no file is in the system's cache any more: few files are always in it, and a hundred thousand not."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def remembered(folder: Path) -> None:
    """Have every raw file in the system's cache, from which it drops what it likes."""
    for place in (folder / "raw").iterdir():
        for path in place.iterdir():
            path.read_bytes()


def part_memory(folder: Path, experiments: int, runs: int) -> None:
    """Peak memory and cost an experiment, beside those of 1,000."""
    small = Path(tempfile.mkdtemp(dir=folder))
    make_raw(small, SIZES["1k"])
    places = ((SIZES["1k"], small), (experiments, folder))
    told: tuple[list[dict[str, float]], ...] = ([], [])
    is_cold = True
    for _ in range(runs):
        for (_, place), found in zip(places, told, strict=True):
            shutil.rmtree(set_aside(place, 0), ignore_errors=True)
            is_cold &= forgotten()
            found.append(measured("ours", place, 1))
    shutil.rmtree(small)
    where = "both from the disk" if is_cold else "from cache or disk, as they were: root can empty the cache"
    print(f"\npeak memory and cost of ours, 1 process: {experiments} beside {SIZES['1k']}, {where}, medians")
    less, more = (
        {name: statistics.median(run[name] for run in found) for name in ("peak_mib", "seconds", "cpu")}
        for found in told
    )
    for (count, _), one in zip(places, (less, more), strict=True):
        wall, processor = one["seconds"] / count * 1e6, one["cpu"] / count * 1e6
        print(f"{one['peak_mib']:9.1f} MiB {wall:9.1f} us each, {processor:9.1f} us of processor  {count} experiments")
    ratios = {name: more[name] / less[name] for name in less}
    share = SIZES["1k"] / experiments
    print(
        f"the promise: under 120 MB, and within 20 % of each other (memory {ratios['peak_mib']:.2f} x, "
        f"cost {ratios['seconds'] * share:.2f} x, of processor {ratios['cpu'] * share:.2f} x)"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", nargs="?", choices=SIZES, default="10k")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default=",".join(PARTS))
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=".")) if given.folder is None else given.folder
    folder.mkdir(parents=True, exist_ok=True)
    print(
        f"{given.size} experiments of {PROCESSES} processes, {given.runs} runs, Python {sys.version.split()[0]}, ",
        end="",
    )
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    compile_package()
    try:
        prepared(folder, SIZES[given.size])
        for part in given.only.split(","):
            globals()[f"part_{part}"](folder, SIZES[given.size], given.runs)
            sys.stdout.flush()
    finally:
        if given.folder is None:
            shutil.rmtree(folder)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(*sys.argv[2:])
    else:
        main()
