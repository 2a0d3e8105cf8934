"""What was asked for a device, and which searches were done for it?

``search.yaml`` holds the settings that are in force for a device: limits, objectives and the search belong to the
device, not to the run. ``search.json`` lists every search that came to its end, and says from which of them the front
was chosen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field

from hwnas.errors import ResumeError, UnreadableError
from hwnas.files import SEAL, seal_of, write_json, write_text
from hwnas.finetune import FinishConfig
from hwnas.latency.number_format import evaluated_precision
from hwnas.latency.table import Device
from hwnas.reading import as_type, inside, read_json, read_yaml
from hwnas.runs.folder import DeviceFolder
from hwnas.search.config import SearchConfig
from hwnas.search.quality import PredictorQuality

STAGE = "stage"
"""In the settings of a search: which stage of a staged training it belongs to."""


class DeviceSearch(BaseModel):
    """What is searched for one device."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, str_max_length=10_000)

    device: str
    """As it was given: name of a shipped device, or a folder."""
    objectives: tuple[str, ...] = Field(min_length=1)
    constraints: tuple[str, ...] = ()
    """Limits of this device, such as ``latency_ms<=5``."""
    front_size: int = Field(default=16, ge=1, le=10_000)
    """Models on its front, at most."""
    search: SearchConfig = SearchConfig()
    finish: FinishConfig = FinishConfig(models=0)

    def identity(self, device: Device, weights: str) -> dict[str, Any]:
        """Return what tells one search from another; equal identities find the same archs.

        Defaults are left out, so that settings which later versions add do not make another search of it.
        """
        profile, other = device.profile, device.in_8_bits
        precision = evaluated_precision(profile.precision)
        return {
            **({} if precision == "fp32" else {"evaluated_in": precision}),
            **({} if other is None else {IN_8_BITS: other.profile.model_dump(mode="json", exclude_defaults=True)}),
            "search": self.search.model_dump(mode="json", exclude_defaults=True, exclude={"strategy"}),
            "objectives": list(self.objectives),
            "constraints": list(self.constraints),
            "device": profile.model_dump(mode="json", exclude_defaults=True),
            "weights": weights,
        }


@dataclass(frozen=True)
class Adapted:
    """One adaptation of the supernet to a device."""

    folder: str
    """Below the device's folder; it holds ``supernet.safetensors`` and ``metrics.jsonl``."""
    weights_version: str
    evaluations: int
    """Archs that had been evaluated."""
    frozen_stages: tuple[int, ...]
    """Whose weights did not learn; 0 is what stands before the first."""
    score_before: float | None
    """Mean validation score of these archs, with the weights before; None: it is no objective."""
    score_after: float | None
    """The same archs with the adapted weights."""


@dataclass(frozen=True)
class SearchRecord:
    """One search that came to its end."""

    search: str
    """Its name in the archive."""
    settings: Mapping[str, Any]
    """See `DeviceSearch.identity`."""
    evaluations: int
    known: int
    """Archs that were evaluated before it began."""
    ended: str
    message: str
    duration_s: float
    predictor: Mapping[str, PredictorQuality] = field(default_factory=dict)
    """By objective: how well the search could predict, judged at its end."""
    repeated: int = 0
    """Evaluations that adaptations of the supernet repeated."""
    adapted: tuple[Adapted, ...] = ()
    not_learnt: str = ""
    """See `hwnas.runs.learnt`; empty: the networks know something, or the record is of an older version."""
    longer: float = 1.0
    """Times ``finish.epochs`` that its models are trained; see `hwnas.runs.direct.DirectChoice`."""


@dataclass(frozen=True)
class History:
    """The searches of one device."""

    searches: tuple[SearchRecord, ...] = ()
    front: Mapping[str, Any] | None = None
    """From what the front was chosen; see `front_identity`."""
    front_sha256: str = ""
    """Of ``front.csv`` as it was written; empty: by an older version, or not yet."""
    front_models: tuple[tuple[str, str], ...] = ()
    """Key and weights of the models on it, so that a damaged file is written again as it was: what has become known
    since, such as models that were finished for other devices, is for the next search to choose from."""

    def name_of(self, device: str, identity: Mapping[str, Any]) -> str:
        """Return the name of the search with these settings: that of one that was done, else a new one.

        What a profile says in words, such as its notes, makes no other search: who reads them again later must not
        search again.
        """
        what = _settings_of(identity)
        alike = (record.search for record in self.searches if _settings_of(record.settings) == what)
        return next(alike, None) or f"{device}/{hashlib.sha256(what.encode()).hexdigest()[:12]}"

    def done(self, search: str) -> bool:
        """Say whether a search came to its end."""
        return any(record.search == search for record in self.searches)

    @property
    def last(self) -> SearchRecord | None:
        """The search that ended last."""
        return self.searches[-1] if self.searches else None

    @property
    def adapted(self) -> tuple[Adapted, ...]:
        """How the last search adapted the supernet; empty where it did not."""
        return self.searches[-1].adapted if self.searches else ()

    def front_identity(self, settings: DeviceSearch, search: str, finetuned: Sequence[str]) -> dict[str, Any]:
        """Return what a front chosen now depends on: what counts, the searches of the device and fine-tuned models."""
        finish = {"finish": settings.finish.model_dump(mode="json")} if settings.finish.models else {}
        return {
            "search": search,
            "objectives": list(settings.objectives), "constraints": list(settings.constraints),
            "front_size": settings.front_size, "searches": [record.search for record in self.searches], **finish,
            **({"finetuned": sorted(finetuned)} if finetuned else {}),
        }  # fmt: skip

    def with_search(self, record: SearchRecord) -> History:
        """Return the history after one more search."""
        return replace(self, searches=(*self.searches, record))

    def with_front(self, settings: DeviceSearch, search: str, finetuned: Sequence[str]) -> History:
        """Return the history after the front was chosen."""
        return replace(self, front=self.front_identity(settings, search, finetuned))


WORDS = (
    "title",
    "source",
    "licence",
    "notes",
    "error",
    "family_error",
    "interpolation",
    "device_commands",
    "in_8_bits",
)
"""Fields of a profile that change no latency: what is said of it, and how far it is from measurements."""

IN_8_BITS = "device_in_8_bits"
"""In the settings of a search: the profile of the device in 8 bits, where the search chooses the precision."""


def _settings_of(identity: Mapping[str, Any]) -> str:
    """Return an identity as text, without what its profile says in words."""
    profiles = {name: _without_words(identity.get(name)) for name in ("device", IN_8_BITS) if name in identity}
    return json.dumps({**identity, **profiles}, sort_keys=True)


def _without_words(values: Any) -> Any:
    if isinstance(values, Mapping):
        return {k: _without_words(v) for k, v in values.items() if k not in WORDS}
    return values


def read_settings(folder: DeviceFolder) -> DeviceSearch | None:
    """Return the settings in force for a device; None where it was never searched.

    Raises:
        ResumeError: the file is damaged.
    """
    if not folder.settings.exists():
        return None
    try:
        return as_type(DeviceSearch, read_yaml(folder.settings), str(folder.settings))
    except UnreadableError as error:
        raise ResumeError(
            f"{folder.settings} is damaged: {error.reason}; remove it and search the device again"
        ) from None


def write_settings(folder: DeviceFolder, settings: DeviceSearch) -> None:
    """Write the settings in force for a device, with their seal."""
    values = settings.model_dump(mode="json")
    values = {SEAL: seal_of(values), **values}  # first: YAML that is cut short at the end of a line is YAML, too
    write_text(folder.settings, yaml.safe_dump(values, sort_keys=False, width=110, allow_unicode=True))


def read_history(folder: DeviceFolder) -> History:
    """Return the searches of a device; none where there is no file.

    Raises:
        ResumeError: the file is damaged.
    """
    if not folder.history.exists():
        return History()
    try:
        found = as_type(History, read_json(folder.history), str(folder.history))
        for record in found.searches:
            for one in record.adapted:
                inside(folder.root, one.folder)
    except UnreadableError as error:
        raise ResumeError(
            f"{folder.history} is damaged: {error.reason}; remove it and search the device again (the archive answers)"
        ) from None
    return found


def write_history(folder: DeviceFolder, history: History) -> None:
    """Write the searches of a device."""
    write_json(folder.history, asdict(history))
