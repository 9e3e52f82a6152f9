"""Tools whose sensors are documented: what each of them reads where a record does not state the scope.

An entry is a fact about one tool, with its source. A tool whose scope depends on its settings has no entry.
"""

from __future__ import annotations

from msgspec import Struct

from llm_energy_measure.domain.experiment import ImportOrigin
from llm_energy_measure.domain.metrics import Scope


class ToolScope(Struct, frozen=True, kw_only=True):
    """What a tool reads.

    Attributes:
        tool: Name of the tool, as `origin.tool` has it.
        gpu: Scope of the GPU energy; None if it is not documented.
        cpu: Scope of the CPU energy.
        ram: Scope of the RAM energy.
        lists_boards_of_host: Whether the devices without identity that an imported record lists are all boards of
            the host.
        source: Where the scope is documented.
    """

    tool: str
    gpu: Scope | None
    cpu: Scope | None
    ram: Scope | None
    lists_boards_of_host: bool = False
    source: str


TOOLS = (
    ToolScope(
        tool="llm-energy-measure 1.x",
        gpu="host",
        cpu="host",
        ram="process",
        lists_boards_of_host=True,
        source=(
            "this project's source code before 2.0 starts CodeCarbon in each process with tracking_mode='process' and "
            "without gpu_ids. https://mlco2.github.io/codecarbon/parameters.html: all available GPUs are tracked by "
            "default. In CodeCarbon 2.8.3 (external/hardware.py), only the class RAM depends on tracking_mode"
        ),
    ),
    ToolScope(
        tool="codecarbon",
        gpu=None,
        cpu=None,
        ram=None,
        lists_boards_of_host=True,
        source=(
            "https://mlco2.github.io/codecarbon/output.html: the column gpu_model names the GPUs of the machine. Not "
            "documented: which GPUs a row covers, because CUDA_VISIBLE_DEVICES replaces gpu_ids from 2.8 on"
        ),
    ),
)

_BY_NAME = {entry.tool: entry for entry in TOOLS}


def tool_scope(origin: ImportOrigin | None) -> ToolScope | None:
    """Return what the tool behind an imported record reads; None if that is not documented.

    Example:
        >>> from llm_energy_measure.domain.experiment import ImportOrigin
        >>> tool_scope(ImportOrigin(tool="llm-energy-measure 1.x")).gpu
        'host'
    """
    return _BY_NAME.get(origin.tool) if origin is not None else None
