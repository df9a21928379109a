"""How a model family makes its networks with heads; the commands are given one such table."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from models.common.config import load_yaml
from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError

if TYPE_CHECKING:
    from mindspore import nn


@dataclass(frozen=True)
class Networks:
    """Functions that return a freshly initialised network; the last argument is the seed.

    pretraining(config, most samples a row, seed): logits of words and of next sentences. span(config, seed): start and
    end logits per token. classification(config, classes, most samples a row, seed): logits per sample. tagging(config,
    tags, use_crf, with_lstm, most samples a row, seed): logits per token, or with a CRF the tag of each token. file:
    the YAML in which configs have names.
    """

    model: str
    file: Path
    pretraining: Callable[[EncoderConfig, int, int], "nn.Cell"]
    span: Callable[[EncoderConfig, int], "nn.Cell"]
    classification: Callable[[EncoderConfig, int, int, int], "nn.Cell"]
    tagging: Callable[[EncoderConfig, int, bool, bool, int, int], "nn.Cell"]

    def named(self, name: str) -> EncoderConfig:
        """The config of this name in `file`. Raises `UserError`."""
        configs = load_yaml(self.file)
        if name not in configs:
            raise UserError(f"network {name!r} is unknown; one of {', '.join(configs)}, or the path of a config.json")
        return EncoderConfig.from_dict(configs[name], f"{self.file.name}, {name}")
