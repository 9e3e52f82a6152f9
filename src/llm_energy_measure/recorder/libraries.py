"""The loaded inference libraries, and the memory that they use."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

_MIB = 2**20

# Libraries whose version a record contains if the process has loaded them.
_LIBRARIES = (
    *("accelerate", "bitsandbytes", "ctranslate2", "deepspeed", "flash_attn", "gguf", "jax", "llama_cpp", "numpy"),
    *("onnxruntime", "optimum", "sglang", "tensorrt_llm", "tokenizers", "torch", "transformers", "vllm"),
)

# Inference libraries and their names in records, most specific first: vLLM loads torch, but torch does not load vLLM.
_BACKENDS = (
    *(("vllm", "vllm"), ("sglang", "sglang"), ("tensorrt_llm", "tensorrt"), ("llama_cpp", "llama.cpp")),
    *(("torch", "pytorch"), ("jax", "jax")),
)


def library_versions(modules: Mapping[str, Any] = sys.modules) -> dict[str, str]:
    """Return the versions of the loaded inference libraries, by name."""
    found = {name: _version(modules.get(name)) for name in _LIBRARIES}
    return {name: version for name, version in found.items() if version is not None}


def _version(module: Any) -> str | None:
    try:
        version = getattr(module, "__version__", None)
        # The version of torch is an instance of its own subclass of str.
        return str(version) if isinstance(version, str) else None
    except Exception:  # noqa: BLE001 - third-party code: the result is saved without this value
        return None


def detect_backend(versions: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return name and version of the inference library among the loaded libraries; None and None if there is none.

    Example:
        >>> detect_backend({"torch": "2.13.0", "transformers": "5.23.0"})
        ('pytorch', 'transformers=5.23.0, torch=2.13.0')
    """
    for library, backend in _BACKENDS:
        if library in versions:
            parts = ("transformers", library) if library == "torch" and "transformers" in versions else (library,)
            return backend, ", ".join(f"{name}={versions[name]}" for name in parts)
    return None, None


def peak_memory_mib(modules: Mapping[str, Any] = sys.modules) -> float | None:
    """Return the peak memory of the process in MiB; None if torch is not loaded or fails.

    If torch uses GPUs, the value is the peak memory that torch allocated, summed over the GPUs. Otherwise, the value is
    the largest resident set of the process.
    """
    torch = modules.get("torch")
    if torch is None:
        return None
    try:
        cuda = getattr(torch, "cuda", None)
        if cuda is not None and cuda.is_initialized():
            return sum(float(cuda.max_memory_allocated(index)) for index in range(cuda.device_count())) / _MIB
    except Exception:  # noqa: BLE001 - third-party code, as above; for example, the GPU is lost
        return None
    import resource  # a late import: Windows does not have this module

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # The unit is a byte on macOS and a KiB on Linux. Source: getrusage(2) of both.
    return peak / _MIB if sys.platform == "darwin" else peak / 1024
