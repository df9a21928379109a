"""Each optimizer's steps equal an independent one: torch for AdamW, the paper's formula in numpy for LAMB."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Parameter, Tensor
from transformers import get_linear_schedule_with_warmup, get_polynomial_decay_schedule_with_warmup

from models.common.errors import UserError
from models.common.optim import optimizers
from models.common.optim.groups import decays
from models.common.optim.loss_scale import DynamicLossScale
from models.common.optim.schedule import Schedule
from tests.tolerances import TOLERANCES

SHAPES = {
    "encoder.layers.0.feed_forward.up.weight": (16, 8),
    "encoder.layers.0.feed_forward.up.bias": (16,),
    "encoder.layers.0.feed_forward.norm.weight": (8,),
    "embeddings.word.weight": (30, 8),
    "heads.tagger.weight": (5, 8),
}
SETTINGS = {"weight_decay": 0.05, "beta1": 0.9, "beta2": 0.999, "eps": 1e-6}
STEPS = 12


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    weights = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    gradients = [
        {name: np.float32(rng.normal(size=shape) * 10.0 ** rng.integers(-6, 2)) for name, shape in SHAPES.items()}
        for _ in range(STEPS)
    ]
    rates = [1e-2 * (1 + step % 3) for step in range(STEPS)]
    return weights, gradients, rates


def run_ours(kind, weights, gradients, rates, factor=1.0, head_rate=1.0):
    parameters = [Parameter(Tensor(value), name=name) for name, value in weights.items()]
    optimizer = optimizers.optimizer_class(kind)(parameters, **SETTINGS, head_rate=head_rate)
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        scalars = (Tensor(value, ms.float32) for value in (factor, rate, step))
        optimizer(tuple(Tensor(gradient[name]) for name in weights), *scalars)
    return {p.name: p.asnumpy() for p in parameters}


def test_adamw_equals_torch(problem):
    weights, gradients, rates = problem
    head_rate = 20.0
    theirs = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in weights.items()}
    groups = [
        {"params": [p], "weight_decay": 0.05 * decays(name), "factor": head_rate if "heads" in name else 1.0}
        for name, p in theirs.items()
    ]
    reference = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-6)
    for gradient, rate in zip(gradients, rates, strict=True):
        for group in reference.param_groups:
            group["lr"] = rate * group["factor"]
        for name, p in theirs.items():
            p.grad = torch.tensor(gradient[name] * np.float32(0.5))
        reference.step()
    ours = run_ours("adamw", weights, gradients, rates, factor=0.5, head_rate=head_rate)
    tolerance = TOLERANCES["optimizer steps"]
    for name, p in theirs.items():
        np.testing.assert_allclose(ours[name], p.detach().numpy(), tolerance.rtol, tolerance.atol, err_msg=name)


def lamb_in_float64(weights, gradients, rates, head_rate):
    values = {name: value.astype(np.float64) for name, value in weights.items()}
    state = dict.fromkeys(weights, (0.0, 0.0))
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        for name, x in values.items():
            g = gradient[name].astype(np.float64)
            m, v = state[name]
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
            state[name] = m, v
            r = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-6)
            r = r + (0.0 if name.endswith("bias") or "norm" in name else 0.05) * x
            x_norm, r_norm = np.linalg.norm(x), np.linalg.norm(r)
            trust = x_norm / r_norm if x_norm > 0 and r_norm > 0 else 1.0
            values[name] = x - rate * (head_rate if "heads" in name else 1.0) * trust * r
    return values


@pytest.mark.parametrize(("zero_weights", "head_rate"), [(True, 1.0), (False, 4.0)])
def test_lamb_equals_the_paper(problem, zero_weights, head_rate):
    weights, gradients, rates = problem
    if zero_weights:  # the trust ratio of a parameter that is all zeros is 1
        weights = {name: np.zeros_like(value) for name, value in weights.items()}
    ours = run_ours("lamb", weights, gradients, rates, head_rate=head_rate)
    tolerance = TOLERANCES["optimizer steps"]
    for name, expected in lamb_in_float64(weights, gradients, rates, head_rate).items():
        np.testing.assert_allclose(ours[name], expected, tolerance.rtol, tolerance.atol, err_msg=name)


def test_unknown_optimizer_is_refused():
    with pytest.raises(UserError, match=r"'sgd'.*adamw, lamb"):
        optimizers.optimizer_class("sgd")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("embeddings.word.weight", True),
        ("encoder.layers.3.attention.query.weight", True),
        ("encoder.layers.3.attention.query.bias", False),
        ("encoder.layers.3.attention.norm.weight", False),
        ("embeddings.norm.bias", False),
        ("heads.span.bias", False),
    ],
)
def test_decay_skips_biases_and_norms(name, expected):
    assert decays(name) is expected


@pytest.mark.parametrize(("power", "end"), [(1.0, 0.0), (5.0, 1e-7)])
def test_schedule_equals_transformers(power, end):
    peak, warmup, total = 3e-4, 13, 130
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    if power == 1.0:
        reference = get_linear_schedule_with_warmup(optimizer, warmup, total)
    else:
        reference = get_polynomial_decay_schedule_with_warmup(optimizer, warmup, total, lr_end=end, power=power)
    ours = Schedule(peak, total, warmup, end, power)
    for step in range(total + 5):
        assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12, abs=1e-18)
        optimizer.step()
        reference.step()


def test_schedule_is_continuous_where_warmup_ends():
    schedule = Schedule(1e-4, 1000, 100, power=5.0)
    steps = np.array([schedule(step) for step in range(1000)])
    assert np.abs(np.diff(steps)).max() <= 1e-4 / 100 * 1.001  # no step is larger than one of the warm-up


def test_loss_scale_halves_on_overflow_and_doubles_after_a_window():
    scale = DynamicLossScale(scale=1024.0, window=3)
    for finite in (True, True, False, True, True, True, True):
        scale.update(finite)
    assert (scale.scale, scale.good_steps, scale.overflows) == (1024.0, 1, 1)
    for _ in range(50):
        scale.update(False)
    assert scale.scale == 1.0
