"""Prevent pyarrow from importing pandas: the import takes half a second and 45 MB, and no command uses pandas."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec


class _PandasBlocker:
    """An import finder that reports pandas as not installed."""

    def find_spec(self, fullname: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """Raise `ModuleNotFoundError` for pandas. Return None for other modules: Python then asks the next finder."""
        if fullname == "pandas":
            msg = "the import is blocked, because no command uses pandas"
            raise ModuleNotFoundError(msg, name=fullname)
        return None


@contextlib.contextmanager
def block_pandas() -> Iterator[None]:
    """Make `import pandas` fail in the block. pyarrow imports pandas, for example to test if a value is a DataFrame."""
    blocker = _PandasBlocker()
    sys.meta_path.insert(0, blocker)
    try:
        yield
    finally:
        sys.meta_path.remove(blocker)
