"""What may a recipe say about the evaluation of subnets?"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

from hwnas.export.quantization import QuantizationConfig


class IntrospectabilityConfig(BaseModel):
    """How introspectability is computed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    reduce: Literal["none", "channel_mean"] = "none"
    """``none`` is the published score, from as many passes over the images as its profiles need at ImageNet sizes;
    ``channel_mean`` averages every feature map first, a departure that needs one pass and far less memory."""
    pair_weights: str = Field(default="uniform", pattern=r"^(uniform|confusion|.*\.csv)$")
    """How much each pair of classes counts: ``uniform``; ``confusion``, pairs that the network itself confuses more; or
    a CSV file of similarities, as XNAS takes those of WordNet, see `hwnas.objectives.class_pairs`."""

    @model_serializer(mode="wrap")
    def _without_defaults_added_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Files and hashes of runs that do without it stay what they were before there was any.
        values: dict[str, Any] = handler(self)
        if values.get("pair_weights") == "uniform":
            values.pop("pair_weights")
        return values


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
    quantization: QuantizationConfig = QuantizationConfig()
    """How networks are brought to 8 bits, for devices whose profile says ``int8``."""
    proxy_images: int = Field(default=64, ge=2, le=65_536)
    """Training images for zero-cost proxies; those from gradients take them in batches of 32."""
    ntk_images: int = Field(default=72, ge=2, le=65_536)
    """Training images of the tangent kernel (`ntk_condition`); every one costs a backward pass of all of them."""
    ntk_initialisations: int = Field(default=3, ge=1, le=1000)
    """Draws of the weights over which the condition of the tangent kernel is averaged."""

    @model_serializer(mode="wrap")
    def _without_defaults_added_later(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Files and hashes of runs that do without these stay what they were before there were any.
        values: dict[str, Any] = handler(self)
        for name in ("ntk_images", "ntk_initialisations"):
            if name in values and values[name] == type(self).model_fields[name].default:
                values.pop(name)
        return values
