"""Batches: a function of seed and step, every image once an epoch, resolutions by hand."""

import numpy as np
import pytest
import torch

from hwnas.data import AugmentConfig, ImageSet, TrainBatches, as_input
from hwnas.data import inputs as inputs_module

FULL = AugmentConfig(flip=True, shift_percent=10, cutout_percent=20)


def numbered(n=23, px=7):
    """Images that can be told apart: image i is filled with i, and so is its label."""
    number = torch.arange(n)
    return ImageSet(number.to(torch.uint8).view(n, 1, 1, 1).expand(n, 2, px, px).contiguous(), number)


def batches(batch_size=5, augment=AugmentConfig(), seed=0, data=None):  # noqa: B008 (a frozen value)
    return TrainBatches(data or numbered(), (0.0, 0.0), (1.0, 1.0), batch_size, augment, seed)


def test_every_epoch_shows_each_image_at_most_once_in_a_new_order():
    source = batches()
    assert source.per_epoch == 4
    epochs = [torch.cat([source.batch(e * 4 + i, 7)[1] for i in range(4)]).tolist() for e in range(3)]
    for labels in epochs:
        assert len(labels) == len(set(labels)) == 20
    assert len({tuple(labels) for labels in epochs}) == 3


def test_images_and_labels_belong_together():
    x, y = batches().batch(3, 7)
    assert torch.equal((x[:, 0, 0, 0] * 255).round().long(), y)


def test_a_batch_depends_on_seed_and_step_only(splits):
    source = TrainBatches(splits.train, *splits.mean_std, 8, FULL, 3)
    steps = [0, 7, 3, 12]
    first = {step: source.batch(step, 11) for step in steps}
    again = TrainBatches(splits.train, *splits.mean_std, 8, FULL, 3)
    torch.manual_seed(99)
    for step in reversed(steps):
        x, y = again.batch(step, 11)
        assert torch.equal(x, first[step][0])
        assert torch.equal(y, first[step][1])
    other, _ = TrainBatches(splits.train, *splits.mean_std, 8, FULL, 4).batch(0, 11)
    assert not torch.equal(other, first[0][0])
    assert not torch.equal(first[0][0], first[7][0])


def test_fewer_images_than_a_batch_are_one_batch():
    source = batches(batch_size=100)
    assert source.per_epoch == 1
    assert sorted(source.batch(2, 7)[1].tolist()) == list(range(23))


def test_batches_are_channels_last(splits):
    x, _ = TrainBatches(splits.train, *splits.mean_std, 8, FULL, 3).batch(0, 11)
    assert x.shape == (8, 5, 11, 11)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)


def test_pixels_of_the_right_size_are_only_normalised(rng):
    pixels = rng.integers(0, 256, (3, 2, 11, 11), dtype=np.uint8)
    mean, std = (0.25, 0.5), (0.125, 2.0)
    out = as_input(torch.from_numpy(pixels), 11, mean, std)
    wanted = (pixels / 255 - np.reshape(mean, (1, 2, 1, 1))) / np.reshape(std, (1, 2, 1, 1))
    np.testing.assert_allclose(out.numpy(), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("block", [1, 700, 10**9], ids=["an image at a time", "two or three", "all"])
@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("resolution", [7, 11, 16])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last], ids=["planes", "channels last"])
def test_blocks_and_the_order_of_channels_change_no_bit(rng, monkeypatch, block, channels, resolution, order):
    pixels = torch.from_numpy(rng.integers(0, 256, (7, channels, 11, 11), dtype=np.uint8))
    mean, std = (torch.tensor(v[:channels]).view(1, -1, 1, 1) for v in ((0.3, 0.4, 0.5), (0.2, 0.3, 0.4)))
    x = pixels.to(torch.float32) / 255
    if resolution != 11:
        x = torch.nn.functional.interpolate(x, (resolution,) * 2, mode="bilinear", antialias=resolution < 11)
    wanted = ((x - mean) / std).contiguous(memory_format=torch.channels_last)
    monkeypatch.setattr(inputs_module, "BLOCK", block)
    found = as_input(
        pixels.contiguous(memory_format=order), resolution, mean.flatten().tolist(), std.flatten().tolist()
    )
    assert torch.equal(found, wanted)
    assert found.stride() == wanted.stride()


def test_enlarging_is_bilinear_by_hand():
    pixels = torch.tensor([[0, 255], [0, 255]], dtype=torch.uint8).view(1, 1, 2, 2)
    out = as_input(pixels, 4, (0.0,), (1.0,))
    for row in out[0, 0]:
        assert row.tolist() == pytest.approx([0, 0.25, 0.75, 1], abs=1e-6)


def test_shrinking_averages_what_it_leaves_out():
    pixels = (torch.arange(16) % 2 * 255).to(torch.uint8).view(1, 1, 1, 16).expand(1, 1, 16, 16)
    out = as_input(pixels, 4, (0.0,), (1.0,))
    assert out[0, 0, 1:3, 1:3].flatten().tolist() == pytest.approx([0.5] * 4, abs=0.03)


def test_pixels_are_left_as_they_were():
    pixels = torch.full((1, 1, 5, 5), 200, dtype=torch.uint8)
    as_input(pixels, 7, (0.5,), (0.5,))
    assert (pixels == 200).all()
