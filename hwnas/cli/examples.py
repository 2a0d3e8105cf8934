"""One example for the help of every command."""

from __future__ import annotations

import typer

EXAMPLES = {
    "quickstart": "hwnas quickstart --out runs/quickstart",
    "init": "hwnas init my-pictures --devices local-cpu,edge-tpu",
    "run": "hwnas run my.yaml --devices local-cpu,hexagon-dsp --budget 2h --out runs/mine",
    "operators": "hwnas operators mnist-hurricane --devices hexagon-dsp --keep 5",
    "plan": "hwnas plan my.yaml --budget 2h",
    "train": "hwnas train my.yaml train.batch_size=32 --out runs/mine",
    "search": 'hwnas search runs/mine --devices edge-tpu --limit "latency_ms<=3" --evaluations 200',
    "fleet": 'hwnas fleet runs/mine --models 2 --limit "local-cpu:latency_ms<=1"',
    "pareto": 'hwnas pareto runs/mine --select "best:local-cpu:latency_ms<=1" --select different:4',
    "export": 'hwnas export runs/mine --select "best:local-cpu:latency_ms<=1" --int8 --out chosen',
    "finetune": "hwnas finetune runs/mine 7d2074 --device local-cpu --epochs 20",
    "report": "hwnas report runs/mine runs/other-seed",
    "watch": "hwnas watch runs/mine",
    "compare": "hwnas compare runs/mine runs/other-seed",
    "track": "hwnas track runs/mine optuna",
    "data": "hwnas data my.yaml data.path=my-pictures --sheet sheet.png",
    "recipe": "hwnas recipe digits-mbv3",
    "profile": "hwnas profile chosen/local-cpu/7d2074bc599b --threads 1",
    "devices": "hwnas devices",
    "devices show": "hwnas devices show edge-tpu",
    "devices rank": "hwnas devices rank digits-mbv3 --devices edge-tpu,hexagon-dsp",
    "tables build": "hwnas tables build --recipe my.yaml --out my-cpu",
    "tables check": "hwnas tables check my-cpu --recipe my.yaml",
    "tables import": "hwnas tables import phone.csv --format csv --recipe my.yaml --licence MIT --source us --out pho",
    "tables sample": "hwnas tables sample --recipe my.yaml --out networks",
    "tables fit": "hwnas tables fit times.csv --recipe my.yaml --licence CC0 --source ours --out my-board",
    "bench supernet": "hwnas bench supernet runs/mine --subnets 6 --epochs 10",
    "bench baseline": "hwnas bench baseline runs/mine --devices local-cpu",
    "import-ofa": "hwnas import-ofa ofa_supernet.pth data.path=photos --recipe ofa-mbv3-w1.0 --out runs/published",
    "plugins": "hwnas plugins",
    "doctor": "hwnas doctor",
}
"""By command."""


def with_examples(app: typer.Typer, before: str = "") -> None:
    """Let the help of every command end with its example."""
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "")
        if (example := EXAMPLES.get(f"{before}{name}")) is not None:
            command.epilog = f"Example:\n\n\b\n  {example}"  # after \\b lines stay whole
    for group in app.registered_groups:
        if group.typer_instance is not None and group.name:
            with_examples(group.typer_instance, f"{before}{group.name} ")
