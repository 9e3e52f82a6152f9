"""Measure bulk aggregation, catalogue and lists, and compare them with their floor and with rivals in the same run.

Usage: python benchmarks/bulk.py [SIZE] [--folder FOLDER] [--runs N] [--only PART,...]

SIZE is 100, 1k, 10k (default) or 100k experiments with 8 processes each. Their files have the fields, the configuration
and the spelling of numbers of the field's tool (3.6 kB); `--files own` uses files that this package wrote.

FOLDER selects the disk (default: a temporary folder in the current one). If FOLDER already has results of this size,
the benchmark uses them. Alternatives take turns, so that drift affects all of them equally. Each measurement is a
separate process. The tables show medians of N runs (default 5).

A *floor* is the least work that any program needs for the same task. Parts:

files       processor time with one process on files of the field's tool and on the same records saved by this package,
            against a plain loop, a rival that works as the field's tool does, and bare calls that check nothing
jobs        wall time with jobs="auto" against jobs=1, on files of the field's tool; the sizes are 100, 500 and 1,500
            experiments, for any SIZE
aggregate   against the floor: read the same files and write as many bytes, with bare system calls
disk        the same, with the page cache emptied before each run (needs root)
steps       processor time of the steps of aggregation that are in memory
rivals      other programs that read the same files into memory; the output names rivals that are not installed
unchanged   `aggregate --all` if nothing, or one experiment, changed
list        `results list` as a whole process, against the same with 100 experiments; the first list after
            `aggregate --all`, and the first that creates the catalogue
memory      peak memory and cost per experiment, against those of 1,000 experiments
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
from typing import TYPE_CHECKING

from _installed import compile_package
from _results import PROCESSES, SIZES, Files, make_raw, name_of, record
from _rivals import (
    bare_loop,
    frame_of_polars,
    loop_of_json,
    loop_of_pydantic,
    plain_loop,
    query_of_duckdb,
    tool_of_pydantic,
)

if TYPE_CHECKING:
    from collections.abc import Callable

PARTS = ("files", "jobs", "aggregate", "disk", "steps", "rivals", "unchanged", "list", "memory")
JOBS_SIZES = (100, 500, 1_500)
TOOL = str(Path(sys.executable).with_name("llm-energy-measure"))


# The measured functions. Each runs in a separate process and returns the number of its experiments or entries.


def ours(folder: Path, jobs: str) -> int:
    """Run `aggregate_all`, which syncs once per batch."""
    from llm_energy_measure.results import FileSystemRepository, aggregate_all

    outcomes = aggregate_all(FileSystemRepository(folder), jobs="auto" if jobs == "auto" else int(jobs))
    return sum(outcome.result == "aggregated" for outcome in outcomes)


def ours_in_memory(folder: Path) -> int:
    """Run `recover_all`, which reads, checks and hashes every field; sum the energy of each experiment."""
    from llm_energy_measure.results import FileSystemRepository, recover_all

    totals = {}
    for name, recovery in recover_all(FileSystemRepository(folder)):
        totals[name] = sum(result.energy_metrics.total_energy_j or 0.0 for result in recovery.results)
    return len(totals)


def floor(folder: Path, target: str) -> int:
    """Read the same files, and write as many bytes as each aggregate has, without decoding, renaming or syncing."""
    out = os.open(target, os.O_RDONLY)
    raw = os.open(folder / "raw", os.O_RDONLY)
    sizes = json.loads((folder / "sizes.json").read_bytes())
    for name in sorted(os.listdir(raw)):  # noqa: PTH208 - the floor uses bare system calls
        experiment_folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=raw)
        parts = []
        for file in os.listdir(experiment_folder):  # noqa: PTH208 - as above
            descriptor = os.open(file, os.O_RDONLY, dir_fd=experiment_folder)
            parts.append(os.read(descriptor, 1 << 16))
            os.close(descriptor)
        os.close(experiment_folder)
        data = b"".join(parts).ljust(sizes[name])[: sizes[name]]
        descriptor = os.open(f"{name}.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=out)
        os.write(descriptor, data)
        os.close(descriptor)
    return len(sizes)


def floor_of_mtimes(folder: Path) -> int:
    """List both folders with the mtime of each entry."""
    count = 0
    for name in ("raw", "aggregated"):
        with os.scandir(folder / name) as entries:
            count += sum(entry.stat(follow_symlinks=False).st_mtime_ns > 0 for entry in entries)
    return count


WORK: dict[str, Callable[..., int]] = {
    function.__name__: function
    for function in (
        *(ours, ours_in_memory, floor, floor_of_mtimes),
        *(loop_of_pydantic, loop_of_json, frame_of_polars, query_of_duckdb, tool_of_pydantic, plain_loop, bare_loop),
    )
}


def work(name: str, *arguments: str) -> None:
    """Call one measured function; print seconds, processor seconds, amount and peak memory as JSON."""
    folder, *more = arguments
    cpu, start = _cpu_sec(), time.perf_counter()
    amount = WORK[name](Path(folder), *more)
    seconds, cpu = time.perf_counter() - start, _cpu_sec() - cpu
    peak = max(resource.getrusage(who).ru_maxrss for who in _WHO)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "amount": amount, "peak_mib": peak / 1024}))


_WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def _cpu_sec() -> float:
    """Return the processor time of this process and its ended children. Other work hardly changes this time."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, _WHO))


# Measuring


def measure(name: str, *arguments: object) -> dict[str, float]:
    """Call one measured function in a separate process; return its output, empty if it needs a missing package."""
    command = [sys.executable, __file__, "--work", name, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if "ModuleNotFoundError" in done.stderr:
        return {}
    if done.returncode:
        raise SystemExit(done.stderr)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def command_sec(*arguments: object) -> float:
    """Return the wall time of one run of the command, in seconds."""
    start = time.perf_counter()
    subprocess.run([TOOL, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def show(title: str, seconds: list[float], base: float | None = None, amount: int = 1, note: str = "") -> float:
    """Print one line with median, best and ratio; return the median."""
    median = statistics.median(seconds)
    ratio = f"{median / base:6.2f} x" if base else "        "
    print(
        f"{median:9.3f} s median {min(seconds):9.3f} best {median / amount * 1e6:9.1f} us each {ratio}  {title}{note}"
    )
    return median


def prepare(folder: Path, experiments: int, files: Files = "field") -> Path:
    """Write raw results of this many experiments, and the size of each aggregate for the floor, unless they exist."""
    if not (folder / "sizes.json").exists():
        shutil.rmtree(folder / "raw", ignore_errors=True)
        make_raw(folder, experiments, files)
        measure("ours", folder, 1)
        sizes = {path.stem: path.stat().st_size for path in (folder / "aggregated").iterdir()}
        (folder / "sizes.json").write_text(json.dumps(sizes))
    return folder


def archive_aggregates(folder: Path, number: int) -> Path:
    """Rename the folder of aggregates, and return its new path. It is deleted later, outside the measured time."""
    archive = folder / f"archive_{number}"
    with contextlib.suppress(FileNotFoundError):
        (folder / "aggregated").rename(archive)
    return archive


def part_disk(folder: Path, experiments: int, runs: int) -> None:
    """Measure as `part_aggregate`, with an empty page cache, so that each file comes from the disk."""
    if empty_page_cache():
        part_aggregate(folder, experiments, runs, from_disk=True)
    else:
        print("\n(skipped: disk, because only root can empty the page cache)")


def part_aggregate(folder: Path, experiments: int, runs: int, *, from_disk: bool = False) -> None:
    """Measure `aggregate_all` with one process and with two against the floor, each with fresh output folders."""

    def run_once(*arguments: object) -> dict[str, float]:
        if from_disk:
            empty_page_cache()
        else:
            fill_page_cache(folder)
        return measure(*arguments)

    times: dict[str, list[float]] = {"floor": [], "ours, 1 process": [], "ours, 2 processes": []}
    cpu: dict[str, list[float]] = {title: [] for title in times}
    peaks: dict[str, float] = {}
    old_folders = []
    for run in range(runs):
        target = folder / f"floor_{run}"
        target.mkdir()
        old_folders.append(target)
        found = {"floor": run_once("floor", folder, target)}
        for jobs, title in ((1, "ours, 1 process"), (2, "ours, 2 processes")):
            old_folders.append(archive_aggregates(folder, 10 * run + jobs))
            found[title] = run_once("ours", folder, jobs)
        for title, output in found.items():
            times[title].append(output["seconds"])
            cpu[title].append(output["cpu"])
            peaks[title] = max(peaks.get(title, 0.0), output["peak_mib"])
    for path in old_folders:
        shutil.rmtree(path, ignore_errors=True)
    print(f"\naggregate {experiments} x {PROCESSES}, durable and verified, from the {'disk' if from_disk else 'cache'}")
    base = show("floor: read, write, no sync", times["floor"], None, experiments)
    for title in ("ours, 1 process", "ours, 2 processes"):
        show(title, times[title], base, experiments, f", peak {peaks[title]:.0f} MiB")
    # With two processes, getrusage knows only the processor time of the first.
    least = {title: min(cpu[title]) for title in ("floor", "ours, 1 process")}
    print("processor time, best: ", end="")
    print(", ".join(f"{least[t]:.2f} s ({least[t] / least['floor']:.1f} x) {t}" for t in least))
    print(f"the promise: at most 1.5 x with one, below 1 x with two (best of {runs}: ", end="")
    best = min(times["floor"])
    print(", ".join(f"{min(times[title]) / best:.2f} x {title}" for title in times if title != "floor") + ")")


def part_files(folder: Path, experiments: int, runs: int) -> None:
    """Measure the processor time of one process on both kinds of files, with the plain loop and the rival."""
    folders: dict[Files, Path] = {files: folder / f"files_{files}" for files in ("field", "own")}
    for files, made in folders.items():
        make_raw(made, experiments, files)
    titles = (
        *("ours, field files", "ours, own files", "plain json loop, field files", "pydantic rival, field files"),
        "bare calls that check nothing, field files",
    )
    others = dict(zip(titles[2:], ("plain_loop", "tool_of_pydantic", "bare_loop"), strict=True))
    cpu: dict[str, list[float]] = {title: [] for title in titles}
    peak_mib = 0.0
    for run in range(runs):
        for title, values in cpu.items():
            made = folders["own" if "own" in title else "field"]
            if title.startswith("ours"):
                archive_aggregates(made, run)
                found = measure("ours", made, 1)
                peak_mib = max(peak_mib, found["peak_mib"])
            else:
                target = made / f"target_{run}_{len(title)}"
                target.mkdir()
                found = measure(others[title], made, target)
            if found:
                values.append(found["cpu"])
    for made in folders.values():
        shutil.rmtree(made)
    print(f"\nprocessor time of one process, {experiments} x {PROCESSES}, from the cache, peak {peak_mib:.0f} MiB")
    base = statistics.median(cpu[titles[0]])
    medians = {title: show(title, values, base, experiments) for title, values in cpu.items() if values}
    goals = dict(zip(titles[1:4], (1.2, 1.0, 1 / 3), strict=True))
    print("the promise for field files: ", end="")
    print(
        ", ".join(f"{base / medians[t]:.2f} (at most {goal:.2f}) of {t}" for t, goal in goals.items() if t in medians)
    )


def part_jobs(folder: Path, _experiments: int, runs: int) -> None:
    """Measure the wall time of `aggregate_all` with jobs=1 and jobs="auto" on files of the field's tool."""
    print(f"\nwall time of aggregate_all from the cache, {PROCESSES} processes per experiment, field files")
    for experiments in JOBS_SIZES:
        made = folder / f"jobs_{experiments}"
        make_raw(made, experiments)
        times: dict[str, list[float]] = {"1": [], "auto": []}
        for run in range(runs):
            for jobs in sorted(times, reverse=run % 2 == 1):  # the first of a run is not always the same
                shutil.rmtree(archive_aggregates(made, run), ignore_errors=True)
                os.sync()  # the writes of earlier measurements
                times[jobs].append(measure("ours", made, jobs)["seconds"])
        shutil.rmtree(made)
        base = show(f"{experiments:,} experiments, jobs=1", times["1"], None, experiments)
        show(f'{experiments:,} experiments, jobs="auto"', times["auto"], base, experiments)


def part_steps(_folder: Path, _experiments: int, runs: int) -> None:
    """Measure the processor time of the steps of aggregation that are in memory, over 300 experiments."""
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
    """Measure other programs that read the same files into memory and write nothing."""
    names = ("ours_in_memory", "loop_of_json", "loop_of_pydantic", "frame_of_polars", "query_of_duckdb", "ours")
    times: dict[str, list[float]] = {name: [] for name in names}
    for run in range(runs):
        for name in names:
            if name == "ours":
                archive_aggregates(folder, 1000 + run)
            fill_page_cache(folder)
            found = measure(name, folder, *(["1"] if name == "ours" else []))
            if found:
                times[name].append(found["seconds"])
    for run in range(runs):
        shutil.rmtree(folder / f"archive_{1000 + run}", ignore_errors=True)
    print(f"\nthe same {experiments * PROCESSES} files in memory, and the energy of each experiment")
    base = show("ours in memory: reads, checks and hashes every field", times["ours_in_memory"], None, experiments)
    for name in names[1:]:
        if times[name]:
            title = "aggregate_all, which also verifies and writes" if name == "ours" else name.replace("_of_", " of ")
            show(title, times[name], base, experiments)
        else:
            print(f"  (skipped: {name.rpartition('_')[2]} is not installed)")


def change(folder: Path, number: int) -> None:
    """Replace one raw result as `save_raw` does, so that its aggregate is stale."""
    path = folder / "raw" / name_of(number) / "process_0.json"
    stored = path.read_bytes()
    one, other = (b": 4096,", b": 4095,") if b": 4096," in stored else (b": 4095,", b": 4096,")
    temporary = path.with_name("new")
    temporary.write_bytes(stored.replace(one, other))
    temporary.replace(path)


def part_unchanged(folder: Path, experiments: int, runs: int) -> None:
    """Measure `aggregate --all` as a whole process, if nothing or one experiment changed."""
    measure("ours", folder, 1)
    empty = Path(tempfile.mkdtemp(dir=folder))
    times: dict[str, list[float]] = {"scandir": [], "start": [], "nothing": [], "one": []}
    for run in range(runs):
        times["scandir"].append(measure("floor_of_mtimes", folder)["seconds"])
        times["start"].append(command_sec("-o", empty, "aggregate", "--all"))
        times["nothing"].append(command_sec("-o", folder, "aggregate", "--all"))
        change(folder, run)
        times["one"].append(command_sec("-o", folder, "aggregate", "--all"))
    print(f"\naggregate --all of {experiments}, nothing changed, and one result replaced by another")
    base = show("floor: scandir of both folders with mtimes", times["scandir"], None, experiments)
    empty.rmdir()
    start = show("start-up: the same command without results", times["start"])
    nothing = show("nothing changed, whole process", times["nothing"], base, experiments)
    one = show("one changed, whole process", times["one"], nothing, experiments)
    print(f"the promise: at most 3 x the floor and start-up ({nothing / (3 * base + start):.2f} of that); ", end="")
    print(f"one changed 10 % more ({one / nothing - 1:+.0%})")


def delete_catalogue(folder: Path) -> None:
    """Delete the files of the catalogue, if it exists."""
    from llm_energy_measure.catalogue.paths import catalogue_path

    catalogue = catalogue_path(folder)
    for path in [] if catalogue is None else list(catalogue.parent.glob(f"{catalogue.name}*")):
        path.unlink()


def part_list(folder: Path, experiments: int, runs: int) -> None:
    """Measure lists as whole processes, against the same lists of 100 experiments.

    The first list follows `aggregate --all` at once. From 2,000 new aggregates on, that command writes the rows of the
    catalogue.
    """
    small = Path(tempfile.mkdtemp(dir=folder))
    make_raw(small, SIZES["100"])
    command_sec("-o", small, "aggregate", "--all")
    shutil.rmtree(archive_aggregates(folder, 0), ignore_errors=True)
    delete_catalogue(folder)
    lists = {
        "list --limit 20": ["results", "list", "--limit", 20],
        "filtered and sorted": [
            *("results", "list", "--limit", 20, "--sort", "energy", "--reverse"),
            *("--where", "model ~ llama and energy_j > 1000 and date < 2026-12"),
        ],
        "--by model,precision": ["results", "list", "--by", "model,precision"],
    }
    aggregation = command_sec("-o", folder, "aggregate", "--all")
    first = command_sec("-o", folder, *lists["list --limit 20"])
    delete_catalogue(folder)
    time.sleep(3)  # the catalogue does not trust mtimes of the last two seconds
    creation = command_sec("-o", folder, *lists["list --limit 20"], "--refresh")
    command_sec("-o", small, *lists["list --limit 20"])
    refresh: list[float] = []
    times: dict[str, list[float]] = {}
    for _ in range(runs):
        refresh.append(command_sec("-o", folder, *lists["list --limit 20"], "--refresh"))
        for title, arguments in lists.items():
            times.setdefault(f"at 100: {title}", []).append(command_sec("-o", small, *arguments))
            times.setdefault(title, []).append(command_sec("-o", folder, *arguments))
    shutil.rmtree(small)
    print(f"\nresults list at {experiments}, whole processes")
    show("once: aggregate --all without aggregates and catalogue", [aggregation], None, experiments)
    show("once: first list --limit 20 after aggregate --all", [first])
    show("once: first list --limit 20 --refresh without a catalogue", [creation])
    for title in lists:
        base = show(f"at 100: {title}", times[f"at 100: {title}"])
        show(f"at {experiments}: {title}", times[title], base)
    show(f"at {experiments}: list --limit 20 --refresh", refresh)
    print("the promise at 100k: --limit 20, and filtered and sorted, at most 0.25 s and 1.5 x")


def empty_page_cache() -> bool:
    """Empty the page cache; return False if this process is not allowed to."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        return False
    return True


def fill_page_cache(folder: Path) -> None:
    """Read every raw file, so that it is in the page cache, unless the kernel drops it again."""
    for experiment_folder in (folder / "raw").iterdir():
        for path in experiment_folder.iterdir():
            path.read_bytes()


def part_memory(folder: Path, experiments: int, runs: int) -> None:
    """Measure peak memory and cost per experiment, against those of 1,000 experiments."""
    small = Path(tempfile.mkdtemp(dir=folder))
    make_raw(small, SIZES["1k"])
    folders = ((SIZES["1k"], small), (experiments, folder))
    outputs: tuple[list[dict[str, float]], ...] = ([], [])
    is_cold = True
    for _ in range(runs):
        for (_, folder_of_size), found in zip(folders, outputs, strict=True):
            shutil.rmtree(archive_aggregates(folder_of_size, 0), ignore_errors=True)
            is_cold &= empty_page_cache()
            found.append(measure("ours", folder_of_size, 1))
    shutil.rmtree(small)
    where = "both from the disk" if is_cold else "from the cache or the disk, because only root can empty the cache"
    print(f"\npeak memory and cost of ours, 1 process: {experiments} against {SIZES['1k']}, {where}, medians")
    less, more = (
        {name: statistics.median(run[name] for run in found) for name in ("peak_mib", "seconds", "cpu")}
        for found in outputs
    )
    for (count, _), one in zip(folders, (less, more), strict=True):
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
    parser.add_argument("--files", choices=("field", "own"), default="field")
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
        prepare(folder, SIZES[given.size], given.files)
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
