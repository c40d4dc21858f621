"""A contact sheet of an episode with the action that is taken at each frame, so that an alignment off by one shows.

Read it from a frame to the next: what the bars under frame t say has to be what has happened by frame t + 1.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.schema import TextSpan
from vgen_jax.files import media
from vgen_jax.types import VgenError

HEIGHT, BAR, GAP = 192, 9, 3  # pixels of an enlarged frame at least, of a bar, between bars
PLUS, MINUS, GROUND = (86, 204, 140), (240, 120, 100), (40, 40, 46)


def action_sheet(source: EpisodeSource, episode: int, count: int = 16, columns: int = 8) -> np.ndarray:
    """A picture of consecutive frames, where the actions of the episode change most.

    Args:
        count: frames.
        columns: of the sheet.

    Returns:
        uint8 (H, W, 3).

    Raises:
        VgenError: for latents, which show nothing, or an episode that there is not.
    """
    if source.info.content != "frames":
        raise VgenError(f"{source.folder} holds latents: look at the frames that they were made from")
    head = source.head(episode)
    frames = source.frames[episode]
    names = [name for name in ("continuous", "discrete") if f"actions.{name}" in head.tensors]
    values = {name: np.asarray(head.tensors[f"actions.{name}"]) for name in names}
    count = min(count, frames)
    start = liveliest(_model_units(source, values), count) if values else 0
    shown = source.window(episode, start, start + count)
    pictures, captions = [], []
    for t, frame in enumerate(shown, start):
        last = t == frames - 1
        rows = {} if last else {name: value[t] for name, value in values.items()}
        pictures.append(_with_bars(frame, source, rows))
        captions.append(f"{t}: the last frame" if last else f"{t}: {_words(source, rows, head.texts, t)}")
    return media.contact_sheet(pictures, captions, columns)


def liveliest(action_TA: np.ndarray, count: int) -> int:
    """The first of ``count`` frames between which the actions (T - 1, A) change most."""
    changes = np.abs(np.diff(action_TA, axis=0)).sum(1)
    if len(action_TA) < count:
        return 0
    sums = np.convolve(changes, np.ones(max(1, count - 2)), "valid")
    return min(int(np.argmax(sums)), len(action_TA) + 1 - count) if len(sums) else 0


def _model_units(source: EpisodeSource, values: dict[str, np.ndarray]) -> np.ndarray:
    name = "continuous" if "continuous" in values else "discrete"
    return source.info.action_spaces[name].to_model(values[name])


def _words(source: EpisodeSource, rows: dict[str, np.ndarray], texts: tuple[TextSpan, ...], t: int) -> str:
    spaces, parts = source.info.action_spaces, []
    if "continuous" in rows:
        pairs = zip(spaces["continuous"].names, rows["continuous"], strict=True)
        parts.append(" ".join(f"{name} {float(value):+.3g}" for name, value in pairs))
    if "discrete" in rows:
        parts.append(spaces["discrete"].names[int(rows["discrete"])])
    text = next((span.text for span in texts if span.start <= t < span.stop), "")
    return ", ".join([*parts, *([f'"{text}"'] if text else [])]) or "no action"


def _with_bars(frame_HWC: np.ndarray, source: EpisodeSource, rows: dict[str, np.ndarray]) -> np.ndarray:
    """The frame, enlarged by whole pixels, with a bar for each dimension below it: to the right for plus."""
    scale = max(1, math.ceil(HEIGHT / frame_HWC.shape[0]))
    large = frame_HWC.repeat(scale, axis=0).repeat(scale, axis=1)
    space = source.info.action_spaces["continuous"] if "continuous" in source.info.action_spaces else None
    if space is None:
        return large
    strip = Image.new("RGB", (large.shape[1], space.width * (BAR + GAP) + GAP), GROUND)
    draw, middle = ImageDraw.Draw(strip), large.shape[1] / 2
    draw.line((middle, 0, middle, strip.height), fill=(120, 120, 126))
    if "continuous" in rows:
        for n, value in enumerate(space.to_model(rows["continuous"][None])[0]):
            if value == 0:
                continue
            end = middle + float(np.clip(value, -1, 1)) * (middle - GAP)
            top = GAP + n * (BAR + GAP)
            draw.rectangle(
                (min(middle, end), top, max(middle, end), top + BAR - 1), fill=PLUS if value > 0 else MINUS
            )  # fmt: skip
    return np.concatenate([large, np.asarray(strip)])
