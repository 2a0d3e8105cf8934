"""One folder of images a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hwnas.data.source import FileImages, Opened, Source, SourceConfig
from hwnas.data.sources.files import existing_path
from hwnas.data.sources.layout import find_layout
from hwnas.data.sources.tree import Tree
from hwnas.errors import DataError, escaped


class Folder(Source):
    """One folder of images a class, below folders of splits or not; `hwnas.data.sources.layout` says how."""

    def open(self, config: SourceConfig, size_px: int) -> Opened:
        """List the files."""
        root = existing_path(config)
        if not root.is_dir():
            raise DataError(
                f"{escaped(str(root))} is a file; source 'folder' needs a folder with one folder of images a class"
            )
        tree = Tree(root)
        layout = find_layout(tree)
        classes = tuple(sorted(layout["train"]))
        parts = {split: _listed(tree, folders, classes) for split, folders in layout.items()}
        given = {split: part for split, part in parts.items() if len(part) or split == "train"}
        return Opened(
            classes, given["train"], given.get("test"), given.get("validation"), left_out=tree.left_out.values()
        )


def _listed(tree: Tree, folders: Mapping[str, Path], classes: Sequence[str]) -> FileImages:
    """Every image of a split, class by class."""
    found = [
        (path, label) for label, name in enumerate(classes) if name in folders for path in tree.images(folders[name])
    ]
    labels = np.array([label for _, label in found], dtype=np.int64)
    return FileImages([path for path, _ in found], labels, tree.root)


FOLDER = Folder()
