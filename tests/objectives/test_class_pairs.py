"""How much pairs of classes count in introspectability: by hand, and from files."""

import itertools
import os

import numpy as np
import pytest
import torch

from hwnas.errors import RecipeError
from hwnas.objectives.class_pairs import confusion_weights, read_similarities
from hwnas.objectives.class_profiles import ACTIVATIONS
from hwnas.objectives.config import EvaluationConfig, IntrospectabilityConfig
from hwnas.objectives.introspectability import class_profiles, introspectability
from hwnas.objectives.subnets import SubnetEvaluator
from hwnas.runs.start import start_run
from hwnas.supernet import extract_subnet


@pytest.fixture
def net(make_net, images):
    """A network that predicts several classes, and its images."""
    made = extract_subnet(make_net(), make_net().space.smallest())
    inputs = images(40, 11)
    with torch.no_grad():
        made[-1].classifier.bias -= made(inputs).mean(0)
    return made, inputs


def distances(net, inputs):
    """``{(a, b): distance}`` of predicted classes, from profiles that are gathered layer by layer here."""
    found, gathered = {}, []
    hooks = [
        m.register_forward_hook(lambda layer, given, out: gathered.append(out.flatten(1)))
        for m in net.modules()
        if isinstance(m, (torch.nn.Conv2d, *ACTIVATIONS))
    ]
    with torch.no_grad():
        predicted = net(inputs).argmax(1)
    for hook in hooks:
        hook.remove()
    features = torch.cat(gathered, 1).double().numpy()
    profiles = {int(c): features[(predicted == c).numpy()].mean(0) for c in predicted.unique()}
    for a, b in itertools.combinations(sorted(profiles), 2):
        x, y = profiles[a], profiles[b]
        found[a, b] = 1 - x @ y / np.sqrt((x @ x) * (y @ y))
    return found, predicted


def test_distances_are_multiplied_by_weights_before_the_mean(net):
    found, _ = distances(*net)
    assert len(found) > 3
    g = torch.Generator().manual_seed(0)
    weights = torch.rand(7, 7, generator=g, dtype=torch.float64)
    weights = weights + weights.T
    wanted = np.mean([d * float(weights[pair]) for pair, d in found.items()])
    assert introspectability(*net, weights=weights) == pytest.approx(wanted, rel=1e-5)
    assert introspectability(*net, weights=torch.ones(7, 7)) == introspectability(*net)
    with pytest.raises(RecipeError, match="weights of class pairs are of 3 classes, the network has 7"):
        introspectability(*net, weights=torch.ones(3, 3))


def test_pairs_that_are_confused_count_more_and_all_pairs_count_one_on_average():
    confusions = torch.tensor([[8, 2, 0], [4, 6, 0], [0, 0, 10]])
    rates = (confusions + 1) / torch.tensor([[13.0], [13.0], [13.0]])
    pairs = {(a, b): float(rates[a, b] + rates[b, a]) / 2 for a, b in ((0, 1), (0, 2), (1, 2))}
    found = confusion_weights(confusions)
    for pair, value in pairs.items():
        assert float(found[pair]) == pytest.approx(value / np.mean(list(pairs.values())))
    assert found[0, 1] > found[0, 2] == found[1, 2] > 0
    assert torch.equal(found, found.T)


def test_the_score_of_a_layer_is_that_of_its_profiles_alone(net):
    profiles = class_profiles(*net)
    layers = profiles.by_layer()
    assert list(layers) == [n for n, m in net[0].named_modules() if isinstance(m, (torch.nn.Conv2d, *ACTIVATIONS))]
    assert all(0 <= value <= 2 for value in layers.values())
    assert len(set(layers.values())) > 3
    first = torch.nn.Sequential(net[0].stem.conv)
    outputs = []
    with torch.no_grad():
        maps, predicted = first(net[1]).flatten(1).double().numpy(), net[0](net[1]).argmax(1)
    for a, b in itertools.combinations(predicted.unique().tolist(), 2):
        x, y = (maps[(predicted == c).numpy()].mean(0) for c in (a, b))
        outputs.append(1 - x @ y / np.sqrt((x @ x) * (y @ y)))
    assert layers["stem.conv"] == pytest.approx(np.mean(outputs), rel=1e-5)


@pytest.mark.parametrize("batch_size", [7, 16, 40])
def test_no_more_images_are_taken_than_in_the_paper(net, batch_size, monkeypatch):
    for module in ("class_profiles", "introspectability"):
        monkeypatch.setattr(f"hwnas.objectives.{module}.MOST_IMAGES", 16)
    made, inputs = net
    assert introspectability(made, inputs, batch_size=batch_size) == pytest.approx(introspectability(made, inputs[:16]))
    assert introspectability(made, inputs) != introspectability(made, inputs[16:32])
    labels = torch.arange(40) % 7
    with torch.no_grad():
        predicted = made(inputs).argmax(1)
    confusions = class_profiles(made, inputs, labels, batch_size=batch_size).confusions
    wanted = torch.zeros(7, 7, dtype=torch.long)
    for true, said in zip(labels[:16].tolist(), predicted[:16].tolist(), strict=True):
        wanted[true, said] += 1
    assert torch.equal(confusions, wanted)


def table(names, values):
    rows = [",".join(["class", *names])] + [",".join([n, *map(str, v)]) for n, v in zip(names, values, strict=True)]
    return "\n".join(rows)


def test_similarities_are_read_from_a_file(tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(table("ab", [[1, 0.5], [0.5, 1]]))
    assert read_similarities(path).tolist() == [[1, 0.5], [0.5, 1]]
    path.write_text(table("ab", [[1, 0.25], [0.25, 1]]))
    os.utime(path, (1, 1))
    assert read_similarities(path).tolist() == [[1, 0.25], [0.25, 1]], "a changed file is read again"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no heading"),
        ("class,a,b\na,1,2\nc,2,1\n", "its rows are those of 'a', 'c'"),
        ("class,a,b\na,1,2\n", "its rows are those of 'a'"),
        ("class,a,b\na,1,x\nb,2,1\n", "a cell that is no number"),
        ("class,a,b\na,1,nan\nb,nan,1\n", "finite, at least 0"),
        ("class,a,b\na,1,-2\nb,-2,1\n", "finite, at least 0"),
        ("class,a,b\na,1,2\nb,3,1\n", "the same for both orders"),
        ("a,b\n1,2\n", "its rows are those of"),
    ],
)
def test_other_tables_are_refused_in_one_line(text, reason, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with pytest.raises(RecipeError, match=reason) as caught:
        read_similarities(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(RecipeError, match="No such file"):
        read_similarities(tmp_path / "none.csv")


def test_the_objective_takes_the_weights_that_a_recipe_names(make_net, splits, tmp_path):
    net = make_net()
    arch = net.space.smallest()
    evaluator = SubnetEvaluator(net, splits, EvaluationConfig(), seed=1)
    with torch.no_grad():  # so that several classes are predicted
        head = list(net.elastic_blocks.values())[-1]
        head.classifier.bias -= evaluator.subnet(arch)(evaluator.case(arch).validation[0]).mean(0)

    def score(**settings):
        config = EvaluationConfig(introspectability=IntrospectabilityConfig(**settings))
        return SubnetEvaluator(net, splits, config, seed=1).score(arch, ["introspectability"])["introspectability"]

    path = tmp_path / "pairs.csv"
    path.write_text(table("abcdefg", [[1 if i == j else 2 for j in range(7)] for i in range(7)]))
    uniform = score()
    assert uniform > 0
    assert score(pair_weights=str(path)) == pytest.approx(2 * uniform)
    by_confusion = score(pair_weights="confusion")
    evaluator = SubnetEvaluator(net, splits, EvaluationConfig(), seed=1)
    x = evaluator.case(arch).validation[0]
    profiles = class_profiles(evaluator.subnet(arch), x, splits.validation.labels)
    wanted = profiles.introspectability(confusion_weights(profiles.confusions))
    assert by_confusion == pytest.approx(wanted)
    assert by_confusion != uniform


def test_settings_without_weights_are_what_they_were():
    assert IntrospectabilityConfig().model_dump() == {"reduce": "none"}
    assert IntrospectabilityConfig(pair_weights="confusion").model_dump()["pair_weights"] == "confusion"
    with pytest.raises(ValueError, match="pair_weights"):
        IntrospectabilityConfig(pair_weights="wordnet")


def test_a_file_of_other_classes_is_found_before_anything_is_trained(recipe_file, tmp_path):
    path = tmp_path / "pairs.csv"
    path.write_text(table("ab", [[1, 0.5], [0.5, 1]]))
    recipe = recipe_file(evaluation={"introspectability": {"pair_weights": str(path)}})
    with pytest.raises(RecipeError, match=r"pairs\.csv has 2 classes, the recipe 10"):
        start_run(recipe, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
