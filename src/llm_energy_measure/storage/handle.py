"""The descriptor of an open folder, and how it is closed."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Self


class FolderHandle:
    """An open folder; a context manager that closes it.

    Args:
        descriptor: The open descriptor, which `close` closes. None if the system cannot open folders (Windows), if the
            folder cannot be opened, or for a bucket.
    """

    def __init__(self, descriptor: int | None) -> None:
        self._descriptor = descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the folder. A second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
