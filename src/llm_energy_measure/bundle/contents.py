"""The files about a whole bundle: selection, environment, RO-Crate metadata and README."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct, field

from llm_energy_measure.bundle.names import (
    CRATE,
    ENVIRONMENT,
    PAYLOAD,
    REPORT,
    SELECTION,
    SIGNATURE,
    TAG_MANIFEST,
    VERDICTS,
)
from llm_energy_measure.bundle.outcomes import refuse
from llm_energy_measure.bundle.signature import NAMESPACE
from llm_energy_measure.bundle.version import VERSION
from llm_energy_measure.domain.experiment import process_index_of
from llm_energy_measure.security import require_bounded_json


class LeftOut(Struct, frozen=True, kw_only=True):
    """An experiment, or an earlier attempt of an experiment, that is not in the bundle.

    Attributes:
        experiment_id: Id of the experiment.
        reason: Why the experiment or the attempt is not in the bundle.
        configuration: The configuration that this experiment shares with an experiment of the bundle. None if unknown.
        attempt: Number of the earlier attempt. None for an experiment.
    """

    experiment_id: str
    reason: str
    configuration: str | None = None
    attempt: int | None = None


class Selection(Struct, kw_only=True):
    """How the experiments of a bundle were chosen: `selection.json`.

    Attributes:
        condition: Condition of `--where`. None if the user passed no condition.
        requested_ids: Ids and patterns from the command line, sorted. None if the user passed none.
        only_passed: True if experiments with another verdict than `complete` were left out.
        found: Folder names of the experiments that were found.
        left_out: Other experiments that have a configuration of a found experiment, experiments that `only_passed`
            excluded, and earlier attempts of found experiments.
        unknown_configuration: Folder names of other experiments of the results directory whose configuration is
            unknown, for example because no result can be read.
        files_left_out: Reason by file, for the files of the packed experiments that are not in the bundle.
        pseudonyms: Number of names that were replaced, by kind. None if pseudonyms were not requested.
    """

    condition: str | None = None
    requested_ids: list[str] | None = None
    only_passed: bool = False
    found: list[str] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    unknown_configuration: list[str] = field(default_factory=list)
    files_left_out: dict[str, str] = field(default_factory=dict)
    pseudonyms: dict[str, int] | None = None


SELECTION_DECODER = msgspec.json.Decoder(Selection)


def encode_json(value: object) -> bytes:
    """Return a value as indented JSON; equal values have equal bytes."""
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def decode_selection(data: bytes) -> Selection:
    """Return the selection in the bytes of `selection.json`. Raises `BundleError` if they are not a selection."""
    try:
        require_bounded_json(data)
        return SELECTION_DECODER.decode(data)
    except (ValueError, RecursionError) as error:
        raise refuse("bag.form", SELECTION, f"it is not a selection: {str(error)[:200]}") from error


class _Times(Struct):
    start: str | None = None
    end: str | None = None


class _Origin(Struct):
    tool: str | None = None
    version: str | None = None


class _Process(Struct):
    """The facts of a raw result that describe the environment."""

    host: str | None = None
    gpu_name: str | None = None
    backend: str | None = None
    backend_version: str | None = None
    library_versions: dict[str, str] | None = None
    recording_environment: Any = None
    origin: _Origin | None = None
    timestamps: _Times | None = None


_PROCESS_DECODER = msgspec.json.Decoder(_Process)


class Environment:
    """Machines and software of the packed records, and the date of the newest record."""

    def __init__(self) -> None:
        """Start without records."""
        self.newest: str | None = None
        self._counts: Counter[bytes] = Counter()

    def add(self, files: Mapping[str, bytes]) -> None:
        """Add the raw results of an experiment. Unreadable files are skipped, because the verdict reports them."""
        for key, data in files.items():
            if process_index_of(key.rpartition("/")[2]) is None:
                continue
            try:
                process = _PROCESS_DECODER.decode(data)
            except (ValueError, RecursionError):
                continue
            times = process.timestamps or _Times()
            dates = [text[:10] for text in (times.start, times.end) if text is not None]
            self.newest = max([*dates, *([self.newest] if self.newest is not None else [])], default=None)
            process.timestamps = None
            self._counts[msgspec.json.encode(process)] += 1

    def encode(self) -> bytes:
        """Return the content of `environment.json`."""
        described = []
        for facts, number in sorted(self._counts.items()):
            known = {name: value for name, value in msgspec.json.decode(facts).items() if value is not None}
            described.append({"processes": number, **known})
        return encode_json({"stated_by_the_records": described})


_DESCRIPTIONS = {
    "raw/": "Raw results, one JSON file for each process",
    "aggregated/": "Aggregated results, one JSON file for each experiment",
    "tags/": "Tags and notes of the authors",
    SELECTION.removeprefix(f"{PAYLOAD}/"): "How the experiments were selected, and which were left out",
    VERDICTS.removeprefix(f"{PAYLOAD}/"): "Verdict on each experiment, with the version of the checks",
    ENVIRONMENT.removeprefix(f"{PAYLOAD}/"): "Machines and software that the records name",
    REPORT.removeprefix(f"{PAYLOAD}/"): "Report as an HTML page",
}
_FORMATS = {".json": "application/json", ".jsonl": "application/jsonl", ".html": "text/html", ".cff": "text/x-yaml"}


class CrateFacts(Struct, frozen=True, kw_only=True):
    """The facts about a bundle in the RO-Crate metadata and in the README.

    Attributes:
        date: Date of the bundle, as YYYY-MM-DD.
        licence: SPDX identifier. None if the authors stated no licence.
        experiments: Number of experiments.
        result_folders: Folders with results, such as `raw/`.
        files: Other files of the payload, without the metadata file.
        citation: Name of the citation file. None if there is none.
        unclean: Number of experiments by verdict, without the verdict `complete`.
        left_out: Number of experiments and attempts that were left out.
        is_signed: True if the bundle has a signature.
        has_pseudonyms: True if names of hosts and users were replaced.
    """

    date: str
    licence: str | None
    experiments: int
    result_folders: list[str]
    files: list[str]
    citation: str | None
    unclean: dict[str, int]
    left_out: int
    is_signed: bool
    has_pseudonyms: bool


def crate_metadata(facts: CrateFacts) -> bytes:
    """Return the content of `ro-crate-metadata.json`. Source: RO-Crate 1.1, sections 3 to 6."""
    parts = [*facts.result_folders, *facts.files]
    root: dict[str, Any] = {
        "@id": "./",
        "@type": "Dataset",
        "name": f"Energy results of {facts.experiments} language model inference experiments",
        "description": (
            "Raw results of each process, aggregated results, and the verdict of each verification. "
            "Energy is in joules, power in watts, time in seconds."
        ),
        "datePublished": facts.date,
        "hasPart": [{"@id": part} for part in parts],
    }
    graph: list[dict[str, Any]] = [
        {
            "@id": CRATE.removeprefix(f"{PAYLOAD}/"),
            "@type": "CreativeWork",
            "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
            "about": {"@id": "./"},
        },
        root,
    ]
    if facts.licence is None:
        root["license"] = "The authors state no licence."  # RO-Crate requires this property, and a text is allowed
    else:
        address = f"https://spdx.org/licenses/{facts.licence}"
        root["license"] = {"@id": address}
        graph.append(
            {
                "@id": address,
                "@type": "CreativeWork",
                "name": facts.licence,
                "description": f"The licence with the SPDX identifier {facts.licence}",
            }
        )
    graph += map(_part, parts)
    return encode_json({"@context": "https://w3id.org/ro/crate/1.1/context", "@graph": graph})


def _part(name: str) -> dict[str, Any]:
    described = {"name": name, "description": _DESCRIPTIONS.get(name, "How to cite these results")}
    if name.endswith("/"):
        return {"@id": name, "@type": "Dataset", **described}
    suffix = f".{name.rpartition('.')[2]}"
    return {"@id": name, "@type": "File", **described, "encodingFormat": _FORMATS.get(suffix, "text/plain")}


def readme(facts: CrateFacts) -> bytes:
    """Return the content of `README.txt`: what the bundle contains, and how to check it with standard tools."""
    return "".join(f"{line}\n" for line in _readme_lines(facts)).encode("utf-8")


def _readme_lines(facts: CrateFacts) -> Iterable[str]:
    yield "Energy results of language model inference"
    yield ""
    yield f"Date:         {facts.date}"
    yield f"Experiments:  {facts.experiments}"
    yield f"Licence:      {facts.licence or 'none stated'}"
    if facts.citation is not None:
        yield f"Citation:     data/{facts.citation}"
    if facts.unclean:
        counts = ", ".join(f"{number} {verdict}" for verdict, number in sorted(facts.unclean.items()))
        yield f"Not complete: {counts} (data/verdicts.jsonl has the reasons)"
    if facts.left_out:
        yield f"Left out:     {facts.left_out} (data/selection.json has the reasons)"
    if facts.has_pseudonyms:
        yield ""
        yield "The names of hosts and users are replaced. The digests of the raw files therefore"
        yield "differ from those of the original files."
    yield from _LAYOUT
    yield from _COMMANDS
    if facts.is_signed:
        yield from _SIGNED
    yield from ("", f"llm-energy-measure {VERSION} made this bundle.")


_LAYOUT = (
    "",
    "Files",
    "",
    "data/raw/ID/process_N.json  raw result of process N, as the measuring tool wrote it",
    "data/raw/ID/manifest.json   number of processes, written before the run",
    "data/aggregated/ID.json     sums over the processes, and the attributed energy",
    "data/tags/ID.json           tags and notes of the authors",
    "data/verdicts.jsonl         verdict on each experiment, and version of the checks",
    "data/selection.json         how the experiments were chosen, and which were left out",
    "data/environment.json       machines and software that the records name",
    "data/ro-crate-metadata.json description for machines (RO-Crate 1.1)",
    "manifest-sha256.txt         digest of each file in data/ (BagIt 1.0)",
    "tagmanifest-sha256.txt      digest of each other file",
    "",
    "Energy is in joules (J), power in watts (W), time in seconds (s).",
)
_COMMANDS = (
    "",
    "Check the bundle with standard tools",
    "",
    "Is each file whole?",
    "",
    "    sha256sum -c manifest-sha256.txt tagmanifest-sha256.txt",
    "",
    "This command does not find added files. The next command lists those in data/:",
    "",
    "    find data -type f | sort | comm -23 - <(cut -c67- manifest-sha256.txt | sort)",
    "",
    "Is this the bundle of the paper? The digest in the paper is the SHA-256 of",
    "tagmanifest-sha256.txt, which depends on each byte of the other files:",
    "",
    "    sha256sum tagmanifest-sha256.txt",
    "",
    "What is the sum of the energies that the processes measured, in joules?",
    "",
    "    jq -s 'map(.energy_metrics.total_energy_j) | add' data/raw/*/process_*.json",
    "",
    "Several processes can have measured the same hardware. The attributed energy of",
    "data/aggregated/ID.json counts each joule once.",
    "",
    "Check the bundle with llm-energy-measure: it also finds added files, and computes",
    "each verdict again from the raw files.",
    "",
    "    llm-energy-measure bundle verify . --expect sha256:DIGEST_IN_THE_PAPER",
)
_SIGNED = (
    "",
    "Who signed? Put the key of the paper into a file, as one line 'NAME KEYTYPE KEY':",
    "",
    f"    ssh-keygen -Y verify -f allowed_signers -I NAME -n {NAMESPACE} \\",
    f"        -s {SIGNATURE} < {TAG_MANIFEST}",
)
