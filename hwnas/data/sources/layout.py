"""Which folder holds which class of which split? Three layouts are understood.

- ``cat/ dog/``: one folder a class.
- ``train/cat/ train/dog/ test/cat/ ...``: splits, then classes; splits by any name that `split_of` knows.
- ``cat/train/ cat/test/ dog/train/ ...``: classes, then splits.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path

from hwnas.data.sources.tree import Tree
from hwnas.data.split_names import SplitName, chosen_splits, hidden_splits, split_of
from hwnas.errors import DataError, escaped, some

Layout = dict[SplitName, dict[str, Path]]
"""The folder of every class, by split; splits of which nothing has a label are not there."""
UNLABELLED = {"unlabelled", "unlabeled", "unsup", "unsupervised", "nolabel", "nolabels"}
"""Names, without separators, of folders whose images have no label."""


def find_layout(tree: Tree) -> Layout:
    """Look at the folders below the root of ``tree``; what belongs to no class is left out.

    Raises:
        DataError: images without folders of classes, folders that can be read in two ways, or a class of another split
            that the training images do not have.
    """
    entries = tree.entries(tree.root)
    folders = tree.folders(tree.root)
    tree.leave_out_files(entries, "images outside the folders of classes, which have no label")
    splits = chosen_splits(f.name for f in folders)
    others = [f for f in folders if split_of(f.name) is None]
    if "train" in splits and tree.folders(tree.root / splits["train"]):
        return _splits_first(tree, splits, others)
    if folders and not others:
        given = some([f.name for f in folders])
        if "train" not in splits and any(map(tree.folders, folders)):
            raise DataError(f"{_shown(tree.root)} has the splits {given}, and no train; add train/, or rename one")
        raise DataError(
            f"{_shown(tree.root)} has the splits {given} with images, but no folders of classes in them; put the "
            f"images of each class in a folder of its own, such as {folders[0].name}/cat"
        )
    if not folders and any(entry.is_file() for entry in entries):
        raise DataError(
            f"{_shown(tree.root)} has no folders of classes; put the images of each class in a folder of its own "
            f"({_first_reason(tree)})"
        )
    if like_splits := hidden_splits(f.name for f in folders):
        raise DataError(
            f"{_shown(tree.root)} has the folders {some(like_splits)}, which look like splits; call them train, "
            "validation and test, or otherwise if they are classes"
        )
    inner = {f: chosen_splits(g.name for g in tree.folders(f)) for f in folders}
    if len(folders) > 1 and all("train" in found for found in inner.values()):
        return _classes_first(tree, inner)
    _refuse_a_wrapping(tree, tree.root, folders)
    return {"train": _labelled(tree, folders)}


def _splits_first(tree: Tree, splits: Mapping[SplitName, str], others: list[Path]) -> Layout:
    alone = len(splits) == 1
    named = [f.name for f in others if alone and not _is_unlabelled(f) and tree.has_images(f)]
    train = splits["train"]
    if named:
        raise DataError(
            f"{_shown(tree.root)} has {train}/ with folders in it, beside {some(named)} with images, so {train} can be "
            f"the training images or a class; move the others below {train}/ or away, or rename {train}"
        )
    for folder in tree.folders(tree.root):
        if folder.name not in splits.values():
            tree.leave_out_folder(folder, "files in folders that are no split, beside the splits")
    found: Layout = {}
    for split in ("train", "validation", "test"):
        if split not in splits:
            continue
        folder = tree.root / splits[split]
        tree.leave_out_files(tree.entries(folder), f"images directly in {folder.name}/, which have no label")
        classes = tree.folders(folder)
        if split == "train":
            _refuse_a_wrapping(tree, folder, classes)
            found["train"] = _labelled(tree, classes)
        elif labelled := _of_the_same_classes(tree, folder, _labelled(tree, classes), found["train"]):
            found[split] = labelled
    return found


def _classes_first(tree: Tree, inner: Mapping[Path, Mapping[SplitName, str]]) -> Layout:
    found: Layout = {}
    for folder, splits in inner.items():
        tree.leave_out_files(tree.entries(folder), f"images of classes outside their {splits['train']}/")
        for split, name in splits.items():
            found.setdefault(split, {})[folder.name] = folder / name
        for other in tree.folders(folder):
            if other.name not in splits.values():
                tree.leave_out_folder(other, "files in folders that are no split, beside the splits")
    return found


def _labelled(tree: Tree, folders: list[Path]) -> dict[str, Path]:
    """Folders of classes by name; those that say that their images have no label are left out."""
    found = {}
    for folder in folders:
        if _is_unlabelled(folder):
            tree.leave_out_folder(folder, f"files in folders called {folder.name}")
        else:
            found[folder.name] = folder
    return found


def _is_unlabelled(folder: Path) -> bool:
    return "".join(c for c in folder.name.casefold() if c.isalnum()) in UNLABELLED


def _of_the_same_classes(
    tree: Tree, split: Path, folders: Mapping[str, Path], train: Mapping[str, Path]
) -> dict[str, Path]:  # fmt: skip
    """The folders of a split by the names of the training classes; exactly, else whatever the case and the accents."""
    keys: dict[str, list[str]] = {}
    for name in train:
        keys.setdefault(_key(name), []).append(name)
    found: dict[str, Path] = {}
    unknown: list[Path] = []
    for name, folder in folders.items():
        same = [name] if name in train else keys.get(_key(name), [])
        if len(same) == 1 and same[0] not in found:
            found[same[0]] = folder
        elif tree.has_images(folder):
            unknown.append(folder)
        else:
            tree.leave_out_folder(folder, f"files in folders of {split.name} that are no class")
    if not found and len(unknown) == 1:  # such as test/test: one folder around images without labels
        tree.leave_out_folder(unknown[0], f"files of {split.name}, which have no label")
    elif unknown:
        raise DataError(
            f"{_shown(split)} has images of {some([f.name for f in unknown])}, which is no class of the training "
            f"images (these are {some(list(train), 12)}); give training images of it, rename it, or remove it"
        )
    return found


def _refuse_a_wrapping(tree: Tree, folder: Path, classes: list[Path]) -> None:
    """Raise where all classes are in one more folder, as an unpacked archive may have them."""
    if len(classes) == 1 and len(tree.folders(classes[0])) > 1:
        raise DataError(
            f"{_shown(folder)} has the one folder {classes[0].name!r}, which has folders in it; "
            + (
                f"if these are the classes, give data.path={_shown(classes[0])}"
                if folder == tree.root
                else f"if these are the classes, move them to {_shown(folder)}"
            )
        )


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).strip().casefold()


def _shown(path: Path) -> str:
    return escaped(str(path))


def _first_reason(tree: Tree) -> str:
    return "it has " + "; ".join(map(str, tree.left_out.values()[:3]))
