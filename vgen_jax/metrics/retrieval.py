"""Retrieval: does a code find the place of a frame among the other places of its scene?"""

import numpy as np

from vgen_jax.types import VgenError


def retrieval_hits(query_ND: np.ndarray, gallery_ND: np.ndarray) -> np.ndarray:
    """For each query, whether its own row of the gallery has the largest cosine with it: bool (N,).

    Args:
        query_ND: any vectors but zero.
        gallery_ND: row n belongs to query n.

    Raises:
        VgenError: shapes that differ, or fewer than two places.
    """
    if query_ND.shape != gallery_ND.shape or query_ND.ndim != 2 or len(query_ND) < 2:
        raise VgenError(f"retrieval: needs two sets of two or more codes, got {query_ND.shape} and {gallery_ND.shape}")
    return cosines(query_ND, gallery_ND).argmax(axis=1) == np.arange(len(query_ND))


def cosines(a_ND: np.ndarray, b_MD: np.ndarray) -> np.ndarray:
    """(N, M) float64 cosines of the angles between two sets of vectors."""
    a, b = (np.asarray(x, np.float64) for x in (a_ND, b_MD))
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T
