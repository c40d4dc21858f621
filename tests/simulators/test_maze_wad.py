"""The WAD of a maze: a directory that leads back to its lumps, and a map without a leak."""

import dataclasses
import io
import re
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vgen_jax.simulators.maze import PATTERNED, PLAIN
from vgen_jax.simulators.maze_layout import COLORS, FLOORS, PATTERNS, WALL, Layout, make_layout
from vgen_jax.simulators.maze_wad import (
    CELL,
    HEIGHT,
    WALL_RGB,
    floor_texture,
    spots,
    textmap,
    wall_name,
    wall_texture,
    write_wad,
)

LAYOUTS = {f"M{seed:07d}": make_layout(PATTERNED, seed) for seed in range(3)}
LANDMARKS = dataclasses.replace(PLAIN, landmarks=4)


def lumps_of(data: bytes) -> list[tuple[str, bytes]]:
    """Name and content of every lump, by the directory."""
    kind, count, where = struct.unpack_from("<4sii", data)
    assert kind == b"PWAD"
    rows = [struct.unpack_from("<ii8s", data, where + 16 * n) for n in range(count)]
    assert where + 16 * count == len(data), "the directory ends the file"
    return [(name.rstrip(b"\0").decode(), data[at : at + size]) for at, size, name in rows]


def blocks(text: str, kind: str) -> list[dict[str, str]]:
    """The blocks of a kind in a TEXTMAP, each as its keys."""
    return [
        dict(pair.split("=", 1) for pair in body.split(";") if pair)
        for found, body in re.findall(r"(\w+)\{([^}]*)\}", text)
        if found == kind
    ]


def test_the_directory_leads_back_to_the_lumps(tmp_path: Path) -> None:
    write_wad(tmp_path / "a.wad", LAYOUTS, floor_lines=True)
    lumps = lumps_of((tmp_path / "a.wad").read_bytes())
    names = [name for name, _ in lumps]
    assert all(0 < len(name) <= 8 for name in names)
    for number, (name, layout) in enumerate(LAYOUTS.items()):
        assert names[3 * number : 3 * number + 3] == [name, "TEXTMAP", "ENDMAP"]
        assert lumps[3 * number + 1][1].decode() == textmap(layout)
    inside = lumps[names.index("TX_START") + 1 : names.index("TX_END")]
    assert len(inside) == COLORS * (PATTERNS + 1) + FLOORS + 1 == len({name for name, _ in inside})
    used = {name for layout in LAYOUTS.values() for name in re.findall(r'texture\w+="(\w+)"', textmap(layout))}
    assert used <= {name for name, _ in inside}, "every texture of a map is in the file"
    for name, data in inside:
        size = Image.open(io.BytesIO(data)).size
        assert size == {"W": (CELL, HEIGHT), "F": (CELL, CELL), "C": (64, 64)}[name[0]]


def test_the_same_mazes_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_wad(tmp_path / name, LAYOUTS, floor_lines=False)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def edges(layout: Layout) -> tuple[Counter, Counter]:
    """(open cell, wall cell) and (open cell, open cell) of every edge, each as often as it is there."""
    walls: Counter = Counter()
    between: Counter = Counter()
    for y, x in layout.open_N2.tolist():
        for other in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if layout.room_YX[other] == WALL:
                walls[(y, x), other] += 1
            elif other > (y, x):
                between[frozenset([(y, x), other])] += 1
    return walls, between


@pytest.mark.parametrize("config", [PLAIN, PATTERNED], ids=["plain", "patterned"])
def test_every_edge_has_its_line(config: object) -> None:
    """A wall has one one-sided line whose front is the open cell; two open cells have one two-sided line."""
    for seed in range(4):
        layout = make_layout(config, seed)  # type: ignore[arg-type]
        text = textmap(layout)
        vertices = [(int(v["x"]), int(v["y"])) for v in blocks(text, "vertex")]
        sides = blocks(text, "sidedef")
        cells = [tuple(cell) for cell in layout.open_N2.tolist()]
        assert len(blocks(text, "sector")) == len(cells)
        walls: Counter = Counter()
        between: Counter = Counter()
        for line in blocks(text, "linedef"):
            (ax, ay), (bx, by) = (vertices[int(line[end])] for end in ("v1", "v2"))
            assert abs(ax - bx) + abs(ay - by) == CELL
            middle = np.array([ax + bx, ay + by]) / 2
            rightwards = np.array([by - ay, ax - bx]) / 2  # of the way from v1 to v2, where the front side is
            front, back = (tuple(np.floor((middle + s * rightwards) / CELL).astype(int)[::-1]) for s in (1, -1))
            side = sides[int(line["sidefront"])]
            assert cells[int(side["sector"])] == front
            if "sideback" in line:
                other = sides[int(line["sideback"])]
                assert cells[int(other["sector"])] == back and line["twosided"] == "true"
                assert "texturemiddle" not in side and "texturemiddle" not in other
                between[frozenset([front, back])] += 1
            else:
                room, axis = layout.room_YX[front], int(ax != bx)
                name = wall_name(layout.color_R2[room, axis], layout.pattern_R2[room, axis])
                assert side["texturemiddle"] == f'"{name}"' and line["blocking"] == "true"
                walls[front, back] += 1
        assert (walls, between) == edges(layout)


def test_spots_are_centres_of_open_cells_and_things_stand_on_them() -> None:
    for seed in range(4):
        layout = make_layout(LANDMARKS, seed)
        places = spots(layout)
        assert len(places) == len(layout.open_N2)
        assert (layout.room_YX[tuple((places // CELL)[:, ::-1].T)] != WALL).all()
        assert (places % CELL == CELL // 2).all()
        things = [(int(thing["x"]), int(thing["y"])) for thing in blocks(textmap(layout), "thing")]
        assert len(things) == 1 + min(4, len(layout.color_R2)) and set(things) <= set(map(tuple, places.tolist()))


def test_textures_have_two_shades_of_their_colour_and_differ() -> None:
    for color in range(COLORS):
        images = [np.asarray(wall_texture(color, pattern)) for pattern in range(PATTERNS + 1)]
        assert len({image.tobytes() for image in images}) == PATTERNS + 1
        kinds = [{tuple(rgb) for rgb in image.reshape(-1, 3).tolist()} for image in images]
        assert kinds[PATTERNS] == {WALL_RGB[color]} and all(len(kind) == 2 for kind in kinds[:PATTERNS])
        assert len(set.union(*kinds)) == 2, "the second shade is the colour's, not the pattern's"
    assert len(np.unique(np.asarray(floor_texture(0, lines=False)).reshape(-1, 3), axis=0)) == 1
    assert len(np.unique(np.asarray(floor_texture(0, lines=True)).reshape(-1, 3), axis=0)) == 2
