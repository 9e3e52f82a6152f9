"""Intel and AMD processors through RAPL, which Linux shows under `/sys/class/powercap`."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

from llm_energy_measure.exceptions import RecorderError
from llm_energy_measure.recorder.sources import Sensor, Settings

POWERCAP = Path("/sys/class/powercap")

# Zone names: `intel-rapl:0` is a package, and `intel-rapl:0:1` is a part of this package. Linux lists the same zones a
# second time as `intel-rapl-mmio:*`. Those zones must not be counted again.
_ZONE = re.compile(r"intel-rapl:([0-9]+)(:[0-9]+)?")


class Rapl:
    """Sensors of the processor packages, and of memory that has its own counter. They count all processes of the host.

    The counter of a package includes its cores and, on most processors, its graphics. So the zones of cores and
    graphics are not read. The zone `psys` includes the package, so `psys` is not read either.

    Args:
        powercap: Folder of the zones.

    Source: Linux, Documentation/power/powercap/powercap.rst; energy_uj and max_energy_range_uj are in microjoules.
    """

    name = "rapl"

    def __init__(self, powercap: Path = POWERCAP) -> None:
        self.powercap = powercap

    def open(self, settings: Settings) -> list[Sensor]:  # noqa: ARG002 - part of the Source protocol
        """Return one sensor per package and memory. Raises `RecorderError` if the host shows no RAPL sensor."""
        doing = f"cannot read RAPL in {self.powercap}"
        try:
            zones = sorted(path for path in self.powercap.iterdir() if _ZONE.fullmatch(path.name))
        except OSError as error:
            advice = "run on the host itself: virtual machines and most containers do not show RAPL"
            found = f"{self.powercap} can't be listed ({error.strerror})"
            raise RecorderError(doing, found, advice) from error
        try:
            sensors = [sensor for zone in zones if (sensor := self._sensor(zone)) is not None]
        except PermissionError as error:
            found = f"only root can read {error.filename}; this is the default since Linux 5.10 (CVE-2020-8694)"
            command = f"chmod a+r {self.powercap}/*/energy_uj"
            advice = f"as root, run '{command}' after each boot, or write a udev rule that does the same"
            raise RecorderError(doing, found, advice) from error
        except (OSError, ValueError) as error:
            raise RecorderError(doing, str(error), "check the kernel module intel_rapl_msr") from error
        if not sensors:
            raise RecorderError(doing, "it has no processor package", "load the kernel module: modprobe intel_rapl_msr")
        return sensors

    def close(self) -> None:
        """Do nothing: this source keeps no resource open."""

    def _sensor(self, zone: Path) -> Sensor | None:
        """Return the sensor of a zone; None if another zone includes its energy."""
        name = (zone / "name").read_text(encoding="ascii").strip()
        match = _ZONE.fullmatch(zone.name)
        package = match[1] if match is not None and match[2] is not None else None
        if name == "dram":
            instance = f"dram-{package or zone.name}"
        elif name.startswith("package") and package is None:
            instance = name
        else:
            return None
        read = partial(_read_joules, zone / "energy_uj")
        read()  # raise an error now if the counter cannot be read
        return Sensor(
            source=self.name,
            instance=instance,
            component="ram" if name == "dram" else "cpu",
            scope="host",
            provenance="measured",
            read=read,
            range_j=_read_joules(zone / "max_energy_range_uj"),
        )


def _read_joules(path: Path) -> float:
    return int(path.read_bytes()) * 1e-6
