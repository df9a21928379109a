"""What BERT gives to the commands that all models share: its networks and its recipes.

Values with a source and an expected score are in recipes.yaml.
"""

from pathlib import Path
from typing import Any

from models.common.encoder_config import EncoderConfig
from models.common.finetune.networks import Networks

RECIPES = Path(__file__).parent / "recipes.yaml"


# Imported inside: a command that only reads settings must not wait for MindSpore.
def _pretraining(config: EncoderConfig, max_samples: int, seed: int) -> Any:
    from models.bert.network import BertForPreTraining

    return BertForPreTraining(config, max_samples, seed)


def _span(config: EncoderConfig, seed: int) -> Any:
    from models.bert.network import BertForQuestionAnswering

    return BertForQuestionAnswering(config, seed)


def _classification(config: EncoderConfig, classes: int, max_samples: int, seed: int) -> Any:
    from models.bert.network import BertForSequenceClassification

    return BertForSequenceClassification(config, classes, max_samples, seed)


def _tagging(config: EncoderConfig, tags: int, use_crf: bool, with_lstm: bool, max_samples: int, seed: int) -> Any:
    from models.bert.network import BertForTokenClassification

    return BertForTokenClassification(config, tags, max_samples, use_crf, with_lstm, seed)


NETWORKS = Networks("bert", Path(__file__).parent / "networks.yaml", _pretraining, _span, _classification, _tagging)
