"""The BiLSTM over packed rows against torch.nn.LSTM over each sample apart: outputs and every gradient."""

from types import SimpleNamespace

import mindspore
import numpy as np
import pytest
import torch
from mindspore import Tensor, nn

from models.common.nn.layers import initialise
from models.common.nn.lstm import BiLstm
from tests.parity.test_bert_network import CONFIGS
from tests.tolerances import TOLERANCES

INPUTS, WIDTH, TOKENS = 7, 5, 10
# Lengths of the samples of each row: one behind the other, a full row, an empty one, samples of one token.
CASES = {"packed": (((3, 1, 5), (10,), (), (1, 1, 8)), 3), "padded": (((4,), (10,), (1,)), 1)}
NAMES = {"weight_input": "weight_ih_l0", "weight_hidden": "weight_hh_l0", "bias": "bias_ih_l0"}  # ours -> torch's


@pytest.fixture(scope="module", autouse=True)
def graph_mode():
    before = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    yield
    mindspore.set_context(mode=before)


class Everything(nn.Cell):
    """Outputs, and the gradients of their weighted sum by the inputs and by every parameter, in one graph."""

    def __init__(self, lstm: BiLstm) -> None:
        super().__init__(auto_prefix=False)
        self.lstm = lstm
        self.gradients = mindspore.grad(self.weighted, 0, lstm.trainable_params())

    def weighted(self, x, sequence_ids, weights):
        return (self.lstm(x, sequence_ids) * weights).sum()

    def construct(self, x, sequence_ids, weights):
        return self.lstm(x, sequence_ids), self.gradients(x, sequence_ids, weights)


def run(cell: Everything, x: np.ndarray, sequence_ids: np.ndarray, weights: np.ndarray) -> SimpleNamespace:
    outputs, (by_x, by_parameters) = cell(Tensor(x), Tensor(sequence_ids), Tensor(weights))
    names = [parameter.name for parameter in cell.lstm.trainable_params()]
    gradients = {name: value.asnumpy() for name, value in zip(names, by_parameters, strict=True)}
    return SimpleNamespace(outputs=outputs.asnumpy(), gradients={"x": by_x.asnumpy(), **gradients})


def torch_name(name: str) -> str:
    """forward.weight_input -> weight_ih_l0, backward.weight_input -> weight_ih_l0_reverse, ..."""
    direction, parameter = name.split(".")
    return NAMES[parameter] + ("_reverse" if direction == "backward" else "")


def torch_samples(cell: Everything, x: np.ndarray, samples: list, weights: np.ndarray) -> SimpleNamespace:
    """Each sample alone. torch adds two biases; the second is 0 here."""
    reference = torch.nn.LSTM(INPUTS, WIDTH, bidirectional=True, batch_first=True)
    parameters = dict(reference.named_parameters())
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.zero_()
        for name, value in cell.lstm.parameters_dict().items():
            parameters[torch_name(name)].copy_(torch.tensor(value.asnumpy()))
    leaf = torch.tensor(x, requires_grad=True)
    outputs = torch.zeros(*x.shape[:2], 2 * WIDTH)
    for row, own in samples:
        outputs[row, own] = reference(leaf[row, own][None])[0][0]
    (outputs * torch.tensor(weights)).sum().backward()
    gradients = {name: parameters[torch_name(name)].grad.numpy() for name in cell.lstm.parameters_dict()}
    return SimpleNamespace(outputs=outputs.detach().numpy(), gradients={"x": leaf.grad.numpy(), **gradients})


@pytest.fixture(scope="module", params=CASES)
def case(request):
    rows, max_samples = CASES[request.param]
    lstm = BiLstm(INPUTS, WIDTH, max_samples)
    rng = np.random.default_rng(3)
    for parameter in lstm.trainable_params():
        parameter.set_data(Tensor(rng.normal(0.0, 0.7, parameter.shape).astype(np.float32)))
    sequence_ids, samples = np.zeros((len(rows), TOKENS), np.int32), []
    for row, lengths in enumerate(rows):
        ends = np.cumsum(lengths, dtype=int)
        for slot, (length, end) in enumerate(zip(lengths, ends, strict=True)):
            sequence_ids[row, end - length : end] = slot + 1
            samples.append((row, slice(end - length, end)))
    x = rng.normal(0.0, 2.0, (len(rows), TOKENS, INPUTS)).astype(np.float32)
    weights = rng.normal(0.0, 1.0, (len(rows), TOKENS, 2 * WIDTH)).astype(np.float32)
    return SimpleNamespace(cell=Everything(lstm), x=x, ids=sequence_ids, samples=samples, weights=weights)


def test_packed_samples_are_those_of_torch_alone(case):
    actual = run(case.cell, case.x, case.ids, case.weights)
    expected = torch_samples(case.cell, case.x, case.samples, case.weights)
    rtol, atol, _ = TOLERANCES["hidden states"]
    np.testing.assert_allclose(actual.outputs, expected.outputs, rtol, atol)
    rtol, atol, _ = TOLERANCES["gradients"]
    assert actual.gradients.keys() == expected.gradients.keys()
    for name, gradient in expected.gradients.items():
        np.testing.assert_allclose(actual.gradients[name], gradient, rtol, atol, err_msg=name)


def test_no_sample_sees_another_or_padding(case):
    """To the last bit."""
    first = run(case.cell, case.x, case.ids, case.weights)
    row, own = case.samples[0]
    changed = np.ones(case.ids.shape, bool)
    changed[row, own] = False
    x = np.where(changed[..., None], -case.x, case.x)
    second = run(case.cell, x, case.ids, case.weights)
    np.testing.assert_array_equal(second.outputs[row, own], first.outputs[row, own])
    np.testing.assert_array_equal(second.gradients["x"][row, own], first.gradients["x"][row, own])
    assert (second.outputs[case.ids == 0] == 0).all() and (second.gradients["x"][case.ids == 0] == 0).all()
    assert (second.outputs != first.outputs).any()


def test_first_weights_are_uniform_and_depend_on_the_seed():
    first, again, other = (BiLstm(INPUTS, 64, 1) for _ in range(3))
    for lstm, seed in ((first, 1), (again, 1), (other, 2)):
        initialise(lstm, CONFIGS["bert"], seed)
    for name, parameter in first.parameters_dict().items():
        values = parameter.asnumpy()
        np.testing.assert_array_equal(values, again.parameters_dict()[name].asnumpy())
        assert (values != other.parameters_dict()[name].asnumpy()).any()
        assert np.abs(values).max() <= 1 / 8
        # The deviation of a uniform distribution of half width 1/8.
        assert values.std() == pytest.approx(1 / 8 / np.sqrt(3), rel=0.1)
