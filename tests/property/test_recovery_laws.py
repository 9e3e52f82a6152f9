"""`recover_all`, which lists each folder once, returns what `recover_raw` returns for any files in a folder."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from llm_energy_measure.domain.experiment import Manifest
from llm_energy_measure.results import FileSystemRepository, recover_all
from llm_energy_measure.results.store import codec
from tests.support import factories

if TYPE_CHECKING:
    import pytest

NAMES = [
    *(f"{prefix}process_{index}.json" for prefix in ("", "partial-") for index in (0, 1, 2, 10)),
    *("manifest.json", "notes.txt", "process_01.json", "rejected-process_0-1.json"),
]
CONTENTS = [
    *(codec.encode_raw(factories.raw("exp_7", index)) for index in (0, 1, 2, 10)),
    codec.encode_raw(factories.raw("other", 1)),
    *(codec.encode_manifest(Manifest(experiment_id=name, expected_processes=3)) for name in ("exp_7", "other")),
    *(b"", b"{", b"null", b" " * (1 << 16)),
]
FILES = st.dictionaries(st.sampled_from(NAMES), st.sampled_from([*CONTENTS, "link", "folder"]), max_size=8)


@given(FILES)
def test_recover_all_equals_recover_raw(
    tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes | str]
) -> None:
    base = tmp_path_factory.mktemp("recovery")
    folder = base / "raw" / "exp_7"
    folder.mkdir(parents=True)
    for name, content in files.items():
        if content == "link":
            (folder / name).symlink_to("process_0.json")
        elif content == "folder":
            (folder / name).mkdir()
        else:
            (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    repository = FileSystemRepository(base)
    expected = {name: repository.recover_raw(name) for name in repository.list_experiments()}
    assert dict(recover_all(repository)) == expected
    shutil.rmtree(base)
