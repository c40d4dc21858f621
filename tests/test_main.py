"""The command line: what a user may get wrong ends in one line and exit status 2."""

import os
import platform
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from absl import flags

from tests import tiny
from vgen_jax import main, runs
from vgen_jax.types import VgenError

STAGE = f"{tiny.CONFIG}.autoencoder"
Call = Callable[..., tuple[int, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Runs ``main`` with arguments in this process; returns its exit status and what it wrote to stderr."""
    monkeypatch.chdir(tiny.ROOT)
    monkeypatch.setattr(main, "_start", lambda config: None)

    def run(*arguments: str) -> tuple[int, str]:
        flags.FLAGS.unparse_flags()
        for name in [name for name in flags.FLAGS if name.startswith("config.")]:
            delattr(flags.FLAGS, name)  # an override becomes a flag of its own
        for name in ("config", "workdir"):
            flags.FLAGS[name].unparse()
        monkeypatch.setattr(sys, "argv", ["main", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main.main()
        return stopped.value.code or 0, capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((f"--config={STAGE}", "--config.train.stesp=3"), "config key train.stesp is unknown"),
        ((f"--config={STAGE}", "--config.trian.steps=3"), "config key trian.steps is unknown"),
        (
            (f"--config={STAGE}", "--config.train.stesp=3", "--config.mesh.fsdb=1"),
            "keys train.stesp, mesh.fsdb are unknown: did you mean train.steps, mesh.fsdp?",
        ),
        ((f"--config={STAGE}", "--config.train.steps=many"), "config key train.steps does not take --config.train.ste"),
        ((f"--config={STAGE}", "--config.train.steps=2.5"), "--config.train.steps=2.5: use a value of type int"),
        ((f"--config={STAGE}", "--config.train=3"), "config key train does not take --config.train=3: change the keys"),
        (("--config=quickstrat",), "did you mean 'quickstart'?"),
        (("--config=slow/vizdoom:tinny",), "did you mean 'tiny'?"),
        (("--list=run",), "--list=run is unknown"),
        (("--config=configs/slow/vizdoom.py:huge",), "no variant 'huge': use one of tiny"),
        (("--config=configs/slow/vizdoom.py:tiny.fast",), "no stage 'fast': use one of data"),
        (("--config=configs/slow/none.py",), "configs/slow/none.py"),
        (("--config=configs/data/check.py:cpu",), "configs/data/check.py has no variants: leave out ':cpu'"),
        (("--config=configs/quickstart.py:cpu",), "no variant 'cpu': use one of bundled, train"),
        ((), "--config"),
        ((f"--config={STAGE}", "--wrokdir=x"), "'wrokdir'"),
        ((f"--config={STAGE}", "train"), "argument 'train' is not understood"),
        ((f"--config={STAGE}", "--config.run=fly"), "config key run is 'fly': use one of"),
        ((f"--config={STAGE}", "--config.objective.kind=magic"), "objective.kind is 'magic': use one of autoencoder"),
        ((f"--config={STAGE}",), "data/dataset.json is missing"),
        ((f"--config={tiny.CONFIG}.slow",), "latents/dataset.json is missing"),
        ((f"--config={tiny.CONFIG}.check",), "data/dataset.json is missing"),
        ((f"--config={tiny.CONFIG}.evaluate",), "slow/export/config.json is missing"),
        ((f"--config={tiny.CONFIG}.generate",), "slow/export/config.json is missing"),
    ],
)
def test_a_mistake_ends_in_one_line(call: Call, tmp_path: Path, arguments: tuple[str, ...], named: str) -> None:
    status, errors = call(*arguments, f"--workdir={tmp_path / 'run'}")
    assert status == main.USER_FAULT_STATUS
    assert errors.startswith("error: ") and named in errors and errors.count("\n") == 1


def test_the_work_directory_is_asked_for(call: Call) -> None:
    status, errors = call(f"--config={STAGE}")
    assert status == main.USER_FAULT_STATUS and "--workdir" in errors and errors.count("\n") == 1


@pytest.mark.parametrize("arguments", [(), ("--help",), ("--list",), ("--list=runs",)])
def test_help_is_printed_and_nothing_is_run(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["main", *arguments])
    main.main()
    printed = capsys.readouterr()
    assert "compare_results" in printed.out or "slow/vizdoom" in printed.out
    assert printed.err == ""


def test_the_keys_of_a_config_are_printed_from_any_folder(tmp_path: Path) -> None:
    flags = ("--config=slow/vizdoom:tiny.slow", "--help_config", "--config.train.steps=7")
    done = subprocess.run(
        [sys.executable, "-m", "vgen_jax.main", *flags],
        cwd=tmp_path, env={**tiny.environment(1), "PYTHONPATH": str(tiny.ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "\ntrain.steps = 7  int: updates in all.\n" in done.stdout


def test_a_fault_in_a_config_file_keeps_its_traceback(call: Call, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def get_config():\n    return undefined\n")
    with pytest.raises(NameError, match="undefined"):
        call(f"--config={path}", f"--workdir={tmp_path}")


def test_overrides_arrive_resolved(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(runs, "start", lambda config, workdir: started.append((config, workdir)))
    changes = ("--config.train.steps=7", "--config.data.windows=((2,1),)")
    call(f"--config={STAGE}", f"--workdir={tmp_path / 'run'}", *changes)
    ((config, workdir),) = started
    assert workdir == tmp_path / "run"
    assert (config.train.steps, config.data.windows) == (7, ((2, 1),))
    assert config.data.data_dir == str(tmp_path / "data")


def test_a_mistake_found_while_running_is_one_line(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(config: object, workdir: Path) -> None:
        raise VgenError("the cat sits on it: move the cat")

    monkeypatch.setattr(runs, "start", fail)
    status, errors = call(f"--config={STAGE}", f"--workdir={tmp_path}")
    assert (status, errors) == (2, "error: the cat sits on it: move the cat\n")


def test_as_a_program(tmp_path: Path) -> None:
    done = tiny.run(STAGE, tmp_path / "run", "--config.train.stesp=3")
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: config key train.stesp is unknown") and done.stderr.count("\n") == 1


KEPT = """
import resource
import jax, jax.numpy as jnp
from vgen_jax import main
main.keep_memory()
x, kernel = jnp.ones((24_576, 64)), jnp.ones((64, 1024))
step = jax.jit(lambda x: jnp.tanh(jnp.tanh(x @ kernel) @ kernel.T))  # 96 MiB in between
for _ in range(16):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="memory is kept with glibc alone")
def test_a_program_that_keeps_its_memory_does_not_have_it_mapped_again() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run([sys.executable, "-c", KEPT], env=environment, capture_output=True, text=True, check=True)
    assert min(int(line) for line in done.stdout.splitlines()) < 1000  # of 24 thousand pages
