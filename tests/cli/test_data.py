"""`hwnas data` says what is there and what is to be put right; a newcomer gets by with what it says."""

import json
import shutil
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from hwnas.cli import main


@pytest.fixture
def cli(hwnas_command):
    """Call ``hwnas`` with arguments; return exit code, standard output and lines of standard error but of progress."""

    def call(*arguments):
        code, out, err = hwnas_command(*arguments)
        return code, out, [line for line in err.splitlines() if not line.startswith("images: ")]

    return call


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@pytest.fixture
def newcomer(tmp_path, monkeypatch, tiny_recipe):
    """A folder with everything wrong at once, and a recipe of digits."""
    monkeypatch.chdir(tmp_path)
    rng, root = np.random.default_rng(0), tmp_path / "pics"
    exif = Image.Exif()
    exif[0x0112] = 6
    for split, n in (("train", 12), ("Test", 4)):
        for label, level in (("ant", 60), ("bee", 120), ("cow", 180)):
            for i in range(n if (split, label) != ("Test", "cow") else 0):
                pixels = np.clip(level + rng.normal(0, 30, (20, 16, 3)), 0, 255).astype(np.uint8)
                path = root / split / label / f"{i:02}"
                if i % 4 == 1:
                    save(path.with_suffix(".png"), pixels[..., 0].astype(np.uint16) * 257)
                elif i % 4 == 2:
                    save(path.with_suffix(".JPG"), np.rot90(pixels).copy(), format="JPEG", exif=exif)
                else:
                    save(path.with_suffix(".png"), pixels)
    save(root / "train" / "puma" / "only.png", np.full((20, 16, 3), 9, np.uint8))
    for name in (".DS_Store", "train/.DS_Store", "train/ant/Thumbs.db", "train/bee/notes.txt"):
        (root / name).write_bytes(b"x")
    broken = root / "train" / "bee" / "03.png"
    broken.write_bytes(broken.read_bytes()[:300])
    recipe = {**tiny_recipe, "train": {**tiny_recipe["train"], "phases": tiny_recipe["train"]["phases"][:1]}}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(recipe))
    return root


PATHS = ("tiny.yaml", "data.source=folder", "data.path=pics")


def test_a_newcomer_gets_by_with_what_is_said(newcomer, cli):
    code, out, lines = cli("data", *PATHS)
    assert code == 2
    assert out.splitlines()[-5:] == [
        "to put right:",
        "- data source 'folder' at pics has 4 classes, the network 10; set supernet.classes=4",
        "- data source 'folder' at pics has too few images of 'puma' (1): none is left to train when validation images "
        "are held out; give each class at least 2 images, or take these classes out",
        "- data source 'folder' at pics has images of 3 channels, the network takes 1; set supernet.in_channels=3",
        "- cannot read image pics/train/bee/03.png: image file is truncated; repair or remove the file, or leave such "
        "images out with data.broken_images=skip",
    ]
    assert "left out: hidden or system files: 3 ('.DS_Store', 'train/.DS_Store', 'train/ant/Thumbs.db')" in out
    assert "left out: files that end in .txt, which is no image: 1 ('train/bee/notes.txt')" in out
    assert lines[-1] == "error: 4 things are to be put right before these images can be used, listed above"
    assert "warning: test has no images of 'cow', 'puma'" in lines
    # The error of every other command is the first of these.
    assert cli("train", *PATHS, "--out", "run")[2] == [f"error: {out.splitlines()[-4][2:]}"]

    shutil.rmtree(newcomer / "train" / "puma")
    (newcomer / "train" / "bee" / "03.png").unlink()
    code, out, lines = cli("data", *PATHS, "supernet.in_channels=3", "supernet.classes=4")
    assert code == 2
    assert lines[-1] == (
        "error: data source 'folder' at pics has 3 classes, the network 4; set supernet.classes=3"
    )  # fmt: skip

    right = (*PATHS, "supernet.in_channels=3", "supernet.classes=3")
    code, out, lines = cli("data", *right, "--sheet", "sheet.png")
    assert code == 0
    assert lines == [
        "warning: validation has 6 images, too few to tell networks apart: top-1 would have a standard error of up to "
        "20 %; give at least 100, better 1,000",
        "warning: test has 8 images, too few to tell networks apart: top-1 would have a standard error of up to 18 %; "
        "give at least 100, better 1,000",
        "warning: test has no images of 'cow'",
    ]
    assert out.splitlines()[-2:] == [
        "contact sheet: sheet.png",
        "next: hwnas run tiny.yaml data.source=folder data.path=pics supernet.in_channels=3 supernet.classes=3",
    ]
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 100
    rows = [line.split() for line in out.splitlines()]
    levels = {row[1]: float(row[5]) for row in rows if row[:2] in (["0", "ant"], ["1", "bee"], ["2", "cow"])}
    assert levels == pytest.approx({"ant": 60, "bee": 120, "cow": 180}, abs=3)

    code, out, lines = cli("train", *right, "--out", "run")
    assert code == 0
    assert "next: hwnas search run" in out


def test_broken_images_that_are_to_be_skipped_stop_nothing(newcomer, cli):
    shutil.rmtree(newcomer / "train" / "puma")
    skip = (*PATHS, "supernet.in_channels=3", "supernet.classes=3", "data.broken_images=skip")
    code, out, lines = cli("data", *skip, "--sheet", "sheet.png")
    assert code == 0, lines
    assert "left out: images that cannot be read: 1 ('pics/train/bee/03.png')" in out
    found = json.loads(cli("data", *skip, "--json")[1])
    n = sum(sum(c["images"].values()) for c in found["classes"])
    assert n == sum(found["images"].values()) == 3 * 12 + 2 * 4 - 1
    assert cli("train", *skip, "--out", "run")[0] == 0
    for path in (newcomer / "Test").rglob("*.*"):
        path.write_bytes(b"broken")
    code, out, lines = cli("data", *skip)
    assert code == 2
    assert lines[-1] == "error: data source 'folder' at pics: none of the 8 test images can be read"
    one = (*skip, "data.max_images=1")  # no error may hide another one
    assert "of the 1 test images can be read" in cli("data", *one)[2][-1]


def test_json_has_all_of_it(newcomer, cli):
    code, out, lines = cli("data", *PATHS, "--json")
    found = json.loads(out)
    assert code == 2
    assert len(lines) == 1
    assert len(found["problems"]) == 4
    assert [c["name"] for c in found["classes"]] == ["ant", "bee", "cow", "puma"]
    assert found["classes"][2]["images"] == {"train": 10, "validation": 2, "test": 0}
    assert found["left_out"][0]["count"] == 3
    assert found["origins"]["test"] == "the test images of the source"
    assert cli("data", *PATHS, "data.path=pics/train", "--json")[0] == 2


def test_what_is_left_out_is_said_once_by_other_commands(newcomer, cli, capsys, monkeypatch):
    shutil.rmtree(newcomer / "train" / "puma")
    (newcomer / "train" / "bee" / "03.png").unlink()
    arguments = ("train", *PATHS, "supernet.in_channels=3", "supernet.classes=3", "--out", "run")
    monkeypatch.setattr(sys, "argv", ["hwnas", *arguments])
    with pytest.raises(SystemExit):
        main()
    said = [line for line in capsys.readouterr().err.splitlines() if "left out" in line]
    assert len(said) == 1
    assert "hidden or system files: 3" in said[0]
    assert "notes.txt" in said[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.path=none"], "error: data.path 'none' does not exist"),
        (["data.path=tiny.yaml"], "error: tiny.yaml is a file; source 'folder' needs a folder"),
        (["--sheet", "sheet.jpg"], "error: a contact sheet is a PNG file, got 'sheet.jpg'"),
        (["data.label_column=a"], "error: data source 'folder' at pics has no columns to choose from; leave"),
        (["data.path="], "error: data source 'folder' needs data.path"),
        (["data.path=''"], "error: data.path '' does not exist"),
        ([f"data.path={'x' * 5000}"], "File name too long; give another"),
        (["data.pth=a"], "unknown key 'data.pth'"),
    ],
)
def test_mistakes_are_one_line(newcomer, cli, arguments, message):
    code, out, lines = cli("data", *PATHS, *arguments)
    assert (code, out, len(lines)) == (2, "", 1)
    assert message in lines[0]
    assert len(lines[0]) < 600


def test_names_that_control_a_terminal_are_escaped(tmp_path, monkeypatch, tiny_recipe, cli):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe))
    rng = np.random.default_rng(0)
    for name in ("a\x1b[31mred", "b\nc", "d"):
        for i in range(4):
            save(tmp_path / "pics" / name / f"{i}.png", rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    (tmp_path / "pics" / "d" / "x\x1b[2J.txt").write_text("")
    code, out, lines = cli("data", *PATHS, "supernet.in_channels=3", "supernet.classes=3")
    assert code == 0
    assert r"0 a\x1b[31mred" in out
    assert r"1 b\nc" in out
    assert "\x1b" not in out + "".join(lines)
    assert "\x1b" not in "".join(cli("data", *PATHS, "supernet.in_channels=3", "data.path=a\x1b[31m")[2])


def test_images_in_which_nothing_is_wrong(tmp_path, monkeypatch, tiny_recipe, cli):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe))
    code, out, lines = cli("data", "tiny.yaml")
    assert code == 0
    assert "class  train  validation  test" in out
    assert "test: 20 % of the training images, held out" in out
    assert lines == []


def test_an_image_above_the_limit_is_one_line(newcomer, cli, monkeypatch):
    shutil.rmtree(newcomer / "train" / "puma")
    (newcomer / "train" / "bee" / "03.png").unlink()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    Image.new("1", (50, 50)).save(newcomer / "train" / "cow" / "scan.png")
    for verb, more in (("data", ()), ("train", ("--out", "run"))):
        code, _, lines = cli(verb, *PATHS, "supernet.in_channels=3", "supernet.classes=3", *more)
        assert code == 2
        assert lines[-1] == (
            "error: cannot read image pics/train/cow/scan.png: Image size (2500 pixels) exceeds limit of 2000 pixels; "
            "make it smaller or remove it, or leave such images out with data.broken_images=skip"
        )


def test_classes_of_16_bits_stay_different(tmp_path, monkeypatch, tiny_recipe, cli):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny_recipe))
    rng = np.random.default_rng(0)
    for name, level in (("dark", 6000), ("light", 40000)):
        for i in range(12):
            save(tmp_path / "pics" / name / f"{i}.png", (level + rng.integers(0, 4000, (12, 12))).astype(np.uint16))
    found = json.loads(cli("data", *PATHS, "supernet.in_channels=3", "supernet.classes=2", "--json")[1])
    means = [c["mean_levels"][0] for c in found["classes"]]
    assert means == pytest.approx([8000 / 256, 42000 / 256], abs=1)
