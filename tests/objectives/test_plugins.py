"""Objectives by name: shipped ones and ones of one's own, all by the same rules; only those asked for are computed."""

import math
from dataclasses import replace

import pytest
import torch
from objective_plugins import CONFIDENCE

from hwnas.errors import PluginError, RecipeError
from hwnas.objectives.class_profiles import ClassProfiles
from hwnas.objectives.config import EvaluationConfig
from hwnas.objectives.proxies.by_name import PROXIES
from hwnas.objectives.resolve import OBJECTIVES, evaluated_objectives, objective_of, objectives_of
from hwnas.objectives.subnets import SubnetEvaluator
from hwnas.supernet import count_params
from hwnas.task.classification import CLASSIFICATION
from hwnas.testing.objective import EvaluatedObjectiveTests, ExactObjectiveTests

OURS = "objective_plugins:CONFIDENCE"
SHIPPED = [objective_of(name, CLASSIFICATION) for name in (*OBJECTIVES.names(), "top1_percent")]


@pytest.mark.parametrize("objective", [o for o in SHIPPED if o.cost == "exact"], ids=lambda o: o.name)
class TestShippedExact(ExactObjectiveTests):
    @pytest.fixture(autouse=True)
    def _take(self, objective):
        self.make = lambda: objective

    def device(self):
        """A device that runs an operator elsewhere, so that there is something to count."""
        device = super().device()
        return replace(device, profile=device.profile.model_copy(update={"falls_back": {"depthwise_conv": "CPU"}}))


@pytest.mark.parametrize("objective", [o for o in SHIPPED if o.cost == "evaluated"], ids=lambda o: o.name)
class TestShippedEvaluated(EvaluatedObjectiveTests):
    @pytest.fixture(autouse=True)
    def _take(self, objective):
        self.make = lambda: objective


class TestOurExact(ExactObjectiveTests):
    def make(self):
        return objective_of("objective_plugins:KERNELS", CLASSIFICATION)


class TestOurEvaluated(EvaluatedObjectiveTests):
    def make(self):
        return objective_of(OURS, CLASSIFICATION)


@pytest.fixture
def evaluator(make_net, splits):
    return SubnetEvaluator(make_net(), splits, EvaluationConfig(proxy_images=8))


def test_every_shipped_name_is_the_name_of_its_object():
    assert {o.name for o in SHIPPED} == {*OBJECTIVES.names(), "top1_percent"}
    assert set(PROXIES) < {o.name for o in SHIPPED}
    assert {o.name for o in SHIPPED if o.cost == "exact"} == {
        "latency_ms", "params", "macs", "entropy", "peak_memory_kib", "model_size_kib", "fallback_layers",
    }  # fmt: skip


def test_an_objective_of_ones_own_is_computed_beside_the_others(evaluator):
    arch = evaluator.supernet.space.smallest()
    found = evaluator.score(arch, [OURS, "introspectability"])
    assert set(found) == {
        "top1_percent", "top1_stderr_percent", "confidence_percent", "most_confident", "introspectability",
    }  # fmt: skip
    with torch.no_grad():
        p = evaluator.subnet(arch)(evaluator.inputs(evaluator.splits.validation, arch)).softmax(1).amax(1)
    assert found["confidence_percent"] == pytest.approx(100 * float(p.mean()), rel=1e-5)
    assert found["most_confident"] == pytest.approx(float(p.max()), rel=1e-6)
    alone = evaluator.score(arch, ["introspectability"])
    assert all(found[k] == v for k, v in alone.items())


def test_nothing_that_nobody_asked_for_is_computed(evaluator, monkeypatch):
    asked = []
    monkeypatch.setattr(ClassProfiles, "__enter__", lambda self: asked.append(self))
    arch = evaluator.supernet.space.smallest()
    assert set(evaluator.score(arch)) == {"top1_percent", "top1_stderr_percent"}
    assert set(evaluator.score(arch, ["top1_percent", "naswot"])) == {"top1_percent", "top1_stderr_percent", "naswot"}
    assert not asked


def test_all_share_one_forward_pass(evaluator):
    arch, passes = evaluator.supernet.space.smallest(), []
    network = evaluator.subnet(arch)
    network.register_forward_hook(lambda m, inputs, output: passes.append(len(output)))
    evaluator.score_network(network, arch, [OURS, "introspectability"])
    # One image besides: it says how large the profiles of introspectability become.
    assert sum(passes) == len(evaluator.splits.validation) + 1
    passes.clear()
    evaluator.score_network(network, arch, [OURS])
    assert sum(passes) == len(evaluator.splits.validation)


def test_networks_that_were_trained_alone_are_scored_like_subnets(evaluator):
    arch = evaluator.supernet.space.smallest()
    names = ["introspectability", "naswot", "flatness"]
    assert evaluator.score_network(evaluator.subnet(arch), arch, names) == evaluator.score(arch, names)


def test_the_objectives_of_a_recipe():
    names = ["latency_ms", OURS, "params"]
    assert [o.name for o in objectives_of(names, CLASSIFICATION)] == ["latency_ms", "confidence_percent", "params"]
    assert [o.name for o in evaluated_objectives(names, CLASSIFICATION)] == ["top1_percent", "confidence_percent"]
    for twice in ([OURS, "params", OURS], ["params", "params"], []):
        with pytest.raises(RecipeError, match="give every objective once and at least one"):
            objectives_of(twice, CLASSIFICATION)


def test_params_are_those_of_networks(layout):
    params = objective_of("params", CLASSIFICATION).compile(layout, None)
    arch = layout.space.largest()
    assert params.of_archs([arch])[0] == count_params(layout.build_subnet(arch))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "top1_procent",
            "'top1_procent' is unknown; known are top1_percent, latency_ms, .*did you mean 'top1_percent'",
        ),
        ("objective_plugins:MISSING", "cannot be imported"),
        ("objective_plugins:SIDEWAYS", "direction 'sideways'; use 'exact' or 'evaluated', and 'min' or 'max'"),
        ("objective_plugins:NO_METHOD", "lacks compile; hwnas.objectives.plugin says what it needs"),
    ],
)
def test_what_is_no_objective_is_one_clear_line(name, message):
    with pytest.raises(PluginError, match=message) as caught:
        objective_of(name, CLASSIFICATION)
    assert "\n" not in str(caught.value)


def test_an_evaluation_computes_what_needs_one_and_gets_it_by_name(evaluator):
    arch = evaluator.supernet.space.smallest()
    with pytest.raises(RecipeError, match="'params' needs no evaluation"):
        evaluator.score(arch, ["params"])
    with pytest.raises(PluginError, match=r"'silent' gave values \['confidence_percent', 'most_confident'\]; its own"):
        evaluator.score(arch, ["objective_plugins:SILENT"])


def test_what_several_objectives_share_is_computed_once(evaluator):
    case, made = evaluator.case(evaluator.supernet.space.smallest()), []

    def expensive(given):
        made.append(given)
        return len(made)

    assert (case.once(expensive), case.once(expensive)) == (1, 1)
    assert made == [case]


def test_a_failed_network_fails_in_what_it_answers_only(evaluator):
    net = evaluator.supernet
    net.parts["head"].classifier.weight.data[0, 0] = math.nan
    found = evaluator.score(net.space.smallest(), ["introspectability", "naswot"])
    assert math.isnan(found["top1_percent"])
    assert math.isnan(found["introspectability"])
    assert math.isfinite(found["naswot"])
    assert CONFIDENCE.name not in found


@pytest.mark.parametrize("name", ["introspectability", "top1_percent"])
@pytest.mark.parametrize("failed", [0, 1])
def test_one_batch_without_an_answer_is_enough_for_no_value(evaluator, name, failed):
    case = evaluator.case(evaluator.supernet.space.smallest())
    x, y = case.validation
    with objective_of(name, CLASSIFICATION).observer(case) as observer:
        for number in range(2):
            with torch.inference_mode():
                outputs = case.network(x)
            observer.add(outputs * (math.nan if number == failed else 1.0), y)
        assert math.isnan(observer.values()[name])
