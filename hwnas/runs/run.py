"""What can be done with a run folder? Train, table, search, fine-tune, and what `hwnas.runs.handover` adds: the verbs.

Every verb first looks for what an earlier start left; what is complete is not computed again. Files appear whole or
not at all, and nothing is written outside the lock, so a run may be killed at any moment and started again. A run only
gains: ``recipe.yaml`` is never changed, another device or another search adds to what is there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hwnas.arguments import checked_arguments
from hwnas.errors import RecipeError
from hwnas.export.bundle import Bundle
from hwnas.files import free_folder
from hwnas.finetune import FinetuneConfig, FinetuneResult
from hwnas.latency.build import build_missing_tables, needs_table
from hwnas.runs.budget import parse_duration, size_search
from hwnas.runs.choose import choose_to_finish, update_front
from hwnas.runs.devices import check_some, keep_device, load_devices
from hwnas.runs.direct import chosen_directly, search_directly
from hwnas.runs.evaluations import Candidate, Evaluations
from hwnas.runs.exits import TunedExits, tune_exits
from hwnas.runs.finetuning import finetune_model
from hwnas.runs.finish import finish_front
from hwnas.runs.handover import RunHandover, writes
from hwnas.runs.history import DeviceSearch
from hwnas.runs.plan import Strategy, planned_search, read_plan, with_time
from hwnas.runs.problem import check_searchable, read_limits
from hwnas.runs.reach import check_reachable
from hwnas.runs.recipe import with_values
from hwnas.runs.search import changed_settings, search_device
from hwnas.runs.staged import check_strategy, search_staged
from hwnas.supernet import SuperNet
from hwnas.supernet.exits import Ordering
from hwnas.train.loop import train_supernet


@dataclass
class Run(RunHandover):
    """One run folder and the verbs that fill it."""

    @writes
    def train(self) -> SuperNet:
        """Train the supernet, or read it where it is trained already.

        Raises:
            RecipeError: the recipe trains one for every device, between its searches.
        """
        recipe, folder = self.recipe, self.context.folder
        if recipe.search.strategy == "staged":
            raise RecipeError(
                f"{recipe.name} trains a supernet for each device, stage by stage between searches (search.strategy "
                "staged), so there is none to train alone; use `hwnas run` or `hwnas search`"
            )
        self.context.supernet = train_supernet(
            recipe.supernet, recipe.train, recipe.data, self.splits, folder.train, self.context.progress
        )
        self.context.__dict__.pop("trained_weights", None)  # asked for before there was a supernet, it was empty
        return self.context.supernet

    @writes
    @checked_arguments
    def tables(self, devices: Sequence[str] | None = None) -> None:
        """Measure the block tables of devices that are measured on the spot and have none yet."""
        for name in self.named(devices):
            device = self.context.devices[name]
            if needs_table(device):
                self.context.devices[name] = build_missing_tables(
                    self.layout, lambda own: self.context.folder.device(own).table, device, self.recipe.tables,
                    self.context.told_for(name),
                )  # fmt: skip

    @writes
    @checked_arguments
    def search(
        self,
        devices: Sequence[str] | None = None,
        evaluations: int | None = None,
        budget: str | float | None = None,
        limits: Sequence[str] | None = None,
        searcher: str | None = None,
    ) -> None:
        """Search devices and choose their fronts from everything that is known.

        What is not given is as in the device's last search, or as the recipe says.

        Args:
            devices: names or folders of profiles, also new ones; default: every device of the run.
            evaluations: archs to evaluate for each device.
            budget: time for the search of all of them, such as ``20min`` or seconds, which sizes it; in a run without
                a supernet, for the training of their models.
            limits: such as ``latency_ms<=5`` or, for one device, ``edge-tpu:latency_ms<=3``; an empty list lifts them.
            searcher: algorithm; see `hwnas.search.searchers.SEARCHERS`.

        Raises:
            SearchError: limits that contradict each other, or that no model keeps.
            CheckpointError: the supernet is not trained yet.
        """
        if budget is not None and evaluations is not None:
            raise RecipeError("budget and evaluations both size the search; give one of them")
        given = dict.fromkeys(self.devices) if devices is None else self._added(devices)
        parsed = None if limits is None else read_limits(limits, given)
        wanted = {}
        for name, folder in given.items():
            wanted[name] = changed_settings(self._settings_to_search(name), name, folder, parsed, evaluations, searcher)
        if self.strategy(wanted) == "direct" and (evaluations is not None or searcher is not None):
            raise RecipeError(
                f"{self.folder} has no supernet to search: its models are chosen and trained directly, so evaluations "
                "and searcher mean nothing; train one with `hwnas run RECIPE search.strategy=supernet --out "
                f"{self.folder}`"
            )
        self.search_with(wanted, None if budget is None else parse_duration(budget))
        self.refresh_report()

    @writes
    def search_with(
        self, wanted: Mapping[str, DeviceSearch], budget_s: float | None = None, at_least: int = 0
    ) -> None:  # fmt: skip
        """Search devices with complete settings; see `search`.

        Modelled devices come first: their fronts must not depend on timings of this machine. An evaluation serves all
        devices that are searched after it, and the fronts of a group are chosen from all archs seen so far.
        """
        strategy = self.strategy(wanted)
        check_strategy(self.context, wanted, budget_s)
        if strategy == "direct" and budget_s is not None:
            wanted = {n: with_time(s, budget_s / len(wanted)) for n, s in wanted.items()}
        if strategy == "supernet":
            self.context.supernet  # noqa: B018 (an untrained run is an error before tables are measured)
        check_searchable(self.context, wanted)
        self.tables(list(wanted))
        for name, settings in wanted.items():
            check_reachable(self.context, self.devices[name], settings)
        if budget_s is not None and strategy == "supernet":
            plan = size_search(self.context, self.context.trained_evaluator, wanted, budget_s, at_least)
            self.context.progress("budget", 1, 1, str(plan))
            sized = {"evaluations": plan.evaluations, "validation_images": plan.validation_images}
            wanted = {
                n: s.model_copy(update={"search": with_values(s.search, sized, "search")}) for n, s in wanted.items()
            }
        timed = [name for name in wanted if self.devices[name].profile.conditions is not None]
        with self.evaluations() as evaluations:
            for group in ([name for name in wanted if name not in timed], timed):
                devices = {name: (self.devices[name], wanted[name]) for name in group}
                for device, settings in devices.values():
                    keep_device(self.context.folder, device, settings.device)
                if strategy == "direct":
                    search_directly(evaluations, devices)
                else:
                    search = search_staged if strategy == "staged" else search_device
                    for device, settings in devices.values():
                        search(evaluations, device, settings)
                finish_front(evaluations, devices, chosen_directly if strategy == "direct" else choose_to_finish)
                for name in group:
                    update_front(evaluations, self.devices[name], wanted[name])

    def strategy(self, wanted: Mapping[str, DeviceSearch]) -> Strategy:
        """Return how devices are searched with these settings: as they say, or as the run was planned.

        A run that has a supernet goes on with it, unless the settings say otherwise.
        """
        asked = {settings.search.strategy for settings in wanted.values()}
        for only in ("direct", "staged"):
            if asked == {only}:
                return only
        plan = read_plan(self.context)
        trained = (self.context.folder.train / "supernet.safetensors").exists()
        planned = plan is not None and plan.strategy == "direct" and not trained
        return "direct" if planned and asked == {"auto"} else "supernet"

    @writes
    @checked_arguments
    def finetune(
        self,
        key: str,
        out: str | Path | None = None,
        config: FinetuneConfig | None = None,
        device: str | None = None,
        epochs: float | None = None,
        lr: float | None = None,
    ) -> tuple[FinetuneResult, Bundle]:
        """Fine-tune one evaluated arch with distillation from the largest net; write a new bundle.

        A model that became better is an evaluation of its own, and stands on the fronts where it belongs.

        Args:
            key: of the arch; the first few digits are enough where they are unique.
            out: the bundle goes to ``out/<device>/<key>``, or, beside another, to ``<key>-2``; default: in the run.
            config: default: that of the recipe.
            device: whose latency the bundle states, and whose weights are meant where they were adapted; default: the
                first device with a front.
            epochs: passes over the training images, in place of the config's.
            lr: peak learning rate, in place of the config's.

        Raises:
            ResumeError: no such arch in the archive.
        """
        config = self._finetune_config(config, epochs, lr)
        with self.evaluations() as evaluations:
            name, model = self._meant(key, device, evaluations)
            folder = self._tuned_folder(out, name, model.arch.key)
            made = finetune_model(evaluations, self.devices[name], self.settings(name), model, folder, config)
            for searched in self.with_fronts():
                update_front(evaluations, self.devices[searched], self.settings(searched))
        self.write_bundles()
        self.refresh_report()
        return made

    @writes
    @checked_arguments
    def finetune_exits(
        self,
        key: str,
        out: str | Path | None = None,
        config: FinetuneConfig | None = None,
        device: str | None = None,
        epochs: float | None = None,
        lr: float | None = None,
        ordering: Ordering = "uniform",
    ) -> TunedExits:
        """Attach the earlier exits of a model of a supernet with early exits, train all together, and choose of them.

        Args:
            key: of the arch; the first few digits are enough where they are unique.
            out: the folder is ``out/<device>/<key>-exits``, or, beside another, ``<key>-exits-2``; default: in the run.
            config: default: that of the recipe; exits learn from the labels alone.
            device: whose latencies are stated; default: the first device with a front.
            epochs: passes over the training images, in place of the config's.
            lr: peak learning rate, in place of the config's.
            ordering: weights of the exits, first to last: ``uniform``, ``ascending``, ``descending``, or ``mix``:
                falling for losses, growing for outputs.

        Raises:
            SearchError: there are no earlier exits.
            ResumeError: no such arch in the archive.
        """
        config = self._finetune_config(config, epochs, lr)
        with self.evaluations() as evaluations:
            name, model = self._meant(key, device, evaluations)
            evaluations.evaluate([model], {self.context.score.name: self.context.score.name})
            folder = self._tuned_folder(out, name, f"{model.arch.key}-exits")
            return tune_exits(evaluations, self.devices[name], model, folder, config, ordering)

    def _finetune_config(self, config: FinetuneConfig | None, epochs: float | None, lr: float | None) -> FinetuneConfig:
        """The given config or the recipe's, with the values that were named besides."""
        given = {k: v for k, v in (("epochs", epochs), ("lr", lr)) if v is not None}
        return with_values(config or self.recipe.finetune, given, "finetune")

    def _meant(self, key: str, device: str | None, evaluations: Evaluations) -> tuple[str, Candidate]:
        """The named device, or the first with a front, and the model that it has of an arch."""
        name = self.context.device(device).name if device is not None else self.with_fronts()[0]
        return name, self.candidate(name, self.find(key, evaluations), evaluations)

    def _tuned_folder(self, out: str | Path | None, device: str, name: str) -> Path:
        """A free folder for what becomes of a model."""
        return free_folder((self.context.folder.finetuned if out is None else Path(out)) / device / name)

    def _settings_to_search(self, name: str) -> DeviceSearch:
        """Settings in force; of a device that was never searched those of the recipe, as the run was planned."""
        settings, plan = self.context.settings(name), read_plan(self.context)
        searched = self.context.folder.device(name).settings.exists()
        return settings if searched or plan is None else planned_search(settings, plan)

    def _added(self, devices: Sequence[str]) -> dict[str, str | None]:
        """Names of devices, known ones or new ones, with how they were given."""
        check_some(devices)
        known = [name for name in devices if name in self.devices]
        loaded = load_devices(
            self.context.folder, [d for d in devices if d not in known], self.recipe.supernet.precisions
        )
        self.context.devices.update(loaded)
        given = dict(zip(loaded, [d for d in devices if d not in known], strict=True))
        order = [*known, *loaded]
        return {name: given.get(name) for name in order}
