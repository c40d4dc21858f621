"""The wheel: all of the package and its configs in it, nothing beside it, and it runs a config by name anywhere."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests import tiny

SOURCES = ("vgen_jax", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since a build leaves files behind that the next one would take in; without a network."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        path = tiny.ROOT / name
        copy = shutil.copytree if path.is_dir() else shutil.copyfile
        copy(path, source / name)
    pip = (sys.executable, "-m", "pip", "wheel", ".", "--no-deps", "--no-build-isolation", "--no-index")
    done = subprocess.run([*pip, "--wheel-dir", str(out)], cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (found,) = out.glob("*.whl")
    return found


def files(folder: str) -> set[str]:
    """What a folder of the repository holds, relative to it."""
    root = tiny.ROOT / folder
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.as_posix() for path in found}


def test_the_wheel_holds_all_of_the_package_and_nothing_beside_it(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert {name.partition("/")[0] for name in names} == {"vgen_jax"}
    inside = {name.removeprefix("vgen_jax/") for name in names}
    assert inside == files("vgen_jax") | {f"configs/{name}" for name in files("configs")}
    assert {"files/templates/report.html", "assets/vizdoom/slow/model.safetensors"} <= inside


@pytest.mark.long
def test_the_installed_wheel_runs_a_config_by_name_from_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    venv.create(tmp_path / "venv", symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index")
    done = subprocess.run([*pip, str(wheel)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    # What it depends on is that of these tests; an editable install of the package there is not seen from here.
    (site,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    empty = tmp_path / "empty"
    empty.mkdir()

    def run(*flags: str) -> subprocess.CompletedProcess[str]:
        command = [str(python), "-m", "vgen_jax.main", *flags]
        return subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True)

    assert "slow/vizdoom  " in run("--list").stdout
    quick = ("--config.steps=(1,)", "--config.benchmark.chunks=1", "--config.benchmark.warm_up=1")
    for config, flags in (("bench/memory:tiny", ()), ("bench/latency", quick), ("configs/bench/memory.py:tiny", ())):
        workdir = f"out/{len(list(empty.glob('out/*')))}"
        done = run(f"--config={config}", f"--workdir={workdir}", *flags)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (empty / workdir / "results.json").is_file()
