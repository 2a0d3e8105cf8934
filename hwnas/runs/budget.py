"""How much can be searched in a given time? Evaluations are timed first, and the search is sized by what they take."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

from hwnas.errors import RecipeError, shown
from hwnas.files import write_json
from hwnas.objectives.subnets import SubnetEvaluator
from hwnas.runs.context import RunContext
from hwnas.runs.history import DeviceSearch
from hwnas.runs.kept import read_kept
from hwnas.runs.problem import evaluated_values
from hwnas.search.config import SearchConfig
from hwnas.search.searchers import SEARCHERS

RESERVE = 0.15
"""Share of the time that is not planned: the machine may slow down, and searchers think."""

ENOUGH_EVALUATIONS = 200
"""Per device; with fewer in sight, evaluations see fewer validation images."""

FEWEST_EVALUATIONS = 8

FEWEST_IMAGES = 500
"""A standard error of at most 2.2 points."""

SEARCHER_S = 0.1
"""What a searcher with a predictor computes for each evaluation; others say it in ``seconds_per_evaluation``."""

LONGEST_S = 366 * 86400.0
"""A year: nothing runs longer undisturbed, and a larger number is a slip of the unit."""

UNITS_S = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class BudgetPlan:
    """What a budget is spent on."""

    budget_s: float
    devices: tuple[str, ...]
    algorithm: str
    weights: str
    """Version of the supernet that was timed."""
    fixed_s: float
    """Of one evaluation, whatever the number of images: extraction and calibration."""
    image_s: float
    """Of one evaluation for each validation image."""
    evaluations: int
    """Per device."""
    validation_images: int

    def __str__(self) -> str:
        seconds = self.fixed_s + self.image_s * self.validation_images
        return (
            f"{self.budget_s:g} s for {len(self.devices)} device(s): {self.evaluations} evaluations each, "
            f"{self.validation_images} validation images, {seconds:.3g} s an evaluation"
        )


def parse_duration(text: str | float) -> float:
    """Return the seconds of ``90s``, ``20min``, ``1.5h`` or ``1h30min``; a number is seconds.

    Raises:
        RecipeError: another form, or not above 0.
    """
    if not isinstance(text, str):
        text = f"{float(text)}s"
    if len(text) > 40:  # no time is as long, and the pattern takes the square of the length
        raise RecipeError(f"budget {shown(text, 60)} is not a time with a unit, such as 90s, 20min or 1h30min")
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*([a-z]+)", text.strip().lower())
    whole = re.sub(r"\s", "", text.strip().lower())
    if not parts or "".join(n + u for n, u in parts) != whole or any(u not in UNITS_S for _, u in parts):
        raise RecipeError(f"budget {text!r} is not a time with a unit, such as 90s, 20min or 1h30min")
    seconds = sum(float(n) * UNITS_S[u] for n, u in parts)
    if seconds > LONGEST_S:
        raise RecipeError(f"budget {text!r} is more than {LONGEST_S / 86400:,.0f} days; give less")
    if seconds <= 0:
        raise RecipeError(f"budget {text!r} is no time at all; give at least a few seconds")
    return seconds


def plan_budget(
    budget_s: float, n_devices: int, fixed_s: float, image_s: float, overhead_s: float, images: int, archs: int,
    at_least: int = 0,
) -> tuple[int, int]:  # fmt: skip
    """Return evaluations per device, and validation images of each.

    All images are used where that leaves `ENOUGH_EVALUATIONS`; else as many as that number allows, but not fewer than
    `FEWEST_IMAGES`. Archive, population and first archs of a search follow from its evaluations.

    Args:
        budget_s: for all devices together.
        n_devices: searched one after the other.
        fixed_s: of an evaluation.
        image_s: of an evaluation for each image.
        overhead_s: of the searcher, for each evaluation.
        images: validation images that there are.
        archs: in the space.
        at_least: so many evaluations even where the time is too short.

    Raises:
        RecipeError: too little time for `FEWEST_EVALUATIONS`.
    """
    share = budget_s * (1 - RESERVE) / n_devices
    wanted = min(ENOUGH_EVALUATIONS, archs)
    affordable = (share / wanted - fixed_s - overhead_s) / image_s if image_s > 0 else math.inf
    n_images = int(min(images, max(FEWEST_IMAGES, affordable)))
    evaluations = int(share / (fixed_s + overhead_s + image_s * n_images))
    if at_least:
        evaluations = max(evaluations, at_least)
    elif evaluations < min(FEWEST_EVALUATIONS, archs):
        least = FEWEST_EVALUATIONS * (fixed_s + overhead_s + image_s * n_images) * n_devices / (1 - RESERVE)
        raise RecipeError(
            f"a budget of {budget_s:g} s is enough for {evaluations} evaluations on each of {n_devices} device(s); "
            f"give at least {math.ceil(least)}s, or fewer devices"
        )
    return min(evaluations, archs), n_images


def check_sizable(search: SearchConfig) -> None:
    """Raise where a budget cannot size a search: what adapting a supernet takes is no part of the plan."""
    if search.adaptation is not None:
        raise RecipeError(
            "a budget sizes searches without search.adaptation; give --evaluations, or set search.adaptation=null"
        )


def size_search(
    context: RunContext, evaluator: SubnetEvaluator, devices: Mapping[str, DeviceSearch], budget_s: float,
    at_least: int = 0,
) -> BudgetPlan:  # fmt: skip
    """Time a few evaluations of a trained run and plan its search; a plan made before is read back.

    Args:
        context: of the run; its supernet is trained.
        evaluator: of the trained weights.
        devices: what will be searched, by the device's name.
        budget_s: for the search of all devices.
        at_least: so many evaluations of each device even where the time is too short.

    Raises:
        RecipeError: too little time, or a search that adapts its supernet.
    """
    for settings in devices.values():
        check_sizable(settings.search)
    first = next(iter(devices.values()))
    algorithm = first.search.algorithm
    about = {
        "budget_s": budget_s, "devices": list(devices), "algorithm": algorithm, "weights": context.trained_weights,
    }  # fmt: skip
    path = context.folder.budget
    if path.exists():
        known = read_kept(BudgetPlan, path, "remove it; the search is sized anew")
        if {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(known).items() if k in about} == about:
            return known
    images, space = context.validation_images, context.layout.space
    few = max(1, images // 4)
    names = list(dict.fromkeys(name for s in devices.values() for name in evaluated_values(context, s)))
    archs = dict.fromkeys([space.smallest(), space.largest(), *space.sample(np.random.default_rng(0), 3)])
    seconds: dict[int, float] = {}
    for arch in archs:  # inputs of every resolution are prepared once, and are no part of the cost
        evaluator.score(arch, names, few)
    for n in (few, images):
        started = time.perf_counter()
        for arch in archs:
            evaluator.score(arch, names, n)
        seconds[n] = (time.perf_counter() - started) / len(archs)
    image_s = max(0.0, (seconds[images] - seconds[few]) / (images - few)) if images > few else 0.0
    fixed_s = max(1e-4, seconds[images] - image_s * images)
    overhead_s = getattr(SEARCHERS.get(algorithm), "seconds_per_evaluation", SEARCHER_S)
    evaluations, n_images = plan_budget(
        budget_s, len(devices), fixed_s, image_s, overhead_s, images, space.size, at_least
    )
    plan = BudgetPlan(
        budget_s, tuple(devices), algorithm, context.trained_weights, fixed_s, image_s, evaluations, n_images
    )
    write_json(path, asdict(plan))
    return plan
