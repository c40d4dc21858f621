"""AVID's normalised score (appendix 9.4, equations 7 and 8): one number of several metrics, between the worst (0) and
the best (1) of the models compared.

    higher is better:  (value - min) / (max - min)
    lower is better:   1 - (value - min) / (max - min)

and the mean of these over the metrics. Outside the bounds a value is below 0 or above 1, and is left so.
"""

from collections.abc import Mapping

from vgen_jax.types import VgenError

HIGHER_IS_BETTER = {
    "action_error_ratio": False, "fvd": False, "fid": False, "ssim": True, "lpips": False, "psnr": True,
}  # fmt: skip
# (min, max) of tables 10 and 11. They belong to AVID's networks, data, frames and protocol.
BOUNDS: dict[str, dict[str, tuple[float, float]]] = {
    "rt1": {
        "action_error_ratio": (1.384, 2.640), "fvd": (24.9, 80.4), "fid": (3.375, 5.329), "ssim": (0.767, 0.842),
        "lpips": (0.142, 0.226), "psnr": (22.9, 25.3),
    },
    "coinrun": {
        "action_error_ratio": (1.154, 1.574), "fvd": (14.5, 65.6), "fid": (6.44, 11.82), "ssim": (0.487, 0.760),
        "lpips": (0.120, 0.365), "psnr": (17.2, 25.7),
    },
}  # fmt: skip


def normalised_score(values: Mapping[str, float], bounds: Mapping[str, tuple[float, float]]) -> float:
    """The mean over ``bounds``' metrics of their normalised values.

    Args:
        values: by metric, keys of ``HIGHER_IS_BETTER``.
        bounds: (min, max) by metric; where they are equal all models are alike, and count as best.

    Raises:
        VgenError: a metric of ``bounds`` has no value, or there are no bounds.
    """
    missing = sorted(set(bounds) - set(values))
    if missing or not bounds:
        lacking = ", ".join(missing) or "every metric"
        raise VgenError(f"the normalised score lacks {lacking}: evaluate with {', '.join(HIGHER_IS_BETTER)}")
    parts = []
    for name, (low, high) in bounds.items():
        place = (values[name] - low) / (high - low) if high > low else float(HIGHER_IS_BETTER[name])
        parts.append(place if HIGHER_IS_BETTER[name] else 1.0 - place)
    return sum(parts) / len(parts)
