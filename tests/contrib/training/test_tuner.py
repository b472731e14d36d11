"""The protocol of a tuner: an object with both methods, and nothing less."""

import pytest

from paramserve.contrib.training import HParams, Tuner


class GridTuner(Tuner):
    """Tries each learning rate once."""

    def __init__(self, rates):
        self.rates = iter(rates)
        self.results = {}

    def next_trial(self):
        self.rate = next(self.rates, None)
        return self.rate is not None

    def run_experiment(self, experiment_fn):
        self.results[self.rate] = experiment_fn(None, HParams(learning_rate=self.rate))


def test_a_tuner_runs_trials_to_the_end():
    tuner = GridTuner([0.1, 0.3])
    while tuner.next_trial():
        tuner.run_experiment(lambda run_config, hparams: 2 * hparams.learning_rate)
    assert tuner.results == {0.1: 0.2, 0.3: 0.6}


def test_both_methods_are_needed():
    class Half(Tuner):
        def next_trial(self):
            return False

    with pytest.raises(TypeError, match="run_experiment"):
        Half()
