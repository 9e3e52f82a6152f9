"""The rank of a worker of Ray Train. With some backends, Ray Train sets no environment variables for the rank."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any


def with_ray_rank(environ: Mapping[str, str], modules: Mapping[str, Any] = sys.modules) -> Mapping[str, str]:
    """Return the environment variables. In a Ray Train worker without a rank, add the variables of torchrun.

    A plain task or actor of Ray has no rank: pass `process_index` and `world_size` to `record`.

    Source: Ray Train API, `ray.train.get_context`.
    """
    if environ.get("RANK") or environ.get("WORLD_SIZE"):
        return environ
    try:
        context = modules["ray.train"].get_context()
        ranks = {
            "RANK": context.get_world_rank(),
            "WORLD_SIZE": context.get_world_size(),
            "LOCAL_RANK": context.get_local_rank(),
            "LOCAL_WORLD_SIZE": context.get_local_world_size(),
            "GROUP_RANK": context.get_node_rank(),
        }
    except Exception:  # noqa: BLE001 - third-party code: outside a worker, Ray raises errors of several types
        return environ
    if not all(type(value) is int for value in ranks.values()):
        return environ
    return {**environ, **{name: str(value) for name, value in ranks.items()}}
