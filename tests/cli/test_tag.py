"""`results tag`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.command import run

if TYPE_CHECKING:
    from pathlib import Path


def test_tags_are_set_shown_and_removed(results: Path) -> None:
    assert run("-o", results, "results", "tag", "llama_c0").err == "llama_c0 has no tags\n"
    done = run("-o", results, "results", "tag", "llama_c0", "paper=fig 3", "b=1", "--note", "loud \x1b[31mfan")
    assert (done.status, done.err) == (0, "")
    assert done.out == "b      1\npaper  fig 3\nnote   loud \\x1b[31mfan\n"
    assert run("-o", results, "results", "tag", "llama_c0").out == done.out
    done = run("-o", results, "results", "tag", "llama_c0", "b=", "--note", "", "--json")
    assert done.json() == {
        "experiment_id": "llama_c0",
        "tags": {"paper": "fig 3"},
        "note": None,
        "schema_version": "2.0.0",
    }


def test_what_cannot_be_tagged_is_said(results: Path) -> None:
    done = run("-o", results, "results", "tag", "lama_c0", "a=b")
    assert (done.status, done.out) == (1, "")
    assert "experiment 'lama_c0' not found" in done.err
    done = run("-o", results, "results", "tag", "llama_c0", "nonsense")
    assert (done.status, done.err) == (1, "error: cannot set the tag 'nonsense': it has no '='; write key=value\n")
    assert not (results / "tags").exists()
