"""Facts about processes from the /proc file system of Linux."""

from __future__ import annotations

from pathlib import Path


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the program name; index 0 is field 3 of proc_pid_stat(5).

    Raises:
        OSError: The process has ended, or this system has no /proc.
    """
    # Field 2 is the program name in parentheses, which may contain spaces and parentheses.
    text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    return text.rpartition(")")[2].split()
