"""Checkpoints of a run (Orbax).

A checkpoint ``checkpoints/<step>/`` holds four items: ``params``, ``ema`` and ``optimizer`` (arrays, restorable on any
mesh) and ``data`` (the data iterator's position, JSON). Saving is asynchronous and atomic: a checkpoint that was being
written when the process died is never listed, and is cleaned away at the next start.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from vgen_jax.files.exports import check_matches, write_error
from vgen_jax.learning.state import TrainState
from vgen_jax.types import VgenError


class Checkpoints:
    """The checkpoints of one run.

    Args:
        folder: ``<workdir>/checkpoints``.
        keep: how many of the newest are kept.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = Path(folder).absolute()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep, enable_async_checkpointing=True, cleanup_tmp_directories=True
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._abandoned = False

    def latest_step(self) -> int | None:
        """The newest complete checkpoint's step."""
        return self._manager.latest_step()

    def save(self, state: TrainState, data: Mapping[str, Any]) -> None:
        """Starts writing ``state`` and the iterator's position; returns before the write has ended."""
        step = int(state.step)
        if step == self._manager.latest_step():
            return
        items = {
            "params": ocp.args.StandardSave(state.params),
            "ema": ocp.args.StandardSave(state.ema),
            "optimizer": ocp.args.StandardSave({"opt_state": state.opt_state, "step": state.step}),
            "data": ocp.args.JsonSave(dict(data)),
        }
        try:
            self._manager.save(step, args=ocp.args.Composite(**items))
        except (OSError, ValueError) as error:
            raise write_error(self.folder, error) from error

    def restore(self, abstract: TrainState, step: int | None = None) -> tuple[TrainState, dict[str, Any]]:
        """The state of a checkpoint (the newest by default), laid out as ``abstract``'s shardings say.

        Args:
            abstract: a TrainState of ShapeDtypeStructs with shardings.

        Raises:
            VgenError: if the checkpoint's arrays do not fit the model.
        """
        step = self._manager.latest_step() if step is None else step
        optimizer = {"opt_state": abstract.opt_state, "step": abstract.step}
        items = {
            "params": ocp.args.StandardRestore(abstract.params),
            "ema": ocp.args.StandardRestore(abstract.ema),
            "optimizer": ocp.args.StandardRestore(optimizer),
            "data": ocp.args.JsonRestore(),
        }
        try:
            found = self._manager.restore(step, args=ocp.args.Composite(**items))
        except (ValueError, KeyError, FileNotFoundError) as error:
            stored = self.folder / str(step) / "params"
            if (stored / "_METADATA").is_file():
                check_matches(ocp.StandardCheckpointer().metadata(stored).item_metadata.tree, abstract.params, stored)
            first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise VgenError(
                f"checkpoint {self.folder / str(step)} does not fit this configuration or is damaged ({first_line}): "
                "use the configuration it was trained with, another --workdir, or delete that step's folder"
            ) from error
        state = TrainState(found["optimizer"]["step"], found["params"], found["ema"], found["optimizer"]["opt_state"])
        return state, found["data"]

    def check(self) -> None:
        """Raises what a save in the background has failed with (a full disk, say); does not wait for it."""
        try:
            self._manager.check_for_errors()
        except (OSError, ValueError) as error:
            raise write_error(self.folder, error) from error

    def wait(self) -> None:
        """Blocks until every started save is complete."""
        try:
            self._manager.wait_until_finished()
        except (OSError, ValueError) as error:
            raise write_error(self.folder, error) from error

    def abandon(self) -> None:
        """Lets ``close`` wait for nothing: a process that is gone never ends its part of a save."""
        self._abandoned = True

    def close(self) -> None:
        """Waits and releases the manager."""
        if self._abandoned:
            return
        try:
            self.wait()
        finally:
            self._manager.close()
