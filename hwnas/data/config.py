"""What may a recipe say about its images?"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer

from hwnas.data.augment import AugmentConfig
from hwnas.data.source import SourceConfig
from hwnas.data.sources import SOURCES

Percent = Annotated[float, Field(gt=0, lt=100)]


class DataConfig(SourceConfig):
    """Where the images come from and how they are split."""

    validation_percent: Percent = 15.0
    """Share of the training images held out for the search, the same share of every class."""
    test_percent: Percent = 20.0
    """Share held out for the test split where the source has none."""
    max_images: Annotated[int, Field(gt=0, le=10**9)] | None = None
    """Use only this many images of every split, in their order; None: all."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of the splits."""
    broken_images: Literal["stop", "skip"] = "stop"
    """What happens where an image cannot be read: ``stop`` says which, ``skip`` leaves it out and counts it."""
    memory_mib: Annotated[int, Field(ge=0, le=2**20)] = 256
    """Splits that take up to so many MiB, decoded, are decoded once and kept in memory; images of larger ones are
    decoded whenever they are needed, or read from ``cache``, and their mean and deviation are those of a sample."""
    workers: Annotated[int, Field(ge=0, le=256)] | None = None
    """Processes that decode images ahead; 0: none; None: one less than there are cores, up to 8."""
    augment: AugmentConfig = AugmentConfig()

    @field_validator("source")
    @classmethod
    def _known(cls, name: str) -> str:
        return SOURCES.check(name)

    @model_serializer(mode="wrap")
    def _without_empty_settings(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Files and hashes of runs that need none of these stay what they were before there were any.
        values: dict[str, Any] = handler(self)
        for name in ("options", "label_column", "image_column"):
            if not values.get(name):
                values.pop(name, None)
        for name in ("broken_images", "memory_mib", "workers"):
            if values.get(name) == type(self).model_fields[name].default:
                values.pop(name, None)
        return values


NOT_BINDING_DATA = {"path", "cache", "workers"}
"""Settings that may change between two starts: the images stay what they are, and so does what is known of them."""
