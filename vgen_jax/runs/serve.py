"""Run ``serve``: a base model behind HTTP, for adapters that are trained elsewhere (``black_box.client``).

Keys:
    base_dir: the export of the base model.
"""

import dataclasses
import os
from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.black_box.ask import ask_jax
from vgen_jax.black_box.server import PredictorServer
from vgen_jax.config import Sections, section
from vgen_jax.files.run_folder import keep_config
from vgen_jax.types import VgenError
from vgen_jax.worlds.avid import Base, base_predictor, load_base


@dataclasses.dataclass(frozen=True)
class ServeConfig:
    """Where and how.

    Attributes:
        host: ``127.0.0.1`` for this machine alone, ``0.0.0.0`` for all that can reach it.
        port: 0 takes a free one, which is printed.
        token_env: the environment variable with the token that requests must carry; empty for none.
        batch: rows of a request at most; every request is computed as a batch of so many.
        max_megabytes: of a request.
    """

    host: str
    port: int
    token_env: str
    batch: int
    max_megabytes: int

    def __post_init__(self) -> None:
        if self.batch < 1 or self.max_megabytes < 1:
            raise VgenError(f"serve.batch is {self.batch}, serve.max_megabytes {self.max_megabytes}: use 1 or more")
        if not 0 <= self.port < 65536:
            raise VgenError(f"serve.port is {self.port}: use 0 to 65535")


def make_server(settings: ServeConfig, base: Base) -> PredictorServer:
    """A server of the base; it listens from now on and answers once it is run.

    Raises:
        VgenError: if the token's variable is not set, or the port is taken.
    """
    if settings.token_env and not os.environ.get(settings.token_env):
        raise VgenError(f"environment variable {settings.token_env} (serve.token_env) is not set: put a token there")
    return PredictorServer(
        (settings.host, settings.port), ask_jax(base_predictor(base)), base.world.kind, settings.batch,
        settings.max_megabytes * 10**6, os.environ[settings.token_env] if settings.token_env else "",
    )  # fmt: skip


SECTIONS: Sections = {"serve": ServeConfig}


def run(config: ConfigDict, workdir: Path) -> None:
    """Serves the base in ``config.base_dir`` until it is interrupted."""
    keep_config(config, workdir)
    settings = section(ServeConfig, config.serve, "serve")
    with make_server(settings, load_base(Path(config.base_dir))) as server:
        print(f"{config.base_dir} answers at http://{settings.host}:{server.server_port}; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("ended", flush=True)
