"""How a model family makes its networks with heads; the commands are given one such table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.common.encoder_config import EncoderConfig

if TYPE_CHECKING:
    from mindspore import nn


@dataclass(frozen=True)
class Networks:
    """Functions that return a freshly initialised network; the last argument is the seed.

    span(config, seed): start and end logits per token. classification(config, classes, most samples a row, seed):
    logits per sample. tagging(config, tags, use_crf, with_lstm, most samples a row, seed): logits per token, or with a
    CRF the tag of each token.
    """

    model: str
    span: Callable[[EncoderConfig, int], "nn.Cell"]
    classification: Callable[[EncoderConfig, int, int, int], "nn.Cell"]
    tagging: Callable[[EncoderConfig, int, bool, bool, int, int], "nn.Cell"]
