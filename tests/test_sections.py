"""Sections of a config as dataclasses."""

import dataclasses

import pytest

from vgen_jax.config import later, section
from vgen_jax.types import VgenError


@dataclasses.dataclass(frozen=True)
class Settings:
    """One key of the first day, one that came later."""

    steps: int
    draw: str = later("uniform")


def test_a_key_that_came_later_may_be_missing_and_no_other() -> None:
    assert section(Settings, {"steps": 3}, "train") == Settings(3, "uniform")
    assert section(Settings, {"steps": 3, "draw": "noisy"}, "train").draw == "noisy"
    with pytest.raises(VgenError, match="train.steps is missing"):
        section(Settings, {"draw": "noisy"}, "train")
    with pytest.raises(VgenError, match="train.rate is unknown"):
        section(Settings, {"steps": 3, "rate": 1}, "train")
    with pytest.raises(VgenError, match="train.draw is 3"):
        section(Settings, {"steps": 3, "draw": 3}, "train")
