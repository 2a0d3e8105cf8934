"""Damage every kind of file that a run leaves, let every verb read it, and say what came of it.

    python tests/damage/damaged_files.py [WORK_FOLDER]

makes one tiny run, then tries each kind of file (cut short at 5 places, overwritten at 5 places) with each verb that
reads it, and prints a table. A verb reads a file if it fails, or makes the file anew, where the file is rubbish. What
may come out: ``named`` (one line, a `HwnasError`), ``rebuilt`` (the verb made what was damaged anew), or, which are
faults, ``traceback`` and ``silent`` (the verb went on with the damaged file).
"""

import contextlib
import importlib
import io
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

PLACES = (0.0, 0.25, 0.5, 0.75, 0.98)
"""Shares of a file's length."""

RUBBISH = bytes(range(251, 1, -7))
"""Overwrites what is there: no text, no part of any format."""

RECIPE = {
    "name": "tiny",
    "devices": ["hexagon-dsp", "local-cpu"],
    "objectives": ["top1_percent", "latency_ms", "params"],
    "data": {"source": "digits", "max_images": 150, "augment": {"shift_percent": 8}},
    "supernet": {
        "family": "mbv3", "in_channels": 1, "classes": 10, "resolutions": [8], "stem_width": 8, "stem_stride": 1,
        "first_block": False,
        "stages": [
            {"width": 8, "stride": 2, "depths": [1, 2], "kernel_sizes": [3, 5], "expand_ratios": [1, 2]},
            {"width": 16, "stride": 1, "depths": [1, 2], "kernel_sizes": [3], "expand_ratios": [2, 3], "se": True},
        ],
        "expand_width": 24, "feature_width": 0,
    },
    "train": {
        "batch_size": 25, "checkpoint_every_s": 1e-9,
        "phases": [
            {"name": "full", "epochs": 1, "lr": 0.1},
            {"name": "all", "epochs": 1, "lr": 0.05, "elastic": {"depth": "all", "expand_ratio": "all"}},
        ],
    },
    "search": {
        "strategy": "supernet", "algorithm": "hurricane", "evaluations": 6,
        "adaptation": {"rounds": 1, "epochs": 0.2, "best": 4},
    },
    "tables": {"n_networks": 6, "n_held_out": 4, "rounds": 1, "block_time_s": 0.0005, "network_time_s": 0.0005},
    "finish": {"models": 1, "epochs": 1},
    "export": {"front_size": 2},
    "finetune": {"epochs": 0.2},
}  # fmt: skip

FILES = {
    "recipe.yaml": "run/recipe.yaml",
    "manifest.json": "run/manifest.json",
    "plan.json": "run/plan.json",
    "archive.db": "run/archive.db",
    "supernet.safetensors": "run/train/supernet.safetensors",
    "metrics.jsonl": "run/train/metrics.jsonl",
    "adapted supernet": "run/devices/hexagon-dsp/adapted/*/supernet.safetensors",
    "search.yaml": "run/devices/hexagon-dsp/search.yaml",
    "search.json": "run/devices/hexagon-dsp/search.json",
    "front.csv": "run/devices/hexagon-dsp/front.csv",
    "model.onnx": "run/devices/hexagon-dsp/models/*/model.onnx",
    "weights.safetensors": "run/devices/hexagon-dsp/models/*/weights.safetensors",
    "arch.json": "run/devices/hexagon-dsp/models/*/arch.json",
    "metrics.json": "run/devices/hexagon-dsp/models/*/metrics.json",
    "MODEL_CARD.md": "run/devices/hexagon-dsp/models/*/MODEL_CARD.md",
    "profile.yaml": "run/devices/local-cpu/table/profile.yaml",
    "blocks.csv": "run/devices/local-cpu/table/blocks.csv",
    "networks.csv": "run/devices/local-cpu/table/networks.csv",
    "latency_check.json": "run/devices/local-cpu/latency_check.json",
    "models.json": "run/finished/*/models.json",
    "finished model": "run/finished/*/*.safetensors",
    "alone": "run/alone/*.json",
    "baseline.json": "run/devices/hexagon-dsp/baseline.json",
    "widths": "run/baseline/hexagon-dsp-widths.json",
    "checkpoint.safetensors": "unfinished/train/checkpoint.safetensors",
    "log of a training": "unfinished/train/metrics.jsonl",
    "budget.json": "budget/budget.json",
    "timings.jsonl": "table/timings.jsonl",
}
"""One file of every kind, below the folder that `make` fills."""


EVERY = (
    "train", "search", "run", "export", "check", "report", "front", "finetune", "bench supernet", "bench baseline"
)  # fmt: skip

READ_BY = {
    "recipe.yaml": EVERY, "manifest.json": EVERY,
    "plan.json": ("search", "run", "bench baseline"),
    "archive.db": ("report",),
    "supernet.safetensors": ("load_supernet", "report"),
    "metrics.jsonl": ("report",),
    "adapted supernet": ("finetune",),
    "search.yaml": ("report",),
    "search.json": ("front", "export"),
    "front.csv": ("front", "export"),
    "model.onnx": ("export",),
    "weights.safetensors": ("load_model", "export"),
    "arch.json": ("load_model", "export"),
    "metrics.json": ("report", "export"),
    "MODEL_CARD.md": ("export",),
    "profile.yaml": ("front", "tables check"),
    "blocks.csv": ("front", "tables check"),
    "networks.csv": ("front", "tables check"),
    "latency_check.json": ("report",),
    "models.json": ("report",),
    "finished model": ("finetune",),
    "alone": ("bench supernet",),
    "baseline.json": ("report",),
    "widths": ("bench baseline",),
    "checkpoint.safetensors": ("train on",),
    "log of a training": ("train on",),
    "budget.json": ("search --budget",),
    "timings.jsonl": ("tables build",),
}  # fmt: skip
"""Verbs that look at a file first; whether one reads it is tried, see `readers`."""


def make(work):
    """Fill ``work`` with a whole run, an unfinished training, a search with a budget and an unfinished table."""
    import yaml

    from hwnas.latency import build
    from hwnas.runs.recipe import load_recipe
    from hwnas.runs.start import open_run, run, start_run
    from hwnas.supernet import make_layout

    recipe = work / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(RECIPE))
    done = run(recipe, out=work / "run")
    done.supernet_quality(1, epochs=0.2)
    done.baseline(["hexagon-dsp"])
    done.report()

    def stop_after(wanted):
        def told(task, done, total, note=""):
            if (task, done) == wanted:
                raise KeyboardInterrupt

        return told

    with contextlib.suppress(KeyboardInterrupt):
        start_run(recipe, work / "unfinished", progress=stop_after(("train", 6))).train()
    plain = [recipe, ["search.adaptation=null", "finish.models=0", "devices=[hexagon-dsp]"]]
    start_run(plain[0], work / "budget", plain[1]).train()
    open_run(work / "budget").search(budget="2s")
    with contextlib.suppress(KeyboardInterrupt):
        build.build_table(
            make_layout(load_recipe(recipe).supernet), work / "table", config=load_recipe(recipe).tables,
            progress=stop_after(("time blocks and networks", 9)),
        )  # fmt: skip


def verbs():
    """Every verb, as a function of the folder that `make` filled; what it returns is compared with other tries."""
    from hwnas.export.bundle import load_model
    from hwnas.latency.build import build_table
    from hwnas.latency.check import check_table
    from hwnas.runs.recipe import load_recipe
    from hwnas.runs.start import open_run, run, start_run
    from hwnas.supernet import make_layout
    from hwnas.train.checkpoint import load_supernet

    def bundle(work):
        return sorted((work / "run/devices/hexagon-dsp/models").iterdir())[0]

    def layout(work):
        return make_layout(load_recipe(work / "tiny.yaml").supernet)

    def tables_build(work):
        build_table(layout(work), work / "table", config=load_recipe(work / "tiny.yaml").tables)

    return {
        "train": lambda work: start_run(work / "tiny.yaml", work / "run").train(),
        "train on": lambda work: start_run(work / "tiny.yaml", work / "unfinished").train(),
        "search": lambda work: open_run(work / "run").search(),
        "search --budget": lambda work: open_run(work / "budget").search(budget="2s"),
        "run": lambda work: run(work / "tiny.yaml", out=work / "run"),
        "export": lambda work: open_run(work / "run").export(),
        "check": lambda work: open_run(work / "run").check_latency(),
        "report": lambda work: open_run(work / "run").report(),
        "front": lambda work: open_run(work / "run").front("hexagon-dsp"),
        "finetune": lambda work: open_run(work / "run").finetune(bundle(work).name, out=work / "tuned"),
        "bench supernet": lambda work: open_run(work / "run").supernet_quality(1, epochs=0.2),
        "bench baseline": lambda work: open_run(work / "run").baseline(["hexagon-dsp"]),
        "load_model": lambda work: load_model(bundle(work)),
        "load_supernet": lambda work: load_supernet(work / "run/train"),
        "tables build": tables_build,
        "tables check": lambda work: check_table(
            layout(work), work / "run/devices/local-cpu/table", 3, config=load_recipe(work / "tiny.yaml").tables
        ),
    }


def truncated(data, share):
    return data[: int(len(data) * share)]


def overwritten(data, share):
    start = min(int(len(data) * share), max(0, len(data) - len(RUBBISH)))
    return data[:start] + RUBBISH[: len(data) - start] + data[start + len(RUBBISH) :]


DAMAGES = {
    **{f"cut at {100 * s:g} %": (truncated, s) for s in PLACES},
    **{f"overwritten at {100 * s:g} %": (overwritten, s) for s in PLACES},
}


def tried(work, file, damage, verb):
    """Return what comes of a verb in a copy of ``work`` with one damaged file, and the message."""
    with tempfile.TemporaryDirectory(dir=work.parent) as name:
        copy = Path(name) / "work"
        shutil.copytree(work, copy, copy_function=_copied)
        path = sorted(copy.glob(FILES[file]))[0]
        before = path.read_bytes()
        damaged = damage(before)
        path.unlink()
        path.write_bytes(damaged)
        reader, writer = multiprocessing.Pipe(duplex=False)
        child = os.fork()
        if child == 0:
            os._exit(_in_child(verb, copy, writer))
        writer.close()
        said = reader.recv() if reader.poll(300) else ("traceback", "no answer in 300 s")
        os.waitpid(child, 0)
        what, message = said
        if what == "done":
            what = "used" if path.exists() and path.read_bytes() == damaged else "rebuilt"
        return what, message


def _copied(source, target):
    """A link where files are only ever replaced, a copy where they are written in place."""
    if source.endswith((".db", ".jsonl", ".lock")):
        shutil.copyfile(source, target)
    else:
        os.link(source, target)


def _in_child(verb, work, writer):
    from hwnas.errors import HwnasError

    sys.stdout = sys.stderr = io.StringIO()
    try:
        verb(work)
        said = "done", ""
    except HwnasError as error:
        said = "named", str(error)
    except BaseException:  # a fault, which is what is looked for
        said = "traceback", traceback.format_exc()
    writer.send(said)
    return 0


def readers(work, file, names=None):
    """Return the verbs that read a file: those that fail, or make it anew, where it is rubbish."""
    found = {}
    for name, verb in verbs().items():
        if name in (READ_BY[file] if names is None else names):
            what, _ = tried(work, file, lambda data: RUBBISH, verb)
            if what != "used":
                found[name] = verb
    return found


def trial(work, file, damages=tuple(DAMAGES), names=None):
    """Return what came of every damage of a file: ``{verb: [(damage, what, message)]}``."""
    found = {}
    for name, verb in readers(work, file, names).items():
        found[name] = []
        for damage in damages:
            change, share = DAMAGES[damage]
            what, message = tried(work, file, lambda data, c=change, s=share: c(data, s), verb)
            found[name].append((damage, "silent" if what == "used" else what, message))
    return found


def import_most():
    """Import what verbs import when they need it, once for all children; not what starts threads, as ONNX Runtime."""
    for name in (
        "matplotlib.backends.backend_agg", "matplotlib.figure", "plotly.graph_objects", "plotly.offline", "scipy.stats",
        "sklearn.datasets", "sklearn.gaussian_process", "sympy", "hwnas.report.html", "hwnas.runs.run",
    ):  # fmt: skip
        importlib.import_module(name)


def main():
    import_most()
    work = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.mkdtemp()).absolute() / "work"
    if not work.exists():
        work.mkdir(parents=True)
        make(work)
    only = sys.argv[2:] or FILES
    total, faults, started = Counter(), [], time.monotonic()
    for file in only:
        row = []
        for verb, results in trial(work, file).items():
            counts = Counter(what for _, what, _ in results)
            total += counts
            row.append(f"{verb}: " + " ".join(f"{n} {what}" for what, n in sorted(counts.items())))
            faults += [
                (file, verb, damage, what, message)
                for damage, what, message in results
                if what in ("traceback", "silent")
            ]
        print(f"| {file} | {'; '.join(row) or 'no verb reads it'} |", flush=True)
    print(json.dumps(total), f"{time.monotonic() - started:.0f} s")
    for fault in faults:
        print("FAULT", *fault, sep="\n  ")


if __name__ == "__main__":
    main()
