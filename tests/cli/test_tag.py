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


def test_tags_are_shown_listed_and_exported_without_the_catalogue(results: Path, tmp_path: Path) -> None:
    run("-o", results, "results", "list")
    run("-o", results, "results", "tag", "llama_c0", "paper=fig 3", "--note", "the fan was loud")
    run("-o", results, "results", "tag", "mistral", "--note", "not yet")
    (results / ".catalogue.sqlite").unlink()
    [row] = run("-o", results, "results", "list", "--json", "--where", "note ~ FAN and tag.paper = 'fig 3'").json()
    assert (row["experiment_id"], row["tags"], row["note"]) == (*("llama_c0", {"paper": "fig 3"}, "the fan was loud"),)
    shown = [line.split(maxsplit=2) for line in run("-o", results, "results", "show", "llama_c0").out.splitlines()]
    assert ["tag", "paper", "fig 3"] in shown
    assert ["note", "the", "fan was loud"] in shown
    assert "note        not yet" in run("-o", results, "results", "show", "mistral").out
    run("-o", results, "results", "export", "--format", "parquet", "--to", tmp_path / "data")
    query = "select tags['paper'] as paper, note from experiments where note is not null"
    done = run("results", "sql", query, "--dataset", tmp_path / "data", "--format", "json")
    assert done.json() == [{"paper": "fig 3", "note": "the fan was loud"}]


def test_invalid_tags_are_refused(results: Path) -> None:
    done = run("-o", results, "results", "tag", "lama_c0", "a=b")
    assert (done.status, done.out) == (1, "")
    assert "experiment 'lama_c0' not found" in done.err
    done = run("-o", results, "results", "tag", "llama_c0", "nonsense")
    assert (done.status, done.err) == (1, "error: cannot set the tag 'nonsense': it has no '='; write key=value\n")
    for word in ("paper=fig3", "paper=a/b"):
        done = run("-o", results, "results", "tag", word)
        assert (done.status, done.out) == (2, "")
        assert f"No experiment has the id '{word}'. To set this tag, give an id, a glob or --where before" in done.err
    assert not (results / "tags").exists()
