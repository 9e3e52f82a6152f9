"""Fakes of the libraries NVML, AMD SMI, Zeus and CodeCarbon."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

from msgspec import Struct, field


class NVMLError(Exception):
    """The exception of pynvml."""


class Board(Struct, kw_only=True, eq=False):
    """A GPU and its values; None for a query that it does not support."""

    index: int
    uuid: str
    name: str | bytes = "NVIDIA A100-SXM4-40GB"
    energy_mj: float | None = 1_000_000.0
    power_mw: float | None = 200_000.0
    limit_mw: float | None = 400_000.0
    temperature_c: float | None = 55.0
    clock_mhz: float | None = 1_980.0
    throttle: int | None = 0
    persistence: int | None = 1
    slices: list[Slice] = field(default_factory=list)
    is_lost: bool = False


class Slice(Struct, kw_only=True, eq=False):
    """A MIG slice of a board."""

    uuid: str
    name: str
    board: Any = None


class FakeNvml:
    """The functions of `pynvml` that the recorder calls."""

    NVMLError = NVMLError

    def __init__(self, boards: list[Board], *, has_driver: bool = True) -> None:
        self.boards = boards
        self.has_driver = has_driver
        self.initialised = 0
        for board in boards:
            for slice_ in board.slices:
                slice_.board = board

    def nvmlInit(self) -> None:
        if not self.has_driver:
            raise NVMLError("Driver Not Loaded")
        self.initialised += 1

    def nvmlShutdown(self) -> None:
        self.initialised -= 1

    def nvmlDeviceGetCount(self) -> int:
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Board:
        if index >= len(self.boards):
            raise NVMLError("Invalid Argument")
        return self.boards[index]

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> Board | Slice:
        every: list[Board | Slice] = [*self.boards, *(slice_ for board in self.boards for slice_ in board.slices)]
        for device in every:
            if device.uuid == uuid:
                return device
        raise NVMLError("Not Found")

    def nvmlDeviceGetUUID(self, device: Board) -> str:
        return device.uuid

    def nvmlDeviceGetName(self, device: Board | Slice) -> str | bytes:
        return device.name

    def nvmlDeviceGetIndex(self, device: Board) -> int:
        return device.index

    def nvmlDeviceIsMigDeviceHandle(self, device: Board | Slice) -> bool:
        return isinstance(device, Slice)

    def nvmlDeviceGetDeviceHandleFromMigDeviceHandle(self, device: Slice) -> Board:
        board: Board = device.board
        return board

    def nvmlDeviceGetEnforcedPowerLimit(self, device: Board) -> float:
        return self._answer(device, device.limit_mw)

    def nvmlDeviceGetTotalEnergyConsumption(self, device: Board) -> float:
        return self._answer(device, device.energy_mj)

    def nvmlDeviceGetPowerUsage(self, device: Board) -> float:
        return self._answer(device, device.power_mw)

    def nvmlDeviceGetTemperature(self, device: Board, sensor: int) -> float:
        assert sensor == 0
        return self._answer(device, device.temperature_c)

    def nvmlDeviceGetClockInfo(self, device: Board, clock: int) -> float:
        assert clock == 1
        return self._answer(device, device.clock_mhz)

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, device: Board) -> float:
        return self._answer(device, device.throttle)

    def nvmlDeviceGetPersistenceMode(self, device: Board) -> float:
        return self._answer(device, device.persistence)

    def nvmlSystemGetDriverVersion(self) -> bytes:
        return b"550.54.15"

    def nvmlSystemGetCudaDriverVersion(self) -> int:
        return 12040

    def _answer(self, device: Board, value: float | None) -> float:
        if device.is_lost:
            raise NVMLError("GPU is lost")
        if value is None:
            raise NVMLError("Not Supported")
        return value


class HangingNvml(FakeNvml):
    """A library whose first call or last call hangs."""

    def __init__(self, at: str) -> None:
        super().__init__([Board(index=0, uuid="GPU-a")])
        self.at = at
        self.gate = threading.Event()

    def nvmlInit(self) -> None:
        self.gate.wait(60 if self.at == "open" else 0)
        super().nvmlInit()

    def nvmlShutdown(self) -> None:
        self.gate.wait(60 if self.at == "close" else 0)
        super().nvmlShutdown()


class AmdSmiException(Exception):
    """The exception of amdsmi."""


class FakeAmdSmi:
    """The functions of `amdsmi` that the recorder calls, for a list of GPUs.

    Attributes:
        answers: The answers of the functions about the state of a GPU. Without an answer, a function raises.
    """

    AmdSmiException = AmdSmiException

    def __init__(self, uuids: list[str], counter_name: str = "energy_accumulator") -> None:
        self.uuids = uuids
        self.counter_name = counter_name
        self.ticks = 1_000_000
        self.answers: dict[str, dict[str, Any]] = {}

    def _answer(self, name: str, handle: str) -> dict[str, Any]:
        assert handle in self.uuids
        if name not in self.answers:
            raise AmdSmiException("AMDSMI_STATUS_NOT_SUPPORTED")
        return self.answers[name]

    def amdsmi_get_gpu_metrics_info(self, handle: str) -> dict[str, Any]:
        return self._answer("metrics", handle)

    def amdsmi_get_violation_status(self, handle: str) -> dict[str, Any]:
        return self._answer("violations", handle)

    def amdsmi_get_power_cap_info(self, handle: str) -> dict[str, Any]:
        return self._answer("power_cap", handle)

    def amdsmi_get_gpu_driver_info(self, handle: str) -> dict[str, Any]:
        return self._answer("driver", handle)

    def amdsmi_init(self) -> None:
        """Nothing to do."""

    def amdsmi_shut_down(self) -> None:
        """Nothing to do."""

    def amdsmi_get_processor_handles(self) -> list[str]:
        return self.uuids

    def amdsmi_get_gpu_device_uuid(self, handle: str) -> str:
        if handle.startswith("unknown"):
            raise AmdSmiException("AMDSMI_STATUS_NOT_SUPPORTED")
        return handle

    def amdsmi_get_gpu_asic_info(self, handle: str) -> dict[str, str]:
        if handle.endswith("nameless"):
            raise AmdSmiException("not supported")
        return {"market_name": "AMD Instinct MI300X"}

    def amdsmi_get_energy_count(self, handle: str) -> dict[str, float]:
        assert handle in self.uuids
        if handle.startswith("unknown"):
            raise AmdSmiException("AMDSMI_STATUS_NOT_SUPPORTED")
        return {self.counter_name: self.ticks, "counter_resolution": 15.3, "timestamp": 0}


class FakeZeus:
    """The functions of `zeus.device` that the recorder calls."""

    def __init__(self, gpus: int, cpus: int) -> None:
        self.counts = {"gpu": gpus, "cpu": cpus}
        self.millijoules = 5_000.0

    def get_gpus(self) -> Any:
        return self._devices("gpu")

    def get_cpus(self) -> Any:
        return self._devices("cpu")

    def _devices(self, kind: str) -> Any:
        if not self.counts[kind]:
            raise RuntimeError(f"No {kind} found")
        return _ZeusDevices(self, kind)


class _ZeusDevices:
    def __init__(self, zeus: FakeZeus, kind: str) -> None:
        self.zeus = zeus
        self.kind = kind

    def __len__(self) -> int:
        return self.zeus.counts[self.kind]

    def supports_get_total_energy_consumption(self, index: int) -> bool:
        return index >= 0

    def supports_get_dram_energy_consumption(self, index: int) -> bool:
        return index == 0

    def get_name(self, index: int) -> str:
        return f"NVIDIA A40 {index}"

    def get_total_energy_consumption(self, index: int) -> Any:
        if self.kind == "gpu":
            return self.zeus.millijoules + index
        return SimpleNamespace(cpu_mj=self.zeus.millijoules, dram_mj=self.zeus.millijoules / 10)


class FakeTracker:
    """The methods of CodeCarbon's `EmissionsTracker` that the recorder calls: CPU 100 W, GPU 200 W, memory 10 W."""

    def __init__(self, now: Any, *, gpus: int = 1) -> None:
        self.now = now
        self.gpus = gpus
        self.started_at = 0.0
        self.task: str | None = None

    def get_detected_hardware(self) -> dict[str, object]:
        return {"gpu_count": self.gpus or None}

    def start_task(self, name: str) -> None:
        assert self.task is None
        self.task, self.started_at = name, self.now()

    def stop_task(self, name: str) -> Any:
        assert self.task == name
        self.task = None
        kwh = (self.now() - self.started_at) / 3.6e6
        return SimpleNamespace(cpu_energy=100 * kwh, gpu_energy=200 * kwh, ram_energy=10 * kwh)
