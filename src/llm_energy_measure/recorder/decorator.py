"""The decorator `@record(...)`, which measures each call of a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from llm_energy_measure.exceptions import ConfigurationError

PARAMETER = "run"
"""Name of the parameter through which a decorated function gets its recording."""


def decorate(function: Callable[..., Any], new: Callable[[], Any]) -> Callable[..., Any]:
    """Return a function that measures each call of `function`, which may be a coroutine function.

    Args:
        function: The function. If the function has a parameter `run`, each call passes the recording in this parameter.
        new: Returns a new recording.

    Raises:
        ConfigurationError: `function` is a class, is a generator function, or cannot be called.
    """
    is_generator = inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function)
    if not callable(function) or inspect.isclass(function) or is_generator:
        found = f"{getattr(function, '__qualname__', function)!r} is not a function that returns a value"
        raise ConfigurationError("cannot measure with @record", found, "use 'with record(...) as run:' in its body")
    takes_run = PARAMETER in inspect.signature(function).parameters

    def arguments(run: object, given: dict[str, Any]) -> dict[str, Any]:
        return {PARAMETER: run, **given} if takes_run else given

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def measured_async(*args: Any, **kwargs: Any) -> Any:
            async with new() as run:
                return await function(*args, **arguments(run, kwargs))

        return measured_async

    @functools.wraps(function)
    def measured(*args: Any, **kwargs: Any) -> Any:
        with new() as run:
            return function(*args, **arguments(run, kwargs))

    return measured
