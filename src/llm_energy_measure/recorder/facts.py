"""What a process can tell of itself beyond its energy: libraries, memory, clocks."""

from __future__ import annotations

import math
import re
import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_energy_measure.domain.experiment import ClockEvidence
from llm_energy_measure.domain.metrics import Timestamps
from llm_energy_measure.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_energy_measure.recorder.clock import Clock, StoreTime

_MIB = 2**20
_DOING = "cannot record the configuration"
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")

# Whose version is recorded if a process has loaded them.
_LIBRARIES = (
    *("accelerate", "bitsandbytes", "ctranslate2", "deepspeed", "flash_attn", "gguf", "jax", "llama_cpp", "numpy"),
    *("onnxruntime", "optimum", "sglang", "tensorrt_llm", "tokenizers", "torch", "transformers", "vllm"),
)

# The inference library that a process used, most specific first, and what records call it.
_BACKENDS = (
    *(("vllm", "vllm"), ("sglang", "sglang"), ("tensorrt_llm", "tensorrt"), ("llama_cpp", "llama.cpp")),
    *(("torch", "pytorch"), ("jax", "jax")),
)


class Instant(NamedTuple):
    """Both clocks, read one right after the other, in seconds."""

    wall: float
    monotonic: float

    @classmethod
    def now(cls, clock: Clock) -> Instant:
        """This instant."""
        return cls(clock.wall(), clock.monotonic())


def span(start: Instant, end: Instant) -> Timestamps:
    """The time between two instants: its length is the monotonic clock's, and its end is where that leads.

    The wall clock may have been set meanwhile; that shows in `clock_evidence`, and can't make an end before a start.
    """
    duration_sec = end.monotonic - start.monotonic
    begin = datetime.fromtimestamp(start.wall, UTC)
    return Timestamps(start=begin, end=begin + timedelta(seconds=duration_sec), duration_sec=duration_sec)


def clock_evidence(
    start: Instant,
    end: Instant,
    *,
    boot_id: str | None,
    store_id: str | None = None,
    store_times: tuple[StoreTime | None, StoreTime | None] = (None, None),
) -> ClockEvidence:
    """The readings of the clocks at both ends; the store's were taken a little earlier and later, outside the block."""
    before, after = store_times
    return ClockEvidence(
        boot_id=boot_id,
        wall_start_sec=start.wall,
        monotonic_start_sec=start.monotonic,
        wall_end_sec=end.wall,
        monotonic_end_sec=end.monotonic,
        store_id=store_id,
        store_start_sec=None if before is None else before.at(start.monotonic),
        store_end_sec=None if after is None else after.at(end.monotonic),
        store_error_sec=max((time.error_sec for time in store_times if time is not None), default=None),
    )


def library_versions(modules: Mapping[str, Any] = sys.modules) -> dict[str, str]:
    """Versions of the inference libraries that are loaded, by name."""
    found = {name: _version(modules.get(name)) for name in _LIBRARIES}
    return {name: version for name, version in found.items() if version is not None}


def _version(module: Any) -> str | None:
    try:
        version = getattr(module, "__version__", None)
        # torch's is of a type of its own.
        return str(version) if isinstance(version, str) else None
    except Exception:  # noqa: BLE001 - a library's own code: what it raises must not cost the result
        return None


def backend_of(versions: Mapping[str, str]) -> tuple[str, str] | None:
    """Name and version of the inference library, told from those that are loaded; None if there is none.

    Example:
        >>> backend_of({"torch": "2.13.0", "transformers": "5.23.0"})
        ('pytorch', 'transformers=5.23.0, torch=2.13.0')
    """
    for library, backend in _BACKENDS:
        if library in versions:
            named = ("transformers", library) if library == "torch" and "transformers" in versions else (library,)
            return backend, ", ".join(f"{name}={versions[name]}" for name in named)
    return None


def peak_memory_mib(modules: Mapping[str, Any] = sys.modules) -> float | None:
    """The most memory that torch has held, in MiB, where torch is loaded: on its GPUs, if it uses any, else in all.

    Without a GPU it is the largest resident set that the process ever had. None where torch can't tell.
    """
    torch = modules.get("torch")
    if torch is None:
        return None
    try:
        cuda = getattr(torch, "cuda", None)
        if cuda is not None and cuda.is_initialized():
            return sum(float(cuda.max_memory_allocated(index)) for index in range(cuda.device_count())) / _MIB
    except Exception:  # noqa: BLE001 - as above; a GPU that was lost, for one
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, KiB on Linux. Source: getrusage(2) of both.
    return peak / _MIB if sys.platform == "darwin" else peak / 1024


def stored_config(config: object) -> dict[str, Any]:
    """A configuration as a record can hold it, the same in every process that was given the same.

    Mappings, dataclasses, msgspec structs and pydantic models become dictionaries; sets become sorted lists; what JSON
    has no form for becomes its text, NaN and the infinities too. None is no configuration.

    Raises:
        ConfigurationError: It is nothing of the kind, or holds something whose text differs in each process.

    Example:
        >>> stored_config({"stop": {"b", "a"}, "top_p": float("inf")})
        {'stop': ['a', 'b'], 'top_p': 'inf'}
    """
    import msgspec

    if config is None:
        return {}
    dump = getattr(config, "model_dump", None)
    try:
        plain = msgspec.to_builtins(
            dump() if callable(dump) else config, enc_hook=_text_of, str_keys=True, order="deterministic"
        )
    except (TypeError, ValueError, RecursionError) as error:
        raise ConfigurationError(_DOING, str(error), "give a mapping of plain values") from error
    if not isinstance(plain, dict):
        raise ConfigurationError(_DOING, f"a {type(config).__name__} is no configuration", "give a mapping")
    return {_storable(key): _storable(value) for key, value in plain.items()}


def _text_of(value: object) -> str:
    """The text of what JSON has no form for; that of a default `repr` holds an address, another one each time."""
    text = str(value)
    if _ADDRESS.search(text):
        found = f"{text} in it has another text in each process"
        raise ConfigurationError(_DOING, found, "give its values, or leave it out")
    return text


def _storable(value: Any) -> Any:
    if isinstance(value, dict):
        return {_storable(key): _storable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, str):
        # Half of a surrogate pair, from an undecodable file name, for one.
        return value.encode("utf-8", "backslashreplace").decode()
    return value
