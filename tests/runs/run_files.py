"""What several tests read of a run folder."""

import csv


class Stop(BaseException):
    """Stands for Ctrl-C."""


def rows_of(folder, device):
    """The rows of a device's front."""
    with (folder / "devices" / device / "front.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def made_files(folder):
    """Everything that must not depend on when a run was stopped, by its path in the folder."""
    same = (".safetensors", ".onnx", "/arch.json", "metrics.json", "metrics.jsonl", "models.json", "front.csv")
    found = {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    return {name: data for name, data in found.items() if name.endswith(same)}
