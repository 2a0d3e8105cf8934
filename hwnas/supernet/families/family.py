"""What is a family? Settings, and what makes a layout of them; found by name, so that others can add their own.

A family of one's own is an object such as the following, in any package. A recipe names it as
``family: my_package.networks:PLAIN``, or by a short name that the package announces as ``family.<name>`` in the
entry-point group ``hwnas``; `hwnas.testing.family.FamilyTests` tests it::

    class PlainConfig(FamilyConfig):
        family: str
        widths: tuple[int, ...]


    class PLAIN:
        config = PlainConfig

        @staticmethod
        def layout(config: PlainConfig) -> Layout: ...

What a block looks like stands in `hwnas.supernet.blocks.block`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_serializer,
    model_validator,
)
from pydantic_core import InitErrorDetails, PydanticCustomError

from hwnas.errors import CheckpointError, PluginError
from hwnas.registry import Registry
from hwnas.supernet.layout import Layout

Positive = Annotated[int, Field(gt=0, le=65_536)]
"""Channels or pixels: the widest published networks have 20,000 channels; above, a number is a slip that would take all
the memory."""

Layers = Annotated[int, Field(gt=0, le=128)]
"""In a stage: the deepest published networks have 50."""

KernelSize = Annotated[int, Field(gt=0, le=63)]
"""Pixels: the largest published kernels have 51."""


class FamilyConfig(BaseModel):
    """Settings that every family has; those of one family derive from it, and declare ``family: str``.

    Settings are frozen, hashable and JSON: checkpoints and bundles hold them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    added_later: ClassVar[tuple[str, ...]] = ("precisions",)
    """Fields that files do not name where they are empty."""

    if TYPE_CHECKING:
        # Each family declares this field itself: files list the settings in the order of their declaration, and
        # `family` has always stood between these settings and those of the family.
        family: str
        """The family's name in `FAMILIES`."""

    in_channels: Positive = 3
    """Of the images: 3 or 1."""
    classes: Annotated[int, Field(ge=2, le=1_000_000)]
    """That the network tells apart."""
    resolutions: Annotated[tuple[Annotated[int, Field(gt=0, le=8192)], ...], Field(max_length=256)]
    """Image edges in pixels, ascending."""
    dropout_percent: Annotated[int, Field(ge=0, lt=100)] = 10
    """Share of the features before the last layer that is left out in training."""
    bn_eps: Annotated[float, Field(gt=0, le=1)] = 1e-5
    """Constant that batch norms add to the variance."""
    precisions: tuple[Literal["fp32", "int8"], ...] = ()
    """Both ``fp32`` and ``int8``: the search chooses one of them for every arch, on devices that compute in both
    (``in_8_bits`` of their profile). Left out: every device's own. No weight depends on it, so a run with it can begin
    with a supernet that was trained without (``train.start_from``)."""

    @model_serializer(mode="wrap")
    def _without_what_is_left_out(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Files of supernets without them stay what they were before there were any.
        values: dict[str, Any] = handler(self)
        for name in self.added_later:
            if not values.get(name):
                values.pop(name, None)
        return values

    @model_validator(mode="after")
    def _check_precisions(self) -> FamilyConfig:
        if self.precisions not in ((), ("fp32", "int8")):
            raise ValueError(f"precisions are [fp32, int8], or left out; got {list(self.precisions)}")
        return self

    @model_validator(mode="after")
    def _check_resolutions(self) -> FamilyConfig:
        if not self.resolutions or sorted(set(self.resolutions)) != list(self.resolutions):
            raise ValueError(f"resolutions must be ascending and not empty, got {list(self.resolutions)}")
        return self

    @model_validator(mode="after")
    def _check_family(self) -> FamilyConfig:
        own = type(self)
        if "family" not in own.model_fields:
            raise ValueError(f"{own.__name__} lacks the field family; declare `family: str` in it")
        expected = FAMILIES.get(self.family).config
        if own is not expected:
            raise ValueError(f"family {self.family!r} has the settings {expected.__name__}, not {own.__name__}")
        return self


ConfigT = TypeVar("ConfigT", bound=FamilyConfig)


class Family(Protocol[ConfigT]):
    """A family of networks."""

    @property
    def config(self) -> type[ConfigT]:
        """Its settings: what stands under ``supernet`` in a recipe."""

    def layout(self, config: ConfigT) -> Layout:
        """Return the space and the slots for such settings: no weights, and the same for the same settings.

        The first block takes images of ``config.in_channels`` channels, the last one returns logits
        ``(B, config.classes)``. Two choices have a meaning beyond the family:

        - ``resolution``, which every space has: the edge of the images in pixels, ``config.resolutions``;
        - ``exit``, where a network can end at several places, each with a head: its options in the order of the
          places. Training can then use all of them in one pass (`hwnas.supernet.SuperNet.exits`).

        Options stand from the smallest to the largest: the arch of all last options is the largest network, which
        teaches the others.
        """


FAMILIES: Registry[Family[Any]] = Registry(
    "family",
    {
        "mbv3": "hwnas.supernet.families.mbv3:MBV3",
        "proxyless": "hwnas.supernet.families.proxyless:Proxyless",
        "resnet50d": "hwnas.supernet.families.resnet50d:ResNet50D",
        "ofav2": "hwnas.supernet.families.ofav2:OFAv2",
        "hurricane": "hwnas.supernet.families.hurricane:Hurricane",
        "nasbench201": "hwnas.supernet.families.nasbench201:NASBench201",
    },
    needs=("config", "layout"),
    page="hwnas.supernet.families.family",
)
"""Families by name."""


def settings_class(settings: Mapping[str, Any]) -> type[FamilyConfig]:
    """Return the class of plain settings, by their ``family``.

    Raises:
        PluginError: ``family`` is missing, is no text or names no family.
    """
    name = settings.get("family")
    if not isinstance(name, str):
        known = ", ".join(FAMILIES.names())
        raise PluginError(f"the settings of a supernet need a family, one of {known} or one of your own, got {name!r}")
    return FAMILIES.get(name).config


def _of_its_family(value: Any, inherited: ValidatorFunctionWrapHandler) -> Any:
    """Validate plain settings as those of their family; for pydantic, which keeps where each error stands."""
    if isinstance(value, FamilyConfig) or not isinstance(value, Mapping):
        return inherited(value)
    try:
        settings = settings_class(value)
    except PluginError as error:
        kind = PydanticCustomError("unknown_family", "{reason}", {"reason": str(error)})
        details = InitErrorDetails(type=kind, loc=("family",), input=value)
        raise ValidationError.from_exception_data("SupernetConfig", [details]) from None
    return settings.model_validate(value)


SupernetConfig = Annotated[SerializeAsAny[FamilyConfig], WrapValidator(_of_its_family)]
"""Settings of a supernet of any family, to stand in other settings: read by the value of ``family``, written whole."""


def read_settings(values: object, where: str) -> FamilyConfig:
    """Return the settings of a supernet that hwnas wrote beside weights.

    Args:
        values: plain values.
        where: the file, for messages.

    Raises:
        CheckpointError: a family that is not installed, or settings that it does not know; in one line.
    """
    try:
        return _SETTINGS.validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, ("supernet", *first["loc"])))
        raise CheckpointError(
            f"{where} has settings that are not known here, {place}: {first['msg']}; install the package or the "
            "version of hwnas that it was made with"
        ) from None


_SETTINGS: TypeAdapter[FamilyConfig] = TypeAdapter(SupernetConfig)
