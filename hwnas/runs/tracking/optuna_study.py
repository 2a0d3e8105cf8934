"""How does one look at a search in optuna-dashboard? As a study a device, one trial an evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hwnas.errors import OutputError, one_line
from hwnas.files import make_folder
from hwnas.runs.evaluations import Evaluations
from hwnas.runs.tracking.trials import TrackedDevice, Trial, parameter, problem_of, trials_of
from hwnas.space import SearchSpace

NAME = "trial"
"""Attribute of a trial that tells it from all others."""


def write_study(evaluations: Evaluations, devices: Sequence[TrackedDevice], where: Path | str) -> str:
    """Write the evaluations of devices as Optuna studies, ``<recipe>/<device>``; what is there already stays.

    Objectives are in their own units, limits are constraints of the trials, choices that an arch switches off are
    parameters that its trial does not have.

    Args:
        evaluations: of the run.
        devices: whose search has begun.
        where: SQLite file, which may have studies already, or the address of another database.

    Returns:
        What opens it.

    Raises:
        OutputError: the database cannot be opened or written.
    """
    import optuna
    from sqlalchemy.exc import SQLAlchemyError

    if isinstance(where, Path):
        make_folder(where.parent)
    address = f"sqlite:///{where}" if isinstance(where, Path) else where
    quiet = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of features that optuna calls experimental
            storage = optuna.storages.RDBStorage(address)
            for device in devices:
                problem = problem_of(evaluations, device)
                study = optuna.create_study(
                    study_name=f"{evaluations.context.recipe.name}/{device.name}", storage=storage,
                    directions=[{"min": "minimize", "max": "maximize"}[o.direction] for o in problem.objectives],
                    load_if_exists=True,
                )  # fmt: skip
                study.set_metric_names([o.name for o in problem.objectives])
                if problem.limits:
                    study.set_user_attr("limits", [str(limit) for limit in problem.limits])
                known = {trial.user_attrs.get(NAME) for trial in study.get_trials(deepcopy=False)}
                fresh = [one for one in trials_of(evaluations, device) if one.name not in known]
                study.add_trials([_trial(one, problem.space) for one in fresh])
            storage.remove_session()
            storage.engine.dispose()
    except (SQLAlchemyError, ImportError) as error:  # of a database whose driver is not installed
        reason = one_line(str(error.__cause__ or error).partition("(Background")[0], 200)
        raise OutputError(
            f"no study can be written to {where}: {reason}; give a file such as --out study.db, or the address of a "
            "database whose driver is installed"
        ) from None
    finally:
        optuna.logging.set_verbosity(quiet)
    return f"optuna-dashboard {address}"


def _trial(one: Trial, space: SearchSpace) -> Any:
    import optuna

    state = optuna.trial.TrialState.FAIL if one.failed else optuna.trial.TrialState.COMPLETE
    choices = {choice.name: choice for choice in space.choices}
    about = {
        NAME: one.name, "key": one.arch.key, "weights": one.trained, "weights_version": one.weights_version,
        "images": one.images, "duration_s": one.duration_s, "seed": one.seed,
    }  # fmt: skip
    return optuna.trial.create_trial(
        state=state, values=None if one.failed else one.values,
        params={name: parameter(option) for name, option in one.arch.items},
        distributions={
            name: optuna.distributions.CategoricalDistribution([parameter(o) for o in choices[name].options])
            for name in one.arch
        },
        user_attrs=about,
        system_attrs={"constraints": list(one.violations)} if one.violations and not one.failed else {},
    )  # fmt: skip
