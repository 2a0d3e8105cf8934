"""Train a supernet on the digits of scikit-learn; a second start continues, or finds it trained."""

from pathlib import Path

import hwnas


def main(out: str = "runs/example", epochs: float = 4.0) -> Path:
    """Train every phase, and later every chosen model, for ``epochs``; return the run folder."""
    overrides = [f"train.phases.{i}.epochs={epochs}" for i in range(4)] + [f"finish.epochs={epochs}"]
    run = hwnas.start_run("digits-mbv3", out, overrides)
    supernet = run.train()
    print(f"trained {supernet.space.size:,} subnets at once, in {run.folder / 'train'}")
    return run.folder


if __name__ == "__main__":
    main()
