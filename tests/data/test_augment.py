"""Augmentation: nothing for zeros, mirrors and shifts that can be told exactly, one source of randomness."""

import pytest
import torch
from pydantic import ValidationError

from hwnas.data import AugmentConfig, augment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch():
    return torch.randn(29, 5, 11, 13, generator=generator(9))


def ramp(n, height, width):
    """Images whose value is the column number."""
    return torch.arange(width, dtype=torch.float32).expand(n, 2, height, width).contiguous()


def test_nothing_is_changed_without_ranges(batch):
    kept = batch.clone()
    assert torch.equal(augment(batch, AugmentConfig(), generator()), kept)


def test_an_image_is_mirrored_or_not(batch):
    out = augment(batch, AugmentConfig(flip=True), generator())
    same = torch.tensor([torch.allclose(a, b, atol=1e-4) for a, b in zip(out, batch, strict=True)])
    mirrored = torch.tensor([torch.allclose(a, b.flip(-1), atol=1e-4) for a, b in zip(out, batch, strict=True)])
    assert (same ^ mirrored).all()
    assert 8 < int(mirrored.sum()) < 21


def test_a_shift_moves_a_ramp_by_at_most_its_share():
    width = 50
    out = augment(ramp(40, 11, width), AugmentConfig(shift_percent=10), generator())
    moved = out[:, 0, 5, 10:40] - torch.arange(10.0, 40.0)  # far from the border
    assert float(moved.std(dim=1).max()) < 1e-3
    assert float(moved.abs().max()) <= 0.10 * width + 1e-3
    assert float(moved.mean(1).abs().max()) > 0.08 * width
    assert (moved.mean(1) > 0).any()
    assert (moved.mean(1) < 0).any()


def test_a_change_of_size_stretches_a_ramp_about_its_centre():
    out = augment(ramp(40, 11, 51), AugmentConfig(scale_percent=20), generator())
    slope = out[:, 0, 5, 30] - out[:, 0, 5, 29]
    assert float(slope.min()) >= 0.8 - 1e-3
    assert float(slope.max()) <= 1.2 + 1e-3
    assert float(slope.max()) - float(slope.min()) > 0.3
    torch.testing.assert_close(out[:, 0, 5, 25], torch.full((40,), 25.0), atol=1e-3, rtol=0)


def test_a_turned_ramp_keeps_its_centre():
    out = augment(ramp(40, 51, 51), AugmentConfig(rotate_degrees=30), generator())
    torch.testing.assert_close(out[:, 0, 25, 25], torch.full((40,), 25.0), atol=1e-3, rtol=0)
    down, across = out[:, 0, 26, 25] - out[:, 0, 25, 25], out[:, 0, 25, 26] - out[:, 0, 25, 25]
    degrees = torch.rad2deg(torch.atan2(down, across)).abs()
    assert float(degrees.max()) <= 30 + 1e-2
    assert float(degrees.max()) > 25
    torch.testing.assert_close(down**2 + across**2, torch.ones(40), atol=1e-3, rtol=0)


def test_cutout_sets_one_rectangle_to_zero_and_keeps_the_rest():
    images = torch.ones(200, 3, 20, 20)
    out = augment(images, AugmentConfig(cutout_percent=30), generator())
    assert set(out.unique().tolist()) == {0.0, 1.0}
    hole = out[:, 0] == 0
    assert all(torch.equal(hole, out[:, c] == 0) for c in (1, 2))
    rows, columns = hole.any(2), hole.any(1)
    assert torch.equal(hole, rows[:, :, None] & columns[:, None, :])
    assert int(rows.sum(1).max()) == int(columns.sum(1).max()) == 6
    assert int(rows.sum(1).min()) >= 3  # half of it may lie outside


def test_the_same_generator_gives_the_same_images(batch):
    config = AugmentConfig(
        flip=True, shift_percent=10, rotate_degrees=10, scale_percent=10, shear_percent=10, cutout_percent=20
    )
    kept = batch.clone()
    torch.manual_seed(1)
    a = augment(batch, config, generator(4))
    torch.manual_seed(2)
    assert torch.equal(augment(batch, config, generator(4)), a)
    assert not torch.equal(augment(batch, config, generator(5)), a)
    assert torch.equal(batch, kept)
    assert a.shape == batch.shape


def test_a_uniform_image_stays_uniform(batch):
    config = AugmentConfig(flip=True, shift_percent=20, rotate_degrees=30, scale_percent=20, shear_percent=20)
    out = augment(torch.full((9, 5, 11, 13), 0.7), config, generator())
    torch.testing.assert_close(out, torch.full((9, 5, 11, 13), 0.7))


@pytest.mark.parametrize("change", [{"shift_percent": -1}, {"flipp": True}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(ValidationError):
        AugmentConfig(**change)
