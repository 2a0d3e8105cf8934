"""Does a task keep to `hwnas.task.task.Task`? Inherit `TaskTests` in your own tests and override what it asks for."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from hwnas.errors import DataError
from hwnas.task import Score, Task

N = 12
"""Labels that a test asks for."""


class TaskTests:
    """What every task does. Outputs are made here, so that no network is trained."""

    n_outputs = 3
    """Of the networks that learn the labels of `labels`."""
    names: tuple[str, ...] = ("first", "second", "third")
    """What a source would call its classes or outputs."""

    def make(self) -> Task:
        """Return the task to test."""
        raise NotImplementedError("override make() to return the task that is tested")

    def labels(self, n: int) -> NDArray[np.generic]:
        """Return ``n`` labels that can be learnt, as a source gives them; not all equal."""
        raise NotImplementedError("override labels(n) to return labels of your task")

    def perfect_outputs(self, labels: NDArray[np.generic]) -> torch.Tensor:
        """Return ``(n, n_outputs)`` outputs of a network that knows the labels."""
        raise NotImplementedError("override perfect_outputs(labels) to return what a perfect network says")

    def test_scores_are_named_with_their_unit(self) -> None:
        """At least one, no name twice, and standard errors have names of their own."""
        task = self.make()
        assert task.name
        assert task.scores, "a task has at least one score"
        assert all(isinstance(score, Score) and score.title for score in task.scores)
        assert task.score == task.scores[0]
        names = [n for s in task.scores for n in (s.name, s.named("stderr"))]
        assert len(set(names)) == len(names)

    def test_labels_that_fit_are_accepted(self) -> None:
        """With test images, without them, and with an empty test part."""
        for test in (None, self.labels(N)[:4], self.labels(N)[:0]):
            self.make().check(self.labels(N), test, self.n_outputs, self.names, "here")

    def test_another_number_of_outputs_is_an_error_that_says_where(self) -> None:
        """The network must have as many outputs as the labels need."""
        try:
            self.make().check(self.labels(N), None, self.n_outputs + 1, self.names, "the source in question")
        except DataError as error:
            said = str(error)
        else:
            raise AssertionError("labels were accepted for a network with one output more than they need")
        assert said.startswith("the source in question")
        assert "\n" not in said

    def test_strata_are_one_number_a_label(self) -> None:
        """Splits keep the share of each."""
        found = self.make().strata(self.labels(N))
        assert found.shape == (N,)
        assert found.dtype == np.int64

    def test_targets_are_tensors_with_the_rows_of_the_labels(self) -> None:
        """A row of labels gives the same target in whatever company it comes."""
        task, labels = self.make(), self.labels(N)
        targets = task.targets(labels)
        assert len(targets) == N
        assert targets.dtype in (torch.int64, torch.float32)
        assert targets.ndim == (1 if targets.dtype == torch.int64 else 2)
        rows = np.array([3, 0, 7])
        assert torch.equal(task.targets(labels[rows]), targets[torch.from_numpy(rows)])

    def test_the_loss_is_a_mean_with_gradients(self) -> None:
        """Twice the same batch is no more loss than once; a step against the gradient lowers it."""
        task, targets = self.make(), self.make().targets(self.labels(N))
        for smoothing in (0.0, 0.1):
            outputs = self._outputs().requires_grad_()
            loss = task.loss(outputs, targets, smoothing)
            assert loss.shape == ()
            doubled = task.loss(outputs.repeat(2, 1), torch.cat([targets, targets]), smoothing)
            assert math.isclose(loss.item(), doubled.item(), rel_tol=1e-5)
            (gradient,) = torch.autograd.grad(loss, outputs)
            assert task.loss(outputs.detach() - 0.01 * gradient, targets, smoothing).item() < loss.item()

    def test_a_network_that_knows_the_labels_has_less_loss_and_better_scores(self) -> None:
        """Loss and scores agree about what is good."""
        task, labels = self.make(), self.labels(N)
        targets, perfect = task.targets(labels), self.perfect_outputs(labels)
        wrong = self._outputs()
        assert task.loss(perfect, targets).item() < task.loss(wrong, targets).item()
        good, bad = self._scored(perfect, targets), self._scored(wrong, targets)
        for score in task.scores:
            assert score.sign * good[score.name] > score.sign * bad[score.name], score.name

    def test_a_meter_gives_every_score_and_its_standard_error(self) -> None:
        """Finite, and an error is not negative."""
        task = self.make()
        found = self._scored(self._outputs(), task.targets(self.labels(N)))
        assert set(found) == {n for s in task.scores for n in (s.name, s.named("stderr"))}
        assert all(math.isfinite(v) for v in found.values())
        assert all(found[s.named("stderr")] >= 0 for s in task.scores)

    def test_a_meter_does_not_care_how_images_are_divided(self) -> None:
        """Batches of 5 and all at once."""
        task, outputs = self.make(), self._outputs()
        targets = task.targets(self.labels(N))
        whole, meter = self._scored(outputs, targets), task.meter()
        for part, wanted in zip(outputs.split(5), targets.split(5), strict=True):
            meter.add(part, wanted)
        assert meter.values().keys() == whole.keys()
        assert all(math.isclose(v, whole[k], rel_tol=1e-6, abs_tol=1e-9) for k, v in meter.values().items())

    def test_outputs_that_are_not_finite_and_no_outputs_are_no_score(self) -> None:
        """NaN under every name: a failed network is not a bad one."""
        task, targets = self.make(), self.make().targets(self.labels(N))
        for bad in (math.nan, math.inf):
            outputs = self._outputs()
            outputs[1, -1] = bad
            meter = task.meter()
            meter.add(outputs[:6], targets[:6])
            meter.add(outputs[6:], targets[6:])
            assert all(math.isnan(v) for v in meter.values().values())
        assert {k for k, v in task.meter().values().items() if math.isnan(v)} >= {s.name for s in task.scores}

    def test_a_student_that_answers_like_its_teacher_has_the_least_distillation_loss(self) -> None:
        """Against `soft_targets` of the teacher's outputs, with gradients to the student alone."""
        task = self.make()
        teacher = self._outputs()
        soft = task.soft_targets(teacher)
        assert len(soft) == N
        same = task.distillation_loss(teacher.clone().requires_grad_(), soft)
        assert same.shape == ()
        (gradient,) = torch.autograd.grad(task.distillation_loss(s := teacher.clone().requires_grad_(), soft), s)
        assert gradient.abs().max() < 1e-5
        assert task.distillation_loss(teacher.flip(1), soft).item() > same.item()

    def _outputs(self) -> torch.Tensor:
        return torch.randn(N, self.n_outputs, generator=torch.Generator().manual_seed(0))

    def _scored(self, outputs: torch.Tensor, targets: torch.Tensor) -> dict[str, float]:
        meter = self.make().meter()
        meter.add(outputs, targets)
        return meter.values()
