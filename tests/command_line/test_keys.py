"""The keys of every config are described, and a misspelt one is answered with the one that was meant."""

import dataclasses

import pytest
from ml_collections import ConfigDict

from vgen_jax import runs
from vgen_jax.command_line import configs, keys
from vgen_jax.tasks import registry
from vgen_jax.types import VgenError

STAGE = "slow/vizdoom:tiny.slow"


@pytest.mark.slow
@pytest.mark.parametrize("name", configs.names())
def test_every_key_of_every_variant_is_described(name: str) -> None:
    for variant in configs.describe(name).variants or [""]:
        config = configs.load(f"{name}:{variant}" if variant else name)
        found = list(keys.keys(config))
        assert not [key.path for key in found if not key.text or not key.kind]
        assert {key.path for key in found} >= {path for path in leaves(config)}


def leaves(config: ConfigDict, path: str = "") -> list[str]:
    """All keys of a config that are no sections."""
    parts = [(f"{path}{name}", value) for name, value in config.items()]
    inner = [leaf for name, value in parts if isinstance(value, ConfigDict) for leaf in leaves(value, f"{name}.")]
    return inner + [name for name, value in parts if not isinstance(value, ConfigDict)]


@pytest.mark.parametrize("name", runs.RUNS)
def test_every_run_declares_dataclasses(name: str) -> None:
    for kind in runs.module(name).SECTIONS.values():
        assert all(map(dataclasses.is_dataclass, getattr(kind, "__args__", (kind,))))


def test_a_key_says_its_type_its_value_and_its_meaning() -> None:
    found = {key.path: key for key in keys.keys(configs.load(STAGE))}
    assert str(found["data.token_length"]) == "data.token_length = 32  int: L; 0 for no text."
    assert found["data.windows"].kind == "tuple[tuple[int, int], ...]"
    assert found["autoencoder_dir"].value == "@autoencoder/export"
    assert "head" in found["slow.unet.head_dim"].text  # of the network that the section shapes
    assert not found["run"].path.startswith(".") and found["run"].value == "train"


def test_stages_are_described_by_their_runs() -> None:
    found = {key.path: key for key in keys.keys(configs.load("slow/vizdoom:tiny"))}
    assert "f_g" in found["stages.generate.generate.future"].text
    assert found["stages.slow.train.steps"].text == found["stages.autoencoder.train.steps"].text


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["train.stesp"], "config key train.stesp is unknown: did you mean train.steps?"),
        (["trian.steps"], "config key trian.steps is unknown: did you mean train.steps?"),
        (["slow.unet.head"], "did you mean slow.unet.head_dim?"),
        (["batch_size"], "did you mean data.batch_size?"),
        (["train.stesp", "mesh.fsdb"], "keys train.stesp, mesh.fsdb are unknown: did you mean train.steps, mesh.fsdp?"),
        (["xyzzy"], "config key xyzzy is unknown: --help_config shows every key"),
        (["train.steps.more"], "config key train.steps.more is unknown"),
    ],
)
def test_unknown_keys_are_named_together_with_the_nearest(changed: list[str], message: str) -> None:
    with pytest.raises(VgenError) as refused:
        keys.check(configs.load(STAGE), changed)
    assert message in str(refused.value)


def test_known_keys_pass() -> None:
    known = ["train.steps", "data.windows[0]", "slow.unet", "run"]
    keys.check(configs.load(STAGE), known)
    with pytest.raises(VgenError, match="key train.stesp is unknown"):
        keys.check(configs.load(STAGE), [*known, "train.stesp"])


def test_an_unknown_objective_or_run_is_named() -> None:
    with pytest.raises(VgenError, match="objective.kind is 'adaptor': did you mean 'adapter'"):
        registry.task_of("adaptor")
    with pytest.raises(VgenError, match="run is 'trian': did you mean 'train'"):
        runs.module("trian")


DOCSTRING = """Attributes:
    past, future: of a chunk.
    seed: of the noise,
        and of all else.

    other: not an entry any more.
"""


def test_entries_of_a_docstring() -> None:
    expected = {"past": "of a chunk.", "future": "of a chunk.", "seed": "of the noise, and of all else."}
    assert keys.described(DOCSTRING, "Attributes:") == expected
    assert keys.described(f"A title.\n\n    {DOCSTRING.replace(chr(10), chr(10) + '    ')}", "Attributes:") == expected
    assert keys.described(DOCSTRING, "Keys:") == {}
