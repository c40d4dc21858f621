"""Frames as a browser takes them: one picture a video and step, its frames below each other."""

import base64
import io

import numpy as np
from PIL import Image

LOSSLESS_PIXELS = 128 * 128  # of a frame; larger ones are JPEG, which encodes ten times as fast
JPEG_QUALITY = 92


def strip(frames_THWC: np.ndarray) -> tuple[str, bytes]:
    """A picture of all frames, the first at the top, and its MIME type. Small frames are kept without loss."""
    t, height, width, channels = frames_THWC.shape
    image = Image.fromarray(np.ascontiguousarray(frames_THWC).reshape(t * height, width, channels))
    buffer = io.BytesIO()
    if height * width <= LOSSLESS_PIXELS:
        image.save(buffer, "PNG", compress_level=1)
        return "image/png", buffer.getvalue()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    return "image/jpeg", buffer.getvalue()


def data_uri(frames_THWC: np.ndarray) -> str:
    """``strip`` as a URI that holds it."""
    kind, content = strip(frames_THWC)
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
