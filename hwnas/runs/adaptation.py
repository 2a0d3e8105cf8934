"""How do a supernet's weights follow the search of one device? They are trained on where the archive is best.

Every device has a lineage of its own: it begins with the trained supernet, and each round trains the weights of the one
before. So values of devices are shared as long as they come from the trained weights, which the archive knows by the
weights' version; from the first round on, each device has its own.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
import numpy as np
from numpy.typing import NDArray
from hwnas.archive import Archive
from hwnas.errors import ResumeError, TrainingError
from hwnas.files import make_folder
from hwnas.objectives import as_losses
from hwnas.search.adapt import Round, best_shares
from hwnas.search.config import AdaptationConfig
from hwnas.search.problem import Problem
from hwnas.space import Arch, SearchSpace
from hwnas.supernet import SuperNet
from hwnas.train.checkpoint import load_supernet, weights_version
from hwnas.train.loop import NOT_BINDING, train_supernet
from hwnas.train.phases import PhaseConfig, TrainConfig
if TYPE_CHECKING:
    from hwnas.runs.run import Run


FloatArray = NDArray[np.float64]

ADAPTED_FOLDER = "adapted"

@dataclass(frozen=True)
class Adapted:
    """One adaptation of the supernet to a device; ``search.json`` lists them."""

    folder: str
    """Below the device's folder; it holds ``supernet.safetensors`` and ``metrics.jsonl``."""
    weights_version: str
    evaluations: int
    """Archs that had been evaluated."""
    frozen_stages: tuple[int, ...]
    """Whose weights did not learn; 0 is what stands before the first."""
    top1_before_percent: float | None
    """Mean validation accuracy of these archs, with the weights before; None: it is no objective."""
    top1_after_percent: float | None
    """The same archs with the adapted weights."""

class Lineage:
    """The weights that the search of one device goes through; `renew` makes the next ones."""

    def __init__(self, run: Run, device: str, problem: Problem, archive: Archive, rounds: Sequence[Round]) -> None:
        """Begin with the trained weights.

        Args:
            run: its recipe says how the supernet is adapted.
            device: name of the device.
            problem: what is searched for it.
            archive: of the run.
            rounds: when the search pauses.
        """
        self.run, self.device, self.problem, self.archive = run, device, problem, archive
        self.rounds = tuple(rounds)
        self.adapted: list[Adapted] = []

    @property
    def weights(self) -> str:
        """Version of the weights that archs are evaluated with now."""
        return self.adapted[-1].weights_version if self.adapted else self.run.weights

    @property
    def note(self) -> str:
        """What the search's message says of it."""
        gains = [(a.top1_before_percent, a.top1_after_percent) for a in self.adapted]
        steps = [f"{b:.2f} to {a:.2f} %" for b, a in gains if b is not None and a is not None]
        means = f", mean accuracy of the archs so far in each round {', '.join(steps)}" if steps else ""
        return f"supernet adapted to weights {self.weights}{means}"

    def renew(self, number: int, archs: Sequence[Arch], values: FloatArray) -> FloatArray:
        """Adapt the supernet to the best of ``archs`` and evaluate all of them with the new weights.

        Args:
            number: of the round, from 1.
            archs: evaluated so far, for this device.
            values: ``(n, m)`` with the present weights.

        Returns:
            ``(n, m)`` values with the new weights.

        Raises:
            TrainingError: the loss is not finite.
        """
        run, pause = self.run, self.rounds[number - 1]
        config = run.recipe.search.adaptation
        assert config is not None, "the lineage belongs to a search with adaptation"
        shares = best_shares(self.problem, archs, as_losses(values, self.problem.objectives), config.best)
        frozen = frozen_stages(run.layout.space, pause.held)
        base = run.folder / "devices" / self.device
        start = base / self.adapted[-1].folder if self.adapted else run.folder / "train"
        train = adaptation_training(run.recipe.train, config, number, shares, frozen, run.layout.space)
        plan = {"start": self.weights, "train": train.model_dump(mode="json", exclude=NOT_BINDING)}
        digest = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:8]
        folder = make_folder(base / ADAPTED_FOLDER / f"{number}-{digest}")

        def told(task: str, done: float, total: float, note: str = "") -> None:
            run.progress(f"adaptation {number} for {self.device}", done, total, note)

        try:
            supernet = train_supernet(
                run.recipe.supernet, train.model_copy(update={"start_from": str(start)}), run.recipe.data, run.splits,
                folder, told, teacher_from=run.folder / "train",
            )  # fmt: skip
        except TrainingError as error:
            raise TrainingError(
                f"adaptation {number} for {self.device}: {str(error).split(';', 1)[0]}; lower search.adaptation.lr"
            ) from None
        version = weights_version(folder / "supernet.safetensors")
        run.use_weights(version, supernet)
        for done, arch in enumerate(archs, 1):
            run.evaluated(arch, self.archive, run.n_searched, version)
            run.progress(f"evaluate again {number} for {self.device}", done, len(archs), f"weights {version}")
        renewed = run.values(self.problem, archs, self.archive, run.n_searched, version)
        self.adapted.append(
            Adapted(str(folder.relative_to(base)), version, len(archs), frozen, self._mean(values), self._mean(renewed))
        )
        return renewed

    def _mean(self, values: FloatArray) -> float | None:
        names = [o.name for o in self.problem.objectives]
        column = values[:, names.index("top1_percent")] if "top1_percent" in names else np.zeros(0)
        column = column[np.isfinite(column)]
        return round(float(column.mean()), 6) if len(column) else None

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

def frozen_stages(space: SearchSpace, held: Sequence[str]) -> tuple[int, ...]:
    """Return the stages of the network whose weights only held choices use, and 0 with them (the stem).

    Empty where nothing is held, or where held choices are not those of whole stages (as the edges of a cell, which all
    stages share).
    """
    numbers = {name: _stage(name) for stage in space.stages for name in stage}
    found = {numbers[name] for name in held}
    free = {number for name, number in numbers.items() if name not in held}
    if not found or None in found or found & free:
        return ()
    return tuple(sorted({0, *(n for n in found if n is not None)}))

def _stage(choice: str) -> int | None:
    """Number of the stage that a choice's name begins with; 0 for the stem."""
    found = re.match(r"stage(\d+)\.", choice)
    if found:
        return int(found[1])
    return 0 if choice.startswith("stem.") else None

def read_adapted(marker: Path) -> list[Adapted]:
    """Return the adaptations that a device's ``search.json`` lists; none where there is no such file."""
    if not marker.exists():
        return []
    listed: list[dict[str, Any]] = json.loads(marker.read_text(encoding="utf-8")).get("adapted", [])
    return [Adapted(**{**a, "frozen_stages": tuple(a["frozen_stages"])}) for a in listed]

def load_adapted(folder: Path, version: str) -> SuperNet:
    """Read the weights of an adaptation.

    Raises:
        ResumeError: they are not those that the search used.
    """
    path = folder / "supernet.safetensors"
    if weights_version(path) != version:
        raise ResumeError(f"{path} has other weights than the search used ({version}); restore it, or search again")
    return load_supernet(path)

def as_json(adapted: Sequence[Adapted]) -> list[dict[str, Any]]:
    """Return plain values."""
    return [asdict(a) for a in adapted]
