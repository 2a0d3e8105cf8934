"""Cut a subnet out of a trained supernet, calibrate its batch norm, and see why that matters."""

import sys
from pathlib import Path

import hwnas


def main(folder: str = "runs/example") -> float:
    """Print validation accuracy before and after calibration; return the latter."""
    run = hwnas.open_run(folder)
    supernet = hwnas.load_supernet(Path(folder) / "train")
    arch = supernet.space.smallest()
    subnet = hwnas.extract_subnet(supernet, arch)  # plain nn.Module, BN not yet recalibrated

    splits, evaluator = run.splits, run.evaluator
    inputs, labels = evaluator.inputs(splits.validation, arch), splits.validation.labels
    before = hwnas.scores(subnet, inputs, labels, splits.task)["top1_percent"]
    hwnas.calibrate_bn(subnet, evaluator.inputs(splits.train, arch).split(200))
    after = hwnas.scores(subnet, inputs, labels, splits.task)["top1_percent"]
    print(f"smallest subnet: {before:.2f} % with shared BN statistics, {after:.2f} % with its own")
    return after


if __name__ == "__main__":
    main(*sys.argv[1:])
