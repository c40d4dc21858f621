"""Windows lie on the chunk grid and pair every frame with the action that led to it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from vgen_jax.data.records import EpisodeSource
from vgen_jax.data.schema import TextSpan
from vgen_jax.data.text import encode_text
from vgen_jax.data.windows import WindowIndex, WindowReader, future_texts
from vgen_jax.types import VgenError


@pytest.mark.parametrize("chunk", [1, 3, 4])
@pytest.mark.parametrize(("f_p", "f_g"), [(1, 1), (1, 4), (4, 4), (5, 8), (8, 3)])
def test_the_index_lists_exactly_the_windows_that_fit(chunk: int, f_p: int, f_g: int) -> None:
    frames = (17, 2, 9, 40)
    expected = [
        (episode, b)
        for episode, count in enumerate(frames)
        for b in range(0, count, chunk)
        if b - f_p + 1 >= 0 and b + f_g <= count - 1
    ]
    index = WindowIndex(frames, chunk, f_p, f_g)
    assert [tuple(index[n]) for n in range(len(index))] == expected
    for episode in range(len(frames)):
        assert [n for n in range(len(index)) if index[n].episode == episode] == list(index.episode_range(episode))
    with pytest.raises(IndexError):
        index[len(index)]


def test_a_window_longer_than_all_episodes_is_refused() -> None:
    with pytest.raises(VgenError, match=r"\(4, 14\).*17 frames"):
        WindowIndex((17, 9), 4, 4, 14)
    with pytest.raises(VgenError, match="at least 1"):
        WindowIndex((17,), 4, 0, 4)


@pytest.mark.parametrize(("f_p", "f_g"), [(1, 4), (4, 4), (5, 8)])
def test_actions_lead_to_their_frames(dataset: Path, episode: Callable, f_p: int, f_g: int) -> None:
    """Action t of the fixture is t and leads to the frame whose pose is t + 1."""
    source = EpisodeSource(dataset, "train")
    read = WindowReader(source, f_p, f_g, "continuous", 16, True)
    index = WindowIndex(source.frames, 4, f_p, f_g)
    for n in range(0, len(index), 3):
        window = index[n]
        sample = read(window, n)
        frames = sample["pose"][:, 0].astype(int)
        assert frames[f_p - 1] == window.boundary and frames[f_p - 1] % 4 == 0
        original = episode(window.episode, steps=12 + 4 * (window.episode % 4))
        np.testing.assert_array_equal(sample["video"], original.frames_THWC[frames])
        scale = source.info.action_spaces["continuous"].scale
        np.testing.assert_allclose(sample["action"][1:] * scale, original.actions["continuous"][frames[1:] - 1])
        np.testing.assert_array_equal(sample["action_valid"], [False] + [True] * (f_p + f_g - 1))
        np.testing.assert_array_equal(sample["past"], [True] * f_p + [False] * f_g)
        assert not sample["action"][0].any() and sample["sample_id"] == n


def test_text_is_of_the_future(dataset: Path, episode: Callable) -> None:
    source = EpisodeSource(dataset, "train")
    window = WindowIndex(source.frames, 4, 4, 8)[1]
    spans = episode(window.episode).texts
    texts = [s.text for s in spans if s.start >= window.boundary and s.stop <= window.boundary + 8]
    expected = texts[0] if texts[0] == texts[1] else ", then ".join(texts)
    token = WindowReader(source, 4, 8, "none", 32, False)(window, 0)["token"]
    np.testing.assert_array_equal(token, encode_text(expected, 32))


def test_texts_that_only_touch_are_left_out() -> None:
    spans = (TextSpan(0, 4, "a"), TextSpan(4, 6, "b"), TextSpan(6, 12, "c"))
    assert future_texts(spans, 4, 2) == ["b"]
    assert future_texts(spans, 4, 3) == ["b", "c"]
    assert future_texts(spans, 0, 12) == ["a", "b", "c"]


def test_discrete_actions_are_one_hot(dataset: Path, episode: Callable) -> None:
    source = EpisodeSource(dataset, "train")
    sample = WindowReader(source, 1, 4, "discrete", 0, False)(WindowIndex(source.frames, 4, 1, 4)[0], 0)
    np.testing.assert_array_equal(sample["action"][1:].argmax(1), episode(0, steps=12).actions["discrete"][:4])
    assert sample["action"].sum() == 4 and "token" not in sample and "pose" not in sample
