"""Names of hosts and users are replaced everywhere, each by the same pseudonym, and the results stay the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from llm_energy_measure.bundle.checking import verify_bundle
from llm_energy_measure.bundle.contents import LeftOut, Selection
from llm_energy_measure.bundle.creation import BundleOptions, create_bundle
from llm_energy_measure.bundle.pseudonyms import Pseudonyms
from llm_energy_measure.bundle.snapshot import Snapshot
from llm_energy_measure.domain.experiment import Launcher
from llm_energy_measure.exceptions import ConfigurationError
from llm_energy_measure.results import FileSystemRepository, aggregate_all
from llm_energy_measure.results.batch.verify import verify_experiment
from llm_energy_measure.results.store.tags import change_tags
from tests.support import bundles, factories

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def named(tmp_path: Path) -> FileSystemRepository:
    """Two experiments on the hosts gpu01, gpu02 and `tesla`, of the user ada."""
    repository = FileSystemRepository(tmp_path / "results")
    for experiment in ("run_gpu01_a", "run_b"):
        for process, host in enumerate(("gpu01.cluster.example.org", "gpu02.cluster.example.org", "tesla")):
            record = factories.raw(
                experiment,
                process,
                host=host,
                launcher=Launcher(name="slurm", node=host, local_rank=0),
                effective_config={
                    "cache_dir": "/home/ada/.cache",
                    "log": "copied from gpu02:/scratch/ada/log by ada@gpu01",
                    "board": "tesla",
                },
            )
            repository.save_raw(experiment, record)
        change_tags(repository.store, experiment, {"where": "gpu01"}, note="ran on gpu02, not on gpu020")
    list(aggregate_all(repository))
    return repository


def packed(repository: FileSystemRepository, target: Path, **options: object) -> dict[str, bytes]:
    selection = Selection(
        found=["run_b", "run_gpu01_a"], left_out=[LeftOut(experiment_id="other_gpu02", reason="its id was not given")]
    )
    create_bundle(repository, target, selection, BundleOptions(pseudonymise=True, **options))  # type: ignore[arg-type]  # options of the test
    return bundles.unpacked(target)


def test_no_file_or_name_keeps_a_name(named: FileSystemRepository, tmp_path: Path) -> None:
    files = packed(named, tmp_path / "a.zip")
    everything = b"\n".join([*files.values(), *(name.encode() for name in files)])
    for name in (b"gpu01", b"gpu02.", b"gpu02:", b"cluster.example.org", b"ada/", b"ada@", b'"host": "tesla"'):
        assert name not in everything, name
    assert "data/raw/run_host-1_a/process_0.json" in files
    assert b"ran on host-2, not on gpu020" in files["data/tags/run_b.json"]
    record = files["data/raw/run_b/process_1.json"]
    assert b"/home/user-1/.cache" in record
    assert b"copied from host-2:/scratch/user-1/log by user-1@host-1" in record


def test_report_has_the_pseudonyms(named: FileSystemRepository, tmp_path: Path) -> None:
    def render(repository: FileSystemRepository) -> bytes:
        [first, *_] = repository.load_all_raw("run_host-1_a")
        return str(first.host).encode()

    assert packed(named, tmp_path / "a.zip", report=render)["data/report.html"] == b"host-1"


def test_word_that_is_also_a_host_stays_in_other_fields(named: FileSystemRepository, tmp_path: Path) -> None:
    record = packed(named, tmp_path / "a.zip")["data/raw/run_b/process_2.json"]
    assert b'"board":"tesla"' in record.replace(b" ", b"")
    assert b'"host":"host-3"' in record.replace(b" ", b"")


def test_energies_and_verdicts_stay_the_same(named: FileSystemRepository, tmp_path: Path) -> None:
    files = packed(named, tmp_path / "a.zip")
    found = verify_bundle(bundles.Files(files))
    assert found.outcome == "unsigned"
    (tmp_path / "opened").mkdir()
    for name, data in files.items():
        path = tmp_path / "opened" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    opened = FileSystemRepository(tmp_path / "opened" / "data")
    for before, after in (("run_b", "run_b"), ("run_gpu01_a", "run_host-1_a")):
        old, new = verify_experiment(named, before), verify_experiment(opened, after)
        assert new.verdict == old.verdict
        assert new.attributed_bounds_j == old.attributed_bounds_j
        assert new.total_energy_j == old.total_energy_j
        assert [one.code for one in new.findings] == [one.code for one in old.findings]


def test_bundle_says_that_names_are_replaced(named: FileSystemRepository, tmp_path: Path) -> None:
    files = packed(named, tmp_path / "a.zip")
    found = verify_bundle(bundles.Files(files))
    assert found.selection is not None
    assert found.selection.pseudonyms == {"hosts": 3, "users": 1}
    assert found.selection.found == ["run_b", "run_host-1_a"]
    assert found.selection.left_out[0].experiment_id == "other_host-2"
    assert b"The names of hosts and users are replaced." in files["README.txt"]


def test_bundle_with_pseudonyms_has_the_same_bytes_twice(named: FileSystemRepository, tmp_path: Path) -> None:
    packed(named, tmp_path / "a.zip")
    packed(named, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_real_names_that_look_like_pseudonyms_are_not_mixed_up(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    hosts = ["host-2", "zeta", "alpha", "host-1"]
    for process, host in enumerate(hosts):
        repository.save_raw("e", factories.raw("e", process, host=host, effective_config={"note": f"on {host}"}))
    selection = Selection(found=["e"])
    create_bundle(repository, tmp_path / "a.zip", selection, BundleOptions(pseudonymise=True))
    files = bundles.unpacked(tmp_path / "a.zip")
    records = [msgspec.json.decode(files[f"data/raw/e/process_{process}.json"]) for process in range(4)]
    assert [record["host"] for record in records] == ["host-5", "host-6", "host-3", "host-4"]
    assert records[0]["effective_config"]["note"] == "on host-5"


def test_ids_that_become_equal_are_refused(tmp_path: Path) -> None:
    repository = FileSystemRepository(tmp_path / "results")
    for name in ("run_gpu01", "run_host-1"):
        repository.save_raw(name, factories.raw(name, host="gpu01"))
    with pytest.raises(ConfigurationError, match="two experiments would have the same id; leave out one of them"):
        create_bundle(
            repository,
            tmp_path / "a.zip",
            Selection(found=["run_gpu01", "run_host-1"]),
            BundleOptions(pseudonymise=True),
        )
    assert not (tmp_path / "a.zip").exists()


def test_stale_aggregate_is_refused(named: FileSystemRepository, tmp_path: Path) -> None:
    named.save_raw("run_b", factories.raw("run_b", 3, host="gpu01.cluster.example.org"))
    with pytest.raises(ConfigurationError, match="its aggregate is stale, so it does not follow from the raw files"):
        packed(named, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_results_without_names_stay_byte_by_byte(results: Path, tmp_path: Path) -> None:
    repository = FileSystemRepository(results)
    create_bundle(repository, tmp_path / "a.zip", Selection(found=["llama_c0"]), BundleOptions(pseudonymise=True))
    create_bundle(repository, tmp_path / "b.zip", Selection(found=["llama_c0"]))
    with_option, without = bundles.unpacked(tmp_path / "a.zip"), bundles.unpacked(tmp_path / "b.zip")
    changed = {name for name in without if with_option[name] != without[name]}
    assert changed == {
        *("data/selection.json", "bag-info.txt", "manifest-sha256.txt", "tagmanifest-sha256.txt"),
    }
    assert b"replaced" not in with_option["README.txt"]


@pytest.mark.parametrize(
    "text",
    [
        '{"host": "localhost"}',
        '{"node": "0"}',
        '{"master_addr": "127.0.0.1"}',
        '{"host": null}',
        '{"host": "gpu01',
    ],
)
def test_texts_without_a_name_are_unchanged(text: str) -> None:
    pseudonyms = Pseudonyms()
    snapshot = Snapshot(folder="e", files={"raw/e/process_0.json": text.encode()})
    pseudonyms.collect(snapshot)
    pseudonyms.freeze()
    assert pseudonyms.counts == {"hosts": 0, "users": 0}
    assert pseudonyms.apply(snapshot) == snapshot
