"""What can be done with a run folder? Train, table, search, export, check, report, fine-tune: the verbs.

Every verb first looks for what an earlier start left; what is complete is not computed again. Files appear whole or
not at all, and nothing is written outside the lock, so a run may be killed at any moment and started again. A run only
gains: ``recipe.yaml`` is never changed, another device or another search adds to what is there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from hwnas.arguments import checked_arguments
from hwnas.errors import HwnasError, RecipeError
from hwnas.export.bundle import Bundle
from hwnas.export.forms import FORMS, check_forms
from hwnas.files import free_folder, n_ranks, write_json
from hwnas.finetune import FinetuneConfig, FinetuneResult
from hwnas.latency.build import build_missing_tables, needs_table
from hwnas.latency.validity import holds_now
from hwnas.report.html import write_report
from hwnas.runs.analysis.baseline import Baseline, compute_of_run, hand_scaled_baseline
from hwnas.runs.analysis.fleet import Fleet, plan_fleet
from hwnas.runs.analysis.quality import SupernetQuality, supernet_quality
from hwnas.runs.analysis.results import collect
from hwnas.runs.budget import parse_duration, size_search
from hwnas.runs.choose import choose_to_finish, front_is_whole, mend_front, update_front, write_models
from hwnas.runs.devices import keep_device, load_devices
from hwnas.runs.direct import chosen_directly, search_directly
from hwnas.runs.evaluations import Evaluations
from hwnas.runs.export import candidates_of_front, chosen_models, export_front, export_model, keys_meant
from hwnas.runs.finetuning import finetune_model
from hwnas.runs.finish import finish_front
from hwnas.runs.front import copy_bundle
from hwnas.runs.history import DeviceSearch
from hwnas.runs.latency_check import check_models, keep_measured, was_checked
from hwnas.runs.plan import Strategy, planned_search, read_plan, with_time
from hwnas.runs.problem import check_searchable, read_limits
from hwnas.runs.recipe import with_values
from hwnas.runs.search import changed_settings, search_device
from hwnas.runs.staged import check_strategy, search_staged
from hwnas.runs.view import RunView
from hwnas.space import Arch
from hwnas.supernet import SuperNet
from hwnas.train.loop import train_supernet

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _writes(verb: Callable[Concatenate[Run, _P], _R]) -> Callable[Concatenate[Run, _P], _R]:
    """Let one process at a time do ``verb`` in a run folder; of several that belong together only to train."""

    @wraps(verb)
    def alone(run: Run, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        if n_ranks() > 1 and verb.__name__ != "train":
            raise RecipeError(
                f"{n_ranks()} processes were started by torchrun, but only `hwnas train` shares its work among them; "
                "train so, then go on with one process and the same --out"
            )
        with run.context.folder.lock(), run.context.recorded(verb.__name__.partition("_")[0]):
            if verb.__name__ not in ("train", "tables"):
                run.mend_fronts()
            return verb(run, *args, **kwargs)

    return alone


@dataclass
class Run(RunView):
    """One run folder and the verbs that fill it."""

    def mend_fronts(self) -> None:
        """Write fronts again that are not as they were written; the archive has what they hold."""
        folder = self.context.folder
        damaged = [n for n in self.searched() if not front_is_whole(folder.device(n), self.history(n))]
        for name in damaged:
            self.context.told_for(name)("write the damaged front again", 1, 1)
            with self.evaluations() as evaluations:
                mend_front(evaluations, self.devices[name], self.settings(name))

    @_writes
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

    @_writes
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

    @_writes
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
        self._refresh_report()

    @_writes
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
                for name in group:
                    keep_device(self.context.folder, self.devices[name], wanted[name].device)
                    search = {"direct": search_directly, "staged": search_staged}.get(strategy, search_device)
                    search(evaluations, self.devices[name], wanted[name])
                devices = {name: (self.devices[name], wanted[name]) for name in group}
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

    @_writes
    @checked_arguments
    def export(
        self,
        device: str | None = None,
        key: str | None = None,
        limits: Sequence[str] = (),
        knee: bool = False,
        fastest: bool = False,
        best: bool = False,
        int8: bool | None = None,
        out: str | Path | None = None,
        select: Sequence[str] = (),
        fp16: bool | None = None,
        image: bool | None = None,
        static: bool | None = None,
        openvino: bool | None = None,
        litert: bool | None = None,
        measure: bool = False,
    ) -> list[Bundle]:
        """Write the bundles of all fronts, and return those that are chosen.

        Args:
            device: whose front is meant; default: every device's.
            key: first digits of a model's key; it need not be on a front, any evaluated arch will do.
            limits: only models that keep them; see `search`.
            knee: of these the one nearest to the best score and latency at once.
            fastest: of these the fastest.
            best: of these the one of best score.
            int8: whether every bundle has ``model.int8.onnx``, too; default: as the recipe says.
            out: also copy the chosen bundles to ``out/<device>/<key>``; other models that lie there stay.
            select: selections such as ``best:local-cpu:latency_ms<=1`` or ``different:4``; see `Front.select`.
            fp16: whether every bundle has ``model.fp16.onnx``, too; default: as the recipe says.
            image: whether every bundle has files that take images as bytes, too (``*.image.onnx``).
            static: whether every bundle has files for a batch of one, too (``*.static.onnx``).
            openvino: whether every bundle has OpenVINO's format, too (``model.openvino.xml``).
            litert: whether every bundle has a file for LiteRT, too (``model.tflite``).
            measure: time the files of every number format on devices that are at hand, too; see `check_latency`.

        Raises:
            SearchError: no model keeps the limits, or a selection of another form.
            ResumeError: the run has no front, or no single arch has this key.
        """
        names = self.with_fronts() if device is None else [self.context.device(device).name]
        read_limits(limits, names)
        formats = self.recipe.export.formats(
            int8=int8, fp16=fp16, image=image, static=static, openvino=openvino, litert=litert
        )
        check_forms(formats & FORMS.keys())
        rules = {"knee": knee, "fastest": fastest, "best": best}
        chosen = chosen_models([self.front(n) for n in names], select, key, limits, rules)
        others = [k for k in keys_meant(select, key) if not any(model.key.startswith(k) for model in chosen)]
        with self.evaluations() as evaluations:
            archs = [self.find(digits, evaluations) for digits in others]  # a mistake costs no time
            self.write_bundles(formats)
            if measure:
                self.check_latency()
            bundles = [model.export(out) if out is not None else Bundle(model.folder) for model in chosen]
            bundles += [self._export_other(evaluations, names[0], arch, formats, out) for arch in archs]
        self._refresh_report()
        return bundles

    @_writes
    def write_bundles(self, formats: Collection[str] | None = None) -> None:
        """Write the bundles of all fronts that are not there, and remove those of models that left them.

        Args:
            formats: number formats besides float32, such as ``int8``; default: as the recipe says.
        """
        wanted = self.recipe.export.formats() if formats is None else formats
        with self.evaluations() as evaluations:
            for name in self.with_fronts():
                export_front(evaluations, self.searched_device(name), wanted, self.context.told_for(name))

    def _refresh_report(self) -> None:
        """Write the page again, where there is one, so that it shows what the run has now."""
        if not self.context.folder.report.exists():
            return
        try:
            note = str(self.report())
        except HwnasError as error:  # what was asked for is done; `hwnas report` says it again
            note = f"not written: {error}"
        self.context.progress("report", 1, 1, note)

    def _export_other(
        self, evaluations: Evaluations, device: str, arch: Arch, formats: Collection[str], out: str | Path | None
    ) -> Bundle:
        """Write the bundle of an evaluated arch that is on no front."""
        folder = self.context.folder.other_models / device / arch.key
        model = self.candidate(device, arch, evaluations)
        bundle = export_model(evaluations, self.devices[device], self.settings(device), model, folder, formats)
        return bundle if out is None else copy_bundle(bundle.folder, Path(out) / device / arch.key)

    @_writes
    def check_latency(self) -> None:
        """Time the exported models of every device whose target is at hand, beside their estimates."""
        for name in self.searched():
            device, folder, front = self.devices[name], self.context.folder.device(name), self.front(name)
            if not holds_now(device) or was_checked(folder.latency_check, list(front)):
                continue
            with self.evaluations() as evaluations:
                models = candidates_of_front(evaluations, front)
                archs = [m.arch for m in models]
                told = self.context.told_for(name)
                checked = check_models(self.layout, device, folder, list(front), archs, told)
                keep_measured(evaluations.archive, name, checked, models, self.recipe.search.seed)
                write_models(evaluations, device, self.settings(name), models)
            write_json(folder.latency_check, checked.values)

    @_writes
    def report(self, others: Sequence[Run] = ()) -> Path:
        """Write ``report.html`` and ``fronts.png`` over all devices that were searched; return the HTML file.

        Args:
            others: runs on the same data, such as ones of other seeds: the page shows what all, half and one of them
                reached on each device.

        Raises:
            RecipeError: a run on other data, or one that has no device in common.
        """
        with self.evaluations() as evaluations:
            devices = [self.searched_device(n) for n in self.with_fronts()]
            fronts = {other.folder: {n: other.front(n) for n in other.searched()} for other in others}
            results = collect(evaluations, devices, fronts)
        return write_report(results, self.folder)

    @_writes
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
        name = self.context.device(device).name if device is not None else self.with_fronts()[0]
        given = {k: v for k, v in (("epochs", epochs), ("lr", lr)) if v is not None}
        config = with_values(config or self.recipe.finetune, given, "finetune")
        with self.evaluations() as evaluations:
            arch = self.find(key, evaluations)
            folder = free_folder((self.context.folder.finetuned if out is None else Path(out)) / name / arch.key)
            model = self.candidate(name, arch, evaluations)
            made = finetune_model(evaluations, self.devices[name], self.settings(name), model, folder, config)
            for searched in self.with_fronts():
                update_front(evaluations, self.devices[searched], self.settings(searched))
        self.write_bundles()
        self._refresh_report()
        return made

    @checked_arguments
    def fleet(self, models: int, limits: Sequence[str] = ()) -> Fleet:
        """Pick at most ``models`` evaluated archs that serve all searched devices; see `plan_fleet`.

        Args:
            models: how many at most.
            limits: such as ``local-cpu:latency_ms<=5``; a device without a latency limit keeps that of its knee.
        """
        names = self.with_fronts()
        parsed = read_limits(limits, names)
        with self.evaluations() as evaluations:
            devices = [self.searched_device(n) for n in names]
            return plan_fleet(evaluations, devices, models, parsed)

    @checked_arguments
    def supernet_quality(
        self, n_subnets: int = 6, epochs: float = 10, lr: float | None = None, seed: int = 0,
        finish_epochs: float = 0.0, device: str | None = None,
    ) -> SupernetQuality:  # fmt: skip
        """Compare what subnets inherit with what they reach when trained alone; see `supernet_quality`."""
        timed = None if device is None else self.context.device(device)
        return supernet_quality(self.context, n_subnets, epochs, lr, seed, finish_epochs, timed)

    @_writes
    @checked_arguments
    def baseline(self, devices: Sequence[str] | None = None, lr: float | None = None) -> list[Baseline]:
        """Train the family scaled by hand, at as many points and with as much compute as the run; report it beside.

        Args:
            devices: whose latencies are met; default: every device that has a front.
            lr: peak learning rate; default: that of the recipe's first phase.

        Raises:
            RecipeError: the run has no plan to say what it cost.
            MissingBlockError: a device can neither price nor time networks of other widths.
        """
        names = self.with_fronts() if devices is None else self.named(devices)
        gmacs, time_s = compute_of_run(self.context, len(self.with_fronts()))
        return [
            hand_scaled_baseline(
                self.context, self.devices[name], [m.latency_ms for m in self.front(name)], gmacs, time_s, lr
            )
            for name in names
        ]

    def _settings_to_search(self, name: str) -> DeviceSearch:
        """Settings in force; of a device that was never searched those of the recipe, as the run was planned."""
        settings, plan = self.context.settings(name), read_plan(self.context)
        searched = self.context.folder.device(name).settings.exists()
        return settings if searched or plan is None else planned_search(settings, plan)

    def _added(self, devices: Sequence[str]) -> dict[str, str | None]:
        """Names of devices, known ones or new ones, with how they were given."""
        known = [name for name in devices if name in self.devices]
        loaded = load_devices(
            self.context.folder, [d for d in devices if d not in known], self.recipe.supernet.precisions
        )
        self.context.devices.update(loaded)
        given = dict(zip(loaded, [d for d in devices if d not in known], strict=True))
        order = [*known, *loaded]
        return {name: given.get(name) for name in order}
