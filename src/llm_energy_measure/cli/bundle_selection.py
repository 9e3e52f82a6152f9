"""Select the experiments of a bundle, and find the repeats of their configurations that are not selected."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from llm_energy_measure.analysis.observations import Observation, group_observations, read_observations
from llm_energy_measure.bundle.contents import LeftOut, Selection
from llm_energy_measure.cli import options, terminal
from llm_energy_measure.cli.selection import selected
from llm_energy_measure.results.repository import FileSystemRepository

# By whether the command line has ids, and whether it has a condition.
_REASONS = {
    (True, False): "its id was not given",
    (False, True): "it does not match the condition",
    (True, True): "the ids and the condition do not select it",
}

# Facts that are missing or incomplete for a repeat with a process that has no result.
_OF_FOUND_PROCESSES = frozenset({"processes", "gpus", "hosts", "method", "libraries"})


def select(repository: FileSystemRepository, ids: Sequence[str], where: str | None) -> Selection:
    """Return the selected experiments, and the others of the same configurations.

    Args:
        repository: The results directory.
        ids: Ids and globs of the command line; may be empty.
        where: Condition of the command line. Without ids and condition, all experiments are selected.

    Raises:
        ResultNotFoundError: An id is unknown, or nothing is selected.
        ConfigurationError: The condition is wrong.
    """
    everything = options.all_ids(repository)
    is_selected = bool(ids) or where is not None
    found = map(repository.folder_of, selected(repository, ids, where)) if is_selected else everything
    selection = Selection(condition=where, requested_ids=list(ids) or None, found=sorted(set(found)))
    if is_selected:
        read = read_observations(repository, warn=terminal.warn)
        observations = {repository.folder_of(one.experiment_id): one for one in read}
        _add_left_out(selection, observations, _REASONS[bool(ids), where is not None])
        unknown = {folder for folder in everything if _has_unknown_configuration(observations.get(folder))}
        listed = {repository.folder_of(one.experiment_id) for one in selection.left_out}
        selection.unknown_configuration = sorted(unknown - set(selection.found) - listed)
    return selection


def _has_unknown_configuration(one: Observation | None) -> bool:
    return one is None or (one.excluded is not None and not one.configuration and "model" not in one.identity)


def _add_left_out(selection: Selection, observations: dict[str, Observation], reason: str) -> None:
    """Add each experiment that is not selected, and that has the configuration of a selected one.

    `group_observations` decides which experiments are repeats. An experiment that takes part in no statistics can lack
    processes, so
    that its facts differ from those of its repeats: for it, the settings and the other known facts decide.
    """
    packed = set(selection.found)
    group_of: dict[str, str] = {}
    for group in group_observations(observations.values()):
        members = [one.experiment_id for one in group.observations]
        group_of |= dict.fromkeys([*members, *group.left_out], group.name)
    by_settings: dict[tuple[object, ...], list[Observation]] = {}
    names: set[str] = set()
    for folder in packed & observations.keys():
        one = observations[folder]
        by_settings.setdefault(_settings(one), []).append(one)
        names.add(group_of[one.experiment_id])
    for folder, one in sorted(observations.items()):
        if folder in packed:
            continue
        configuration: str | None = group_of[one.experiment_id]
        if configuration not in names:
            same = _same(one, by_settings.get(_settings(one), ()))
            configuration = None if same is None else group_of[same.experiment_id]
        if configuration is not None:
            left_out = LeftOut(experiment_id=one.experiment_id, reason=reason, configuration=configuration)
            selection.left_out.append(left_out)


def _settings(one: Observation) -> tuple[object, ...]:
    return tuple(one.configuration.items())


def _same(one: Observation, selected: Iterable[Observation]) -> Observation | None:
    """Return a selected experiment whose known facts agree, if one of the two takes part in no statistics."""
    for other in selected:
        if one.excluded is None and other.excluded is None:
            continue
        shared = one.identity.keys() & other.identity.keys() - _OF_FOUND_PROCESSES
        if all(one.identity[key] == other.identity[key] for key in shared):
            return other
    return None
