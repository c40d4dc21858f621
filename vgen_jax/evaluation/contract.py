"""What two evaluations must have in common to be comparable, and where their numbers come from."""

import importlib.metadata
import subprocess
from pathlib import Path

import jax

from vgen_jax.evaluation.clips import Clips
from vgen_jax.evaluation.scoring import RATIO, SCUTS, WALLS, ScoreConfig, is_distance, is_return
from vgen_jax.metrics.features import FeatureNet


def contract(real: Clips, generated: Clips, settings: ScoreConfig, nets: dict[str, FeatureNet]) -> dict[str, str]:
    """What a result has to have in common with another one to be comparable, and where it comes from."""
    frames, height, width = real.shape[:3]
    agreed = {
        "frames": str(frames),
        "context_frames_left_out": str(real.cut.skip),
        "resolution": f"{width}x{height}",
        "value_range": "uint8, [0, 255]",
        "real_sha256": real.digest(),
        "real_count": str(len(real)),
        "real_files": real.suffixes(),
        "generated_count": str(len(generated)),
        "generated_files": generated.suffixes(),
        "paired": str(settings.paired),
        "generated": str(generated.folder),
        "generated_sha256": generated.digest(),
        "commit": commit(),
        "device": jax.devices()[0].device_kind,
    }
    if any(is_distance(name) for name in settings.metrics):
        agreed["covariance"] = "unbiased, N - 1"
    if SCUTS in settings.metrics:
        agreed["scuts.detector"] = f"AdaptiveDetector, PySceneDetect {importlib.metadata.version('scenedetect')}"
    if any(name.startswith(RATIO) for name in settings.metrics):
        agreed["actions_sha256"] = real.digest_beside("actions")
    if any(is_return(name) for name in settings.metrics):
        agreed["visits_sha256"] = real.digest_beside("visits")
    if WALLS in settings.metrics:
        agreed["walls_sha256"] = real.digest_beside("walls")
    for name, net in nets.items():
        agreed |= {f"{name}.{key}": value for key, value in net.contract.items()}
    return agreed


def commit() -> str:
    """The commit of a checkout, with '+' if it was changed since; of an installation, its version."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return f"vgen_jax {importlib.metadata.version('vgen_jax')}"
    return head + ("+" if changed.strip() else "")
