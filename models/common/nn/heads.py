"""What turns token vectors into predictions. Shapes: B rows, T tokens, H hidden."""

from mindspore import Tensor, nn, ops

from models.common.nn.layers import Dense


class SpanHead(nn.Cell):
    """Two scores a token: the answer starts here, the answer ends here (Devlin et al. 2018, section 4.2)."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.span = Dense(hidden_size, 2)

    def construct(self, hidden: Tensor) -> tuple[Tensor, Tensor]:  # [B, T, H] -> two [B, T]
        logits = self.span(ops.reshape(hidden, (-1, hidden.shape[-1])))
        logits = ops.reshape(logits, (-1, hidden.shape[1], 2))
        return logits[:, :, 0], logits[:, :, 1]
