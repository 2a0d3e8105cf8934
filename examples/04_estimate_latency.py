"""Ask device profiles how long an arch takes, and time the same network on this machine."""

import tempfile
from pathlib import Path

import hwnas


def main(devices: tuple[str, ...] = ("hexagon-dsp", "myriad-vpu", "note10-cpu"), time_limit_s: float = 0.5) -> None:
    """Print latencies of the smallest and the largest subnet."""
    supernet = hwnas.build_supernet(hwnas.load_recipe("digits-mbv3").supernet)
    space = supernet.space
    for name in devices:
        device = hwnas.load_device(name)
        low, high = (device.estimate_ms(arch) for arch in (space.smallest(), space.largest()))
        print(f"{name:12} {low:.3f} to {high:.3f} ms ({device.profile.origin})")

    with tempfile.TemporaryDirectory() as folder:
        for arch in (space.smallest(), space.largest()):
            path = Path(folder) / f"{arch.key}.onnx"
            channels, resolution, _ = supernet.layout.input_shape(arch)
            hwnas.to_onnx(hwnas.extract_subnet(supernet, arch), channels, resolution, path)
            timed = hwnas.profile(path, time_limit_s=time_limit_s)
            print(f"this machine {timed.median_ms:.3f} ms (measured, {timed.conditions.runtime})")


if __name__ == "__main__":
    main()
