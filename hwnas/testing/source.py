"""Does a source keep to `hwnas.data.source.Source`? Inherit `SourceTests` in your own tests and override `make`."""

from __future__ import annotations

import numpy as np

from hwnas.data import DataConfig, load_data
from hwnas.data.left_out import LeftOut
from hwnas.data.source import Images, Opened, Source, SourceConfig, place_of
from hwnas.task import DEFAULT_TASK, TASKS, Task


class SourceTests:
    """What every source does with the images that `config` names; there should be a few dozen."""

    size_px = 16
    """Edge that is asked for where images differ in size."""
    name = ""
    """As a recipe would write the source, to read it through `load_data`, too; empty: do not."""

    def make(self) -> Source:
        """Return the source to test."""
        raise NotImplementedError("override make() to return the source that is tested")

    def config(self) -> SourceConfig:
        """Return where its images are."""
        return SourceConfig()

    def task(self) -> Task:
        """Return what is learnt from its labels."""
        return TASKS.get(DEFAULT_TASK)

    def test_it_opens_images_with_labels_and_names(self) -> None:
        """As many labels as images, and names for what the network's outputs stand for."""
        opened = self._opened()
        assert isinstance(opened, Opened)
        assert opened.classes
        assert all(isinstance(name, str) for name in opened.classes)
        for images in self._parts(opened):
            labels = images.labels
            assert isinstance(labels, np.ndarray)
            assert len(labels) == len(images)
            integers = labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer)
            assert integers or (labels.ndim == 2 and np.issubdtype(labels.dtype, np.floating)), (
                "(N,) int or (N, k) float"
            )
        assert len(opened.train) > 0

    def test_its_labels_can_be_learnt(self) -> None:
        """The task accepts them for as many outputs as there are names."""
        opened = self._opened()
        for part in self._parts(opened):
            self.task().check(opened.train.labels, part.labels, len(opened.classes), opened.classes, "the source")

    def test_pixels_are_bytes_of_one_size(self) -> None:
        """``(B, C, H, W)`` uint8 with 1 or 3 channels, the same for every part."""
        shapes = set()
        for images in self._parts(self._opened()):
            pixels = images.pixels(np.arange(min(3, len(images))), self.size_px)
            assert pixels.dtype == np.uint8
            assert pixels.ndim == 4
            assert pixels.shape[1] in (1, 3)
            assert len(pixels) == min(3, len(images))
            shapes.add(pixels.shape[1:])
        assert len(shapes) == 1

    def test_images_come_in_the_order_that_is_asked_for(self) -> None:
        """An image is the same alone, in a batch, twice in a batch, and the next time."""
        images = self._opened().train
        last = len(images) - 1
        found = images.pixels(np.array([last, 0, last]), self.size_px)
        assert np.array_equal(found[0], found[2])
        assert np.array_equal(found[:1], images.pixels(np.array([last]), self.size_px))
        assert np.array_equal(found[1], images.pixels(np.arange(len(images)), self.size_px)[0])

    def test_what_is_done_with_pixels_does_not_change_the_images(self) -> None:
        """A caller may write into a batch."""
        images = self._opened().train
        rows = np.array([1, 0])
        before = images.pixels(rows, self.size_px).copy()
        batch = images.pixels(rows, self.size_px)
        if batch.flags.writeable:
            batch[:] = 0
        assert np.array_equal(images.pixels(rows, self.size_px), before)

    def test_every_image_can_be_named(self) -> None:
        """No two images of a part lie at the same place; what is left out says why and how much."""
        opened = self._opened()
        for part in self._parts(opened):
            assert len({place_of(part, i) for i in range(len(part))}) == len(part)
        for entry in opened.left_out:
            assert isinstance(entry, LeftOut)
            assert entry.reason
            assert entry.count > 0

    def test_opened_twice_it_gives_the_same(self) -> None:
        """Labels, names and pixels, in the same order: a run that is continued must see what it saw."""
        a, b = self._opened(), self._opened()
        assert a.classes == b.classes
        for one, other in zip(self._parts(a), self._parts(b), strict=True):
            rows = np.arange(len(one))
            assert np.array_equal(one.labels, other.labels)
            assert np.array_equal(one.pixels(rows, self.size_px), other.pixels(rows, self.size_px))

    def test_it_can_be_named_in_a_recipe(self) -> None:
        """`load_data` finds it by its name and splits it."""
        if not self.name:
            return
        opened = self._opened()
        channels = opened.train.pixels(np.array([0]), self.size_px).shape[1]
        config = DataConfig(**{**self.config().model_dump(), "source": self.name})
        splits = load_data(config, self.task(), channels, len(opened.classes), self.size_px)
        total = sum(map(len, (splits.train, splits.validation, splits.test)))
        assert total == sum(map(len, self._parts(opened)))
        assert splits.classes == opened.classes

    def _opened(self) -> Opened:
        return self.make().open(self.config(), self.size_px)

    @staticmethod
    def _parts(opened: Opened) -> list[Images]:
        return [part for part in (opened.train, opened.test, opened.validation) if part is not None]
