"""Search a trained supernet for two devices, and a space of your own with objectives of your own."""

import sys

import hwnas


def main(folder: str = "runs/example", evaluations: int = 20) -> hwnas.Run:
    """Search two devices; print their fronts, and what the second one offers within a limit."""
    run = hwnas.open_run(folder)
    run.search(["hexagon-dsp", "myriad-vpu"], evaluations=evaluations)
    for name in run.searched():
        front = run.front(name)
        print(f"{name}: {len(front)} models, knee {front.knee().key} {front.knee().values}")
    middle = front[len(front) // 2]
    best = front.within(f"latency_ms<={middle.latency_ms}").best()
    print(f"best of {name} in {middle.latency_ms:.3f} ms: {best.key}")
    return run


def any_space(evaluations: int = 30) -> list[hwnas.Arch]:
    """No network is needed: any choices, any objectives."""
    widths = {f"layer{i}": [8, 16, 32, 64] for i in range(4)}
    space = hwnas.SearchSpace.of_choices(widths, stages=[["layer0", "layer1"], ["layer2", "layer3"]])

    def cost(archs):  # known for every candidate, so it is cheap
        return [float(sum(arch[name] for name in widths)) for arch in archs]

    def quality(archs):  # what an evaluation gives
        return [sum(arch[name] ** 0.5 * (i + 1) for i, name in enumerate(widths)) for arch in archs]

    objectives = [hwnas.Objective("quality", "max", quality), hwnas.Objective("cost", "min", cost, cheap=True)]
    result = hwnas.minimize(space, objectives, evaluations=evaluations, seed=0)
    print(result.message)
    return [result.archs[i] for i in result.front]


if __name__ == "__main__":
    main(*sys.argv[1:])
    any_space()
