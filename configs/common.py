"""Sections and stages that config families share. Every function returns plain dictionaries, for a ConfigDict.

A path ``@name`` is a sibling of the run's work directory (see ``vgen_jax.files.run_folder``), so that the same stage
works inside a pipeline and alone.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from vgen_jax.config import nearest

Section = dict[str, Any]
Windows = tuple[tuple[int, int], ...]  # (f_p, f_g) of each

MESH = {
    "data": -1, "fsdp": 1, "rules": (), "min_size": 16_384,
    "distributed": False, "coordinator_address": "", "num_processes": 1, "process_id": 0, "cpu_devices": 0,
}  # fmt: skip


def data(
    folder: str,
    split: str,
    windows: Windows,
    weights: tuple[float, ...],
    batch_size: int,
    token_length: int,
    seed: int = 0,
    workers: int = 0,
    action: str = "continuous",
    pose: bool = False,
) -> Section:
    """A data section: windows (f_p, f_g), mixed by ``weights``."""
    return {
        "data_dir": folder, "split": split, "windows": windows, "window_weights": weights, "batch_size": batch_size,
        "token_length": token_length, "seed": seed, "action": action, "shuffle": True, "repeat": True,
        "workers": workers, "with_pose": pose,
    }  # fmt: skip


def optimizer(
    learning_rate: float,
    steps: int,
    warmup: int,
    kind: str = "adam",
    decay: str = "cosine",
    weight_decay: float = 0.0,
    muon_kernels: str = "",
) -> Section:
    """An optimiser section: clip 1, warm-up, then a cosine to a tenth (or a constant rate)."""
    return {
        "kind": kind, "learning_rate": learning_rate, "warmup_steps": warmup, "decay": decay, "decay_steps": steps,
        "b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": weight_decay, "clip": 1.0,
        "muon_kernels": muon_kernels,
    }  # fmt: skip


def train(
    steps: int, checkpoint_every: int, accumulate: int = 1, ema_decay: float = 0.999, log_every: int = 10
) -> Section:
    """A section of the loop."""
    return {
        "steps": steps, "seed": 0, "log_every": log_every, "checkpoint_every": checkpoint_every, "keep": 2,
        "accumulate": accumulate, "ema_decay": ema_decay, "profile_start": 10, "profile_steps": 0,
    }  # fmt: skip


def sampler(steps: int, kind: str = "ddim") -> Section:
    """A sampler section, trailing steps, deterministic."""
    return {"kind": kind, "steps": steps, "eta": 0.0, "spacing": "trailing", "steps_offset": 0, "clip_x0": 0.0}


def collect_stage(
    frames: Mapping[str, int],
    episode_steps: int,
    size: tuple[int, int],
    chunk: int,
    episodes_per_shard: int,
    workers: int,
    simulator: str = "vizdoom",
    seed: int = 0,
) -> Section:
    """Run ``collect``; ``frames`` by split."""
    collect = {
        "simulator": simulator, "episode_steps": episode_steps, "size": size, "chunk": chunk,
        "episodes_per_shard": episodes_per_shard, "seed": seed, "workers": workers,
    }  # fmt: skip
    return {"run": "collect", "collect": collect, "frames": frames}


def paths_stage(
    splits: Mapping[str, tuple[str, int, int]],
    size: tuple[int, int],
    chunk: int,
    workers: int,
    episodes_per_shard: int = 12,
    simulator: str = "vizdoom",
    seed: int = 1_000_000,
    kinds: tuple[str, ...] = ("look", "walk", "loop", "excursions"),
) -> Section:
    """Run ``collect_paths``; ``splits`` maps a name to (scenes of, actions of a path, paths). The seed is its own."""
    collect = {
        "simulator": simulator, "size": size, "chunk": chunk, "episodes_per_shard": episodes_per_shard, "seed": seed,
        "workers": workers,
    }  # fmt: skip
    sections = {
        name: {"scenes": scenes, "steps": steps, "episodes": episodes, "kinds": kinds}
        for name, (scenes, steps, episodes) in splits.items()
    }
    return {"run": "collect_paths", "collect": collect, "splits": sections}


def autoencoder_stage(
    autoencoder: Section,
    windows: Windows,
    batch_size: int,
    steps: int,
    learning_rate: float,
    checkpoint_every: int,
    workers: int = 0,
    cpu_devices: int = 0,
) -> Section:
    """Run ``train`` with the autoencoder objective, on frames in ``@data``."""
    return {
        "run": "train",
        "objective": {"kind": "autoencoder"},
        "autoencoder": autoencoder,
        "data": data("@data", "train", windows, (1.0,), batch_size, 0, seed=1, workers=workers, action="none"),
        "optimizer": optimizer(learning_rate, steps, min(100, steps // 10)),
        "train": train(steps, checkpoint_every),
        "mesh": {**MESH, "cpu_devices": cpu_devices},
    }


def slow_stage(
    slow: Section,
    loss: Section,
    data_section: Section,
    optimizer_section: Section,
    train_section: Section,
    cpu_devices: int = 0,
) -> Section:
    """Run ``train`` with the masked diffusion objective; ``@autoencoder/export`` decodes and, for frames, encodes."""
    return {
        "run": "train",
        "objective": {"kind": "masked_diffusion", "loss": loss},
        "slow": slow,
        "autoencoder_dir": "@autoencoder/export",
        "data": data_section,
        "optimizer": optimizer_section,
        "train": train_section,
        "mesh": {**MESH, "cpu_devices": cpu_devices},
    }


NO_WARP = {"width": 0, "layers": 0, "cells": 0, "patch": 0, "norm_groups": 0}

# How each memory differs from the plainest settings; the last two are the paper's ablations of ``temp_lora``.
MEMORIES = {
    "none": {}, "context": {}, "anchor": {}, "retrieval": {}, "temp_lora": {},
    "temp_lora_original": {"text": "keep", "actions": "keep", "past": "clean"},
    "temp_lora_full": {"clips": "whole"},
}  # fmt: skip


def last_layer(layers_per_block: int = 1) -> Section:
    """What the sweep of ``configs/eval/revisit.py`` found for ``temp_lora`` on VizDoom, where the paper is silent.

    An adapter for the four temporal convolutions of the UNet's last layer alone, learnt at thirty times the paper's
    rate in the beginning and ever more slowly. An update costs a quarter of one everywhere, blurs less, and does not
    run away in 600 frames (docs/results.md).
    """
    targets = f"^up_0_layer_{layers_per_block}/temp_conv"
    return {"lora": {"rank": 32, "alpha": 0.0, "targets": targets}, "learning_rate": 3e-3, "slow_down": 4}


def memory(name: str = "none", context_chunks: int = 2, guidance: float = 1.0, **fast: Any) -> Section:
    """A memory section by a name in ``MEMORIES``; ``fast`` changes keys of its ``temp_lora``."""
    kind = "temp_lora" if name.startswith("temp_lora") else name
    temp_lora = {
        "lora": {"rank": 32, "alpha": 0.0, "targets": "^(?!conv_out$)"}, "steps": 1, "learning_rate": 1e-4,
        "slow_down": 0, "persist_optimizer": True, "text": "empty", "actions": "null", "past": "noised",
        "clips": "last", "t_range": (0.0, 1.0),
    }  # fmt: skip
    return {
        "kind": kind, "load": "", "sampling": "merged", "guidance": guidance,
        "context": {"chunks": context_chunks, "window": 0},
        "temp_lora": {**temp_lora, **MEMORIES[name], **fast},
    }  # fmt: skip


def generate_stage(
    past: int,
    future: int,
    frames: int,
    actions: tuple[str, ...],
    sampler_section: Section,
    guidance: float,
    episodes: tuple[int, ...],
    model_dir: str = "@slow/export",
    memory_section: Section | None = None,
) -> Section:
    """Run ``generate`` from recorded validation frames in ``@data``; without a memory unless one is given."""
    return {
        "run": "generate",
        "model_dir": model_dir,
        "start": {
            "image": "", "data_dir": "@data", "split": "validation", "episodes": episodes, "frame": past - 1,
            "still": False,
        },
        "generate": {
            "past": past, "future": future, "frames": frames, "actions": actions, "actions_from": "",
            "guidance": guidance, "seed": 0,
            "decode_frames": future, "gif": True, "save_every": 8,
        },
        "memory": memory() if memory_section is None else memory_section,
        "sampler": sampler_section,
    }  # fmt: skip


def evaluate_stage(
    windows: Windows,
    count: int,
    batch_size: int,
    token_length: int,
    sampler_section: Section,
    guidance: float,
    model_dir: str = "@slow/export",
) -> Section:
    """Run ``evaluate`` on validation windows in ``@data``; the first of ``windows`` is used."""
    section = data("@data", "validation", windows[:1], (1.0,), batch_size, token_length, pose=True)
    return {
        "run": "evaluate",
        "model_dir": model_dir,
        "data": {**section, "shuffle": False, "repeat": False},
        "evaluate": {"windows": count, "guidance": guidance, "seed": 0},
        "sampler": sampler_section,
    }


def pipeline(title: str, command: str, stages: Mapping[str, Section]) -> ConfigDict:
    """Run ``pipeline`` over named stages, in their order."""
    return ConfigDict(
        {"run": "pipeline", "title": title, "command": command, "order": tuple(stages), "stages": stages},
        convert_dict=True,
    )


def staged(file: str, variant: str, stage: str, title: str, stages: Mapping[str, Section]) -> ConfigDict:
    """All stages of a variant as a pipeline, or the one that is named.

    Raises:
        ValueError: for a stage that the variant does not have.
    """
    if not stage:
        return pipeline(title, f"python -m vgen_jax.main --config={file}:{variant} --workdir=out", stages)
    return ConfigDict(stages[known(f"{file}:{variant}", stage, stages, "stage")], convert_dict=True)


def known(file: str, name: str, names: Iterable[str], what: str = "variant") -> str:
    """``name``, which has to be one of ``names``.

    Raises:
        ValueError: for a variant (or ``what`` it is) that the file does not have, naming those that it has.
    """
    every = tuple(names)
    if name not in every:
        raise ValueError(f"{file} has no {what} '{name}': {nearest(name, every)}use one of {', '.join(every)}")
    return name


# Muon is for hidden layers: the UNet's and the flow network's, not their first, last and embedding layers.
MUON_KERNELS = "^unet/(down|mid|up|transformer_in).*kernel$|^warp/flow_(in|reference|[0-9])/kernel$"


def world_stages(v: Section, recipe: Section) -> dict[str, Section]:
    """Slow learning on a simulator from nothing: record, check, autoencoder, latents, slow model, generate, evaluate.

    Args:
        v: sizes and lengths of a variant.
        recipe: what the variants of a world share: ``simulator``, ``schedule``, ``past_t``, ``loss``, ``commands``.
    """
    past, future = v["windows"][0]
    length = v["text"]["max_length"]
    steps = sampler(v["sampler_steps"])
    source = "@latents" if v["encode"] else "@data"
    out: dict[str, Section] = {
        "data": collect_stage(
            v["frames"], v["episode_steps"], v["size"], v["chunk"], v["shard"], workers=2,
            simulator=recipe["simulator"],
        ),
        "check": {"run": "check_data", "data_dir": "@data"},
        "autoencoder": autoencoder_stage(
            v["autoencoder"], ((1, 1),), v["autoencoder_batch"], v["autoencoder_steps"], v["autoencoder_rate"],
            checkpoint_every=max(10, v["autoencoder_steps"] // 4), cpu_devices=v["cpu_devices"],
        ),
        "latents": {
            "run": "encode", "data_dir": "@data", "autoencoder_dir": "@autoencoder/export", "batch_frames": 64,
        },
        "slow": slow_stage(
            {
                "unet": v["unet"], "text": v["text"], "schedule": recipe["schedule"],
                "masking": {"past_t": recipe["past_t"], "augment_past": v["augment_past"], "reference": True},
                "warp": v["warp"],
            },
            recipe["loss"],
            data(source, "train", v["windows"], v["weights"], v["batch"], length),
            optimizer(
                v["rate"], v["steps"], v["warmup"], v["optimizer"], v["decay"],
                muon_kernels=MUON_KERNELS,
            ),
            train(v["steps"], v["checkpoint_every"], ema_decay=v["ema"]), v["cpu_devices"],
        ),
        "generate": generate_stage(
            past, future, v["generate"], recipe["commands"], steps, v["guidance"], v["episodes"],
            memory_section=memory("none", **last_layer(v["unet"]["layers_per_block"])),
        ),
        "evaluate": evaluate_stage(v["windows"], v["evaluate"], v["evaluate_batch"], length, steps, v["guidance"]),
    }  # fmt: skip
    if not v["encode"]:
        del out["latents"]
    return out
