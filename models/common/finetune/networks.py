"""What a model family gives to the commands that all families share: its name, and the networks it is made of."""

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
    """The networks of BERT, which ERNIE has, too; a family with others overrides their methods.

    model: the name of the family. file: the YAML in which configs have names. Each method returns a network freshly
    drawn from `seed`; `max_samples`: no row holds more of them.
    """

    model: str
    file: Path

    def named(self, name: str) -> EncoderConfig:
        """The config of this name in `file`. Raises `UserError`."""
        configs = load_yaml(self.file)
        if name not in configs:
            raise UserError(f"network {name!r} is unknown; one of {', '.join(configs)}, or the path of a config.json")
        return EncoderConfig.from_dict(configs[name], f"{self.file.name}, {name}")

    # Imported inside: a command that only reads settings must not wait for MindSpore.
    def pretraining(self, config: EncoderConfig, max_samples: int, seed: int) -> "nn.Cell":
        """Logits of words and of next sentences."""
        from models.common.nn.networks import PretrainingNetwork

        return PretrainingNetwork(config, max_samples, seed)

    def span(self, config: EncoderConfig, seed: int) -> "nn.Cell":
        """Start and end logits of each token."""
        from models.common.nn.networks import SpanNetwork

        return SpanNetwork(config, seed)

    def classification(self, config: EncoderConfig, classes: int, max_samples: int, seed: int) -> "nn.Cell":
        """Logits of each sample."""
        from models.common.nn.networks import ClassificationNetwork

        return ClassificationNetwork(config, classes, max_samples, seed)

    def tagging(
        self, config: EncoderConfig, tags: int, use_crf: bool, with_lstm: bool, max_samples: int, seed: int
    ) -> "nn.Cell":
        """Logits of each token, or with a CRF the tag of each token."""
        from models.common.nn.networks import TaggingNetwork

        return TaggingNetwork(config, tags, max_samples, use_crf, with_lstm, seed)
