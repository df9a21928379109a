"""What turns token vectors into predictions, in float32 but for the products of the largest (`MaskedLmHead`).

Shapes: B rows, T tokens, H hidden, S the most samples a row may hold, C classes, L labels of a token, V vocabulary,
P targets of a batch.
"""

import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from models.common.encoder_config import EncoderConfig
from models.common.nn.activation import activation
from models.common.nn.crf import Crf
from models.common.nn.dropout import Dropout
from models.common.nn.kernels.operators import Kernels
from models.common.nn.layers import Dense, LayerNorm
from models.common.nn.losses import tagging_loss
from models.common.nn.lstm import BiLstm
from models.common.nn.precision import as_type, compute_dtype, saturate, to_float32


class SpanHead(nn.Cell):
    """Two scores a token: the answer starts here, the answer ends here (Devlin et al. 2018, section 4.2)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.span = Dense(hidden_size, 2)

    def construct(self, hidden: Tensor) -> tuple[Tensor, Tensor]:  # [B, T, H] -> two [B, T]
        logits = self.span(ops.reshape(hidden, (-1, hidden.shape[-1])))
        logits = ops.reshape(logits, (-1, hidden.shape[1], 2))
        return logits[:, :, 0], logits[:, :, 1]


class Pooler(Dense):
    """tanh of a dense layer on the vectors of first tokens."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__(hidden_size, hidden_size)

    def construct(self, first: Tensor) -> Tensor:  # [..., H] -> [..., H]
        # tanh(x) = 2 sigmoid(2x) - 1. MindSpore's own tanh is off by up to 1e-4 on a CPU, this by 2e-6 (measured), and
        # other runtimes should give what MindSpore gives.
        flat = self.project(ops.reshape(first, (-1, first.shape[-1])))
        return ops.reshape(2.0 * ops.sigmoid(2.0 * flat) - 1.0, first.shape)


class FirstTokens(nn.Cell):
    """The vector of the first token of every sample."""

    def __init__(self, max_samples: int) -> None:
        super().__init__()
        self.slots = Tensor(np.arange(1, max_samples + 1, dtype=np.int32)[None, :, None])  # [1, S, 1]
        self.select = ops.BatchMatMul()

    def construct(self, hidden: Tensor, sequence_ids: Tensor, position_ids: Tensor) -> Tensor:
        """[B, T, H], int32 [B, T] twice -> [B, S, H], 0 where a row has no such sample.

        Selected by a product with zeros and one 1: exact, without an index that could lie outside, and every runtime
        has it.
        """
        own = ops.cast(ops.equal(ops.expand_dims(sequence_ids, 1), self.slots), hidden.dtype)  # [B, S, T]
        first = ops.cast(ops.equal(ops.expand_dims(position_ids, 1), 0), hidden.dtype)  # [B, 1, T]
        return self.select(own * first, hidden)


class ClassificationHead(nn.Cell):
    """A score for each class from the pooled vector of a sample (Devlin et al. 2018, section 4.1)."""

    def __init__(self, hidden_size: int, classes: int, rate: float, stream: int) -> None:
        super().__init__()
        self.dropout = Dropout(rate, stream)
        self.classifier = Dense(hidden_size, classes)

    def construct(self, pooled: Tensor, key: Tensor | None = None) -> Tensor:  # [B, S, H] -> [B, S, C]
        samples, width = pooled.shape[1:]
        logits = self.classifier(ops.reshape(self.dropout(pooled, key), (-1, width)))
        return ops.reshape(logits, (-1, samples, logits.shape[-1]))


class TaggingHead(nn.Cell):
    """Labels of tokens: dropout, a BiLSTM where wanted, a dense layer, a conditional random field where wanted.

    With the field it gives the best path's labels, int32 [B, T], 0 at padding; without, scores, float32 [B, T, L].
    """

    def __init__(
        self, hidden_size: int, labels: int, max_samples: int, crf: bool, lstm: bool, rate: float, stream: int
    ) -> None:
        super().__init__()
        self.dropout = Dropout(rate, stream)
        self.lstm = BiLstm(hidden_size, hidden_size // 2, max_samples) if lstm else None
        self.tagger = Dense(2 * (hidden_size // 2) if lstm else hidden_size, labels)
        self.crf = Crf(labels) if crf else None

    def construct(self, hidden: Tensor, sequence_ids: Tensor, position_ids: Tensor) -> Tensor:
        """[B, T, H], int32 [B, T] twice."""
        scores = self.scores(hidden, sequence_ids)
        return scores if self.crf is None else self.crf(scores, sequence_ids, position_ids)

    def loss(
        self, hidden: Tensor, labels: Tensor, sequence_ids: Tensor, position_ids: Tensor, key: Tensor | None = None
    ) -> Tensor:
        """[B, T, H], int32 [B, T] three times -> scalar: of the field the mean over samples, else over tokens."""
        scores = self.scores(hidden, sequence_ids, key)
        if self.crf is None:
            return tagging_loss(scores, labels, sequence_ids)
        return self.crf.loss(scores, labels, sequence_ids, position_ids)

    def scores(self, hidden: Tensor, sequence_ids: Tensor, key: Tensor | None = None) -> Tensor:
        """[B, T, H] -> a score for every token and label, float32 [B, T, L]."""
        hidden = self.dropout(hidden, key)
        if self.lstm is not None:
            hidden = self.lstm(hidden, sequence_ids)
        tokens, width = hidden.shape[1:]
        scores = self.tagger(ops.reshape(hidden, (-1, width)))
        return ops.reshape(scores, (-1, tokens, scores.shape[-1]))


class MaskedLmHead(nn.Cell):
    """A score for each word of the vocabulary in the place of a token (Devlin et al. 2018, section 3.1).

    The last product is with the table of the word embeddings, which is not this cell's. The products weigh as much as a
    layer's and are computed in the config's `compute_type`.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dtype = compute_dtype(config.compute_type)
        self.transform = Dense(config.hidden_size, config.hidden_size)
        self.activation = activation(config.hidden_act)
        self.norm = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.bias = Parameter(Tensor(np.zeros(config.vocab_size, np.float32)), name="bias")
        self.matmul = ops.MatMul(transpose_b=True)
        self.bias_add = ops.BiasAdd()

    def use_kernels(self, kernels: Kernels) -> None:
        """As in `Dense`."""
        self.bias_add = kernels.bias_add()

    def construct(self, hidden: Tensor, table: Tensor) -> Tensor:  # float32 [P, H], [V, H] -> [P, V]
        words = self.activation(self.transform(saturate(hidden, self.dtype)))
        words = saturate(self.norm(to_float32(words)), self.dtype)
        scores = self.matmul(words, as_type(table, self.dtype))
        return self.bias_add(to_float32(scores), self.bias)


class PretrainingHeads(nn.Cell):
    """Which word is hidden here, and is the second text of a sample the one that follows the first."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.mlm = MaskedLmHead(config)
        self.nsp = Dense(config.hidden_size, 2)

    def construct(self, hidden: Tensor, pooled: Tensor, table: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """[B, T, H], [B, S, H], [V, H], int32 [P], places in the B * T tokens -> [P, V], [B, S, 2]."""
        samples, width = pooled.shape[1:]
        targets = ops.gather(ops.reshape(hidden, (-1, width)), positions, 0)  # [P, H]
        next_sentence = self.nsp(ops.reshape(pooled, (-1, width)))
        return self.mlm(targets, table), ops.reshape(next_sentence, (-1, samples, 2))
