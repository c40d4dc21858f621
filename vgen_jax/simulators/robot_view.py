"""What a small robot sees: a hall with boxes and walking figures, drawn column by column; no assets, NumPy alone.

Walls and boxes carry stripes and the floor is a chequerboard, so that any movement of the camera moves something.
Lengths are metres, angles radians, counter-clockwise; x is to the right of y as on paper.
"""

from typing import NamedTuple

import numpy as np

CAMERA, WALL_HEIGHT, FIGURE_HEIGHT, FIGURE_RADIUS = 0.10, 0.32, 0.26, 0.045
FIELD_OF_VIEW = 70.0  # degrees
_SUPERSAMPLED = 2  # drawn pixels per pixel, on each side
_STRIPE, _TILE, _FAR = 0.12, 0.2, 1.6  # metres
_CEILING = np.array([206, 214, 222], np.float32)


class Hall(NamedTuple):
    """What stands still.

    Attributes:
        side: of the square hall, from 0 to it on both axes.
        box_N4: x0, y0, x1, y1 of each box.
        color_S3: of each wall: the hall's four, then every box's four; in [0, 255].
        floor_23: the two colours of the floor.
    """

    side: float
    box_N4: np.ndarray
    color_S3: np.ndarray
    floor_23: np.ndarray


class Figures(NamedTuple):
    """Who walks: from one end of a track to the other and back.

    Attributes:
        ends_K22: both ends of each track.
        speed_K: m/s.
        phase_K: where each is at the beginning, in [0, 2) tracks.
        color_K23: upper and lower half.
    """

    ends_K22: np.ndarray
    speed_K: np.ndarray
    phase_K: np.ndarray
    color_K23: np.ndarray

    def places(self, seconds: float) -> np.ndarray:
        """Where they are, (K, 2)."""
        length_K = np.linalg.norm(self.ends_K22[:, 1] - self.ends_K22[:, 0], axis=-1)
        way_K = (self.phase_K + seconds * self.speed_K / np.maximum(length_K, 1e-6)) % 2.0
        share_K = np.minimum(way_K, 2.0 - way_K)[:, None]
        return self.ends_K22[:, 0] + share_K * (self.ends_K22[:, 1] - self.ends_K22[:, 0])


def segments(hall: Hall) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The walls as (axis that is constant (S,), its value (S,), range on the other axis (S, 2))."""
    rectangles = np.concatenate([[[0.0, 0.0, hall.side, hall.side]], hall.box_N4.reshape(-1, 4)])
    axis, value, reach = [], [], []
    for x0, y0, x1, y1 in rectangles:
        axis += [0, 0, 1, 1]
        value += [x0, x1, y0, y1]
        reach += [(y0, y1), (y0, y1), (x0, x1), (x0, x1)]
    return np.asarray(axis), np.asarray(value), np.asarray(reach)


def distances(hall: Hall, place_2: np.ndarray, ray_R2: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of each ray: how many times its length it goes until the first wall, which one, and where along that."""
    axis_S, value_S, reach_S2 = segments(hall)
    across_RS = ray_R2[:, axis_S]
    with np.errstate(divide="ignore", invalid="ignore"):
        far_RS = (value_S - place_2[axis_S]) / across_RS
        along_RS = place_2[1 - axis_S] + far_RS * ray_R2[:, 1 - axis_S]
    hit_RS = (far_RS > 1e-6) & (along_RS >= reach_S2[:, 0]) & (along_RS <= reach_S2[:, 1])
    far_RS = np.where(hit_RS, far_RS, np.inf)
    nearest_R = far_RS.argmin(1)
    rows = np.arange(len(ray_R2))
    return far_RS[rows, nearest_R], nearest_R, along_RS[rows, nearest_R]


def draw(
    hall: Hall, figures: Figures, place_2: np.ndarray, heading: float, seconds: float, size: tuple[int, int]
) -> np.ndarray:
    """The view, uint8 (height, width, 3)."""
    height, width = size[0] * _SUPERSAMPLED, size[1] * _SUPERSAMPLED
    forward = np.array([np.cos(heading), np.sin(heading)])
    right = np.array([forward[1], -forward[0]])
    focal = width / 2 / np.tan(np.radians(FIELD_OF_VIEW) / 2)
    across_W = (np.arange(width) + 0.5 - width / 2) / focal
    ray_W2 = forward + across_W[:, None] * right
    depth_W, wall_W, along_W = distances(hall, place_2, ray_W2)
    below_H = (np.arange(height) + 0.5 - height / 2) / focal
    image = np.broadcast_to(_CEILING, (height, width, 3)).copy()
    floor_H = below_H > 0
    ground_HW2 = place_2 + (CAMERA / below_H[floor_H])[:, None, None] * ray_W2
    tile_HW = np.floor(ground_HW2 / _TILE).astype(int).sum(-1) % 2
    image[floor_H] = hall.floor_23[tile_HW]
    stripe_W = 0.72 + 0.28 * (np.floor(along_W / _STRIPE).astype(int) % 2)
    shade_W = stripe_W * np.clip(1.0 - 0.5 * depth_W / _FAR, 0.35, 1.0)
    color_W3 = hall.color_S3[wall_W] * shade_W[:, None]
    on_HW = (below_H[:, None] < CAMERA / depth_W) & (below_H[:, None] > -(WALL_HEIGHT - CAMERA) / depth_W)
    image = np.where(on_HW[..., None], color_W3, image)
    offset_K2 = figures.places(seconds) - place_2
    ahead_K, aside_K = offset_K2 @ forward, offset_K2 @ right
    for k in np.argsort(-ahead_K):
        if ahead_K[k] < FIGURE_RADIUS:
            continue
        columns_W = (np.abs(across_W * ahead_K[k] - aside_K[k]) < FIGURE_RADIUS) & (ahead_K[k] < depth_W)
        top, middle, bottom = (CAMERA - part * FIGURE_HEIGHT for part in (1.0, 0.5, 0.0))
        for upper, lower, color in ((top, middle, 0), (middle, bottom, 1)):
            rows_H = (below_H > upper / ahead_K[k]) & (below_H < lower / ahead_K[k])
            image[np.ix_(rows_H, columns_W)] = figures.color_K23[k, color]
    split = image.reshape(size[0], _SUPERSAMPLED, size[1], _SUPERSAMPLED, 3)
    return np.round(split.mean((1, 3))).clip(0, 255).astype(np.uint8)


def make_hall(rng: np.random.Generator, side: float, boxes: int) -> Hall:
    """A hall with boxes, none of them in the middle third where robots start."""
    found: list[list[float]] = []
    while len(found) < boxes:
        size = rng.uniform(0.12, 0.3, 2)
        x, y = rng.uniform(0.0, side - size)
        centre = np.array([x, y]) + size / 2
        if np.abs(centre - side / 2).max() > side / 6 + size.max() / 2:
            found.append([x, y, x + size[0], y + size[1]])
    return Hall(
        side,
        np.asarray(found, np.float64).reshape(-1, 4),
        rng.uniform(40, 255, (4 + 4 * boxes, 3)).astype(np.float32),
        rng.uniform(60, 230, (2, 3)).astype(np.float32),
    )


def make_figures(rng: np.random.Generator, side: float, count: int) -> Figures:
    """Figures on tracks across the hall."""
    return Figures(
        rng.uniform(0.08, side - 0.08, (count, 2, 2)),
        rng.uniform(0.08, 0.25, count),
        rng.uniform(0.0, 2.0, count),
        rng.uniform(0, 255, (count, 2, 3)).astype(np.float32),
    )
