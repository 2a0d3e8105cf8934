"""How is the work of a run divided, and does a supernet pay? Estimated before anything is trained.

The cost of everything is counted in multiply-adds: a training step on an image costs three times as many as looking at
it. With a time budget, a few steps are timed, too.

Whether a supernet pays depends on how many models share it. Without one, the same compute trains every model from fresh
weights for ``direct_epochs`` passes over the images, or fewer models that serve several latencies for longer; where
these are enough, or all models together cost less than a supernet, that gives the better models.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from hwnas.data import TrainBatches
from hwnas.errors import MeasurementError, RecipeError
from hwnas.files import write_json
from hwnas.finetune import relative_cost
from hwnas.latency.build import needs_table, seconds_of_tables
from hwnas.latency.table import Device
from hwnas.objectives.exact import macs_of_space
from hwnas.runs.context import RunContext
from hwnas.runs.direct import DirectWishes
from hwnas.runs.history import DeviceSearch
from hwnas.runs.kept import read_kept
from hwnas.runs.problem import evaluated_values
from hwnas.runs.recipe import Recipe
from hwnas.runs.staged import check_strategy
from hwnas.supernet import Layout, build_supernet
from hwnas.train.device import chosen_device
from hwnas.train.phases import PhaseConfig, phase_space, sample_step
from hwnas.train.step import make_optimiser, train_step

Strategy = Literal["supernet", "direct", "staged"]

TRAINING = 3.0
"""Multiply-adds of a training step for each of a forward pass: the gradients of inputs and of weights cost one each."""

ENOUGH_IMAGES = 100_000
"""Images that each model sees in its training, from which training each alone is taken to give better models.

1,600 steps of 64 images. A first estimate: at 27,000 images a model a supernet gave 4 points more (8 models on
CIFAR-10 that shared nothing, one seed); where it turns has not been measured yet."""

TRAIN_SHARE, SEARCH_SHARE, FINISH_SHARE = 0.45, 0.10, 0.45
"""Of a time budget, where there is a supernet. A first estimate: no other shares have been measured yet."""

RESERVE = 0.05
"""Of a time budget, for exports, checks and a machine that slows down."""

TABLE_S = 120.0
"""What the table of a device takes that is measured on the spot, where it cannot be timed now: about that of a large
space."""

LEAST_SHARE = 0.5
"""Of a time budget that is for training and search, however long it takes to measure tables."""

TIMED_STEPS = 3
"""Of each phase, after one that is not counted."""


@dataclass(frozen=True)
class Plan:
    """What a run will do, and why."""

    strategy: Strategy
    why: str
    asked: Mapping[str, Any]
    """What the plan was made for: devices, models, budget; another run needs another plan."""
    models: int
    """Of all devices together."""
    train_gmacs: float
    """Thousand million multiply-adds of the supernet's training, were it trained as the recipe says."""
    search_gmacs: float
    finish_gmacs: float
    direct_epochs: float
    """Passes over the images that each model gets for the same compute without a supernet."""
    direct_networks: int = 0
    """Networks that stand for all models then; fewer where some serve several latencies or devices."""
    direct_longer: float = 1.0
    """Times ``direct_epochs`` that each network gets, since there are fewer of them."""
    phase_factor: float = 1.0
    """By which the epochs of the supernet's phases are multiplied to keep the budget."""
    search_s: float | None = None
    finish_s: float | None = None
    """Time of the training of the models to their end; None: as many epochs as the plan or the recipe says."""
    estimated_s: Mapping[str, float] | None = None
    """Of a plan that is made to be looked at: seconds of each part on this machine, from a few timed steps."""

    @property
    def timed(self) -> bool:
        """Whether it keeps to a time, a budget or ``finish.time_s``; how, follows from steps that were timed once."""
        return self.asked["budget_s"] is not None or self.asked["finish"].get("time_s") is not None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        values = asdict(self)
        if self.estimated_s is None:
            del values["estimated_s"]
        return values

    def __str__(self) -> str:
        return self.why


def make_plan(
    context: RunContext, wanted: Mapping[str, DeviceSearch], budget_s: float | None = None, begun: bool = True
) -> Plan:  # fmt: skip
    """Return how a run is best divided.

    Args:
        context: of the run; nothing of it needs to be trained.
        wanted: what is searched, by the device's name.
        budget_s: for everything; None: as much compute as the recipe's own numbers give.
        begun: whether what stands in the folder counts; else it is planned as a new run, and its time estimated.

    Raises:
        RecipeError: too little time, or ``direct`` without models to train.
    """
    recipe = context.recipe
    asked = what_is_asked(recipe, wanted, budget_s)
    strategies = {s.search.strategy for s in wanted.values()}
    started = time.monotonic()
    wishes = _direct_wishes(context, wanted)
    archs = [arch for group in wishes for arch in group.own().networks]
    n_images, n_models = len(context.splits.train), sum(s.finish.models for s in wanted.values())
    macs = context.macs.of_archs(archs) if archs else np.zeros(0)
    small_percent = max((s.finish.small_percent for s in wanted.values()), default=0.0)
    epoch_gmacs = TRAINING * relative_cost(small_percent) * n_images * float(macs.sum()) / 1e9
    check_strategy(context, wanted, budget_s)
    staged = strategies == {"staged"}
    train, search = _train_gmacs(context, wanted if staged else {}), _search_gmacs(context, wanted)
    epochs = max((s.finish.epochs for s in wanted.values()), default=0.0)
    finish = epochs * epoch_gmacs
    trained = begun and (context.folder.train / "supernet.safetensors").exists()
    given = not recipe.train.phases  # the weights of train.start_from are used as they are
    known = read_plan(context) if begun else None
    finish_time_s = _finish_time_s(wanted) if budget_s is None else None  # a budget divides the whole time anew
    timed = budget_s is not None or finish_time_s is not None or not begun
    seconds = _time_steps(context) if timed and not given else {}
    s_per_gmac = sum(seconds.values()) / _train_gmacs(context, {}) if seconds else 0.0
    if finish_time_s is not None and seconds:
        finish = finish_time_s / s_per_gmac
    tables_s = sum(_table_s(context, context.devices[name]) for name in wanted) if timed else 0.0
    to_spend, late = 0.0, ""
    if budget_s is not None:
        before_s = tables_s + time.monotonic() - started
        left_s = budget_s * (1 - RESERVE) - before_s
        to_spend = max(LEAST_SHARE * budget_s, left_s)
        if tables_s and to_spend > left_s:
            late = (
                f"; the budget of {budget_s:g} s is too short: measuring latencies on this machine takes about "
                f"{tables_s:.0f} s, so with {100 * LEAST_SHARE:.0f} % of it for the models the run takes about "
                f"{before_s + to_spend:.0f} s; from about {before_s / (1 - RESERVE - LEAST_SHARE):.0f} s on it is kept"
            )
    direct_epochs = 0.0
    if archs and budget_s is None:
        # Without a supernet, too, models are trained for no longer than the time that is asked for.
        direct_epochs = (finish if finish_time_s is not None else train + search + finish) / epoch_gmacs
    elif archs and seconds:
        direct_epochs = to_spend / (epoch_gmacs * s_per_gmac)
    choices = [group.choice(direct_epochs) for group in wishes] if direct_epochs else []
    n_networks = sum(len(choice.networks) for choice in choices)
    chosen_macs = sum(float(context.macs.of_archs(choice.networks).sum()) for choice in choices)
    longer = float(macs.sum()) / chosen_macs if choices else 1.0
    if strategies == {"direct"} and not archs:
        raise RecipeError("search.strategy direct trains the models of finish.models, which is 0; give at least 1")
    if strategies == {"direct"} and recipe.train.start_from is not None:
        raise RecipeError(
            "search.strategy direct begins with fresh weights, so the weights of train.start_from would be lost; leave "
            "one of the two out"
        )
    strategy: Strategy
    if trained:
        strategy, why = "supernet", "the run has one"
    elif given:
        strategy, why = "supernet", "train.start_from gives one, and no phase trains it further"
    elif recipe.train.start_from is not None:
        strategy, why = "supernet", "it begins with the weights of train.start_from; models trained alone would not"
    elif not archs:
        strategy, why = "supernet", "models are handed over as the supernet gives them (finish.models is 0)"
    elif judged := _judged_after_training(context, wanted):
        strategy, why = "supernet", f"archs are also to be good at {', '.join(judged)}, which only a search can see to"
    elif known is not None and known.strategy == "direct":
        strategy, why = "direct", _as_begun(known, budget_s, direct_epochs * longer)
    else:
        supernet_gmacs = train / sum(phase.epochs for phase in recipe.train.phases)
        n_latencies = sum(group.n_latencies for group in wishes)
        within = "for the same compute" if finish_time_s is None else "in the time of finish.time_s"
        alone = _Alone(within, n_networks, n_latencies, direct_epochs * longer, n_images, epoch_gmacs / longer)
        strategy, why = alone.better_than(supernet_gmacs)
    if len(strategies) == 1 and strategies != {"auto"}:
        (only,) = strategies
        asked_for: Strategy = only if only in ("direct", "staged") else "supernet"
        better = f"; auto would be {strategy}: {why}" if strategy == "direct" != asked_for else ""
        strategy, why = asked_for, f"as search.strategy says{better}"
    divided: dict[str, Any] = {"phase_factor": known.phase_factor} if trained and known is not None else {}
    if budget_s is not None:
        train_s = 0.0 if trained else sum(seconds.values())
        divided |= {"finish_s": to_spend} if strategy == "direct" else _shares(to_spend, train_s, bool(archs))
    found = Plan(
        strategy, f"{strategy}: {why}{late}", asked, n_models, train, search, finish, direct_epochs, n_networks, longer,
        **divided,
    )  # fmt: skip
    if begun or not seconds:
        return found
    return replace(found, estimated_s=_estimated_s(found, s_per_gmac, epoch_gmacs) | {"tables": tables_s})


def _table_s(context: RunContext, device: Device) -> float:
    """Seconds until the table of a device is there that is measured on the spot; 0 where none is needed."""
    if not needs_table(device):
        return 0.0
    try:
        return seconds_of_tables(context.layout, device, context.recipe.tables)
    except MeasurementError:  # said when it is to be measured
        return TABLE_S


def _finish_time_s(wanted: Mapping[str, DeviceSearch]) -> float | None:
    """Seconds in which the models of all devices are to be trained to their end; None where epochs say how long."""
    times = [settings.finish.time_s for settings in wanted.values() if settings.finish.models]
    return sum(time_s for time_s in times if time_s is not None) if times and None not in times else None


def _as_begun(known: Plan, budget_s: float | None, epochs: float) -> str:
    """Why a run goes on without a supernet, and for how long its models are now trained."""
    why = "the run was begun without a supernet (search.strategy=supernet trains one)"
    if known.asked["budget_s"] is not None and budget_s is None:
        why += (
            f"; its budget of {known.asked['budget_s']:g} s is not asked for any more, so models that are to be "
            f"trained get {epochs:.3g} epochs, as the recipe says"
        )
    return why


@dataclass(frozen=True)
class _Alone:
    """What a compute gives without a supernet."""

    within: str
    """Of which compute or time it is, for messages."""
    networks: int
    latencies: int
    """That are wanted; a network may serve several."""
    epochs: float
    images: int
    """Of one epoch."""
    epoch_gmacs: float
    """Of one epoch of all networks."""

    def better_than(self, supernet_epoch_gmacs: float) -> tuple[Strategy, str]:
        """Return which gives the better models, and why."""
        seen = self.epochs * self.images
        strategy: Strategy = (
            "direct" if seen >= ENOUGH_IMAGES or self.epoch_gmacs < supernet_epoch_gmacs else "supernet"
        )
        models = f"each of {self.networks} models" if self.networks > 1 else "one model"
        if self.networks < self.latencies:
            models += f" that serve{'' if self.networks > 1 else 's'} all {self.latencies} wanted latencies"
        verdict = f"below {ENOUGH_IMAGES:,} a supernet is taken to give better models"
        if strategy == "direct" and seen < ENOUGH_IMAGES:
            verdict = "few, but a pass over them costs less than one of a supernet's training"
        return strategy, (
            f"{self.within} {models}, trained alone, would see {seen:,.0f} images ({self.epochs:.3g} epochs); {verdict}"
        )


def _judged_after_training(context: RunContext, wanted: Mapping[str, DeviceSearch]) -> list[str]:
    """Objectives and limited values beside the main score that only trained networks have, as introspectability."""
    found = dict.fromkeys(v for settings in wanted.values() for v in evaluated_values(context, settings).values())
    return [name for name in found if name != context.score.name]


def _estimated_s(plan: Plan, s_per_gmac: float, epoch_gmacs: float) -> dict[str, float]:
    """Seconds of each part of a plan.

    Args:
        plan: with or without a budget.
        s_per_gmac: seconds that a thousand million multiply-adds of the training take here.
        epoch_gmacs: what a pass over the images costs for all models that are trained alone.
    """
    if plan.strategy == "direct":
        alone_s = plan.direct_epochs * epoch_gmacs * s_per_gmac
        return {"train": 0.0, "search": 0.0, "finish": plan.finish_s if plan.finish_s is not None else alone_s}
    return {
        "train": plan.train_gmacs * plan.phase_factor * s_per_gmac,
        "search": plan.search_s if plan.search_s is not None else plan.search_gmacs * s_per_gmac,
        "finish": plan.finish_s if plan.finish_s is not None else plan.finish_gmacs * s_per_gmac,
    }


def what_is_asked(recipe: Recipe, wanted: Mapping[str, DeviceSearch], budget_s: float | None) -> dict[str, Any]:
    """Return what a plan depends on."""
    return {
        "budget_s": budget_s, "recipe": recipe.values_hash(), "finish": recipe.finish.model_dump(mode="json"),
        "devices": {name: settings.search.model_dump(mode="json") for name, settings in wanted.items()},
    }  # fmt: skip


def read_plan(context: RunContext) -> Plan | None:
    """Return the plan that a run folder was begun with; None where there is none.

    Raises:
        ResumeError: the file is damaged.
    """
    path = context.folder.plan
    if not path.exists():
        return None
    return read_kept(Plan, path, "remove it and start again")


def write_plan(context: RunContext, plan: Plan) -> None:
    """Keep the plan of a run."""
    write_json(context.folder.plan, plan.as_dict())


def _direct_wishes(context: RunContext, wanted: Mapping[str, DeviceSearch]) -> list[DirectWishes]:
    """What the devices would be given without a supernet: modelled ones together, and measured ones."""
    groups: dict[bool, dict[str, tuple[Device, DeviceSearch]]] = {}
    for name, settings in wanted.items():
        if settings.finish.models:
            device = context.devices[name]
            timed = needs_table(device) or device.profile.conditions is not None
            groups.setdefault(timed, {})[name] = device, settings
    return [DirectWishes(context, group) for group in groups.values()]


def _train_gmacs(context: RunContext, staged: Mapping[str, DeviceSearch]) -> float:
    """Multiply-adds of the supernet's training.

    Args:
        context: of the run.
        staged: devices that each have a training of their own, whose phases after the first are done for each latency.
    """
    n_images, total = len(context.splits.train), 0.0
    targets = [len(s.finish.latencies_ms.get(name, ())) or max(1, s.finish.models) for name, s in staged.items()]
    for number, phase in enumerate(context.recipe.train.phases):
        times = 1 if not staged else sum(targets) if number else len(staged)
        total += times * phase.epochs * n_images * macs_per_image(context.layout, phase)
    return total / 1e9


def macs_per_image(layout: Layout, phase: PhaseConfig, steps: int = 50) -> float:
    """Return the mean multiply-adds of a phase for each image: of its subnets, forward and backward, and its teacher.

    Args:
        layout: of the supernet.
        phase: what is drawn.
        steps: of which the mean is taken.
    """
    of_archs, inside, rng = macs_of_space(layout).of_archs, phase_space(phase, layout.space), np.random.default_rng(0)
    subnets = [float(of_archs(sample_step(phase, inside, rng)).sum()) for _ in range(steps)]
    taught = phase.teacher in ("fixed", "pet") and phase.distill_ratio
    teacher = float(of_archs([layout.space.largest()])[0]) if taught else 0.0
    return TRAINING * float(np.mean(subnets)) + teacher


def _search_gmacs(context: RunContext, wanted: Mapping[str, DeviceSearch]) -> float:
    """Multiply-adds of the evaluations: calibration and validation images, one forward pass each."""
    evaluation = context.recipe.evaluation
    calibration = min(evaluation.calibration_images, len(context.splits.train))
    archs = context.layout.space.sample(np.random.default_rng(0), 200)
    mean = float(context.macs.of_archs(archs).mean())
    images = sum(s.search.evaluations * (calibration + context.searched_images(s.search)) for s in wanted.values())
    return images * mean / 1e9


def _time_steps(context: RunContext) -> dict[str, float]:
    """Seconds that each phase of the supernet's training takes, from a few steps of each."""
    recipe, splits = context.recipe, context.splits
    device = chosen_device(recipe.train.device)
    supernet = build_supernet(recipe.supernet, recipe.train.seed).to(device).train()
    optimiser = make_optimiser(supernet, recipe.train)
    batches = TrainBatches(
        splits.train.to(device), *splits.mean_std, recipe.train.batch_size, recipe.data.augment, recipe.train.seed,
        device,
    )  # fmt: skip
    found: dict[str, float] = {}
    for number, phase in enumerate(recipe.train.phases):
        inside, seconds = phase_space(phase, supernet.space), []
        teacher = supernet if phase.teacher in ("fixed", "pet") else None
        for step in range(TIMED_STEPS + 1):
            archs = sample_step(phase, inside, np.random.default_rng([number, step]))
            started = time.perf_counter()
            x, y = batches.batch(step, archs[0].int("resolution"))
            train_step(supernet, optimiser, x, y, archs, phase, recipe.train, 1e-6, splits.task, teacher)
            seconds.append(time.perf_counter() - started)
        found[f"{number} {phase.name}"] = float(np.median(seconds[1:])) * phase.epochs * batches.per_epoch
    return found


def _shares(budget_s: float, train_s: float, finishes: bool) -> dict[str, float]:
    """What each stage of a run with a supernet gets of a time budget; a stage that has nothing to do gets none.

    Args:
        budget_s: of what is still to be done.
        train_s: of the supernet's training as the recipe says; 0: it is trained.
        finishes: whether models are trained to their end.
    """
    shares = {"train": TRAIN_SHARE * (train_s > 0), "search": SEARCH_SHARE, "finish": FINISH_SHARE * finishes}
    seconds = {name: budget_s * share / sum(shares.values()) for name, share in shares.items()}
    found = {"search_s": seconds["search"]}
    if train_s > 0:
        found["phase_factor"] = seconds["train"] / train_s
    if finishes:
        found["finish_s"] = seconds["finish"]
    return found


def planned(recipe: Recipe, plan: Plan) -> Recipe:
    """Return the recipe with phases as long as the plan says."""
    if plan.phase_factor == 1.0:
        return recipe
    phases = tuple(
        p.model_copy(
            update={
                "epochs": p.epochs * plan.phase_factor, "warmup_epochs": p.warmup_epochs * min(1.0, plan.phase_factor)
            }
        )
        for p in recipe.train.phases
    )  # fmt: skip
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"phases": phases})})


def planned_search(settings: DeviceSearch, plan: Plan) -> DeviceSearch:
    """Return what is searched for a device, its models trained for as long as the plan says."""
    if plan.finish_s is not None:
        settings = with_time(settings, plan.finish_s / len(plan.asked["devices"]))
    if plan.strategy != "direct":
        return settings
    finish = settings.finish.model_copy(update={"epochs": round(plan.direct_epochs, 2)})
    search = settings.search.model_copy(update={"strategy": "direct"})  # until a later plan wants a supernet
    return settings.model_copy(update={"finish": finish, "search": search})


def with_time(settings: DeviceSearch, time_s: float) -> DeviceSearch:
    """Return what is searched for a device, its models trained for so many seconds.

    Its epochs, then only an estimate of the length, follow where it is known how long they would take.
    """
    finish = settings.finish
    epochs = finish.epochs if finish.time_s is None else round(finish.epochs * time_s / finish.time_s, 2)
    finish = finish.model_copy(update={"time_s": round(time_s, 3), "epochs": epochs})
    return settings.model_copy(update={"finish": finish})
