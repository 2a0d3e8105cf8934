"""Small things that many tests share: a tiny supernet, images, and where real data lies."""

import multiprocessing
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
import yaml

from hwnas.cli import main
from hwnas.data import AugmentConfig, DataConfig, ImageSet, Splits
from hwnas.supernet import build_supernet, make_layout
from hwnas.supernet.families.mbv3 import MBV3Config

torch.set_num_threads(1)

TINY = {
    "family": "mbv3",
    "in_channels": 5,
    "classes": 7,
    "resolutions": [11, 13],
    "stem_width": 8,
    "stem_stride": 1,
    "stem_act": "hswish",
    "first_block": True,
    "stages": [
        {"width": 8, "stride": 1, "depths": [1, 2], "kernel_sizes": [3, 5, 7], "expand_ratios": [2, 3]},
        {
            "width": 16,
            "stride": 2,
            "depths": [1, 2, 3],
            "kernel_sizes": [3, 5],
            "expand_ratios": [1.5, 3, 4],
            "act": "hswish",
            "se": True,
        },
    ],
    "expand_width": 40,
    "feature_width": 24,
    "dropout_percent": 0,
}


def pytest_collection_modifyitems(items):
    """Begin with the files that take long, so that no worker of `-n` is left with one of them at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def rng():
    return np.random.default_rng(20261)


@pytest.fixture(scope="session")
def killed_when():
    """Run a script in a process of its own, SIGKILL it when its printed lines are as wanted, and return the lines."""

    # Children are forks of one process that has imported hwnas and what a run imports: that takes 6 s, a fork none.
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(["hwnas.runs.start", "hwnas.train", "torch._dynamo", "scipy.stats"])

    def start(script, arguments, wanted):
        lines, (reader, writer) = [], server.Pipe(duplex=False)
        child = server.Process(target=run_script, args=(script, [str(a) for a in arguments], writer))
        child.start()
        writer.close()
        with open(reader.fileno(), closefd=False) as printed:
            for line in printed:
                lines.append(line.strip())
                if wanted(lines):
                    child.kill()
                    break
        child.join()
        assert child.exitcode == -signal.SIGKILL, "it ended by itself"
        return lines

    return start


def run_script(script, arguments, output):
    """Run Python code in this process with these ``sys.argv[1:]``; what it prints goes to ``output``."""
    os.dup2(output.fileno(), sys.stdout.fileno())
    sys.argv[1:] = arguments
    exec(script, {"__name__": "__main__"})


@pytest.fixture(scope="session")
def tiny():
    """Settings of a supernet of 2 stages for images of 5 channels, 11 or 13 pixels, and 7 classes."""
    return MBV3Config.model_validate(TINY)


@pytest.fixture(scope="session")
def tiny_with():
    """``tiny`` with other values of top-level keys."""
    return lambda **changes: MBV3Config.model_validate({**TINY, **changes})


@pytest.fixture(scope="session")
def layout(tiny):
    return make_layout(tiny)


def randomise(net, seed):
    """Give batch norms and kernel maps values that no initialisation has, so that a mix-up shows."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            noise = torch.randn(tensor.shape, generator=g) if tensor.is_floating_point() else None
            if name.endswith("running_var"):
                tensor.copy_(noise.abs() + 0.5)
            elif ".maps." in name:
                tensor.add_(0.1 * noise)
            elif tensor.ndim == 1 and noise is not None:
                tensor.add_(0.3 * noise)
    return net


@pytest.fixture(scope="session")
def make_net(tiny):
    """Make a tiny supernet in eval mode whose every tensor is random."""
    return lambda seed=0, config=tiny: randomise(build_supernet(config, seed), seed + 1).eval()


@pytest.fixture
def images():
    """``(n, 5, px, px)`` floats by a seed."""
    return lambda n, px, seed=0: torch.randn(n, 5, px, px, generator=torch.Generator().manual_seed(seed))


def make_splits(n=(41, 17, 19), classes=7, channels=5, px=13, seed=3):
    g = torch.Generator().manual_seed(seed)
    parts = [
        ImageSet(
            torch.randint(0, 256, (k, channels, px, px), generator=g, dtype=torch.uint8),
            torch.randint(0, classes, (k,), generator=g),
        )
        for k in n
    ]
    return Splits("made", tuple(f"class{i}" for i in range(classes)), *parts)


@pytest.fixture(scope="session")
def splits():
    """Random images for the tiny supernet: 41 to train, 17 to validate, 19 to test."""
    return make_splits()


@pytest.fixture
def splits_with():
    return make_splits


@pytest.fixture
def data_config():
    return DataConfig(augment=AugmentConfig(flip=True, shift_percent=10, cutout_percent=20))


@pytest.fixture(scope="session")
def shared():
    """The folder of real data, which is no part of the project."""
    folder = Path(os.environ.get("HWNAS_SHARED", "../shared")) / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set HWNAS_SHARED to the folder that holds data/")
    return folder


MODELLED = ("hexagon-dsp", "myriad-vpu")


@pytest.fixture(scope="session")
def tiny_recipe():
    """Values of a recipe that runs in seconds: digits, two modelled devices, a few evaluations."""
    return {
        "name": "tiny",
        "devices": list(MODELLED),
        "objectives": ["top1_percent", "latency_ms", "params", "introspectability"],
        "data": {"source": "digits", "max_images": 150, "augment": {"shift_percent": 8}},
        "supernet": {
            "family": "mbv3",
            "in_channels": 1,
            "classes": 10,
            "resolutions": [8, 10],
            "stem_width": 8,
            "stem_stride": 1,
            "first_block": False,
            "stages": [
                {"width": 8, "stride": 2, "depths": [1, 2], "kernel_sizes": [3, 5], "expand_ratios": [1, 2]},
                {
                    "width": 16,
                    "stride": 1,
                    "depths": [1, 2],
                    "kernel_sizes": [3, 5],
                    "expand_ratios": [2, 3],
                    "se": True,
                },
            ],
            "expand_width": 24,
            "feature_width": 0,
        },
        "train": {
            "batch_size": 25,
            "checkpoint_every_s": 1e-9,
            "phases": [
                {"name": "full", "epochs": 2, "lr": 0.1},
                {
                    "name": "all",
                    "epochs": 1,
                    "lr": 0.05,
                    "elastic": {"kernel_size": "all", "depth": "all", "expand_ratio": "all"},
                    "sampling": "sandwich",
                    "subnets_per_step": 2,
                    "teacher": "fixed",
                    "sort_channels": True,
                },
            ],
        },
        "search": {"algorithm": "hurricane", "evaluations": 8},
        "tables": {"n_networks": 6, "n_held_out": 4, "rounds": 1, "block_time_s": 0.0005, "network_time_s": 0.0005},
        "finish": {"models": 0},
        "export": {"front_size": 4},
        "finetune": {"epochs": 1},
    }


@pytest.fixture
def recipe_file(tiny_recipe, tmp_path):
    """Write the tiny recipe, with other values of top-level keys, and return its path."""

    def write(**changes):
        path = tmp_path / "tiny.yaml"
        path.write_text(yaml.safe_dump({**tiny_recipe, **changes}))
        return path

    return write


@pytest.fixture
def hwnas_command(monkeypatch, capsys):
    """Call ``hwnas`` with arguments; return exit code, standard output and standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["hwnas", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        out = capsys.readouterr()
        return caught.value.code, out.out, out.err

    return call


@pytest.fixture
def killed_run(killed_when):
    """Run a recipe in a process of its own, and kill it when it has printed the wanted progress, ``task: steps``."""
    script = """
import sys, torch
from hwnas.runs.start import run
torch.set_num_threads(1)
run(sys.argv[1], out=sys.argv[2], progress=lambda task, done, *_: print(f"{task}: {done}", flush=True))
"""
    return lambda recipe, out, at: killed_when(script, [recipe, out], lambda lines: lines[-1] == at)


@pytest.fixture(scope="session")
def finished_run(tiny_recipe, tmp_path_factory):
    """The folder of a whole run of the tiny recipe; copy it before changing it."""
    from hwnas.runs.start import run

    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe))
    run(folder / "tiny.yaml", out=folder / "run")
    return folder / "run"
