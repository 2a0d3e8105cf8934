"""How does one look at a run in MLflow? As a run, below it one for each device, below these one for each model."""

from __future__ import annotations

import hashlib
import logging
import math
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hwnas.errors import RecipeError
from hwnas.files import make_folder
from hwnas.runs.analysis.decisions import flat_settings
from hwnas.runs.evaluations import Evaluations
from hwnas.runs.front import FrontModel
from hwnas.runs.manifest import package_versions
from hwnas.runs.tracking.trials import TrackedDevice, parameters, problem_of, trials_of
from hwnas.train.monitor import read_log

OF_RUN = "hwnas.run"
"""Tag: digest of the run's folder, by which runs that are logged again replace those of before."""
AT_ONCE = 1000
"""Metrics in one call; MLflow takes no more."""
LONGEST = 5000
"""Letters of a parameter."""


def write_runs(evaluations: Evaluations, devices: Sequence[TrackedDevice], where: Path | str) -> str:
    """Log a run: settings, training, every evaluation, and the models of the fronts with their numbers.

    Logged again, it replaces what was logged of it before.

    Args:
        evaluations: of the run.
        devices: whose search has begun.
        where: SQLite file, or the address of a tracking server.

    Returns:
        What opens it.

    Raises:
        RecipeError: the server does not answer, or refuses.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    address = where
    if isinstance(where, Path):
        make_folder(where.parent)
        address = f"sqlite:///{where}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the packages that MLflow stands on
        try:
            client = MlflowClient(tracking_uri=str(address))
            _Writer(client, evaluations, where).write(devices)
        except (MlflowException, OSError) as error:
            raise RecipeError(f"{address} cannot be written by MLflow: {error}; give another --out") from None
    return f"mlflow ui --backend-store-uri {address}"


class _Writer:
    def __init__(self, client: Any, evaluations: Evaluations, where: Path | str) -> None:
        self._client = client
        self._evaluations = evaluations
        context = evaluations.context
        name = context.recipe.name
        found = client.get_experiment_by_name(name)
        artifacts = where.parent.absolute().joinpath("artifacts").as_uri() if isinstance(where, Path) else None
        self._experiment = client.create_experiment(name, artifacts) if found is None else found.experiment_id
        self._tag = hashlib.sha256(str(context.folder.root.absolute()).encode()).hexdigest()[:16]

    def write(self, devices: Sequence[TrackedDevice]) -> None:
        context, client = self._evaluations.context, self._client
        for old in client.search_runs([self._experiment], f"tags.`{OF_RUN}` = '{self._tag}'"):
            client.delete_run(old.info.run_id)
        run = self._begin(context.folder.root.name, None, package_versions())
        self._parameters(run, flat_settings(context.recipe))
        log = context.folder.train / "metrics.jsonl"
        lines = read_log(log)[0] if log.exists() else []
        self._metrics(run, ((name, line[name], line["step"]) for line in lines for name in ("loss", "lr")))
        for path in (context.folder.report, context.folder.recipe, context.folder.manifest):
            if path.exists():
                client.log_artifact(run, str(path))
        for device in devices:
            self._device(device, run)
        client.set_terminated(run)

    def _device(self, device: TrackedDevice, parent: str) -> None:
        client, problem = self._client, problem_of(self._evaluations, device)
        run = self._begin(device.name, parent, {"device": device.device.profile.title})
        self._parameters(run, flat_settings(device.settings))
        names = [objective.name for objective in problem.objectives]
        trials = trials_of(self._evaluations, device)
        self._metrics(
            run,
            (
                (name, value, step)
                for step, one in enumerate(trials)
                for name, value in zip(names, one.values, strict=True)
            ),
        )
        if device.front is not None:
            client.log_artifact(run, str(self._evaluations.context.folder.device(device.name).front))
            archs = self._evaluations.archive.archs_of([model.key for model in device.front])
            for model, arch in zip(device.front, archs, strict=True):
                self._model(model, parameters(arch), run)
        client.set_terminated(run)

    def _model(self, model: FrontModel, chosen: Mapping[str, str], parent: str) -> None:
        run = self._begin(model.key, parent, {"device": model.device})
        self._parameters(run, chosen)
        self._metrics(run, ((name, value, 0) for name, value in model.values.items()))
        self._client.set_terminated(run)

    def _begin(self, name: str, parent: str | None, tags: Mapping[str, str]) -> str:
        own = {OF_RUN: self._tag, **({} if parent is None else {"mlflow.parentRunId": parent})}
        run = self._client.create_run(self._experiment, run_name=name, tags={**tags, **own})
        return str(run.info.run_id)

    def _parameters(self, run: str, values: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        found = [Param(_name(name), value[:LONGEST]) for name, value in values.items()]
        for i in range(0, len(found), 100):
            self._client.log_batch(run, params=found[i : i + 100])

    def _metrics(self, run: str, values: Iterable[tuple[str, float, int]]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        found = [Metric(_name(n), float(value), now, step) for n, value, step in values if math.isfinite(value)]
        for i in range(0, len(found), AT_ONCE):
            self._client.log_batch(run, metrics=found[i : i + AT_ONCE])


def _name(text: str) -> str:
    """A name of the letters that MLflow allows."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in text)[:250]
