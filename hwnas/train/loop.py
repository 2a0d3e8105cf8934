"""How does a supernet learn? Phase after phase, step after step, exactly continued after any interruption.

`TrainState` is what goes from step to step, `train_step` is one step; here is what happens around it.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from hwnas.data import NOT_BINDING_DATA, DataConfig, ImageStream, Splits, TrainBatches, as_input
from hwnas.data.left_out import broken_images, told
from hwnas.data.random_state import seeded
from hwnas.errors import CheckpointError, RecipeError, TrainingError
from hwnas.files import make_folder
from hwnas.progress import Progress, silent
from hwnas.reading.memory import freed_memory_kept
from hwnas.supernet import SuperNet, SupernetConfig, build_supernet
from hwnas.supernet.weights.other_classes import inherited_state
from hwnas.task import DEFAULT_TASK, HasAlphaDivergence, Task
from hwnas.train.checkpoint import load_supernet, load_weights, read_metadata, save_supernet, weights_version
from hwnas.train.device import chosen_device
from hwnas.train.last_good import remove_checkpoint
from hwnas.train.mixing import draw_mix
from hwnas.train.monitor import CALIBRATION_IMAGES, Monitor, calibration_batch
from hwnas.train.phases import PhaseConfig, TrainConfig, phase_space, sample_step
from hwnas.train.ranks import Ranks, joined_ranks, synchronise_batch_norm
from hwnas.train.start import start_version, starting_state
from hwnas.train.state import NOT_BINDING, TrainState, check_settings, copied
from hwnas.train.step import learning_rate, make_optimiser, train_step
from hwnas.train.teacher import calibrate_largest


def train_supernet(
    supernet_config: SupernetConfig,
    config: TrainConfig,
    data_config: DataConfig,
    splits: Splits,
    folder: Path,
    progress: Progress = silent,
    after_phase: Callable[[PhaseConfig, SuperNet], None] | None = None,
    teacher_from: Path | None = None,
) -> SuperNet:
    """Train a supernet, or continue where ``folder`` stopped, or read the finished one from it.

    Under ``torchrun`` every process takes a part of each batch, and the first one writes the files.

    Args:
        supernet_config: which network.
        config: phases and optimiser.
        data_config: augmentation, and part of what must not change between two starts.
        splits: ``train`` is learnt; ``validation`` is used for the log only.
        folder: receives ``checkpoint.safetensors`` while training, ``supernet.safetensors`` and ``metrics.jsonl``.
        progress: told after every step.
        after_phase: called with each phase that this start finishes, and the supernet, to look at it.
        teacher_from: folder of a supernet of the same settings whose largest net, batch norms recalibrated, is the
            teacher ``fixed``; default: as `PhaseConfig.teacher` says.

    Returns:
        The trained supernet in eval mode, on the CPU.

    Raises:
        ResumeError: the folder holds a training with other settings.
        TrainingError: the loss is not finite; the last good checkpoint stays.
        OutputError: the folder cannot be written.
        RecipeError: a phase does not fit the space, or no GPU is there.
        DataError: more ranks than images.

    Reference:
        Cai et al., 2020, Once-for-All, section 3.3 and appendix (progressive shrinking); Yu et al., 2020, BigNAS
        (sandwich rule with in-place distillation); Sarti et al., 2023, OFAv2 (joint loss of exits, ENS-KD,
        progressively extracted teacher).
    """
    make_folder(folder)
    settings = {
        "supernet": supernet_config.model_dump(mode="json"),
        "train": config.model_dump(mode="json", exclude=NOT_BINDING),
        "data": data_config.model_dump(mode="json", exclude=NOT_BINDING_DATA),
        "images": splits.sha256,
    }
    if splits.task.name != DEFAULT_TASK:  # files of trainings without a named task stay what they were
        settings["task"] = splits.task.name
    if config.start_from is not None:
        settings["start"] = start_version(config.start_from)
    if teacher_from is not None:
        settings["teacher"] = weights_version(teacher_from / "supernet.safetensors")
    finished = folder / "supernet.safetensors"
    if finished.exists():
        return _load_finished(finished, settings)
    with ExitStack() as stack:
        ranks = stack.enter_context(joined_ranks())
        trainer = _Trainer(supernet_config, config, data_config, splits, folder, progress, settings, ranks)
        trainer.start(teacher_from)
        stack.enter_context(trainer.monitor)
        stack.enter_context(trainer.batches)
        stack.enter_context(freed_memory_kept())
        while trainer.state.phase < len(config.phases):
            phase = config.phases[trainer.state.phase]
            trainer.run_phase()
            if after_phase is not None:
                after_phase(phase, trainer.state.supernet.eval())
        images = splits.train.images
        if isinstance(images, ImageStream) and images.skipped:
            progress("train", 1, 1, told(broken_images(images.skipped)))
        supernet = trainer.state.supernet.cpu().requires_grad_(True).eval()
        save_supernet(supernet, folder, settings)
        if ranks.rank == 0:
            remove_checkpoint(folder / "checkpoint.safetensors")
    if ranks.world > 1:  # its batch norms have met other ranks
        return load_supernet(folder) if ranks.rank == 0 else supernet
    return supernet


@dataclass
class _Trainer:
    """One training: what stays the same from step to step, and the state."""

    supernet_config: SupernetConfig
    config: TrainConfig
    data_config: DataConfig
    splits: Splits
    folder: Path
    progress: Progress
    settings: dict[str, Any]
    ranks: Ranks

    def __post_init__(self) -> None:
        config, splits = self.config, self.splits
        self.device = chosen_device(config.device)
        supernet = build_supernet(self.supernet_config, config.seed)
        self.spaces = [phase_space(p, supernet.space) for p in config.phases]  # all checked before the first step
        _check_divergence(config, splits.task)
        self.ranks.check(config.batch_size, len(splits.train))
        if self.ranks.world > 1 and config.sync_batch_norm:
            synchronise_batch_norm(supernet)
        self.batches = TrainBatches(
            splits.train.to(self.device), *splits.mean_std, config.batch_size, self.data_config.augment, config.seed,
            self.device,
        )  # fmt: skip
        self.steps = [max(1, round(p.epochs * self.batches.per_epoch)) for p in config.phases]
        supernet = supernet.to(self.device)
        scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "float16")
        self.state = TrainState(supernet, make_optimiser(supernet, config), scaler)
        self.monitor = Monitor(self.folder, splits, config, self.ranks.rank == 0)

    def start(self, teacher_from: Path | None) -> None:
        """Continue from the checkpoint; where there is none, begin with given weights or random ones."""
        state, path = self.state, self.folder / "checkpoint.safetensors"
        if state.read(path, self.settings, self.progress):
            self.monitor.forget_after(sum(self.steps[: state.phase]) + state.step)
            return
        begins: dict[str, Tensor] = {}
        new = ""
        if self.config.start_from is not None:
            begins, new = starting_state(state.supernet, self.config.start_from)
            state.supernet.load_state_dict(begins)
        if new:
            self.progress("inherit", 1, 1, new)
        phases = self.config.phases
        if new and not phases:
            raise RecipeError(f"train.phases is empty, but {new}; give at least one phase that trains it")
        if teacher_from is not None:
            given, other = inherited_state(state.supernet, load_supernet(teacher_from), str(teacher_from))
            if other:
                raise CheckpointError(f"{teacher_from} cannot teach: {other}")
            state.teacher = self._calibrated(given) if self._needs_teacher() else {}
        elif begins and not new:
            state.teacher = copied(state.supernet.state_dict()) if self._needs_teacher() else {}
        elif phases and phases[0].teacher == "fixed":
            raise RecipeError(
                f"train.phases {phases[0].name!r}: teacher fixed is trained in the first phase; "
                f"use none or inplace there{f' ({new})' if new else ', or set train.start_from'}"
            )
        self.monitor.forget_after(0)

    def _needs_teacher(self) -> bool:
        return any(p.teacher == "fixed" for p in self.config.phases[self.state.phase :])

    def run_phase(self) -> None:
        """Train the current phase to its end, or the rest of it."""
        state, config = self.state, self.config
        number = state.phase
        phase, n_steps, step_before = config.phases[number], self.steps[number], sum(self.steps[:number])
        if state.step == 0:
            self._begin(phase)
        _freeze(state.supernet, phase)
        teacher = self._teacher(phase)
        state.supernet.train()
        saved_at = time.monotonic()
        while state.step < n_steps:
            rng = np.random.default_rng([config.seed, number, state.step])
            archs = sample_step(phase, self.spaces[number], rng)
            seed = int(rng.integers(2**62)) + self.ranks.rank
            lr = learning_rate(phase, state.step, n_steps, self.batches.per_epoch)
            part = None if self.ranks.world == 1 else self.ranks.part(min(config.batch_size, len(self.splits.train)))
            x, y = self.batches.batch(step_before + state.step, archs[0].int("resolution"), part)
            mix = draw_mix(config, rng, len(y))
            with seeded(seed, self.device):  # dropout draws from the global generators
                loss = train_step(
                    state.supernet, state.optimiser, x, y, archs, phase, config, lr, self.splits.task, teacher, mix,
                    state.scaler, self.ranks,
                )  # fmt: skip
            if not math.isfinite(loss):
                raise TrainingError(
                    f"loss is {loss} in phase {phase.name!r}, step {state.step}, subnets "
                    f"{[a.key for a in archs]}; lower train.phases lr or set train.clip_grad_norm; "
                    f"the last good checkpoint is kept in {self.folder}"
                )
            if state.average:
                _follow(state.average, state.supernet, min(config.ema_decay, (1 + state.step) / (10 + state.step)))
            state.step += 1
            done = step_before + state.step
            values = {"phase": phase.name, "step": done, "loss": round(loss, 4), "lr": lr}
            if config.monitor_epochs and (
                state.step == n_steps or done % max(1, round(config.monitor_epochs * self.batches.per_epoch)) == 0
            ):
                values[self.splits.task.score.name] = self.monitor.scores(state.supernet)
            self.monitor.log(values)
            self.progress("train", done, sum(self.steps), f"{phase.name}, loss {loss:.3f}")
            if time.monotonic() - saved_at > config.checkpoint_every_s and state.step < n_steps:
                self._save()
                saved_at = time.monotonic()
        if state.average:
            state.supernet.load_state_dict(state.average)
        if number == 0 and not state.teacher and self._needs_teacher():
            state.teacher = copied(state.supernet.state_dict())
        state.phase, state.step, state.average, state.pet = number + 1, 0, {}, {}
        self._save()

    def _begin(self, phase: PhaseConfig) -> None:
        """Do what comes before the first step of a phase."""
        state = self.state
        if phase.sort_channels:
            state.supernet.sort_channels(self.spaces[: state.phase])
            state.optimiser.state.clear()  # momenta belong to the old order
        if phase.teacher == "pet":
            state.pet = self._calibrated(state.supernet.state_dict())
        if self.config.ema_decay:
            state.average = copied(state.supernet.state_dict())

    def _calibrated(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """State of a supernet with the batch norms of its largest net recalibrated."""
        net = self._net(tensors)
        sizes = [int(str(size)) for size in net.space["resolution"].options]
        # Resolutions take turns, so that the statistics fit all of them alike, as those of training do.
        turns, mean_std = itertools.cycle(sizes), self.splits.mean_std
        seen = self.splits.train.first(CALIBRATION_IMAGES).batches(calibration_batch(max(sizes)))
        calibrate_largest(net, (as_input(b.to(self.device), next(turns), *mean_std) for b, _ in seen))
        return copied(net.state_dict())

    def _teacher(self, phase: PhaseConfig) -> SuperNet | None:
        tensors = {"fixed": self.state.teacher, "pet": self.state.pet}.get(phase.teacher)
        return None if tensors is None else self._net(tensors)

    def _net(self, tensors: dict[str, Tensor]) -> SuperNet:
        net = build_supernet(self.supernet_config).to(self.device)
        load_weights(net, tensors, "teacher")
        return net.eval()

    def _save(self) -> None:
        self.state.write(self.folder / "checkpoint.safetensors", self.settings)
        self.monitor.flush()


def _check_divergence(config: TrainConfig, task: Task) -> None:
    if any(p.divergence == "alpha" for p in config.phases) and not isinstance(task, HasAlphaDivergence):
        raise RecipeError(
            f"train.phases: divergence alpha needs a task whose outputs are a distribution, which {task.name!r} is "
            "not (it has no alpha_divergence); use kl"
        )


@torch.no_grad()
def _follow(average: dict[str, Tensor], net: nn.Module, decay: float) -> None:
    """Move an average of weights and statistics towards those of ``net``; counters are copied."""
    now = net.state_dict()
    names = [k for k, v in now.items() if v.is_floating_point()]
    get_ema_multi_avg_fn(decay)([average[k] for k in names], [now[k] for k in names], None)
    for k in now.keys() - set(names):
        average[k].copy_(now[k])


def _freeze(supernet: SuperNet, phase: PhaseConfig) -> None:
    """Let only the weights learn that do not stand in the phase's frozen stages."""
    elastic = supernet.elastic_blocks
    for slot in supernet.layout.slots:
        elastic[slot.name].requires_grad_(slot.stage not in phase.frozen_stages)


def _load_finished(path: Path, settings: dict[str, Any]) -> SuperNet:
    check_settings(read_metadata(path).get("info", {}), settings, path)
    return load_supernet(path)
