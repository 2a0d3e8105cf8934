"""Export the models of a front, load one back, and fine-tune it with the largest subnet as teacher."""

import sys

import hwnas


def main(folder: str = "runs/example", device: str = "hexagon-dsp", epochs: float = 2.0) -> hwnas.Bundle:
    """Return the fine-tuned bundle of the front's knee."""
    run = hwnas.open_run(folder)
    run.export()
    knee = run.front(device).knee()
    network = hwnas.load_model(knee.folder)
    print(
        f"{knee.key}: {sum(p.numel() for p in network.parameters()):,} parameters, {hwnas.Bundle(knee.folder).metrics}"
    )

    result, bundle = run.finetune(knee.key, device=device, epochs=epochs, lr=0.02)
    print(f"validation {result.score_before:.2f} % -> {result.score:.2f} % in float, in {bundle.folder}")
    return bundle


if __name__ == "__main__":
    main(*sys.argv[1:])
