"""Train AVID's adapter over a base that answers over HTTP (``docs/black_box.md``).

    VGEN_TOKEN=secret python -m vgen_jax.main --config=configs/avid/black_box.py:cpu --workdir=out/black_box \
        --config.remote.url=http://127.0.0.1:8765 --config.remote.token_env=VGEN_TOKEN

The data are in ``out/coinrun`` (``configs/avid/coinrun.py:cpu.coinrun`` records them); the base is wherever
``remote.url`` says, for example ``configs/avid/serve.py``. A service that is away is asked ten times in about two
minutes; then the run ends with its state saved, and the same command goes on.

variant    frames  adapter; more in ``configs/avid/coinrun.py``
paper_71m  64×64   72 M
paper_22m  64×64   22 M
small      64×64   5 M
cpu        32×32   shrunk
tiny       16×16   for tests
"""

from ml_collections import ConfigDict

from configs.avid import coinrun


def get_config(arg: str = "cpu") -> ConfigDict:
    """The training of the adapter of a variant."""
    config = coinrun.get_config(f"{arg}.avid").unlock()
    del config.base_dir
    del config.start_dir
    config.objective.kind = "black_box"
    config.remote = {
        "url": "http://127.0.0.1:8765", "token_env": "", "timeout": 120.0, "tries": 10, "pause": 0.5,
        "longest_pause": 30.0, "batch": 64,
    }  # fmt: skip
    config.keep_dir = ""
    return config.lock()
