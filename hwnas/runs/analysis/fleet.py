"""Which few models serve all devices of a run, when each device must keep its latency limit?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from hwnas.errors import RecipeError
from hwnas.objectives import as_losses
from hwnas.pareto import non_dominated
if TYPE_CHECKING:
    from hwnas.runs.run import Run


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
    top1_percent: float
    best_key: str
    """Of the best model that it could have alone."""
    best_top1_percent: float
    regret_points: float
    """Percentage points of accuracy given up."""

@dataclass(frozen=True)
class Fleet:
    """Few models for many devices."""

    keys: tuple[str, ...]
    worst_regret_points: float
    exact: bool
    devices: tuple[DeviceService, ...]
    regret_by_models: tuple[float, ...]
    """Worst regret in points with 1, 2, ... models, up to the first that has none; infinite: so few cannot serve."""

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
    result = milp(
        np.ones(n), integrality=np.ones(n), bounds=Bounds(0, 1), options={"time_limit": SOLVER_S},
        constraints=LinearConstraint(serves[:, columns].astype(float), lb=1.0),
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
        LinearConstraint(each_row, 1.0, 1.0), LinearConstraint(only_chosen, ub=0.0), LinearConstraint(few, ub=float(k)),
    ]  # fmt: skip
    result = milp(
        cost, integrality=np.ones(pairs + n), bounds=Bounds(0, 1), constraints=constraints,
        options={"time_limit": SOLVER_S},
    )  # fmt: skip
    return np.flatnonzero(result.x[pairs:] > 0.5) if result.status == 0 else None

def plan_fleet(run: Run, models: int, limits_ms: Mapping[str, float] | None = None) -> Fleet:
    """Pick at most ``models`` evaluated archs of a run that serve all of its devices.

    A device can use a model that keeps its latency limit and the recipe's constraints; its regret is how much less
    accurate the model is than the best that the device could use.

    Args:
        run: searched.
        models: how many at most.
        limits_ms: latency limit by device; default: that of the knee of the device's front.

    Raises:
        RecipeError: fewer than 1 model, an unknown device, a limit that nothing meets, limits that so few models cannot
            meet together, or devices with weights of their own.
    """
    if models < 1:
        raise RecipeError(f"a fleet of {models} models serves nobody; give --models 1 or more")
    if own := [name for name in run.devices if run.adapted(name)]:
        raise RecipeError(
            f"the supernet of {run.folder} was adapted to {', '.join(own)}, so devices have no weights in common; "
            "search it with search.adaptation=null"
        )
    given = dict(limits_ms or {})
    if unknown := sorted(set(given) - set(run.devices)):
        raise RecipeError(f"limits name {unknown}; devices of {run.folder} are {', '.join(run.devices)}")
    limits = {name: given.get(name, run.front(name).knee().values["latency_ms"]) for name in run.devices}
    with run.archive() as archive:
        archs = archive.requested(run.devices)
        columns = {name: run.columns(device, archs, archive) for name, device in run.devices.items()}
        allowed = []
        for device in run.devices.values():
            problem = run.problem(device)
            values = run.values(problem, archs, archive)
            allowed.append(
                np.isfinite(values).all(axis=1) & (problem.violation(as_losses(values, problem.objectives)) <= 0)
            )
    top1 = next(iter(columns.values()))["top1_percent"]
    latency = np.stack([c["latency_ms"] for c in columns.values()])  # (devices, archs)
    # Limits taken from a front have the six digits of its file.
    usable = np.stack(allowed) & (latency <= np.array(list(limits.values()))[:, None] * (1 + 1e-5))
    for i, name in enumerate(run.devices):
        if not usable[i].any():
            fastest = latency[i][allowed[i]].min() if allowed[i].any() else latency[i].min()
            raise RecipeError(
                f"no model of {run.folder} runs on {name} within {limits[name]:g} ms; "
                f"the fastest takes {fastest:.4g} ms"
            )
    # A model that no other beats in accuracy and on every device is enough to look at.
    keep = np.flatnonzero(non_dominated(np.concatenate([-top1[None], np.where(usable, 0.0, 1.0)]).T))
    best = np.array([np.flatnonzero(u)[np.argmax(top1[u])] for u in usable])
    regret = np.where(usable[:, keep], top1[best][:, None] - top1[keep][None], np.inf)
    _, distinct = np.unique(regret, axis=1, return_index=True)
    keep, regret = keep[np.sort(distinct)], regret[:, np.sort(distinct)]
    by_models: list[float] = []
    chosen: FleetChoice | None = None
    for k in range(1, len(run.devices) + 1):
        found = choose_fleet(regret, k)
        by_models.append(np.inf if found is None else found.worst)
        if k <= models:
            chosen = found
        if found is not None and found.worst <= 0:
            break
    if chosen is None:
        fewest = next(k for k, worst in enumerate(by_models, 1) if np.isfinite(worst))
        raise RecipeError(
            f"{models} model(s) cannot keep the limits of all devices ("
            + ", ".join(f"{n} {limit:.4g} ms" for n, limit in limits.items())
            + f"); at least {fewest} are needed: give --models {fewest}, or loosen a --limit"
        )
    services = tuple(
        DeviceService(
            name, limits[name], archs[m].key, float(latency[i, m]), float(top1[m]), archs[best[i]].key,
            float(top1[best[i]]), float(top1[best[i]] - top1[m]),
        )
        for i, (name, m) in enumerate(zip(run.devices, keep[list(chosen.serves)], strict=True))
    )  # fmt: skip
    keys = tuple(archs[m].key for m in keep[list(chosen.columns)])
    return Fleet(keys, chosen.worst, chosen.exact, services, tuple(by_models))
