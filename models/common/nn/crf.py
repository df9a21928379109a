"""A linear-chain conditional random field (Lafferty et al. 2001) over packed rows, without a loop over the tokens.

Shapes: R rows, T tokens a row, L labels, P the power of two from T on, n nodes of one level of the tree, all rows
together.

All rows are chains of L x L matrices of logarithms, one for each token t with scores e_t, [label before, label of t]:

    inside a sample     transitions[i, j] + e_t[j]
    where one begins    end[i] + start[j] + e_t[j]
    padding             0 where i = j, FAR elsewhere: the identity

Their product in (log-sum-exp, +) sums over all paths of the row. Where a sample begins, its matrix is a column plus a
row, so the product falls apart there into the samples' partition functions: its logarithm is their sum. In (max, +)
the same product finds the best path. A product is associative, so neighbours are combined in log2(P) levels; from the
top down the labels at both ends of a node then give the best label in its middle.

Accuracy: scores count from their maximum at each token, so that sums along a row stay small. A log-sum-exp product is a
matrix product of exp(A - row maximum) and exp(B - column maximum). Its sums are no smaller than exp(-spread), the
largest spread within a column of `transitions` (or within `end`), because no column of B has a larger one, whatever
the scores are: right up to a spread of about 60, where trained transitions have a few units. That is also why no
transition can be forbidden here by a huge negative number. Labels that do not fit together are for the code that cuts
entities out, which has to expect them from the linear head anyway.
"""

import numpy as np
from mindspore import Parameter, Tensor, nn, ops
from mindspore import dtype as mstype

FAR = -1e30  # stands for minus infinity, finite so that 0 times it is 0
TINY = 1e-37  # the smallest sum whose logarithm is taken; about the smallest normal float32


class Crf(nn.Cell):
    """Scores of label after label, of the first and of the last label; loss in `loss`, best path in `construct`.

    Arguments of both: scores float [R, T, L]; sequence_ids, position_ids int32 [R, T], as `Backbone` takes them.
    """

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.transitions = Parameter(Tensor(np.zeros((labels, labels), np.float32)), name="transitions")
        self.start = Parameter(Tensor(np.zeros(labels, np.float32)), name="start")
        self.end = Parameter(Tensor(np.zeros(labels, np.float32)), name="end")
        self.count = labels
        self.columns, self.rows = ops.Split(2, labels), ops.Split(1, labels)
        self.labels = Tensor(np.arange(labels, dtype=np.int32))
        self.identity = Tensor(np.where(np.eye(labels), 0.0, FAR).astype(np.float32))
        self.left, self.right = Tensor(np.int32([1, 0])), Tensor(np.int32([0, 1]))
        self.matmul = ops.BatchMatMul()
        self.argmax = ops.Argmax(-1, mstype.int32)

    def loss(self, scores: Tensor, labels: Tensor, sequence_ids: Tensor, position_ids: Tensor) -> Tensor:
        """Mean over the samples of -log p(labels), a float32 scalar; labels int32 [R, T]. 0 without any sample."""
        scores, real, first = _prepared(scores, sequence_ids, position_ids)
        level = self._matrices(scores, real, first)
        while level.shape[0] > scores.shape[0]:
            level = self._log_product(level[0::2], level[1::2])
        # Nothing is before the first label of a row: `end` of any one label was added for it, here the first one's.
        total = _log_sum_exp(level[:, 0, :] + self.end) - self.end[0]  # [R]
        given = self._path_score(scores, _filled(labels), real, first)  # [R]
        return ops.sum(total - given) / ops.maximum(ops.sum(first), 1.0)

    def construct(self, scores: Tensor, sequence_ids: Tensor, position_ids: Tensor) -> Tensor:
        """The best path (Viterbi 1967) of every sample, int32 [R, T], 0 at padding."""
        rows, tokens = sequence_ids.shape
        scores, real, first = _prepared(scores, sequence_ids, position_ids)
        levels = (self._matrices(scores, real, first),)
        while levels[-1].shape[0] > rows:
            levels = (*levels, self._max_product(levels[-1][0::2], levels[-1][1::2]))
        after = self.argmax(levels[-1][:, 0, :] + self.end)  # the label at the right end of each node, first [R]
        before = ops.zeros_like(after)
        for height in range(len(levels) - 2, -1, -1):
            level = levels[height]
            middle = self._middle(level[0::2], level[1::2], before, after)
            before, after = self._interleaved(before, middle), self._interleaved(middle, after)
        best = ops.reshape(after, (rows, -1)) * ops.cast(real, mstype.int32)
        return best[:, :tokens]

    def _matrices(self, scores: Tensor, real: Tensor, first: Tensor) -> Tensor:
        """[R, P, L], [R, P] twice -> [R*P, L, L]."""
        inside, first = ops.reshape(real - first, (-1, 1, 1)), ops.reshape(first, (-1, 1))
        padding = ops.reshape(1.0 - real, (-1, 1, 1))
        column = ops.reshape(scores, (-1, self.count)) + first * self.start  # [R*P, L]
        before = ops.expand_dims(first * self.end, 2) + ops.expand_dims(column, 1)
        return inside * self.transitions + padding * self.identity + before

    def _path_score(self, scores: Tensor, labels: Tensor, real: Tensor, first: Tensor) -> Tensor:
        """The score of the labels int32 [R, P] -> [R]."""
        given = ops.cast(ops.equal(ops.expand_dims(labels, 2), self.labels), mstype.float32)
        given = given * ops.expand_dims(real, 2)  # [R, P, L], one 1 at each token
        # `end` counts at every token and is taken back where the sample goes on.
        single = given * (scores + ops.expand_dims(first, 2) * self.start + self.end)
        onward = ops.matmul(given[:, :-1], self.transitions - ops.expand_dims(self.end, 1))
        pairs = onward * given[:, 1:] * ops.expand_dims((real - first)[:, 1:], 2)
        return ops.sum(single, (1, 2)) + ops.sum(pairs, (1, 2))

    def _log_product(self, left: Tensor, right: Tensor) -> Tensor:  # [n, L, L] twice -> [n, L, L]
        row = ops.stop_gradient(ops.amax(left, 2, True))  # [n, L, 1]
        column = ops.stop_gradient(ops.amax(right, 1, True))  # [n, 1, L]
        total = self.matmul(ops.exp(left - row), ops.exp(right - column))
        return ops.log(ops.maximum(total, TINY)) + row + column

    def _max_product(self, left: Tensor, right: Tensor) -> Tensor:  # [n, L, L] twice -> [n, L, L]
        # One middle label after the other: all at once would hold n L^3 numbers and takes three times as long.
        columns, rows = self.columns(left), self.rows(right)  # L times [n, L, 1] and [n, 1, L]
        best = columns[0] + rows[0]
        for k in range(1, self.count):
            best = ops.maximum(best, columns[k] + rows[k])
        return best

    def _middle(self, left: Tensor, right: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """The best label between two nodes [n, L, L] whose outer labels are [n] each -> [n]."""
        row = ops.reduce_sum(left * ops.expand_dims(self._chosen(before), 2), 1)  # left[before], [n, L]
        column = ops.reduce_sum(right * ops.expand_dims(self._chosen(after), 1), 2)  # right[:, after], [n, L]
        return self.argmax(row + column)

    def _chosen(self, label: Tensor) -> Tensor:  # [n] -> [n, L], 1 at the label, 0 at the others
        return ops.cast(ops.equal(ops.expand_dims(label, 1), self.labels), mstype.float32)

    def _interleaved(self, even: Tensor, odd: Tensor) -> Tensor:  # [n] twice -> [2n]
        return ops.reshape(ops.expand_dims(even, 1) * self.left + ops.expand_dims(odd, 1) * self.right, (-1,))


def _prepared(scores: Tensor, sequence_ids: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores float32 [R, P, L], from their maximum at each token and 0 at padding; where there is a token, and where
    the first one of a sample, float32 [R, P]."""
    real = 1.0 - ops.cast(ops.equal(sequence_ids, 0), mstype.float32)
    first = real * ops.cast(ops.equal(position_ids, 0), mstype.float32)
    scores = ops.cast(scores, mstype.float32)
    scores = (scores - ops.stop_gradient(ops.amax(scores, -1, True))) * ops.expand_dims(real, 2)
    return _filled(scores), _filled(real), _filled(first)


def _filled(x: Tensor) -> Tensor:  # [R, T, ...] -> [R, P, ...], zeros behind
    tokens, size = x.shape[1], 2
    while size < tokens:
        size = 2 * size
    if size == tokens:
        return x
    return ops.cat((x, ops.zeros((x.shape[0], size - tokens, *x.shape[2:]), x.dtype)), 1)


def _log_sum_exp(x: Tensor) -> Tensor:  # [R, L] -> [R]
    largest = ops.stop_gradient(ops.amax(x, -1, True))
    return ops.log(ops.sum(ops.exp(x - largest), -1)) + ops.squeeze(largest, -1)
