"""Whether answers fit a share: right splits are next to never taken for wrong ones, wrong ones are soon seen."""

import math

import pytest

from sat_xception.deploy.tally import Answer, StepFigures, Tally

# Every share with twelve looks: what a rollout can have at most.
LOOKS, ALLOWED = 99 * 12, 1e-6


def counted(new, total, percent):
    tally = Tally(2, percent)
    for number in range(total):
        tally.add(Answer(2 if number < new else 1, tile=True))
    return tally


def probability(new, total, share):
    """Return the binomial probability of a number of answers, computed exactly."""
    logarithm = math.lgamma(total + 1) - math.lgamma(new + 1) - math.lgamma(total - new + 1)
    return math.exp(logarithm + new * math.log(share) + (total - new) * math.log1p(-share))


@pytest.mark.parametrize("total", [1, 7, 60, 120, 300])
@pytest.mark.parametrize("percent", [1, 10, 25, 50, 99])
def test_a_right_split_is_taken_for_a_wrong_one_in_less_than_one_of_a_million_rollouts(percent, total):
    wrong = [new for new in range(total + 1) if counted(new, total, percent).contradicts(last=True)]
    assert sum(probability(new, total, percent / 100) for new in wrong) * LOOKS < ALLOWED


@pytest.mark.parametrize(
    ("percent", "new", "total"), [(10, 0, 210), (10, 12, 12), (50, 0, 40), (50, 40, 40), (50, 30, 300), (1, 30, 300)]
)
def test_a_wrong_split_is_seen_soon(percent, new, total):
    assert counted(new, total, percent).contradicts(last=True)


@pytest.mark.parametrize(
    ("percent", "new", "total"), [(10, 0, 60), (10, 6, 60), (10, 20, 60), (50, 20, 60), (1, 0, 300)]
)
def test_what_chance_may_bring_isnt_taken_for_a_wrong_split(percent, new, total):
    assert not counted(new, total, percent).contradicts(last=True)


def test_with_all_the_traffic_one_answer_of_another_is_too_many_at_once():
    tally = counted(5, 5, 100)
    assert not tally.contradicts()
    tally.add(Answer(1, tile=False))
    assert tally.contradicts()


def test_it_is_looked_at_after_twice_as_many_answers_each_time():
    tally, looks = Tally(2, 50), []
    for number in range(500):
        tally.add(Answer(1, tile=False))
        if tally.contradicts():
            looks.append(number + 1)
    assert looks == [60, 120, 240, 480]


def test_nobody_knows_of_an_answer_who_gave_it():
    tally = Tally(2, 10)
    tally.add(Answer(None, tile=True))
    assert (tally.share, tally.total, tally.tiles, str(tally)) == (None, 0, 0, "nobody")
    assert not tally.contradicts(last=True)


def test_tiles_of_the_new_version_alone_are_counted():
    tally = Tally(2, 50)
    for answer in (Answer(2, tile=True), Answer(2, tile=False), Answer(1, tile=True)):
        tally.add(answer)
    assert (tally.tiles, tally.by_new, tally.total, str(tally)) == (1, 2, 3, "1 by version 1, 2 by version 2")


def test_figures_say_what_they_have():
    figures = StepFigures(10, requests=70, failed=1, new_s=[0.1])
    assert str(figures) == "70 requests, 1 failed | p95 100 ms"
    figures.by_new, figures.tiles_by_new = 0.1, 22
    assert str(figures) == "70 requests, 1 failed | new answered 10%, 22 with tiles | p95 100 ms"
    assert figures.record().tiles_answered_by_new == 22
