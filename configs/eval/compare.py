"""Several evaluations in one table, in Markdown and HTML, with 95 % bootstrap intervals over videos.

    python -m vgen_jax.main --config=configs/eval/compare.py --config.compare.results="('out/a','out/b')" \
      --workdir=out/compared

Each folder is the work directory of a finished evaluation. Results whose contracts differ (backbone and its weights,
frames, resolution, real videos, counts, …) are refused, and the entry that differs is named. A core and a few seconds;
with FVD a minute for each result. ``--config.compare.normalise=compared`` adds AVID's normalised score.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The run; ``results`` are given on the command line."""
    compare = {"results": (), "names": (), "draws": 1000, "seed": 0, "normalise": ""}
    return ConfigDict({"run": "compare_results", "compare": compare})
