"""What a process can tell of itself beyond its energy: libraries, memory, both clocks."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from llm_energy_measure.domain.experiment import ClockEvidence
from llm_energy_measure.domain.metrics import Timestamps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llm_energy_measure.recorder.clock import Clock

_MIB = 2**20

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


def clock_evidence(start: Instant, end: Instant, boot_id: str | None) -> ClockEvidence:
    """The readings of both clocks at both ends."""
    return ClockEvidence(
        boot_id=boot_id,
        wall_start_sec=start.wall,
        monotonic_start_sec=start.monotonic,
        wall_end_sec=end.wall,
        monotonic_end_sec=end.monotonic,
    )


def library_versions(modules: Mapping[str, Any] = sys.modules) -> dict[str, str]:
    """Versions of the inference libraries that are loaded, by name."""
    found = {name: getattr(modules.get(name), "__version__", None) for name in _LIBRARIES}
    # torch's is of a type of its own.
    return {name: str(version) for name, version in found.items() if isinstance(version, str)}


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

    Without a GPU it is the largest resident set that the process ever had.
    """
    torch = modules.get("torch")
    if torch is None:
        return None
    cuda = getattr(torch, "cuda", None)
    if cuda is not None and cuda.is_initialized():
        return sum(float(cuda.max_memory_allocated(index)) for index in range(cuda.device_count())) / _MIB
    import resource  # noqa: PLC0415 - not on Windows, where torch may be loaded all the same

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Bytes on macOS, KiB on Linux. Source: getrusage(2) of both.
    return peak / _MIB if sys.platform == "darwin" else peak / 1024


def stored_config(config: object) -> dict[str, Any]:
    """A configuration as a record can hold it.

    Mappings, dataclasses, msgspec structs and pydantic models become dictionaries; what JSON has no form for becomes
    its text. None is no configuration.

    Raises:
        TypeError: It is nothing of the kind.
    """
    import msgspec  # noqa: PLC0415 - records without a configuration need none of this

    if config is None:
        return {}
    dump = getattr(config, "model_dump", None)
    plain = msgspec.to_builtins(dump() if callable(dump) else config, enc_hook=str, str_keys=True)
    if not isinstance(plain, dict):
        raise TypeError(type(config).__name__)
    return plain
