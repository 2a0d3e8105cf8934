"""Which split is meant by a name?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

SplitName = Literal["train", "validation", "test"]

SPELLINGS: dict[SplitName, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "validation": ("validation", "valid", "val", "dev", "development"),
    "test": ("test", "testing", "tst", "eval", "evaluation"),
}
"""Words for each split, the commonest first. They are those of Hugging Face `datasets` and a few more."""
FILLERS = {"set", "split", "data", "dataset", "images", "image", "imgs", "img", "pictures", "photos", "folder"}
"""Words that may stand beside, as in ``test_set`` or ``train-images``."""


def split_of(name: str) -> SplitName | None:
    """Return the split that a folder, an array or a split of a dataset is called after; None: it is no split.

    Case, digits, separators and `FILLERS` do not count: ``Val``, ``TRAINING_SET``, ``testset``, ``train2017``.
    """
    words = [w for w in re.split(r"[\W\d_]+", name.strip().casefold()) if w and w not in FILLERS]
    if len(words) != 1:
        return None
    word = words[0]
    for ending in ("", "set", "split", "images", "data"):
        for split, spellings in SPELLINGS.items():
            if word.removesuffix(ending) in spellings:
                return split
    return None


def chosen_splits(names: Iterable[str]) -> dict[SplitName, str]:
    """Return the name that is used for each split; of several names of one split the commonest spelling.

    Such as ``validation`` where there is ``dev`` besides. What is not chosen should be reported.
    """
    found: dict[SplitName, list[str]] = {}
    for name in names:
        split = split_of(name)
        if split is not None:
            found.setdefault(split, []).append(name)
    return {
        split: min(found[split], key=lambda n: (_rank(split, n), n != n.casefold(), n))
        for split in SPELLINGS
        if split in found
    }


def hidden_splits(names: Iterable[str]) -> list[str]:
    """Return names that are a split beside another word, the same for training and another split.

    Such as ``seg_train`` and ``seg_test``, which are probably no classes. Empty where there are none.
    """
    found: dict[tuple[str, ...], dict[SplitName, str]] = {}
    for name in names:
        words = re.split(r"[\W_]+", name.strip().casefold())
        for place in {0, len(words) - 1}:
            split = split_of(words[place])
            rest = (*words[:place], "*", *words[place + 1 :])
            if split is not None and len(words) > 1:
                found.setdefault(rest, {})[split] = name
    return next((sorted(f.values()) for f in found.values() if "train" in f and len(f) > 1), [])


def _rank(split: SplitName, name: str) -> int:
    """How common a spelling is; names with anything beside the word come last."""
    word = name.strip().casefold()
    return SPELLINGS[split].index(word) if word in SPELLINGS[split] else len(SPELLINGS[split])
