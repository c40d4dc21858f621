"""Settings that the whole suite shares. They must be in the environment before anything imports JAX."""

import importlib.util
import os
import tempfile
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("VGEN_TEST_CACHE", Path(tempfile.gettempdir()) / f"vgen_jax-tests-{os.getuid()}"))

# The environment rather than jax.config, so that programs which a test starts inherit all of it. Nothing is evicted
# from the cache: eviction would make the workers of pytest-xdist wait for one lock; without it a half-written entry
# costs its reader one compilation and no more.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()

import jax  # noqa: E402  (after the environment is set)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, and say what would make it run."""
    reasons = {}
    if importlib.util.find_spec("vizdoom") is None:
        reasons["simulator"] = "vizdoom is not installed: pip install -e '.[sim]'"
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
