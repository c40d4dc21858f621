"""An adapter over a base that another process serves: the runs on both sides."""

import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.avid import black_box, coinrun, serve
from tests import tiny
from tests.black_box import boxes
from tests.test_docs_black_box import write_coinrun
from vgen_jax import runs
from vgen_jax.black_box.ask import from_ask
from vgen_jax.black_box.client import Remote
from vgen_jax.config import section
from vgen_jax.files.exports import export, load_export
from vgen_jax.files.log import METRICS_FILE, read_metrics
from vgen_jax.files.run_folder import resolved
from vgen_jax.runs import check_data
from vgen_jax.runs.serve import ServeConfig, make_server
from vgen_jax.tasks.black_box import remote_task
from vgen_jax.types import Condition, VgenError
from vgen_jax.worlds.avid import Base, MethodConfig, base_predictor, diffusion, load_base, world_of


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """The base of the experiment's variant ``tiny`` with random parameters, exported and loaded."""
    config = coinrun.get_config("tiny.base")
    world = world_of({"world": {**config.world.to_dict(), "action_dim": 15}})
    method = section(MethodConfig, config.method.to_dict(), "method")
    params = tiny.random_params(diffusion(method, world).init)
    folder = tmp_path_factory.mktemp("base")
    described = {"method": dataclasses.asdict(method), "world": dataclasses.asdict(world), "base_sha256": ""}
    export(folder, params, described)
    return load_base(folder)


@pytest.fixture(scope="module")
def url(base: Base) -> Iterator[str]:
    settings = section(ServeConfig, {**serve.get_config().serve.to_dict(), "port": 0, "batch": 4}, "serve")
    server = make_server(settings, base)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def over(url: str, folder: Path, **changes: object) -> ConfigDict:
    """The training of the variant ``tiny`` over that service."""
    config = black_box.get_config("tiny")
    config.update_from_flattened_dict({"remote.url": url, "remote.timeout": 60.0, "remote.tries": 2, **changes})
    return resolved(config, folder / "adapter")


@pytest.mark.long
def test_an_adapter_is_trained_over_a_served_base(base: Base, url: str, tmp_path: Path) -> None:
    write_coinrun(tmp_path / "coinrun")
    flags = (f"--config.remote.url={url}", "--config.remote.timeout=60.0", "--config.remote.batch=4")
    done = tiny.run("configs/avid/black_box.py:tiny", tmp_path / "adapter", *flags)
    assert done.returncode == 0, done.stderr
    assert len(read_metrics(tmp_path / "adapter" / METRICS_FILE)) >= 2
    params, raw = load_export(tmp_path / "adapter" / "export")
    assert set(params) == {"network", "head"} and raw["base_sha256"] == ""

    rng = np.random.default_rng(0)
    x, past = (rng.normal(size=(2, n, 16, 16, 3)).astype(np.float32) for n in (8, 2))
    t, condition = np.asarray([3, 150], np.int32), Condition(past_BTHWC=past)
    served = Remote(dataclasses.replace(boxes.remote(0, timeout=60.0, batch=4), url=url))(x, t, condition)
    np.testing.assert_allclose(served, base_predictor(base)(x, t, condition).value, atol=1e-4)


def test_a_base_of_another_kind_is_refused(tmp_path: Path) -> None:
    with boxes.serving(boxes.torch_ask()) as port:
        config = over(f"http://127.0.0.1:{port}", tmp_path, **{"world.kind": "v"})
        with pytest.raises(VgenError, match="predicts x0, world.kind is v"):
            remote_task(config)


def test_only_avid_goes_over_a_black_box(tmp_path: Path) -> None:
    write_coinrun(tmp_path / "coinrun")
    with boxes.serving(boxes.torch_ask()) as port:
        config = over(f"http://127.0.0.1:{port}", tmp_path, **{"method.form": "diffusion"})
        with pytest.raises(VgenError, match="only 'avid'"):
            remote_task(config)


def test_a_failure_within_a_program_ends_a_run_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(x: np.ndarray, t: np.ndarray, condition: Condition) -> np.ndarray:
        raise VgenError("http://base: no answer; see to it")

    def run(config: ConfigDict, workdir: Path) -> None:
        x, t, condition = boxes.question(1)
        jax.block_until_ready(jax.jit(from_ask(broken, "x0"))(x, t, condition))

    monkeypatch.setattr(check_data, "run", run)
    with pytest.raises(VgenError, match="^http://base: no answer; see to it$"):
        runs.start(ConfigDict({"run": "check_data"}), tmp_path)


def test_a_missing_token_is_named(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BOX_TOKEN", raising=False)
    with pytest.raises(VgenError, match="BOX_TOKEN"):
        make_server(ServeConfig("127.0.0.1", 0, "BOX_TOKEN", 4, 1), base)
    with pytest.raises(VgenError, match="serve.port is 70000"):
        ServeConfig("127.0.0.1", 70_000, "", 4, 1)
