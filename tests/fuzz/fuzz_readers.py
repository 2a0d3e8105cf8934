"""Give spoiled inputs to every public door that reads a file or a text: nothing but a `HwnasError` may come out.

    python tests/fuzz/fuzz_readers.py RUN [INPUTS [READER ...]]

takes the files of a finished run (`hwnas quickstart` makes one), tries 20,000 inputs for each reader and prints, for
each kind of fault, the smallest input that shows it. The seed is fixed: the same inputs every time.
"""

import hashlib
import io
import json
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from mutations import of_bytes, of_csv, of_json, of_safetensors, of_yaml

TABLE = b"kind,median_ms\n"

LONGEST_S = 5.0
"""For one input."""


@dataclass
class Door:
    """One reader: valid inputs, how they are spoiled, and what reads them."""

    seeds: list[bytes]
    read: Any
    """Takes bytes."""
    mutations: tuple = (of_bytes,)


class TooLong(BaseException):
    """A reader did not come back in time."""


def doors(folder, run):
    """Return every reader by name.

    Args:
        folder: for the files of the inputs.
        run: folder of a finished run, whose files are the valid inputs.
    """
    import torch

    from hwnas.archive import Archive
    from hwnas.data.sources.files import array_images, npz_arrays
    from hwnas.export.bundle import Bundle, load_model
    from hwnas.export.onnx_ops import onnx_ops
    from hwnas.latency.device import load_profile
    from hwnas.latency.fit import read_measurements
    from hwnas.latency.journal import Journal
    from hwnas.latency.measure import precision_of
    from hwnas.latency.measured_networks import read_measured
    from hwnas.latency.op_lists import read_op_lists
    from hwnas.latency.spreadsheet import read_table
    from hwnas.latency.table import check_sums, read_rows, signature_of
    from hwnas.latency.table_networks import read_networks
    from hwnas.latency.values import read_values
    from hwnas.runs.budget import parse_duration
    from hwnas.runs.finished import FinishedModels
    from hwnas.runs.folder import DeviceFolder, RunFolder
    from hwnas.runs.front import read_front
    from hwnas.runs.history import read_history, read_settings
    from hwnas.runs.kept import read_kept
    from hwnas.runs.latency_check import read_check
    from hwnas.runs.plan import Plan
    from hwnas.runs.recipe import load_recipe
    from hwnas.runs.start import open_run
    from hwnas.search.limits import Limit
    from hwnas.space.dialects.nasbench201 import EXAMPLE, parse_nasbench201
    from hwnas.space.dialects.once_for_all import format_ofa, parse_ofa
    from hwnas.supernet.families.family import FAMILIES
    from hwnas.supernet.weights.once_for_all import read_ofa_checkpoint
    from hwnas.train.checkpoint import load_supernet, load_tensors, save_tensors
    from hwnas.train.monitor import read_log

    opened = open_run(run)
    layout, score = opened.layout, opened.context.score
    space = layout.space
    device = opened.context.folder.device(opened.searched()[0])
    arch = space.sample(np.random.default_rng(0), 1)[0]
    cells = FAMILIES.get("nasbench201")
    cell_space = cells.layout(cells.config(family="nasbench201", classes=10, resolutions=(32,))).space
    bundle = sorted(device.models.iterdir())[0]
    recipe = (run / "recipe.yaml").read_bytes()
    profile = (Path(__file__).parents[2] / "latency_tables" / "myriad-vpu" / "profile.yaml").read_bytes()
    spoiled = folder / "bundle"
    shutil.copytree(bundle, spoiled)

    def at(name, data):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def file(name, read):
        return lambda data: read(at(name, data))

    def text(read):
        return lambda data: read(data.decode(errors="replace"))

    def values_of(data):
        try:
            return json.loads(data)
        except (ValueError, RecursionError):
            return data.decode(errors="replace")

    def unsealed(data):
        """Without the seal, beyond which nothing that was changed would be looked at."""
        values = json.loads(data)
        values.pop("sha256", None)
        return json.dumps(values).encode()

    def of_bundle(data):
        at("bundle/arch.json", data)
        Bundle(spoiled).is_whole  # noqa: B018 (reading it is the test)
        load_model(spoiled)

    def of_weights(data):
        shutil.copyfile(bundle / "arch.json", spoiled / "arch.json")
        at("bundle/weights.safetensors", data)
        load_model(spoiled)

    def of_metrics(data):
        shutil.copyfile(bundle / "arch.json", spoiled / "arch.json")
        at("bundle/metrics.json", data)
        Bundle(spoiled).metrics  # noqa: B018

    def of_archive(data):
        path = at("archive/archive.db", data)
        for left in path.parent.glob("archive.db?*"):
            left.unlink()
        with Archive(path, space, opened.recipe.values_hash()) as archive:
            archive.archs()
            archive.splits(opened.context.trained_weights)
            archive.find(arch.key)
            archive.requested(archive.searches(device.root.name))

    def plain_archive():
        """The archive as one file, without what SQLite keeps beside it."""
        path = folder / "plain.db"
        with sqlite3.connect(run / "archive.db") as source, sqlite3.connect(path) as target:
            source.backup(target)
        target.close()
        source.close()
        return path.read_bytes()

    def of_sums(data):
        at("sums/blocks.csv", TABLE)
        at("sums/SHA256SUMS", data)
        check_sums(folder / "sums")

    def npz(path):
        arrays = npz_arrays(path)
        array_images(arrays.get("x_train", np.zeros(1)), arrays.get("y_train", np.zeros(1)), "x_train")

    def saved(values):
        raw = io.BytesIO()
        np.savez_compressed(raw, **values)
        return raw.getvalue()

    def pickled(values):
        raw = io.BytesIO()
        torch.save(values, raw)
        return raw.getvalue()

    front = device.front.read_bytes()
    table = (
        b"kind,act,in_channels,in_size_px,kernel_size,out_channels,stride,n,median_ms,iqr_ms,origin\n"
        b"conv,relu,3,32,3,8,2,9,0.5,0.01,measured\nhead,relu,8,4,,10,,9,0.25,0.01,interpolated\n"
    )
    rows = "".join(
        f'{arch.key},1,{ms},"{json.dumps(arch.as_dict()).replace(chr(34), chr(34) * 2)}"\n' for ms in (1.5, 2)
    )
    networks = f"key,fitted,measured_ms,arch\n{rows}".encode()
    timed = "".join(
        f'x.onnx,{ms},"{json.dumps(a.as_dict()).replace(chr(34), chr(34) * 2)}"\n'
        for ms, a in enumerate(dict.fromkeys(space.sample(np.random.default_rng(1), 20)), 1)
    )
    operators = b"network,type,in_channels,out_channels,in_size_px,out_size_px,kernel_size,stride,groups\n" + b"".join(
        f"net{i},conv,3,{8 * i},32,16,3,2,1\nnet{i},linear,{8 * i},10,1,1,1,1,1\n".encode() for i in range(1, 7)
    )
    network_lines = "network,file,latency_ms,normalises_input\n" + "".join(
        f"net{i},,{i}.5,{'yes' if i % 2 else 'no'}\n" for i in range(1, 7)
    )
    lines = [{"phase": "full", "step": i, "loss": 2.5, "lr": 0.1, "top1_percent": {"largest": 9.0}} for i in (1, 2, 3)]
    bursts = [
        {"build": {"plan": "x"}},
        {"model": 0, "session": 1, "values_ms": [0.5, 0.6], "cpu_share": 1.0, "input_shape": [1, 8, 8]},
    ]
    save_tensors(folder / "seed.safetensors", {"supernet.a": torch.ones(3, 4), "b": torch.zeros(2)}, {"step": 3})
    history, settings = device.history.read_bytes(), device.settings.read_bytes()
    plan = {
        "strategy": "supernet", "why": "x", "asked": {"budget_s": None, "devices": {}}, "models": 1, "train_gmacs": 1.0,
        "search_gmacs": 1.0, "finish_gmacs": 0.5, "direct_epochs": 3.0,
    }  # fmt: skip
    finished = {
        "format": 1,
        "models": [{
            "key": arch.key, "weights_version": "0" * 12, "file": "a/b.safetensors", "parent": "", "settings": "x",
            "epochs": 2.0, "best_epoch": 1, "score_before": 10.0, "score": 20.0,
        }],
    }  # fmt: skip
    check = {
        "keys": [arch.key], "predicted_ms": [1.0], "measured_ms": [1.1], "machine_slowdown": 1.0, "mape_percent": 9.0,
        "within_5_percent": 0.0, "within_10_percent": 100.0, "r2": 0.0, "spearman": 0.0, "mape_percent_refitted": None,
    }  # fmt: skip
    onnx_bytes = (bundle / "model.onnx").read_bytes()
    as_json, as_yaml, as_csv, tensors = (
        (of_bytes, of_json),
        (of_bytes, of_yaml),
        (of_bytes, of_csv),
        (of_bytes, of_safetensors),
    )
    of_parts = (of_bytes, of_json)
    pictures = {"x_train": np.zeros((3, 8, 8), np.uint8), "y_train": np.arange(3)}
    ofa = json.dumps(format_ofa(arch, space)).encode()

    def arch_of(data):
        values = values_of(data)
        space.arch(values)

    def others(path):
        table = read_table(path, ("kind", "median_ms"))
        table.numbers("median_ms", "times")
        for line in table.lines:
            signature_of(line.cells)

    return {
        "recipe": Door([recipe], file("r.yaml", load_recipe), as_yaml),
        "override": Door(
            [b"train.batch_size=32", b"train.phases.1.elastic.depth=[1, 2]", b"data={source: digits}"],
            text(lambda t: load_recipe(run / "recipe.yaml", [t])),
        ),
        "profile": Door([profile], file("device/profile.yaml", lambda p: load_profile(p.parent)), as_yaml),
        "table": Door([table], file("blocks.csv", read_rows), as_csv),
        "table of others": Door([table], file("others.csv", others), as_csv),
        "networks of a table": Door([networks], file("networks.csv", lambda p: read_networks(p.parent, space)), as_csv),
        "digests of a table": Door([f"{hashlib.sha256(TABLE).hexdigest()}  blocks.csv\n".encode()], of_sums),
        "import yaml": Door(
            [b"Conv-input:3x4x4: {mean: 1.5, count: 3}\nb: 2.0\nc:\n  d: 3\n"], file("t.yaml", read_values), as_yaml
        ),
        "import json": Door([b'{"a": {"mean": 1.5}, "b": 2.0, "c": {"d": 3}}'], file("t.json", read_values), as_json),
        "import csv": Door([b"key,ms\na,1.5\nb,2\n"], file("t.csv", read_values), as_csv),
        "measurements": Door(
            [f"file,latency_ms,arch\n{timed}".encode()], file("m.csv", lambda p: read_measurements(p, layout)), as_csv
        ),
        "networks of others": Door(
            [network_lines.encode()],
            file("o.csv", lambda p: read_measured(p, layout, at("ops.csv", operators))),
            as_csv,
        ),
        "operators of networks": Door([operators], file("l.csv", read_op_lists), as_csv),
        "operators of an ONNX file": Door([onnx_bytes], file("n.onnx", onnx_ops)),
        "arch": Door([json.dumps(arch.as_dict()).encode()], arch_of, of_parts),
        "once-for-all arch": Door([ofa], lambda d: parse_ofa(values_of(d), space), of_parts),
        "NAS-Bench-201 cell": Door([EXAMPLE.encode()], text(lambda t: parse_nasbench201(t, cell_space))),
        "limit": Door([b"latency_ms<=5", b"edge-tpu:latency_ms<=3.5", b"top1_percent >= 9e1"], text(Limit.parse)),
        "duration": Door([b"90s", b"1h30min", b"20 min"], text(parse_duration)),
        "bundle": Door([unsealed((bundle / "arch.json").read_bytes())], of_bundle, as_json),
        "bundle metrics": Door([unsealed((bundle / "metrics.json").read_bytes())], of_metrics, as_json),
        "bundle weights": Door([(bundle / "weights.safetensors").read_bytes()], of_weights, tensors),
        "front.csv": Door([front], file("f/front.csv", lambda p: read_front(p, "d", score)), as_csv),
        "search.json": Door(
            [history, unsealed(history)], file("d/search.json", lambda p: read_history(DeviceFolder(p.parent))), as_json
        ),
        "search.yaml": Door(
            [settings, b"\n".join(s for s in settings.split(b"\n") if not s.startswith(b"sha256"))],
            file("d/search.yaml", lambda p: read_settings(DeviceFolder(p.parent))),
            as_yaml,
        ),
        "plan.json": Door([json.dumps(plan).encode()], file("plan.json", lambda p: read_kept(Plan, p, "")), as_json),
        "models.json": Door(
            [json.dumps(finished).encode()],
            file("g/finished/a/models.json", lambda p: FinishedModels(RunFolder(folder / "g"), layout).by_version),
            as_json,
        ),
        "latency_check.json": Door([json.dumps(check).encode()], file("latency_check.json", read_check), as_json),
        "metrics.jsonl": Door(["".join(json.dumps(v) + "\n" for v in lines).encode()], file("metrics.jsonl", read_log)),
        "timings.jsonl": Door(
            ["".join(json.dumps(v) + "\n" for v in bursts).encode()],
            file("timings.jsonl", lambda p: Journal(p, {"plan": "x"})),
        ),
        "checkpoint": Door([(folder / "seed.safetensors").read_bytes()], file("c.safetensors", load_tensors), tensors),
        "supernet": Door(
            [(run / "train/supernet.safetensors").read_bytes()], file("s.safetensors", load_supernet), tensors
        ),
        "archive": Door([plain_archive()], of_archive),
        "ONNX": Door([onnx_bytes], file("m.onnx", precision_of)),
        "npz": Door([saved(pictures)], file("p.npz", npz)),
        "once-for-all weights": Door(
            [pickled({"state_dict": {"a.weight": torch.ones(3, 4)}}), pickled({"a": torch.ones(2)})],
            file("w.pth", read_ofa_checkpoint),
        ),
    }


def fuzz(name, door, inputs, seed=0):
    """Return the faults of a reader: for each place where one arose, the smallest input and the traceback."""
    from hwnas.errors import HwnasError

    rng = np.random.default_rng([seed, *name.encode()])
    faults: dict[str, tuple[bytes, str]] = {}
    refused = 0

    def too_long(number, frame):
        raise TooLong

    before = signal.signal(signal.SIGALRM, too_long)
    try:
        for _ in range(inputs):
            data = door.seeds[int(rng.integers(len(door.seeds)))]
            data = door.mutations[int(rng.integers(len(door.mutations)))](data, rng)
            signal.setitimer(signal.ITIMER_REAL, LONGEST_S)
            try:
                door.read(data)
            except HwnasError as error:
                refused += 1
                if "\n" in str(error) or len(str(error)) > 1300 or not str(error).isprintable():
                    faults.setdefault("message", (data, str(error)))
            except BaseException as error:  # whatever it is, it is what is looked for
                if isinstance(error, KeyboardInterrupt):
                    raise
                last = traceback.extract_tb(error.__traceback__)
                ours = [f for f in last if "/hwnas/" in f.filename]
                place = (
                    f"{type(error).__name__} at {Path(ours[-1].filename).name}:{ours[-1].lineno}"
                    if ours
                    else repr(error)
                )
                if place not in faults or len(data) < len(faults[place][0]):
                    faults[place] = data, traceback.format_exc()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
    return faults, refused


def main():
    run, inputs = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20_000
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        found = doors(Path(folder), run)
        for name in sys.argv[3:] or found:
            started = time.monotonic()
            faults, refused = fuzz(name, found[name], inputs)
            print(
                f"{name}: {inputs} inputs, {refused} refused, {len(faults)} faults, {time.monotonic() - started:.0f} s",
                flush=True,
            )
            for place, (data, said) in faults.items():
                print("   ", place, data[:300], "\n      ", said[-900:].replace("\n", "\n      "), flush=True)


if __name__ == "__main__":
    main()
