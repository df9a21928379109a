"""The original's name of `python -m models.common.launch.rank_commands`."""

import runpy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
runpy.run_module("models.common.launch.rank_commands", run_name="__main__")
