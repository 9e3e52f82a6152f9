"""Names of boards: how many boards they state, of which model, and with which limit."""

from __future__ import annotations

import pytest

from llm_energy_measure.verification.boards import BOARD_MODELS, boards_named, model_named
from llm_energy_measure.verification.tools import TOOLS


@pytest.mark.parametrize(
    ("name", "count", "limit_w"),
    [
        ("4 x NVIDIA A100-PCIE-40GB", 4, 250),
        ("NVIDIA A100 80GB PCIe", 1, 300),
        ("NVIDIA A100-SXM4-80GB", 1, 400),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", 1, 400),
        ("8 x NVIDIA A100-SXM4", 8, 400),
        ("A100 SXM 80GB", 1, 400),
        ("NVIDIA A100-SXM-64GB", 1, None),
        ("H100 SXM", 1, 700),
        ("A100 PCIe", 1, None),
        ("NVIDIA H100 PCIe", 1, 350),
        ("NVIDIA H100 80GB HBM3", 1, 700),
        ("NVIDIA H100 NVL", 1, 400),
        ("NVIDIA H200", 1, 700),
        ("NVIDIA H200 NVL", 1, 600),
        ("8 x NVIDIA B200", 8, 1000),
        ("Tesla V100-SXM2-16GB", 1, 300),
        ("8 x NVIDIA A40", 8, 300),
        ("NVIDIA A10", 1, 150),
        ("NVIDIA A10G", 1, 300),
        ("NVIDIA L4", 1, 72),
        ("NVIDIA L40S", 1, 350),
        ("Tesla T4", 1, 70),
        ("NVIDIA GeForce RTX 3090", 1, 350),
        ("NVIDIA GeForce RTX 4090", 1, 450),
        ("NVIDIA RTX A6000", 1, 300),
        ("AMD Instinct MI250X", 1, 560),
        ("AMD Instinct MI300X", 1, 750),
        ("NVIDIA GH200 480GB", 1, 1000),
        ("NVIDIA A100", 1, None),
        ("NVIDIA H100", 1, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 1, None),
        ("GRID A100-10C", 1, None),
        ("Zephyr 9000", 1, None),
        ("0 x NVIDIA A40", 1, 300),
        ("2 x NVIDIA L4, 1 x NVIDIA A40", 3, None),
        ("", 1, None),
        ("9" * 10_000, 1, None),
    ],
)
def test_names_of_boards_are_read(name: str, count: int, limit_w: float | None) -> None:
    boards = boards_named(name)
    assert (boards.count, boards.model and boards.model.limit_w) == (count, limit_w)


@pytest.mark.parametrize(
    ("name", "limit_w"),
    [
        ("2 x NVIDIA A100-PCIE-40GB2 x NVIDIA L4", 644),
        ("2 x NVIDIA A100-PCIE-40GB, 2 x NVIDIA L4", 644),
        ("2 x NVIDIA L4 + 12 x NVIDIA L4", 1008),
        ("4 x NVIDIA L42 x NVIDIA A40", None),
        ("2 x Zephyr 9000, 2 x NVIDIA L4", None),
    ],
)
def test_names_of_mixed_nodes_are_added_up_or_are_unknown(name: str, limit_w: float | None) -> None:
    boards = boards_named(name)
    assert (boards.is_mixed, boards.model, boards.limit_w) == (True, None, limit_w)


def test_every_row_of_the_table_has_a_source_and_is_found_by_its_own_name() -> None:
    for row in BOARD_MODELS:
        assert row.source
        assert model_named(" ".join(row.words)) == row


def test_the_limit_of_a_consumer_board_proves_nothing() -> None:
    boards = boards_named("2 x NVIDIA GeForce RTX 4090")
    assert boards.model is not None
    assert (boards.model.limit_w, boards.model.proven_limit_w, boards.limit_w) == (450.0, None, None)


def test_each_board_and_tool_of_the_tables_names_its_source() -> None:
    sources = [model.source for model in BOARD_MODELS]
    assert all("data sheet" in source or "product page" in source or "NVML" in source for source in sources)
    assert all("https://" in entry.source for entry in TOOLS)


def test_boards_without_a_documented_limit_are_unknown() -> None:
    for name in ("Tesla V100-SXM3-32GB", "Tesla V100-SXM3-32GB-H", "NVIDIA A100-SXM-64GB", "NVIDIA A100"):
        assert model_named(name) is None
