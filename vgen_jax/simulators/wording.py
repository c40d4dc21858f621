"""Many ways to say each of the walker's commands, some of them kept for tests.

A few fixed phrases teach a text encoder those phrases. Here a phrase is a verb and a way, ``rotate`` and ``to your
left``, so that a model can learn what the words mean; a fifth of the pairs is held out. Every word of a held-out
phrase stands in others that are not, with the same meaning.
"""

from collections.abc import Iterable
from itertools import product
from typing import Literal

Wording = Literal["few", "many", "held_out"]
WORDINGS = ("few", "many", "held_out")
_EVERY = 5  # one phrase of so many is held out, from every so many another one


def _pairs(verbs: Iterable[str], ways: Iterable[str]) -> list[str]:
    return [f"{verb} {way}" for verb, way in product(verbs, ways)]


def _turn(side: str) -> list[str]:
    ways = (side, f"to the {side}", f"to your {side}", f"more to the {side}", f"towards the {side}", f"a bit {side}")
    return _pairs(("turn", "rotate", "look", "face", "swing", "pivot"), ways)


_FORWARD = _pairs(("go", "walk", "move", "keep going", "continue"), ("forward", "ahead", "straight on", "onward"))
_BACK = _pairs(("step", "walk", "move", "go"), ("back", "backwards", "in reverse", "backward"))


def _sideways(side: str) -> list[str]:
    ways = (side, f"to the {side}", f"to your {side}", f"towards the {side}")
    return _pairs(("strafe", "sidestep", "slide", "step sideways"), ways)


def _both(first: Iterable[str], second: Iterable[str]) -> list[str]:
    return [f"{a} {b}" for a, b in product(first, second)]


def _turning(side: str) -> list[str]:
    return [f"{how} {side}" for how in ("and turn", "and look", "while turning", "while rotating", "turning")]


def _other(side: str) -> str:
    return "right" if side == "left" else "left"


def _circle(side: str) -> list[str]:
    sideways = _pairs(("strafe", "sidestep", "slide"), (_other(side),))
    return _both(sideways, _turning(side)) + _pairs(
        ("circle", "go round", "move round"), (f"facing {side}", f"looking {side}")
    )


_PHRASES: dict[str, list[str]] = {
    "stay": _pairs(("stay", "stand", "wait", "remain"), ("still", "here", "in place", "where you are")),
    "go forward": _FORWARD,
    "step back": _BACK,
    "turn left": _turn("left"),
    "turn right": _turn("right"),
    "turn around": _pairs(
        ("turn", "spin", "look", "face"), ("around", "the other way", "the opposite way", "to what is behind")
    ),
    "strafe left": _sideways("left"),
    "strafe right": _sideways("right"),
    "go forward and turn left": _both(_FORWARD[:8], _turning("left")),
    "go forward and turn right": _both(_FORWARD[:8], _turning("right")),
    "step back and turn left": _both(_BACK[:6], _turning("left")),
    "step back and turn right": _both(_BACK[:6], _turning("right")),
    "circle left": _circle("left"),
    "circle right": _circle("right"),
}


def phrases(command: str, wording: Wording) -> tuple[str, ...]:
    """What a command of ``simulators.commands`` is called.

    Args:
        wording: ``many``, its name and four fifths of its phrases, or ``held_out``, the other fifth.

    Raises:
        KeyError: for a command that has no phrases.
    """
    every = _PHRASES[command]
    held_out = tuple(text for n, text in enumerate(every) if n % _EVERY == (-1 - n // _EVERY) % _EVERY)
    if wording == "held_out":
        return tuple(text for text in held_out if text != command)
    return (command, *(text for text in every if text not in (command, *held_out)))
