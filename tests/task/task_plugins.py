"""A second task for tests: a network says the mean colour of an image. Nothing in hwnas knows of it."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from hwnas.data.source import MemoryImages, Opened, Source
from hwnas.errors import DataError
from hwnas.task import Score, Task

RMSE = Score("rmse_levels", "min", "colour error", "levels")


class MeanColour(Task):
    """Labels are ``(N, 3)`` means of red, green and blue, 0 to 255; outputs are the same, divided by 255."""

    name = "mean_colour"
    scores = (RMSE,)

    def check(self, train, test, n_outputs, names, where):
        if train.ndim != 2 or train.shape[1] != n_outputs:
            raise DataError(f"{where} has labels of shape {train.shape}, the network has {n_outputs} outputs")

    def strata(self, labels):
        return np.zeros(len(labels), dtype=np.int64)

    def targets(self, labels):
        return torch.from_numpy((labels / 255).astype(np.float32))

    def loss(self, outputs, targets, smoothing=0.0):
        return F.mse_loss(outputs, targets)

    def soft_targets(self, outputs):
        return outputs

    def distillation_loss(self, outputs, soft):
        return F.mse_loss(outputs, soft)

    def meter(self):
        return Rmse()


class Rmse:
    """Root of the mean squared error, in levels of 0 to 255."""

    def __init__(self):
        self.squares = []

    def add(self, outputs, targets):
        self.squares += ((255 * (outputs - targets)).double() ** 2).mean(1).tolist()

    def values(self):
        n = len(self.squares)
        if not n or not np.isfinite(self.squares).all():
            return {RMSE.name: math.nan, RMSE.named("stderr"): math.nan}
        value = math.sqrt(np.mean(self.squares))
        stderr = np.std(self.squares) / math.sqrt(n) / (2 * value) if value else 0.0  # of a root, to first order
        return {RMSE.name: value, RMSE.named("stderr"): float(stderr)}


class Tints(Source):
    """Noise around a colour, one colour an image."""

    def open(self, config, size_px):
        rng = np.random.default_rng(config.options.get("seed", 0))
        n = config.options.get("n_images", 120)
        colours = rng.uniform(40, 215, (n, 3, 1, 1))
        pixels = np.clip(colours + rng.normal(0, 20, (n, 3, size_px, size_px)), 0, 255).astype(np.uint8)
        return Opened(("red", "green", "blue"), MemoryImages(pixels, pixels.mean((2, 3))))


MEAN_COLOUR = MeanColour()
TINTS = Tints()
