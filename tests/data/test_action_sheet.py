"""Below frame t stands the action that is taken at it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from vgen_jax.data.action_sheet import MINUS, PLUS, action_sheet, liveliest
from vgen_jax.data.records import INFO_FILE, EpisodeSource, EpisodeWriter, write_text
from vgen_jax.data.schema import TextSpan
from vgen_jax.files import media
from vgen_jax.types import VgenError

FRAMES = 5


@pytest.fixture
def source(tmp_path: Path) -> EpisodeSource:
    """An episode whose first action turns left, whose third one turns right, and which does nothing else."""
    turn = np.zeros((FRAMES - 1, 2), np.float32)
    turn[0, 0], turn[2, 0] = 10.0, -5.0
    episode = dataclasses.replace(
        tiny.episode(0, "train"), frames_THWC=np.full((FRAMES, 16, 16, 3), 255, np.uint8), extras={},
        actions={"continuous": turn}, texts=(TextSpan(2, 3, "rotate"),),
    )  # fmt: skip
    with EpisodeWriter(tmp_path / "train-00000-of-00001.array_record") as writer:
        writer.write(episode)
    info = tiny.info({"train": (writer.info,)})
    spaces = {"continuous": info.action_spaces["continuous"]}
    write_text(tmp_path / INFO_FILE, dataclasses.replace(info, action_spaces=spaces).to_json())
    return EpisodeSource(tmp_path, "train")


def test_a_bar_stands_below_the_frame_at_which_the_action_is_taken(
    source: EpisodeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    captions: list[str] = []
    sheet_of = media.contact_sheet

    def listening(frames: list[np.ndarray], texts: list[str], columns: int) -> np.ndarray:
        captions.extend(texts)
        return sheet_of(frames, texts, columns)

    monkeypatch.setattr(media, "contact_sheet", listening)
    sheet = action_sheet(source, 0, count=FRAMES, columns=FRAMES)
    assert captions == [
        "0: turn +10 forward +0", "1: turn +0 forward +0", '2: turn -5 forward +0, "rotate"', "3: turn +0 forward +0",
        "4: the last frame",
    ]  # fmt: skip
    cells = np.array_split(sheet, FRAMES, axis=1)
    seen = [[int((cell == colour).all(-1).sum()) for colour in (PLUS, MINUS)] for cell in cells]
    assert [plus > 0 for plus, _ in seen] == [True, False, False, False, False]
    assert [minus > 0 for _, minus in seen] == [False, False, True, False, False]
    assert seen[0][0] > 1.5 * seen[2][1], "half of the action is half of the bar"


def test_the_liveliest_part_is_shown() -> None:
    actions = np.zeros((40, 1))
    actions[25:29, 0] = (1, -1, 1, -1)
    assert 18 <= liveliest(actions, 12) <= 25
    assert liveliest(actions, 41) == 0 and liveliest(actions[:3], 12) == 0


def test_latents_cannot_be_looked_at(source: EpisodeSource) -> None:
    source.info = dataclasses.replace(source.info, content="latents")
    with pytest.raises(VgenError, match="holds latents"):
        action_sheet(source, 0)
