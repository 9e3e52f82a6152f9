"""Limits of received files: size, memory of the values, nesting; and large arrays of latency samples."""

from __future__ import annotations

import json
from array import array
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_energy_measure.constants import MAX_FILE_SIZE_ENV
from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.latency import LatencyMeasurements
from llm_energy_measure.domain.units import parse_size
from llm_energy_measure.exceptions import ConfigurationError, ResultCorruptError, StorageError
from llm_energy_measure.results import FileSystemRepository, aggregate_all, aggregate_results
from llm_energy_measure.results.store import codec, json_text
from llm_energy_measure.results.store.sample_arrays import MIN_TEXT_BYTES, cut_sample_arrays
from llm_energy_measure.security import require_bounded_json
from llm_energy_measure.storage.local import max_file_bytes
from tests.support import factories, strategies
from tests.support.command import run

MANY = 4_000_000

# Size


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("2kB", 2000), ("2 KiB", 2048), ("1.5GB", 1_500_000_000), ("1g", 10**9), ("7b", 7)]
)
def test_a_size_has_a_number_and_a_unit(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "0", "0.1", "1e9", "1 PB", "1GBB", "nan", "1 i"])
def test_another_text_is_no_size(text: str) -> None:
    with pytest.raises(ValueError, match="is not a positive number of bytes"):
        parse_size(text)


def test_a_larger_file_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository = FileSystemRepository(tmp_path)
    path = repository.save_raw("exp", factories.raw("exp"))
    with path.open("r+b") as file:
        file.truncate(2**42)  # reading it would exceed the memory
    with pytest.raises(StorageError, match=r"bytes; the limit is 1,073,741,824.* raise --max-file-size"):
        repository.load_raw(path)
    monkeypatch.setenv(MAX_FILE_SIZE_ENV, "2kB")
    assert max_file_bytes() == 2000
    monkeypatch.setenv(MAX_FILE_SIZE_ENV, "large")
    with pytest.raises(ConfigurationError, match="'large' is not a positive number of bytes"):
        repository.load_raw(path)


def test_all_commands_have_the_option_of_the_limit(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    config = {"prompt": "x" * 100_000}  # smaller files are read in one piece
    repository.save_raw("exp", factories.raw("exp", effective_config=config))
    refused = run("-o", tmp_path, "aggregate", "exp", "--max-file-size", "50kB")
    assert refused.status == 1
    assert "the limit is 50,000" in refused.err
    assert run("-o", tmp_path, "aggregate", "exp", "--max-file-size", "1MB").status == 0
    assert run("-o", tmp_path, "aggregate", "exp", "--max-file-size", "none").status == 2


# Memory


def hostile(item: bytes) -> bytes:
    """Return a raw result with an unknown field of many values."""
    record = codec.encode_raw(factories.raw("exp"))
    return record.removesuffix(b"\n}") + b', "more": [' + item * (12_000_000 // len(item)) + b"null]\n}"


@pytest.mark.parametrize("item", [b"{},", b"[],", b'{"":0},', b"[0],", b'{"a":[]},', b'"ab",'])
def test_a_file_of_many_values_is_refused(item: bytes) -> None:
    with pytest.raises(ResultCorruptError, match=r"its [0-9,]+ values need .* MB of memory; the limit is 3 times"):
        codec.decode_raw(hostile(item), "exp/process_0.json")


def test_every_command_names_the_file_of_many_values(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    repository.save_raw("exp", factories.raw("exp"))
    (tmp_path / "raw" / "exp" / "process_0.json").write_bytes(hostile(b"{},"))
    for arguments in (["results", "list", "--all"], ["results", "check"], ["aggregate", "--all"]):
        done = run("-o", tmp_path, *arguments)
        assert "process_0.json" in done.out + done.err
        assert "bug" not in done.err


def test_different_keys_of_a_large_object_are_counted() -> None:
    text = b"{" + b",".join(b'"%07d":0' % number for number in range(1_200_000)) + b"}"
    with pytest.raises(ValueError, match="MB of memory"):
        require_bounded_json(text)


def test_a_long_text_outside_latin_1_is_counted() -> None:
    """One such character makes each character of the text four bytes long."""
    text = b'["' + b"a" * 110_000_000 + b'"]'
    require_bounded_json(text)
    with pytest.raises(ValueError, match="MB of memory"):
        require_bounded_json(text.replace(b'"]', '\U0001f999"]'.encode()))
    require_bounded_json(('["\U0001f999"' + ',"0.12345678901234567890"' * 1_000_000 + "]").encode())


@given(strategies.raw_records())
def test_valid_records_of_any_number_are_never_refused(record: RawProcessResult) -> None:
    encoded = codec.encode_raw(record)
    text = b'{"process_results": [' + b",".join([encoded] * (1 + 1_100_000 // len(encoded))) + b"]}"
    require_bounded_json(text, free_bytes=len(text) // 10)  # 100 MB for a file of 1 GB


@pytest.mark.parametrize("indent", [None, 2])
def test_real_records_are_far_below_the_limit(real_data: Path, indent: int | None) -> None:
    for path in sorted((real_data / "v2_results").rglob("*.json"))[::40]:
        if data := path.read_bytes():
            text = json.dumps(json.loads(data), indent=indent).encode()
            require_bounded_json(
                b"[" + b",".join([text] * (1 + 1_100_000 // len(text))) + b"]", free_bytes=len(text) // 10
            )


# Nesting


@given(
    st.recursive(
        st.none() | st.text('"[]{}\\a'), lambda inner: st.lists(inner) | st.dictionaries(st.text('"[{\\'), inner)
    )
)
@example([['"', "]", {"[": "}"}]])
@example({"": {"": []}, "\\": [""]})
def test_nesting_depth_is_exact(value: object) -> None:
    def depth(value: object) -> int:
        if not isinstance(value, dict | list):
            return 0
        return 1 + max(map(depth, value.values() if isinstance(value, dict) else value), default=0)

    for text in (json.dumps(value).encode(), msgspec.json.encode(value)):
        for levels in range(depth(value) + 3):
            assert json_text.is_too_deep(text, levels) == (depth(value) > levels)


# Arrays of samples


samples = st.lists(st.floats(0, 1e6) | st.integers(0, 10**6), max_size=6)


@given(samples, samples, samples, st.sampled_from([None, 2]), st.booleans())
def test_cut_samples_are_restored(
    ttft: list[float], full: list[float], trimmed: list[float], indent: int | None, is_elsewhere: bool
) -> None:
    latency = LatencyMeasurements(ttft_ms=ttft, itl_full_ms=full, itl_trimmed_ms=trimmed)
    record = factories.raw(inference_metrics=factories.inference(latency_measurements=latency))
    document = json.loads(codec.encode_raw(record))
    if is_elsewhere:
        document["effective_config"] = {"ttft_ms": [1.0]}
    body = json.dumps(document, indent=indent).encode()
    cut = cut_sample_arrays(body, min_text_bytes=0, min_array_bytes=1)
    assert cut.text.count(b"[") == body.count(b"[")
    if is_elsewhere:
        assert not cut.restore(msgspec.json.decode(cut.text, type=RawProcessResult))
        return
    restored = msgspec.json.decode(cut.text, type=RawProcessResult)
    assert cut.restore(restored)
    found = restored.inference_metrics
    assert found is not None
    assert found.latency_measurements is not None
    for kind, expected in (("ttft_ms", ttft), ("itl_full_ms", full), ("itl_trimmed_ms", trimmed)):
        assert list(getattr(found.latency_measurements, kind)) == expected


@pytest.mark.parametrize("content", ["1,", ",1", "1,,2", "1 2", "-1", '"a"', "[1", "1e999", "{}", " , "])
def test_samples_that_are_no_numbers_are_not_restored(content: str) -> None:
    latency = LatencyMeasurements(ttft_ms=[123.5])
    record = factories.raw(inference_metrics=factories.inference(latency_measurements=latency))
    body = codec.encode_raw(record).replace(b"123.5", content.encode())
    cut = cut_sample_arrays(body, min_text_bytes=0, min_array_bytes=1)
    assert cut.spans
    try:
        restored = msgspec.json.decode(cut.text, type=RawProcessResult)
    except msgspec.DecodeError:
        return
    assert not cut.restore(restored)
    with pytest.raises(ResultCorruptError):
        codec.decode_raw(body, "exp/process_0.json")


@pytest.fixture(scope="module")
def large_text() -> bytes:
    """A raw result with half a million samples."""
    gaps = [10 + number / 7 for number in range(500_000)]
    latency = LatencyMeasurements(ttft_ms=gaps[:100], itl_full_ms=gaps, request_count=100)
    record = factories.raw("exp", inference_metrics=factories.inference(latency_measurements=latency))
    data = codec.encode_raw(record)
    assert len(data) > MIN_TEXT_BYTES
    return data


def test_a_large_record_has_arrays_and_the_same_aggregate(large_text: bytes, tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path)
    folder = tmp_path / "raw" / "exp"
    folder.mkdir(parents=True)
    (folder / "process_0.json").write_bytes(large_text)
    [outcome] = aggregate_all(repository)
    assert outcome.result == "aggregated", outcome.error
    small = msgspec.json.decode(large_text, type=RawProcessResult)
    [record] = repository.load_all_raw("exp")
    assert record.inference_metrics is not None
    assert record.inference_metrics.latency_measurements is not None
    gaps = record.inference_metrics.latency_measurements.itl_full_ms
    assert isinstance(gaps, array)
    assert small.inference_metrics is not None
    assert small.inference_metrics.latency_measurements is not None
    assert list(gaps) == small.inference_metrics.latency_measurements.itl_full_ms
    loaded = repository.load_aggregated("exp")
    assert loaded is not None
    assert loaded.latency_stats == aggregate_results("exp", [small]).latency_stats
    assert codec.encode_raw(record) == large_text


@pytest.mark.parametrize(
    ("old", "new"), [(b'"schema_version"', b'"newer": 1,\n  "schema_version"'), (b"llama", b"\\u006clama")]
)
def test_a_large_record_with_unknown_fields_or_escapes_loads(large_text: bytes, old: bytes, new: bytes) -> None:
    record = codec.decode_raw(large_text.replace(old, new, 1), "exp/process_0.json")
    assert record.inference_metrics is not None
    assert record.inference_metrics.latency_measurements is not None
    assert len(record.inference_metrics.latency_measurements.itl_full_ms) == 500_000


def test_a_repeated_key_in_a_large_record_is_found(large_text: bytes) -> None:
    repeated = large_text.replace(b'"request_count"', b'"streaming_mode": null, "request_count"', 1)
    assert repeated != large_text
    with pytest.raises(ResultCorruptError, match="occurs twice"):
        codec.decode_raw(repeated, "exp/process_0.json")


@pytest.mark.parametrize(
    "key", ["raw/exp/manifest.json", "tags/exp.json", "aggregated/exp.json", "raw/exp/process_1.json"]
)
def test_a_file_of_many_values_is_refused_in_every_place(tmp_path: Path, key: str) -> None:
    repository = FileSystemRepository(tmp_path)
    repository.save_raw("exp", factories.raw("exp"))
    path = tmp_path / key
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b'{"experiment_id": "exp", "more": [' + b"{}," * 4_000_000 + b"{}]}")
    done = run("-o", tmp_path, "results", "check")
    assert path.name in done.out
    assert "values need" in done.out
    assert "bug" not in done.err
