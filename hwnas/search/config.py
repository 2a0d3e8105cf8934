"""What may a recipe say about the search?"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from hwnas.errors import RecipeError
from hwnas.predictors import PREDICTORS
from hwnas.search.problem import Problem, Searcher
from hwnas.search.searchers import SEARCHERS, make_searcher


class SearchConfig(BaseModel):
    """Settings of one search; everything that is left out is sized by ``evaluations``."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    algorithm: str = "hurricane"
    """One of `SEARCHERS`."""
    evaluations: int = Field(default=200, ge=1)
    """Distinct archs to evaluate."""
    seed: int = Field(default=0, ge=0)
    """Equal seeds give equal archs."""
    population: int | None = Field(default=None, ge=1)
    """Archs in a generation; None: sized by ``evaluations``."""
    validation_images: int | None = Field(default=None, ge=1)
    """Validation images of an evaluation while searching; None: all of ``evaluation.validation_images``. What could be
    on a front is evaluated on all of them afterwards."""
    predictor: str | None = None
    """One of `PREDICTORS`, for algorithms that have one; None: the algorithm's own choice."""

    @field_validator("algorithm")
    @classmethod
    def _known_algorithm(cls, name: str) -> str:
        if name not in SEARCHERS:
            raise ValueError(f"{name!r} is unknown; choose one of {sorted(SEARCHERS)}")
        return name

    @field_validator("predictor")
    @classmethod
    def _known_predictor(cls, name: str | None) -> str | None:
        if name is not None and name not in PREDICTORS:
            raise ValueError(f"{name!r} is unknown; choose one of {sorted(PREDICTORS)}")
        return name

    def searcher(self, problem: Problem) -> Searcher:
        """Return a fresh searcher with these settings.

        Raises:
            RecipeError: a setting that the algorithm does not have.
        """
        given = {"population": self.population, "predictor": self.predictor}
        settings = {k: v for k, v in given.items() if v is not None}
        try:
            return make_searcher(self.algorithm, problem, evaluations=self.evaluations, seed=self.seed, **settings)
        except RecipeError as error:
            raise RecipeError(f"search: {error}") from None
