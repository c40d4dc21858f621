"""Run ``compare_results``: several evaluations in one table, with intervals; other contracts are refused."""

from pathlib import Path

from ml_collections import ConfigDict

from vgen_jax.config import section
from vgen_jax.evaluation.comparison import FREE, NORMALISED, ComparisonConfig, markdown, normalised, read_result, table
from vgen_jax.files import report
from vgen_jax.files.run_folder import keep_config, write_results

TABLE_FILE = "table.md"


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes ``table.md``, ``report.html`` and ``results.json``; prints the table."""
    settings = section(ComparisonConfig, config.compare, "compare")
    results = [read_result(folder) for folder in settings.results]
    cells = table(results, settings.draws, settings.seed)
    if settings.normalise:
        cells[NORMALISED] = normalised(cells, settings.normalise)
    keep_config(config, workdir)  # not of a start that was refused
    names = settings.names or tuple(result.folder.name for result in results)
    text = markdown(names, cells)
    (workdir / TABLE_FILE).write_text(text)
    shared = {key: value for key, value in results[0].contract.items() if key not in FREE}
    numbers: dict[str, float] = {}
    for metric, column in cells.items():
        for name, cell in zip(names, column, strict=True):
            key = f"{metric}/{name}"
            numbers |= {key: cell.value, f"{key}_low": cell.low, f"{key}_high": cell.high}
    write_results(workdir, {**numbers, "contract": shared})
    rows, whence = [], []
    for n, (name, result) in enumerate(zip(names, results, strict=True)):
        rows.append((name, *(str(column[n]) for column in cells.values())))
        whence.append((name, *(str(result.contract[key]) if key in result.contract else "" for key in FREE)))
    sections: list[report.Section] = [
        report.Table(("result", *cells), rows, title="Results", caption="In brackets: 95 %, bootstrap over videos."),
        report.Table(("result", *FREE), whence, title="Where they come from"),
        report.Table(("contract", "value"), sorted((k, str(v)) for k, v in shared.items()), title="Contract of all"),
    ]
    report.write_report(workdir, "Comparison", sections, config=config.to_dict())
    print(text, end="", flush=True)
