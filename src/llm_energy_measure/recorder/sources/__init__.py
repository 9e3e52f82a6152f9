"""Energy sources: what can be read here, and what each reading means.

A *source* (NVML, RAPL, ...) opens *sensors*; a sensor is one counter of joules, or one reading of watts. Another
package adds a source by an entry point in the group `llm_energy_measure.sources` that names a `Source`, or a function
without arguments that makes one:

    [project.entry-points."llm_energy_measure.sources"]
    my_meter = "my_package:MyMeter"
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from msgspec import Struct, field

from llm_energy_measure.domain.metrics import Component, DeviceEnergy, Provenance, Scope
from llm_energy_measure.exceptions import ConfigurationError, RecorderError
from llm_energy_measure.recorder.devices import own_devices, spare_devices
from llm_energy_measure.recorder.place import Place

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from importlib.metadata import EntryPoint

_LOG = logging.getLogger(__name__)

ENTRY_POINT_GROUP = "llm_energy_measure.sources"

# What tells a counter that wrapped from one that was reset: no socket or board draws more. The largest today stay
# below 1.5 kW (NVIDIA GB200: 1.2 kW a GPU).
MOST_POWER_W = 5_000.0


class Sensor(Struct, kw_only=True, eq=False):
    """One thing that can be read, and what its reading means.

    Attributes:
        source: The source that it belongs to.
        instance: Which of the source's sensors, such as a GPU's UUID or `package-0`.
        component: What it measures.
        scope: What it sees.
        provenance: Where its figure comes from.
        read: Joules since some instant, or watts now; raises where it can't.
        quantity: Whether it reads `energy` or `power`.
        range_j: What its counter counts up to before it begins anew, in joules; None if it does not.
        most_power_w: More than what it sees can draw, in watts.
        device: The device that it sees, without its energy.
        sees: What it sees, by a name that is the same in every process that sees it, where that is more than its
            device: the board of a slice.
        is_cheap: Whether it can be read ten times a second. If not, it is read only where a figure is needed.
    """

    source: str
    instance: str
    component: Component
    scope: Scope
    provenance: Provenance
    read: Callable[[], float]
    quantity: Literal["energy", "power"] = "energy"
    range_j: float | None = None
    most_power_w: float = MOST_POWER_W
    device: DeviceEnergy | None = None
    sees: str | None = None
    is_cheap: bool = True


class Setting(Struct, frozen=True, kw_only=True):
    """What a source may have to know.

    Attributes:
        environ: The environment variables.
        place: Where the process stands.
        w_per_core: Watts of one busy core, where somebody stated them.
        gpus: Ids of the GPUs to read, as CUDA_VISIBLE_DEVICES names them; None for those that are the process's own.
        notes: What a reader of the record has to know beside the readings; a source adds to it.
    """

    environ: Mapping[str, str]
    place: Place
    w_per_core: float | None = None
    gpus: tuple[str, ...] | None = None
    notes: list[str] = field(default_factory=list)

    def chosen_gpus(self, visible: Sequence[str]) -> list[str]:
        """The GPUs to read: those that the caller named, or those of the visible ones that are the process's own."""
        if self.gpus is not None:
            return list(self.gpus)
        spare = spare_devices(visible, self.place)
        if spare and self.place.launcher is not None and self.place.launcher.local_rank == 0:
            # Said once a host.
            self.notes.append(
                f"no process of this host reads GPU {', '.join(spare)}: there are more than processes, "
                "and each reads the one of its local rank; gpus=[...] names others"
            )
        return own_devices(visible, self.place)


@runtime_checkable
class Source(Protocol):
    """What opens sensors.

    Attributes:
        name: What it is chosen by, and what its readings say they come from.
    """

    name: str

    def open(self, setting: Setting) -> list[Sensor]:
        """The sensors that can be read here; at least one.

        Raises:
            RecorderError: There is none. It says why, and what to do.
        """

    def close(self) -> None:
        """Give back what `open` took; called once, also after `open` failed."""


# Which sources are tried, best first, where nobody names any: those whose readings are measured at the device, and the
# model, which works only where somebody stated the watts of a core.
AUTOMATIC = ("nvml", "amdsmi", "rapl", "cpu_model")

_BUILT_IN = {
    "nvml": "llm_energy_measure.recorder.sources.nvml:Nvml",
    "amdsmi": "llm_energy_measure.recorder.sources.amdsmi:AmdSmi",
    "rapl": "llm_energy_measure.recorder.sources.rapl:Rapl",
    "cpu_model": "llm_energy_measure.recorder.sources.cpu_model:CpuModel",
    "zeus": "llm_energy_measure.recorder.sources.zeus:Zeus",
    "codecarbon": "llm_energy_measure.recorder.sources.codecarbon:CodeCarbon",
}


def source_names() -> list[str]:
    """Names of all sources: ours, and those that other packages add."""
    return [*_BUILT_IN, *sorted(_entry_points())]


def get_source(name: str) -> Source:
    """The source of that name, not yet opened.

    Raises:
        ConfigurationError: There is none, or what an entry point names is no source.

    Example:
        >>> get_source("rapl").name
        'rapl'
    """
    doing = f"cannot use the energy source {name!r}"
    if name in _BUILT_IN:
        module, _, attribute = _BUILT_IN[name].partition(":")
        found: Source = getattr(importlib.import_module(module), attribute)()
        return found
    added = _entry_points()
    if name not in added:
        raise ConfigurationError(doing, "there is no such source", f"choose from {', '.join(source_names())}")
    try:
        loaded: Any = added[name].load()
        source = loaded() if isinstance(loaded, type) or not isinstance(loaded, Source) else loaded
    except Exception as error:
        found_wrong = f"{added[name].value} can't be used ({type(error).__name__}: {error})"
        raise ConfigurationError(doing, found_wrong, "correct the package that provides it") from error
    if not isinstance(source, Source):
        raise ConfigurationError(
            doing, f"{added[name].value} has no name, open and close", "correct the package that provides it"
        )
    return source


def _entry_points() -> dict[str, EntryPoint]:
    # Imported late: reading the metadata of every installed package costs more than opening most sources.
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=ENTRY_POINT_GROUP) if point.name not in _BUILT_IN}


def open_source(source: Source, setting: Setting) -> list[Sensor]:
    """The sensors of a source that can be read here.

    Raises:
        RecorderError: There is none; whatever it is that anybody's source raises, it says so.
        ConfigurationError: A setting can't be.
    """
    try:
        return source.open(setting)
    except (RecorderError, ConfigurationError):
        raise
    except Exception as bug:
        found = f"{type(bug).__name__}: {bug}"
        raise RecorderError(f"cannot read {source.name}", found, "correct that source") from bug


def close_source(source: Source) -> None:
    """Close a source. Where that fails, as with a GPU that was lost, nothing that was read is any worse for it."""
    try:
        source.close()
    except Exception as bug:  # noqa: BLE001 - anybody's source: it must not cost the run, nor hide the run's own error
        _LOG.warning("the energy source %s could not be closed: %s: %s", source.name, type(bug).__name__, bug)


class Opened(Struct, kw_only=True, eq=False):
    """What could be opened, and why the rest could not.

    Attributes:
        sources: The open sources, to be closed.
        sensors: Their sensors, one family for each component: no two sources measure the same thing.
        refusals: Name of each source that could not be opened, and why.
        notes: What a reader of the record has to know beside the readings.
    """

    sources: list[Source]
    sensors: list[Sensor]
    refusals: dict[str, RecorderError]
    notes: list[str]

    def close(self) -> None:
        """Close every source."""
        for source in self.sources:
            close_source(source)


def open_sources(wanted: Iterable[str | Source] | None, setting: Setting) -> Opened:
    """Open sources; for each component the first that measures it is taken, so that no joule is counted by two.

    Args:
        wanted: Names, or sources, best first; None for `AUTOMATIC`.
        setting: What they may have to know.

    Raises:
        ConfigurationError: There is no such source, or a setting of one can't be.
    """
    opened = Opened(sources=[], sensors=[], refusals={}, notes=setting.notes)
    with contextlib.ExitStack() as undo:
        undo.callback(opened.close)
        for one in AUTOMATIC if wanted is None else wanted:
            source = get_source(one) if isinstance(one, str) else one
            opened.sources.append(source)
            try:
                sensors = open_source(source, setting)
            except RecorderError as refused:
                opened.refusals[source.name] = refused
                continue
            measured = {sensor.component for sensor in opened.sensors}
            opened.sensors += [
                sensor for sensor in sensors if sensor.component not in measured and "total" not in measured
            ]
        undo.pop_all()
    return opened
