"""How does a supernet learn? Phase after phase, step after step, exactly continued after any interruption.

Everything a step does follows from (settings, seed, step number) and the state in the checkpoint: weights, the
optimiser's momenta and the teacher. There is no other state, so a killed training ends with the same weights.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwnas.data import DataConfig, Splits, TrainBatches
from hwnas.errors import ResumeError, TrainingError
from hwnas.files import make_folder, write_text
from hwnas.progress import Progress, silent
from hwnas.space import Arch
from hwnas.supernet import SuperNet, SupernetConfig, build_supernet
from hwnas.train.checkpoint import load_tensors, load_weights, save_supernet, save_tensors
from hwnas.train.phases import PhaseConfig, TrainConfig, phase_space, sample_step


@dataclass
class TrainState:
    """What a training carries from step to step."""

    supernet: SuperNet
    optimiser: torch.optim.SGD
    teacher: dict[str, Tensor]
    """State of the largest net at the end of the first phase; empty before it."""
    phase: int
    step: int
    """Next step inside the phase."""


def train_supernet(
    supernet_config: SupernetConfig,
    config: TrainConfig,
    data_config: DataConfig,
    splits: Splits,
    folder: Path,
    progress: Progress = silent,
) -> SuperNet:
    """Train a supernet, or continue where ``folder`` stopped, or read the finished one from it.

    Args:
        supernet_config: which network.
        config: phases and optimiser.
        data_config: augmentation, and part of what must not change between two starts.
        splits: only ``train`` is used.
        folder: receives ``checkpoint.safetensors`` while training, ``supernet.safetensors`` and ``metrics.jsonl``.
        progress: told after every step.

    Returns:
        The trained supernet in eval mode.

    Raises:
        ResumeError: the folder holds a training with other settings.
        TrainingError: the loss is not finite; the last good checkpoint stays.
        OutputError: the folder cannot be written.

    Reference:
        Cai et al., 2020, Once-for-All, section 3.3 and appendix (progressive shrinking); Yu et al., 2020, BigNAS
        (sandwich rule with in-place distillation).
    """
    make_folder(folder)
    settings = {
        "supernet": supernet_config.model_dump(mode="json"),
        "train": config.model_dump(mode="json", exclude={"checkpoint_every_s"}),
        "data": data_config.model_dump(mode="json", exclude={"path"}),
        "images": splits.sha256,
    }
    finished = folder / "supernet.safetensors"
    if finished.exists():
        return _load_finished(finished, settings)
    state = _start(supernet_config, config, settings, folder)
    spaces = [phase_space(p, state.supernet.space) for p in config.phases]  # all checked before the first step
    batches = TrainBatches(splits.train, *splits.mean_std, config.batch_size, data_config.augment, config.seed)
    steps = [max(1, round(p.epochs * batches.per_epoch)) for p in config.phases]
    saved_at = time.monotonic()
    log: list[dict[str, Any]] = []
    _trim_log(folder / "metrics.jsonl", sum(steps[: state.phase]) + state.step)
    while state.phase < len(config.phases):
        phase, n_steps = config.phases[state.phase], steps[state.phase]
        if state.step == 0 and phase.sort_channels:
            state.supernet.sort_channels()
            state.optimiser.state.clear()  # momenta belong to the old order
        step_before = sum(steps[: state.phase])
        teacher = _teacher(state, supernet_config) if phase.teacher == "fixed" else None
        state.supernet.train()
        while state.step < n_steps:
            rng = np.random.default_rng([config.seed, state.phase, state.step])
            archs = sample_step(phase, spaces[state.phase], rng)
            torch.manual_seed(int(rng.integers(2**62)))  # dropout draws from the global generator
            lr = learning_rate(phase, state.step, n_steps, batches.per_epoch)
            x, y = batches.batch(step_before + state.step, archs[0].int("resolution"))
            loss = train_step(state.supernet, state.optimiser, x, y, archs, phase, config, lr, teacher)
            if not math.isfinite(loss):
                raise TrainingError(
                    f"loss is {loss} in phase {phase.name!r}, step {state.step}, subnets "
                    f"{[a.key for a in archs]}; lower train.phases lr or set train.clip_grad_norm; "
                    f"the last good checkpoint is kept in {folder}"
                )
            state.step += 1
            log.append({"phase": phase.name, "step": step_before + state.step, "loss": round(loss, 4), "lr": lr})
            progress("train", step_before + state.step, sum(steps), f"{phase.name}, loss {loss:.3f}")
            if time.monotonic() - saved_at > config.checkpoint_every_s and state.step < n_steps:
                _save(state, settings, folder)
                _append(folder / "metrics.jsonl", log)
                saved_at = time.monotonic()
        if state.phase == 0:
            state.teacher = {k: v.detach().clone() for k, v in state.supernet.state_dict().items()}
        state.phase, state.step = state.phase + 1, 0
        _save(state, settings, folder)
        _append(folder / "metrics.jsonl", log)
        saved_at = time.monotonic()
    save_supernet(state.supernet, folder, settings)
    (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return state.supernet.eval()


def train_step(
    supernet: SuperNet,
    optimiser: torch.optim.SGD,
    x: Tensor,
    y: Tensor,
    archs: list[Arch],
    phase: PhaseConfig,
    config: TrainConfig,
    lr: float,
    teacher: SuperNet | None = None,
) -> float:
    """Add the gradients of every subnet of a step, then take one step of the optimiser.

    As in once-for-all the gradients are summed, not averaged, over the subnets of a step.

    Args:
        supernet: in train mode.
        optimiser: over its parameters.
        x: ``(B, C, H, W)`` images at the archs' resolution.
        y: ``(B,)`` labels.
        archs: the subnets; under the sandwich rule the first is the largest.
        phase: teacher and its weight.
        config: label smoothing and clipping.
        lr: learning rate of this step.
        teacher: the fixed teacher, where the phase has one.

    Returns:
        Mean loss over the subnets.
    """
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.zero_grad(set_to_none=True)
    soft: Tensor | None = None
    if teacher is not None and phase.distill_ratio:
        with torch.no_grad():
            soft = F.softmax(teacher(x, teacher.space.restrict({"resolution": [x.shape[2]]}).largest()), dim=1)
    total = 0.0
    for arch in archs:
        logits = supernet(x, arch)
        loss = F.cross_entropy(logits, y, label_smoothing=config.label_smoothing)
        if soft is not None:
            loss = loss + phase.distill_ratio * F.cross_entropy(logits, soft)
        elif phase.teacher == "inplace":
            soft = F.softmax(logits.detach(), dim=1)  # the first subnet of a sandwich is the largest
        loss.backward()
        total += float(loss.detach())
    if config.clip_grad_norm:
        nn.utils.clip_grad_norm_(supernet.parameters(), config.clip_grad_norm)
    if math.isfinite(total):
        optimiser.step()
    return total / len(archs)


def learning_rate(phase: PhaseConfig, step: int, n_steps: int, steps_per_epoch: int) -> float:
    """Return the rate of one step: linear warm-up, then half a cosine down to zero."""
    warmup = round(phase.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return phase.lr * (step + 1) / warmup
    return phase.lr * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, n_steps - warmup)))


def make_optimiser(net: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """Return SGD with Nesterov momentum; biases and batch norms are not decayed."""
    decayed = [p for p in net.parameters() if p.ndim > 1]
    plain = [p for p in net.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=1.0, momentum=config.momentum, nesterov=config.momentum > 0)


def _start(supernet_config: SupernetConfig, config: TrainConfig, settings: dict[str, Any], folder: Path) -> TrainState:
    supernet = build_supernet(supernet_config, config.seed)
    optimiser = make_optimiser(supernet, config)
    path = folder / "checkpoint.safetensors"
    if not path.exists():
        return TrainState(supernet, optimiser, {}, 0, 0)
    tensors, metadata = load_tensors(path)
    _check_settings(metadata.get("settings", {}), settings, path)
    load_weights(supernet, _under(tensors, "supernet."), str(path))
    names = dict(supernet.named_parameters())
    for name, momentum in _under(tensors, "momentum.").items():
        buffer = torch.empty_like(names[name])  # keeps the parameter's memory format
        optimiser.state[names[name]]["momentum_buffer"] = buffer.copy_(momentum)
    return TrainState(supernet, optimiser, _under(tensors, "teacher."), metadata["phase"], metadata["step"])


def _save(state: TrainState, settings: dict[str, Any], folder: Path) -> None:
    tensors = {f"supernet.{k}": v for k, v in state.supernet.state_dict().items()}
    for name, p in state.supernet.named_parameters():
        momentum = state.optimiser.state.get(p, {}).get("momentum_buffer")
        if momentum is not None:
            tensors[f"momentum.{name}"] = momentum
    tensors |= {f"teacher.{k}": v for k, v in state.teacher.items()}
    metadata = {"settings": settings, "phase": state.phase, "step": state.step}
    save_tensors(folder / "checkpoint.safetensors", tensors, metadata)


def _append(path: Path, log: list[dict[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in log)
    log.clear()


def _trim_log(path: Path, step: int) -> None:
    """Drop the lines that a killed training logged after its last checkpoint: they will be computed again."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            values = json.loads(line)
        except json.JSONDecodeError:
            break  # cut short by the kill
        if values["step"] <= step:
            kept.append(line)
    write_text(path, "".join(line + "\n" for line in kept))


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def _teacher(state: TrainState, config: SupernetConfig) -> SuperNet:
    teacher = build_supernet(config)
    load_weights(teacher, state.teacher or state.supernet.state_dict(), "teacher")
    return teacher.eval()


def _load_finished(path: Path, settings: dict[str, Any]) -> SuperNet:
    from hwnas.train.checkpoint import load_supernet

    _, metadata = load_tensors(path)
    _check_settings(metadata.get("info", {}), settings, path)
    return load_supernet(path)


def _check_settings(found: dict[str, Any], expected: dict[str, Any], path: Path) -> None:
    found, expected = json.loads(json.dumps(found)), json.loads(json.dumps(expected))
    if found == expected:
        return
    differing = [k for k in expected if found.get(k) != expected[k]]
    raise ResumeError(
        f"{path} was made with other settings of {', '.join(differing)}; "
        "use another --out, or go back to the recipe it was made with"
    )
