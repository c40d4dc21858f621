"""Pictures in files, and from whomever they come."""

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from vgen_jax.files.media import Frame
from vgen_jax.types import VgenError

UPLOADED = ("PNG", "JPEG", "WEBP", "GIF", "BMP")  # kinds of pictures that are taken from anyone


def read_image(path: str | os.PathLike[str], size: tuple[int, int]) -> Frame:
    """A picture of any kind that Pillow reads, cropped about its centre and resized (antialiased) to (height, width).

    Raises:
        VgenError: no such file, or no picture in it.
    """
    if not Path(path).is_file():
        raise VgenError(f"{path}: no such file")
    try:
        with Image.open(path) as image:
            return _fitted(image, size)
    except (OSError, ValueError) as error:
        raise VgenError(f"{path}: cannot be read as a picture; give a whole .png or .jpg") from error


def decode_image(content: bytes, size: tuple[int, int], max_pixels: int = 32 * 10**6) -> Frame:
    """``read_image`` of a file's bytes, from whomever they come: few kinds, and none that unfolds without end.

    Raises:
        VgenError: no PNG, JPEG, WebP, GIF or BMP, a damaged one, or more than ``max_pixels`` pixels.
    """
    try:
        with Image.open(io.BytesIO(content), formats=UPLOADED) as image:
            if image.width * image.height > max_pixels:
                raise Image.DecompressionBombError
            return _fitted(image, size)
    except Image.DecompressionBombError as error:
        most = f"{max_pixels // 10**6} million pixels"
        raise VgenError(f"the picture is too large: give one of at most {most}") from error
    except (OSError, ValueError, SyntaxError) as error:  # Pillow tells of damaged PNGs by a SyntaxError
        raise VgenError("this is no picture that can be read: give a whole PNG, JPEG, WebP, GIF or BMP") from error


def _fitted(image: Image.Image, size: tuple[int, int]) -> Frame:
    return np.array(ImageOps.fit(image.convert("RGB"), size[::-1], Image.Resampling.LANCZOS))
