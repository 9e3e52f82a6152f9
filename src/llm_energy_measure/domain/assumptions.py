"""Facts that a user states because the records don't contain them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from llm_energy_measure.domain.metrics import Scope


class Assumptions(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Facts that the user states because the records don't contain them. Recorded facts have precedence.

    Attributes:
        gpu_scope: Scope of each GPU reading. `device`: only the GPU that the process records. `host`: all GPUs of the
            host. `process`: the share of the process. This scope does not apply to readings of CPU and memory.
        hosts: Number of hosts, at least 1, each with the same number of consecutive ranks.
        boards: Number of boards of each host, at least 1. If no record shows a host and `hosts` is None, all processes
            count as processes of one host.
        board: Name of the boards, such as `NVIDIA A100-PCIE-40GB`.
    """

    gpu_scope: Scope | None = None
    hosts: Annotated[int, Meta(ge=1)] | None = None
    boards: Annotated[int, Meta(ge=1)] | None = None
    board: str | None = None
