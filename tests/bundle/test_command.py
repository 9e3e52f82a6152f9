"""The commands `bundle create`, `verify` and `open`, and the exit status of each outcome."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.bundle import names
from llm_energy_measure.bundle.opening import open_bundle
from llm_energy_measure.bundle.outcomes import CODES, OUTCOMES
from tests.support import bundles
from tests.support.command import Done, run

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "check-a-papers-results.md"


def verify(*arguments: object) -> Done:
    return run("bundle", "verify", *arguments)


def codes(*arguments: object) -> list[str]:
    return [problem["code"] for problem in verify(*arguments, "--json").json()["problems"]]


def digest_of(path: Path) -> str:
    digest: str = verify(path, "--json").json()["digest"]
    return digest


def with_changed(whole: Path, target: Path, name: str, data: bytes | None, *, listed: bool = False) -> Path:
    """Pack a bundle again in which one file has other content, or is missing."""
    files = bundles.unpacked(whole)
    files = {other: content for other, content in files.items() if other != name}
    if data is not None:
        files[name] = data
    return bundles.packed(bundles.listed_again(files) if listed else files, target)


def test_create_prints_one_line_for_the_paper(results: Path, tmp_path: Path) -> None:
    target = tmp_path / "fig3.zip"
    done = run("-o", results, "bundle", "create", "--where", "tag.paper = fig3", "--to", target)
    assert done.status == 0
    line = re.fullmatch(r"2 experiments, 14 files, sha256:([0-9a-f]{64})\n", done.out)
    assert line is not None
    assert line[1] == digest_of(target)
    assert "files: 14\nexperiments: 2; " in verify(target).out, "the numbers are those of the paper"
    assert "warning: 2 experiments are not complete: llama_c0 (undetermined), llama_c1 (undetermined)" in done.err
    assert "2 left out (see data/selection.json): llama_c2: it does not match the condition" in done.err
    assert "torn: it does not match the condition" in done.err


def test_create_with_ids_records_the_others(results: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    assert run("-o", results, "bundle", "create", "llama_c0", "torn", "--to", target).status == 0
    selection = verify(target, "--json").json()["selection"]
    assert selection["requested_ids"] == ["llama_c0", "torn"]
    assert selection["found"] == ["llama_c0", "torn"]
    left_out = [(one["experiment_id"], one["reason"]) for one in selection["left_out"]]
    assert left_out == [("llama_c1", "its id was not given"), ("llama_c2", "its id was not given")]
    assert selection["unknown_configuration"] == []
    assert "left out by the authors: llama_c1 (its id was not given)" in verify(target).out


def test_create_with_a_glob_and_a_condition(results: Path, tmp_path: Path) -> None:
    target = tmp_path / "a.zip"
    arguments = ("llama_c[01]", "--where", "tag.paper = fig3", "--to", target)
    assert run("-o", results, "bundle", "create", *arguments).status == 0
    selection = verify(target, "--json").json()["selection"]
    assert (selection["requested_ids"], selection["condition"]) == (["llama_c[01]"], "tag.paper = fig3")
    assert selection["found"] == ["llama_c0", "llama_c1"]
    reasons = {one["experiment_id"]: one["reason"] for one in selection["left_out"]}
    assert reasons["llama_c2"] == "the ids and the condition do not select it"


def test_create_without_a_selection_packs_everything(results: Path, tmp_path: Path) -> None:
    assert run("-o", results, "bundle", "create", "--to", tmp_path / "a.zip").out.startswith("4 experiments, ")


def test_report_has_only_the_packed_experiments(results: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    for folder, target in ((results, tmp_path / "a.zip"), (tmp_path / "renamed", tmp_path / "b.zip")):
        if folder != results:
            results.rename(folder)
        done = run("-o", folder, "bundle", "create", "llama_c0", "llama_c1", "--to", target, "--report")
        assert done.status == 0, done.err
    report = bundles.unpacked(tmp_path / "a.zip")["data/report.html"]
    assert report.startswith(b"<!")
    assert b"llama_c1" in report
    assert b"llama_c2" not in report
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--date", "31.3.2026"], "'31.3.2026' is not a date; write for example 2026-03-31"),
        (["--licence", "my licence"], "'my licence' is not an SPDX identifier"),
        (["--where", "colour = red"], "colour"),
        (["--to", "-"], "a bundle cannot be written to stdout; write for example --to fig3.zip"),
    ],
)
def test_create_refuses_wrong_arguments(results: Path, tmp_path: Path, arguments: Sequence[str], message: str) -> None:
    done = run("-o", results, "bundle", "create", "--to", tmp_path / "a.zip", *arguments)
    assert done.status == 2
    assert message in done.err
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nope"], "experiment 'nope' not found"),
        (["--where", "model ~ nope"], "no experiment is selected: none matches 'model ~ nope'"),
        (["--sign", "no_key"], "cannot sign with the key no_key: the file was not found; create a key with"),
    ],
)
def test_create_reports_errors_in_one_line(results: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run("-o", results, "bundle", "create", *arguments, "--to", tmp_path / "a.zip")
    assert done.status == 1
    assert done.err.count("\n") == 1
    assert message in done.err
    assert not (tmp_path / "a.zip").exists()


def test_unsigned_bundle(whole: Path) -> None:
    done = verify(whole)
    assert (done.status, done.out.splitlines()[0]) == (11, "unsigned: whole; no key has signed the bundle")


def test_expected_bundle(whole: Path, tmp_path: Path) -> None:
    digest = digest_of(whole)
    for text in (digest, f"sha256:{digest}", f"sha256:{digest.upper()}"):
        assert verify(whole, "--expect", text).status == 0
    assert run("bundle", "open", whole, "--to", tmp_path / "opened").status == 0
    done = verify(tmp_path / "opened", "--expect", digest)
    assert (done.status, done.out.splitlines()[0]) == (0, "expected: whole, and the digest is that of --expect")


def test_other_digest_than_expected(whole: Path) -> None:
    done = verify(whole, "--expect", "0" * 64)
    assert (done.status, done.out.split(":")[0]) == (12, "changed")
    assert codes(whole, "--expect", "0" * 64) == ["digest.differs"]
    assert verify(whole, "--expect", "0f3a").status == 2


def test_signed_bundle(signed: Path, signers: Path, tmp_path: Path) -> None:
    done = verify(signed, "--allowed-signers", signers)
    assert (done.status, done.out.splitlines()[0]) == (0, "signed: whole, and signed by a known key")
    assert re.search(r"^signer: ada, key SHA256:\S+$", done.out, re.MULTILINE)
    done = verify(signed)
    assert (done.status, done.out.split(":")[0]) == (10, "signer-unknown")
    other = tmp_path / "others"
    other.write_text("# no signer\n")
    assert verify(signed, "--allowed-signers", other).status == 10
    assert verify(signed, "--allowed-signers", other, "--expect", digest_of(signed)).status == 10
    assert verify(signed, "--expect", digest_of(signed)).status == 0


def test_unsigned_bundle_is_not_accepted_as_signed(whole: Path, signers: Path) -> None:
    assert verify(whole, "--allowed-signers", signers).status == 11
    assert verify(whole, "--allowed-signers", signers, "--expect", digest_of(whole)).status == 11
    done = verify(whole, "--allowed-signers", "no_signers")
    assert (done.status, "no_signers: No such file or directory; write a line" in done.err) == (1, True)


def test_signature_of_other_bytes(signed: Path, whole: Path, signers: Path, tmp_path: Path) -> None:
    files = bundles.unpacked(signed)
    other = bundles.packed({**bundles.unpacked(whole), names.SIGNATURE: files[names.SIGNATURE]}, tmp_path / "a.zip")
    done = verify(other, "--allowed-signers", signers)
    assert (done.status, done.out.split(":")[0]) == (16, "signature-invalid")
    garbled = bundles.packed({**files, names.SIGNATURE: b"-----BEGIN SSH SIGNATURE-----\n"}, tmp_path / "b.zip")
    assert verify(garbled).status == 16


def test_missing_ssh_keygen_is_an_error(signed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = verify(signed)
    assert done.status == 1
    assert "the program ssh-keygen was not found; install OpenSSH 8.2 or newer" in done.err


def test_changed_missing_and_added_files_are_named(whole: Path, tmp_path: Path) -> None:
    name = "data/raw/llama_c0/process_1.json"
    path = with_changed(whole, tmp_path / "a.zip", name, b"{}")
    done = verify(path)
    assert (done.status, done.out.splitlines()[1]) == (
        12,
        f"- {name}: its content differs from its digest in the manifest (file.changed)",
    )
    path = with_changed(whole, tmp_path / "b.zip", name, None)
    done = verify(path)
    assert (done.status, done.out.splitlines()[1]) == (13, f"- {name}: the file is missing (file.missing)")
    path = with_changed(whole, tmp_path / "c.zip", "data/added.txt", b"x")
    done = verify(path)
    assert (done.status, done.out.splitlines()[1]) == (
        12,
        "- data/added.txt: no manifest lists this file (file.unlisted)",
    )


def test_changed_verdict_is_named(whole: Path, tmp_path: Path) -> None:
    verdicts = bundles.unpacked(whole)[names.VERDICTS].replace(b'"verdict":"undetermined"', b'"verdict":"complete"')
    done = verify(with_changed(whole, tmp_path / "a.zip", names.VERDICTS, verdicts, listed=True))
    assert (done.status, done.out.split(":")[0]) == (14, "verdict-differs")
    difference = "the recomputed verdict is undetermined, the stored verdict is complete"
    assert f"- llama_c0: {difference} (verdict.differs)" in done.out


@pytest.mark.parametrize("change", ["shorter", "longer", "exchanged"])
def test_verdicts_belong_to_the_experiments(whole: Path, tmp_path: Path, change: str) -> None:
    lines = bundles.unpacked(whole)[names.VERDICTS].splitlines(keepends=True)
    changed = {"shorter": lines[:2], "longer": [*lines, lines[0]], "exchanged": [lines[1], lines[0], lines[2]]}[change]
    path = with_changed(whole, tmp_path / "a.zip", names.VERDICTS, b"".join(changed), listed=True)
    assert verify(path).status == 14
    assert codes(path) == ["verdict.missing"]


@pytest.mark.parametrize(
    ("name", "data", "code"),
    [
        ("manifest-md5.txt", b"", "manifest.algorithm"),
        ("tagmanifest-sha512.txt", b"", "manifest.algorithm"),
        ("bagit.txt", None, "bag.missing"),
        ("tagmanifest-sha256.txt", None, "bag.missing"),
        ("tagmanifest-sha256.txt", b"hello\n", "bag.form"),
        ("tagmanifest-sha256.txt", b"0" * 64 + b"  bagit.txt", "bag.form"),
        ("tagmanifest-sha256.txt", b"0" * 64 + b"  ../bagit.txt\n", "name.parent"),
        ("tagmanifest-sha256.txt", b"0" * 64 + b"  bagit.txt\n", "bag.form"),
        ("tagmanifest-sha256.txt", 2 * (b"0" * 64 + b"  bagit.txt\n"), "name.duplicate"),
        ("tagmanifest-sha256.txt", b"A" * 64 + b"  bagit.txt\n", "bag.form"),
        ("tagmanifest-sha256.txt", b"0" * 64 + b"  bag-info.txt\n" + b"0" * 64 + b"  bagit.txt\n", "bag.form"),
    ],
)
def test_bag_of_another_form_is_refused(whole: Path, tmp_path: Path, name: str, data: bytes | None, code: str) -> None:
    path = with_changed(whole, tmp_path / "a.zip", name, data)
    assert verify(path).status == 17
    assert codes(path) == [code]
    done = run("bundle", "open", path, "--to", tmp_path / "opened")
    assert done.status == 1
    assert code in done.err
    assert not (tmp_path / "opened").exists()


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("bagit.txt", b"BagIt-Version: 0.97\nTag-File-Character-Encoding: UTF-8\n"),
        ("data/selection.json", b"[]"),
        ("data/selection.json", b"{" * 100_000),
        ("data/verdicts.jsonl", b"{}\n"),
        ("data/verdicts.jsonl", b"[" * 100_000 + b"\n"),
    ],
)
def test_listed_file_of_another_form_is_refused(whole: Path, tmp_path: Path, name: str, data: bytes) -> None:
    path = with_changed(whole, tmp_path / "a.zip", name, data, listed=True)
    assert (verify(path).status, codes(path)) == (17, ["bag.form"])


def test_wrong_payload_size_is_refused(whole: Path, tmp_path: Path) -> None:
    files = bundles.listed_again(bundles.unpacked(whole))
    info = re.sub(rb"Payload-Oxum: .*", b"Payload-Oxum: 1.1", files["bag-info.txt"])
    files["bag-info.txt"] = info
    lines = [bundles.line(name, files[name]) for name in names.TAG_FILES]
    path = bundles.packed({**files, names.TAG_MANIFEST: b"".join(lines)}, tmp_path / "a.zip")
    assert (verify(path).status, codes(path)) == (17, ["bag.form"])


def test_table_that_differs(whole: Path, tmp_path: Path) -> None:
    table = tmp_path / "paper.csv"
    table.write_text("experiment_id,total_energy_j\nllama_c0,4250\nllama_c1,4271\n")
    done = verify(whole, "--table", table)
    assert (done.status, done.out.split(":")[0]) == (15, "table-differs")
    assert "- llama_c1, line 3, total_energy_j: the table has 4271, the bundle has 4270.0 (table.differs)" in done.out
    assert "table: 2 numbers compared\n- the table has no row for: llama_c2\n" in done.out
    assert verify(whole, "--table", table, "--key", "id").status == 1
    assert verify(whole, "--columns", "total_energy_j").status == 2


def test_file_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(b"hello")
    done = verify(path)
    assert (done.status, done.out.splitlines()[0]) == (
        17,
        "refused: not a bundle, or unsafe to read; no file is extracted",
    )
    assert verify(tmp_path / "no.zip").status == 1
    assert verify(tmp_path).status == 17


def test_incomplete_download_and_other_file_have_different_reasons(whole: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    path.write_bytes(whole.read_bytes()[:-1])
    assert "- the end of the archive is missing, or bytes follow it (zip.damaged)" in verify(path).out
    path.write_bytes(b"<html>404 Not Found</html>")
    assert "- it is not a ZIP archive (zip.damaged)" in verify(path).out


def test_help_and_page_list_each_outcome_with_its_status() -> None:
    text = verify("--help").out
    page = PAGE.read_text(encoding="utf-8")
    for word, (status, meaning) in OUTCOMES.items():
        assert re.search(rf"^ +{status} +{word} +{re.escape(meaning)}$", text, re.MULTILINE), word
        assert (
            f"| {status} | `{word}` | {meaning.replace('--expect', '`--expect`').replace('--table', '`--table`')} |"
            in page
        )
    for code, (_, meaning) in CODES.items():
        assert re.search(rf"^ +{re.escape(code)} +{re.escape(meaning)}$", text, re.MULTILINE), code
    statuses = [status for status, _ in OUTCOMES.values() if status]
    assert len(set(statuses)) == len(statuses)
    assert {outcome for outcome, _ in CODES.values()} <= set(OUTCOMES)


def test_opened_folder_is_a_results_directory(whole: Path, results: Path, tmp_path: Path) -> None:
    target = tmp_path / "opened"
    done = run("bundle", "open", whole, "--to", target)
    assert done.status == 0
    assert f"{target}/data results list --all" in done.err
    shown = run("-o", target / "data", "results", "list", "--json").json()
    stored = run("-o", results, "results", "list", "--json").json()
    assert [row["experiment_id"] for row in shown] == ["llama_c0", "llama_c1", "llama_c2"]
    assert [row["total_energy_j"] for row in shown] == [row["total_energy_j"] for row in stored]
    assert verify(target).status == 11
    assert run("bundle", "open", whole, "--to", target).status == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("results", "list", "--all"),
        ("results", "list", "--refresh"),
        ("results", "show", "llama_c0"),
        ("results", "verify", "--all"),
        ("results", "repeats"),
        ("results", "export", "--to", "-"),
    ],
)
def test_reading_commands_add_no_file_to_an_opened_bundle(whole: Path, tmp_path: Path, arguments: list[str]) -> None:
    """Each further file in the payload makes a bag invalid."""
    target = tmp_path / "opened"
    run("bundle", "open", whole, "--to", target)
    before = sorted(target.rglob("*"))
    done = run("-o", target / "data", *arguments)
    assert done.status in (0, 1), done.err
    assert sorted(target.rglob("*")) == before


@pytest.mark.parametrize("kind", ["link", "folder link", "pipe", "hard name"])
def test_unsafe_folder_is_refused(whole: Path, tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "opened"
    run("bundle", "open", whole, "--to", folder)
    path = folder / "data" / "raw" / "llama_c0" / "process_1.json"
    if kind == "link":
        shutil.move(path, tmp_path / "moved")
        path.symlink_to(tmp_path / "moved")
    elif kind == "folder link":
        shutil.move(path.parent, tmp_path / "moved")
        path.parent.symlink_to(tmp_path / "moved")
    elif kind == "pipe":
        path.unlink()
        os.mkfifo(path)
    else:
        (path.parent / "a b").touch()
    assert codes(folder) == ["name.character" if kind == "hard name" else "folder.link"]
    assert verify(folder).status == 17


def test_interrupted_open_leaves_nothing(whole: Path, tmp_path: Path) -> None:
    files = bundles.Files(bundles.unpacked(whole))
    left = len(files.contents) + 10  # the files are read once by the check, then once more

    class Interrupted(bundles.Files):
        def chunks(self, name: str) -> Iterator[bytes]:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            return super().chunks(name)

    with pytest.raises(KeyboardInterrupt):
        open_bundle(Interrupted(files.contents), tmp_path / "opened")
    assert list(tmp_path.iterdir()) == []


def test_failed_open_leaves_nothing(whole: Path, tmp_path: Path) -> None:
    path = with_changed(whole, tmp_path / "a.zip", "data/raw/llama_c0/process_1.json", b"{}")
    done = run("bundle", "open", path, "--to", tmp_path / "opened")
    assert done.status == 1
    assert "process_1.json: its content differs from its digest in the manifest (file.changed)" in done.err
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zip"]
