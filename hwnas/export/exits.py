"""How does a network with several exits leave? As one ONNX file with all of them, or as a cascade of files."""

from __future__ import annotations

import copy
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from hwnas.arguments import checked_arguments
from hwnas.export.graph import trace
from hwnas.export.onnx_file import to_onnx
from hwnas.export.onnx_nodes import build_onnx
from hwnas.files import make_folder, write_atomically
from hwnas.supernet.exits import ExitNetwork


class _AllExits(nn.Module):
    def __init__(self, network: ExitNetwork) -> None:
        super().__init__()
        self.network = network
        self.train(network.training)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network.exits(x))


class _Joined(nn.Module):
    """The weighted sum of the exits' logits; the weights stand in the classifiers, so that it is a plain sum."""

    def __init__(self, network: ExitNetwork) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        heads = [head for _, head in self.network.parts() if head is not None]
        for head, weight in zip(heads, network.output_weights, strict=True):
            classifier = [m for m in head.modules() if isinstance(m, nn.Linear)][-1]
            with torch.no_grad():
                classifier.weight.mul_(weight)
                classifier.bias.mul_(weight)
        self.train(network.training)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.network.exits(x)
        for logits in others:
            first = first + logits
        return first


class _Part(nn.Module):
    """Segments up to the next exit, and its head."""

    def __init__(self, segments: list[nn.Module], head: nn.Module, last: bool) -> None:
        super().__init__()
        self.segments, self.head, self.last = nn.Sequential(*segments), head, last
        self.train(head.training)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features: Tensor = self.segments(x)
        logits: Tensor = self.head(features)
        return logits if self.last else (logits, features)


@checked_arguments
def export_exits(network: ExitNetwork, in_channels: int, resolution: int, path: Path) -> None:
    """Write one ONNX file that gives the logits of every exit.

    Input ``input`` ``(batch, in_channels, resolution, resolution)``; outputs ``exit1``, ... ``(batch, classes)``, by
    the exits' names. Who runs it decides which of them to believe; a runtime computes all.

    Raises:
        ExportError: a layer that the exporter does not know.
        OutputError: the file cannot be written.
    """
    names = [f"exit{name}" for name in network.names.values()]
    _save(build_onnx(trace(_AllExits(network)), in_channels, resolution, outputs=names), path)


@checked_arguments
def export_joint_exits(network: ExitNetwork, in_channels: int, resolution: int, path: Path) -> None:
    """Write one ONNX file that gives what all exits answer together: ``logits``, the weighted sum of theirs.

    Raises:
        ExportError: a layer that the exporter does not know.
        OutputError: the file cannot be written.
    """
    to_onnx(_Joined(network), in_channels, resolution, path)


@checked_arguments
def export_cascade(network: ExitNetwork, in_channels: int, resolution: int, folder: Path) -> list[Path]:
    """Write one ONNX file for each exit, to be run one after the other until an answer is sure enough.

    ``part1.onnx`` takes ``input``, the images; each later one the ``features`` of the one before. All give ``logits``
    ``(batch, classes)``, all but the last ``features`` too. `hwnas.finetune.exits` finds the thresholds.

    Returns:
        The files, in order.

    Raises:
        ExportError: a layer that the exporter does not know.
        OutputError: the folder cannot be written.
    """
    make_folder(folder)
    paths: list[Path] = []
    waiting: list[nn.Module] = []
    channels, size = in_channels, resolution
    for number, (segment, head) in enumerate(network.parts()):
        waiting.append(segment)
        if head is None:
            continue
        last = number == len(network.segments) - 1
        graph = trace(_Part(waiting, head, last))
        names = ["logits"] if last else ["logits", "features"]
        paths.append(folder / f"part{len(paths) + 1}.onnx")
        _save(build_onnx(graph, channels, size, outputs=names), paths[-1])
        if not last:
            channels, size = graph.shapes(channels, size)[graph.outputs[1]]
        waiting = []
    return paths


def _save(model: onnx.ModelProto, path: Path) -> None:
    onnx.checker.check_model(model, full_check=True)
    write_atomically(path, lambda p: onnx.save(model, str(p), format="protobuf"))
