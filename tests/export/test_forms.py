"""Further forms of an exported model: images as input, a batch of one, other runtimes; and what its card says."""

import importlib.util
import json
import shutil
import subprocess
import sys

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

import hwnas
from hwnas.data.inputs import as_input
from hwnas.errors import ExportError, RecipeError
from hwnas.export import forms as forms_module
from hwnas.export import pixels as pixels_module
from hwnas.export.bundle import About, Bundle, write_bundle
from hwnas.export.forms import FORMS, check_forms, fix_batch
from hwnas.export.graph import trace
from hwnas.export.half import halve_onnx
from hwnas.export.int8_network import int8_network
from hwnas.export.litert import LiteRtNetwork, write_int8_litert
from hwnas.export.onnx_check import run_onnx, session
from hwnas.export.pixels import (
    LEVELS_TOLERANCE,
    Preparation,
    verify_image_model,
    verify_preparation,
    write_image_model,
)
from hwnas.export.quantize import to_int8_onnx
from hwnas.latency.device import devices, load_profile
from hwnas.runs.export import commands_for
from hwnas.runs.licences import licences_of
from hwnas.runs.recipe import check_recipe
from hwnas.runs.start import open_run
from hwnas.supernet import calibrate_bn, extract_subnet

MEAN_STD = ((0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.6, 0.7, 0.8, 0.9))


def needs(package):
    return pytest.mark.skipif(
        importlib.util.find_spec(package) is None, reason=f"{package} is not installed: it belongs to an extra"
    )


@pytest.fixture(scope="module")
def subnet(make_net):
    net = make_net()
    arch = net.space.restrict({"resolution": [11]}).sample(np.random.default_rng(4), 1)[0]
    found = extract_subnet(net, arch)
    calibrate_bn(found, [torch.randn(9, 5, 11, 11, generator=torch.Generator().manual_seed(5))])
    return found, arch, net.config


def bytes_of(n, px, channels=5, seed=1):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, px, px), generator=g, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("decoded_px", "px"), [(24, 20), (32, 20), (20, 28), (16, 16), (224, 160), (256, 224), (64, 33), (100, 7), (8, 10)]
)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_graph_prepares_images_as_the_data_pipeline_does(decoded_px, px, channels):
    preparation = Preparation(channels, decoded_px, px, [0.3, 0.4, 0.5][:channels], [0.2, 0.25, 0.3][:channels])
    noise = bytes_of(3, decoded_px, channels)
    assert verify_preparation(preparation, noise) <= LEVELS_TOLERANCE
    edges = torch.zeros_like(noise)
    edges[:, :, ::3] = 255
    assert verify_preparation(preparation, edges) <= LEVELS_TOLERANCE
    assert ("with antialiasing" in preparation.resize) == (px < decoded_px)
    assert (preparation.resize == "") == (px == decoded_px)


def test_another_filter_is_refused(monkeypatch):
    """The graph without one attribute of its filter: the border is repeated in place of left out."""
    real = pixels_module.helper.make_node

    def without(op, *args, **kwargs):
        kwargs.pop("exclude_outside", None)
        return real(op, *args, **kwargs)

    monkeypatch.setattr(pixels_module.helper, "make_node", without)
    with pytest.raises(ExportError, match="levels of 8 bits off"):
        verify_preparation(Preparation(3, 32, 20, [0.5] * 3, [0.25] * 3), bytes_of(2, 32, 3))


@pytest.mark.parametrize("number", ["fp32", "fp16", "int8"])
def test_a_model_of_any_number_format_takes_images(subnet, tmp_path, number):
    network, arch, config = subnet
    pixels = bytes_of(24, 17)
    inputs = as_input(pixels, 11, *MEAN_STD)
    write_bundle(tmp_path / "a", network, arch, config, [str(i) for i in range(7)], MEAN_STD, {}, inputs)
    path = tmp_path / "a" / "model.onnx"
    if number == "fp16":
        halve_onnx(path, tmp_path / "n.onnx")
        path = tmp_path / "n.onnx"
    if number == "int8":
        path = tmp_path / "n.onnx"
        to_int8_onnx(int8_network(trace(network), inputs).quantization, 5, 11, path)
    write_image_model(path, tmp_path / "image.onnx", Preparation(5, 17, 11, *MEAN_STD))
    runner = session(tmp_path / "image.onnx")
    (given,) = runner.get_inputs()
    assert (given.name, given.type, given.shape) == ("image", "tensor(uint8)", ["batch", 17, 17, 5])
    images = np.ascontiguousarray(pixels.permute(0, 2, 3, 1).numpy())
    for part in (images, images[:1]):
        (found,) = runner.run(None, {"image": part})
        expected = run_onnx(path, inputs[: len(part)]).numpy()
        # What rounds may round to the other side where an input is 0.01 of a level off.
        tolerance = {"fp32": 1e-5, "fp16": 5e-3, "int8": 1e-2}[number]
        off = np.abs(found - expected)
        assert (off.mean() if number == "int8" else off.max()) <= tolerance * np.abs(expected).max()
    verify_image_model(path, tmp_path / "image.onnx", pixels, inputs)
    with pytest.raises(ExportError, match="differs from"):
        verify_image_model(path, tmp_path / "image.onnx", pixels.flip(0), inputs)


def test_a_fixed_batch_is_a_number_everywhere(subnet, tmp_path):
    network, arch, config = subnet
    inputs = as_input(bytes_of(4, 11), 11, *MEAN_STD)
    write_bundle(tmp_path / "a", network, arch, config, [str(i) for i in range(7)], MEAN_STD, {}, inputs)
    fix_batch(tmp_path / "a" / "model.onnx", tmp_path / "static.onnx")
    model = onnx.load(str(tmp_path / "static.onnx"))
    values = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    shapes = [[d.dim_value for d in v.type.tensor_type.shape.dim] for v in values]
    assert len(shapes) > 5
    assert all(shape and all(edge > 0 for edge in shape) and shape[0] == 1 for shape in shapes)
    for image in inputs:
        expected = run_onnx(tmp_path / "a" / "model.onnx", image[None])
        assert torch.equal(run_onnx(tmp_path / "static.onnx", image[None]), expected)
    with pytest.raises(Exception, match="dimensions"):
        run_onnx(tmp_path / "static.onnx", inputs)


def written(subnet, folder, forms, metrics=None, about=None, fp16=False, calibration=None):
    network, arch, config = subnet
    pixels = bytes_of(8, 17)
    return write_bundle(
        folder, network, arch, config, [str(i) for i in range(7)], MEAN_STD, metrics or {},
        as_input(pixels, 11, *MEAN_STD), fp16=fp16, decoded_px=17, forms=forms, pixels=pixels, about=about,
        calibration=calibration,
    )  # fmt: skip


def test_every_onnx_file_has_its_forms(subnet, tmp_path):
    made = written(subnet, tmp_path / "a", ["image", "static"], fp16=True)
    models = {f"model{n}{i}{s}.onnx" for n in ("", ".fp16") for i in ("", ".image") for s in ("", ".static")}
    assert {p.name for p in made.folder.glob("*.onnx")} == models
    assert made.is_whole
    card = (made.folder / "MODEL_CARD.md").read_text()
    assert "17 to 11 px, bilinear (half-pixel centres) with antialiasing" in card
    assert f"within {LEVELS_TOLERANCE:g} of a level of 8 bits" in card
    assert "uint8, batch x 17 x 17 x 5 (height, width" in card
    assert made.metrics["image_input_off_levels"] <= LEVELS_TOLERANCE
    for name in models:
        assert f"| {name} |" in card
    session(made.folder / "model.image.static.onnx")
    written(subnet, tmp_path / "a", [])  # takes the place of the other, whatever forms it had
    assert [p.name for p in made.folder.glob("*.onnx")] == ["model.onnx"]


def test_images_are_needed_to_check_what_takes_images(subnet, tmp_path):
    network, arch, config = subnet
    inputs = as_input(bytes_of(4, 11), 11, *MEAN_STD)
    with pytest.raises(ExportError, match="none were given"):
        write_bundle(tmp_path / "a", network, arch, config, ["0"] * 7, MEAN_STD, {}, inputs, forms=["image"])
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named_before_anything_is_written(monkeypatch, finished_run):
    monkeypatch.setattr(forms_module, "find_spec", lambda name: None)
    check_forms(["image", "static"])
    with pytest.raises(RecipeError, match=r"pip install 'hwnas\[openvino-ir\]'"):
        open_run(finished_run).export(openvino=True)
    with pytest.raises(RecipeError, match=r"pip install 'hwnas\[litert\]'"):
        check_forms(["litert"])


@needs("openvino")
@pytest.mark.parametrize("in_8_bits", [False, True])
def test_openvino_computes_the_same(subnet, tmp_path, in_8_bits):
    import openvino

    network, arch, config = subnet
    inputs = as_input(bytes_of(32, 11), 11, *MEAN_STD)
    int8 = int8_network(trace(network), inputs) if in_8_bits else None
    made = write_bundle(
        tmp_path / "a", network, arch, config, ["0"] * 7, MEAN_STD, {}, inputs, int8, in_8_bits, forms=["openvino"]
    )
    assert made.metrics["openvino_parity"] <= (1e-2 if in_8_bits else 1e-4)
    assert made.is_whole
    compiled = openvino.Core().compile_model(
        str(made.folder / "model.openvino.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    for part in (inputs, inputs[:1]):
        got = compiled(part.contiguous().numpy())[0]
        expected = run_onnx(made.folder / "model.onnx", part).numpy()
        assert np.abs(got - expected).mean() <= 1e-2 * np.abs(expected).max()


@needs("openvino")
def test_a_wrong_openvino_model_is_refused(subnet, tmp_path, monkeypatch):
    network = subnet[0]
    real = forms_module.run_onnx
    monkeypatch.setattr(forms_module, "run_onnx", lambda *a: 1.001 * real(*a))
    with pytest.raises(ExportError, match="differs from ONNX Runtime"):
        written((network, *subnet[1:]), tmp_path / "a", ["openvino"])
    assert list(tmp_path.iterdir()) == []


@needs("litert_torch")
def test_litert_computes_the_same(subnet, tmp_path):
    made = written(subnet, tmp_path / "a", ["litert"])
    assert made.metrics["litert_parity"] <= 1e-4
    assert (made.folder / "model.tflite").stat().st_size > 1000
    assert made.is_whole


@needs("ai_edge_quantizer")
def test_a_litert_file_in_integers_computes_what_the_network_does(subnet, tmp_path):
    network, *_ = subnet
    inputs = torch.randn(64, 5, 11, 11, generator=torch.Generator().manual_seed(6))
    made = written(subnet, tmp_path / "a", ["litert"], calibration=inputs)
    file = LiteRtNetwork(made.folder / "model.int8.tflite")
    assert file.float_tensors == []
    scale, zero_point = file.input_scale
    assert scale == pytest.approx(float(inputs.max() - inputs.min()) / 255, rel=0.02)
    assert -128 <= zero_point <= 127
    with torch.inference_mode():
        expected = network(inputs)
    got = file(inputs)
    assert got.shape == expected.shape
    assert float((got - expected).abs().mean()) <= 0.05 * float(expected.abs().max())
    assert (made.folder / "model.int8.tflite").stat().st_size < (made.folder / "model.tflite").stat().st_size
    assert made.is_whole


@needs("ai_edge_quantizer")
def test_a_litert_file_that_cannot_be_quantised_is_named(tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"no model")
    with pytest.raises(ExportError, match=r"b\.tflite cannot be quantised by ai-edge-quantizer: .*without --litert"):
        write_int8_litert(tmp_path / "a.tflite", tmp_path / "b.tflite", torch.zeros(2, 5, 11, 11))


@needs("ai_edge_quantizer")
@pytest.mark.parametrize("device", ["edge-tpu", "hexagon-dsp"])
def test_a_run_scores_its_litert_file_in_integers(tiny_recipe, recipe_file, tmp_path, device):
    run = hwnas.run(recipe_file(devices=[device], export={"litert": True, "int8": True}), out=tmp_path / "run")
    for model in run.front(device):
        metrics = Bundle(model.folder).metrics
        assert abs(metrics["test_top1_litert_int8_percent"] - metrics["test_top1_percent"]) <= 25
        assert metrics["litert_int8_input_scale"] > 0
        card = (model.folder / "MODEL_CARD.md").read_text()
        (line,) = [row for row in card.splitlines() if row.startswith("| model.int8.tflite | INT8 |")]
        assert f"| {metrics['test_top1_litert_int8_percent']:.2f} |" in line


# -- the card ---------------------------------------------------------------------------------------------


def test_the_card_states_licences_commands_accuracy_and_speed(subnet, tmp_path):
    about = About(
        {"own": "test_top1_percent", "fp16": "test_top1_fp16_percent", "int8": "test_top1_int8_percent"},
        {"data": "CC-BY-4.0 | x"}, ["edgetpu_compiler --out_dir compiled model.tflite"],
    )  # fmt: skip
    made = written(subnet, tmp_path / "a", [], {"test_top1_percent": 91.5}, about, fp16=True)
    card = (made.folder / "MODEL_CARD.md").read_text()
    assert "- Training images: CC-BY-4.0 \\| x" in card
    assert "- These weights: unknown" in card
    assert "- What they began with: unknown" in card
    assert "\nedgetpu_compiler --out_dir compiled model.tflite\n" in card
    assert "| model.onnx | FP32 |" in card
    assert "| model.fp16.onnx | FP16 |" in card
    conditions = {"device": "a cpu", "runtime": "onnxruntime-1", "threads": 1}
    made.add_metrics({
        "test_top1_fp16_percent": 91.25,
        "measured_latency": {"median_ms": 0.125, "machine_slowdown": 1.25, "conditions": conditions},
        "measured_latency_fp16": {
            "median_ms": 0.5, "ci_percent": 11.5, "machine_slowdown": 1.25, "conditions": conditions,
        },
    })  # fmt: skip
    assert made.is_whole
    card = (made.folder / "MODEL_CARD.md").read_text()
    lines = {line.split("|")[1].strip(): line for line in card.splitlines() if line.startswith("| model")}
    assert lines["model.onnx"].endswith("| 91.50 | 0.1 |")
    assert lines["model.fp16.onnx"].endswith("| 91.25 | 0.4 ± 5.8 % |")
    assert "Measured on a cpu with onnxruntime-1 and 1 thread(s). The machine then took 1.25 times as long" in card
    assert "As timed, `model.onnx` took 0.125 ms." in card
    made.add_metrics({"measured_latency": {"median_ms": 0.125}})
    card = (made.folder / "MODEL_CARD.md").read_text()
    assert "| 91.50 | 0.125 |" in card
    assert "\nMeasured.\n" in card
    assert made.metrics["test_top1_percent"] == 91.5
    assert "bytes" in made.arch_json


def test_what_is_on_the_way_to_a_device_is_in_its_profile():
    found = commands_for(load_profile("qcs8550-fp16"), 3, 96)
    assert any("--source_model_input_shape input 1,3,96,96" in line for line in found)
    assert any("input:1x1x8x8" in line for line in commands_for(load_profile("cuda-gpu"), 1, 8))
    with_tools = {p.name for p in devices() if p.device_commands}
    assert {"edge-tpu", "hexagon-dsp", "myriad-vpu", "snapdragon-8-elite-int8"} <= with_tools
    assert "local-cpu" not in with_tools
    for profile in devices():
        for line in commands_for(profile, 3, 32):
            assert "{" not in line
            assert line.isprintable()


def test_a_licence_that_nobody_states_is_unknown(tiny_recipe, tmp_path):
    def stated(**changes):
        return licences_of(check_recipe({**tiny_recipe, **changes}, "here"))

    assert stated()["data"].startswith("CC BY 4.0")
    assert stated()["weights"] == "unknown"
    assert stated()["start"] == "nothing: they were trained from random weights"
    other = {"data": {"source": "idx", "path": "x"}}
    assert stated(**other)["data"] == "unknown"
    assert stated(**other, licences={"data": "CC0", "weights": "MIT"}) == {
        "weights": "MIT", "data": "CC0", "start": "nothing: they were trained from random weights",
    }  # fmt: skip
    published = {"train": {**tiny_recipe["train"], "start_from": str(tmp_path / "ofa.pth")}}
    assert stated(**published)["start"] == "unknown"
    assert stated(**published, licences={"start": "MIT"})["start"] == "MIT"


def test_weights_of_another_run_keep_its_licence(finished_run, tiny_recipe, tmp_path):
    run = shutil.copytree(finished_run, tmp_path / "run")
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("weights: ''", "weights: Apache-2.0"))
    values = {**tiny_recipe, "train": {**tiny_recipe["train"], "start_from": str(run)}}
    assert licences_of(check_recipe(values, "here"))["start"] == "Apache-2.0"
    assert licences_of(check_recipe({**values, "licences": {"start": "MIT"}}, "here"))["start"] == "MIT"


# -- of a run ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(finished_run, tmp_path_factory):
    """A run whose bundles take images and are for a batch of one, too."""
    run = open_run(shutil.copytree(finished_run, tmp_path_factory.mktemp("forms") / "run"))
    return run, run.export(device="myriad-vpu", select=["knee"], fp16=True, int8=True, image=True, static=True)


def test_a_run_exports_forms_and_keeps_them(exported):
    run, (bundle,) = exported
    named = set(FORMS["image"].files) | set(FORMS["static"].files)
    assert named <= {p.name for p in bundle.folder.iterdir()}
    before = {p.name: p.stat().st_mtime_ns for p in bundle.folder.iterdir()}
    run.export(image=True, static=True)
    run.export()
    assert {p.name: p.stat().st_mtime_ns for p in bundle.folder.iterdir()} == before
    (bundle.folder / "model.int8.image.static.onnx").unlink()
    run.export(image=True, static=True, int8=True)
    assert Bundle(bundle.folder).is_whole
    assert (bundle.folder / "model.int8.image.static.onnx").exists()
    card = (bundle.folder / "MODEL_CARD.md").read_text()
    assert "compile_tool -m model.xml -d MYRIAD" in card
    assert "- Training images: CC BY 4.0" in card


def test_a_device_in_8_bits_has_images_and_a_batch_of_one_too(exported):
    run, _ = exported
    folder = run.front("hexagon-dsp")[0].folder
    assert {p.name for p in folder.glob("*.onnx")} == {
        "model.onnx", "model.image.onnx", "model.static.onnx", "model.image.static.onnx",
    }  # fmt: skip
    lines = [line for line in (folder / "MODEL_CARD.md").read_text().splitlines() if line.startswith("| model.onnx")]
    assert lines[0].startswith("| model.onnx | INT8 |")


def test_the_script_takes_either_file(exported, tmp_path):
    run, (bundle,) = exported
    paths = []
    for i, pixels in enumerate(run.splits.test.images[:5]):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels[0].numpy()).save(paths[-1])
    answers = []
    for model in ("model.onnx", "model.image.onnx", "model.image.static.onnx", "model.fp16.image.onnx"):
        done = subprocess.run(
            [sys.executable, bundle.folder / "run_model.py", "--model", model, "--json", "--top", "10", *paths],
            capture_output=True, text=True, check=True, cwd=tmp_path,
        )  # fmt: skip
        answers.append([one["classes"] for one in json.loads(done.stdout)])
    for found in answers[1:]:
        for a, b in zip(answers[0], found, strict=True):
            assert a == pytest.approx(b, abs=5e-3)


def test_measuring_where_nothing_is_at_hand_changes_nothing(exported):
    run, (bundle,) = exported
    before = bundle.metrics
    run.export(device="myriad-vpu", select=["knee"], measure=True)
    assert bundle.metrics == before


def test_forms_are_asked_for_on_the_command_line(exported, hwnas_command, tmp_path):
    run, _ = exported
    words = ("export", run.folder, "--device", "myriad-vpu", "--select", "fastest", "--image-input", "--static")
    code, _out, err = hwnas_command(*words, "--out", tmp_path / "chosen")
    assert code == 0, err
    (copied,) = (tmp_path / "chosen" / "myriad-vpu").iterdir()
    assert (copied / "model.image.static.onnx").exists()
