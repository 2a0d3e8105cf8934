"""Which shipped devices rank a space alike? Kendall's tau of every pair on every shipped recipe of images.

python benchmarks/devices_alike.py      # prints, and stores the table in benchmarks/results/
"""

from __future__ import annotations

from pathlib import Path

from hwnas.latency.rank import ALIKE, rank_devices
from hwnas.runs.recipe import load_recipe
from hwnas.supernet import make_layout

OUT = Path(__file__).resolve().parent / "results" / "devices_alike.txt"
RECIPES = (
    "digits-mbv3", "nasbench201", "ofa-mbv3-w1.0", "ofa-proxyless", "ofa-resnet50d", "ofav2-mbv3", "hurricane-imagenet",
)  # fmt: skip


def main() -> None:
    """Rank, print and store."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for recipe in RECIPES:
        ranks = rank_devices(make_layout(load_recipe(recipe).supernet), archs=500)
        for i, a in enumerate(ranks.devices):
            for j in range(i):
                found.setdefault((ranks.devices[j], a), {})[recipe] = float(ranks.tau[i, j])
        print(recipe, len(ranks.alike), flush=True)
    alike = {pair: taus for pair, taus in found.items() if max(taus.values()) >= ALIKE}
    lines = [
        f"Kendall's tau of pairs of devices that rank at least one space alike ({ALIKE} or more), 500 random archs",
        "first the pairs that are alike on most spaces", "",
        f"{'devices':<52}" + "".join(f"{r:>20}" for r in RECIPES),
    ]  # fmt: skip
    for pair, taus in sorted(alike.items(), key=lambda p: (-sum(t >= ALIKE for t in p[1].values()), p[0])):
        lines.append(f"{', '.join(pair):<52}" + "".join(f"{taus[r]:>20.3f}" for r in RECIPES))
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
