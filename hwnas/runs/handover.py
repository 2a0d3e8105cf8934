"""What leaves a run? Bundles, measured latencies, a report, a fleet, and what the models are worth beside others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from hwnas.arguments import checked_arguments
from hwnas.errors import HwnasError, RecipeError
from hwnas.export.bundle import Bundle
from hwnas.export.forms import FORMS, check_forms
from hwnas.files import n_ranks, write_json
from hwnas.latency.validity import holds_now
from hwnas.report.html import write_report
from hwnas.runs.analysis.baseline import Baseline, compute_of_run, hand_scaled_baselines
from hwnas.runs.analysis.fleet import Fleet, plan_fleet
from hwnas.runs.analysis.quality import SupernetQuality, supernet_quality
from hwnas.runs.analysis.results import collect
from hwnas.runs.choose import front_is_whole, mend_front, write_models
from hwnas.runs.evaluations import Evaluations
from hwnas.runs.export import candidates_of_front, chosen_models, export_front, export_model, keys_meant
from hwnas.runs.front import copy_bundle
from hwnas.runs.latency_check import check_models, keep_measured, was_checked
from hwnas.runs.problem import read_limits
from hwnas.runs.view import RunView
from hwnas.space import Arch

_P = ParamSpec("_P")
_R = TypeVar("_R")
_Self = TypeVar("_Self", bound="RunHandover")


def writes(verb: Callable[Concatenate[_Self, _P], _R]) -> Callable[Concatenate[_Self, _P], _R]:
    """Let one process at a time do ``verb`` in a run folder; of several that belong together only to train."""

    @wraps(verb)
    def alone(run: _Self, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
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
class RunHandover(RunView):
    """One run folder, and the verbs that hand over what was found in it."""

    def mend_fronts(self) -> None:
        """Write fronts again that are not as they were written; the archive has what they hold."""
        folder = self.context.folder
        damaged = [n for n in self.searched() if not front_is_whole(folder.device(n), self.history(n))]
        for name in damaged:
            self.context.told_for(name)("write the damaged front again", 1, 1)
            with self.evaluations() as evaluations:
                mend_front(evaluations, self.devices[name], self.settings(name))

    @writes
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
            litert: whether every bundle has a file for LiteRT, too (``model.tflite``, and with ``int8`` or for a device
                in 8 bits ``model.int8.tflite``).
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
        self.refresh_report()
        return bundles

    @writes
    def write_bundles(self, formats: Collection[str] | None = None) -> None:
        """Write the bundles of all fronts that are not there, and remove those of models that left them.

        Args:
            formats: number formats besides float32, such as ``int8``; default: as the recipe says.
        """
        wanted = self.recipe.export.formats() if formats is None else formats
        with self.evaluations() as evaluations:
            for name in self.with_fronts():
                export_front(evaluations, self.searched_device(name), wanted, self.context.told_for(name))

    def refresh_report(self) -> None:
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

    @writes
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

    @writes
    def report(self, others: Sequence[RunView] = ()) -> Path:
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

    @writes
    @checked_arguments
    def baseline(
        self, devices: Sequence[str] | None = None, lr: float | None = None, networks: int | None = None
    ) -> list[Baseline]:  # fmt: skip
        """Train the family scaled by hand, at as many points and with the compute that the run was planned with.

        Args:
            devices: whose latencies are met; default: every device that has a front.
            lr: peak learning rate; default: that of the recipe's first phase.
            networks: at most so many are trained, each for longer, where one serves several latencies; default: one
                for each.

        Raises:
            RecipeError: the run has no plan to say what it cost, or fewer than one network is wanted.
            MissingBlockError: a device can neither price nor time networks of other widths.
        """
        names = self.with_fronts() if devices is None else self.named(devices)
        wanted = [(self.devices[name], [m.latency_ms for m in self.front(name)]) for name in names]
        gmacs, time_s = compute_of_run(self.context, len(names) / len(self.with_fronts()))
        return hand_scaled_baselines(self.context, wanted, gmacs, time_s, lr, networks)
