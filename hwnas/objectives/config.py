"""What may a recipe say about the evaluation of subnets?"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class IntrospectabilityConfig(BaseModel):
    """How introspectability is computed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    reduce: Literal["none", "channel_mean"] = "none"
    """``none`` is the published score, from as many passes over the images as its profiles need at ImageNet sizes;
    ``channel_mean`` averages every feature map first, a departure that needs one pass and far less memory."""


class EvaluationConfig(BaseModel):
    """How subnets are evaluated during a search."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    calibration_images: int = Field(default=2000, ge=1, le=10**9)
    """Training images from which batch norm is recalibrated (all, if there are fewer)."""
    calibration_batch_size: int = Field(default=200, ge=2, le=65_536)
    """Images that batch norms see at a time."""
    validation_images: int | None = Field(default=None, ge=1, le=10**9)
    """Validation images used; None: all."""
    introspectability: IntrospectabilityConfig = IntrospectabilityConfig()
    proxy_images: int = Field(default=64, ge=2, le=65_536)
    """Training images of one batch for zero-cost proxies."""
