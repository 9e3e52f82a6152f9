"""Tools with documented sensors: the scopes that apply to a record of the tool if the record states no scope.

Each entry has a source. A scope that depends on the settings of the tool is None.
"""

from __future__ import annotations

from msgspec import Struct

from llm_energy_measure.domain.experiment import ImportOrigin
from llm_energy_measure.domain.metrics import Scope


class ToolScope(Struct, frozen=True, kw_only=True):
    """The documented sensors of one tool.

    Attributes:
        tool: Name of the tool, as in `origin.tool`.
        gpu: Scope of the GPU energy; None if it is not documented.
        cpu: Scope of the CPU energy; None if it is not documented.
        ram: Scope of the RAM energy; None if it is not documented.
        lists_boards_of_host: Whether the devices that an imported record lists without index and UUID are all boards
            of the host.
        source: Documentation of the scopes.
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
    """Return the documented sensors of the tool that wrote an imported record; None if the tool has no entry.

    Example:
        >>> from llm_energy_measure.domain.experiment import ImportOrigin
        >>> tool_scope(ImportOrigin(tool="llm-energy-measure 1.x")).gpu
        'host'
    """
    return _BY_NAME.get(origin.tool) if origin is not None else None
