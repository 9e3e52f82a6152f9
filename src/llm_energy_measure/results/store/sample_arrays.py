"""Decode the latency samples of large raw files to arrays.

An `array.array("d")` takes 8 bytes per sample; a list of Python floats takes four times as much. The samples are cut
out of the JSON text before the text is decoded, and are decoded separately. The remaining text is small, so that the
checks of this text are cheap.
"""

from __future__ import annotations

import random
import re
from array import array
from typing import NamedTuple

import msgspec

from llm_energy_measure.domain.experiment import RawProcessResult
from llm_energy_measure.domain.units import Milliseconds

MIN_TEXT_BYTES = 8 * 1024 * 1024
"""The samples of smaller files are decoded to lists."""

MIN_ARRAY_BYTES = 64 * 1024
"""Smaller arrays of a large file are decoded to lists."""

_KINDS = ("ttft_ms", "itl_full_ms", "itl_trimmed_ms")
_CHUNK_BYTES = 1024 * 1024
_OPENING = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*\[")
_DECODER = msgspec.json.Decoder(list[Milliseconds])


class SampleArrays(NamedTuple):
    """A JSON text without its large arrays of samples.

    Attributes:
        text: The text, in which each array is replaced by a list of one random number.
        spans: Start and end offset, in bytes, of the content of each array in the original text, by its random number.
        original: The original text.
    """

    text: bytes
    spans: dict[float, tuple[int, int]]
    original: bytes

    @property
    def sample_count(self) -> int:
        """Largest possible number of samples in the arrays."""
        return sum(self.original.count(b",", *span) + 1 for span in self.spans.values())

    def restore(self, record: RawProcessResult) -> bool:
        """Put the samples into a record that was decoded from `text`.

        Returns:
            False if a removed array is not in a field for latency samples, or has a value that is no sample. The record
            must then not be used.
        """
        inference = record.inference_metrics
        latency = None if inference is None else inference.latency_measurements
        spans = dict(self.spans)
        for kind in _KINDS:
            if latency is None:
                break
            samples = getattr(latency, kind)
            if len(samples) == 1 and (span := spans.pop(samples[0], None)) is not None:
                decoded = _decode(self.original, *span)
                if decoded is None:
                    return False
                msgspec.structs.force_setattr(latency, kind, decoded)
        return not spans


def cut_sample_arrays(
    body: bytes, *, min_text_bytes: int = MIN_TEXT_BYTES, min_array_bytes: int = MIN_ARRAY_BYTES
) -> SampleArrays:
    """Return a JSON text without its large arrays of samples. A text with a backslash is unchanged.

    Args:
        body: The text, which need not be valid JSON.
        min_text_bytes: A smaller text is unchanged.
        min_array_bytes: Smaller arrays are not cut.
    """
    spans: dict[float, tuple[int, int]] = {}
    if len(body) < min_text_bytes or b"\\" in body:
        return SampleArrays(body, spans, body)
    for kind in _KINDS:
        # In valid JSON without backslashes, no string contains a quote, so a quoted name in front of a colon is a key.
        name = f'"{kind}"'.encode()
        position = body.find(name)
        while position >= 0:
            opening = _OPENING.match(body, position + len(name))
            position += len(name)
            if opening and (end := body.find(b"]", opening.end())) - opening.end() >= min_array_bytes:
                spans[random.uniform(1e299, 1e300)] = (opening.end(), end)  # noqa: S311 - a value that no file contains
                position = end
            position = body.find(name, position)
    parts, position = [], 0
    for number, (start, end) in sorted(spans.items(), key=lambda item: item[1]):
        parts += [body[position:start], repr(number).encode()]
        position = end
    return SampleArrays(b"".join([*parts, body[position:]]) if spans else body, spans, body)


def _decode(body: bytes, start: int, end: int) -> array[float] | None:
    """Return the samples in the content of a JSON list; None if a value is not a number of at least 0."""
    samples = array("d")
    while start <= end:
        cut = body.find(b",", min(start + _CHUNK_BYTES, end), end)
        cut = end if cut < 0 else cut
        try:
            chunk = _DECODER.decode(b"[" + body[start:cut] + b"]")
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if not chunk:
            return None  # nothing but blanks between two commas
        samples.extend(chunk)
        start = cut + 1
    return samples
