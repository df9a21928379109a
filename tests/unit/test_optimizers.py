"""Each step of each optimizer and schedule equals independent ones: formulas in float64, torch, MindSpore's classes."""

import mindspore as ms
import numpy as np
import pytest
import torch
from mindspore import Parameter, Tensor, nn
from transformers import get_linear_schedule_with_warmup, get_polynomial_decay_schedule_with_warmup

from models.common.errors import UserError
from models.common.optim import optimizers
from models.common.optim.groups import decays
from models.common.optim.loss_scale import DynamicLossScale
from models.common.optim.schedule import LegacySchedule, Schedule
from models.common.optim.settings import OPTIMIZERS, OptimizerConfig
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


class Update(nn.Cell):
    """An optimizer whose gradients are arguments of their own: a tuple is a constant, which compiles for each step."""

    def __init__(self, optimizer):
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.count = len(optimizer.parameters)

    def construct(self, *gradients_and_scalars):
        return self.optimizer(gradients_and_scalars[: self.count], *gradients_and_scalars[self.count :])


def run_ours(kind, weights, gradients, rates, factor=1.0, head_rate=1.0):
    """The weights after each step."""
    parameters = [Parameter(Tensor(value), name=name) for name, value in weights.items()]
    update = Update(optimizers.optimizer_class(kind)(parameters, **SETTINGS, head_rate=head_rate))
    for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        scalars = (Tensor(value, ms.float32) for value in (factor, rate, step))
        update(*(Tensor(gradient[name]) for name in weights), *scalars)
        yield {p.name: p.asnumpy().copy() for p in parameters}


# As float32 holds them: 1 - 0.999 is 5e-5 larger then. A bias correction takes that out, but not all have one.
BETA1, BETA2 = float(np.float32(0.9)), float(np.float32(0.999))


def adam_direction(x, g, m, v, t, decay, corrected):
    m, v = BETA1 * m + (1 - BETA1) * g, BETA2 * v + (1 - BETA2) * g**2
    first, second = (1 - BETA1**t, 1 - BETA2**t) if corrected else (1, 1)
    return (m / first) / (np.sqrt(v / second) + 1e-6) + decay * x, m, v


def adamw(x, g, m, v, t, decay):
    """Loshchilov and Hutter 2019, algorithm 2."""
    return adam_direction(x, g, m, v, t, decay, corrected=True)


def adam_weight_decay(x, g, m, v, t, decay):
    """google-research/bert optimization.py, AdamWeightDecayOptimizer."""
    return adam_direction(x, g, m, v, t, decay, corrected=False)


def lamb(x, g, m, v, t, decay):
    """You et al. 2020, algorithm 2; the trust ratio of a parameter that is all zeros is 1."""
    r, m, v = adam_direction(x, g, m, v, t, decay, corrected=True)
    x_norm, r_norm = np.linalg.norm(x), np.linalg.norm(r)
    return (x_norm / r_norm if x_norm > 0 and r_norm > 0 else 1.0) * r, m, v


def momentum(x, g, m, v, _t, decay):
    """Sutskever et al. 2013 as mindspore.nn.Momentum documents it: v = v u + g, p = p - lr v."""
    m = BETA1 * m + g + decay * x
    return m, m, v


FORMULAS = {formula.__name__: formula for formula in (adamw, adam_weight_decay, lamb, momentum)}


def in_float64(kind, weights, gradients, rates, factor=1.0, head_rate=1.0):
    values = {name: value.astype(np.float64) for name, value in weights.items()}
    state = dict.fromkeys(weights, (0.0, 0.0))
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        for name, x in values.items():
            decay = 0.0 if name.endswith("bias") or "norm" in name else 0.05
            direction, *state[name] = FORMULAS[kind](x, gradient[name] * np.float64(factor), *state[name], t, decay)
            values[name] = x - rate * (head_rate if "heads" in name else 1.0) * direction
        yield dict(values)


def in_torch(make, weights, gradients, rates):
    theirs = {name: torch.nn.Parameter(torch.tensor(value)) for name, value in weights.items()}
    reference = make([{"params": [p], "weight_decay": 0.05 * decays(name)} for name, p in theirs.items()])
    for gradient, rate in zip(gradients, rates, strict=True):
        for group in reference.param_groups:
            group["lr"] = rate
        for name, p in theirs.items():
            p.grad = torch.tensor(gradient[name])
        reference.step()
        yield {name: p.detach().numpy().copy() for name, p in theirs.items()}


def in_mindspore(make, weights, gradients, rates):
    parameters = [Parameter(Tensor(value), name=name) for name, value in weights.items()]
    groups = [
        {"params": [p for p in parameters if decays(p.name) is flag], "weight_decay": 0.05 * flag}
        for flag in (True, False)
    ]
    reference = Update(make(groups, rates))
    for gradient in gradients:
        reference(*(Tensor(gradient[p.name]) for group in groups for p in group["params"]))
        yield {p.name: p.asnumpy().copy() for p in parameters}


def assert_same_steps(ours, theirs):
    rtol, atol, _ = TOLERANCES["optimizer steps"]
    for step, (own, expected) in enumerate(zip(ours, theirs, strict=True), start=1):
        for name, value in expected.items():
            np.testing.assert_allclose(own[name], value, rtol, atol, err_msg=f"{name} after step {step}")


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize(("zero_weights", "factor", "head_rate"), [(True, 1.0, 1.0), (False, 0.5, 4.0)])
def test_every_step_is_that_of_the_formula(problem, kind, zero_weights, factor, head_rate):
    weights, gradients, rates = problem
    if zero_weights:
        weights = {name: np.zeros_like(value) for name, value in weights.items()}
    arguments = (kind, weights, gradients, rates, factor, head_rate)
    assert_same_steps(run_ours(*arguments), in_float64(*arguments))


# mindspore.nn.Lamb, for one, has no CPU kernel.
@pytest.mark.parametrize(
    ("kind", "run", "make"),
    [
        ("adamw", in_torch, lambda groups: torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-6)),
        ("momentum", in_torch, lambda groups: torch.optim.SGD(groups, momentum=0.9)),
        ("momentum", in_mindspore, lambda groups, rates: nn.Momentum(groups, rates, 0.9)),
        ("adam_weight_decay", in_mindspore, lambda groups, rates: nn.AdamWeightDecay(groups, rates, eps=1e-6)),
    ],
    ids=["torch AdamW", "torch SGD", "MindSpore Momentum", "MindSpore AdamWeightDecay"],
)
def test_every_step_is_that_of_the_library(problem, kind, run, make):
    weights, gradients, rates = problem
    assert_same_steps(run_ours(kind, *problem), run(make, weights, gradients, rates))


def test_unknown_optimizer_is_refused():
    with pytest.raises(UserError, match=r"'sgd'.*adamw, lamb, adam_weight_decay, momentum"):
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


@pytest.mark.parametrize(("power", "warmup"), [(1.0, 0), (2.0, 10), (5.0, 13)])
def test_legacy_schedule_is_the_originals(power, warmup):
    """BertLearningRate of the original: WarmUpLR below the warm-up's end, PolynomialDecayLR from there."""
    peak, total, end = 3e-4, 130, 1e-7
    decay = nn.PolynomialDecayLR(peak, end, total, power)
    rise = nn.WarmUpLR(peak, warmup) if warmup else None
    ours = LegacySchedule(peak, total, warmup, end, power)
    for step in range(total + 5):
        theirs = (rise if step < warmup else decay)(Tensor(step, ms.int32))
        assert ours(step) == pytest.approx(float(theirs.asnumpy()), rel=2e-5, abs=1e-10)  # MindSpore: in float32


def test_settings_make_the_schedule_that_they_name():
    settings = {"learning_rate": 1e-3, "warmup_ratio": 0.1, "power": 5.0}
    legacy = OptimizerConfig(**settings, schedule="legacy").schedule_of(100)
    continuous = OptimizerConfig(**settings).schedule_of(100)
    assert (continuous(9), continuous(10)) == pytest.approx((0.9e-3, 1e-3))
    assert (legacy(9), legacy(10)) == pytest.approx((0.9e-3, 0.9**5 * 1e-3))  # the jump


def test_power_0_without_warm_up_is_a_constant_rate():
    """The original's Momentum has no schedule."""
    schedule = Schedule(2e-5, 10, power=0.0)
    assert {schedule(step) for step in range(10)} == {2e-5}


def test_settings_without_a_use_are_named():
    assert OptimizerConfig(name="momentum").idle == []
    assert "beta2 0.9 has no use with momentum" in OptimizerConfig(name="momentum", beta2=0.9).idle[0]
    assert "clip tensor has no use" in OptimizerConfig(clip="tensor", max_grad_norm=0.0).idle[0]


def test_loss_scale_halves_on_overflow_and_doubles_after_a_window():
    scale = DynamicLossScale(scale=1024.0, window=3)
    for finite in (True, True, False, True, True, True, True):
        scale.update(finite)
    assert (scale.scale, scale.good_steps, scale.overflows) == (1024.0, 1, 1)
    for _ in range(50):
        scale.update(False)
    assert scale.scale == 1.0


def test_loss_scale_is_exhausted_at_1_or_out_of_patience():
    scale = DynamicLossScale(scale=4.0)
    for expected in (False, False, True, True):
        assert scale.exhausted is expected
        scale.update(False)
    assert (scale.overflows, scale.overflows_in_a_row) == (4, 4)
    patient = DynamicLossScale(scale=2.0**60, patience=3)
    for finite, expected in ((False, False), (False, False), (True, True), (False, False), (False, False)):
        assert patient.exhausted is expected  # before the step: a third overflow would be one too many
        patient.update(finite)
    assert patient.exhausted
    assert (patient.overflows, patient.overflows_in_a_row) == (4, 2)
