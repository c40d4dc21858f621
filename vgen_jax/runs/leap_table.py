"""Run ``leap_table``: SVG-LP, VG-LeAP, Causal-LeAP, RIVER and RAFI on the same recorded clips, in one table.

Every method continues the clips, several times each, and is scored frame by frame; those that predict actions are
scored by them, too. Left in the work directory: ``table.md``, ``claims.md`` (what of the paper holds here),
``results.json``, ``scores/`` with every number, ``samples/predictions.png``, ``report.html`` with curves against time.
Not in the table is ACPNet, the paper's third baseline, of which there is no public description.

Keys:
    data_dir: recorded frames with velocities.
    order: the methods, in the order of the table; ``repeat`` shows the last frame for ever.
    weights_dir: where foreign networks' weights are; empty for the environment variable VGEN_WEIGHTS.
    action_dir: the export of an action predictor, for the metrics that need one; else empty.
    place_dir: the export of a place encoder, for the metrics that need one; else empty.
"""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.config import Sections, section
from vgen_jax.diffusion.solvers import Solver
from vgen_jax.evaluation.leap import predictions
from vgen_jax.evaluation.leap.report import SHOWN, contract_of, write_page
from vgen_jax.evaluation.networks import load_nets
from vgen_jax.evaluation.sources import WindowsConfig, recorded
from vgen_jax.files.exports import digest
from vgen_jax.files.run_folder import keep_config
from vgen_jax.types import VgenError

SECTIONS: Sections = {
    "predict": predictions.PredictionConfig,
    "windows": WindowsConfig,
    "solver": Solver,
    "methods.*": predictions.PredictorConfig,
}


def run(config: ConfigDict, workdir: Path) -> None:
    """See the module's docstring. Scores of the same models and data are not made again."""
    settings = section(predictions.PredictionConfig, config.predict, "predict")
    windows = section(WindowsConfig, config.windows, "windows")
    solver = section(Solver, config.solver, "solver")
    data = recorded(config.data_dir, windows)
    nets = load_nets(settings.metrics, config).features
    keep_config(config, workdir)
    methods: dict[str, predictions.Scored] = {}
    labels, models = {}, {}
    for name in config.order:
        if name not in config.methods:
            raise VgenError(f"config key order names method '{name}': methods has {', '.join(config.methods)}")
        entry = section(predictions.PredictorConfig, config.methods[name].to_dict(), f"methods.{name}")
        labels[name], models[name] = entry.label, digest(Path(entry.dir)) if entry.dir else ""
        path, origin = workdir / "scores" / f"{name}.npz", predictions.origin_of(data, models[name], nets)
        found = predictions.load_scored(path, origin)
        if found is None:
            method = predictions.ClipPredictor(name, entry, windows.past, windows.frames, solver)
            found = predictions.scored(data, method, settings, nets, SHOWN, name)
            predictions.save_scored(path, found, origin)
        methods[name] = found
    constant = predictions.constant_error(data, predictions.mean_action(Path(config.data_dir), "train"))
    real = predictions.real_features(data, settings, nets)
    about = contract_of(data, settings, solver, models, nets)
    write_page(workdir, config.to_dict(), data, settings, about, methods, labels, constant, real)
