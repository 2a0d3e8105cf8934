"""Weights that others published are searched as they are: no phase, no step of training."""

import pytest
import torch
import yaml

import hwnas
from hwnas.errors import CheckpointError, DataError, RecipeError
from hwnas.runs.published import import_ofa
from hwnas.supernet import build_supernet
from hwnas.supernet.weights.once_for_all import ofa_names


def checkpoint_of(recipe, path, *overrides):
    """A checkpoint in once-for-all's layout with random weights, and the supernet it was made of."""
    supernet = build_supernet(hwnas.load_recipe(recipe, overrides).supernet, 7)
    names = ofa_names(supernet)
    torch.save({"state_dict": {names[k]: v.clone() for k, v in supernet.state_dict().items()}}, path)
    return supernet


def same_weights(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_published_weights_become_a_run_that_a_search_goes_on_with(recipe_file, tmp_path):
    recipe = recipe_file()
    supernet = checkpoint_of(recipe, tmp_path / "theirs.pth")
    path = import_ofa(tmp_path / "theirs.pth", str(recipe), tmp_path / "run")
    assert path == tmp_path / "run" / "train" / "supernet.safetensors"
    assert same_weights(hwnas.load_supernet(tmp_path / "run"), supernet)
    run = hwnas.open_run(tmp_path / "run")
    assert (run.recipe.train.phases, run.recipe.finish.models) == ((), 0)
    (device,) = list(run.devices)[:1]
    run.search([device], evaluations=3)
    run.export(device)
    model = run.front(device)[0]
    assert (model.folder / "model.onnx").exists()
    assert same_weights(hwnas.load_supernet(tmp_path / "run"), supernet)
    assert import_ofa(tmp_path / "theirs.pth", str(recipe), tmp_path / "run") == path  # a second start changes nothing


def test_without_images_the_supernet_alone_is_written(recipe_file, tmp_path):
    recipe = recipe_file(data={"source": "folder", "path": str(tmp_path / "none")})
    supernet = checkpoint_of(recipe, tmp_path / "theirs.pth")
    told = []
    path = import_ofa(tmp_path / "theirs.pth", str(recipe), tmp_path / "out", progress=lambda *a: told.append(a))
    assert path == tmp_path / "out" / "supernet.safetensors"
    assert same_weights(hwnas.load_supernet(tmp_path / "out"), supernet)
    assert told[0][3].startswith("the supernet alone: ")
    assert told[0][3].endswith("with images (data.path=...) it becomes a run")


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "below HWNAS_DATA"])
def test_images_that_are_there_and_of_no_use_are_an_error(recipe_file, tmp_path, monkeypatch, elsewhere):
    (tmp_path / "photos" / "bee").mkdir(parents=True)
    monkeypatch.setenv("HWNAS_DATA", str(tmp_path))
    recipe = recipe_file(data={"source": "folder", "path": "photos" if elsewhere else str(tmp_path / "photos")})
    checkpoint_of(recipe, tmp_path / "theirs.pth")
    with pytest.raises(DataError, match="photos"):
        import_ofa(tmp_path / "theirs.pth", str(recipe), tmp_path / "out")
    assert not (tmp_path / "out" / "supernet.safetensors").exists()


def test_a_recipe_without_phases_takes_the_weights_as_they_are(recipe_file, tiny_recipe, tmp_path):
    supernet = checkpoint_of(recipe_file(), tmp_path / "theirs.pth")
    train = {**tiny_recipe["train"], "phases": []}
    with pytest.raises(
        RecipeError, match="phases is empty; give at least one phase, or the weights to use in start_from"
    ):
        hwnas.load_recipe(recipe_file(train=train))
    run = hwnas.start_run(recipe_file(train={**train, "start_from": str(tmp_path / "theirs.pth")}), tmp_path / "run")
    assert same_weights(run.train(), supernet)


def test_other_classes_cannot_do_without_a_phase(recipe_file, tiny_recipe, tmp_path):
    checkpoint_of(recipe_file(), tmp_path / "theirs.pth", "supernet.classes=7")
    train = {**tiny_recipe["train"], "start_from": str(tmp_path / "theirs.pth")}
    run = hwnas.start_run(recipe_file(train={**train, "phases": []}), tmp_path / "none")
    with pytest.raises(RecipeError, match=r"train\.phases is empty, but the head is new, for \d+ instead of 7 classes"):
        run.train()
    trained = hwnas.start_run(recipe_file(train=train), tmp_path / "some").train()
    assert trained.config.classes == run.recipe.supernet.classes


def test_a_start_that_is_not_there_is_named(recipe_file, tiny_recipe, tmp_path):
    train = {**tiny_recipe["train"], "start_from": str(tmp_path / "none.pth")}
    with pytest.raises(CheckpointError, match=r"none\.pth does not exist; give a folder of a run or a checkpoint"):
        hwnas.start_run(recipe_file(train=train), tmp_path / "run").train()


def test_the_recipe_of_such_a_run_is_plain(recipe_file, tmp_path):
    recipe = recipe_file()
    checkpoint_of(recipe, tmp_path / "theirs.pth")
    import_ofa(tmp_path / "theirs.pth", str(recipe), tmp_path / "run", ["finish.models=1"])
    values = yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())
    assert values["train"]["phases"] == []
    assert values["train"]["start_from"] == str(tmp_path / "theirs.pth")
    assert values["finish"]["models"] == 1
