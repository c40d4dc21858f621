"""Settings that the whole suite shares. They must be in the environment before anything imports JAX."""

import importlib.metadata
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("VGEN_TEST_CACHE", Path(tempfile.gettempdir()) / f"vgen_jax-tests-{os.getuid()}"))

# Of the tests in a browser.
CHROMIUM = os.environ.get("VGEN_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")

# The environment rather than jax.config, so that programs which a test starts inherit all of it. Nothing is evicted
# from the cache: eviction would make the workers of pytest-xdist wait for one lock; without it a half-written entry
# costs its reader one compilation and no more.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
# Compiling is nearly all that the tests do. Of several devices the last number given counts.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
QUICK = "--xla_cpu_parallel_codegen_split_count=1"
if importlib.metadata.version("jaxlib").startswith("0.10."):  # 0.11 does not know it, and XLA ends over such a flag
    QUICK += " --xla_cpu_use_fusion_emitters=false"
EIGHT = "--xla_force_host_platform_device_count=8"
os.environ["XLA_FLAGS"] = " ".join((EIGHT, os.environ.get("XLA_FLAGS", ""), QUICK)).strip()

import jax  # noqa: E402  (after the environment is set)

from tests import axes  # noqa: E402


def pytest_configure(config: pytest.Config) -> None:
    """Workers take files in the order of the collection, which is ours, and not by their number of tests."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, so that no worker is left with one at the end.

    Skip what this machine cannot run, and say what would make it run.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)
    reasons = {}
    if importlib.util.find_spec("vizdoom") is None:
        reasons["simulator"] = "vizdoom is not installed: pip install -e '.[sim]'"
    if importlib.util.find_spec("playwright") is None or not CHROMIUM:
        reasons["browser"] = "no browser: pip install -e '.[browser]' and apt-get install chromium"
    if os.environ["JAX_PLATFORMS"] == "cpu":
        reasons["accelerator"] = "runs on a GPU or a TPU only: JAX_PLATFORMS=cuda pytest -m accelerator"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker) is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def rng() -> jax.Array:
    """A JAX random key, the same in every test and every worker."""
    return jax.random.key(0)


# Modules whose public functions and methods are seams, with axes in the names of what they are given.
SEAMS = (
    *(f"vgen_jax.diffusion.{name}" for name in ("masking", "prediction", "samplers", "schedules")),
    *(f"vgen_jax.memory.{name}" for name in ("anchor", "context", "none", "retrieval", "temp_lora")),
    "vgen_jax.compose.guidance", "vgen_jax.worlds.rollout",
)  # fmt: skip


@pytest.fixture(scope="module")
def checked_axes() -> Iterator[None]:
    """Arrays have the axes that their names say, in every call of a seam; see ``tests.axes``."""
    with axes.checking(*SEAMS):
        yield
