"""Intel and AMD processors through RAPL, as Linux shows it under `/sys/class/powercap`."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llm_energy_measure.exceptions import RecorderError
from llm_energy_measure.recorder.sources import Sensor

if TYPE_CHECKING:
    from llm_energy_measure.recorder.sources import Setting

POWERCAP = Path("/sys/class/powercap")

# A package, `intel-rapl:0`, and a part of it, `intel-rapl:0:1`. The same zones appear a second time as
# `intel-rapl-mmio:*`: not counted again.
_ZONE = re.compile(r"intel-rapl:([0-9]+)(:[0-9]+)?")


class Rapl:
    """Each processor package, and each memory that is counted apart: joules of the whole host.

    A package's counter holds its cores and, in most processors, its graphics: those parts are not added to it. `psys`,
    which holds the package and more, is left out too.

    Args:
        powercap: Where the zones are.

    Source: Linux, Documentation/power/powercap/powercap.rst; energy_uj and max_energy_range_uj are in microjoules.
    """

    name = "rapl"

    def __init__(self, powercap: Path = POWERCAP) -> None:
        """Remember the folder; nothing is read."""
        self.powercap = powercap

    def open(self, setting: Setting) -> list[Sensor]:  # noqa: ARG002 - the same for every source
        """A sensor for each package and each memory. Raises `RecorderError` where there is none."""
        doing = f"cannot read RAPL in {self.powercap}"
        try:
            zones = sorted(path for path in self.powercap.iterdir() if _ZONE.fullmatch(path.name))
        except OSError as error:
            advice = "read it on the machine itself: a virtual machine and most containers don't show it"
            found = f"{self.powercap} can't be listed ({error.strerror})"
            raise RecorderError(doing, found, advice) from error
        try:
            sensors = [sensor for zone in zones if (sensor := self._sensor(zone)) is not None]
        except PermissionError as error:
            found = f"{error.filename} is readable for root alone, as Linux has it since 5.10 (CVE-2020-8694)"
            advice = f"as root: chmod a+r {self.powercap}/*/energy_uj (until the next boot; a udev rule keeps it)"
            raise RecorderError(doing, found, advice) from error
        except (OSError, ValueError) as error:
            raise RecorderError(doing, str(error), "check the kernel's module intel_rapl_msr") from error
        if not sensors:
            raise RecorderError(doing, "it has no package", "load the kernel's module: modprobe intel_rapl_msr")
        return sensors

    def close(self) -> None:
        """Nothing is held."""

    def _sensor(self, zone: Path) -> Sensor | None:
        """The sensor of a zone, if its energy is not within another zone's."""
        name = (zone / "name").read_text(encoding="ascii").strip()
        match = _ZONE.fullmatch(zone.name)
        part_of = match[1] if match is not None and match[2] is not None else None
        if name == "dram":
            instance = f"dram-{part_of or zone.name}"
        elif name.startswith("package") and part_of is None:
            instance = name
        else:
            return None
        read = partial(_joules, zone / "energy_uj")
        read()
        return Sensor(
            source=self.name,
            instance=instance,
            component="ram" if name == "dram" else "cpu",
            scope="host",
            provenance="measured",
            read=read,
            range_j=_joules(zone / "max_energy_range_uj"),
        )


def _joules(path: Path) -> float:
    return int(path.read_bytes()) * 1e-6
