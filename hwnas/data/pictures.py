"""How does an image become pixels? By one set of rules, for files, bytes and arrays alike, whatever source they are of.

- An image is turned as its EXIF orientation says. Of several frames or pages the first counts. Colour profiles and
  gamma are not applied.
- 8 bits a channel stay as they are: grey, RGB, palettes, CMYK, YCbCr, HSV. Black and white become 0 and 255.
- 16 bits a channel: the upper 8, as Pillow does with colours. A file of 12 bits is dark then; it should be scaled
  before.
- Floats between 0 and 1 are multiplied by 255, others between 0 and 255 rounded. Integers of more than 16 bits must lie
  between 0 and 255. Other values have no known white, and are refused.
- Where an image is transparent, `BACKGROUND` shows through.
- A mode without a rule is refused.
- A JPEG that is at least `REDUCED` times as large as it is needed is decoded at a half, a quarter or an eighth of its
  size, which takes a fraction of the time; at least `REDUCED` times the needed edge remains, which is then resized as
  usual.
"""

from __future__ import annotations

import io
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hwnas.errors import DataError, escaped, one_line

if TYPE_CHECKING:
    from PIL.Image import Image

RULES = 3
"""Number of this set of rules; pixels that are kept on disk say by which they were made."""
BACKGROUND = 255
"""Red, green and blue behind transparent pixels: white."""
REDUCED = 2
"""What is decoded of a JPEG is at least this many times the edge that is needed, so that the filter which resizes it
still has what it averages over."""
LONGEST = 100
"""Images that are longer than this many times their width are cut to their centre before they are resized."""
ORIENTATION = 0x0112
"""EXIF tag. Its values by CIPA DC-008 (Exif 3.0), section 4.6.5.1.5."""
UPRIGHT = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""What turns an image of this orientation upright: members of ``PIL.Image.Transpose``."""
OPAQUE = ("RGB", "RGBX", "CMYK", "YCbCr", "HSV", "P")
TRANSPARENT = ("RGBA", "RGBa", "LA", "La", "PA")


# What Pillow has to say about a broken file is in its exception; without a handler it would also go to the terminal.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class NoRuleError(ValueError):
    """Values of pixels whose black and white are not known."""


Box = tuple[float, float, float, float]
"""Left, top, right and bottom of the part of a picture that is the image."""


def open_picture(given: Path | bytes, where: str, mode: str | None = None) -> Image:
    """Read an image file, or its content.

    Args:
        given: a file, or the bytes of one.
        where: names it in errors.
        mode: of Pillow, to which the image is brought besides, such as ``L`` for the grey of a colour; None: none.

    Returns:
        An upright image of mode ``L`` or ``RGB``.

    Raises:
        DataError: it is broken, cut short, empty, too large for Pillow's limit, or of a mode without a rule.
    """
    return _opened(given, where, mode, None)[0]


def square_picture(given: Path | bytes, where: str, size_px: int, mode: str | None = None) -> NDArray[np.uint8]:
    """Read an image file, or its content, resize its shorter edge and cut out the centre.

    Args:
        given: a file, or the bytes of one.
        where: names it in errors.
        size_px: edge of the result.
        mode: see `open_picture`, which also says what is raised.

    Returns:
        ``(3, size_px, size_px)``.
    """
    image, box = _opened(given, where, mode, size_px)
    return square_pixels(image, size_px, box)


def room_for(n: int, channels: int, height_px: int, width_px: int) -> NDArray[np.uint8]:
    """Return ``(n, channels, height_px, width_px)`` that nothing is written into yet, in the order of picture files.

    All channels of a pixel lie side by side, so that a picture is copied as it is, and becomes the channels-last input
    of a network without being turned round.
    """
    return np.empty((n, height_px, width_px, channels), dtype=np.uint8).transpose(0, 3, 1, 2)


def _opened(given: Path | bytes, where: str, mode: str | None, size_px: int | None) -> tuple[Image, Box | None]:
    """An upright picture and, where it was decoded at a reduced size, which part of it is the image.

    The size of an image is seldom a multiple of what it is reduced by; what lies beyond its edge is not the image's.
    """
    from PIL import Image as pillow
    from PIL import UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of metadata, which do not matter, and of sizes that can still be read
            with pillow.open(given if isinstance(given, Path) else io.BytesIO(given)) as image:
                box: Box | None = None
                if size_px is not None and max(image.size) <= LONGEST * min(image.size):
                    reduced = image.draft(None, (REDUCED * size_px,) * 2)  # of JPEG alone
                    box = None if reduced is None else reduced[1]
                image.load()
                picture = eight_bit_picture(image)
                turn = _turn(image)
            if turn is not None:
                box = None if box is None else _turned_box(box, picture.size, turn)
                picture = picture.transpose(pillow.Transpose(turn))
            return (picture if mode in (None, picture.mode) else eight_bit_picture(picture.convert(mode))), box
    except Exception as error:
        # Pillow's readers raise almost anything on broken files: OSError, SyntaxError, struct.error, zlib.error, ...
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        remedy = "repair or remove the file"
        if isinstance(error, UnidentifiedImageError):
            reason = "it is no image of a format that Pillow knows"
        elif isinstance(error, pillow.DecompressionBombError):
            reason, remedy = reason.split(", could be")[0], "make it smaller or remove it"
        elif isinstance(error, NoRuleError):
            remedy = "convert or remove it"
        raise DataError(f"cannot read image {escaped(where)}: {one_line(reason)}; {remedy}") from error


def eight_bit_picture(image: Image) -> Image:
    """Return an image of any mode as ``L`` or ``RGB``, by the rules of this module; it is not turned.

    Raises:
        NoRuleError: there is none for it.
    """
    from PIL import Image as pillow

    key = image.info.get("transparency")
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.uint16)  # Pillow before 11 opens PNG of 16 bits as mode I
        pixels = eight_bits(values)
        # A PNG may have one value that is transparent.
        return pillow.fromarray(
            np.where(values == key, np.uint8(BACKGROUND), pixels) if isinstance(key, int) else pixels
        )
    if image.mode in ("I", "F"):
        return pillow.fromarray(eight_bits(np.asarray(image)))
    if image.mode in TRANSPARENT or (key is not None and image.mode in ("1", "L", "P", "RGB")):
        return _on_background(image)
    if image.mode == "L":
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode in OPAQUE:
        return image if image.mode == "RGB" else image.convert("RGB")
    raise NoRuleError(f"there is no rule for images of mode {image.mode}; RGB and grey of 8 or 16 bits have one")


def eight_bits(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Return numbers of any type as bytes, by the rules of this module.

    Raises:
        NoRuleError: numbers outside what has a known white.
    """
    kind, bits = values.dtype.kind, 8 * values.dtype.itemsize
    if values.dtype == np.uint8:
        return values  # type: ignore[return-value]
    if kind == "b":
        return values.astype(np.uint8) * np.uint8(255)
    if kind == "u" and bits == 16:
        return (values.astype(np.uint16) >> 8).astype(np.uint8)
    if kind not in "iuf":
        raise NoRuleError(f"pixels are {values.dtype}; they must be numbers")
    if not values.size:
        return values.astype(np.uint8)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 255):  # also where one is NaN
        allowed = "0 to 1 or 0 to 255" if kind == "f" else "0 to 255"
        raise NoRuleError(
            f"{values.dtype} pixels reach from {low:g} to {high:g}, allowed is {allowed}; save 8 or 16 bits instead"
        )
    if kind == "f":
        return np.rint(values.astype(np.float64) * (255 if high <= 1 else 1)).astype(np.uint8)
    return values.astype(np.uint8)


def without_alpha(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return ``(..., 4)`` red, green, blue and alpha as ``(..., 3)``, on `BACKGROUND`.

    The arithmetic is Pillow's, so that arrays and files give the same pixels.
    """
    from PIL import Image as pillow

    flat = np.ascontiguousarray(pixels).reshape(1, -1, 4)
    return np.asarray(_on_background(pillow.fromarray(flat))).reshape(*pixels.shape[:-1], 3)


def _on_background(image: Image) -> Image:
    """Let the background show through; grey images stay grey."""
    from PIL import Image as pillow

    grey = image.mode in ("L", "LA", "La", "1")
    image = image.convert({"La": "LA", "RGBa": "RGBA", "PA": "RGBA"}.get(image.mode, image.mode)).convert("RGBA")
    whole = pillow.new("RGBA", image.size, (BACKGROUND, BACKGROUND, BACKGROUND, 255))
    whole.alpha_composite(image)
    return whole.convert("L" if grey else "RGB")


def _turn(image: Image) -> int | None:
    """Return how to turn a loaded image upright; EXIF data that cannot be read say nothing."""
    try:
        return UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 (metadata of cameras are often broken, in as many ways as images)
        return None


def _turned_box(box: Box, size: tuple[int, int], turn: int) -> Box:
    """Return where a part of a picture of ``size`` lies after ``turn``, a member of ``PIL.Image.Transpose``."""
    (left, top, right, bottom), (width, height) = box, size
    if turn in (0, 2, 3, 6):
        left, right = width - right, width - left
    if turn in (1, 3, 4, 6):
        top, bottom = height - bottom, height - top
    return (top, left, bottom, right) if turn in (2, 4, 5, 6) else (left, top, right, bottom)


def square_pixels(image: Image, size_px: int, box: Box | None = None) -> NDArray[np.uint8]:
    """Return ``(3, size_px, size_px)``: the shorter edge resized to ``size_px``, then the centre.

    Args:
        image: upright.
        size_px: edge of the result.
        box: which part of the image counts; None: all.
    """
    image = image if image.mode == "RGB" else image.convert("RGB")
    short = min(image.size)
    if max(image.size) > LONGEST * short:  # what is resized would be many times what is kept
        half = LONGEST * short // 2
        x, y = image.width // 2, image.height // 2
        image = image.crop(
            (max(0, x - half), max(0, y - half), min(image.width, x + half), min(image.height, y + half))
        )
    left_px, top_px, right_px, bottom_px = box or (0, 0, *image.size)
    edges = right_px - left_px, bottom_px - top_px
    scale = size_px / min(edges)
    width, height = (max(size_px, round(edge * scale)) for edge in edges)
    image = image.resize((width, height), 2, (left_px, top_px, right_px, bottom_px))  # bilinear
    left, top = (width - size_px) // 2, (height - size_px) // 2
    return np.asarray(image.crop((left, top, left + size_px, top + size_px))).transpose(2, 0, 1)
