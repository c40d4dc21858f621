"""AVID's adapter over a base that is not at hand: an ``Ask``, or the service that ``config.remote`` names.

The base is asked outside of the compiled step (``black_box.training``). Beside the base the config is that of an
adapter over an export (``tasks.adapter``), and so is what the training leaves.
"""

import dataclasses
import functools
from pathlib import Path

from jax.tree_util import Partial
from ml_collections import ConfigDict

from vgen_jax.black_box.answers import CachedAnswers
from vgen_jax.black_box.ask import Ask, answer, from_ask
from vgen_jax.black_box.client import Remote, RemoteConfig
from vgen_jax.black_box.training import answered_task
from vgen_jax.config import section
from vgen_jax.data.records import read_info
from vgen_jax.files.exports import export
from vgen_jax.learning.slow import Task, TrainConfig
from vgen_jax.objectives.adapter import AdapterLoss, adapter
from vgen_jax.tasks.adapter import check_windows, to_model, world_config
from vgen_jax.tasks.inputs import Batches, Finish, batches_config
from vgen_jax.types import Objective, Params, Predictor, VgenError
from vgen_jax.worlds.avid import MethodConfig, avid_adapter
from vgen_jax.worlds.avid_networks import LatentConfig


def remote_task(config: ConfigDict) -> tuple[Task, Finish]:
    """Trains an adapter over the service of ``config.remote``; ``config.keep_dir`` keeps its answers.

    Raises:
        VgenError: what it predicts is not ``world.kind``.
    """
    remote = Remote(section(RemoteConfig, config.remote, "remote"))
    if remote.kind() != config.world.kind:
        raise VgenError(f"{config.remote.url} predicts {remote.kind()}, world.kind is {config.world.kind}: change that")
    ask = CachedAnswers(remote, Path(config.keep_dir), config.remote.url) if config.keep_dir else remote
    return black_box_task(config, ask)


def black_box_task(config: ConfigDict, ask: Ask) -> tuple[Task, Finish]:
    """Trains an adapter over any ``Ask`` that predicts ``world.kind``."""
    data = batches_config(config)
    settings = section(MethodConfig, config.method.to_dict(), "method")
    latent = isinstance(settings.unet, LatentConfig)
    world = world_config(config, read_info(data.data_dir), data.data_dir, latent)
    check_windows(config, world)
    if settings.form != "avid":
        raise VgenError(f"method.form is '{settings.form}': over a black box there is only 'avid'")
    loss = section(AdapterLoss, config.objective.loss, "objective.loss")
    train = section(TrainConfig, config.train, "train")

    def around(base: Predictor) -> Objective:
        over = avid_adapter(settings, world, base)
        return adapter(over.predict, to_model(world), world.past, world.schedule, loss)

    def finish(params: Params, folder: Path) -> None:
        described = {"method": dataclasses.asdict(settings), "world": dataclasses.asdict(world)}
        export(folder, params, {**described, "base_sha256": ""})

    init = avid_adapter(settings, world, from_ask(ask, world.kind)).init
    return answered_task(
        init, Partial(around), Batches(data), functools.partial(answer, ask), world.kind, train
    ), finish
