"""Energy sources: the sensors of this machine and the meaning of each reading.

A *source* (NVML, RAPL, ...) opens *sensors*. A sensor is one energy counter in joules or one power reading in watts.
Another package adds a source with an entry point in the group `llm_energy_measure.sources`. The entry point names a
`Source` object, or a class or function without arguments that returns one:

    [project.entry-points."llm_energy_measure.sources"]
    my_meter = "my_package:MyMeter"
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from msgspec import Struct, field

from llm_energy_measure.constants import EXTRA_PACKAGES
from llm_energy_measure.domain.device_state import DeviceSample, DeviceState
from llm_energy_measure.domain.metrics import Component, DeviceEnergy, Provenance, Scope, SensorReading
from llm_energy_measure.exceptions import ConfigurationError, RecorderError
from llm_energy_measure.recorder.bounded import result_within
from llm_energy_measure.recorder.devices import own_devices, unused_devices
from llm_energy_measure.recorder.ranks import ProcessRank

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_LOG = logging.getLogger(__name__)

# The longest wait at the end for a driver that hangs. The result is saved already.
_CLOSE_SEC = 2.0

ENTRY_POINT_GROUP = "llm_energy_measure.sources"

# This limit separates a counter that wrapped from a counter that was reset. No socket and no board draws more power:
# the largest boards of today stay below 1.5 kW (NVIDIA GB200: 1.2 kW per GPU).
MAX_POWER_W = 5_000.0


class Sensor(Struct, kw_only=True, eq=False):
    """One energy counter or power reading, and what its readings mean.

    Attributes:
        source: Name of the source.
        instance: Name of the sensor within its source, such as a GPU's UUID or `package-0`.
        component: Component that the sensor measures.
        scope: What the readings cover.
        provenance: How the source obtains the figure.
        read: Returns joules since a fixed instant, or the present power in watts. Raises if the sensor cannot be read.
        quantity: Whether `read` returns `energy` or `power`.
        range_j: Value at which the counter wraps to 0, in joules; None if the counter does not wrap.
        max_power_w: Upper limit of the power that the sensor can see, in watts.
        device: The device that the sensor sees; the field `energy_j` of the device is not set.
        board: UUID of the board whose counter `read` returns, if the device is not the board. For example, a MIG slice
            reads the counter of its whole board. The UUID is the same in every process on the board.
        state: Returns the state of the device: temperature, clock, throttle reasons, limits. The attribute is None if
            the source does not read the state.
        sample: Returns power, temperature, clock and throttle reasons at this instant; None if the power is unknown.
            The attribute is None if samples are computed from `read`.
        is_cheap: Whether the sensor can be read ten times per second. Other sensors are read only when their energy is
            needed.
    """

    source: str
    instance: str
    component: Component
    scope: Scope
    provenance: Provenance
    read: Callable[[], float]
    quantity: Literal["energy", "power"] = "energy"
    range_j: float | None = None
    max_power_w: float = MAX_POWER_W
    device: DeviceEnergy | None = None
    board: str | None = None
    state: Callable[[], DeviceState] | None = None
    sample: Callable[[], DeviceSample | None] | None = None
    is_cheap: bool = True

    @property
    def label(self) -> str:
        """Source and name of the sensor, as messages show it."""
        return f"{self.source} {self.instance}"

    def reading(self, **figures: Any) -> SensorReading:
        """Return the record of this sensor, with the given values over the energy window."""
        return SensorReading(
            source=self.source,
            instance=self.instance,
            component=self.component,
            scope=self.scope,
            provenance=self.provenance,
            **figures,
        )


class Settings(Struct, frozen=True, kw_only=True):
    """The facts that a source may need when it opens its sensors.

    Attributes:
        environ: The environment variables.
        rank: Rank of the process, and the number of processes on its host.
        w_per_core: Power of one busy core, in watts; None if the user states none.
        gpus: Ids of the GPUs to read, as in CUDA_VISIBLE_DEVICES; None to read the GPUs that belong to the process.
        notes: Sentences that the record has to show next to the energy. A source appends to this list.
        patience_sec: The longest wait for a source with `may_hang`, in seconds. A reset of a GPU takes less.
    """

    environ: Mapping[str, str]
    rank: ProcessRank
    w_per_core: float | None = None
    gpus: tuple[str, ...] | None = None
    notes: list[str] = field(default_factory=list)
    patience_sec: float = 30.0

    def select_gpus(self, visible: Sequence[str]) -> list[str]:
        """Return the ids of the GPUs to read: `gpus` if set, else the visible GPUs that belong to this process."""
        if self.gpus is not None:
            return list(self.gpus)
        unused = unused_devices(visible, self.rank)
        if unused and self.rank.launcher is not None and self.rank.launcher.local_rank == 0:
            # The process with local rank 0 adds this note, so that each host has one note.
            self.notes.append(
                f"no process of this host reads GPU {', '.join(unused)}: the host has more GPUs than processes, "
                "and each process reads the GPU of its local rank; select other GPUs with gpus=[...] (--gpu)"
            )
        return own_devices(visible, self.rank)


@runtime_checkable
class Source(Protocol):
    """Opens the sensors of one library or interface.

    Attributes:
        name: Name by which users select the source. The readings contain this name.

    A source whose driver may hang sets the attribute `may_hang` to True. This tool then opens and closes the source in
    another thread, and waits a limited time.
    """

    name: str

    def open(self, settings: Settings) -> list[Sensor]:
        """Return the sensors that this machine has, at least one.

        Raises:
            RecorderError: No sensor can be read. The error states the reason and what to do.
        """

    def close(self) -> None:
        """Release the resources of `open`. Called once, also after `open` failed."""


# The sources that `record` tries if the user selects none, best first. The first three measure at the device; the CPU
# model works only if the user states the power of a core.
DEFAULT_SOURCES = ("nvml", "amdsmi", "rapl", "cpu_model")

_BUILT_IN = {
    "nvml": "llm_energy_measure.recorder.sources.nvml:Nvml",
    "amdsmi": "llm_energy_measure.recorder.sources.amdsmi:AmdSmi",
    "rapl": "llm_energy_measure.recorder.sources.rapl:Rapl",
    "cpu_model": "llm_energy_measure.recorder.sources.cpu_model:CpuModel",
    "zeus": "llm_energy_measure.recorder.sources.zeus:Zeus",
    "codecarbon": "llm_energy_measure.recorder.sources.codecarbon:CodeCarbon",
}


def source_names() -> list[str]:
    """Return the names of all sources: the built-in ones, then those of entry points."""
    return [*_BUILT_IN, *sorted(_entry_points())]


def get_source(name: str) -> Source:
    """Return the source with this name, not yet opened.

    Raises:
        ConfigurationError: The name is unknown, or its entry point does not give a source.

    Example:
        >>> get_source("rapl").name
        'rapl'
    """
    doing = f"cannot use the energy source {name!r}"
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        built_in: Source = getattr(importlib.import_module(module), attribute)()
        return built_in
    entry_points = _entry_points()
    if name not in entry_points:
        raise ConfigurationError(doing, "there is no such source", f"choose from {', '.join(source_names())}")
    value, advice = entry_points[name].value, "correct the package that provides it"
    try:
        loaded: Any = entry_points[name].load()
        source = loaded() if isinstance(loaded, type) or not isinstance(loaded, Source) else loaded
    except Exception as error:
        found = f"its entry point {value} failed ({type(error).__name__}: {error})"
        raise ConfigurationError(doing, found, advice) from error
    if not isinstance(source, Source):
        raise ConfigurationError(doing, f"its entry point {value} has no attribute `name`, `open` or `close`", advice)
    return source


def _entry_points() -> dict[str, EntryPoint]:
    # A late import: reading the metadata of all installed packages takes longer than opening most sources.
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in _BUILT_IN}


def import_library(module: str, extra: str, doing: str, *, note: str = "") -> Any:
    """Import and return a module of an optional package. Raises `RecorderError` with the command that installs it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = EXTRA_PACKAGES[extra]
        found = f"the package {package} cannot be imported ({error})"
        raise RecorderError(doing, found, f"pip install {package}{note}") from error


def open_source(source: Source, settings: Settings) -> list[Sensor]:
    """Open a source and return its sensors.

    Raises:
        RecorderError: No sensor can be read, or the source raised an error of another type.
        ConfigurationError: A setting of the source is wrong.
    """
    doing = f"cannot read {source.name}"
    try:
        if not getattr(source, "may_hang", False):
            return source.open(settings)
        return result_within(settings.patience_sec, lambda: source.open(settings))
    except (RecorderError, ConfigurationError):
        raise
    except TimeoutError as hang:
        found = f"the driver did not answer for {settings.patience_sec:g} s"
        raise RecorderError(doing, found, "check the GPUs and their driver, or select other sources") from hang
    except Exception as bug:
        found = f"{type(bug).__name__}: {bug}"
        raise RecorderError(doing, found, "correct the code of this source, or select other sources") from bug


def close_source(source: Source) -> None:
    """Close a source. A failure, for example of a lost GPU, is only logged: all readings are already taken."""
    try:
        if getattr(source, "may_hang", False):
            result_within(_CLOSE_SEC, source.close)
        else:
            source.close()
    except Exception as bug:  # noqa: BLE001 - a third-party source; its error must not hide an error of the run
        _LOG.warning("cannot close the energy source %s: %s: %s", source.name, type(bug).__name__, bug)


class OpenSources(Struct, kw_only=True, eq=False):
    """The sources that were tried, their sensors, and the reasons why a source could not be opened.

    Attributes:
        sources: All sources that were tried, also those that could not be opened. `close` closes each of them.
        sensors: The sensors of the opened sources. All sensors of one component come from one source.
        errors: Why a source could not be opened, by source name.
        notes: Sentences that the record has to show next to the energy.
    """

    sources: list[Source]
    sensors: list[Sensor]
    errors: dict[str, RecorderError]
    notes: list[str]

    def close(self) -> None:
        """Close every source."""
        for source in self.sources:
            close_source(source)


def open_sources(wanted: Iterable[str | Source] | None, settings: Settings) -> OpenSources:
    """Open energy sources. For each component, use only the first source that measures it, so no joule counts twice.

    Args:
        wanted: Names or objects of sources, best first; None for `DEFAULT_SOURCES`.
        settings: Facts that the sources may need.

    Raises:
        ConfigurationError: A source does not exist, or a setting of a source is wrong.
    """
    opened = OpenSources(sources=[], sensors=[], errors={}, notes=settings.notes)
    with contextlib.ExitStack() as undo:
        undo.callback(opened.close)
        for name_or_source in DEFAULT_SOURCES if wanted is None else wanted:
            source = get_source(name_or_source) if isinstance(name_or_source, str) else name_or_source
            opened.sources.append(source)
            try:
                sensors = open_source(source, settings)
            except RecorderError as error:
                opened.errors[source.name] = error
                continue
            measured = {sensor.component for sensor in opened.sensors}
            opened.sensors += [
                sensor for sensor in sensors if sensor.component not in measured and "total" not in measured
            ]
        undo.pop_all()
    if settings.gpus and not any(sensor.component in ("gpu", "total") for sensor in opened.sensors):
        opened.notes.append(
            f"GPU {', '.join(settings.gpus)} is selected, but no source reads a GPU; "
            "'llm-energy-measure doctor' names the reasons"
        )
    return opened
