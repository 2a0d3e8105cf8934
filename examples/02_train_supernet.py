"""Train a supernet on the digits of scikit-learn; a second start continues, or finds it trained."""

from pathlib import Path

import hwnas
from hwnas.runs.run import start_run


def main(out: str = "runs/example", epochs: float = 4.0) -> Path:
    """Train every phase for ``epochs`` and return the run folder."""
    overrides = [f"train.phases.{i}.epochs={epochs}" for i in range(4)]
    recipe = hwnas.load_recipe("digits-mbv3", overrides)
    run = start_run(recipe, Path(out))
    supernet = run.train()
    print(f"trained {supernet.space.size:,} subnets at once, in {run.folder / 'train'}")
    return run.folder


if __name__ == "__main__":
    main()
