"""A seeded mutator of real files: damage by disks, defects of tools, and attacks."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|true|false|null|[\[\]{}:,]', re.DOTALL)

NUMBERS = [
    *(b"0", b"-0", b"-1", b"1.0", b"3.0", b"0.5", b"1e2", b"1E+2", b"007", b"0x10", b"+1", b".5", b"1.", b"1_000"),
    *(b"1e308", b"1e309", b"-1e400", b"1e-400", b"9007199254740993", b"9223372036854775808", b"18446744073709551616"),
    *(b"NaN", b"Infinity", b"-Infinity", b"nan", b"1" * 400, b"9" * 5000, b"-" + b"9" * 5000, b"1e" + b"9" * 30),
    *(b"0." + b"1" * 3000, b"1" + b"0" * 308, b"1" + b"0" * 400 + b".0", b"1e99999999999999999999"),
]
TEXTS = [
    *(
        "",
        " ",
        ".",
        "..",
        "...",
        "../../etc/passwd",
        "/",
        "\\",
        "a/b",
        "a_b",
        "CON",
        "nul.json",
        "~",
        "-rf",
        "%s{0}$(x)",
    ),
    *("=1+1", "+1", "-1", "@SUM(A1)", " =1+1", "\t=1", "\n=1", "\uff1d1", "'=1", '"=1', '=HYPERLINK("http://x")'),
    *("\x00", "\x1b[31m", "\x1b]0;t\x07", "\x9b2J", "\r", "\n", "\r\n", "\u2028", "\u202e", "\ufeff", "\u200b", "\x7f"),
    *("\ufffe", "\uffff", "\U0001f600", "\U0010ffff", "e\u0301", "\u00e9", "\u0130", "\u1e9e", "\u0663", "\u00b2"),
    *("x" * 200, "x" * 201, "x" * 5000, "superseded-x-1", "process_0.json", "rejected-process_0-1.json", "[bold]x[/]"),
    *("0001-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59.999999-12:00", "2026-02-30T00:00:00Z"),
    *("2026-01-16T24:00:00Z", "2026-01-16 19:39:58", "2026-01-16T19:39:58.2259371234Z", "2026-01-16T19:39:58+23:59"),
    *("9999-12-31T23:59:60Z", "2.0.0", "2.1.0", "3.0.0", "1.0", "2", "2.0.0.0", "99999999999.0", "NaN", "null", "nan"),
]
ESCAPES = [
    *(
        rb'"\ud800"',
        rb'"\udc00\ud800"',
        rb'"\u0000"',
        rb'"\x41"',
        rb'"\u12"',
        b'"\xff\xfe"',
        b'"\xed\xa0\x80"',
        b'"\\"',
    ),
    *(b'"\x00"', b'"\n"', b'"unterminated', b'"\xc0\xaf"', b'"\xf4\x90\x80\x80"', rb'"\\\""', rb'"\/"'),
]
OTHERS = [
    *(
        b"null",
        b"true",
        b"false",
        b"[]",
        b"{}",
        b"[null]",
        b'{"a":1,"a":2}',
        b'{"":{"":0}}',
        b'{"1":1}',
        b"[[[]]]",
        b"",
    ),
    *(b"[" * 50 + b"]" * 50, b"[" * 99 + b"]" * 99, b"[" * 101 + b"]" * 101, b"[" * 20000, b'{"a":' * 5000, b"]", b"}"),
    *(
        b'{"a":' * 90 + b"1" + b"}" * 90,
        b"[" * 3000 + b"]" * 3000,
        b",",
        b":",
        b"//x\n",
        b"/*x*/",
        b"'x'",
        b"\xef\xbb\xbf",
    ),
]
KEYS = [
    *(
        "schema_version",
        "experiment_id",
        "process_index",
        "unknown_fields",
        "process_results",
        "sources",
        "",
        "a/b",
        "~0",
    ),
    *("effective_config", "energy_metrics", "new_field", "0", "/", "~1", "timestamps", "launcher", "window", "stored"),
]


def text(rng: random.Random, seeds: Sequence[str]) -> str:
    """Return a mutated text: an id, a path, a cell or a line."""
    changed = rng.choice(seeds) if rng.random() < 0.5 else rng.choice(TEXTS)
    for _ in range(rng.randrange(4)):
        what, at = rng.randrange(6), rng.randrange(len(changed) + 1)
        if what == 0:
            changed = changed[:at] + rng.choice(TEXTS) + changed[at:]
        elif what == 1:
            changed = (
                changed[:at]
                + chr(rng.choice((rng.randrange(0x20), rng.randrange(0x250), rng.randrange(0x110000))))
                + changed[at:]
            )
        elif what == 2:
            changed = changed[:at]
        elif what == 3:
            changed = changed[at:] + changed[:at]
        elif what == 4:
            changed = (changed + "/") * rng.randrange(1, 40)
        else:
            changed = changed[:at].swapcase() + changed[at:]
        changed = changed[:20_000]
    return changed


def mutated(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Return one of the files after one to three mutations. Most are small, so most of the file stays valid."""
    data = rng.choice(seeds)
    for _ in range(1 + (rng.random() < 0.3) + (rng.random() < 0.1)):
        data = rng.choice(MUTATIONS)(rng, data, seeds)
    return data[:2_000_000]


def _slice(rng: random.Random, data: bytes, longest: int = 200) -> tuple[int, int]:
    start = rng.randrange(len(data) + 1)
    return start, min(len(data), start + rng.randrange(longest))


def _flip(rng: random.Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    changed = bytearray(data or b"\0")
    for _ in range(rng.choice((1, 1, 1, 4, 64))):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(rng: random.Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[at:] if rng.random() < 0.1 else data[:at]


def _zero(rng: random.Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    """Set a block to zeros, as a file system does that lost a write."""
    start, stop = _slice(rng, data, 4096)
    return data[:start] + bytes(stop - start) + data[stop:]


def _remove(rng: random.Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    start, stop = _slice(rng, data)
    return data[:start] + data[stop:]


def _repeat(rng: random.Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    start, stop = _slice(rng, data, 60)
    return data[:start] + data[start:stop] * rng.choice((2, 2, 3, 100)) + data[stop:]


def _insert(rng: random.Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.choice((1, 1, 3, 20))) + data[at:]


def _splice(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    """Join the head of one file and the tail of another, as two concurrent writers do."""
    other = rng.choice(seeds)
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


def _wrap(rng: random.Random, data: bytes, seeds: Sequence[bytes]) -> bytes:
    kind = rng.randrange(6)
    if kind == 0:
        return b"\xef\xbb\xbf" + data
    if kind == 1:
        return data.decode("utf-8", "replace").encode(
            rng.choice(("utf-16", "utf-16-le", "utf-32", "latin-1")), "replace"
        )
    if kind == 2:
        return data + rng.choice((b"\n", b"\0" * 50, b" " * 50, b"]", b"}", b"null", rng.choice(seeds)))
    if kind == 3:
        return b"[" + data + b"]"
    if kind == 4:
        return data.replace(b"\n", b"\r\n")
    return data.replace(b"  ", b"")


def _value(rng: random.Random) -> bytes:
    kind = rng.randrange(4)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.choice(OTHERS)
    if kind == 2:
        return rng.choice(ESCAPES)
    return _quoted(rng.choice(TEXTS))


def _quoted(plain: str) -> bytes:
    # Escape the text as JSON requires: the decoder must accept it, so that later code gets the text.
    escaped = re.sub('["\\\\\x00-\x1f]', lambda match: f"\\u{ord(match[0]):04x}", plain)
    return f'"{escaped}"'.encode()


def _tokens(rng: random.Random, data: bytes, kind: bytes) -> re.Match[bytes] | None:
    """Return a random token that starts with one of these bytes, or None."""
    start = rng.randrange(len(data) + 1)
    found = (match for match in _TOKEN.finditer(data, start) if match[0][:1] in kind)
    for _, match in zip(range(rng.randrange(1, 6)), found, strict=False):
        if rng.random() < 0.4:
            return match
    return None


def _replace_value(rng: random.Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    match = _tokens(rng, data, rng.choice((b"-0123456789", b'"', b"tfn", b'-0123456789"tfn')))
    return data if match is None else data[: match.start()] + _value(rng) + data[match.end() :]


def _replace_same_kind(rng: random.Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    """Replace a number by a number, or a text by a text. The result passes the first check of the decoder."""
    if rng.random() < 0.5:
        match, value = _tokens(rng, data, b"-0123456789"), rng.choice(NUMBERS)
    else:
        match, value = _tokens(rng, data, b'"'), _quoted(rng.choice(TEXTS))
    return data if match is None else data[: match.start()] + value + data[match.end() :]


def _drop_token(rng: random.Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    match = _tokens(rng, data, b'[]{}:,-0123456789"tfn')
    return data if match is None else data[: match.start()] + data[match.end() :]


def _add_member(rng: random.Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    """Add a field to an object: an unknown, a known or a duplicate one."""
    match = _tokens(rng, data, b"{")
    if match is None:
        return data
    value = _value(rng) if rng.random() < 0.5 else rng.choice((b"1", b'"x"', b"null", b"[1, 2]", b'{"a": 1}'))
    member = _quoted(rng.choice(KEYS)) + b": " + value + b", "
    return data[: match.end()] + member + data[match.end() :]


def _rename_key(rng: random.Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    match = _tokens(rng, data, b'"')
    return data if match is None else data[: match.start()] + _quoted(rng.choice(KEYS)) + data[match.end() :]


def _swap(rng: random.Random, data: bytes, _seeds: Sequence[bytes]) -> bytes:
    one, other = _tokens(rng, data, b'-0123456789"tfn'), _tokens(rng, data, b'-0123456789"tfn')
    if one is None or other is None or one.start() == other.start():
        return data
    one, other = sorted((one, other), key=lambda match: match.start())
    return data[: one.start()] + other[0] + data[one.end() : other.start()] + one[0] + data[other.end() :]


MUTATIONS: list[Callable[[random.Random, bytes, Sequence[bytes]], bytes]] = [
    *(_flip, _truncate, _zero, _remove, _repeat, _insert, _splice, _wrap),
    *(_replace_value, _replace_same_kind, _replace_same_kind, _drop_token, _add_member, _add_member),
    *(_rename_key, _swap),
]
