"""Rules of the house: imports go one way, the core drags in no other framework, configs are read once."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vgen_jax

ROOT = Path(vgen_jax.__file__).parent

# What each part may import from vgen_jax, besides itself. Parts that are not listed sit on top and may import anything.
LEAVES = {"types", "log", "media", "sections"}
MAY_IMPORT = {
    "types": set(),
    "sections": {"types"},
    "media": {"types"},
    "log": {"types", "media"},
    "report": LEAVES,
    "nn": {"types"},
    "diffusion": {"types"},
    "metrics": {"types"},
    "data": LEAVES,
    "models": {"types", "nn"},
    "compose": {"types", "diffusion"},
    "objectives": {"types", "sections", "diffusion"},
    "memory": {"types", "nn.lora", "diffusion", "objectives"},
    "learning": LEAVES | {"nn.lora", "diffusion", "objectives", "checkpoint", "sharding", "chips", "flops"},
}

# Parts that exist for an extra, and so may import its packages.
OPTIONAL = ("vgen_jax.convert", "vgen_jax.demo", "vgen_jax.peers.", "vgen_jax.data.sims.", "vgen_jax.data.tfds_rlds")


def modules() -> dict[str, Path]:
    """Dotted name inside vgen_jax -> file."""
    paths = sorted(ROOT.rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names that a file imports, those inside functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def offences(part: str, source: str) -> list[str]:
    """The imports of ``source``, a file of ``part``, that the table above does not allow."""
    allowed = MAY_IMPORT[part] | {part}
    inner = [name.removeprefix("vgen_jax.") for name in imports(ast.parse(source)) if name.startswith("vgen_jax.")]
    return [name for name in inner if not any(f"{name}.".startswith(f"{prefix}.") for prefix in allowed)]


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
        ("metrics", "def f():\n    import vgen_jax.build"),
        ("learning", "from vgen_jax.nn.attention import Attention"),
        ("diffusion", "from vgen_jax import compose"),
    ],
)
def test_a_wrong_import_is_found(part: str, source: str) -> None:
    assert offences(part, source)


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
