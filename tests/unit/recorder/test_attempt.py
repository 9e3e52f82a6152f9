"""`attempt="next"` and `attempt="suffix"` run a used id again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from llm_energy_measure.exceptions import ConfigurationError, RecorderError, ResultExistsError
from tests.support.recordings import file_names, load_result, make_recording, torchrun_environ

if TYPE_CHECKING:
    from llm_energy_measure.results import FileSystemRepository
    from tests.support.replay import ManualClock


def test_next_attempt_archives_the_earlier_results(repository: FileSystemRepository, clock: ManualClock) -> None:
    for tokens in (1, 2, 3):
        with make_recording(repository, clock, attempt="next") as run:
            run.add_tokens(output=tokens)
    assert repository.list_attempts("exp_7") == [0, 1]
    result = load_result(repository)
    assert result.inference_metrics is not None
    assert result.inference_metrics.output_tokens == 3
    assert result.launcher is not None
    assert result.launcher.attempt == 2


def test_suffix_appends_a_number_to_a_used_id(repository: FileSystemRepository, clock: ManualClock) -> None:
    for expected in ("exp_7", "exp_7-2", "exp_7-3"):
        with make_recording(repository, clock, attempt="suffix") as run:
            assert run.experiment_id == expected
    assert repository.list_experiments() == ["exp_7", "exp_7-2", "exp_7-3"]


def test_ranks_of_a_resubmitted_job_choose_one_attempt(repository: FileSystemRepository, clock: ManualClock) -> None:
    for job in ("a", "b"):
        for rank in range(2):
            environ = torchrun_environ(rank, 2, TORCHELASTIC_RUN_ID=job)
            with make_recording(repository, clock, environ=environ, attempt="next"):
                pass
    assert repository.list_attempts("exp_7") == [0]
    attempts = [result.launcher.attempt for result in repository.load_all_raw("exp_7") if result.launcher]
    assert attempts == [1, 1]


def test_next_attempt_of_several_processes_needs_a_job(repository: FileSystemRepository, clock: ManualClock) -> None:
    run = make_recording(repository, clock, environ=torchrun_environ(0, 2), attempt="next")
    with pytest.raises(ConfigurationError, match="no launcher gives the id of their job; pass a number: attempt=1"):
        run.start()


def test_running_experiment_is_not_archived(repository: FileSystemRepository, clock: ManualClock) -> None:
    with (
        make_recording(repository, clock),
        pytest.raises(RecorderError, match="already records this rank"),
        make_recording(repository, clock, attempt="next"),
    ):
        pytest.fail("the block must not run")
    assert file_names(repository) == ["manifest.json", "process_0.json"]


def test_message_of_a_used_id_names_the_arguments(repository: FileSystemRepository, clock: ManualClock) -> None:
    with make_recording(repository, clock):
        pass
    with pytest.raises(ResultExistsError, match=r"--attempt next\), .* attempt='suffix' \(--attempt suffix\)"):
        make_recording(repository, clock).start()
    with pytest.raises(ConfigurationError, match="attempt is 'later'"):
        make_recording(repository, clock, attempt="later")
