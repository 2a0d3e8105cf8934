"""One picture, whatever it is saved as and wherever it lies, gives the same pixels; what has no rule is refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hwnas.data.pictures import LONGEST, UPRIGHT, eight_bits, open_picture, square_pixels, without_alpha
from hwnas.data.source import SourceConfig
from hwnas.data.sources import SOURCES
from hwnas.errors import DataError

PX = 24
ROWS, COLUMNS = np.mgrid[0:PX, 0:PX]
COLOURS = np.stack([4 * COLUMNS + 60, 5 * ROWS + 40, 100 + 3 * ROWS - 2 * COLUMNS], 2).astype(np.uint8)
"""A smooth picture whose sides and corners all differ."""
GREY = (5 * ROWS + 4 * COLUMNS + 20).astype(np.uint8)
FEW = np.where(COLUMNS < 9, 40, np.where(ROWS < 11, 90, 200)).astype(np.uint8)
"""Three levels, for palettes and formats of few colours."""


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png16(values, colour_type):
    """A PNG of 16 bits a channel, byte by byte, as Pillow writes none in colour."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def turned(orientation, **options):
    """The picture as a camera that was held otherwise stores it."""
    image = Image.fromarray(COLOURS)
    if orientation in UPRIGHT:
        back = {2: 4, 4: 2}.get(UPRIGHT[orientation], UPRIGHT[orientation])  # only turns by 90 degrees have a direction
        image = image.transpose(Image.Transpose(back))
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, exif=exif, **options)


def with_alpha(colours, alpha):
    return np.concatenate([colours, np.broadcast_to(alpha, (PX, PX))[..., None]], 2).astype(np.uint8)


HALF = np.where(COLUMNS < 12, 255, 0)
ON_WHITE = np.where(COLUMNS[..., None] < 12, COLOURS, 255).astype(np.uint8)
FEW_RGB, GREY_RGB = (np.repeat(x[..., None], 3, 2) for x in (FEW, GREY))


def palette(**options):
    image = Image.fromarray((FEW // 50).astype(np.uint8))
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([level for i in range(5) for level in (40 if i == 0 else 90 if i == 1 else 200,) * 3])
    return encoded(image, "PNG", **options)


FILES = {
    "png": (encoded(Image.fromarray(COLOURS), "PNG"), COLOURS, 0),
    "png of 16 bits": (png16(COLOURS.astype(np.uint16) * 257, 2), COLOURS, 0),
    "png of 16 bits, upper 8": (png16(COLOURS.astype(np.uint16) << 8, 2), COLOURS, 0),
    "png of 16 bits with alpha": (png16(with_alpha(COLOURS, 255).astype(np.uint16) * 257, 6), COLOURS, 0),
    "grey png": (encoded(Image.fromarray(GREY), "PNG"), GREY_RGB, 0),
    "grey png of 16 bits": (encoded(Image.fromarray(GREY.astype(np.uint16) * 257), "PNG"), GREY_RGB, 0),
    "grey png of 16 bits with alpha": (
        png16(np.stack([GREY, np.full_like(GREY, 255)], 2).astype(np.uint16) * 257, 4), GREY_RGB, 0,
    ),
    "grey tiff of 16 bits, big endian": (
        encoded(Image.frombytes("I;16B", (PX, PX), (GREY.astype(">u2") * 257).astype(">u2").tobytes()), "TIFF"),
        GREY_RGB, 0,
    ),
    "grey pgm of 16 bits": (b"P5 24 24 65535\n" + (GREY.astype(">u2") * 257).astype(">u2").tobytes(), GREY_RGB, 0),
    "tiff of 32 bits": (encoded(Image.fromarray(GREY.astype(np.int32)), "TIFF"), GREY_RGB, 0),
    "tiff of floats to 1": (encoded(Image.fromarray(GREY.astype(np.float32) / 255), "TIFF"), GREY_RGB, 0),
    "tiff of floats to 255": (encoded(Image.fromarray(GREY.astype(np.float32)), "TIFF"), GREY_RGB, 0),
    "png with a palette": (palette(), FEW_RGB, 0),
    "png with a palette, one colour transparent": (palette(transparency=0), np.where(FEW_RGB == 40, 255, FEW_RGB), 0),
    "gif": (encoded(Image.fromarray(FEW), "GIF"), FEW_RGB, 0),
    "opaque png with alpha": (encoded(Image.fromarray(with_alpha(COLOURS, 255)), "PNG"), COLOURS, 0),
    "half of it transparent": (encoded(Image.fromarray(with_alpha(COLOURS, HALF)), "PNG"), ON_WHITE, 0),
    "one colour transparent": (
        encoded(Image.fromarray(FEW_RGB), "PNG", transparency=(90, 90, 90)),
        np.where(FEW_RGB == 90, 255, FEW_RGB), 0,
    ),
    "one grey transparent": (
        encoded(Image.fromarray(FEW), "PNG", transparency=90), np.where(FEW_RGB == 90, 255, FEW_RGB), 0,
    ),
    "grey with alpha": (
        encoded(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(HALF.astype(np.uint8))]), "PNG"),
        np.where(HALF[..., None] > 0, GREY_RGB, 255), 0,
    ),
    "black and white": (
        encoded(Image.fromarray(FEW).point(lambda v: 255 * (v > 50)).convert("1"), "PNG"),
        np.where(FEW_RGB > 50, 255, 0), 0,
    ),
    "cmyk tiff": (encoded(Image.fromarray(COLOURS).convert("CMYK"), "TIFF"), COLOURS, 0),
    "cmyk jpeg": (encoded(Image.fromarray(COLOURS).convert("CMYK"), "JPEG", quality=98), COLOURS, 6),
    "tiff": (encoded(Image.fromarray(COLOURS), "TIFF"), COLOURS, 0),
    "packed tiff": (encoded(Image.fromarray(COLOURS), "TIFF", compression="tiff_lzw"), COLOURS, 0),
    "bmp": (encoded(Image.fromarray(COLOURS), "BMP"), COLOURS, 0),
    "webp without loss": (encoded(Image.fromarray(COLOURS), "WEBP", lossless=True), COLOURS, 0),
    "webp": (encoded(Image.fromarray(COLOURS), "WEBP", quality=98), COLOURS, 6),
    "grey jpeg": (encoded(Image.fromarray(GREY), "JPEG", quality=98), GREY_RGB, 6),
    "several pages": (
        encoded(Image.fromarray(COLOURS), "TIFF", save_all=True, append_images=[Image.fromarray(GREY)]), COLOURS, 0,
    ),
    **{f"jpeg held as {n}": (turned(n, kind="JPEG", quality=98), COLOURS, 6) for n in range(1, 9)},
    **{f"png held as {n}": (turned(n, kind="PNG"), COLOURS, 0) for n in range(1, 9)},
    **{f"tiff held as {n}": (turned(n, kind="TIFF"), COLOURS, 0) for n in range(1, 9)},
    **{f"webp held as {n}": (turned(n, kind="WEBP", lossless=True), COLOURS, 0) for n in range(1, 9)},
}  # fmt: skip
"""Content of a file, the pixels that it should give, and how far they may be off."""


@pytest.mark.parametrize("name", FILES)
def test_a_file_gives_the_pixels_of_the_picture(tmp_path, name):
    content, wanted, levels = FILES[name]
    path = tmp_path / "picture"  # what it is is told from its content
    path.write_bytes(content)
    for given in (content, path):
        found = np.asarray(open_picture(given, "here").convert("RGB"))
        assert found.shape == wanted.shape
        assert np.abs(found.astype(int) - wanted.astype(int)).max() <= levels
    assert np.array_equal(square_pixels(open_picture(path, "here"), PX).transpose(1, 2, 0), found)


ARRAYS = {
    "bytes": COLOURS,
    "channels first": COLOURS.transpose(2, 0, 1),
    "16 bits": COLOURS.astype(np.uint16) * 257,
    "16 bits, upper 8": COLOURS.astype(np.uint16) << 8,
    "integers": COLOURS.astype(np.int64),
    "floats to 1": (COLOURS / 255).astype(np.float32),
    "short floats to 1": (COLOURS / 255).astype(np.float16),
    "floats to 255": COLOURS.astype(np.float64),
    "opaque": with_alpha(COLOURS, 255),
}


def of_the_arrays(tmp_path, x):
    """Twelve times one image in an .npz."""
    np.savez(tmp_path / "a.npz", x_train=np.stack([x] * 12), y_train=np.arange(12) % 2)
    return SOURCES.get("npz").open(SourceConfig(source="npz", path=str(tmp_path / "a.npz")), PX).train


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_gives_the_pixels_of_the_picture(tmp_path, name):
    found = of_the_arrays(tmp_path, ARRAYS[name]).pixels(np.array([3]), PX)[0]
    assert np.array_equal(found.transpose(1, 2, 0), COLOURS)


def test_a_transparent_array_is_like_the_file(tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (PX, PX, 4), dtype=np.uint8)
    file = np.asarray(open_picture(encoded(Image.fromarray(values), "PNG"), "here"))
    assert np.array_equal(of_the_arrays(tmp_path, values).pixels(np.array([0]), PX)[0].transpose(1, 2, 0), file)
    by_hand = np.rint(values[..., :3] * (values[..., 3:] / 255) + 255 * (1 - values[..., 3:] / 255))
    assert np.abs(without_alpha(values).astype(int) - by_hand).max() <= 1


@pytest.mark.slow
def test_every_source_of_files_gives_the_same_pixels(tmp_path):
    """Folder, encoded images in one file and Hugging Face, of every kind of file at once."""
    datasets = pytest.importorskip("datasets")
    contents = [content for content, _, _ in FILES.values()]
    for label in ("a", "b"):
        (tmp_path / "folder" / label).mkdir(parents=True)
    for i, content in enumerate(contents):
        (tmp_path / "folder" / "ab"[i % 2] / f"{i:03}.png").write_bytes(content)
    labels = np.arange(len(contents)) % 2
    folder = SOURCES.get("folder").open(SourceConfig(source="folder", path=str(tmp_path / "folder")), PX).train
    rows = np.lexsort((np.arange(len(contents)), labels))  # a folder is read class by class
    wanted = folder.pixels(np.argsort(rows), PX)

    stored = np.frombuffer(b"".join(contents), np.uint8)
    arrays = {
        f"{column}_{split}": values
        for split in ("train", "test")
        for column, values in (("jpeg", stored), ("offset", np.cumsum([0, *map(len, contents)])), ("y", labels))
    }
    np.savez(tmp_path / "jpeg.npz", **arrays)
    jpeg = SOURCES.get("jpeg").open(SourceConfig(source="jpeg", path=str(tmp_path / "jpeg.npz")), PX).train
    assert np.array_equal(jpeg.pixels(np.arange(len(contents)), PX), wanted)

    features = datasets.Features({"i": datasets.Image(), "l": datasets.ClassLabel(names=["a", "b"])})
    values = {"i": [{"bytes": c, "path": None} for c in contents], "l": labels.tolist()}
    datasets.Dataset.from_dict(values, features=features).save_to_disk(str(tmp_path / "set"))
    hub = SOURCES.get("huggingface").open(SourceConfig(source="huggingface", path=str(tmp_path / "set")), PX).train
    assert np.array_equal(hub.pixels(np.arange(len(contents)), PX), wanted)


# -- what is refused --------------------------------------------------------------------------------------

WHOLE = encoded(Image.fromarray(np.random.default_rng(1).integers(0, 256, (40, 40, 3), dtype=np.uint8)), "PNG")
NO_WIDTH = WHOLE[:16] + struct.pack(">I", 0) + WHOLE[20:29] + struct.pack(
    ">I", zlib.crc32(WHOLE[12:16] + struct.pack(">I", 0) + WHOLE[20:29])
) + WHOLE[33:]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is no image of a format that Pillow knows; repair or remove the file"),
        (b"hello", "it is no image"),
        (WHOLE[: len(WHOLE) // 2], "repair or remove the file"),
        (WHOLE[:60], "repair or remove the file"),
        (WHOLE[:500] + bytes(40) + WHOLE[540:], "repair or remove the file"),
        (NO_WIDTH, "repair or remove the file"),
        (FILES["jpeg held as 6"][0][:300], "repair or remove the file"),
        (FILES["tiff"][0][:100], "repair or remove the file"),
        (FILES["packed tiff"][0][:200], "repair or remove the file"),
        (FILES["webp"][0][:40], "repair or remove the file"),
        (FILES["gif"][0][:20], "repair or remove the file"),
        (
            encoded(Image.new("1", (20000, 20000)), "PNG"),
            r"400000000 pixels\) exceeds limit of \d+ pixels; make it sma",
        ),
        (encoded(Image.new("LAB", (9, 9)), "TIFF"), "no rule for images of mode LAB; .*; convert or remove it"),
        (encoded(Image.fromarray(np.full((9, 9), 70000, np.int32)), "TIFF"), "int32 pixels reach from 70000 to 70000"),
        (encoded(Image.fromarray(np.full((9, 9), -1, np.int32)), "TIFF"), "from -1 to -1, allowed is 0 to 255"),
        (encoded(Image.fromarray(np.full((9, 9), 256.0, np.float32)), "TIFF"), "allowed is 0 to 1 or 0 to 255"),
        (encoded(Image.fromarray(np.full((9, 9), np.nan, np.float32)), "TIFF"), "reach from nan to nan"),
    ],
)
def test_what_is_no_picture_is_one_line_with_its_name(tmp_path, content, message):
    path = tmp_path / "a\nb.png"
    path.write_bytes(content)
    for given in (path, content):
        with pytest.raises(DataError, match=message) as caught:
            open_picture(given, str(path))
        assert r"a\nb.png: " in str(caught.value)
        assert "\n" not in str(caught.value)
        assert "0x" not in str(caught.value)


def test_what_is_no_file_is_one_line_with_its_name(tmp_path):
    with pytest.raises(DataError, match=r"cannot read image .*none\.png: No such file or directory; repair or remove"):
        open_picture(tmp_path / "none.png", str(tmp_path / "none.png"))


def test_anything_that_a_reader_raises_is_one_line(monkeypatch):
    for error in (KeyError("a"), struct.error("b"), AssertionError(), RecursionError("c"), MemoryError(), EOFError()):

        def broken(self, *_, error=error):
            raise error

        monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_end", broken)
        with pytest.raises(DataError, match=r"cannot read image here: .+; repair"):
            open_picture(WHOLE, "here")


def test_large_photographs_within_the_limit_are_read_without_a_warning(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # 1,600 pixels are a warning of Pillow's, 2,001 an error
    assert open_picture(WHOLE, "here").size == (40, 40)


@pytest.mark.parametrize("exif", [b"Exif\0\0rubbish", b"Exif\0\0II*\0\x08\0\0\0\xff\xff", b""])
def test_metadata_that_cannot_be_read_do_not_matter(exif):
    assert np.array_equal(np.asarray(open_picture(encoded(Image.fromarray(COLOURS), "PNG", exif=exif), "x")), COLOURS)


@pytest.mark.parametrize("size", [(3, 3000), (3000, 3)])
def test_a_very_long_image_is_cut_before_it_is_resized(size, monkeypatch):
    resize, sizes = Image.Image.resize, []
    monkeypatch.setattr(Image.Image, "resize", lambda self, to, *rest: sizes.append(to) or resize(self, to, *rest))
    pixels = np.zeros((*size[::-1], 3), np.uint8)
    pixels[size[1] // 2 - 1 : size[1] // 2 + 2, size[0] // 2 - 1 : size[0] // 2 + 2] = 255
    assert max(size) > LONGEST * min(size)
    assert square_pixels(Image.fromarray(pixels), 30).mean() > 200
    assert max(sizes[0]) <= LONGEST * 30


def test_rules_for_numbers():
    assert eight_bits(np.array([False, True])).tolist() == [0, 255]
    assert eight_bits(np.array([0, 255, 256, 65535], np.uint16)).tolist() == [0, 0, 1, 255]
    assert eight_bits(np.array([0.0, 0.5, 1.0])).tolist() == [0, 128, 255]
    assert eight_bits(np.array([0.0, 0.5, 2.0])).tolist() == [0, 0, 2]
    assert eight_bits(np.array([], np.float32)).dtype == np.uint8
    for wrong in (np.array([-0.1]), np.array([300]), np.array(["a"]), np.array([1j]), np.array([np.inf])):
        with pytest.raises(ValueError, match="pixels"):
            eight_bits(wrong)
