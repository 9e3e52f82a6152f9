"""Shards: a fixed part of the experiments for each of several jobs, such as the tasks of a SLURM array.

Each experiment is in exactly one of N shards, which depends on the SHA-256 of its folder name. Other experiments, the
order of the folders and the machine have no influence, so the jobs need no communication.
"""

from __future__ import annotations

import hashlib
import re

from msgspec import Struct

from llm_energy_measure.exceptions import ConfigurationError

_MAX_COUNT = 1_000_000
_TEXT = re.compile(r"([0-9]{1,7})/([0-9]{1,7})", re.ASCII)


class Shard(Struct, frozen=True):
    """One of several parts of the experiments. The parts are disjoint, and together they contain all experiments.

    Attributes:
        number: Number of this shard, from 1 to `count`.
        count: Number of shards.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        """Raise `ConfigurationError` if there is no shard with this number."""
        if not 1 <= self.number <= self.count <= _MAX_COUNT:
            found = f"there are {self.count} shards, and their numbers start at 1"
            advice = f"use I/N with I from 1 to N, and N at most {_MAX_COUNT}"
            raise ConfigurationError(f"cannot select the shard {self.number}/{self.count}", found, advice)

    def has(self, folder: str) -> bool:
        """Return True if the experiment with this folder name is in the shard.

        Example:
            >>> [number for number in (1, 2, 3) if Shard(number, 3).has("exp_7")]
            [2]
        """
        digest = hashlib.sha256(folder.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1


def parse_shard(text: str) -> Shard:
    """Return the shard in a text such as `3/16`, the third of 16.

    Raises:
        ConfigurationError: The text has another form, or there is no shard with this number.
    """
    match = _TEXT.fullmatch(text)
    if match is None:
        raise ConfigurationError(
            f"cannot select the shard {text!r}", "it is not of the form I/N", "use for example 3/16"
        )
    return Shard(int(match[1]), int(match[2]))
