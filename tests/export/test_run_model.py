"""The script in a bundle: it sees images as hwnas does, and needs three packages only."""

import json
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from PIL import Image

from hwnas.data.inputs import as_input
from hwnas.data.pictures import open_picture, square_pixels
from hwnas.errors import ExportError
from hwnas.export.bundle import FP16_FILE, INT8_FILE, RUN_FILE, Bundle, load_model
from hwnas.export.half import halve_onnx
from hwnas.export.onnx_check import run_onnx
from hwnas.runs.start import open_run

OTHERS = ("torch", "hwnas", "scipy", "onnx", "cv2", "torchvision", "pydantic")


@pytest.fixture(scope="module")
def bundles(finished_run, tmp_path_factory):
    """Bundles of one model in three number formats, in a copy of a run."""
    run = open_run(shutil.copytree(finished_run, tmp_path_factory.mktemp("formats") / "run"))
    return run, run.export(device="myriad-vpu", select=["all"], int8=True, fp16=True)


@pytest.fixture(scope="module")
def script(bundles):
    """The script as a module."""
    path = bundles[1][0].folder / RUN_FILE
    module = SimpleNamespace(__doc__="")
    values = {"__name__": "run_model", "__file__": str(path)}
    exec(compile(path.read_text(), str(path), "exec"), values)
    module.__dict__.update(values)
    return module


def pictures(folder):
    """One picture for each rule."""
    rng = np.random.default_rng(3)
    rgb = rng.integers(0, 256, (37, 53, 3), dtype=np.uint8)
    made = {
        "rgb.png": Image.fromarray(rgb), "grey.png": Image.fromarray(rgb[..., 0]),
        "small.png": Image.fromarray(rgb[:5, :7]), "long.png": Image.fromarray(np.tile(rgb[:2], (1, 10, 1))),
        "alpha.png": Image.fromarray(np.concatenate([rgb, rgb[..., :1]], axis=2)),
        "palette.png": Image.fromarray(rgb).quantize(17),
        "black-and-white.png": Image.fromarray(rgb[..., 0]).convert("1"),
        "sixteen.png": Image.fromarray(rgb[..., 0].astype(np.uint16) * 256 + 77),
    }  # fmt: skip
    for name, image in made.items():
        image.save(folder / name)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        made["rgb.png"].save(folder / f"turned{orientation}.jpg", exif=exif)
    keyed = Image.fromarray(rgb[..., 0])
    keyed.save(folder / "keyed.png", transparency=int(rgb[0, 0, 0]))
    return sorted(folder.iterdir())


@pytest.mark.parametrize(("decoded_px", "px"), [(24, 24), (32, 20), (20, 28), (16, 16)])
def test_the_script_sees_images_as_hwnas_does(script, tmp_path, decoded_px, px):
    mean, std = [0.3, 0.4, 0.5], [0.2, 0.25, 0.3]
    about = {"shape": [3, px, px], "mean": mean, "std": std, "decoded_px": decoded_px}
    for path in pictures(tmp_path):
        pixels = square_pixels(open_picture(path, path.name), decoded_px)
        expected = as_input(torch.from_numpy(pixels.copy())[None], px, mean, std)
        found = script.prepared(path, about)
        assert found.shape == (1, 3, px, px)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected.numpy(), atol=2e-5, err_msg=path.name)


def test_the_script_brings_colours_to_grey_for_a_network_of_one_channel(script, tmp_path):
    path = pictures(tmp_path)[-1]
    about = {"shape": [1, 12, 12], "mean": [0.5], "std": [0.25]}
    assert script.prepared(path, about).shape == (1, 1, 12, 12)


def test_the_script_needs_three_packages_only(bundles, tmp_path):
    run, (bundle, *_) = bundles
    images = run.splits.test.images[:6]
    paths = []
    for i, pixels in enumerate(images):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels[0].numpy()).save(paths[-1])
    # A module that is None in sys.modules cannot be imported.
    code = (
        f"import runpy, sys; sys.modules.update(dict.fromkeys({OTHERS!r})); sys.argv = sys.argv[1:]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    px = bundle.arch_json["input"]["shape"][1]
    expected = load_model(bundle.folder)(as_input(images, px, *run.splits.mean_std)).softmax(1)
    for more, tolerance in ((), 1e-3), (("--model", FP16_FILE), 2e-2), (("--model", INT8_FILE), 1.0):
        done = subprocess.run(
            [sys.executable, "-c", code, bundle.folder / RUN_FILE, *paths, "--json", "--top", "10", *more],
            capture_output=True, text=True, check=True, cwd=tmp_path,
        )  # fmt: skip
        found = json.loads(done.stdout)
        assert [one["image"] for one in found] == [str(p) for p in paths]
        for one, shares in zip(found, expected.tolist(), strict=True):
            assert sum(one["classes"].values()) == pytest.approx(1, abs=1e-4)
            assert list(one["classes"].values()) == sorted(one["classes"].values(), reverse=True)
            for name, share in zip(run.splits.classes, shares, strict=True):
                assert one["classes"][name] == pytest.approx(share, abs=tolerance)
    done = subprocess.run(
        [sys.executable, bundle.folder / RUN_FILE, paths[0]], capture_output=True, text=True, check=True
    )  # fmt: skip
    assert done.stdout.startswith(f"{paths[0]}: ")
    assert done.stdout.count("%") == 3
    (tmp_path / "text.png").write_text("no picture")
    for wrong in (tmp_path / "missing.png", tmp_path / "text.png", tmp_path):
        done = subprocess.run(
            [sys.executable, bundle.folder / RUN_FILE, wrong], capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.startswith(f"error: {wrong} cannot be read as an image: ")
        assert done.stderr.count("\n") == 1
    several = [paths[0], tmp_path / "text.png", paths[1], tmp_path / "missing.png"]
    for more in ([], ["--json"]):
        done = subprocess.run(
            [sys.executable, bundle.folder / RUN_FILE, *several, *more], capture_output=True, text=True, check=False
        )  # fmt: skip
        assert done.returncode == 1
        assert [str(p) in done.stdout for p in several] == [True, False, True, False], "the others are answered"
        assert [str(p) in done.stderr for p in several] == [False, True, False, True]


def test_formats_are_of_one_model_and_their_scores_are_stated(bundles):
    run, found = bundles
    for bundle in found:
        images = as_input(run.splits.test.images, bundle.arch_json["input"]["shape"][1], *run.splits.mean_std)
        logits = {file: run_onnx(bundle.folder / file, images) for file in ("model.onnx", FP16_FILE, INT8_FILE)}
        scale = logits["model.onnx"].abs().max()
        assert (logits[FP16_FILE] - logits["model.onnx"]).abs().max() < 0.01 * scale
        weights = {w.data_type for w in onnx.load(str(bundle.folder / FP16_FILE)).graph.initializer}
        assert weights - {onnx.TensorProto.INT64} == {onnx.TensorProto.FLOAT16}
        metrics = Bundle(bundle.folder).metrics
        for file, name in ((FP16_FILE, "test_top1_fp16_percent"), (INT8_FILE, "test_top1_int8_percent")):
            top1 = (logits[file].argmax(1) == run.splits.test.labels).float().mean().item() * 100
            assert metrics[name] == pytest.approx(top1)
        assert bundle.is_whole


def test_formats_that_are_there_stay(bundles):
    run, (bundle, *_) = bundles
    before = {p.name: p.stat().st_mtime_ns for p in bundle.folder.iterdir()}
    run.export(device="myriad-vpu", select=["all"])
    assert {p.name: p.stat().st_mtime_ns for p in bundle.folder.iterdir()} == before


def test_a_bundle_of_an_older_version_gets_its_script(bundles, tmp_path):
    run = open_run(shutil.copytree(bundles[0].folder, tmp_path / "run"))
    model = run.front("myriad-vpu")[0]
    (model.folder / RUN_FILE).unlink()
    description = json.loads((model.folder / "arch.json").read_text())
    del description["files"][RUN_FILE]
    run.export()
    assert (model.folder / RUN_FILE).exists()
    assert (model.folder / INT8_FILE).exists()


def test_a_file_that_cannot_be_halved_is_named(tmp_path):
    (tmp_path / "no.onnx").write_bytes(b"nothing")
    with pytest.raises(ExportError, match=r"no\.onnx cannot be written in float16"):
        halve_onnx(tmp_path / "no.onnx", tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()
