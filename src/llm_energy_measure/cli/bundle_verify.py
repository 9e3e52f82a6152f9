"""`llm-energy-measure bundle verify`."""

from __future__ import annotations

import re
from typing import Any

import click
import msgspec

from llm_energy_measure.bundle.access import opened
from llm_energy_measure.bundle.checking import BundleCheck, verify_bundle
from llm_energy_measure.bundle.contents import Selection
from llm_energy_measure.bundle.manifests import DIGEST_PREFIX
from llm_energy_measure.bundle.outcomes import CODES, OUTCOMES, problem_of
from llm_energy_measure.bundle.table import PublishedTable, read_table
from llm_energy_measure.cli import formatting, options, streams, terminal
from llm_energy_measure.cli.bundle_output import MAX_LISTED, listed, unclean_text, with_progress
from llm_energy_measure.exceptions import BundleError

_DIGEST = re.compile(r"(?:sha256:)?[0-9a-fA-F]{64}")
_HELP = """Check that a bundle is whole and that its verdicts follow from its raw files, and show who signed the bundle.

PATH is the ZIP file, or the folder with its extracted files. The command extracts no file. Each verdict is recomputed
from the raw files and compared with the stored verdict. --table compares the numbers of a published table: a printed
number is right if the value in the bundle rounds to the printed number.

\b
Exit status and outcome:
{outcomes}
   1 an error of the command, such as a missing ssh-keygen; 2 wrong usage

If several outcomes apply, the output has the first outcome of this list: refused, changed, incomplete,
signature-invalid, verdict-differs, table-differs.

\b
Codes of the reasons:
{codes}
""".format(
    outcomes="\n".join(f"  {status:>2} {word:<17} {meaning}" for word, (status, meaning) in OUTCOMES.items()),
    codes="\n".join(f"  {code:<18} {meaning}" for code, (_, meaning) in CODES.items()),
)


def _checked_digest(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _DIGEST.fullmatch(value):
        raise click.BadParameter(
            f"{value!r} is not a digest; write sha256: and the 64 hexadecimal digits from the paper"
        )
    return value


@click.command(
    help=_HELP,
    epilog=options.examples(
        "bundle verify fig3.zip --expect sha256:0f3a...",
        "bundle verify fig3.zip --allowed-signers signers.txt",
        "bundle verify fig3.zip --table paper.csv --key id",
    ),
)
@click.argument("path", metavar="PATH", type=options.PathName())
@click.option("--expect", metavar="DIGEST", callback=_checked_digest, help="Require this digest (from the paper).")
@click.option(
    "--allowed-signers",
    metavar="FILE",
    type=options.PathName(),
    help="Accept the keys in this file. Each line is 'NAME KEYTYPE KEY'; see ALLOWED SIGNERS in 'man ssh-keygen'.",
)
@click.option("--table", metavar="CSV", type=options.PathName(), help="Compare the numbers of this published table.")
@click.option(
    "--key",
    metavar="COLUMN",
    default="experiment_id",
    show_default=True,
    help="Column of the table with the ids of the experiments.",
)
@click.option(
    "--columns",
    metavar="NAME,...",
    type=options.Text(),
    help="Compare these columns of the table. [default: columns with the name of an exported column]",
)
@options.json_option
@options.verbosity_options
@streams.finish_work
def verify(
    *,
    path: str,
    expect: str | None,
    allowed_signers: str | None,
    table: str | None,
    key: str,
    columns: str | None,
    as_json: bool,
) -> None:
    """Check a bundle; `_HELP` is the help text."""
    if columns is not None and table is None:
        raise click.UsageError("--columns selects columns of the published table; add --table CSV.")
    selected = None if columns is None else [name.strip() for name in columns.split(",")]
    published: PublishedTable | None = None if table is None else read_table(table, key, selected)
    try:
        with opened(path) as source:
            found = verify_bundle(
                source,
                expect=expect,
                allowed_signers=allowed_signers,
                published=published,
                with_progress=with_progress("verifying"),
            )
    except BundleError as error:
        found = BundleCheck(outcome="refused", problems=[problem_of(error)])
    if as_json:
        terminal.print_json(_document(found))
    else:
        _print_check(found, has_table=published is not None)
    if status := OUTCOMES[found.outcome][0]:
        raise SystemExit(status)


def _document(found: BundleCheck) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(found)
    return {"outcome": document.pop("outcome"), "exit_status": OUTCOMES[found.outcome][0], **document}


def _print_check(found: BundleCheck, *, has_table: bool) -> None:
    """Print the outcome, its reasons, and the experiments that the authors left out or changed."""
    terminal.print_line(f"{found.outcome}: {OUTCOMES[found.outcome][1]}")
    for problem in found.problems[:MAX_LISTED]:
        terminal.print_line(f"- {problem}")
    if len(found.problems) > MAX_LISTED:
        terminal.print_line(f"- and {len(found.problems) - MAX_LISTED} more; --json lists all")
    if found.digest is not None:
        terminal.print_line(f"digest: {DIGEST_PREFIX}{found.digest}")
    if found.signature is not None and found.signature.is_valid:
        terminal.print_line(f"signer: {found.signature.signer or 'unknown'}, key {found.signature.fingerprint}")
    if found.files:
        terminal.print_line(f"files: {found.files:,}")
    if found.experiments:
        verdicts = f"; not complete: {unclean_text(found.unclean)}" if found.unclean else ", all complete"
        terminal.print_line(f"experiments: {found.experiments:,}{verdicts}")
    if found.selection is not None:
        _print_selection(found.selection)
    if has_table and found.selection is not None:
        terminal.print_line(f"table: {formatting.plural(found.compared_numbers, 'number')} compared")
        for note in found.notes:
            terminal.print_line(f"- {note}")


def _print_selection(selection: Selection) -> None:
    """Print which experiments the authors left out, and whether names are replaced."""
    if selection.left_out:
        left_out = [f"{one.experiment_id} ({one.reason})" for one in selection.left_out]
        terminal.print_line(f"left out by the authors: {listed(left_out)}")
    if selection.unknown_configuration:
        number = formatting.plural(len(selection.unknown_configuration), "other experiment")
        terminal.print_line(f"left out, configuration unknown: {number}")
    if any((selection.pseudonyms or {}).values()):
        terminal.print_line("names of hosts and users are replaced; the raw files differ from the originals")
