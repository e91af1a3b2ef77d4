from itertools import pairwise

import numpy as np
import pytest

from pipeline.sandbox.actions import ACTIONS, CATALOGUE, FAMILY_MOVES, action_named
from pipeline.sandbox.dice import Dice
from pipeline.sandbox.figures import parts_of
from pipeline.sandbox.scenes import Frame, Scene, compose, render

TIMES = np.arange(16) * 0.08


def scene(action: str, number: int = 0) -> Scene:
    return compose([action], aspect=4 / 3, dice=Dice("test", action, number))


def clip(action: str, number: int = 0) -> list[Frame]:
    return list(render(scene(action, number), width=120, height=90, times=TIMES))


@pytest.mark.parametrize("action", ACTIONS)
def test_every_action_moves_and_repeats(action: str) -> None:
    actor = scene(action).actors[-1]
    start, later, again = (
        np.array(actor.parts(t)[0][:4] + actor.parts(t)[-1][:4]) for t in (0.0, 0.21, 1 / abs(actor.hertz))
    )
    everything = [np.array([part[:4] for part in actor.parts(t)]) for t in np.arange(10) / 10 / abs(actor.hertz)]
    assert max(np.abs(one - everything[0]).max() for one in everything) > 0.1
    np.testing.assert_allclose(start, again, atol=1e-9)
    assert start.shape == later.shape


def test_all_families_have_more_than_one_action() -> None:
    for family, moves in FAMILY_MOVES.items():
        assert sorted(a.moves for a in CATALOGUE if a.family == family) == list(range(len(moves)))
        assert len(moves) >= 2


@pytest.mark.parametrize("family", sorted(FAMILY_MOVES))
def test_single_frames_of_a_family_are_alike_but_motion_is_not(family: str) -> None:
    """At any one time the phases are uniform for each action; over time only the action's own way moves."""
    actions = [action for action in CATALOGUE if action.family == family]
    means, changes = [], []
    for action in actions:
        drawn = [scene(action.name, number).actors[-1] for number in range(300)]
        poses = np.array([[part[:4] for part in actor.parts(0.37)] for actor in drawn])
        means.append(poses.mean(axis=0))
        steps = [np.array([part[:4] for part in actor.parts(t)]) for actor in drawn[:40] for t in TIMES]
        moved = np.array(steps).reshape(40, len(TIMES), -1).std(axis=1).mean(axis=0)
        changes.append(moved / np.linalg.norm(moved))
    for one, other in pairwise(range(len(actions))):
        assert np.abs(means[one] - means[other]).max() < 0.12  # 300 draws of a spread of up to 0.4
        assert changes[one] @ changes[other] < 0.985


def test_frames_are_the_same_at_any_rate() -> None:
    fast = list(render(scene("swing"), width=64, height=48, times=np.arange(10) / 50))
    slow = list(render(scene("swing"), width=64, height=48, times=np.arange(5) / 25))
    for number, frame in enumerate(slow):
        np.testing.assert_array_equal(frame, fast[2 * number])


@pytest.mark.parametrize(("width", "height"), [(160, 120), (90, 160), (120, 120)])
def test_frames_have_their_size_and_change(width: int, height: int) -> None:
    frames = list(render(scene("rowing"), width=width, height=height, times=[0.0, 0.25]))
    assert frames[0].shape == (height, width, 3)
    assert frames[0].dtype == np.uint8
    assert np.abs(frames[0].astype(int) - frames[1]).mean() > 0.5


def test_colours_do_not_tell_the_action() -> None:
    """Mean colours of first frames differ between two actions no more than chance allows."""
    samples = {
        name: np.array([next(render(scene(name, n), width=32, height=24, times=[0.0])).mean((0, 1)) for n in range(60)])
        for name in ("jumping jack", "rowing")
    }
    first, second = samples.values()
    error = np.sqrt(first.var(axis=0) / 60 + second.var(axis=0) / 60)
    assert (np.abs(first.mean(axis=0) - second.mean(axis=0)) < 4 * error).all()


def test_second_figures_are_smaller_and_stand_behind() -> None:
    drawn = compose(["swing", "biking", "dribble"], aspect=16 / 9, dice=Dice(1))
    assert [actor.action for actor in drawn.actors] == ["biking", "dribble", "swing"]
    assert all(actor.size < drawn.actors[-1].size / 1.5 for actor in drawn.actors[:-1])


def test_figures_stay_about_one_unit_tall() -> None:
    for action in CATALOGUE:
        for phase in np.arange(12) / 12 * 2 * np.pi:
            phases = [phase if move == action.moves else 0.5 for move in range(len(FAMILY_MOVES[action.family]))]
            coordinates = np.array([part[:4] for part in parts_of(action.family, phases)])
            assert np.abs(coordinates).max() < 0.95, action.name


def test_unknown_actions_are_named() -> None:
    with pytest.raises(ValueError, match="no action 'knitting': choose among jumping jack"):
        action_named("knitting")
