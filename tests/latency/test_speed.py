"""The machine's speed is found from timings that jump, and taken out."""

import numpy as np
import pytest

from hwnas.latency.machine_speed import remove_machine_speed


def timings(rng, n_models, rounds, speed, noise):
    """Logarithms of timings of models in random order, the speed given by their position."""
    true = rng.uniform(-3, 3, n_models)
    which = np.concatenate([rng.permutation(n_models) for _ in range(rounds)])
    log_ms = true[which] + speed(np.arange(len(which))) + rng.normal(0, noise, len(which))
    return true, which, log_ms


def test_without_noise_at_one_speed_everything_is_exact(rng):
    true, which, log_ms = timings(rng, 7, 3, lambda k: 0.0 * k, 0.0)
    times, slowness = remove_machine_speed(log_ms, which)
    np.testing.assert_allclose(times, true, atol=1e-12)
    np.testing.assert_allclose(slowness, 0, atol=1e-12)


def test_a_speed_that_jumps_for_a_while_is_taken_out(rng):
    def fast_at_times(k):
        return np.where((k // 37) % 4 == 1, np.log(0.62), 0.0)

    true, which, log_ms = timings(rng, 40, 6, fast_at_times, 0.01)
    times, slowness = remove_machine_speed(log_ms, which)
    assert np.abs(times - true).max() < 0.02
    plain = np.array([np.median(log_ms[which == i]) for i in range(40)])
    assert np.abs(times - true).mean() < 0.3 * np.abs(plain - true).mean()
    assert np.median(np.abs(slowness - fast_at_times(np.arange(len(which))))) < 0.01


def test_a_slow_drift_is_taken_out(rng):
    true, which, log_ms = timings(rng, 30, 8, lambda k: 0.3 * k / 240, 0.005)
    times, _ = remove_machine_speed(log_ms, which)
    shift = times - true
    assert np.ptp(shift) < 0.02  # all models at the same speed, whichever that is


def test_times_hold_for_the_most_common_speed(rng):
    true, which, log_ms = timings(rng, 10, 10, lambda k: np.where(k < 25, -0.5, 0.0), 0.002)
    times, slowness = remove_machine_speed(log_ms, which)
    np.testing.assert_allclose(times, true, atol=0.01)
    assert slowness[0] == pytest.approx(-0.5, abs=0.01)


def test_one_model_alone_has_no_neighbours():
    times, slowness = remove_machine_speed(np.log([1.0, 2.0, 3.0]), np.zeros(3, dtype=np.int64))
    assert times.tolist() == pytest.approx([np.log(2.0)])
    assert slowness.tolist() == [0.0, 0.0, 0.0]


def test_a_model_that_throttles_alone_does_not_hide_in_the_speed_of_the_machine():
    """Its own timings do not count for the speed around it."""
    which = np.tile([0, 1], 20)
    log_ms = np.where(which == 0, 0.0, np.log(0.1)) + np.where((which == 0) & (np.arange(40) >= 20), 0.2, 0.0)
    _, slowness = remove_machine_speed(log_ms, which)
    own = (log_ms - slowness)[which == 0]
    assert own[-1] - own[0] == pytest.approx(0.2, abs=1e-9)


def test_a_model_that_scales_otherwise_holds_for_the_most_common_speed(rng):
    """Timed mostly while the machine was fast, where its memory kept its pace: the few other timings say its time."""
    small = np.arange(1, 10)
    common, fast = [*np.tile(small, 8), *[0] * 4], [*np.tile(small, 3), *[0] * 6]
    which = np.concatenate([rng.permutation(common), rng.permutation(fast)]).astype(np.int64)
    slow_down = np.where(np.arange(len(which)) >= len(common), np.where(which == 0, -0.25, -0.5), 0.0)
    times, _ = remove_machine_speed(0.1 * which + slow_down, which)
    np.testing.assert_allclose(times, 0.1 * np.arange(10), atol=0.01)
