"""Selection while training: the posterior of p, the mean direction, the order of a step, and the state on disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lean_align.errors import DataError
from lean_align.online import OnlineSelector, OnlineSettings, Prior, SuccessPosterior
from lean_align.online.direction import MeanDirection
from lean_align.online.sampling import draw_order
from lean_align.online.state_files import ARRAYS, BELONGS

IDS = [f"p-{i}" for i in range(40)]
K = 16


def selector(ids=IDS, seed: int = 3, proj_dim: int | None = K, prior: Prior | None = None, **changes) -> OnlineSelector:
    identity = {"run": changes.pop("run", "a"), "projection": changes.pop("projection", "sjlt 0")}
    return OnlineSelector(ids, seed, "training", OnlineSettings(**changes), identity, proj_dim, prior)


def trained(online: OnlineSelector, first: int = 0, last: int = 6, per_step: int = 5) -> list[list[int]]:
    """Some steps on prompts of which a tenth are always right, a tenth vary, and the rest are always wrong."""
    met = []
    for step in range(first, last):
        places = online.order(step).places[:per_step].tolist()
        for place in places:
            rng = np.random.default_rng([step, place])
            p = (1.0, 0.5, *[0.0] * 8)[place % 10]
            rewards = (rng.random(8) < p).astype(float)
            row = rng.standard_normal(K) + 1 if 0 < rewards.mean() < 1 and online.direction is not None else None
            online.observe(step, place, rewards.tolist(), row)
        met.append(places)
    return met


def test_the_posterior_of_a_prompt_by_hand():
    """Two of four right at step 0, gamma 1/2, s = 2.  At step 1 the visit weighs 1/2: the pool's mean is
    (1/2 + 1/2 * 1/2) / (1 + 1/2) = 1/2; a = 2/2 + 2/2 = 2 = b, E[p (1 - p)] = 4 / (4 * 5); not met: 1 / (2 * 3).
    Four of four right at step 2: the earlier two of each weigh 1/4, c = 4.5, w = 0.5."""
    posterior = SuccessPosterior(2, discount=0.5, strength=2.0)
    posterior.observe(0, 0, np.array([1.0, 1.0, 0.0, 0.0]))
    np.testing.assert_allclose(posterior.expected_learnability(1), [0.2, 1 / 6])
    posterior.observe(2, 0, np.ones(4))
    assert (posterior.right[0], posterior.wrong[0], posterior.rate[0]) == (4.5, 0.5, 1.0)
    mean = (0.5 + 1.0) / 2.0
    np.testing.assert_allclose(posterior.mean(2), [(2 * mean + 4.5) / (2 + 5), mean])


def test_what_is_expected_is_the_mean_of_what_is_drawn():
    posterior = SuccessPosterior(3, 0.9, 2.0)
    posterior.observe(0, 0, np.array([1.0, 0.0, 0.0, 0.0]))
    posterior.observe(1, 1, np.ones(8))
    rng = np.random.default_rng(0)
    drawn = np.mean([posterior.draw_learnability(3, rng) for _ in range(20_000)], axis=0)
    np.testing.assert_allclose(drawn, posterior.expected_learnability(3), rtol=0.02)


def test_evidence_fades_and_the_prior_stays():
    posterior = SuccessPosterior(1, 0.5, 2.0, Prior(np.array([0.25]), np.array([4.0])))
    posterior.observe(0, 0, np.ones(8))
    means = [float(posterior.mean(step)[0]) for step in (0, 1, 2, 60)]
    assert means[0] == pytest.approx(9 / 12)
    assert means == sorted(means, reverse=True)
    assert means[-1] == pytest.approx(0.25)


def test_a_prediction_says_what_is_drawn_first():
    """Of a hopeless and a solved half and one prompt in between, that one."""
    mean = np.array([0.0] * 20 + [1.0] * 20)
    mean[7] = 0.5
    online = selector(exploration=0.0, prior=Prior(mean, np.full(40, 1e6)))
    assert all(online.order(step).places[0] == 7 for step in range(5))
    np.testing.assert_allclose(online.expected_score(0)[7], 0.25, rtol=1e-4)


@pytest.mark.parametrize(
    ("mean", "strength"),
    [([0.5], [1.0, 1.0]), ([1.5], [1.0]), ([0.5], [0.0]), ([float("nan")], [1.0]), ([0.5], [float("inf")])],
)
def test_a_prior_that_is_none_is_refused(mean, strength):
    with pytest.raises(DataError, match="expected"):
        Prior(np.array(mean), np.array(strength))


def test_a_prior_of_another_pool_is_refused():
    with pytest.raises(DataError, match="40"):
        selector(prior=Prior(np.full(3, 0.5), np.ones(3)))


@pytest.mark.parametrize("block", [1, 3, 1024])
def test_alignment_is_what_brute_force_gives(monkeypatch, block):
    """Prompts 0 to 6 have rows, 7 was met without one, 8 and 9 were not met."""
    monkeypatch.setattr("lean_align.online.direction.BLOCK", block)
    rng = np.random.default_rng(1)
    direction = MeanDirection(10, K)
    rows = rng.standard_normal((7, K)) + np.array([3.0, 2.0, 1.0, 0.5, 0.0, 0.0, -0.5])[:, None]
    for place, row in enumerate(rows):
        direction.keep(place, row)
    weights, v = np.r_[rng.random(8), 0, 0], np.r_[rng.random(7) / 4, 0, 0, 0]
    u = direction.rows.astype(np.float64)
    a = []
    for i in range(7):
        others = [j for j in range(10) if j != i]
        a.append(sum(weights[j] * v[j] * (u[i] @ u[j]) for j in others) / sum(weights[j] for j in others))
    m = sum(weights[j] * v[j] * u[j] for j in range(10)) / sum(weights)
    noise = m @ m / K
    kept = max(0.0, 1 - noise / np.var(a))
    assert 0 < kept < 1
    expected = np.r_[np.mean(a) + kept * (np.array(a) - np.mean(a)), [np.mean(a)] * 3]
    np.testing.assert_allclose(direction.alignment(weights, v), expected, rtol=1e-10)


def test_the_spread_of_random_rows_is_taken_for_noise():
    """Of rows that share a direction and otherwise are noise, nearly nothing of the differences is believed."""
    rng = np.random.default_rng(2)
    direction = MeanDirection(300, 400)
    for place in range(300):
        direction.keep(place, rng.standard_normal(400) + 0.15)
    found = direction.alignment(np.ones(300), np.full(300, 0.2))
    u = direction.rows.astype(np.float64)
    assert found.std() < 0.4 * ((u @ u.mean(0)) * 0.2).std()
    assert found.min() > 0


def test_without_a_common_direction_learnability_alone_counts():
    direction = MeanDirection(3, 2)
    assert direction.alignment(np.zeros(3), np.zeros(3)) is None
    direction.keep(0, np.array([1.0, 0.0]))
    assert direction.alignment(np.array([1.0, 0, 0]), np.array([0.25, 0, 0])) is None
    direction.keep(1, np.array([-1.0, 0.0]))
    assert direction.alignment(np.array([1.0, 1, 0]), np.array([0.25, 0.25, 0])) is None
    direction.keep(1, np.array([1.0, 0.0]))
    np.testing.assert_allclose(direction.alignment(np.array([1.0, 1, 0]), np.array([0.25, 0.25, 0])), 0.25)


@pytest.mark.parametrize("row", [np.ones(K + 1), np.zeros(K), np.full(K, np.nan)])
def test_a_row_of_another_projection_or_none_is_refused(row):
    with pytest.raises(DataError, match="row of"):
        selector().observe(0, 0, [0.0, 1.0], row)


def test_an_order_holds_each_prompt_once_best_first():
    values = np.array([3.0, 1.0, 2.0, 2.0])
    firsts = set()
    for seed in range(30):
        order = draw_order(values, 0.0, np.random.default_rng(seed))
        assert order.places[0] == 0
        assert order.places[-1] == 1
        assert not order.explored.any()
        firsts.add(int(order.places[1]))
    assert firsts == {2, 3}


def test_the_share_of_exploration_is_drawn_whatever_its_value():
    values, share, seen = np.arange(200.0), [], []
    for seed in range(50):
        order = draw_order(values, 0.3, np.random.default_rng(seed))
        assert sorted(order.places.tolist()) == list(range(200))
        share.append(order.explored[:20].mean())
        seen += order.places[:20][order.explored[:20]].tolist()
        ranked = order.places[:20][~order.explored[:20]]
        assert (np.diff(ranked) < 0).all()
        assert ranked.min() > 150
    assert 0.2 < np.mean(share) < 0.4
    assert 70 < np.mean(seen) < 130


def test_draws_turn_to_prompts_that_teach():
    """4 of the 40 can be learned; the last steps meet little else."""
    met = trained(selector(proj_dim=None, exploration=0.05), last=40)
    early, late = ([place % 10 == 1 for step in part for place in step] for part in (met[:4], met[-15:]))
    assert np.mean(late) > 0.5 > np.mean(early)
    assert len({place for step in met for place in step}) > 25


def test_an_order_is_a_function_of_the_state_and_the_step():
    one, other = selector(), selector()
    assert trained(one) == trained(other)
    assert np.array_equal(one.order(6).places, one.order(6).places)
    assert not np.array_equal(one.order(6).places, one.order(7).places)
    assert not np.array_equal(one.order(0).places, selector(seed=4).order(0).places)


@pytest.mark.parametrize("proj_dim", [None, K])
def test_a_state_is_saved_and_loaded_bit_for_bit(tmp_path, proj_dim):
    whole = selector(proj_dim=proj_dim)
    trained(whole, last=9)
    whole.save(tmp_path / "whole")
    cut, resumed = selector(proj_dim=proj_dim), selector(proj_dim=proj_dim)
    trained(cut, last=4)
    cut.save(tmp_path / "cut")
    resumed.load(tmp_path / "cut")
    trained(resumed, first=4, last=9)
    resumed.save(tmp_path / "resumed")
    for name in (ARRAYS, BELONGS):
        assert (tmp_path / "resumed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut", "resumed", "whole"]


def test_a_state_that_is_loaded_is_a_copy():
    one = selector()
    trained(one, last=3)
    state = one.state_dict()
    before = {name: found.copy() for name, found in state["arrays"].items()}
    other = selector()
    other.load_state_dict(state)
    trained(other, first=3)
    assert all(np.array_equal(before[name], found) for name, found in state["arrays"].items())


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"run": "b"}, "run"),
        ({"projection": "sjlt 1"}, "projection"),
        ({"proj_dim": K * 2}, "proj_dim"),
        ({"seed": 4}, "seed"),
        ({"ids": IDS[::-1]}, "prompts"),
        ({"discount": 0.9}, "discount"),
        ({"exploration": 0.2}, "exploration"),
        ({"prior_strength": 1.0}, "prior_strength"),
        ({"prior": Prior(np.full(40, 0.3), np.ones(40))}, "prior"),
    ],
)
def test_a_state_of_something_else_is_refused(tmp_path, change, key):
    one = selector()
    trained(one, last=2)
    one.save(tmp_path / "state")
    with pytest.raises(DataError, match=rf"another online selection: its {key} is .*expected"):
        selector(**change).load(tmp_path / "state")


def damaged(folder: Path, how: str) -> None:
    if how == "cut":
        (folder / ARRAYS).write_bytes((folder / ARRAYS).read_bytes()[:-9])
    elif how == "swapped":
        other = selector()
        trained(other, last=3)
        other.save(folder.parent / "other")
        (folder / ARRAYS).write_bytes((folder.parent / "other" / ARRAYS).read_bytes())
    elif how == "no arrays":
        (folder / ARRAYS).unlink()
    else:
        (folder / BELONGS).write_text("{")


@pytest.mark.parametrize("how", ["cut", "swapped", "no arrays", "not json"])
def test_a_damaged_state_is_refused(tmp_path, how):
    one = selector()
    trained(one, last=2)
    one.save(tmp_path / "state")
    damaged(tmp_path / "state", how)
    with pytest.raises(DataError, match=r"damaged(.|\n)*delete"):
        selector().load(tmp_path / "state")
    with pytest.raises(DataError, match="holds no state"):
        selector().load(tmp_path / "nowhere")


@pytest.mark.parametrize("rewards", [[], [0.5, 1.5], [-1.0], [float("nan")]])
def test_rewards_that_are_no_success_are_refused(rewards):
    with pytest.raises(DataError, match="p-3 has the rewards"):
        selector().observe(0, 3, rewards)


def test_a_step_is_taken_once_and_in_order():
    online = selector()
    online.observe(2, 0, [1.0])
    for step in (1, 2):
        with pytest.raises(DataError, match="once and in order"):
            online.observe(step, 0, [1.0])


@pytest.mark.parametrize("ids", [[], ["a", "a"]])
def test_a_pool_that_is_empty_or_names_a_prompt_twice_is_refused(ids):
    with pytest.raises(DataError, match="expected each once"):
        selector(ids)


@pytest.mark.parametrize(
    "wrong", [{"discount": 0.0}, {"discount": 1.1}, {"exploration": -0.1}, {"prior_strength": 0.0}]
)
def test_settings_out_of_their_range_are_refused(wrong):
    with pytest.raises(DataError, match="expected a discount"):
        OnlineSettings(**wrong)
