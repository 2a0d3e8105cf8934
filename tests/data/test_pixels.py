"""Crops, TrivialAugment and kornia: operators by hand, and parts of a batch that are rows of the whole."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from hwnas.data import AugmentConfig, TrainBatches, augment
from hwnas.data.augment import TRIVIAL, Draws, augment_pixels
from hwnas.errors import DataError

NAMES = ("same", "shear_x", "shear_y", "shift_x", "shift_y", "rotate", "brightness", "colour", "contrast", "sharpness",
         "posterise", "solarise", "autocontrast", "equalise")  # fmt: skip


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def apply(name, x, strength=1.0, sign=1.0):
    n = len(x)
    return TRIVIAL[NAMES.index(name)](x, torch.full((n,), strength), torch.full((n,), sign))


@pytest.fixture
def pixels():
    return torch.rand(4, 3, 8, 8, generator=generator(3))


@pytest.mark.parametrize("config", [
    {"flip": True, "shift_percent": 10, "cutout_percent": 30, "crop_percent": 40}, {"trivial": True, "flip": True},
])  # fmt: skip
@pytest.mark.parametrize("resolution", [11, 13])
def test_a_part_of_a_batch_is_rows_of_the_whole(splits, config, resolution):
    source = TrainBatches(splits.train, *splits.mean_std, 8, AugmentConfig(**config), 3)
    x, y = source.batch(2, resolution)
    parts = [source.batch(2, resolution, part) for part in (slice(0, 4), slice(4, 8))]
    assert torch.equal(torch.cat([p[1] for p in parts]), y)
    torch.testing.assert_close(torch.cat([p[0] for p in parts]), x, rtol=0, atol=1e-6)


def test_a_crop_keeps_at_least_its_area_and_fills_the_image():
    height, width = 40, 40
    rows = torch.arange(height, dtype=torch.float32).view(1, 1, -1, 1).expand(200, 1, -1, width)
    columns = torch.arange(width, dtype=torch.float32).view(1, 1, 1, -1).expand(200, 1, height, -1)
    x = torch.cat([rows, columns], 1)
    out = augment(x, AugmentConfig(crop_percent=25), generator(1))
    tall = (out[:, 0, -1, 20] - out[:, 0, 0, 20] + (out[:, 0, 21, 20] - out[:, 0, 20, 20])) / height
    wide = (out[:, 1, 20, -1] - out[:, 1, 20, 0] + (out[:, 1, 20, 21] - out[:, 1, 20, 20])) / width
    assert float((tall * wide).min()) > 0.24
    assert float((tall * wide).max()) > 0.9
    inside = (tall < 0.99) & (wide < 0.99)
    assert float((wide / tall)[inside].max()) < 4 / 3 + 0.05
    assert float((wide / tall)[inside].min()) > 3 / 4 - 0.05
    assert 0 <= float(out.min()) <= float(out.max()) <= 39, "no crop reaches beyond the image"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("strength", [0.0, 0.37, 1.0])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_operators_stay_within_pixels(pixels, name, strength, sign):
    out = apply(name, pixels, strength, sign)
    assert out.shape == pixels.shape
    assert -1e-6 <= float(out.min()) <= float(out.max()) <= 1 + 1e-6
    weak = strength == 0.0 and name not in ("autocontrast", "equalise")
    if weak or name == "same":
        torch.testing.assert_close(
            out, (pixels * 255).round() / 255 if name == "posterise" else pixels, atol=1e-5, rtol=0
        )


def test_strong_operators_by_hand(pixels):
    torch.testing.assert_close(apply("brightness", pixels, 1.0, -1.0), 0.1 * pixels)
    torch.testing.assert_close(apply("solarise", pixels, 0.75), torch.where(pixels >= 0.25, 1 - pixels, pixels))
    values = (pixels * 255).round().numpy().astype(np.uint8)
    np.testing.assert_array_equal((apply("posterise", pixels, 1.0) * 255).round().numpy(), values & 0b11110000)
    grey = 0.299 * pixels[:, 0] + 0.587 * pixels[:, 1] + 0.114 * pixels[:, 2]
    torch.testing.assert_close(apply("colour", pixels, 1.0, -1.0), grey[:, None] + 0.1 * (pixels - grey[:, None]))
    low, high = pixels.amin((2, 3), True), pixels.amax((2, 3), True)
    torch.testing.assert_close(apply("autocontrast", pixels), (pixels - low) / (high - low))


def test_equalising_agrees_with_pillow():
    from PIL import Image, ImageOps

    values = torch.randint(0, 256, (1, 1, 32, 32), generator=generator(5)).float().pow(2).div(255).floor()
    ours = (apply("equalise", values / 255) * 255)[0, 0].numpy()
    theirs = np.asarray(ImageOps.equalize(Image.fromarray(values[0, 0].numpy().astype(np.uint8))))
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_a_shift_and_a_turn_move_pixels_as_they_say():
    ramp = torch.arange(33.0).expand(1, 1, 33, 33) / 33
    moved = apply("shift_x", ramp, 0.32, 1.0)  # by 3.3 pixels
    torch.testing.assert_close(moved[0, 0, 4, :20], ramp[0, 0, 4, :20] + 3.3 / 33, atol=1e-4, rtol=0)
    turned = apply("rotate", ramp, 1.0, 1.0)  # 30 degrees
    step = turned[0, 0, 16, 17] - turned[0, 0, 16, 16]
    assert float(step) == pytest.approx(np.cos(np.pi / 6) / 33, rel=1e-3)


def test_every_operator_is_drawn_and_only_the_generator_decides(pixels):
    many = pixels[:1].expand(400, -1, -1, -1)
    config = AugmentConfig(trivial=True)
    a, b, c = (
        augment_pixels(many, config, g, Draws(g, 400, None, many.device)) for g in map(generator, (1, 1, 2))
    )  # fmt: skip
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    same = sum(torch.equal(x, many[0]) for x in a)
    assert 10 < same < 60, "about one in 14 is left as it was"


def test_kornia_is_applied_and_repeats(splits):
    pytest.importorskip("kornia")
    plain, erased = (
        TrainBatches(splits.train, *splits.mean_std, 8, AugmentConfig(kornia=k), 3)
        for k in ((), ({"RandomErasing": {"p": 1.0, "scale": [0.2, 0.3]}},))
    )
    torch.manual_seed(1)
    x, _ = erased.batch(1, 11)
    torch.manual_seed(2)
    assert torch.equal(erased.batch(1, 11)[0], x)
    changed = (x != plain.batch(1, 11)[0]).float().mean((1, 2, 3))
    assert ((changed > 0.1) & (changed < 0.4)).all()
    wrong = TrainBatches(splits.train, *splits.mean_std, 8, AugmentConfig(kornia=({"NoSuchThing": {}},)), 3)
    with pytest.raises(DataError, match=r"kornia\.augmentation has no 'NoSuchThing'"):
        wrong.batch(0, 11)


@pytest.mark.parametrize("change", [{"crop_percent": 0}, {"crop_percent": 101}, {"trivial": 3}])
def test_ranges_out_of_range_are_refused(change):
    with pytest.raises(ValidationError):
        AugmentConfig(**change)
