"""What does a user get for one model? A folder with everything needed to run, check, rebuild and describe it."""

from __future__ import annotations

import glob
import math
import shutil
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hwnas.arguments import checked_arguments
from hwnas.errors import CheckpointError, OutputError, SpaceError, UnreadableError
from hwnas.export.card import FORMATS, model_card
from hwnas.export.forms import FORMS, write_forms
from hwnas.export.half import halve_onnx
from hwnas.export.int8_network import Int8Network
from hwnas.export.onnx_check import verify_int8, verify_onnx
from hwnas.export.onnx_file import to_onnx
from hwnas.export.quantize import to_int8_onnx
from hwnas.files import PARTIAL, make_folder, write_json, write_text
from hwnas.reading import as_type, checked_sums, inside, made_of, read_object, sha256_of
from hwnas.space import Arch
from hwnas.supernet import SupernetConfig, make_layout, read_settings
from hwnas.train.checkpoint import load_tensors, load_weights, save_tensors, shapes_of

INT8_FILE = FORMATS["int8"]
FP16_FILE = FORMATS["fp16"]
CARD_FILE = "MODEL_CARD.md"
RUN_FILE = "run_model.py"
"""Classifies images with the model, and needs onnxruntime, numpy and pillow only."""
FILES = frozenset({
    "model.onnx", INT8_FILE, FP16_FILE, "weights.safetensors", "arch.json", "metrics.json", CARD_FILE, RUN_FILE,
    *(name for form in FORMS.values() for name in form.files),
})  # fmt: skip
"""What a bundle consists of."""

EXPORT_AGAIN = "write the bundle again with `hwnas export RUN`"


@dataclass(frozen=True)
class About:
    """What is to be said of a model beside what it is and how good it is."""

    test_scores: Mapping[str, str] = field(default_factory=dict)
    """Names of the numbers that are test scores: ``own`` of the bundle's own number format, others by theirs."""
    licences: Mapping[str, str] = field(default_factory=dict)
    """Of the ``weights``, of what they ``start`` with, and of the ``data``; what is not there is unknown."""
    device_commands: Sequence[str] = ()
    """Command lines of the vendor's tools that take the exported files on to the device."""


@dataclass(frozen=True)
class Bundle:
    """A model folder: ``model.onnx``, weights, ``arch.json``, ``metrics.json``, ``MODEL_CARD.md``, ``run_model.py``."""

    folder: Path

    @property
    def arch_json(self) -> dict[str, Any]:
        """The architecture, the supernet's settings, classes, and mean and standard deviation of the input."""
        return _read_json(self.folder / "arch.json")

    @property
    def is_whole(self) -> bool:
        """Whether every file is there, as it was written."""
        try:
            self.check()
        except CheckpointError:
            return False
        return True

    def check(self) -> None:
        """Look whether every file is as it was written.

        Raises:
            CheckpointError: one is not, or is not there.
        """
        path = self.folder / "arch.json"
        sums, sizes = self.arch_json.get("files"), self.arch_json.get("bytes")
        self.metrics  # noqa: B018 (it must be readable, too)
        try:
            if sums is None:  # bundles of older versions state sizes only
                known = as_type(dict[str, int], sizes or {}, str(path))
                paths = {name: inside(self.folder, name) for name in known}
                wrong = [n for n, p in paths.items() if not p.is_file() or p.stat().st_size != known[n]]
            else:
                wrong = checked_sums(self.folder, as_type(dict[str, str], sums, str(path)))
        except UnreadableError as error:
            raise CheckpointError(f"{path} is damaged: {error.reason}; {EXPORT_AGAIN}") from None
        if not (sums or sizes) or wrong:
            what = ", ".join(wrong) or "every file"
            raise CheckpointError(f"{self.folder} is damaged: {what} is not as it was written; {EXPORT_AGAIN}")

    @property
    def metrics(self) -> dict[str, Any]:
        """Every number known of the model, with its unit in the name."""
        return _read_json(self.folder / "metrics.json")

    def add_metrics(self, numbers: Mapping[str, Any]) -> None:
        """Add numbers, such as measured latencies, and write the model card again.

        Raises:
            OutputError: the folder cannot be written.
        """
        metrics = {**self.metrics, **numbers}
        write_json(self.folder / "metrics.json", metrics)
        described = self.arch_json
        write_text(self.folder / CARD_FILE, model_card(described, metrics))
        sums = described.get("files")
        if isinstance(sums, dict):  # bundles of older versions have none
            known = {**sums, CARD_FILE: sha256_of(self.folder / CARD_FILE)}
            write_json(self.folder / "arch.json", {**described, "files": known})


def write_bundle(
    folder: Path,
    subnet: nn.Sequential,
    arch: Arch,
    supernet_config: SupernetConfig,
    classes: Sequence[str],
    mean_std: tuple[Sequence[float], Sequence[float]],
    metrics: Mapping[str, Any],
    parity_inputs: Tensor,
    int8: Int8Network | None = None,
    only_int8: bool = False,
    fp16: bool = False,
    decoded_px: int | None = None,
    forms: Collection[str] = (),
    pixels: Tensor | None = None,
    about: About | None = None,
    calibration: Tensor | None = None,
) -> Bundle:
    """Write the folder of one model; it appears whole or not at all.

    Args:
        folder: where; an existing bundle there is replaced.
        subnet: the calibrated network in eval mode.
        arch: what it is.
        supernet_config: settings of its family, from which it can be built again.
        classes: names in the order of the logits.
        mean_std: of the input, per channel, for pixel values in 0..1.
        metrics: numbers to keep; ``onnx_parity`` is added.
        parity_inputs: ``(N, C, H, W)`` real images on which the ONNX file must agree with ``subnet``.
        int8: the network in 8 bits; given, ``model.int8.onnx`` is written too.
        only_int8: that file is ``model.onnx``, and there is no other: for devices that compute in 8 bits.
        fp16: whether ``model.fp16.onnx`` is written too.
        decoded_px: edge to which image files were decoded for training, before they were brought to the resolution of
            the network; None: that resolution.
        forms: further forms of the files, of `hwnas.export.forms.FORMS`.
        pixels: ``(N, C, decoded_px, decoded_px)`` uint8: the images of ``parity_inputs``; needed for form ``image``.
        about: what its card says besides.
        calibration: ``(N, C, H, W)`` training images; given, form ``litert`` has a file in integers, too.

    Raises:
        RecipeError: a form needs a package that is not installed.
        ExportError: a file does not compute what the network does.
        OutputError: the folder cannot be written, or holds something else.
    """
    check_replaceable(folder)
    make_folder(folder.parent)
    remove_unfinished(folder)
    layout = make_layout(supernet_config)
    in_channels, resolution, _ = layout.input_shape(arch)
    mean, std = (list(map(float, v)) for v in mean_std)
    description = {
        "format": 1,
        "key": arch.key,
        "choices": arch.as_dict(),
        "blocks": [{"slot": name, "kind": spec.kind, **spec.columns} for name, spec in layout.blocks(arch)],
        "supernet": supernet_config.model_dump(mode="json"),
        "classes": list(classes),
        "input": {"shape": [in_channels, resolution, resolution], "mean": mean, "std": std, "range": [0.0, 1.0],
                  "decoded_px": decoded_px or resolution},
        **asdict(about or About()),
    }  # fmt: skip
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=PARTIAL, dir=folder.parent))
    except OSError as error:
        raise OutputError(f"cannot write in {folder.parent}: {error.strerror}; choose another folder") from None
    try:
        temporary.chmod(0o755)
        # JSON has no NaN; what is not known is null.
        finite = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in metrics.items()}
        plain = {k: v for k, v in finite.items() if not isinstance(v, Mapping)}  # what is said of layers is long
        meta = {"arch": arch.as_dict(), "classes": list(classes), "mean": mean, "std": std, "metrics": plain}
        checked: dict[str, Any] = {}
        if int8 is None or not only_int8:
            to_onnx(subnet, in_channels, resolution, temporary / "model.onnx", meta)
            checked["onnx_parity"] = verify_onnx(temporary / "model.onnx", subnet, parity_inputs)
        if int8 is not None:
            path = temporary / ("model.onnx" if only_int8 else INT8_FILE)
            to_int8_onnx(int8.quantization, in_channels, resolution, path, meta)
            checked["onnx_parity" if only_int8 else "onnx_parity_int8"] = verify_int8(path, int8, parity_inputs)
            in_float = ", ".join(f"{n} {op}" for op, n in int8.quantization.float_operators.items())
            checked["int8_computed_in_float"] = in_float or "nothing"
        if fp16:
            halve_onnx(temporary / "model.onnx", temporary / FP16_FILE)
        checked |= write_forms(temporary, forms, subnet, description["input"], parity_inputs, pixels, calibration)
        write_text(temporary / RUN_FILE, _run_script())
        all_metrics = {**finite, **checked}
        save_tensors(temporary / "weights.safetensors", subnet.state_dict(), {"arch": arch.as_dict()})
        sizes = {p.name: p.stat().st_size for p in sorted(temporary.iterdir())}
        write_text(temporary / CARD_FILE, model_card({**description, "bytes": sizes}, all_metrics))
        # Not metrics.json, to which measured latencies are added; it has its own seal.
        sums = {p.name: sha256_of(p) for p in sorted(temporary.iterdir())}
        write_json(temporary / "metrics.json", all_metrics)
        write_json(temporary / "arch.json", {**description, "bytes": sizes, "files": sums})
        _put_in_place(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Bundle(folder)


def _run_script() -> str:
    return files("hwnas.export").joinpath("run_model.py.txt").read_text(encoding="utf-8")


def check_replaceable(folder: Path) -> None:
    """Raise where a bundle would take the place of something that is none.

    Raises:
        OutputError: there is a file, or a folder that holds other things and no ``arch.json``.
    """
    if (folder / "arch.json").is_file():
        return
    if folder.is_dir():
        if other := sorted({p.name for p in folder.iterdir()} - FILES):
            raise OutputError(
                f"{folder} holds {', '.join(other[:3])}, which a bundle would replace; give a new or empty folder"
            )
    elif folder.exists():
        raise OutputError(f"{folder} is a file; give a new or empty folder")


def remove_unfinished(folder: Path) -> None:
    """Remove what a killed writer of this bundle left beside it."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.*{PARTIAL}"):
        shutil.rmtree(left, ignore_errors=True)


def _put_in_place(temporary: Path, folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}; choose another folder") from None


@checked_arguments
def load_model(bundle: str | Path) -> nn.Sequential:
    """Rebuild the network of a bundle with its weights, in eval mode.

    Args:
        bundle: a model folder, such as ``runs/x/devices/local-cpu/models/KEY``.

    Raises:
        CheckpointError: the folder is not a bundle, or is damaged.
    """
    folder = Path(bundle)
    path, weights = folder / "arch.json", folder / "weights.safetensors"
    description = _read_json(path)
    try:
        with made_of(path):
            layout = make_layout(read_settings(description["supernet"], str(path)))
            arch = layout.space.arch(description["choices"])
            with torch.device("meta"):  # no weight takes memory before it is sure that the file has it
                shapes = shapes_of(layout.build_subnet(arch, fresh_weights=False))
    except (UnreadableError, SpaceError) as error:
        reason = error.reason if isinstance(error, UnreadableError) else str(error)
        raise CheckpointError(f"{path} is damaged: {reason}; {EXPORT_AGAIN}") from None
    tensors, _ = load_tensors(weights, lambda _: shapes)
    subnet = layout.build_subnet(arch, fresh_weights=False)
    load_weights(subnet, tensors, str(weights))
    return subnet.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise CheckpointError(f"{path} does not exist; give a model folder that `hwnas export` wrote")
    try:
        return read_object(path)
    except UnreadableError as error:
        raise CheckpointError(f"{path} is damaged: {error.reason}; {EXPORT_AGAIN}") from None
