"""Arrow without pandas: half a second and 45 MB that a command has no use for."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.machinery import ModuleSpec


class _Absent:
    """A finder of modules for which there is no pandas."""

    def find_spec(self, fullname: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        """None for every other module: the next finder looks for it."""
        if fullname == "pandas":
            msg = "not needed here"
            raise ModuleNotFoundError(msg, name=fullname)
        return None


@contextlib.contextmanager
def without_pandas() -> Iterator[None]:
    """Inside, pyarrow does not import pandas to see whether a list might be one of its frames."""
    finder = _Absent()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
