"""An objective: the error that 95 % of the validation images stay below."""

from contextlib import nullcontext

import torch

from hwnas import EvaluatedObjective


class Errors:
    """Watches the outputs of a subnet."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def add(self, outputs: torch.Tensor, targets: torch.Tensor) -> None:
        """Keep the errors of a batch, in percent."""
        self.seen.append(100 * (outputs - targets).abs().amax(1))

    def values(self) -> dict[str, float]:
        """Return the 95th percentile."""
        return {P95_ERROR.name: float(torch.quantile(torch.cat(self.seen), 0.95))}


class P95Error(EvaluatedObjective):
    """Found in the forward pass that all evaluated objectives share."""

    name, title, direction = "p95_error_percent", "95th percentile of the error", "min"

    def observer(self, case):
        """There is nothing to close afterwards."""
        return nullcontext(Errors())


P95_ERROR = P95Error()
