"""A section of a config as its dataclass, and what may be wrong with it."""

import dataclasses

import pytest

from vgen_jax.config import later, section
from vgen_jax.types import VgenError


@dataclasses.dataclass(frozen=True)
class Inner:
    size: int


@dataclasses.dataclass(frozen=True)
class Outer:
    """One field of each sort."""

    name: str
    rate: float
    count: int
    flag: bool
    sizes: tuple[tuple[int, int], ...]
    maybe: int | None
    inner: Inner


GOOD = {
    "name": "a", "rate": 1, "count": 2, "flag": True, "sizes": [[1, 2], [3, 4]], "maybe": None, "inner": {"size": 5},
}  # fmt: skip


def test_a_section_becomes_its_dataclass() -> None:
    made = section(Outer, GOOD, "outer")
    assert made == Outer("a", 1.0, 2, True, ((1, 2), (3, 4)), None, Inner(5)) and type(made.rate) is float


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        (
            {"nmae": "b"},
            r"outer.nmae is unknown: did you mean 'name'\? outer has count, flag, inner, maybe, name, rate",
        ),
        ({"name": 3}, "config key outer.name is 3, a int: use a str"),
        ({"count": 2.5}, "outer.count is 2.5, a float: use a int"),
        ({"count": True}, "outer.count is True, a bool"),
        ({"rate": "fast"}, "outer.rate is 'fast'"),
        ({"flag": 1}, "outer.flag is 1, a int: use a bool"),
        ({"sizes": "big"}, "outer.sizes is 'big'"),
        ({"sizes": ((1, 2.5), (3, 4))}, r"outer.sizes\[0\]\[1\] is 2.5, a float: use a int"),
        ({"sizes": ((1, 2, 3), (3, 4))}, r"outer.sizes\[0\] is \(1, 2, 3\): give 2 values"),
        ({"maybe": "x"}, "outer.maybe is 'x', a str: use a int or NoneType"),
        ({"inner": {"size": 5, "colour": 1}}, "config key outer.inner.colour is unknown"),
        ({"inner": {}}, "config key outer.inner.size is missing"),
    ],
)
def test_a_wrong_key_or_value_is_named(changes: dict[str, object], named: str) -> None:
    with pytest.raises(VgenError, match=named):
        section(Outer, {**GOOD, **changes}, "outer")


@pytest.mark.parametrize("missing", GOOD)
def test_a_missing_key_is_named(missing: str) -> None:
    with pytest.raises(VgenError, match=f"config key outer.{missing} is missing"):
        section(Outer, {k: v for k, v in GOOD.items() if k != missing}, "outer")


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
