"""What a compiled program sends between devices: read from the text of its HLO.

Bytes are those that one device sends in one run of the program if every collective goes around a ring, which is the
least that any algorithm sends (Chan et al. 2007): of an array of S bytes over n devices (n-1)/n·S for an all-gather or
a reduce-scatter, twice that for an all-reduce. What stands in the body of a loop counts as often as the loop runs.
"""

import dataclasses
import math
import re
from collections.abc import Iterator

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
_SIZES = {"pred": 1, "bf16": 2, "f16": 2, "f32": 4, "f64": 8, "c64": 8, "c128": 16}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_OPERATION = re.compile(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(")
_WHILE = re.compile(r" while\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)")
_CALLED = re.compile(
    r"(?:calls|to_apply|branch_computations|(?:true|false)_computation)=\{?((?:%?[\w.\-]+(?:, )?)+)\}?"
)
_ARRAY = re.compile(r"\b(pred|[subf]+\d+\w*|c64|c128)\[([\d,]*)\]")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """The collectives of one kind: how many run, and what one device sends in them."""

    count: int = 0
    sent_bytes: int = 0


def traffic(hlo: str, devices: int) -> dict[str, Traffic]:
    """The traffic of one run by kind, kinds that do not occur left out.

    Args:
        hlo: of a compiled program, ``compiled.as_text()``.
        devices: it runs on; the size of a group that the text does not give.
    """
    bodies = _computations(hlo)
    found: dict[str, Traffic] = {}
    for kind, sent, times in _visit(bodies, bodies[""], 1, devices):
        old = found.get(kind, Traffic())
        found[kind] = Traffic(old.count + times, old.sent_bytes + times * sent)
    return found


def _computations(hlo: str) -> dict[str, list[str]]:
    """Lines by computation; the entry's name is empty."""
    found: dict[str, list[str]] = {"": []}
    lines: list[str] = []
    for line in hlo.splitlines():
        if head := _COMPUTATION.match(line):
            lines = found.setdefault("" if head[1] else head[2], [])
        else:
            lines.append(line)
    return found


def _visit(bodies: dict[str, list[str]], lines: list[str], times: int, devices: int) -> Iterator[tuple[str, int, int]]:
    for line in lines:
        line = line.partition(", metadata=")[0] if " while(" not in line else line
        if operation := _OPERATION.search(line):
            yield operation[2], _sent(operation[2], _result_bytes(operation), _group(line, devices)), times
        elif loop := _WHILE.search(line):
            rounds = _rounds(line, bodies[loop[1]])
            yield from _visit(bodies, bodies[loop[2]], times * rounds, devices)
        elif called := _CALLED.search(line):
            for name in called[1].replace("%", "").split(", "):
                yield from _visit(bodies, bodies.get(name, []), times, devices)


def _rounds(line: str, condition: list[str]) -> int:
    """How often a loop runs: as the compiler notes it, else the only whole number its condition compares with."""
    if known := re.search(r'known_trip_count":\{"n":"(\d+)"', line):
        return int(known[1])
    numbers = {int(n) for text in condition for n in re.findall(r"= s32\[\]\S* constant\((\d+)\)", text)}
    return numbers.pop() if len(numbers) == 1 else 1


def _result_bytes(operation: re.Match[str]) -> int:
    """Bytes of the result. What starts an asynchronous gather or permutation names its operand as well."""
    sizes = [_bytes(kind, shape) for kind, shape in _ARRAY.findall(operation[1])]
    if operation[3] and operation[2] != "all-reduce":
        return max(sizes)
    return sum(sizes)


def _bytes(kind: str, shape: str) -> int:
    bits = re.search(r"\d+", kind)
    width = _SIZES[kind] if kind in _SIZES else math.ceil(int(bits[0]) / 8) if bits else 1
    return width * math.prod(int(n) for n in shape.split(",") if n)


def _group(line: str, devices: int) -> int:
    """Devices that take part together, from any of the forms in which HLO writes them."""
    if lists := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return lists[1].count(",") + 1
    if tiled := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(tiled[1])
    if named := re.search(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}", line):
        sizes = dict(re.findall(r"'([^']+)'=(\d+)", named[1]))
        return math.prod(int(sizes[axis]) for axis in re.findall(r"'([^']+)'", named[2]))
    return devices


def _sent(kind: str, size: int, group: int) -> int:
    """Bytes that one device sends, from the bytes of the result on one device."""
    if kind in ("collective-permute", "collective-broadcast"):
        return size
    share = size * (group - 1)
    whole = {"all-gather": 1, "all-to-all": 1, "all-reduce": 2, "reduce-scatter": group}[kind]
    return whole * share // group
