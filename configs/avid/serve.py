"""Serve a base model of AVID's experiment over HTTP, so that adapters can be trained without its weights.

    VGEN_TOKEN=secret python -m vgen_jax.main --config=configs/avid/serve.py --config.base_dir=out/base/export \
        --config.serve.token_env=VGEN_TOKEN --workdir=out/serve

The machine that computes the base's predictions; ``configs/avid/black_box.py`` is the other side. ``host`` 127.0.0.1
keeps it to this machine. Nothing is encrypted: between machines, put it behind a tunnel or a proxy.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The run."""
    return ConfigDict(
        {
            "run": "serve",
            "base_dir": "@base/export",
            "serve": {"host": "127.0.0.1", "port": 8765, "token_env": "", "batch": 64, "max_megabytes": 256},
        }
    )
