"""Search: the counts close, the best feeds train, and whatever ends a search it goes on as if nothing had been."""

import contextlib
import fcntl
import gc
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time

import pytest
import yaml
from optuna.trial import TrialState

from sat_xception.errors import ConfigError, DataError, DivergedError, ModelError, PreemptedError
from sat_xception.kubeflow.training_settings import TRAINING
from sat_xception.model.settings import TrainConfig
from sat_xception.search import study, workers
from sat_xception.search.record import SearchRecord
from sat_xception.search.search import search
from sat_xception.search.settings import SearchConfig
from sat_xception.search.trial import Outcome
from sat_xception.settings.config import load_config
from sat_xception.train.record import TrainingHistory, TrainingRecord
from sat_xception.train.train import train

TRIALS = 6
SIDE = 48
EPOCHS, EPOCHS_BEFORE_PRUNING = 6, 3  # few are quick, and show as much
SEED = 59  # of the first five trials most learn; the sixth, at a low rate, doesn't, and is pruned


@pytest.fixture(scope="module")
def settings(examples, small_weights, small_mobilenet, eager_steps):
    network = {"backbone": "mobilenetv2", "alpha": 0.35, "input_size": SIDE, "weights": str(small_weights)}
    gc.freeze()  # Keras collects garbage before each trial; what is there needs no look
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(study, "_EPOCHS_BEFORE_PRUNING", EPOCHS_BEFORE_PRUNING)
        yield {
            "examples": examples,
            "head_epochs": EPOCHS,
            "patience": EPOCHS,
            "trials": TRIALS,
            "seed": SEED,
            **network,
        }
    gc.unfreeze()


@pytest.fixture(scope="module")
def whole(settings, tmp_path_factory):
    """A search that nothing disturbs."""
    return search(SearchConfig(out=tmp_path_factory.mktemp("search") / "found", **settings))


def read(result):
    return SearchRecord.read(result.folder)


def tried(result):
    """Return what must not depend on how often a search was stopped."""
    return [(row.state, row.params, row.valid_accuracy, row.epochs) for row in read(result).trials]


def test_the_counts_close_and_the_best_is_the_best(whole):
    found = read(whole)
    counts = found.counts
    assert counts.asked == TRIALS == counts.complete + counts.pruned + counts.failed + counts.left
    assert counts.failed == counts.left == 0 and counts.pruned > 0
    complete = [row for row in found.trials if row.state == "complete"]
    best = max(complete, key=lambda row: (row.valid_accuracy, -row.valid_loss))
    assert found.best.params == best.params
    assert whole.valid_accuracy == best.valid_accuracy
    # Trials are pruned after some epochs, where they are below the median of the others.
    assert all(EPOCHS_BEFORE_PRUNING < row.epochs <= EPOCHS for row in found.trials if row.state == "pruned")
    assert all(row.epochs == EPOCHS for row in complete)
    assert sum(found.importance.values()) == pytest.approx(1, abs=1e-3)


def test_the_first_trial_is_what_train_does_by_itself(whole):
    params = read(whole).trials[0].params
    assert params == {name: TrainConfig.model_fields[name].default for name in params}
    assert params.keys() == {"optimizer", "head_learning_rate", "head_units", "head_activation", "dropout"}


def test_the_best_settings_feed_the_pipeline_as_they_are(whole):
    texts = TRAINING.check({"settings": (whole.folder / "best.yaml").read_text()})
    given = json.loads(texts["mobilenetv2"])
    best = yaml.safe_load((whole.folder / "best.yaml").read_text())
    config = TrainConfig.model_validate({**given, "examples": "e", "out": "o"}).model_dump(mode="json")
    assert {name: config[name] for name in best} == best
    assert texts["xception"] == TRAINING.check({})["xception"]


def test_the_best_settings_feed_train(whole, settings, tmp_path):
    places = {"examples": settings["examples"], "out": tmp_path / "model", "fine_tune_epochs": 0}
    config = load_config(TrainConfig, whole.folder / "best.yaml", places)
    best = read(whole).best
    assert {name: getattr(config, name) for name in best.params} == best.params
    assert (config.alpha, config.input_size, config.head_epochs, config.seed) == (0.35, SIDE, EPOCHS, SEED)
    assert whole.best == yaml.safe_load((whole.folder / "best.yaml").read_text())
    # The same head on the same features, from the same first weights.
    assert train(config).valid_accuracy == best.valid_accuracy
    history = TrainingHistory.read(tmp_path / "model").epochs
    losses = [row.val_loss for row in history if row.val_accuracy == best.valid_accuracy]
    assert losses[0] == pytest.approx(best.valid_loss, rel=1e-4)


def test_the_page_stands_alone_and_shows_every_trial(whole):
    page = (whole.folder / "search.html").read_text()
    assert page.count('<tr><td class="number">') == TRIALS
    assert page.count("<svg") == 3
    addresses = {part for part in page.replace("'", '"').split('"') if "//" in part and len(part) < 200}
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(whole, settings, tmp_path, caplog):
    caplog.set_level("INFO", "sat_xception")
    config = SearchConfig(out=tmp_path / "found", **settings)

    def told(start):
        return [record.getMessage() for record in caplog.records if record.getMessage().startswith(start)]

    def stop_in_the_third_trial():
        while len(told("trial ")) < 2:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop_in_the_third_trial)
    thread.start()
    with pytest.raises(PreemptedError, match=r"stopped by SIGTERM with \d+ trials left") as caught:
        search(config)
    thread.join()
    assert caught.value.exit_code == 75
    stopped = SearchRecord.read(config.out)
    assert stopped.counts.left == TRIALS - stopped.counts.complete > 0
    with (tmp_path / "found.study" / "journal.log").open("ab") as journal:
        journal.write(b'{"op_code":6,"worker_id":"ab')  # as a power cut may leave it
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert tried(search(config)) == tried(whole)
    assert len(told("features  those of an earlier run")) == 1
    assert len(told("trial ")) == TRIALS
    done = search(config)  # nothing is left to try
    assert len(told("trial ")) == TRIALS
    assert tried(done) == tried(whole)


@pytest.mark.filterwarnings("ignore:.*use of fork.*may lead to deadlocks:DeprecationWarning")
def test_a_worker_that_is_killed_costs_its_trial_alone_and_others_take_its_place(settings, tmp_path, monkeypatch):
    # Forked, which is quick, since nothing of TensorFlow runs in the workers: one is killed in the second trial.
    killed = tmp_path / "killed"
    fork = multiprocessing.get_context("fork")

    def learn(data, config, report):
        report(0, 0.5)
        if (tmp_path / "begun").exists():
            with contextlib.suppress(FileExistsError):
                killed.touch(exist_ok=False)
                os.kill(os.getpid(), signal.SIGKILL)
        (tmp_path / "begun").touch()
        return Outcome(0.5, 0.7, "head")

    monkeypatch.setattr(workers, "run_trial", learn)
    monkeypatch.setattr(workers, "_POLL_S", 0.02)
    monkeypatch.setattr(workers.multiprocessing, "get_context", lambda method: fork)
    found = read(search(SearchConfig(out=tmp_path / "found", **{**settings, "trials": 4, "workers": 2})))
    assert (found.counts.failed, found.counts.complete, found.counts.left) == (1, 3, 0)
    assert [row.reason for row in found.trials if row.reason] == ["its process ended with code -9"]


@pytest.mark.slow  # each process imports TensorFlow
def test_workers_share_the_trials_and_one_that_is_killed_costs_its_trial_alone(settings, tmp_path, caplog):
    config = SearchConfig(out=tmp_path / "found", **{**settings, "trials": 4, "workers": 2})
    journal = tmp_path / "found.study" / "journal.log"

    def kill_one_when_both_have_a_trial():
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            # Operation 4 of the journal begins a trial.
            if journal.is_file() and journal.read_text().count('"op_code":4') == 2:
                time.sleep(0.5)  # into the trials
                os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)
                return
            time.sleep(0.05)

    thread = threading.Thread(target=kill_one_when_both_have_a_trial)
    thread.start()
    found = read(search(config))
    thread.join()
    assert found.counts.failed == 1
    assert found.counts.complete == 3
    assert [row.reason for row in found.trials if row.reason] == ["its process ended with code -9"]


def test_trials_that_fail_are_counted_with_their_reason(settings, tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("fine_tune_from: [no_such_layer]\n")
    config = SearchConfig(out=tmp_path / "found", **{**settings, "trials": 1, "head_epochs": 1, "space": str(space)})
    with pytest.raises(DataError, match="all 1 trials failed, 1 of them: --fine-tune-from 'no_such_layer' is no layer"):
        search(config)
    assert not (tmp_path / "found").exists()


def forget_the_check(study):
    """Make a journal as it was written before: a trial without a finite loss is complete, and the best one."""
    journal = study / "journal.log"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    for line in lines:
        if line.get("user_attr", {}).get("reason"):
            line["user_attr"] = {"valid_loss": None}
        if line.get("state") == TrialState.FAIL:
            line |= {"state": TrialState.COMPLETE, "values": [1.0]}
    journal.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(scope="module")
def exploding(settings, tmp_path_factory):
    """The settings of a search at two learning rates, one of which has no finite loss, and its first three trials."""
    folder = tmp_path_factory.mktemp("exploding")
    (folder / "space.yaml").write_text("head_learning_rate: [1.0e-3, 1.0e+38]\n")
    # With this seed both rates are among the first three trials.
    changes = {"trials": 3, "head_epochs": 3, "pruner": "none", "space": str(folder / "space.yaml"), "seed": 9}
    return {**settings, **changes}, search(SearchConfig(out=folder / "found", **{**settings, **changes}))


@pytest.mark.parametrize("journal", ["new", "old"])
def test_a_trial_whose_loss_is_no_number_has_failed_and_the_search_goes_on(exploding, tmp_path, journal):
    settings, earlier = exploding
    first = read(earlier)
    shutil.copytree(earlier.folder.with_name("found.study"), tmp_path / "found.study")
    if journal == "old":
        forget_the_check(tmp_path / "found.study")
    # The same study: results of an earlier run are replaced.
    second = read(search(SearchConfig(out=tmp_path / "found", **{**settings, "trials": 5})))
    for found, asked in ((first, 3), (second, 5)):
        counts = found.counts
        assert counts.complete + counts.failed == counts.asked == asked and counts.failed > 0
        assert found.best.params["head_learning_rate"] == 1e-3
        for row in found.trials:
            exploded = row.params["head_learning_rate"] == 1e38
            assert row.state == ("fail" if exploded else "complete")
            assert ("isn't finite" in row.reason) == exploded
            assert (row.valid_accuracy is None) == (row.valid_loss is None) == exploded
    told = {row.reason for row in second.trials[:3]} - {""}
    own = "head: the loss or a weight isn't finite after epoch 1"
    assert told == {"its loss isn't finite" if journal == "old" else own}


def test_a_trial_may_fine_tune_and_is_as_good_as_its_better_phase(settings, tmp_path):
    space = tmp_path / "space.yaml"
    space.write_text("fine_tune_learning_rate: [1e-3]\nfine_tune_from: [last]\nhead_learning_rate: [1e-9]\n")
    changes = {"trials": 1, "head_epochs": 1, "fine_tune_epochs": 1, "space": str(space)}
    found = read(search(SearchConfig(out=tmp_path / "found", **{**settings, **changes})))
    assert found.trials[0].epochs == 2
    assert found.best.phase in ("head", "fine-tune")
    assert found.best.settings["fine_tune_epochs"] == 1


def test_other_settings_are_another_study(settings, whole, tmp_path):
    study = whole.folder.with_name("found.study")
    config = SearchConfig(out=tmp_path / "found", study=study, **{**settings, "trials": 1, "head_epochs": 2})
    assert len(read(search(config)).trials) == 1


def test_two_searches_in_one_folder_are_refused(settings, tmp_path):
    (tmp_path / "found.study").mkdir()
    with (tmp_path / "found.study" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConfigError, match="another search works in"):
            search(SearchConfig(out=tmp_path / "found", **settings))


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"trials": 0}, "--trials 0 needs --minutes"),
        ({"weights": "none"}, "--weights none has no features to try heads on"),
        ({"workers": 0}, "--workers: Input should be greater than 0"),
        ({"pruner": "best"}, "--pruner: Input should be 'median', 'hyperband' or 'none'"),
    ],
)
def test_what_cannot_be_searched_is_refused(wrong, told):
    with pytest.raises(ConfigError) as caught:
        load_config(SearchConfig, None, {"examples": "e", "out": "o", **wrong})
    assert told in str(caught.value)


def test_minutes_end_a_search_too(settings, tmp_path):
    config = SearchConfig(out=tmp_path / "found", **{**settings, "trials": 0, "minutes": 1 / 60, "head_epochs": 1})
    result = search(config)
    assert result.counts.complete == result.counts.asked >= 1 and result.counts.left == 0


def test_a_training_that_was_stopped_in_its_search_goes_on_and_is_trained_with_the_best(
    whole, settings, tmp_path, caplog
):
    caplog.set_level("INFO", "sat_xception")
    shared = {name: value for name, value in settings.items() if name != "trials"}
    config = TrainConfig(out=tmp_path / "model", search_trials=3, fine_tune_epochs=0, **shared)

    def trials():
        return sum(record.getMessage().startswith("trial ") for record in caplog.records)

    def stop_in_the_second_trial():
        while not trials():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop_in_the_second_trial)
    thread.start()
    with pytest.raises(PreemptedError, match="trials left; run the same command again") as stopped:
        train(config)
    thread.join()
    assert stopped.value.exit_code == 75
    assert (tmp_path / "model.search").is_dir() and not (tmp_path / "model").exists()
    result = train(config)
    assert trials() == 3
    facts = TrainingRecord.read(tmp_path / "model")
    best = max(read(whole).trials[:3], key=lambda row: (row.valid_accuracy, -row.valid_loss))
    assert facts.search.best == best.params
    assert {name: facts.config[name] for name in best.params} == best.params
    assert result.valid_accuracy == best.valid_accuracy == facts.search.valid_accuracy
    assert SearchRecord.read(tmp_path / "model").counts.complete > 0
    assert (tmp_path / "model" / "search.html").is_file()
    assert not (tmp_path / "model.search").exists() and not (tmp_path / "model.checkpoints").exists()


def test_a_search_of_which_every_trial_diverged_is_recorded_where_that_is_asked_for(settings, tmp_path, monkeypatch):
    def diverge(*args):
        raise DivergedError("head: the loss or a weight isn't finite after epoch 1")

    monkeypatch.setattr("sat_xception.search.workers.run_trial", diverge)
    shared = {name: value for name, value in settings.items() if name != "trials"}
    config = TrainConfig(out=tmp_path / "model", search_trials=2, fine_tune_epochs=0, **shared)
    told = "all 2 trials failed, 2 of them: head: the loss or a weight isn't finite after epoch 1"
    with pytest.raises(DivergedError, match=f"{told}. Change the space"):
        train(config)
    assert (tmp_path / "model.search").is_dir() and not (tmp_path / "model").exists()
    result = train(config.model_copy(update={"record_divergence": True}))
    facts = TrainingRecord.read(tmp_path / "model")
    assert result.failed == facts.failed == told
    assert TrainingHistory.read(tmp_path / "model").epochs == ()
    assert "<svg" in (tmp_path / "model" / "curves.html").read_text()
    assert not (tmp_path / "model.search").exists()


def test_a_search_that_failed_for_another_reason_too_is_an_error(settings, tmp_path, monkeypatch):
    errors = iter([DivergedError("head: the loss isn't finite"), ModelError("it doesn't fit")])

    def fail(*args):
        raise next(errors)

    monkeypatch.setattr("sat_xception.search.workers.run_trial", fail)
    shared = {name: value for name, value in settings.items() if name != "trials"}
    with pytest.raises(DataError, match="all 2 trials failed") as ended:
        train(TrainConfig(out=tmp_path / "model", search_trials=2, record_divergence=True, **shared))
    assert not isinstance(ended.value, DivergedError)


def test_a_search_before_a_training_needs_learnt_weights(settings, tmp_path):
    with pytest.raises(ValueError, match="--search-trials tries heads on learnt features, and --weights none has none"):
        TrainConfig(examples=settings["examples"], out=tmp_path / "model", weights="none", search_trials=3)
