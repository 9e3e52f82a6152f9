"""The exception tree and the three parts of each message."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

from llm_energy_measure import exceptions
from llm_energy_measure.exceptions import LLMEnergyMeasureError

ERRORS = [
    value
    for _, value in inspect.getmembers(exceptions, inspect.isclass)
    if issubclass(value, BaseException) and value.__module__ == exceptions.__name__
]


def tree_in_docstring() -> dict[str, tuple[int, list[str]]]:
    """Return depth and built-in bases of each exception in the tree of the docstring."""
    found = {}
    for line in (exceptions.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+Error)\b(?: +\(\+ (\w+)\))?", line)
        if match:
            found[match[2]] = (len(match[1]) // 4, [match[3]] if match[3] else [])
    return found


def test_docstring_shows_the_exception_tree() -> None:
    real = {}
    for error in ERRORS:
        ours = [base for base in error.__mro__ if base.__module__ == exceptions.__name__]
        builtin = [base.__name__ for base in error.__bases__ if base.__module__ == "builtins" and base is not Exception]
        real[error.__name__] = (len(ours) - 1, builtin)
    assert tree_in_docstring() == real
    assert len(real) >= 16


@pytest.mark.parametrize("error", ERRORS)
def test_message_joins_the_three_parts(error: type[LLMEnergyMeasureError]) -> None:
    raised = error("cannot do it", "found 7", "use 8")
    assert str(raised) == "cannot do it: found 7; use 8"
    assert (raised.doing, raised.found, raised.advice) == ("cannot do it", "found 7", "use 8")
    assert str(error("cannot do it")) == "cannot do it"
    assert str(error("cannot do it", advice="use 8")) == "cannot do it; use 8"


@pytest.mark.parametrize("error", ERRORS)
def test_exception_survives_pickling(error: type[LLMEnergyMeasureError]) -> None:
    raised = error("cannot do it", "found 7", "use 8")
    loaded = pickle.loads(pickle.dumps(raised))  # noqa: S301 - our own bytes: what multiprocessing does
    assert type(loaded) is error
    assert (str(loaded), loaded.doing, loaded.found, loaded.advice) == (str(raised), "cannot do it", "found 7", "use 8")


@pytest.mark.parametrize("error", ERRORS)
def test_every_exception_has_a_docstring_and_the_base_class(error: type[LLMEnergyMeasureError]) -> None:
    assert error.__doc__
    assert issubclass(error, LLMEnergyMeasureError)
