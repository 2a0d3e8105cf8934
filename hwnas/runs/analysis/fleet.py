"""Which few models serve all devices of a run, when each device must keep its limits?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from hwnas.errors import SearchError
from hwnas.objectives import as_losses
from hwnas.pareto import non_dominated
from hwnas.runs.choose import candidates_of, finished_models, model_columns
from hwnas.runs.evaluations import Evaluations
from hwnas.runs.export import candidates_of_front
from hwnas.runs.front import SearchedDevice
from hwnas.runs.problem import evaluated_values, make_problem
from hwnas.search.limits import Limit, limits_for

FloatArray = NDArray[np.float64]

IntArray = NDArray[np.int64]

BoolArray = NDArray[np.bool_]

SOLVER_S = 20.0
"""Seconds after which an integer program is given up and the greedy choice is taken."""


@dataclass(frozen=True)
class FleetChoice:
    """Columns of a regret matrix that together serve every row."""

    columns: tuple[int, ...]
    """Chosen, ascending."""
    serves: tuple[int, ...]
    """For every row: the chosen column of least regret."""
    worst: float
    """Largest regret over the rows."""
    exact: bool
    """Whether no other choice of as many columns has a smaller worst regret; False: greedy."""


@dataclass(frozen=True)
class DeviceService:
    """What one device gets."""

    device: str
    limit_ms: float
    key: str
    """Of the fleet's model for it."""
    latency_ms: float
    score: float
    """Of the fleet's model, on validation images."""
    best_key: str
    """Of the best model that it could have alone."""
    best_score: float
    regret: float
    """How much of the score is given up, in its unit."""


@dataclass(frozen=True)
class Fleet:
    """Few models for many devices."""

    keys: tuple[str, ...]
    score_title: str
    score_unit: str
    worst_regret: float
    exact: bool
    devices: tuple[DeviceService, ...]
    regret_by_models: tuple[float, ...]
    """Worst regret with 1, 2, ... models, up to the first that has none; infinite: so few cannot serve."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON values; infinite regrets are None."""
        values = asdict(self)
        values["regret_by_models"] = [r if np.isfinite(r) else None for r in self.regret_by_models]
        return values


def choose_fleet(regret: FloatArray, k: int) -> FleetChoice | None:
    """Choose at most ``k`` columns with the smallest worst-case regret, then with the smallest sum.

    The smallest threshold under which ``k`` columns cover all rows is found by bisection; each cover is an integer
    program (HiGHS). Where it is not solved in time, the cover is greedy.

    Args:
        regret: ``(rows, columns)``, 0 or more; infinite where a column cannot serve a row.
        k: how many, at least 1.

    Returns:
        The choice; None where no ``k`` columns can serve every row.
    """
    thresholds = np.unique(regret[np.isfinite(regret)])
    if not len(thresholds):
        return None
    exact = True

    def cover(t: float) -> IntArray | None:
        nonlocal exact
        found, solved = _smallest_cover(regret <= t)
        exact &= solved
        return found if found is not None and len(found) <= k else None

    low, high = 0, len(thresholds) - 1
    best = cover(thresholds[high])
    if best is None:
        return None
    while low < high:
        middle = (low + high) // 2
        found = cover(thresholds[middle])
        if found is None:
            low = middle + 1
        else:
            best, high = found, middle
    columns = _least_sum(regret, float(thresholds[high]), k)
    columns = best if columns is None else columns
    serves = columns[np.argmin(regret[:, columns], axis=1)]
    worst = float(regret[np.arange(len(regret)), serves].max())
    used = tuple(sorted({int(c) for c in serves}))
    return FleetChoice(used, tuple(int(c) for c in serves), worst, exact)


def _smallest_cover(serves: BoolArray) -> tuple[IntArray | None, bool]:
    """The fewest columns that serve every row, and whether that is certain; None where some row has none."""
    if not serves.any(axis=1).all():
        return None, True
    _, columns = np.unique(serves, axis=1, return_index=True)
    columns = np.sort(columns)
    n = len(columns)
    result = scipy.optimize.milp(
        np.ones(n), integrality=np.ones(n), bounds=scipy.optimize.Bounds(0, 1), options={"time_limit": SOLVER_S},
        constraints=scipy.optimize.LinearConstraint(serves[:, columns].astype(float), lb=1.0),
    )  # fmt: skip
    if result.status == 0:
        return columns[result.x > 0.5], True
    chosen: list[int] = []
    left = np.ones(len(serves), dtype=bool)
    while left.any():
        chosen.append(int(np.argmax(serves[left].sum(axis=0))))
        left &= ~serves[:, chosen[-1]]
    return np.array(sorted(chosen)), False


def _least_sum(regret: FloatArray, t: float, k: int) -> IntArray | None:
    """At most ``k`` columns that serve every row within ``t`` with the least sum of regrets; None: not solved."""
    rows, columns = np.nonzero(regret <= t)
    n_rows, n = regret.shape
    pairs = len(rows)
    if pairs > 20_000:
        return None
    # Variables: which column serves which row (pairs), then which columns are chosen.
    cost = np.concatenate([regret[rows, columns], np.full(n, 1e-9)])
    each_row = np.zeros((n_rows, pairs + n))
    each_row[rows, np.arange(pairs)] = 1.0
    only_chosen = np.zeros((pairs, pairs + n))
    only_chosen[np.arange(pairs), np.arange(pairs)] = 1.0
    only_chosen[np.arange(pairs), pairs + columns] = -1.0
    few = np.concatenate([np.zeros(pairs), np.ones(n)])
    constraints = [
        scipy.optimize.LinearConstraint(each_row, 1.0, 1.0),
        scipy.optimize.LinearConstraint(only_chosen, ub=0.0),
        scipy.optimize.LinearConstraint(few, ub=float(k)),
    ]  # fmt: skip
    result = scipy.optimize.milp(
        cost, integrality=np.ones(pairs + n), bounds=scipy.optimize.Bounds(0, 1), constraints=constraints,
        options={"time_limit": SOLVER_S},
    )  # fmt: skip
    return np.flatnonzero(result.x[pairs:] > 0.5) if result.status == 0 else None


def plan_fleet(
    evaluations: Evaluations, devices: Sequence[SearchedDevice], models: int, limits: Sequence[Limit] = (),
    look_up: bool = False,
) -> Fleet:  # fmt: skip
    """Pick at most ``models`` evaluated archs that serve all devices.

    A device can use a model that keeps its limits; its regret is how much worse the model scores than the best that the
    device could use.

    Args:
        evaluations: of the run.
        devices: searched.
        models: how many at most.
        limits: beside those of the devices' searches, on any known value; a device without a limit on ``latency_ms``
            keeps the latency of its front's knee.
        look_up: run no network: models whose scores are not known in the precision of every device are left out.

    Raises:
        SearchError: fewer than 1 model, a limit that nothing meets, limits that so few models cannot meet together, or
            devices with weights of their own.
    """
    context, root = evaluations.context, evaluations.context.folder.root
    if models < 1:
        raise SearchError(f"a fleet of {models} models serves nobody; give --models 1 or more")
    if own := [d.name for d in devices if len(evaluations.weights.of_device(d.name)) > 1]:
        raise SearchError(
            f"the supernet of {root} was adapted to {', '.join(own)}, so devices have no weights in common; "
            "search it with search.adaptation=null"
        )
    score = context.score
    wanted = {n: v for d in devices for n, v in evaluated_values(context, d.settings).items()}
    views = {view.precision: view for view in (evaluations.of_device(d.device) for d in devices)}
    fronts = [m for d in devices for m in candidates_of_front(evaluations, d.front)] if len(views) > 1 else []
    for view in () if look_up else views.values():  # what is best in one precision is looked at in the others
        view.evaluate(list(dict.fromkeys([*finished_models(view), *fronts])), wanted)
    # Without adaptation every device may get the same models: finished ones where there are any.
    models_known = [
        model
        for model in candidates_of(evaluations, devices[0].name, devices[0].settings)
        if all(v in e.known(model, wanted.values()) for e in views.values() for v in wanted.values())
    ]
    if not models_known:
        raise SearchError(f"no model of {root} is known in the precision of every device; give `hwnas fleet` a try")
    columns = {d.name: model_columns(evaluations, d.device, d.settings, models_known) for d in devices}
    limits_ms: dict[str, float] = {}
    usable_rows = []
    for device in devices:
        own_limits = limits_for(limits, device.name)
        given = [c.bound for c in own_limits if c.value == "latency_ms" and c.comparison == "<="]
        # Limits taken from a front have the six digits of its file.
        knee_ms = device.front.knee().values["latency_ms"] * (1 + 1e-5)
        limits_ms[device.name] = min(given) if given else knee_ms
        problem = make_problem(context, device.device, device.settings)
        values = evaluations.of_device(device.device).values(problem, models_known)
        allowed = np.isfinite(values).all(axis=1) & (problem.violation(as_losses(values, problem.columns)) <= 0)
        for limit in own_limits:
            if limit.value not in columns[device.name]:
                raise SearchError(
                    f"limit {limit}: models of {device.name} have no value {limit.value!r}; "
                    f"they have {', '.join(columns[device.name])}"
                )
            allowed &= np.array([limit.holds(v) for v in columns[device.name][limit.value]])
        within = columns[device.name]["latency_ms"] <= limits_ms[device.name]
        if not (allowed & within).any():
            latency = columns[device.name]["latency_ms"]
            fastest = latency[allowed].min() if allowed.any() else latency.min()
            raise SearchError(
                f"no model of {root} keeps the limits of {device.name} ({limits_ms[device.name]:.6g} ms and others); "
                f"the fastest takes {fastest:.4g} ms"
            )
        usable_rows.append(allowed & within)
    usable = np.stack(usable_rows)  # (devices, archs)
    latency = np.stack([c["latency_ms"] for c in columns.values()])
    scores = np.stack([c[score.name] for c in columns.values()])  # in the precision of each device
    merit = score.sign * scores
    # A model that no other beats in score and on every device is enough to look at.
    keep = np.flatnonzero(non_dominated(np.concatenate([-merit, np.where(usable, 0.0, 1.0)]).T))
    best = np.array([np.flatnonzero(u)[np.argmax(m[u])] for u, m in zip(usable, merit, strict=True)])
    highest = merit[np.arange(len(best)), best]
    regret = np.where(usable[:, keep], highest[:, None] - merit[:, keep], np.inf)
    _, distinct = np.unique(regret, axis=1, return_index=True)
    keep, regret = keep[np.sort(distinct)], regret[:, np.sort(distinct)]
    by_models: list[float] = []
    chosen: FleetChoice | None = None
    for k in range(1, len(devices) + 1):
        found = choose_fleet(regret, k)
        by_models.append(np.inf if found is None else found.worst)
        if k <= models:
            chosen = found
        if found is not None and found.worst <= 0:
            break
    if chosen is None:
        fewest = next(k for k, worst in enumerate(by_models, 1) if np.isfinite(worst))
        raise SearchError(
            f"{models} model(s) cannot keep the limits of all devices ("
            + ", ".join(f"{n} {limit:.4g} ms" for n, limit in limits_ms.items())
            + f"); at least {fewest} are needed: give --models {fewest}, or loosen a --limit"
        )
    services = tuple(
        DeviceService(
            device.name, limits_ms[device.name], models_known[m].arch.key, float(latency[i, m]), float(scores[i, m]),
            models_known[best[i]].arch.key, float(scores[i, best[i]]), float(highest[i] - merit[i, m]),
        )
        for i, (device, m) in enumerate(zip(devices, keep[list(chosen.serves)], strict=True))
    )  # fmt: skip
    keys = tuple(models_known[m].arch.key for m in keep[list(chosen.columns)])
    return Fleet(keys, score.title, score.unit, chosen.worst, chosen.exact, services, tuple(by_models))
