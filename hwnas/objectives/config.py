"""What may a recipe say about the evaluation of subnets?"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from hwnas.objectives.introspectability import IntrospectabilityConfig


class EvaluationConfig(BaseModel):
    """How subnets are evaluated during a search."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    calibration_images: int = Field(default=2000, ge=1)
    """Training images from which batch norm is recalibrated (all, if there are fewer)."""
    calibration_batch_size: int = Field(default=200, ge=2)
    validation_images: int | None = Field(default=None, ge=1)
    """Validation images used; None: all."""
    introspectability: IntrospectabilityConfig = IntrospectabilityConfig()
    proxy_images: int = Field(default=64, ge=2)
    """Training images of one batch for zero-cost proxies."""
