"""Mazes as a WAD that ViZDoom's engine loads: one UDMF map each, and the textures as PNG lumps.

The container is a header, the lumps, and a directory of (offset, size, name). A map is a marker, its ``TEXTMAP``
(namespace "zdoom") and ``ENDMAP``; the engine builds the nodes itself. A texture is an image between ``TX_START`` and
``TX_END`` that has one pattern for each cell.
"""

import io
import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vgen_jax.simulators.maze_layout import COLORS, FLOORS, PATTERNS, WALL, Layout

CELL, HEIGHT = 192, 128  # map units
LIGHT = 255
PLAIN = PATTERNS  # the texture without a pattern
# Twelve of the 256 colours that the engine's palette has, so that a wall is rendered as it is listed here.
WALL_RGB = (
    (203, 0, 0), (55, 55, 255), (55, 115, 43), (255, 231, 75), (135, 67, 7), (255, 127, 27),
    (171, 171, 255), (255, 255, 255), (91, 91, 91), (255, 183, 183), (0, 0, 83), (103, 223, 95),
)  # fmt: skip
# What the engine's palette makes of each one's other shade. Two are other colours' first shades.
SHADE_RGB = (
    (219, 123, 123), (0, 0, 131), (159, 159, 159), (127, 83, 47), (175, 151, 127), (135, 67, 7),
    (99, 99, 99), (127, 127, 127), (39, 39, 39), (123, 99, 79), (131, 131, 131), (55, 115, 43),
)  # fmt: skip
FLOOR_RGB = ((90, 80, 70), (70, 90, 70), (70, 75, 100), (110, 100, 90), (60, 60, 60), (120, 110, 70))
CEILING_RGB = (150, 170, 190)
# Barrel, lamp, pillars, column, candelabra, eye, tree: solid, so that nobody picks one up or walks through it.
LANDMARKS = (2035, 2028, 30, 33, 48, 35, 41, 54)
_START = 1
_SKILLS = "".join(f"skill{n}=true;" for n in range(1, 6))
# (neighbour's row and column, the corners of the edge such that its right side is this cell, axis of the pair of walls)
_EDGES = (
    (-1, 0, (1, 0), (0, 0), 1),
    (1, 0, (0, 1), (1, 1), 1),
    (0, -1, (0, 0), (0, 1), 0),
    (0, 1, (1, 1), (1, 0), 0),
)


def wall_texture(color: int, pattern: int) -> Image.Image:
    """One cell of a wall, 192×128: plain, or a frame, stripes either way, a checker or a disc in two shades."""
    rgb = WALL_RGB[color]
    image = Image.new("RGB", (64, 64), rgb)
    draw = ImageDraw.Draw(image)
    # Dark colours get a lighter second shade, light ones a darker one.
    lighter = sum(rgb) < 260
    shade = tuple(int(c + 0.45 * (255 - c)) if lighter else int(0.5 * c) for c in rgb)
    if pattern == 0:
        draw.rectangle((0, 0, 63, 63), outline=shade, width=8)
    elif pattern == 1:
        for y in range(0, 64, 32):
            draw.rectangle((0, y, 63, y + 15), fill=shade)
    elif pattern == 2:
        draw.rectangle((16, 0, 47, 63), fill=shade)
    elif pattern == 3:
        draw.rectangle((0, 0, 31, 31), fill=shade)
        draw.rectangle((32, 32, 63, 63), fill=shade)
    elif pattern == 4:
        draw.ellipse((12, 12, 51, 51), fill=shade)
    return image.resize((CELL, HEIGHT), Image.Resampling.NEAREST)


def floor_texture(color: int, lines: bool) -> Image.Image:
    """One cell of the floor, 192×192."""
    rgb = FLOOR_RGB[color]
    image = Image.new("RGB", (CELL, CELL), rgb)
    if lines:
        dark = tuple(int(0.6 * c) for c in rgb)
        ImageDraw.Draw(image).rectangle((0, 0, CELL - 1, CELL - 1), outline=dark, width=9)
    return image


def spots(layout: Layout) -> np.ndarray:
    """(N, 2) int x, y in map units: the centres of the open cells."""
    return layout.open_N2[:, ::-1] * CELL + CELL // 2


def starts(layout: Layout) -> np.ndarray:
    """(N, 2) int x, y in map units: the spots on which no landmark stands."""
    free_YX = layout.room_YX != WALL
    free_YX[tuple(layout.landmark_Y2.T)] = False
    return spots(layout)[free_YX[tuple(layout.open_N2.T)]]


def textmap(layout: Layout) -> str:
    """The map as UDMF: a sector for each open cell, a one-sided line at each wall, a two-sided one between cells."""
    cells = [tuple(cell) for cell in layout.open_N2.tolist()]
    sector = {cell: number for number, cell in enumerate(cells)}
    points: dict[tuple[int, int], int] = {}
    sides: list[str] = []
    lines: list[str] = []

    def vertex(x: int, y: int) -> int:
        return points.setdefault((x, y), len(points))

    def side(cell: tuple[int, int], texture: str) -> int:
        middle = f'texturemiddle="{texture}";' if texture else ""
        sides.append(f"sidedef{{sector={sector[cell]};{middle}}}")
        return len(sides) - 1

    for y, x in cells:
        room = int(layout.room_YX[y, x])
        for dy, dx, first, second, axis in _EDGES:
            other = (y + dy, x + dx)
            ends = [vertex((x + cx) * CELL, (y + cy) * CELL) for cx, cy in (first, second)]
            line = f"v1={ends[0]};v2={ends[1]};"
            if other not in sector:
                color, pattern = int(layout.color_R2[room, axis]), int(layout.pattern_R2[room, axis])
                lines.append(f"linedef{{{line}sidefront={side((y, x), wall_name(color, pattern))};blocking=true;}}")
            elif sector[other] > sector[y, x]:
                front, back = side((y, x), ""), side(other, "")
                lines.append(f"linedef{{{line}sidefront={front};sideback={back};twosided=true;}}")
    vertices = [f"vertex{{x={x};y={y};}}" for x, y in points]
    sectors = [
        f'sector{{heightfloor=0;heightceiling={HEIGHT};texturefloor="F{layout.floor_R[layout.room_YX[cell]]:02d}";'
        f'textureceiling="CEILING";lightlevel={LIGHT};}}'
        for cell in cells
    ]
    things = [_thing(layout.start, _START)]
    things += [_thing(tuple(cell), LANDMARKS[n % len(LANDMARKS)]) for n, cell in enumerate(layout.landmark_Y2.tolist())]
    return "\n".join(['namespace="zdoom";', *vertices, *lines, *sides, *sectors, *things])


def _thing(cell: tuple[int, int], kind: int) -> str:
    x, y = (n * CELL + CELL // 2 for n in (cell[1], cell[0]))
    return f"thing{{x={x};y={y};angle=90;type={kind};{_SKILLS}single=true;}}"


def wall_name(color: int, pattern: int) -> str:
    """The lump of a wall's texture."""
    return f"W{color:02d}{PLAIN if pattern == WALL else pattern}"


def write_wad(path: Path, layouts: Mapping[str, Layout], floor_lines: bool) -> None:
    """Writes the mazes under their lump names (at most eight letters and digits), with all textures."""
    lumps: list[tuple[str, bytes]] = []
    for name, layout in layouts.items():
        lumps += [(name, b""), ("TEXTMAP", textmap(layout).encode()), ("ENDMAP", b"")]
    # Without fake contrast walls have one brightness whichever way they face.
    lumps.append(("ZMAPINFO", b"adddefaultmap\n{\n  evenlighting\n}\n" + _map_infos(layouts)))
    lumps.append(("TX_START", b""))
    for color in range(COLORS):
        lumps += [(wall_name(color, p), _png(wall_texture(color, p))) for p in range(PATTERNS + 1)]
    lumps += [(f"F{color:02d}", _png(floor_texture(color, floor_lines))) for color in range(FLOORS)]
    lumps += [("CEILING", _png(Image.new("RGB", (64, 64), CEILING_RGB))), ("TX_END", b"")]
    body, directory, offset = [], [], 12
    for name, data in lumps:
        directory.append(struct.pack("<ii8s", offset, len(data), name.encode("ascii")))
        body.append(data)
        offset += len(data)
    path.write_bytes(b"".join([struct.pack("<4sii", b"PWAD", len(lumps), offset), *body, *directory]))


def _map_infos(names: Mapping[str, Layout]) -> bytes:
    return "".join(f'map {name} "{name}"\n{{\n}}\n' for name in names).encode()


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
