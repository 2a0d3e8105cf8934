"""What may a recipe say about the search?"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from hwnas.errors import RecipeError, SearchError
from hwnas.objectives import Objective
from hwnas.predictors import PREDICTORS
from hwnas.search.adapt import BEST
from hwnas.search.problem import Problem, Searcher
from hwnas.search.searchers import SEARCHERS, make_searcher
from hwnas.space import SearchSpace


class AdaptationConfig(BaseModel):
    """How a supernet is trained on during a search, with subnets like the best found so far.

    What is not named here (batch size, decay, smoothing, augmentation) is as in the recipe's training.

    Reference:
        Lu et al., 2021, NAT; Sarti, Lomurno and Matteucci, 2023, NATv2 (SGD with rate 0.0025 and 4 subnets a step,
        distillation from the largest net with weight 1; 5 epochs in each of 30 rounds).
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, str_max_length=10_000)

    rounds: int = Field(default=3, ge=1, le=1000)
    """Adaptations of a search; ``evaluations`` are split among the ``rounds + 1`` states of the weights."""
    epochs: float = Field(default=1.0, gt=0, le=1e5)
    """Passes over the training images in each round."""
    lr: float = Field(default=0.0025, gt=0, le=1e38)
    """Rate at the beginning of each round; it falls by half a cosine to 0."""
    subnets_per_step: int = Field(default=4, ge=1, le=1000)
    """Subnets whose gradients are added before one step of the optimiser."""
    distill_ratio: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of the soft labels of the trained supernet's largest net beside the label loss; 0: no teacher."""
    best: int = Field(default=BEST, ge=1, le=1_000_000)
    """Options are drawn as often as the better half of the evaluated archs, and at most so many, take them."""


class SearchConfig(BaseModel):
    """Settings of one search; a size that is not given is computed from ``evaluations``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False, str_max_length=10_000)

    strategy: Literal["auto", "supernet", "direct", "staged"] = "auto"
    """``supernet``: train one and search its subnets; ``direct``: choose archs without training and train each alone,
    which is better for few models; ``auto``: what the plan of the run estimates to be better (`hwnas plan`);
    ``staged``: for every device one of its own, trained and searched stage by stage (HURRICANE)."""
    operators_kept: int = Field(default=4, ge=1, le=10_000)
    """Operators that every layer keeps before a staged training; the paper keeps 4 to 5 of 32."""
    algorithm: str = "hurricane"
    """A searcher: a name of `hwnas.search.SEARCHERS`, or ``package.module:object``."""
    evaluations: int = Field(default=200, ge=1, le=1_000_000)
    """Distinct archs to evaluate."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Equal seeds give equal archs."""
    population: int | None = Field(default=None, ge=1, le=100_000)
    """Archs in a generation; None: computed from ``evaluations``."""
    validation_images: int | None = Field(default=None, ge=1, le=10**9)
    """Validation images of an evaluation while searching; None: all of ``evaluation.validation_images``. What could be
    on a front is evaluated on all of them afterwards."""
    predictor: str | None = None
    """A name of `hwnas.predictors.PREDICTORS` or ``package.module:object``, for searchers that have a predictor; None:
    the searcher's own choice."""
    selection: str | None = None
    """How a generation is chosen among candidates, for searchers that take this, such as ``natv2`` (``turns``, ``gaps``
    or ``improvement``); None: the searcher's own choice."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further settings of the searcher: keyword arguments, such as ``{"settings": {"optimism_deviations": 1.0}}``."""
    adaptation: AdaptationConfig | None = None
    """How the supernet is adapted to what the search finds; None: it stays as it was trained."""

    @model_serializer(mode="wrap")
    def _without_defaults_added_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Files and plans of runs that do without it stay what they were before there was any.
        values: dict[str, Any] = handler(self)
        if values.get("operators_kept") == type(self).model_fields["operators_kept"].default:
            values.pop("operators_kept")
        return values

    @field_validator("algorithm")
    @classmethod
    def _known_algorithm(cls, name: str) -> str:
        return SEARCHERS.check(name)

    @field_validator("predictor")
    @classmethod
    def _known_predictor(cls, name: str | None) -> str | None:
        return None if name is None else PREDICTORS.check(name)

    @model_validator(mode="after")
    def _fits(self) -> SearchConfig:
        if self.adaptation is not None and self.adaptation.rounds >= self.evaluations:
            raise ValueError(
                f"adaptation.rounds {self.adaptation.rounds} needs more evaluations than rounds, got {self.evaluations}"
            )
        if self.adaptation is not None and self.strategy == "staged":
            raise ValueError("strategy staged trains in its own order; set adaptation to null, or another strategy")
        if self.model_fields_set & {"algorithm", "population", "predictor", "selection", "options"}:
            self._made(_trial())  # a setting that the searcher does not take is found now, not after training
        return self

    def searcher(self, problem: Problem) -> Searcher:
        """Return a fresh searcher with these settings.

        Raises:
            RecipeError: a setting that the searcher does not take.
        """
        try:
            return self._made(problem)
        except SearchError as error:
            raise RecipeError(f"search: {error}") from None

    def _made(self, problem: Problem) -> Searcher:
        given = {"population": self.population, "predictor": self.predictor, "selection": self.selection}
        settings = {k: v for k, v in given.items() if v is not None} | self.options
        return make_searcher(self.algorithm, problem, evaluations=self.evaluations, seed=self.seed, **settings)


def _trial() -> Problem:
    """A problem so small that any searcher can be made for it at once."""
    value = Objective("value", "min", lambda archs: [float(a.int("choice")) for a in archs])
    return Problem(SearchSpace.of_choices({"choice": [0, 1]}), (value,))
