"""Which objective does a name in a recipe mean?"""

from __future__ import annotations

from collections.abc import Sequence

from hwnas.errors import PluginError, RecipeError
from hwnas.objectives.plugin import EvaluatedObjective, ExactObjective
from hwnas.registry import Registry
from hwnas.task import Task

PROXY_NAMES = (
    "grad_norm", "snip", "grasp", "synflow", "fisher", "jacob_cov", "naswot", "zen", "ntk_condition", "linear_regions",
    "flatness", "zico",
)  # fmt: skip

OBJECTIVES: Registry[ExactObjective | EvaluatedObjective] = Registry(
    "objective",
    {
        "latency_ms": "hwnas.objectives.exact:LATENCY",
        "params": "hwnas.objectives.exact:PARAMS",
        "macs": "hwnas.objectives.exact:MACS",
        "entropy": "hwnas.objectives.exact:ENTROPY",
        "peak_memory_kib": "hwnas.objectives.memory:PEAK_MEMORY",
        "model_size_kib": "hwnas.objectives.memory:MODEL_SIZE",
        "fallback_layers": "hwnas.objectives.exact:FALLBACK_LAYERS",
        "introspectability": "hwnas.objectives.introspectability:INTROSPECTABILITY",
        **{name: f"hwnas.objectives.proxies.by_name:{name.upper()}" for name in PROXY_NAMES},
    },
    needs=("name", "title", "direction", "cost"),
    page="hwnas.objectives.plugin",
)
"""Objectives by the names that recipes use; the scores of a recipe's task come besides, see `objective_of`."""

METHODS = {"exact": ("compile",), "evaluated": ("observer", "check")}
"""What each sort of objective also has."""


def objective_of(name: str, task: Task) -> ExactObjective | EvaluatedObjective:
    """Return the objective that a recipe means.

    Args:
        name: a score of the task, a name in `OBJECTIVES`, or ``package.module:object``.
        task: of the recipe.

    Raises:
        PluginError: there is none such, or it is none.
        RecipeError: it has no meaning for this task.
    """
    for score in task.scores:
        if score.name == name:
            from hwnas.objectives.task_score import TaskScore

            return TaskScore.of(score)
    plugin = OBJECTIVES.get(name, besides=[s.name for s in task.scores])
    if isinstance(plugin, type):
        raise PluginError(f"objective {name!r} is a class; name an object of it, such as {plugin.__name__}()")
    needed = METHODS.get(plugin.cost)
    if needed is None or plugin.direction not in ("min", "max"):
        raise PluginError(
            f"objective {name!r} has cost {plugin.cost!r} and direction {plugin.direction!r}; "
            "use 'exact' or 'evaluated', and 'min' or 'max'"
        )
    if missing := [n for n in needed if not hasattr(plugin, n)]:
        raise PluginError(f"objective {name!r} lacks {', '.join(missing)}; {OBJECTIVES.page} says what it needs")
    if plugin.cost == "evaluated":
        plugin.check(task)
    return plugin


def objectives_of(names: Sequence[str], task: Task) -> tuple[ExactObjective | EvaluatedObjective, ...]:
    """Return the objectives that a recipe names, in its order.

    Raises:
        PluginError, RecipeError: see `objective_of`.
        RecipeError: none is named, or one twice.
    """
    found = tuple(objective_of(name, task) for name in names)
    if len({p.name for p in found}) != len(found) or not found:
        raise RecipeError(f"give every objective once and at least one, got {list(names)}")
    return found


def evaluated_objectives(names: Sequence[str], task: Task) -> tuple[EvaluatedObjective, ...]:
    """Return those of a recipe's objectives that need an evaluation; the task's main score always comes first."""
    wanted = dict.fromkeys([task.score.name, *names])
    return tuple(p for p in (objective_of(name, task) for name in wanted) if p.cost == "evaluated")
