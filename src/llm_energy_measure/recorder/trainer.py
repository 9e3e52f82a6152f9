"""A callback for the `Trainer` of Hugging Face transformers."""

from __future__ import annotations

import importlib
from typing import Any

from llm_energy_measure.exceptions import RecorderError
from llm_energy_measure.recorder.recording import Recording

_DOING = "cannot create a callback for Trainer"


def trainer_callback(experiment_id: str, **arguments: Any) -> Any:
    """Return a `TrainerCallback` that measures `Trainer.train` in each of its processes.

    The tokens are the increase of `num_input_tokens_seen` of the trainer. The trainer counts them if its arguments
    contain `include_num_input_tokens_seen="all"`. This number covers all processes, so only the first process records
    it. With `logging_steps`, each log also contains `energy_j`, the energy of this process so far in joules.

    Args:
        experiment_id: Id of the experiment.
        **arguments: The other arguments of `record`.

    Raises:
        RecorderError: transformers is not installed.
    """
    try:
        base: Any = importlib.import_module("transformers").TrainerCallback
    except ImportError as error:
        found = f"the package transformers cannot be imported ({error})"
        raise RecorderError(_DOING, found, "install transformers") from error

    class EnergyCallback(base):  # type: ignore[misc]  # the base class is known only at run time
        """Starts and stops a recording together with the training."""

        run: Recording | None = None
        tokens_before = 0

        def on_train_begin(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
            """Begin to measure."""
            # A training that resumes from a checkpoint begins with the number of the earlier training.
            self.tokens_before = getattr(state, "num_input_tokens_seen", 0)
            self.run = Recording(experiment_id, **arguments).start()

        def on_log(
            self, _args: Any, _state: Any, _control: Any, logs: dict[str, Any] | None = None, **_kwargs: Any
        ) -> None:
            """Add the energy so far to the log."""
            if logs is not None and self.run is not None and (energy_j := self.run.energy_j) is not None:
                logs["energy_j"] = energy_j

        def on_train_end(self, _args: Any, state: Any, _control: Any, **_kwargs: Any) -> None:
            """Save the result."""
            if self.run is not None:
                tokens = getattr(state, "num_input_tokens_seen", 0) - self.tokens_before
                if tokens and self.run.rank.process_index == 0:
                    self.run.add_tokens(input=int(tokens))
                self.run.stop()

    return EnergyCallback()
