"""What may a recipe say about the evaluation of subnets?"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from hwnas.export.quantization import QuantizationConfig


class IntrospectabilityConfig(BaseModel):
    """How introspectability is computed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    reduce: Literal["none", "channel_mean"] = "none"
    """``none`` is the published score; ``channel_mean`` averages every feature map first, a departure that needs far
    less memory at ImageNet sizes."""


class EvaluationConfig(BaseModel):
    """How subnets are evaluated during a search."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    calibration_images: int = Field(default=2000, ge=1, le=10**9)
    """Training images from which batch norm is recalibrated (all, if there are fewer)."""
    calibration_batch_size: int = Field(default=200, ge=2, le=65_536)
    validation_images: int | None = Field(default=None, ge=1, le=10**9)
    """Validation images used; None: all."""
    introspectability: IntrospectabilityConfig = IntrospectabilityConfig()
    quantization: QuantizationConfig = QuantizationConfig()
    """How networks are brought to 8 bits, for devices whose profile says ``int8``."""
    proxy_images: int = Field(default=64, ge=2, le=65_536)
    """Training images of one batch for zero-cost proxies."""
