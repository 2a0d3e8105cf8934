"""Fit the cost models of today's NPUs to published times of whole networks, and say how well they hold.

    python benchmarks/fit_npu.py            # fit, print, store the table in benchmarks/results/
    python benchmarks/fit_npu.py --write    # and rewrite the profiles in latency_tables/

Data: the folder named by HWNAS_SHARED (default ../shared), see its data/npu/README-npu.md: times of Qualcomm AI Hub
Models v0.47.0 on hosted devices, and the operators of the same networks. Fitted are CNNs that ran wholly on the NPU;
densenet121 (standalone batch norms; slower in int8 than in float) and nasnet (pooling and padding; 1.3 to 2.2 times
what any fit says) are left out, as are networks with operators that hwnas does not have (attention, layer norm).

All fits minimise relative error, with constants that are not negative. Two errors are given: with each network left out
once, and with each family of networks left out once. The terms of the models were chosen by the first error on Galaxy
S25, QCS8550 and RB3 Gen 2; the other devices were not looked at.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.optimize import nnls
from scipy.stats import kendalltau

from hwnas.export.op import Op
from hwnas.latency.cost_model import OP_TYPES, CostModel
from hwnas.latency.cost_terms import (
    DENSE,
    ELEMENTS,
    MACS,
    TIMED,
    WEIGHTS,
    Term,
    cost_model_of,
    kind_sums,
    model_sums,
)  # fmt: skip
from hwnas.latency.device import PROFILE_FILE, check_profile, devices, write_profile
from hwnas.latency.fit_candidates import NPU_FLOAT, NPU_INT8, OPERATORS
from hwnas.latency.op_lists import read_op_lists
from hwnas.latency.spreadsheet import read_text
from hwnas.latency.table import measured_range, relative_errors

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("HWNAS_SHARED", ROOT.parent / "shared")) / "data" / "npu"
RESULTS = ROOT / "benchmarks" / "results" / "fit_npu.txt"

MAX_MAPE = {"fp16": 8.0, "int8": 10.0}
MIN_KENDALL = 0.88
"""A profile that misses these on networks left out once does not ship."""

FAMILIES = {
    "efficientnet": ("efficientnet_b0", "efficientnet_b4", "efficientnet_v2_s"),
    "inception": ("googlenet", "inception_v3"),
    "mnasnet": ("mnasnet05",), "mobilenet": ("mobilenet_v2", "mobilenet_v3_large", "mobilenet_v3_small"),
    "regnet": ("regnet", "regnet_y_800mf"), "resnet": ("resnet18", "resnet50", "resnet101", "wideresnet50"),
    "resnext": ("resnext50", "resnext101"), "shufflenet": ("shufflenet_v2",), "squeezenet": ("squeezenet1_1",),
    "dla": ("dla102x",), "gpunet": ("gpunet",),
}  # fmt: skip
FAMILY = {model: family for family, models in FAMILIES.items() for model in models}

TODAY = (
    (Term.of("macs", MACS, (*DENSE, "depthwise_conv", "max_pool", "avg_pool")),),
    (Term.of("dense", MACS, DENSE), Term.of("windowed", MACS, ("depthwise_conv", "max_pool", "avg_pool"))),
    (
        OPERATORS, Term.of("dense", MACS, DENSE),
        Term.of("windowed", MACS, ("depthwise_conv", "max_pool", "avg_pool")), Term.of("elements", ELEMENTS, TIMED),
    ),
)  # fmt: skip
"""What `hwnas tables fit` tried before there were other terms: FLOPs only, two rates, all."""


@dataclass(frozen=True)
class Source:
    """One device in one precision, as the data name it."""

    name: str
    """Of the profile."""
    title: str
    device: str
    precision: str
    runtime: str

    @property
    def terms(self) -> tuple[Term, ...]:
        """What is fitted."""
        return NPU_FLOAT if self.precision == "float" else NPU_INT8

    @property
    def number_format(self) -> str:
        """Of the profile."""
        return "fp16" if self.precision == "float" else "int8"


S24, S25 = "Samsung Galaxy S24", "Samsung Galaxy S25"
ELITE, GEN3 = f"Snapdragon 8 Elite NPU ({S25})", f"Snapdragon 8 Gen 3 NPU ({S24})"
QCS8550, RB3 = "Qualcomm QCS8550 NPU (Dragonwing)", "Dragonwing RB3 Gen 2 Vision Kit"
SOURCES = (
    Source("snapdragon-8-elite-fp16", f"{ELITE}, float", S25, "float", "qnn_dlc"),
    Source("snapdragon-8-gen-3-fp16", f"{GEN3}, float", S24, "float", "qnn_dlc"),
    Source("qcs8550-fp16", f"{QCS8550}, float", "QCS8550 (Proxy)", "float", "qnn_dlc"),
    Source("qcs8275-fp16", "Qualcomm QCS8275 NPU (Dragonwing), float", "QCS8275 (Proxy)", "float", "qnn_dlc"),
    Source("snapdragon-x-elite-fp16", "Snapdragon X Elite NPU, float", "Snapdragon X Elite CRD", "float", "qnn_dlc"),
    Source("rb3-gen-2-int8", "Qualcomm RB3 Gen 2 NPU (QCS6490), int8", RB3, "w8a8", "tflite"),
    Source("snapdragon-8-gen-3-int8", f"{GEN3}, int8", S24, "w8a8", "qnn_dlc"),
    Source("qcs8550-int8", f"{QCS8550}, int8", "QCS8550 (Proxy)", "w8a8", "qnn_dlc"),
    Source("snapdragon-8-elite-int8", f"{ELITE}, int8", S25, "w8a8", "qnn_dlc"),
)


@dataclass(frozen=True)
class Measured:
    """Networks that were timed on one device."""

    models: tuple[str, ...]
    ops: tuple[tuple[Op, ...], ...]
    ms: np.ndarray
    normalises: np.ndarray
    """``(n,)`` 1 where the measured graph normalises the image channel by channel."""
    mobile: np.ndarray
    """``(n,)`` whether the network is of the mobile subset."""
    version: str
    """Of runtime and compiler."""

    @property
    def families(self) -> list[str]:
        """Family of each network."""
        return [FAMILY[m] for m in self.models]


def read_csv(name: str) -> list[dict[str, str]]:
    """Return the rows of a data file."""
    text = read_text(DATA / name)
    return list(csv.DictReader(io.StringIO(text, newline="")))


class Data:
    """The three files, read once."""

    def __init__(self) -> None:
        self.times = read_csv("qai_hub_latency.csv.gz")
        self.networks = {r["model"]: r for r in read_csv("networks.csv") if r["source"] == "qai"}
        self.ops = read_op_lists(DATA / "network_ops.csv.gz")

    def measured(self, source: Source) -> Measured:
        """Return the fitted networks of a device."""
        rows = {
            r["model"]: r for r in self.times
            if (r["device"], r["precision"], r["runtime"]) == (source.device, source.precision, source.runtime)
            and r["model"] in FAMILY and r["layers_npu"] == r["layers_total"]
        }  # fmt: skip
        models = tuple(sorted(rows))
        nets = [self.networks[m] for m in models]
        ops = tuple(self.ops[n["network"]] for n in nets)
        assert not any(isinstance(o, str) for o in ops)
        versions = {" ".join(filter(None, (r["qairt_version"], r["runtime_version"]))) for r in rows.values()}
        return Measured(
            models, ops, np.array([float(rows[m]["latency_ms"]) for m in models]),
            np.array([float(n["input_normalisation"] == "per channel") for n in nets]),
            np.array([n["mobile_subset"] == "1" for n in nets]), " and ".join(sorted(versions)),
        )  # fmt: skip


def columns(data: Measured, terms: Sequence[Term], normalisation: bool = True) -> np.ndarray:
    """Return ``(n, k)`` features: 1, whether the image is normalised, then the terms."""
    sums = kind_sums(data.ops)
    first = [np.ones(len(data.ms)), *([data.normalises] if normalisation else [])]
    return np.column_stack([*first, *(t.column(sums) for t in terms)])


def fit(x: np.ndarray, ms: np.ndarray) -> np.ndarray:
    """Return constants, not negative, that minimise the squared relative error."""
    scale = np.where(x.max(axis=0) > 0, x.max(axis=0), 1.0)
    return np.asarray(nnls(x / scale / ms[:, None], np.ones(len(ms)))[0] / scale)


def left_out(x: np.ndarray, ms: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Return ``(n,)`` predictions, each by constants fitted without the networks of its group."""
    group, out = np.array(groups), np.empty(len(ms))
    for name in dict.fromkeys(groups):
        rest = group != name
        out[~rest] = x[~rest] @ fit(x[rest], ms[rest])
    return out


def scores(predicted: np.ndarray, data: Measured) -> dict[str, Any]:
    """Return the fields of a published error."""
    off = 100 * np.abs(predicted / data.ms - 1)
    families = np.array(data.families)
    return {
        **relative_errors(predicted, data.ms), **measured_range(data.ms),
        "kendall": round(float(kendalltau(predicted, data.ms).statistic), 4),
        "mape_percent_by_family": {
            f: round(float(off[families == f].mean()), 1) for f in sorted(set(data.families))
        },
    }  # fmt: skip


@dataclass(frozen=True)
class Fit:
    """The result for one device."""

    source: Source
    data: Measured
    model: CostModel
    by_network: np.ndarray
    by_family: np.ndarray
    """``(n,)`` predictions, networks and families left out."""

    def ships(self) -> bool:
        """Whether the profile is good enough."""
        error = scores(self.by_network, self.data)
        return bool(error["mape_percent"] <= MAX_MAPE[self.source.number_format] and error["kendall"] >= MIN_KENDALL)


def fit_source(source: Source, data: Measured) -> Fit:
    """Fit one device."""
    x = columns(data, source.terms)
    network_ms, normalisation_ms, *constants = fit(x, data.ms)
    said = f"fitted to {len(data.ms)} CNNs of Qualcomm AI Hub Models v0.47.0 (benchmarks/fit_npu.py)"
    kinds = OP_TYPES if source.precision == "float" else (*OP_TYPES, "pointwise_conv", "grouped_conv")
    model = cost_model_of(network_ms, source.terms, constants, dict.fromkeys(kinds, said), normalisation_ms, digits=4)
    return Fit(source, data, model, left_out(x, data.ms, data.models), left_out(x, data.ms, data.families))


def forms(source: Source) -> list[tuple[str, tuple[Term, ...], bool]]:
    """Return what is compared: name, terms, and whether normalisation has a constant."""
    found: list[tuple[str, tuple[Term, ...], bool]] = [
        ("FLOPs only", TODAY[0], False), ("today's form, two rates", TODAY[1], False),
        ("today's form, all terms", TODAY[2], False), ("shipped", source.terms, True),
        ("  no constant for normalisation", source.terms, False),
    ]  # fmt: skip
    for i, term in enumerate(source.terms):
        found.append((f"  no {term.name}", source.terms[:i] + source.terms[i + 1 :], True))
    further = (
        (Term.of("weights", WEIGHTS, (*DENSE, "depthwise_conv")), Term.of("elements", ELEMENTS, TIMED))
        if source.precision == "float" else (Term.of("elements of channel-wise products", ELEMENTS, ("mul",)),)
    )  # fmt: skip
    found += [(f"  and {term.name}", (*source.terms, term), True) for term in further]
    if source.precision == "float":
        apart = (
            OPERATORS, Term.of("1x1", MACS, ("pointwise_conv", "grouped_conv", "linear")),
            Term.of("larger", MACS, ("conv",)),
            *NPU_FLOAT[2:],
        )  # fmt: skip
        found.append(("  and 1x1 and larger convolutions apart", apart, True))
    return found


def row(name: str, form: str, data: Measured, by_network: np.ndarray, by_family: np.ndarray) -> str:
    """Return one line of the table."""
    cells = []
    for predicted in (by_network, by_family):
        off = 100 * np.abs(predicted / data.ms - 1)
        tau = kendalltau(predicted, data.ms).statistic
        cells.append(f"{off.mean():>8.1f}{off[data.mobile].mean():>8.1f}{tau:>7.3f}")
    rest = np.array(data.families) != "inception"
    off = 100 * np.abs(by_family / data.ms - 1)[rest]
    tau = kendalltau(by_family[rest], data.ms[rest]).statistic
    return f"{name:<25}{form:<50}{len(data.ms):>4}{cells[0]}  {cells[1]}{off.mean():>9.1f}{tau:>7.3f}"


def table(fits: Sequence[Fit]) -> str:
    """Return the results as text."""
    lines = [
        "Cost models of NPUs, fitted to Qualcomm AI Hub Models v0.47.0 (fit_npu.py)",
        "MAPE in percent (all, mobile subset) and Kendall's tau, each network left out once, then each family.",
        "Last two columns: families left out, without inception. Only googlenet and inception_v3 normalise the image",
        "by one scale instead of channel by channel: without both, the constant for it cannot be told from that of the",
        "network, and both are overestimated by it. It is no part of predictions for networks of hwnas.",
        "",
        f"{'profile':<25}{'model':<50}{'n':>4}{'MAPE':>8}{'mobile':>8}{'tau':>7}  "
        f"{'MAPE':>8}{'mobile':>8}{'tau':>7}{'no inc.':>9}{'tau':>7}",
    ]  # fmt: skip
    for one in fits:
        for form, terms, normalisation in forms(one.source):
            x = columns(one.data, terms, normalisation)
            lines.append(row(
                one.source.name, form, one.data, left_out(x, one.data.ms, one.data.models),
                left_out(x, one.data.ms, one.data.families),
            ))  # fmt: skip
        lines.append("")
    lines += ["Error by family of the shipped form, networks left out / families left out, percent"]
    for one in fits:
        network, family = (scores(p, one.data)["mape_percent_by_family"] for p in (one.by_network, one.by_family))
        lines.append(f"  {one.source.name:<25}" + ", ".join(f"{f} {network[f]}/{family[f]}" for f in network))
    lines += [
        "",
        "Without what normalisation takes, as networks of hwnas run: MAPE in percent and tau, networks left out",
    ]
    for one in fits:
        mape, tau = without_normalisation(one)
        lines.append(f"  {one.source.name:<25}{mape:>6.1f}{tau:>7.3f}")
    lines += ["", "Constants: ms a network + for normalisation; then each kind with constants of its own"]
    for one in fits:
        lines.append(
            f"  {one.source.name}: {one.model.network_overhead_ms} + {one.model.input_normalisation_ms} ms; "
            f"runtime {runtime_of(one)}"
        )
        for kind in ("conv", "pointwise_conv", "grouped_conv", "depthwise_conv", "mul", "add"):
            if kind in one.model.ops:
                cost = one.model.ops[kind].model_dump(exclude={"source", "same_as", "fused"}, exclude_none=True)
                lines.append(f"    {kind:<16}" + ", ".join(f"{k} {v}" for k, v in cost.items()))
    return "\n".join([*lines, "", *judged(fits)]) + "\n"


def judged(fits: Sequence[Fit]) -> list[str]:
    """Return how the older profiles rank and time today's networks, one line a profile and device."""
    names = {one.source.name for one in fits}
    lines = [
        "Older profiles on the same networks: Kendall's tau, and by how many times they are too slow (smallest, "
        "median,",
        "largest). The devices are others than theirs: what is judged is whether the profile can stand for an NPU of "
        "today.",
    ]
    for profile in devices():
        if profile.cost_model is None or profile.name in names:
            continue
        for one in fits:
            tau, ratios = judge(profile.cost_model, one.data)
            lines.append(
                f"  {profile.name:<16}{one.source.name:<25} tau {tau:.3f}, {ratios[0]:.2f} {ratios[1]:.2f} "
                f"{ratios[2]:.2f}"
            )
    return lines


def judge(model: CostModel, data: Measured) -> tuple[float, tuple[float, float, float]]:
    """Return Kendall's tau of a cost model on measured networks, and its time over theirs: least, median, most."""
    sums = kind_sums(data.ops)
    predicted = model.network_overhead_ms + model_sums(model, sums) + model.input_normalisation_ms * data.normalises
    ratio = predicted / data.ms
    return float(kendalltau(predicted, data.ms).statistic), (ratio.min(), float(np.median(ratio)), ratio.max())


def without_normalisation(one: Fit) -> tuple[float, float]:
    """Return the mean absolute error in percent, and Kendall's tau, of what is left when normalisation is taken out.

    That is what a network of hwnas takes; a small network's time is half normalisation, so errors weigh more.
    """
    taken = one.model.input_normalisation_ms * one.data.normalises
    own = one.data.ms - taken
    off = 100 * np.abs(one.by_network - one.data.ms) / own
    return float(off.mean()), float(kendalltau(one.by_network - taken, own).statistic)


def rejudge(fits: Sequence[Fit]) -> None:
    """Write into the notes of older profiles how they do on today's networks; everything else in them stays."""
    names = {one.source.name for one in fits}
    for profile in devices():
        if profile.cost_model is None or profile.name in names:
            continue
        found = [judge(profile.cost_model, one.data) for one in fits]
        taus, ratios = [tau for tau, _ in found], [r for _, r in found]
        note = (
            f"{JUDGED} ({len(fits)} Snapdragon and QCS targets, {len(fits[0].data.ms)} networks in float, "
            f"{len(fits[-1].data.ms)} in int8; benchmarks/results/fit_npu.txt), it ranks the networks with Kendall's "
            "tau "
            f"{min(taus):.2f} to {max(taus):.2f}, and its times are {min(r[0] for r in ratios):.2g} to "
            f"{max(r[2] for r in ratios):.2g} times theirs; it cannot stand for an NPU of today."
        )
        path = ROOT / "latency_tables" / profile.name / "profile.yaml"
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
        values["notes"] = [n for n in values["notes"] if not n.startswith(JUDGED)] + [note]
        path.write_text(yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=112), encoding="utf-8")


JUDGED = "Judged on measurements of today's NPUs"
"""How the note begins that `rejudge` writes."""


def runtime_of(one: Fit) -> str:
    """Return what executed the networks, with its version."""
    made = {"qnn_dlc": "Qualcomm AI Engine Direct (QNN)", "tflite": "TensorFlow Lite with the QNN delegate"}
    if one.source.runtime == "tflite":
        qairt, tflite = one.data.version.split()
        return f"{made['tflite']}, TFLite {tflite}, QAIRT {qairt}"
    return f"{made[one.source.runtime]}, QAIRT {one.data.version}"


def profile_of(one: Fit) -> dict[str, Any]:
    """Return the profile of a device as plain values."""
    source, data = one.source, one.data
    n = len(data.ms)
    by_network, by_family = scores(one.by_network, data), scores(one.by_family, data)
    mobile = 100 * np.abs(one.by_network / data.ms - 1)[data.mobile].mean()
    own = without_normalisation(one)
    what = f"{n} CNNs of Qualcomm AI Hub Models v0.47.0 on {source.device}"
    rest = np.array(data.families) != "inception"
    no_inception = 100 * np.abs(one.by_family / data.ms - 1)[rest].mean()
    tau = kendalltau(one.by_family[rest], data.ms[rest]).statistic
    notes = [
        f"Fitted to {n} ImageNet CNNs at 224 px ({', '.join(data.models)}), as published with Qualcomm AI Hub Models "
        "v0.47.0 (24 Feb 2026), all layers on the NPU. densenet121 and nasnet, which no fit of this form follows, are "
        "left out, as are networks with attention or layer norm.",
        f"Error on networks left out once: {by_network['mape_percent']:.1f} %, of the mobile ones {mobile:.1f} %. "
        "With a "
        f"whole family left out {by_family['mape_percent']:.1f} %, Kendall {by_family['kendall']:.2f}; without "
        "inception, "
        f"whose two networks alone tell the constant of image normalisation, {no_inception:.1f} %, Kendall {tau:.2f}.",
        f"The measured graphs normalise the image channel by channel, which takes "
        f"{one.model.input_normalisation_ms:g} ms "
        "by the fit (input_normalisation_ms). It is not part of predictions: networks of hwnas take normalised images. "
        f"Of the times without it the error is {own[0]:.1f} %, Kendall {own[1]:.2f} (networks left out once).",
        "Not in the data: other resolutions than 224 px, batches, kernels of 7 pixels in depthwise convolutions, dense "
        "skips, and how a device throttles. Clocks and power modes are not stated by the source.",
        "A phone of the Galaxy series or a proxy board stands for the chip; the source says which, not how it was "
        "cooled.",
    ]  # fmt: skip
    if source.number_format == "int8":
        notes.append(
            "Only three of the int8 networks have depthwise convolutions (mobilenet_v2, shufflenet_v2, gpunet), two "
            "have "
            "squeeze-and-excite (regnet_y_800mf, gpunet), none h-swish or kernels of 5 pixels in depthwise "
            "convolutions: "
            "Qualcomm publishes no w8a8 for MobileNetV3, EfficientNet and MnasNet. Multiply-adds of larger and "
            "depthwise "
            "convolutions are hidden behind the weights in the data; they are costed with at least a quarter and four "
            "times the time of those of 1x1 convolutions."
        )  # fmt: skip
    error = {"networks": f"{what}, each left out once", "n_held_out": n, "seed": 0}
    return {
        "format": 1, "name": source.name, "title": source.title, "kind": "npu", "runtime": runtime_of(one),
        "precision": source.number_format, "provider": None, "threads": None, "batch_size": 1, "origin": "modelled",
        "source": "Qualcomm AI Hub Models v0.47.0 (github qualcomm/ai-hub-models, perf.yaml of each model), "
        f"{source.device}, {source.precision}, {source.runtime}",
        "licence": "BSD-3-Clause (Qualcomm AI Hub Models)", "error": {**error, **by_network},
        "family_error": {**error, "networks": f"{what}, each family left out once", **by_family},
        "cost_model": one.model.model_dump(mode="json"), "notes": notes,
    }  # fmt: skip


def fits_of(data: Data, names: Sequence[str] = ()) -> list[Fit]:
    """Fit the named profiles; default: all."""
    return [fit_source(s, data.measured(s)) for s in SOURCES if not names or s.name in names]


def main(write: bool = False) -> None:
    """Fit all, print and store the table; with ``write`` the profiles that are good enough, too."""
    fits = fits_of(Data())
    text = table(fits)
    print(text)
    RESULTS.write_text(text, encoding="utf-8")
    for one in fits:
        if not one.ships():
            print(f"{one.source.name} is not good enough and does not ship")
        elif write:
            folder = ROOT / "latency_tables" / one.source.name
            folder.mkdir(exist_ok=True)
            values = profile_of(one)
            if (path := folder / PROFILE_FILE).exists():  # what does not follow from the measurements stays
                there = yaml.safe_load(path.read_text(encoding="utf-8"))
                values |= {name: there[name] for name in ("in_8_bits", "device_commands") if name in there}
            values["cost_model"] = CostModel.model_validate(values["cost_model"])
            write_profile(check_profile(values, one.source.name), folder)
    if write:
        rejudge(fits)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Fit the cost models of today's NPUs.")
    parser.add_argument("--write", action="store_true", help="rewrite the profiles")
    main(parser.parse_args().write)
