"""The tree of errors, and the sentence that each of them says."""

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


def drawn() -> dict[str, tuple[int, list[str]]]:
    """Depth and foreign bases of each error, as the docstring draws them."""
    found = {}
    for line in (exceptions.__doc__ or "").splitlines():
        match = re.match(r"    ([│├└─ ]*)([A-Z]\w+Error)\b(?: +\(\+ (\w+)\))?", line)
        if match:
            found[match[2]] = (len(match[1]) // 4, [match[3]] if match[3] else [])
    return found


def test_the_docstring_draws_the_tree_as_it_is() -> None:
    real = {}
    for error in ERRORS:
        ours = [base for base in error.__mro__ if base.__module__ == exceptions.__name__]
        foreign = [base.__name__ for base in error.__bases__ if base.__module__ == "builtins" and base is not Exception]
        real[error.__name__] = (len(ours) - 1, foreign)
    assert drawn() == real
    assert len(real) >= 16


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_is_one_sentence_of_three_parts(error: type[LLMEnergyMeasureError]) -> None:
    raised = error("cannot do it", "found 7", "use 8")
    assert str(raised) == "cannot do it: found 7; use 8"
    assert (raised.doing, raised.found, raised.advice) == ("cannot do it", "found 7", "use 8")
    assert str(error("cannot do it")) == "cannot do it"
    assert str(error("cannot do it", advice="use 8")) == "cannot do it; use 8"


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_comes_back_whole_from_another_process(error: type[LLMEnergyMeasureError]) -> None:
    raised = error("cannot do it", "found 7", "use 8")
    again = pickle.loads(pickle.dumps(raised))  # noqa: S301 - our own bytes: what multiprocessing does
    assert type(again) is error
    assert (str(again), again.doing, again.found, again.advice) == (str(raised), "cannot do it", "found 7", "use 8")


@pytest.mark.parametrize("error", ERRORS)
def test_every_error_says_what_it_is(error: type[LLMEnergyMeasureError]) -> None:
    assert error.__doc__
    assert issubclass(error, LLMEnergyMeasureError)
