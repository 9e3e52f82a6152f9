"""Experiment ids and paths that cannot leave their base folder."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llm_energy_measure.constants import HIDDEN_MARK
from llm_energy_measure.exceptions import ExperimentIdError, ResultNotFoundError, UnsafePathError
from llm_energy_measure.results import FileSystemRepository
from llm_energy_measure.security import is_safe_path, sanitize_experiment_id, validate_path


@pytest.mark.parametrize(
    ("experiment_id", "safe"),
    [
        ("exp_7", "exp_7"),
        ("exp/with/slashes", "exp_with_slashes"),
        ("/etc/passwd", "_etc_passwd"),
        ("..\\..", ".._._"),
        ("a b\tc\nd\0e", "a_b_c_d_e"),
        ("ümlaut-²", "_mlaut-_"),
        ("-rf", "-rf"),
        ("~", "_"),
        ("x" * 200, "x" * 200),
        *(("CON", "CON_"), ("nul", "nul_"), ("aux.json", "aux_json"), ("COM1.tar.gz", "COM1_tar.gz")),
        *(("exp.", "exp_"), ("exp..", "exp._"), ("Lpt3.", "Lpt3_"), ("aux." + "x" * 196, "aux_" + "x" * 196)),
        *(("console", "console"), ("com", "com"), ("com10", "com10"), ("my.aux", "my.aux"), (".con", ".con")),
    ],
)
def test_sanitize_replaces_unsafe_characters_with_underscores(experiment_id: str, safe: str) -> None:
    assert sanitize_experiment_id(experiment_id) == safe


@pytest.mark.parametrize(
    ("experiment_id", "found"),
    [
        ("", "'' is empty"),
        (" \n", "is empty"),
        (".", "consists of dots only"),
        ("..", "consists of dots only"),
        ("....", "consists of dots only"),
        ("x" * 201, r"'xxxxxxxxxxxxxxxxxxxx'\.\.\. has 201 characters; the limit is 200"),
        ("superseded-exp-1", "has the reserved form superseded-<id>-<number>"),
        ("superseded-a/b-12", "has the reserved form superseded-<id>-<number>"),
        (None, "None is not a string"),
        (7, "7 is not a string"),
    ],
)
def test_sanitize_rejects_invalid_id_with_one_sentence(experiment_id: str, found: str) -> None:
    with pytest.raises(ExperimentIdError, match=f"^cannot use the experiment id: .*{found}; use another id$"):
        sanitize_experiment_id(experiment_id)


@given(st.text(max_size=250))
@example("superseded-a\n-1")
@example("superseded--1")
def test_sanitized_id_is_a_safe_name_and_sanitizes_to_itself(experiment_id: str) -> None:
    try:
        safe = sanitize_experiment_id(experiment_id)
    except ExperimentIdError:
        return
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,200}", safe)
    assert safe.strip(".")
    assert HIDDEN_MARK not in safe
    assert sanitize_experiment_id(safe) == safe


@pytest.mark.parametrize(
    ("target", "safe"),
    [
        ("base", True),
        ("base/a/b", True),
        ("base/a/../b", True),
        ("base/..", False),
        ("base/../base-evil", False),
        ("base-evil", False),
        ("base/out", False),
        ("base/out/x", False),
        ("base/in", True),
        ("base/nul\0", False),
    ],
)
def test_is_safe_path_resolves_symbolic_links(tmp_path: Path, target: str, *, safe: bool) -> None:
    base = tmp_path / "base"
    (base / "a").mkdir(parents=True)
    (tmp_path / "base-evil").mkdir()
    (base / "out").symlink_to(tmp_path / "base-evil")
    (base / "in").symlink_to(base / "a")
    assert is_safe_path(base, tmp_path / target) is safe
    assert is_safe_path(str(base), str(tmp_path / target)) is safe


def test_relative_path_starts_at_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_safe_path(tmp_path, "anything")
    assert not is_safe_path(tmp_path, "../anything")


def test_validate_path_returns_absolute_path(tmp_path: Path) -> None:
    assert validate_path("a/../b", tmp_path) == tmp_path.resolve() / "b"
    assert validate_path(str(tmp_path)) == tmp_path.resolve()
    assert validate_path(tmp_path, must_exist=True) == tmp_path.resolve()


@pytest.mark.parametrize("path", ["", "a\0b"])
def test_validate_path_rejects_empty_and_nul_paths(path: str) -> None:
    with pytest.raises(UnsafePathError, match="empty or contains a NUL character"):
        validate_path(path)


@pytest.mark.parametrize("path", ["..", "../x", "/etc/passwd", "out/x"])
def test_validate_path_rejects_paths_outside_the_base(tmp_path: Path, path: str) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "out").symlink_to(tmp_path)
    with pytest.raises(UnsafePathError, match="it is outside"):
        validate_path(path, base)


def test_validate_path_rejects_missing_path_if_it_must_exist(tmp_path: Path) -> None:
    with pytest.raises(ResultNotFoundError, match="it does not exist; check the spelling"):
        validate_path("absent", tmp_path, must_exist=True)


@pytest.mark.parametrize("path", ["\ud949", "a/\udc80/b", "x" * 5000, "/" + "x" * 300])
@pytest.mark.parametrize("must_exist", [True, False])
def test_validate_path_survives_names_that_cannot_be_stored(tmp_path: Path, path: str, *, must_exist: bool) -> None:
    for base in (None, tmp_path):
        try:
            assert validate_path(path, base, must_exist=must_exist).is_absolute()
        except (UnsafePathError, ResultNotFoundError):
            continue
        assert not must_exist


@pytest.mark.parametrize("path", ["results", "a:b", "C:/results", "x/s3:/y", "./s3/y"])
def test_path_with_a_colon_is_no_url(path: str) -> None:
    assert FileSystemRepository(path).base_path == Path(path)
