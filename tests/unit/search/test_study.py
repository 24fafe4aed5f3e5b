"""The study of a search: when its pruner ends a trial."""

import optuna

from sat_xception.search import study


def test_a_trial_is_pruned_from_the_eleventh_epoch_on_and_after_five_trials(tmp_path):
    pruner = study._pruner(study.Job(tmp_path, "n", None, {}, None, 0, "median", 0))
    found = optuna.create_study(direction="maximize", pruner=pruner)
    for place in range(6):
        trial = found.ask()
        for epoch in range(12):
            trial.report(0.5 if place == 5 else 0.9, epoch)
            assert trial.should_prune() == (place == 5 and epoch >= 10)
        found.tell(trial, 0.5)
