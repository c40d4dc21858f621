"""Run ``evaluate_place``: can a place encoder tell the places of held-out scenes apart, and better than pixels can?

A place is two frames of nearly the same pose. The first ones of a scene are the gallery; each second one is a query and
has to find its own place there. ``retrieval_<code>`` counts hits for queries as they were recorded (they stand and look
a little off), ``retrieval_<code>_degraded`` for queries whose tone, position and sharpness were changed as well, as a
video model changes them. ``pixels`` is the cosine of raw pixels, ``centred`` of pixels minus the gallery's mean.
"""

from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.data.pairs import Pair, PlacesConfig, choose_places
from vgen_jax.data.records import EpisodeSource
from vgen_jax.evaluation.place_encoder import load_place
from vgen_jax.files.exports import digest
from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.metrics.base import Mean
from vgen_jax.metrics.retrieval import cosines, retrieval_hits
from vgen_jax.nn.pixels import from_unit, to_unit
from vgen_jax.objectives.place import Augment, augmented

Code = Callable[[np.ndarray], np.ndarray]


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes ``results.json``."""
    keep_config(config, workdir)
    places = section(PlacesConfig, config.places, "places")
    augment = section(Augment, config.augment, "augment")
    encoder = load_place(Path(config.model_dir))
    source = EpisodeSource(places.data_dir, places.split).open()
    scenes = {scene: pairs for scene, pairs in choose_places(source, places).items() if len(pairs) > 1}
    values: dict[str, list[np.ndarray]] = {}
    for number, pairs in enumerate(scenes.values()):
        gallery, query = (frames_of(source, pairs, which) for which in (0, 1))
        key = jax.random.fold_in(jax.random.key(places.seed), number)
        queries = {"": query, "_degraded": np.asarray(from_unit(augmented(to_unit(query), key, augment)))}
        codes: dict[str, Code] = {encoder.name: encoder.embed, "pixels": flat, "centred": centred(gallery)}
        for name, code in codes.items():
            shown, own = code(gallery), np.eye(len(pairs), dtype=bool)
            for ending, frames in queries.items():
                found = code(frames)
                cosine = cosines(found, shown)
                values.setdefault(f"retrieval_{name}{ending}", []).append(retrieval_hits(found, shown))
                values.setdefault(f"cosine_same_{name}{ending}", []).append(cosine[own])
                values.setdefault(f"cosine_other_{name}{ending}", []).append(cosine[~own])
    results: dict[str, float] = {}
    for name, parts in values.items():
        metric = Mean(name)
        results |= metric.compute(metric.update(metric.init(), values=np.concatenate(parts)))
    contract = {
        "split": places.split,
        "scenes": len(scenes),
        "places_per_scene": [len(pairs) for pairs in scenes.values()],
        "resolution": "x".join(str(n) for n in source.info.frame_shape[:2]),
        "seed": places.seed,
        "model_sha256": digest(Path(config.model_dir)),
    }
    write_results(workdir, {**results, "contract": contract})
    for name in sorted(name for name in values if name.startswith("retrieval")):
        print(f"{name} {results[name]:.3f} ± {results[f'{name}_ci95']:.3f}", flush=True)


def frames_of(source: EpisodeSource, pairs: list[Pair], which: int) -> np.ndarray:
    """The first (0) or second (1) frames of pairs, uint8 (N, H, W, 3)."""
    return np.stack([source.window(p.episode, t := (p.first, p.second)[which], t + 1)[0] for p in pairs])


def flat(frames_NHWC: np.ndarray) -> np.ndarray:
    """Pixels as vectors, in [0, 1]."""
    return frames_NHWC.reshape(len(frames_NHWC), -1) / 255.0


def centred(gallery_NHWC: np.ndarray) -> Code:
    """Pixels as vectors, from the mean of a gallery."""
    mean = flat(gallery_NHWC).mean(axis=0)
    return lambda frames_NHWC: flat(frames_NHWC) - mean
