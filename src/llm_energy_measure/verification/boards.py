"""Power limits of board models, and the search for the model in the name of a board.

If a record has a limit (`gpu_power_limit_w`, as NVML reports it), this limit is used and not the table. The table has
no limit for an unknown name, and none for an ambiguous name (`NVIDIA A100`: 250, 300 or 400 W).
"""

from __future__ import annotations

import re
from functools import lru_cache

from msgspec import Struct

_MAX_NAME = 200
# Some tools write no separator between the models of a node: `2 x A100-PCIE-40GB2 x L4`.
_COUNT = re.compile(r"(?P<before>\D|^)(?P<count>\d{1,3}) x ")
_WORD = re.compile(r"[a-z0-9]+")
# Words in the names of virtual and mobile boards. These boards have other limits than the boards without the word, and
# the table does not have these limits.
_OTHER_BOARDS = frozenset({"laptop", "mobile", "max", "grid", "vgpu", "mxm"})

_NVIDIA = "NVIDIA data sheet"
_GEFORCE = "NVIDIA product page, reference card; partner cards can be set higher"
_AMD = "AMD data sheet"


class BoardModel(Struct, frozen=True):
    """A model of GPU board.

    Attributes:
        words: Words that the name of the board contains, in lower case.
        limit_w: Greatest power that the board draws for longer than an instant, in watts.
        source: Source of the limit.
        gpus_per_sensor: Number of GPUs, as the driver counts them, that one power sensor measures.
        includes_cpu: Whether the power sensor can also measure the CPU of the module.
        can_be_raised: Whether makers or users can raise the limit. A power above it then proves no over-count.
    """

    words: frozenset[str]
    limit_w: float
    source: str
    gpus_per_sensor: int = 1
    includes_cpu: bool = False
    can_be_raised: bool = False

    @property
    def proven_limit_w(self) -> float | None:
        """Limit that no board of the model exceeds, in watts; None if it can be raised."""
        return None if self.can_be_raised else self.limit_w


class Boards(Struct, frozen=True):
    """The boards that a name such as `A40` or `4 x A40` describes.

    Attributes:
        count: Number of boards.
        model_name: Name of the model, without the number.
        model: Entry of the table; None if the model is unknown or ambiguous, or if there are several models.
        limit_w: Sum of the power limits of all boards, in watts; None if unknown.
        least_w: Lowest power limit of a board, in watts; None if unknown.
        is_mixed: Whether there are several models.
        is_stated: Whether the name contains the number of boards (`4 x A40`). A number above 1 is the number of boards
            of the node.
    """

    count: int
    model_name: str
    model: BoardModel | None
    limit_w: float | None
    is_stated: bool
    least_w: float | None = None
    is_mixed: bool = False


def _row(words: str, limit_w: float, source: str, gpus: int = 1, *, cpu: bool = False) -> BoardModel:
    return BoardModel(frozenset(words.split()), float(limit_w), source, gpus, cpu, can_be_raised=source is _GEFORCE)


BOARD_MODELS: tuple[BoardModel, ...] = tuple(
    sorted(
        (
            _row("a100 pcie 40gb", 250, f"{_NVIDIA}, A100 40GB PCIe"),
            _row("a100 pcie 80gb", 300, f"{_NVIDIA}, A100 80GB PCIe"),
            _row("a100 sxm4", 400, f"{_NVIDIA}, A100 SXM, 40 and 80 GB"),
            # These rows need the memory size, because the A100-SXM-64GB of one system draws more power.
            _row("a100 sxm 40gb", 400, f"{_NVIDIA}, A100 SXM"),
            _row("a100 sxm 80gb", 400, f"{_NVIDIA}, A100 SXM"),
            _row("a800 sxm4 80gb", 400, f"{_NVIDIA}, A800 SXM"),
            _row("a800 pcie 80gb", 300, f"{_NVIDIA}, A800 80GB PCIe"),
            _row("a30", 165, f"{_NVIDIA}, A30"),
            _row("a40", 300, f"{_NVIDIA}, A40"),
            _row("a10", 150, f"{_NVIDIA}, A10"),
            _row("a10g", 300, "limit that NVML reports for the A10G of AWS G5 instances"),
            _row("a2", 60, f"{_NVIDIA}, A2"),
            _row("h100 pcie", 350, f"{_NVIDIA}, H100 PCIe"),
            _row("h100 nvl", 400, f"{_NVIDIA}, H100 NVL"),
            _row("h100 80gb hbm3", 700, f"{_NVIDIA}, H100 SXM5 (name from NVML)"),
            _row("h100 sxm5", 700, f"{_NVIDIA}, H100 SXM5"),
            _row("h100 sxm", 700, f"{_NVIDIA}, H100 SXM5"),
            _row("h800 80gb hbm3", 700, f"{_NVIDIA}, H800 SXM5 (name from NVML)"),
            _row("h200", 700, f"{_NVIDIA}, H200 SXM (name from NVML)"),
            _row("h200 nvl", 600, f"{_NVIDIA}, H200 NVL"),
            _row("b200", 1000, f"{_NVIDIA}, B200 SXM"),
            _row("gh200", 1000, f"{_NVIDIA}, GH200: 450 to 1000 W for CPU, GPU and memory", cpu=True),
            _row("gb200", 1200, f"{_NVIDIA}, GB200: 1200 W per GPU; a module has a CPU and two GPUs", cpu=True),
            _row("v100 sxm2", 300, f"{_NVIDIA}, V100 SXM2"),
            # No row for the V100 SXM3: its limit is not in the data sheet, and differs between DGX-2 and DGX-2H.
            _row("v100 pcie", 250, f"{_NVIDIA}, V100 PCIe"),
            _row("v100s pcie", 250, f"{_NVIDIA}, V100S"),
            _row("p100 pcie", 250, f"{_NVIDIA}, P100 PCIe"),
            _row("p100 sxm2", 300, f"{_NVIDIA}, P100 SXM2"),
            _row("p40", 250, f"{_NVIDIA}, P40"),
            _row("p4", 75, f"{_NVIDIA}, P4"),
            _row("t4", 70, f"{_NVIDIA}, T4"),
            _row("l4", 72, f"{_NVIDIA}, L4"),
            _row("l40", 300, f"{_NVIDIA}, L40"),
            _row("l40s", 350, f"{_NVIDIA}, L40S"),
            _row("rtx a4000", 140, f"{_NVIDIA}, RTX A4000"),
            _row("rtx a5000", 230, f"{_NVIDIA}, RTX A5000"),
            _row("rtx a6000", 300, f"{_NVIDIA}, RTX A6000"),
            _row("rtx 6000 ada", 300, f"{_NVIDIA}, RTX 6000 Ada Generation"),
            _row("rtx pro 6000 blackwell", 600, f"{_NVIDIA}, RTX PRO 6000 Blackwell"),
            _row("rtx 2080 ti", 260, _GEFORCE),
            _row("rtx 3080", 320, _GEFORCE),
            _row("rtx 3080 ti", 350, _GEFORCE),
            _row("rtx 3090", 350, _GEFORCE),
            _row("rtx 3090 ti", 450, _GEFORCE),
            _row("rtx 4080", 320, _GEFORCE),
            _row("rtx 4090", 450, _GEFORCE),
            _row("rtx 5090", 575, _GEFORCE),
            _row("mi100", 300, f"{_AMD}, Instinct MI100"),
            _row("mi210", 300, f"{_AMD}, Instinct MI210"),
            _row("mi250", 560, f"{_AMD}, Instinct MI250, peak; one sensor measures both dies", 2),
            _row("mi250x", 560, f"{_AMD}, Instinct MI250X, peak; one sensor measures both dies", 2),
            _row("mi300x", 750, f"{_AMD}, Instinct MI300X"),
            _row("mi300a", 760, f"{_AMD}, Instinct MI300A, peak, for CPU, GPU and memory", cpu=True),
            _row("mi325x", 1000, f"{_AMD}, Instinct MI325X"),
        ),
        key=lambda row: -len(row.words),
    )
)
"""The models. Rows with more words come first, so that a board named `H200 NVL` does not match the row `h200`."""

_MIG_PARENT = re.compile(r"MIG-(GPU-[0-9a-fA-F-]+)/\d+/\d+")


@lru_cache(maxsize=4096)
def boards_named(name: str) -> Boards:
    """Return the boards that a name describes.

    Args:
        name: Name from a driver or a tool: `NVIDIA A100-PCIE-40GB`, `4 x NVIDIA A100-PCIE-40GB`.

    Example:
        >>> boards = boards_named("4 x NVIDIA A100-PCIE-40GB")
        >>> boards.count, boards.model.limit_w
        (4, 250.0)
    """
    name = name[:_MAX_NAME].strip()
    counts = list(_COUNT.finditer(name))
    if not counts or counts[0].start("count"):
        return _one_model(1, name, is_stated=False)
    ends = [*(found.start("count") for found in counts[1:]), len(name)]
    parts = [
        _one_model(max(int(found["count"]), 1), name[found.end() : end].strip(" ,;+"), is_stated=True)
        for found, end in zip(counts, ends, strict=True)
    ]
    if len(parts) == 1:
        return parts[0]
    # `T42 x L4` is ambiguous: it does not show where the first name ends and the second number begins.
    is_clear = all(found["before"] in " ,;+" or len(found["count"]) == 1 for found in counts[1:])
    limits = [part.limit_w for part in parts if is_clear and part.limit_w is not None]
    limit_w = sum(limits) if len(limits) == len(parts) else None
    least_w = min((part.least_w for part in parts if part.least_w is not None), default=None)
    number = sum(part.count for part in parts)
    return Boards(number, name, None, limit_w, is_stated=True, least_w=least_w, is_mixed=True)


def _one_model(count: int, name: str, *, is_stated: bool) -> Boards:
    model = model_named(name)
    limit_w = model.proven_limit_w if model is not None else None
    return Boards(count, name, model, None if limit_w is None else limit_w * count, is_stated, limit_w)


@lru_cache(maxsize=4096)
def model_named(name: str) -> BoardModel | None:
    """Return the first model of the table whose words the name contains.

    The result is None if no model matches, as for the ambiguous name `NVIDIA A100`. It is also None for the names of
    virtual and mobile boards.

    Example:
        >>> [model and model.limit_w for model in map(model_named, ["Tesla V100-SXM2-16GB", "NVIDIA A100", "L4"])]
        [300.0, None, 72.0]
    """
    words = frozenset(_WORD.findall(name[:_MAX_NAME].lower()))
    if words & _OTHER_BOARDS:
        return None
    return next((model for model in BOARD_MODELS if model.words <= words), None)


def parent_of_slice(uuid: str) -> str | None:
    """Return the UUID of the GPU of a MIG slice; None if the UUID of the slice does not contain it (drivers since 470).

    Example:
        >>> parent_of_slice("MIG-GPU-5c89/1/0"), parent_of_slice("MIG-7f31")
        ('GPU-5c89', None)
    """
    found = _MIG_PARENT.fullmatch(uuid)
    return found[1] if found else None
