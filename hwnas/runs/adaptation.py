"""How do a supernet's weights follow the search of one device? They are trained on where the archive is best.

Every device has a lineage of its own: it begins with the trained supernet, and each round trains the weights of the one
before. So values of devices are shared as long as they come from the trained weights, which the archive knows by the
weights' version; from the first round on, each device has its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import TrainingError
from hwnas.files import make_folder
from hwnas.objectives import as_losses
from hwnas.runs.evaluations import Candidate, Evaluations
from hwnas.runs.history import Adapted
from hwnas.search.adapt import Round, best_shares
from hwnas.search.config import AdaptationConfig, SearchConfig
from hwnas.search.problem import Problem
from hwnas.space import Arch, SearchSpace
from hwnas.supernet import Layout
from hwnas.train.checkpoint import weights_version
from hwnas.train.loop import train_supernet
from hwnas.train.phases import PhaseConfig, TrainConfig
from hwnas.train.state import NOT_BINDING

FloatArray = NDArray[np.float64]


class Lineage:
    """The weights that the search of one device goes through; `renew` makes the next ones."""

    def __init__(
        self, evaluations: Evaluations, device: str, problem: Problem, search: SearchConfig, wanted: Mapping[str, str],
        rounds: Sequence[Round],
    ) -> None:  # fmt: skip
        """Begin with the trained weights.

        Args:
            evaluations: of the run.
            device: name of the device.
            problem: what is searched for it.
            search: says how the supernet is adapted, and on how many images archs are evaluated.
            wanted: what an evaluation gives; see `evaluated_values`.
            rounds: when the search pauses.
        """
        self.evaluations, self.device, self.problem = evaluations, device, problem
        self.search, self.wanted = search, dict(wanted)
        self.rounds = tuple(rounds)
        self.adapted: list[Adapted] = []

    @property
    def weights(self) -> str:
        """Version of the weights that archs are evaluated with now."""
        return self.adapted[-1].weights_version if self.adapted else self.evaluations.weights.trained

    @property
    def note(self) -> str:
        """What the search's message says of it."""
        unit = self.evaluations.context.score.unit
        gains = [(a.score_before, a.score_after) for a in self.adapted]
        steps = [f"{b:.2f} to {a:.2f} {unit}".strip() for b, a in gains if b is not None and a is not None]
        means = f", mean {self.evaluations.context.score.title} of the archs so far in each round {', '.join(steps)}"
        return f"supernet adapted to weights {self.weights}{means if steps else ''}"

    def renew(self, number: int, archs: Sequence[Arch], values: FloatArray) -> FloatArray:
        """Adapt the supernet to the best of ``archs`` and evaluate all of them with the new weights.

        Args:
            number: of the round, from 1.
            archs: evaluated so far, for this device.
            values: ``(n, columns)`` with the present weights.

        Returns:
            ``(n, columns)`` values with the new weights.

        Raises:
            TrainingError: the loss is not finite.
        """
        evaluations, pause, config = self.evaluations, self.rounds[number - 1], self.search.adaptation
        context = evaluations.context
        assert config is not None, "the lineage belongs to a search with adaptation"
        shares = best_shares(self.problem, archs, as_losses(values, self.problem.columns), config.best)
        frozen = frozen_stages(context.layout, pause.held)
        base = context.folder.device(self.device)
        start = base.root / self.adapted[-1].folder if self.adapted else context.folder.train
        train = adaptation_training(context.recipe.train, config, number, shares, frozen, context.layout.space)
        label = f"adaptation {number} for {self.device}"
        try:
            folder, version = train_for_device(
                evaluations, self.device, number, train, (start, self.weights), label, context.folder.train
            )
        except TrainingError as error:
            raise TrainingError(f"{label}: {str(error).split(';', 1)[0]}; lower search.adaptation.lr") from None
        candidates = [Candidate(arch, version) for arch in archs]
        images = context.searched_images(self.search)

        def on_done(done: int) -> None:
            context.progress(f"evaluate again {number} for {self.device}", done, len(archs), f"weights {version}")

        evaluations.evaluate(candidates, self.wanted, images, on_done)
        renewed = evaluations.values(self.problem, candidates, images)
        self.adapted.append(
            Adapted(
                str(folder.relative_to(base.root)), version, len(archs), frozen, self._mean(values),
                self._mean(renewed),
            )
        )  # fmt: skip
        return renewed

    def _mean(self, values: FloatArray) -> float | None:
        names = [column.name for column in self.problem.columns]
        score = self.evaluations.context.score.name
        column = values[:, names.index(score)] if score in names else np.zeros(0)
        column = column[np.isfinite(column)]
        return round(float(column.mean()), 6) if len(column) else None


def train_for_device(
    evaluations: Evaluations, device: str, number: int, train: TrainConfig, start: tuple[Path | str, str], label: str,
    teacher_from: Path | None = None,
) -> tuple[Path, str]:  # fmt: skip
    """Train weights that belong to one device, or read them where they are trained already.

    Args:
        evaluations: of the run; it evaluates with the new weights next.
        device: name of the device.
        number: of this training in its order.
        train: how.
        start: folder and version of the weights that it begins with; two empty texts: as ``train`` says.
        label: what progress is called.
        teacher_from: see `train_supernet`.

    Returns:
        The folder of the weights and their version.

    Raises:
        TrainingError: the loss is not finite.
    """
    context, base = evaluations.context, evaluations.context.folder.device(device)
    plan = {"start": start[1], "train": train.model_dump(mode="json", exclude=NOT_BINDING)}
    digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:8]
    folder = make_folder(base.adapted / f"{number}-{digest}")

    def told(task: str, done: float, total: float, note: str = "") -> None:
        context.progress(label, done, total, note)

    begins = train.model_copy(update={"start_from": str(start[0])}) if start[0] else train
    supernet = train_supernet(
        context.recipe.supernet, begins, context.recipe.data, context.splits, folder, told, teacher_from=teacher_from
    )
    version = weights_version(folder / "supernet.safetensors")
    evaluations.weights.use(version, supernet)
    return folder, version


def adaptation_training(
    train: TrainConfig, config: AdaptationConfig, number: int, shares: Mapping[str, FloatArray],
    frozen: tuple[int, ...], space: SearchSpace,
) -> TrainConfig:  # fmt: skip
    """Return how the supernet is trained in one round: one phase, everything elastic, options drawn by ``shares``."""
    phase = PhaseConfig(
        name=f"adaptation {number}", epochs=config.epochs, lr=config.lr, subnets_per_step=config.subnets_per_step,
        elastic=dict.fromkeys(sorted({field for choice in space.choices for field in choice.fields}), "all"),
        teacher="fixed" if config.distill_ratio else "none", distill_ratio=config.distill_ratio,
        shares={name: tuple(p.tolist()) for name, p in shares.items()}, frozen_stages=frozen,
    )  # fmt: skip
    # Another seed a round, so that images come in another order and with other augmentation.
    return train.model_copy(update={"phases": (phase,), "seed": train.seed + number, "start_from": None})


def frozen_stages(layout: Layout, held: Sequence[str]) -> tuple[int, ...]:
    """Return the stages of the network whose weights only held choices use, and 0 with them (the stem).

    Empty where nothing is held, or where held choices are not those of whole stages (as the edges of a cell, which all
    stages share).
    """
    numbers = {name: layout.stage_of_choice(name) for names in layout.space.stages for name in names}
    found = {numbers[name] for name in held}
    free = {number for name, number in numbers.items() if name not in held}
    if not found or None in found or found & free:
        return ()
    return tuple(sorted({0, *(n for n in found if n is not None)}))
