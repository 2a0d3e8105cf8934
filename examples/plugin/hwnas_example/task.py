"""A task: how large is the rectangle in a picture? A regression of width and height, in shares of its edge."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from hwnas import DataError, Score, Task

MAE = Score("mae_percent", "min", "mean absolute error", "%")


class RectangleMeter:
    """Adds up absolute errors, in percent of the picture's edge."""

    def __init__(self) -> None:
        self.errors: list[torch.Tensor] = []

    def add(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Count a batch: ``(B, 2)`` outputs and targets."""
        self.errors.append(100 * (outputs.double() - targets.double()).abs().mean(1))

    def values(self) -> dict[str, float]:
        """Return the mean error and its standard error."""
        names = MAE.name, MAE.named("stderr")
        errors = torch.cat(self.errors) if self.errors else torch.empty(0)
        if not len(errors) or not bool(torch.isfinite(errors).all()):
            return dict.fromkeys(names, math.nan)
        spread = float(errors.std()) if len(errors) > 1 else 0.0
        return dict(zip(names, (float(errors.mean()), spread / len(errors) ** 0.5), strict=True))


class Rectangle(Task):
    """Width and height of one rectangle."""

    name = "rectangle"
    scores = (MAE,)

    def check(self, train, test, n_outputs, names, where) -> None:
        """Labels are two finite numbers an image, and the network has two outputs."""
        for labels in (train, test):
            if labels is not None and (labels.ndim != 2 or labels.shape[1] != 2 or not np.isfinite(labels).all()):
                raise DataError(f"{where} has labels of shape {labels.shape}; the task needs width and height of each")
        if n_outputs != 2:
            raise DataError(f"{where}: the network has {n_outputs} outputs, the task 2; set supernet.classes=2")

    def strata(self, labels):
        """Sizes are no groups."""
        return np.zeros(len(labels), dtype=np.int64)

    def targets(self, labels) -> torch.Tensor:
        """Return ``(N, 2)`` float32."""
        return torch.from_numpy(np.asarray(labels, dtype=np.float32))

    def loss(self, outputs, targets, smoothing: float = 0.0) -> torch.Tensor:
        """Return the mean squared error; there is no label to smooth."""
        return F.mse_loss(outputs, targets)

    def soft_targets(self, outputs) -> torch.Tensor:
        """A teacher tells its own answer."""
        return outputs

    def distillation_loss(self, outputs, soft) -> torch.Tensor:
        """Return the mean squared difference to the teacher."""
        return F.mse_loss(outputs, soft)

    def meter(self) -> RectangleMeter:
        """Return an empty meter."""
        return RectangleMeter()


RECTANGLE = Rectangle()
