"""Run ``play``: a page on which a trained world is driven by keys, with its memory switched on and off.

It prints an address, which a browser on this machine opens; ``docs/play.md`` says what the page does.

Keys:
    model_dir: a slow model: an export, or ``asset:…``.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.diffusion.samplers import Sampler
from vgen_jax.files.run_folder import keep_config
from vgen_jax.play.openings import SimulatorConfig
from vgen_jax.play.program import PlayConfig, Player, serve
from vgen_jax.play.requests import ChoicesConfig
from vgen_jax.worlds.memories import MemoryConfig
from vgen_jax.worlds.start import StartConfig

SECTIONS: Sections = {
    "play": PlayConfig,
    "choices": ChoicesConfig,
    "start": StartConfig,
    "simulator": SimulatorConfig,
    "memory": MemoryConfig,
    "sampler": Sampler,
}

CHANGEABLE = ("model_dir", *(f"{name}." for name in SECTIONS))  # the folder keeps nothing that depends on them


def player_of(config: ConfigDict) -> Player:
    """What a config says is played."""
    return Player(
        config.model_dir,
        section(PlayConfig, config.play, "play"),
        section(ChoicesConfig, config.choices, "choices"),
        section(StartConfig, config.start, "start"),
        section(SimulatorConfig, config.simulator.to_dict(), "simulator"),
        section(MemoryConfig, config.memory.to_dict(), "memory"),
        section(Sampler, config.sampler, "sampler"),
    )


def run(config: ConfigDict, workdir: Path) -> None:
    """Serves the page until it is interrupted; leaves ``recordings/`` and ``token``."""
    keep_config(config, workdir, CHANGEABLE)
    serve(player_of(config), workdir)
