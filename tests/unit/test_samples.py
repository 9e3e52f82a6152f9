"""Power samples next to a result: the same bytes for the same samples, kept by every command, and checked."""

from __future__ import annotations

import gzip
from array import array
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.domain.power_trace import PowerTrace, integrate, interpolate
from llm_energy_measure.exceptions import ResultCorruptError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.results.batch.checking import check_store
from llm_energy_measure.results.batch.merge import merge_results
from llm_energy_measure.results.store.samples import decode_samples, encode_samples, load_samples, save_samples
from tests.support import factories

if TYPE_CHECKING:
    from pathlib import Path

EXP = "exp_7"


def trace(device: str = "0", powers: tuple[float, ...] = (100.0, 101.5), **columns: Any) -> PowerTrace:
    times = array("d", (0.1 * index for index in range(len(powers))))
    return PowerTrace(device=device, times=times, powers=array("d", powers), **columns)


@st.composite
def traces(draw: st.DrawFn) -> list[PowerTrace]:
    has_throttle = draw(st.booleans())
    found = []
    for device in draw(st.lists(st.sampled_from(["0", "1", "GPU-a", ""]), min_size=1, unique=True)):
        times = sorted(draw(st.sets(st.integers(-(10**9), 10**12).map(lambda us: us / 1e6), min_size=1, max_size=6)))
        of_each = st.lists(st.floats(0, 1e5), min_size=len(times), max_size=len(times)).map(lambda v: array("d", v))
        texts = st.lists(st.sampled_from(["", "0x4", 'a,"b"']), min_size=len(times), max_size=len(times))
        throttles = draw(texts) if has_throttle else []
        found.append(
            PowerTrace(
                device=device,
                times=array("d", times),
                powers=draw(of_each),
                temperatures=draw(st.none() | of_each),
                clocks=draw(st.none() | of_each),
                throttles=throttles if any(throttles) else None,
            )
        )
    return found


@given(traces())
def test_samples_are_read_as_they_were_written(written: list[PowerTrace]) -> None:
    data = encode_samples(written)
    assert sorted(decode_samples(data, "s"), key=lambda one: one.device) == sorted(written, key=lambda one: one.device)
    assert encode_samples(written) == data
    assert data[4:8] == bytes(4)  # no time in the header, so that equal samples give equal bytes


def test_samples_file_is_csv_in_order_of_time() -> None:
    written = [trace(temperatures=array("d", [40.0, float("nan")])), trace("1", throttles=["", "0x4"])]
    assert gzip.decompress(encode_samples(written)).decode().splitlines() == [
        "time_s,device,power_w,temperature_c,throttle",
        "0,0,100,40,",
        "0,1,100,,",
        "0.1,0,101.5,,",
        "0.1,1,101.5,,0x4",
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        encode_samples([trace()])[:-9],
        gzip.compress(b"a,b\n"),
        gzip.compress(b"time_s,device,power_w\n1,2\n"),
        gzip.compress(b"time_s,device,power_w\n1,2,nan\n"),
        gzip.compress(b"time_s,device,power_w\n1,2,\xff\n"),
    ],
    ids=["empty", "no gzip", "truncated", "other header", "missing cell", "nan", "not UTF-8"],
)
def test_damaged_samples_are_an_error_that_names_the_file(data: bytes) -> None:
    with pytest.raises(ResultCorruptError, match="samples-process_0"):
        decode_samples(data, "samples-process_0.csv.gz")


def test_saved_samples_are_never_replaced_silently(tmp_path: Path) -> None:
    store = FileSystemRepository(tmp_path).store
    assert save_samples(store, EXP, 0, [trace()])
    assert not save_samples(store, EXP, 0, [trace(powers=(5.0, 6.0))])
    assert load_samples(store, EXP, 0) == [trace()]
    assert save_samples(store, EXP, 0, [trace(powers=(5.0, 6.0))], overwrite=True)
    assert load_samples(store, EXP, 0) == [trace(powers=(5.0, 6.0))]
    names = sorted(path.name for path in (tmp_path / "raw" / EXP).iterdir())
    assert names == ["samples-process_0.csv.gz", "superseded-samples-process_0-1.csv.gz.kept"]
    assert load_samples(store, EXP, 1) == []


def test_commands_know_the_samples(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "one")
    repository.save_raw(EXP, factories.raw(EXP))
    save_samples(repository.store, EXP, 0, [trace()])
    assert list(check_store(repository)) == []
    assert len(repository.list_raw(EXP)) == 1
    target = FileSystemRepository(tmp_path / "two")
    merged = {one.key: one.outcome for one in merge_results(target, repository)}
    assert merged[f"raw/{EXP}/samples-process_0.csv.gz"] == "copied"
    assert load_samples(target.store, EXP, 0) == [trace()]
    path = tmp_path / "two" / "raw" / EXP / "samples-process_0.csv.gz"
    path.write_bytes(path.read_bytes()[:20])
    assert [(one.code, one.needs_decision) for one in check_store(target)] == [("raw.samples_damaged", False)]
    (tmp_path / "two" / "raw" / EXP / "process_0.json").unlink()
    assert {one.code for one in check_store(target)} == {"raw.samples_damaged", "raw.samples_alone"}
    assert repository.delete_experiment(EXP)
    assert not (tmp_path / "one" / "raw" / EXP).exists()


def test_integral_interpolates_the_edges_of_the_window() -> None:
    found = integrate([0.0, 1.0, 2.0, 9.0], [0.0, 10.0, 20.0, 20.0], 0.5, 3.0)
    assert found is not None
    assert found.value == pytest.approx(3.75 + 15.0 + 20.0)
    assert interpolate([0.0, 2.0], [1.0, 3.0], 1.5) == 2.5


@pytest.mark.parametrize(("start", "end"), [(-1.0, 1.0), (0.0, 3.0), (1.0, 1.0)])
def test_integral_of_an_uncovered_window_is_unknown(start: float, end: float) -> None:
    assert integrate([0.0, 1.0, 2.0], [1.0, 1.0, 1.0], start, end) is None
