"""Rules of the house: imports go one way, runs are runs, one class per name, the core drags in no other framework."""

import ast
import functools
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import flax.linen
import pytest

import vgen_jax

ROOT = Path(vgen_jax.__file__).parent
RUN_LINES = 2600  # of all runs together

# What each part may import from vgen_jax besides itself and what every part may. A dotted name is one module.
EVERYWHERE = {"types", "config"}
LAYERS = {"nn", "models", "diffusion", "objectives", "compose", "memory", "learning", "data", "files", "devices"}
MAY_IMPORT: dict[str, set[str]] = {
    "types": set(),
    "config": set(),
    "nn": set(),
    "diffusion": set(),
    "metrics": set(),
    "files": set(),
    "devices": set(),
    "data": {"files"},
    "models": {"nn"},
    "compose": {"diffusion"},
    "objectives": {"nn.pixels", "diffusion"},
    "memory": {"nn.lora", "diffusion", "objectives"},
    "learning": {"nn.lora", "diffusion", "objectives", "files", "devices"},
    "black_box": {"diffusion", "learning"},
    "simulators": {"data"},
    # AVID's checkpoints become methods of worlds.avid; what worlds convert is the other parts of this one.
    "convert": {"nn", "models", "diffusion", "metrics", "files", "worlds.avid", "worlds.avid_networks"},
    "worlds": LAYERS - {"devices"} | {"black_box", "convert"},
    "evaluation": LAYERS - {"memory", "learning"} | {"metrics", "simulators", "convert", "worlds"},
    "tasks": LAYERS - {"compose", "memory"} | {"black_box", "convert", "worlds"},
    "play": {"data", "files", "diffusion", "memory", "simulators", "worlds"},
    "bench": LAYERS | {"simulators", "convert", "worlds", "tasks"},
    "runs": LAYERS
    | {"metrics", "black_box", "simulators", "convert", "worlds", "evaluation", "tasks", "bench", "play"},
    "command_line": {"runs", "tasks", "files"},
    "main": {"files", "devices", "runs", "command_line"},
}
TABLE_OF_RUNS = "vgen_jax.runs"  # starts a run by its name; all that a run may know of others

# Parts that exist for an extra, and so may import its packages.
OPTIONAL = ("vgen_jax.convert", "vgen_jax.bench.peers.", "vgen_jax.simulators.", "vgen_jax.data.importers.rlds")

# Words that say that something was done, and to nobody knows what, are no names.
NO_NAMES = {"asked", "kept", "continued", "queried", "made_inputs", "begun", "told"}
MIRRORS = ("bench.peers.pixel_unet",)  # whose classes are called like those they are timed beside


@functools.cache
def modules() -> dict[str, Path]:
    """Dotted name inside vgen_jax -> file."""
    paths = sorted(ROOT.rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def parsed() -> dict[str, ast.Module]:
    """Dotted name inside vgen_jax -> its code."""
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in modules().items()}


def imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Dotted names that these statements import."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offences(part: str, source: str) -> list[str]:
    """The imports of ``source``, a file of ``part``, that the table does not allow, those in functions included."""
    allowed = MAY_IMPORT[part] | EVERYWHERE | {part}
    inner = [name for name in imports(ast.walk(ast.parse(source))) if name.startswith("vgen_jax.")]
    return [
        name for name in inner if not any(f"{name}.".startswith(f"vgen_jax.{prefix}.") for prefix in allowed)
    ]  # fmt: skip


def test_every_part_is_listed() -> None:
    assert {name.split(".")[0] for name in modules() if name != "__init__"} == MAY_IMPORT.keys()


def test_imports_go_one_way() -> None:
    found = {}
    for name, path in modules().items():
        part = name.split(".")[0]
        if part in MAY_IMPORT and (wrong := offences(part, path.read_text(encoding="utf-8"))):
            found[name] = wrong
    assert not found


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("data", "from vgen_jax.models import unet_latent"),
        ("metrics", "def f():\n    import vgen_jax.worlds.slow"),
        ("learning", "from vgen_jax.nn.attention import Attention"),
        ("diffusion", "from vgen_jax import compose"),
        ("worlds", "from vgen_jax.runs.generate import run"),
        ("convert", "from vgen_jax.worlds.slow import load_slow_model"),
        ("evaluation", "from vgen_jax import runs"),
    ],
)
def test_a_wrong_import_is_found(part: str, source: str) -> None:
    assert offences(part, source)


def inner_imports(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Module -> those of vgen_jax that it imports when it is imported itself."""
    found = {}
    for name, tree in trees.items():
        dotted = {full.removeprefix("vgen_jax.") for full in imports(iter(tree.body)) if full.startswith("vgen_jax.")}
        found[name] = {full if full in trees else full.rpartition(".")[0] for full in dotted} & trees.keys() - {name}
    return found


def circle(of: dict[str, set[str]]) -> list[str]:
    """Names each of which leads to the next one and the last one to the first; empty if there are none."""
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> list[str]:
        if name in way:
            return way[way.index(name) :]
        if name in done:
            return []
        found = next((ring for other in sorted(of[name]) if (ring := visit(other, [*way, name]))), [])
        done.add(name)
        return found

    return next((ring for name in sorted(of) if (ring := visit(name, []))), [])


def test_no_modules_import_each_other() -> None:
    assert circle(inner_imports(parsed())) == []


def test_a_circle_is_found() -> None:
    sources = {"a": "from vgen_jax import b", "b": "from vgen_jax.c import x", "c": "import vgen_jax.a", "d": ""}
    assert circle(inner_imports({name: ast.parse(source) for name, source in sources.items()})) == ["a", "b", "c"]
    assert circle({"a": {"b"}, "b": set(), "c": {"a", "b"}}) == []


def test_a_run_imports_no_other_run() -> None:
    for name, tree in parsed().items():
        if name.startswith("runs."):
            others = {full for full in imports(ast.walk(tree)) if full.startswith(f"{TABLE_OF_RUNS}.")}
            assert not others, f"{name}: what two runs need is a part's, not a run's"


def test_runs_parse_call_and_write() -> None:
    lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / "runs").glob("*.py"))
    assert lines <= RUN_LINES


def test_one_class_per_name() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for name, tree in parsed().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and name not in MIRRORS:
                found[node.name].append(name)
    assert not {name: where for name, where in found.items() if len(where) > 1}


def test_names_are_nouns() -> None:
    """Of modules, and of functions and classes at any depth."""
    found = {name for name in modules() if NO_NAMES & set(name.split("."))}
    for name, tree in parsed().items():
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        found |= {f"{name}.{node.name}" for node in ast.walk(tree) if isinstance(node, kinds) and node.name in NO_NAMES}
    assert not found


def test_configs_are_read_once() -> None:
    """``config.get(`` and ``getattr(config`` hide a misspelt or missing key."""
    for path in modules().values():
        text = path.read_text(encoding="utf-8")
        assert "config.get(" not in text and "getattr(config" not in text, path


@pytest.mark.slow
def test_the_core_imports_neither_torch_nor_tensorflow(tmp_path: Path) -> None:
    """Stand-ins make both importable, so that an import which is guarded by ``try`` is seen too."""
    for framework in ("torch", "tensorflow"):
        (tmp_path / framework).mkdir()
        (tmp_path / framework / "__init__.py").write_text("__version__ = '0'\n")
    core = [f"vgen_jax.{name}" for name in modules() if name != "__init__"]
    core = [name for name in core if not name.startswith(OPTIONAL)]
    program = (
        f"import importlib, sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        f"for name in {core}: importlib.import_module(name)\n"
        "print([name for name in ('torch', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_the_smallest_run_loads_no_converter() -> None:
    """None pays for what another one needs: neither foreign weights and their libraries, nor networks."""
    program = (
        "import sys, vgen_jax.runs.collect\n"
        "heavy = ('diffusers', 'transformers', 'torch', 'vgen_jax.convert', 'vgen_jax.models', 'vgen_jax.worlds')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


REFERENCE = re.compile(r"``([a-z_]+(?:\.\w+)+)``")  # ``objectives.place`` or ``nn.lora.Lora.init``
FILE_ENDINGS = {"py", "json", "jsonl", "npz", "npy", "html", "png", "mp4", "safetensors", "md", "txt", "yaml"}


def dangling(docstring: str) -> list[str]:
    """Dotted names in a docstring that begin like a part of the house, and that the house does not have."""
    parts = MAY_IMPORT.keys() - {"config"}  # a run's docstring means the keys of its config
    found = []
    for name in REFERENCE.findall(docstring):
        words = name.removeprefix("vgen_jax.").split(".")
        of_linen = words[0] == "nn" and hasattr(flax.linen, words[1])
        if words[0] in parts and words[-1] not in FILE_ENDINGS and not of_linen and not resolves(words):
            found.append(name)
    return found


def resolves(words: list[str]) -> bool:
    """Whether the longest module that the words name has the rest of them, at any depth."""
    names = modules()
    length = next((n for n in range(len(words), 0, -1) if ".".join(words[:n]) in names), 0)
    if not length:
        return len(words) == 1
    text = names[".".join(words[:length])].read_text(encoding="utf-8")
    return all(re.search(rf"^\s*(async def|def|class)? ?{word}\b", text, re.MULTILINE) for word in words[length:])


def test_docstrings_name_what_there_is() -> None:
    found = {}
    for name, tree in parsed().items():
        kinds = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        texts = [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]
        if wrong := dangling("\n".join(texts)):
            found[name] = wrong
    assert not found


def test_a_dangling_name_is_found() -> None:
    assert dangling("``data.sims.maze`` and ``data.schema.Episode``") == ["data.sims.maze"]
    assert dangling("``nn.lora.no_such``, ``data.batch_size``") == ["nn.lora.no_such", "data.batch_size"]


# Whoever wants a World asks worlds.assembly for it; the pieces are put together nowhere else.
PIECES = {
    "make_memory",
    "chunk_sampler",
    "sample_future",
    "chunk_condition",
    "SlowWorld",
    "guided_predictor",
    "with_adapter",
}


def assembled(tree: ast.AST) -> set[str]:
    """The pieces of a World that this code calls."""
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {call.id if isinstance(call, ast.Name) else getattr(call, "attr", "") for call in calls} & PIECES


def test_worlds_are_assembled_in_worlds_alone() -> None:
    found = {name: assembled(tree) for name, tree in parsed().items() if not name.startswith("worlds.")}
    assert not {name: pieces for name, pieces in found.items() if pieces}
    assert assembled(ast.parse("memory = memories.make_memory(config, model, 2, 4)")) == {"make_memory"}
    assert set().union(*(assembled(tree) for name, tree in parsed().items() if name.startswith("worlds."))) == PIECES
