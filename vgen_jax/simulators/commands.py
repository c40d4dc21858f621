"""The commands of a first-person walker: turn in degrees (+ left), forward and strafe (+ right) in fractions of a run.

A command lasts one chunk of steps. Its angle is fixed per chunk and its speed per step, so a longer chunk walks
further and turns as much.
"""

from vgen_jax.data.schema import ActionSpace, Command
from vgen_jax.simulators.wording import Wording, phrases

WALK = 0.5  # Doom walks at half of its running speed: 33 map units per step of 4 tics, once under way
SIDESTEP = 0.6
TURN = 30.0  # degrees per chunk

# name: (degrees per chunk, forward, strafe, paraphrases)
_TABLE: dict[str, tuple[float, float, float, tuple[str, ...]]] = {
    "stay": (0, 0, 0, ("stay", "stand still", "do not move", "wait here", "hold your position")),
    "go forward": (0, WALK, 0, ("go forward", "walk ahead", "move straight on", "keep walking forward", "advance")),
    "step back": (0, -WALK, 0, ("step back", "walk backwards", "back up", "move back", "retreat")),
    "turn left": (TURN, 0, 0, ("turn left", "look to the left", "rotate left", "face more to the left")),
    "turn right": (-TURN, 0, 0, ("turn right", "look to the right", "rotate right", "face more to the right")),
    "turn around": (180, 0, 0, ("turn around", "make a half turn", "face the other way", "look behind you")),
    "strafe left": (0, 0, -SIDESTEP, ("strafe left", "sidestep to the left", "slide left", "move sideways left")),
    "strafe right": (0, 0, SIDESTEP, ("strafe right", "sidestep to the right", "slide right", "move sideways right")),
    "go forward and turn left": (
        TURN,
        WALK,
        0,
        ("go forward and turn left", "walk in a curve to the left", "veer left", "bear left while walking"),
    ),
    "go forward and turn right": (
        -TURN,
        WALK,
        0,
        ("go forward and turn right", "walk in a curve to the right", "veer right", "bear right while walking"),
    ),
    "step back and turn left": (
        TURN,
        -WALK,
        0,
        ("step back and turn left", "back up turning left", "walk backwards and look left", "retreat turning left"),
    ),
    "step back and turn right": (
        -TURN,
        -WALK,
        0,
        ("step back and turn right", "back up turning right", "walk backwards and look right", "retreat turning right"),
    ),
    "circle left": (
        TURN,
        0,
        SIDESTEP,
        ("circle left", "strafe right while turning left", "sidestep right, looking left", "orbit facing left"),
    ),
    "circle right": (
        -TURN,
        0,
        -SIDESTEP,
        ("circle right", "strafe left while turning right", "sidestep left, looking right", "orbit facing right"),
    ),
}


def walker_commands(chunk: int, wording: Wording = "few") -> tuple[Command, ...]:
    """The commands with (chunk, 3) actions each; the id is the position.

    Args:
        wording: ``few``, the phrases of the table above, or those of ``simulators.wording``.
    """
    return tuple(
        Command(
            i,
            name,
            texts if wording == "few" else phrases(name, wording),
            ((turn / chunk, forward, strafe),) * chunk,
        )
        for i, (name, (turn, forward, strafe, texts)) in enumerate(_TABLE.items())
    )


def walker_space(chunk: int) -> ActionSpace:
    """Raw units: degrees, fractions of a run. Model units: two ordinary turns, a walk and a sidestep are 1."""
    return ActionSpace("continuous", ("turn", "forward", "strafe"), (2 * TURN / chunk, WALK, SIDESTEP))
