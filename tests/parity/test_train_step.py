"""Whole training steps against torch: packed rows here, one padded batch there, the same losses and final weights."""

import mindspore as ms
import numpy as np
import pytest
import torch
import transformers
from mindspore import Tensor, nn

from models.common.encoder_config import EncoderConfig
from models.common.nn.networks import SpanNetwork
from models.common.nn.training import SpanTrainingNetwork
from models.common.optim import optimizers
from models.common.optim.groups import decays
from models.common.packing import pack, plan_rows
from models.common.tasks import span
from models.common.train.step import TrainStep, scalar
from models.common.weights.loading import load_into
from models.common.weights.names import HUGGING_FACE_BERT
from tests.tolerances import TOLERANCES

CONFIG = EncoderConfig(
    vocab_size=80, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=48,
    max_position_embeddings=32, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
)  # fmt: skip
STEPS, SAMPLES, ROW = 5, 10, 32
# Some gradients are zero in exact arithmetic (of a key bias, of what is added to all logits of a sample alike). Adam
# would divide their rounding noise by its own size; this epsilon keeps it noise.
EPS = 1e-4


class RandomSamples:
    """Ragged samples with labels."""

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.lengths = rng.integers(4, 25, SAMPLES)
        self.starts = np.concatenate([[0], np.cumsum(self.lengths)])
        total = int(self.starts[-1])
        self.tokens = {
            "input_ids": rng.integers(1, 80, total).astype(np.int32),
            "token_type_ids": rng.integers(0, 2, total).astype(np.int32),
        }
        start = rng.integers(0, self.lengths)
        self.scalars = {"start_position": start, "end_position": rng.integers(start, self.lengths)}


def torch_losses_and_weights(state, batches, rate, clip):
    """transformers' model and torch's AdamW over padded batches; the softmax covers real tokens only."""
    names = {**CONFIG.to_dict(), "attn_implementation": "eager"}
    model = transformers.BertForQuestionAnswering(transformers.BertConfig(**names))
    model.load_state_dict(state)
    model.eval()  # no dropout
    parameters = {HUGGING_FACE_BERT.to_canonical(name): p for name, p in model.named_parameters()}
    groups = [
        {"params": [p for name, p in parameters.items() if decays(name) is flag], "weight_decay": 0.1 * flag}
        for flag in (True, False)
    ]
    optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.999), eps=EPS)
    losses, norms = [], []
    for samples in batches:
        real = torch.arange(ROW) < torch.tensor(samples.lengths)[:, None]
        padded = {}
        for name, values in samples.tokens.items():
            padded[name] = torch.zeros(SAMPLES, ROW, dtype=torch.long)
            padded[name][real] = torch.tensor(values, dtype=torch.long)
        output = model(attention_mask=real.long(), **padded)
        loss = 0.0
        for logits, key in ((output.start_logits, "start_position"), (output.end_logits, "end_position")):
            masked = logits.masked_fill(~real, -torch.inf)
            loss = loss + torch.nn.functional.cross_entropy(masked, torch.tensor(samples.scalars[key])) / 2
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(parameters.values(), clip)))
        optimizer.step()
        losses.append(loss.item())
    return losses, norms, {name: p.detach().numpy() for name, p in parameters.items()}


def ours_losses_and_weights(tensors, batches, rate, clip, max_samples, loss_scale):
    network = SpanNetwork(CONFIG)
    load_into(network, tensors)
    optimizer = optimizers.AdamW(network.trainable_params(), 0.1, 0.9, 0.999, EPS)
    step = TrainStep(SpanTrainingNetwork(network), optimizer, clip, loss_scaled=loss_scale != 1.0)
    losses, norms = [], []
    for index, samples in enumerate(batches):
        rows = plan_rows(samples.lengths, ROW, max_samples)
        batch = pack(samples, rows, ROW, row_count=SAMPLES)
        arrays = span.training_inputs(samples, batch, max_samples)
        key = Tensor([1, index], ms.int32)
        scalars = (scalar(rate), scalar(index + 1), scalar(loss_scale))
        loss, norm, finite = step(key, *scalars, *(Tensor(array) for array in arrays))
        assert bool(finite.asnumpy())
        losses.append(float(loss.asnumpy()))
        norms.append(float(norm.asnumpy()))
    return losses, norms, {p.name: p.asnumpy() for p in network.get_parameters()}


@pytest.fixture(scope="module")
def start():
    torch.manual_seed(3)
    model = transformers.BertForQuestionAnswering(transformers.BertConfig(**CONFIG.to_dict()))
    state = model.state_dict()
    tensors = {HUGGING_FACE_BERT.to_canonical(name): value.detach().numpy() for name, value in model.named_parameters()}
    return state, tensors


@pytest.mark.parametrize(
    ("max_samples", "clip", "loss_scale"),
    [(8, 0.5, 1.0), (1, 0.5, 1.0), (8, 0.5, 1024.0), (8, 1000.0, 1.0)],
    ids=["packed", "padded", "loss scaled", "not clipped"],
)
def test_steps_equal_torch(start, max_samples, clip, loss_scale):
    state, tensors = start
    batches = [RandomSamples(seed) for seed in range(STEPS)]
    expected_losses, expected_norms, expected = torch_losses_and_weights(state, batches, 1e-3, clip)
    losses, norms, weights = ours_losses_and_weights(tensors, batches, 1e-3, clip, max_samples, loss_scale)
    tolerance = TOLERANCES["training steps"]
    np.testing.assert_allclose(losses, expected_losses, tolerance.rtol, tolerance.atol)
    np.testing.assert_allclose(norms, expected_norms, tolerance.rtol, tolerance.atol)
    assert set(weights) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(weights[name], value, tolerance.rtol, tolerance.atol, err_msg=name)


def test_an_overflow_leaves_everything_as_it_was(start):
    _, tensors = start
    network = SpanNetwork(CONFIG)
    load_into(network, tensors)
    optimizer = optimizers.AdamW(network.trainable_params(), 0.1, 0.9, 0.999, EPS)
    step = TrainStep(SpanTrainingNetwork(network), optimizer, 1.0, loss_scaled=True)
    samples = RandomSamples(0)
    batch = pack(samples, plan_rows(samples.lengths, ROW), ROW, row_count=SAMPLES)
    arrays = [Tensor(array) for array in span.training_inputs(samples, batch, 8)]
    before = {name: p.asnumpy().copy() for name, p in step.parameters_dict().items()}
    for scale, expected in ((3e38, False), (1024.0, True)):
        *_, finite = step(Tensor([1, 0], ms.int32), scalar(1e-3), scalar(1), scalar(scale), *arrays)
        assert bool(finite.asnumpy()) is expected
        changed = [name for name, p in step.parameters_dict().items() if not np.array_equal(p.asnumpy(), before[name])]
        assert bool(changed) is expected


@pytest.mark.parametrize("loss_scale", [1.0, 1024.0])
def test_each_tensor_is_clipped_by_itself_as_in_the_original(start, loss_scale):
    """With momentum 0 and rate 1 a step takes the clipped gradients away. The original clips with nn.ClipByNorm."""
    _, tensors = start
    samples, gradients = RandomSamples(0), {}
    batch = pack(samples, plan_rows(samples.lengths, ROW), ROW, row_count=SAMPLES)
    arrays = [Tensor(array) for array in span.training_inputs(samples, batch, 8)]
    for limit in (0.0, 0.05):
        network = SpanNetwork(CONFIG)
        load_into(network, tensors)
        optimizer = optimizers.Momentum(network.trainable_params(), 0.0, 0.0, 0.999, EPS)
        step = TrainStep(SpanTrainingNetwork(network), optimizer, limit, loss_scale != 1.0, clip="tensor")
        step(Tensor([1, 0], ms.int32), scalar(1.0), scalar(1), scalar(loss_scale), *arrays)
        gradients[limit] = {p.name: tensors[p.name] - p.asnumpy() for p in network.get_parameters()}
    clipped = [name for name, value in gradients[0.0].items() if np.linalg.norm(value) > 0.05]
    assert 0 < len(clipped) < len(tensors)
    rtol, atol, _ = TOLERANCES["gradients"]
    original = nn.ClipByNorm()
    for name, value in gradients[0.0].items():
        expected = value * 0.05 / max(np.linalg.norm(value), 0.05)
        np.testing.assert_allclose(gradients[0.05][name], expected, rtol, atol, err_msg=name)
        theirs = original(Tensor(value), Tensor(0.05, ms.float32)).asnumpy()
        np.testing.assert_allclose(theirs, expected, rtol, atol, err_msg=name)
