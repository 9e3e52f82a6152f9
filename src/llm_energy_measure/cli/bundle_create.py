"""`llm-energy-measure bundle create`."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import click

from llm_energy_measure.bundle.creation import BundleOptions, CreatedBundle, create_bundle
from llm_energy_measure.bundle.manifests import DIGEST_PREFIX
from llm_energy_measure.cli import formatting, options, streams, terminal
from llm_energy_measure.cli.bundle_output import listed, unclean_text, with_progress
from llm_energy_measure.cli.bundle_selection import select
from llm_energy_measure.cli.selection import selection_options
from llm_energy_measure.results.repository import FileSystemRepository

_SPDX = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]*")


def _checked_date(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return date.fromisoformat(value).isoformat()
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a date; write for example 2026-03-31") from None


def _checked_licence(_context: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    if value is not None and not _SPDX.fullmatch(value):
        message = f"{value!r} is not an SPDX identifier; write for example CC-BY-4.0 (the list is on spdx.org/licenses)"
        raise click.BadParameter(message)
    return value


@click.command(
    epilog=options.examples(
        'bundle create --where "tag.paper = fig3" --to fig3.zip',
        "bundle create exp_1 exp_2 --to fig3.zip --sign ~/.ssh/id_ed25519",
    )
)
@selection_options
@click.option("--to", "target", metavar="FILE", required=True, type=options.PathName(), help="Create this ZIP file.")
@click.option("--sign", "key", metavar="KEY", type=options.PathName(), help="Sign with this SSH key (ssh-keygen).")
@click.option("--report", is_flag=True, help="Add a report, report.html (needs matplotlib and jinja2).")
@click.option("--licence", metavar="SPDX", callback=_checked_licence, help="State this licence, such as CC-BY-4.0.")
@click.option("--citation", metavar="FILE", type=options.PathName(), help="Add a citation file, such as CITATION.cff.")
@click.option(
    "--date", metavar="DATE", callback=_checked_date, help="Date of the bundle. [default: date of the newest result]"
)
@click.option("--only-passed", is_flag=True, help="Leave out experiments with another verdict than 'complete'.")
@click.option(
    "--pseudonymise-hosts",
    "pseudonymise",
    is_flag=True,
    help="Replace the names of hosts and users. The digests of the changed raw files then differ from those of the "
    "originals.",
)
@options.shared_options
@streams.finish_work
def create(
    *,
    ids: tuple[str, ...],
    where: str | None,
    target: str,
    key: str | None,
    report: bool,
    licence: str | None,
    citation: str | None,
    date: str | None,
    only_passed: bool,
    pseudonymise: bool,
) -> None:
    """Pack experiments into one ZIP file that 'bundle verify' can check.

    Without ids and --where, the bundle has all experiments; with both, it has the experiments that match both. A
    condition also selects experiments that are not aggregated. The bundle has the raw files, manifests, tags,
    aggregates, the verdict on each experiment, and a record of the selection. This record also lists the experiments
    that are left out and have the configuration of a packed experiment. The same results give the same bytes.

    The command prints a line for the paper. The digest in this line is the SHA-256 of the file tagmanifest-sha256.txt
    in the bundle.
    """
    if target == "-":
        message = "a bundle cannot be written to stdout; write for example --to fig3.zip"
        raise click.BadParameter(message, param_hint="--to")
    repository = options.repository()
    options.require_safe_target(repository, target)
    bundle_options = BundleOptions(
        date=date,
        licence=licence,
        citation=None if citation is None else Path(citation),
        sign_with=None if key is None else Path(key),
        only_passed=only_passed,
        pseudonymise=pseudonymise,
        report=_report_function() if report else None,
    )
    selection = select(repository, ids, where)
    created = create_bundle(repository, target, selection, bundle_options, with_progress=with_progress("packing"))
    _print_created(created)


def _report_function() -> Callable[[FileSystemRepository], bytes]:
    """Return the function that renders the report of the packed experiments.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    from llm_energy_measure.reports.drawing import missing

    for package in ("matplotlib", "jinja2"):
        if importlib.util.find_spec(package) is None:
            raise missing(package)

    def render(repository: FileSystemRepository) -> bytes:
        from llm_energy_measure.reports.build import build_report
        from llm_energy_measure.reports.html import encode_report
        from llm_energy_measure.reports.reading import read_results

        return encode_report(build_report(read_results(repository, warn=terminal.warn)))

    return render


def _print_created(created: CreatedBundle) -> None:
    """Print the line for the paper on stdout. Print incomplete and left-out experiments on stderr."""
    selection = created.selection
    if created.unclean:
        verb = "is" if len(created.unclean) == 1 else "are"
        number = formatting.plural(len(created.unclean), "experiment")
        terminal.warn(f"{number} {verb} not complete: {unclean_text(created.unclean)}")
    if selection.left_out:
        shown = [f"{one.experiment_id}: {one.reason}" for one in selection.left_out]
        terminal.info(f"{len(shown)} left out (see data/selection.json): {listed(shown, '; ')}")
    if selection.unknown_configuration:
        number = formatting.plural(len(selection.unknown_configuration), "other experiment")
        terminal.info(f"left out, configuration unknown: {number}")
    if selection.pseudonyms is not None:
        counts = ", ".join(f"{number} {kind}" for kind, number in selection.pseudonyms.items() if number)
        words = (
            f"{counts}; the digests of the changed raw files differ from those of the originals" if counts else "none"
        )
        terminal.info(f"names replaced: {words}")
    experiments = formatting.plural(created.experiments, "experiment")
    files = formatting.plural(created.files, "file")
    terminal.info(f"{created.path}: {created.size_bytes:,} bytes; the line for the paper:")
    terminal.print_line(f"{experiments}, {files}, {DIGEST_PREFIX}{created.digest}")
