"""Run ``embed_texts``: the texts of a data set's windows as a frozen CLIP sees them, computed once.

A fine-tuning reads this table instead of running the text tower, which is in memory during this run only. Embeddings
are stored as float16, a text in 158 kB at ModelScopeT2V's size, and keyed by the text's bytes as the data give them.
"""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from vgen_jax.files.run_folder import keep_config, write_results
from vgen_jax.worlds.pretrained import write_texts
from vgen_jax.worlds.texts import text_table, window_tokens


def run(config: ConfigDict, workdir: Path) -> None:
    """Writes ``texts.safetensors`` with every text of the windows of ``config.splits``, and the empty text."""
    keep_config(config, workdir)
    token_NL = np.concatenate(
        [window_tokens(config.data_dir, split, config.windows, config.token_length) for split in config.splits]
    )
    table = text_table(config.model_dir, token_NL)
    write_texts(workdir, table)
    write_results(workdir, {"texts": len(table["token"]), "bytes": table["embedding"].nbytes})
    print(f"embedded {len(table['token'])} texts, {table['embedding'].nbytes / 2**20:.1f} MiB", flush=True)
