"""Masked-LM and next-sentence accuracy of a network on a data set."""

from pathlib import Path
from typing import Any

import numpy as np

from data_tools.feature_store import load_features
from models.common.encoder_config import EncoderConfig
from models.common.packing import pack, plan_rows
from models.common.pretrain.corpus import check_ids, check_info
from models.common.progress import track
from models.common.tasks.pretrain import Tally, most_targets, target_counts, training_inputs
from models.common.weights.canonical import tensors_sha256


class Scorer:
    """Scores the present weights of `network` on the features of `path`, or on the first `samples` of them.

    encoder, vocab: what the features must fit, see `check_info`. rows: of a batch; max_samples: most samples in a row,
    which the network was made for.
    """

    def __init__(
        self, path: Path, schema: Path | None, encoder: EncoderConfig, vocab: Path | None, network: Any, rows: int,
        max_samples: int, samples: int | None = None,
    ) -> None:  # fmt: skip
        from models.common.nn.training import PretrainingEvaluationNetwork

        features = load_features(path, schema)
        check_info(path, features.info, encoder, vocab)
        check_ids(path, features, encoder)
        self.features = features if samples is None else features.select(np.arange(min(samples, len(features))))
        self.row_length, self.max_samples = features.info["max_seq_length"], max_samples
        planned = plan_rows(self.features.lengths, self.row_length, max_samples)
        self.batches = [planned[first : first + rows] for first in range(0, len(planned), rows)]
        self.rows, self.most = rows, most_targets(target_counts(self.features), self.batches)
        self.network = PretrainingEvaluationNetwork(network)
        self.network.set_train(False)

    @property
    def identity(self) -> str:
        """Of the data; scores on others do not compare."""
        return tensors_sha256({**self.features.tokens, "starts": self.features.starts, **self.features.scalars})

    def score(self) -> dict[str, float]:
        """Accuracies as fractions, and mean losses."""
        from mindspore import Tensor

        tally = Tally()
        for planned in track(self.batches, "evaluate", len(self.batches), "batch"):
            batch = pack(self.features, planned, self.row_length, self.rows)
            inputs = training_inputs(self.features, batch, self.max_samples, self.most)
            tally.add(inputs, [output.asnumpy() for output in self.network(*map(Tensor, inputs))])
        return tally.scores()
