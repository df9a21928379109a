"""BERT and ERNIE against transformers: every layer, every output, the loss and the gradient of every parameter."""

from collections.abc import Iterable, Sequence
from types import SimpleNamespace

import mindspore
import numpy as np
import pytest
import torch
import transformers
from mindspore import Tensor, nn

from models.common.encoder_config import EncoderConfig
from models.common.nn.dropout import Dropout
from models.common.nn.kernels import accelerate
from models.common.nn.networks import EncoderNetwork, SpanNetwork
from models.common.nn.training import SpanTrainingNetwork
from models.common.packing import pack, unpack_tokens
from models.common.weights.canonical import load_config
from models.common.weights.loading import load_into
from models.common.weights.names import HUGGING_FACE_BERT, canonical_shapes
from tests.tolerances import TOLERANCES

# One of each kind that a checkpoint may bring: activation, heads, layers, token types, odd sizes. An epsilon of 0.1
# shows that it is taken from the config: 1e-5 and 1e-12 differ by less than float32 sums do.
CONFIGS = {
    "bert": EncoderConfig(
        vocab_size=97, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=40,
    ),
    "ernie": EncoderConfig(
        vocab_size=50, hidden_size=24, num_hidden_layers=3, num_attention_heads=2, intermediate_size=56,
        max_position_embeddings=23, type_vocab_size=4, hidden_act="relu", layer_norm_eps=1e-5,
    ),
    "odd": EncoderConfig(
        vocab_size=61, hidden_size=15, num_hidden_layers=1, num_attention_heads=1, intermediate_size=20,
        max_position_embeddings=19, type_vocab_size=1, hidden_act="gelu_new", layer_norm_eps=0.1,
    ),
}  # fmt: skip
SHAPES = {"bert": (3, 40), "ernie": (2, 17), "odd": (5, 9)}
NETWORK_INPUTS = ("input_ids", "sequence_ids", "token_type_ids", "position_ids")
LOSS_INPUTS = (*NETWORK_INPUTS, "start_positions", "end_positions", "sample_weights")


@pytest.fixture(scope="module", autouse=True)
def graph_mode():
    before = mindspore.get_context("mode")
    mindspore.set_context(mode=mindspore.GRAPH_MODE)
    yield
    mindspore.set_context(mode=before)


class Everything(nn.Cell):
    """Loss, gradients, hidden states and logits in one graph."""

    def __init__(self, network: SpanNetwork) -> None:
        super().__init__(auto_prefix=False)
        self.network = network
        self.loss_and_gradients = mindspore.value_and_grad(
            SpanTrainingNetwork(network), None, network.trainable_params()
        )

    def construct(self, ids, sequence_ids, types, positions, starts, ends, weights):
        loss, gradients = self.loss_and_gradients(ids, sequence_ids, types, positions, starts, ends, weights)
        states = self.network.hidden_states(ids, sequence_ids, types, positions)
        return loss, gradients, states, self.network(ids, sequence_ids, types, positions)


def run_everything(cell: Everything, batch: dict[str, np.ndarray]) -> SimpleNamespace:
    loss, gradients, states, (start, end) = cell(*(Tensor(batch[name]) for name in LOSS_INPUTS))
    names = [parameter.name for parameter in cell.network.trainable_params()]
    return SimpleNamespace(
        loss=loss.asnumpy(),
        states=[state.asnumpy() for state in states],
        start=start.asnumpy(),
        end=end.asnumpy(),
        gradients={name: gradient.asnumpy() for name, gradient in zip(names, gradients, strict=True)},
    )


def random_weights(config: EncoderConfig, groups: Sequence[str], seed: int, labels: int = 2) -> dict[str, np.ndarray]:
    """Weights large enough that softmax, activation and LayerNorm all work away from their linear range."""
    generator = np.random.default_rng(seed)
    tensors = {}
    for name, shape in canonical_shapes(config, groups, labels).items():
        values = generator.normal(0.0, 0.3, shape)
        tensors[name] = (values + name.endswith("norm.weight")).astype(np.float32)
    return tensors


def random_batch(config: EncoderConfig, rows: int, tokens: int, padded: bool, seed: int = 0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, tokens, rows) if padded else np.full(rows, tokens)
    real = np.arange(tokens) < lengths[:, None]
    start = generator.integers(0, lengths)
    arrays = {
        # Never 0 on a real token: transformers gives the row of [PAD] no gradient (padding_idx).
        "input_ids": generator.integers(1, config.vocab_size, (rows, tokens)) * real,
        "sequence_ids": real,
        "token_type_ids": generator.integers(0, config.type_vocab_size, (rows, tokens)) * real,
        "position_ids": np.tile(np.arange(tokens), (rows, 1)),
        "start_positions": start[:, None],
        "end_positions": generator.integers(start, lengths)[:, None],
    }
    batch = {name: values.astype(np.int32) for name, values in arrays.items()}
    batch["sample_weights"] = np.ones((rows, 1), np.float32)
    return batch


def torch_model(kind: str, config: EncoderConfig, tensors: dict[str, np.ndarray], **settings: int) -> torch.nn.Module:
    """BERT or ERNIE of transformers with the given canonical weights, every one of which must find its place.

    kind: "Model", "ForQuestionAnswering", ...; settings: further ones of its config.
    """
    family = "Ernie" if config.hidden_act == "relu" else "Bert"
    settings = {**config.to_dict(), **settings, "attn_implementation": "eager"}
    model = getattr(transformers, family + kind)(getattr(transformers, f"{family}Config")(**settings)).eval()
    prefix = f"{model.base_model_prefix}." if kind == "Model" else ""
    state = {peer_name(name, model).removeprefix(prefix): torch.tensor(values) for name, values in tensors.items()}
    model.load_state_dict(state, strict=True)
    return model


def peer_name(name: str, model: torch.nn.Module) -> str:
    """A canonical name in transformers, which calls the encoder after the family, and all that classifies alike."""
    head, _, rest = name.rpartition(".")
    if head in ("heads.classifier", "heads.tagger"):
        return f"classifier.{rest}"
    return HUGGING_FACE_BERT.from_canonical(name).replace("bert.", f"{model.base_model_prefix}.", 1)


def peer_gradients(model: torch.nn.Module, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Canonical name -> gradient."""
    parameters = dict(model.named_parameters())
    return {name: parameters[peer_name(name, model)].grad.numpy() for name in names}


def torch_everything(model: torch.nn.Module, batch: dict[str, np.ndarray], names: Iterable[str]) -> SimpleNamespace:
    """The same as `run_everything`. transformers' loss lets padding take part in the softmax, so a padded batch's
    reference loss is taken here from its logits, with padding masked out."""
    real = torch.tensor(batch["sequence_ids"]) > 0
    targets = [torch.tensor(batch[name][:, 0]).long() for name in ("start_positions", "end_positions")]
    model.zero_grad()
    outputs = model(
        torch.tensor(batch["input_ids"]),
        attention_mask=real.long(),
        token_type_ids=torch.tensor(batch["token_type_ids"]),
        output_hidden_states=True,
        start_positions=targets[0],
        end_positions=targets[1],
    )
    logits = (outputs.start_logits, outputs.end_logits)
    loss = outputs.loss
    if not real.all():
        masked = [scores.masked_fill(~real, -torch.inf) for scores in logits]
        loss = sum(torch.nn.functional.cross_entropy(*pair) for pair in zip(masked, targets, strict=True)) / 2
    loss.backward()
    return SimpleNamespace(
        loss=loss.detach().numpy(),
        states=[state.detach().numpy() for state in outputs.hidden_states],
        start=logits[0].detach().numpy(),
        end=logits[1].detach().numpy(),
        gradients=peer_gradients(model, names),
    )


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: str, what: str = "") -> None:
    rtol, atol, _ = TOLERANCES[tolerance]
    np.testing.assert_allclose(actual, expected, rtol, atol, err_msg=f"{tolerance} {what}")


def assert_same(actual: SimpleNamespace, expected: SimpleNamespace, real: np.ndarray) -> None:
    assert len(actual.states) == len(expected.states)
    for layer, (ours, theirs) in enumerate(zip(actual.states, expected.states, strict=True)):
        assert_close(ours[real], theirs[real], "hidden states", f"after layer {layer}")
    assert_close(actual.start[real], expected.start[real], "logits", "start")
    assert_close(actual.end[real], expected.end[real], "logits", "end")
    assert_close(actual.loss, expected.loss, "loss")
    assert_same_gradients(actual.gradients, expected.gradients)


def assert_same_gradients(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_close(actual[name], gradient, "gradients", name)


@pytest.fixture(scope="module", params=CONFIGS)
def pair(request):
    """Our network and the reference with the same random weights, and a batch shape."""
    config = CONFIGS[request.param]
    tensors = random_weights(config, ["heads.span"], seed=1)
    network = SpanNetwork(config)
    load_into(network, tensors)
    reference = torch_model("ForQuestionAnswering", config, tensors)
    return config, Everything(network), reference, SHAPES[request.param], tensors


@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_question_answering_is_that_of_transformers(pair, padded):
    config, cell, reference, shape, tensors = pair
    batch = random_batch(config, *shape, padded)
    expected = torch_everything(reference, batch, tensors)
    assert_same(run_everything(cell, batch), expected, batch["sequence_ids"] > 0)


@pytest.mark.parametrize("name", CONFIGS)
def test_pooled_output_is_that_of_transformers(name):
    config = CONFIGS[name]
    tensors = random_weights(config, ["pooler"], seed=2)
    network = EncoderNetwork(config)
    load_into(network, tensors)
    batch = random_batch(config, *SHAPES[name], padded=True)
    hidden, pooled = network(*(Tensor(batch[name]) for name in NETWORK_INPUTS))
    with torch.no_grad():
        expected = torch_model("Model", config, tensors)(
            torch.tensor(batch["input_ids"]),
            attention_mask=torch.tensor(batch["sequence_ids"]),
            token_type_ids=torch.tensor(batch["token_type_ids"]),
        )
    real = batch["sequence_ids"] > 0
    assert_close(hidden.asnumpy()[real], expected.last_hidden_state.numpy()[real], "hidden states")
    assert_close(pooled.asnumpy(), expected.pooler_output.numpy(), "pooled output")


def test_real_weights_give_what_transformers_gives(minilm_dir):
    """MiniLM-L6 on English text; its span head is new, so both sides get ours."""
    config = load_config(minilm_dir / "config.json")
    network = SpanNetwork(config, seed=3)
    bare = transformers.BertModel.from_pretrained(minilm_dir, attn_implementation="eager")
    tensors = {HUGGING_FACE_BERT.to_canonical(name): value.numpy() for name, value in bare.state_dict().items()}
    load_into(network, tensors, allow_unused=["pooler.*"], allow_new=["heads.span.*"])
    tensors = {name: parameter.asnumpy() for name, parameter in network.parameters_dict().items()}
    reference = torch_model("ForQuestionAnswering", config, tensors)

    tokenizer = transformers.BertTokenizer.from_pretrained(minilm_dir)
    questions = ["Who wrote the paper on attention?", "What does the network compute for padding?"]
    contexts = ["Ashish Vaswani and seven others wrote 'Attention is all you need' in 2017.", "Nothing."]
    encoded = tokenizer(questions, contexts, padding="max_length", max_length=48, return_tensors="np")
    batch = random_batch(config, 2, 48, padded=False)
    batch["input_ids"] = encoded["input_ids"].astype(np.int32)
    batch["token_type_ids"] = encoded["token_type_ids"].astype(np.int32)
    batch["sequence_ids"] = encoded["attention_mask"].astype(np.int32)
    batch["start_positions"] = np.array([[9], [0]], np.int32)
    batch["end_positions"] = np.array([[13], [0]], np.int32)
    expected = torch_everything(reference, batch, tensors)
    assert_same(run_everything(Everything(network), batch), expected, batch["sequence_ids"] > 0)


LENGTHS = np.array([7, 3, 12, 1, 9, 5, 11, 2])
ROWS = ((2, 0, 3), (6, 4), (5, 7, 1))  # 20 tokens, 20 and 10
MAX_SAMPLES = 4


@pytest.fixture(scope="module", params=[("bert", "plain"), ("bert", "kernels"), ("ernie", "kernels")], ids="-".join)
def packed(request):
    """A network, its weights and eight samples without padding, ready to be packed in any way."""
    config = CONFIGS[request.param[0]]
    tensors = random_weights(config, ["heads.span"], seed=4)
    network = SpanNetwork(config)
    load_into(network, tensors)
    if request.param[1] == "kernels":
        assert accelerate(network), "needs a C++ compiler"
    generator = np.random.default_rng(5)
    starts = np.concatenate([[0], np.cumsum(LENGTHS)])
    tokens = {
        "input_ids": generator.integers(1, config.vocab_size, starts[-1]).astype(np.int32),
        "token_type_ids": generator.integers(0, 2, starts[-1]).astype(np.int32),
    }
    answer = generator.integers(0, LENGTHS)
    scalars = {"start_positions": answer, "end_positions": generator.integers(answer, LENGTHS)}
    samples = SimpleNamespace(tokens=tokens, starts=starts, scalars=scalars)
    return SimpleNamespace(config=config, tensors=tensors, cell=Everything(network), samples=samples)


def pack_for_training(samples: SimpleNamespace, rows: tuple[tuple[int, ...], ...]) -> tuple:
    """Rows of 20 tokens, one of them empty."""
    batch = pack(samples, rows, row_length=20, row_count=4)
    arrays = dict(batch.arrays)
    for name, values in samples.scalars.items():
        in_row = (values[batch.samples] + batch.begins).astype(np.int32)
        arrays[name] = batch.per_sample_grid(in_row, MAX_SAMPLES)
    arrays["sample_weights"] = batch.per_sample_grid(np.ones(len(batch.samples), np.float32), MAX_SAMPLES)
    return batch, arrays


def logits_by_sample(batch, result: SimpleNamespace) -> dict[int, np.ndarray]:
    return dict(unpack_tokens(batch, np.stack([result.start, result.end], -1), LENGTHS))


def test_packed_samples_are_those_that_run_alone(packed):
    """Logits, loss and gradients of a packed batch, against transformers on each sample alone, without padding."""
    batch, arrays = pack_for_training(packed.samples, ROWS)
    result = run_everything(packed.cell, arrays)
    ours = logits_by_sample(batch, result)
    model = torch_model("ForQuestionAnswering", packed.config, packed.tensors)
    alone = []
    for sample, length in enumerate(LENGTHS):
        tokens = slice(packed.samples.starts[sample], packed.samples.starts[sample + 1])
        single = {name: values[None, tokens] for name, values in packed.samples.tokens.items()}
        single["sequence_ids"] = np.ones((1, length), np.int32)
        single |= {name: values[sample].reshape(1, 1) for name, values in packed.samples.scalars.items()}
        alone.append(torch_everything(model, single, packed.tensors))
        gradients = {name: gradient.copy() for name, gradient in alone[-1].gradients.items()}
        alone[-1].gradients = gradients  # torch reuses the arrays
        theirs = np.stack([alone[-1].start[0], alone[-1].end[0]], -1)
        assert_close(ours[sample], theirs, "logits", f"of sample {sample}")
    assert_close(result.loss, np.mean([one.loss for one in alone]), "loss")
    mean_gradients = {name: np.mean([one.gradients[name] for one in alone], 0) for name in alone[0].gradients}
    assert_same_gradients(result.gradients, mean_gradients)


def test_how_samples_are_packed_changes_nothing(packed):
    first_batch, arrays = pack_for_training(packed.samples, ROWS)
    first = run_everything(packed.cell, arrays)
    second_batch, arrays = pack_for_training(packed.samples, ((1, 5, 7), (4, 3), (0, 2), (6,)))
    second = run_everything(packed.cell, arrays)
    expected = logits_by_sample(first_batch, first)
    for sample, logits in logits_by_sample(second_batch, second).items():
        assert_close(logits, expected[sample], "packing", f"logits of sample {sample}")
    assert_close(second.loss, first.loss, "packing", "loss")
    for name, gradient in first.gradients.items():
        assert_close(second.gradients[name], gradient, "packing", name)


def test_what_padding_holds_is_irrelevant(packed):
    """To the last bit: what padding contributes is multiplied by an exact zero."""
    _, arrays = pack_for_training(packed.samples, ROWS)
    padding = arrays["sequence_ids"] == 0
    assert padding[3].all() and padding[2].any()
    expected = run_everything(packed.cell, arrays)
    generator = np.random.default_rng(6)
    for name, limit in (("input_ids", 50), ("token_type_ids", 2), ("position_ids", 23)):
        arrays[name] = np.where(padding, generator.integers(0, limit, padding.shape), arrays[name]).astype(np.int32)
    missing = arrays["sample_weights"] == 0
    for name in ("start_positions", "end_positions"):
        arrays[name] = np.where(missing, generator.integers(0, 20, missing.shape), arrays[name]).astype(np.int32)
    actual = run_everything(packed.cell, arrays)
    assert np.isfinite(actual.start).all() and np.isfinite(actual.states).all()
    np.testing.assert_array_equal(actual.start[~padding], expected.start[~padding])
    np.testing.assert_array_equal(actual.end[~padding], expected.end[~padding])
    np.testing.assert_array_equal(actual.loss, expected.loss)
    for name, gradient in expected.gradients.items():
        np.testing.assert_array_equal(actual.gradients[name], gradient, err_msg=name)


def test_one_graph_takes_any_number_of_rows_and_tokens():
    """Compiled once for [None, None], the network gives the logits of the graphs with fixed shapes."""
    config = CONFIGS["bert"]
    fixed, dynamic = SpanNetwork(config), SpanNetwork(config)
    dynamic.set_inputs(*[Tensor(shape=[None, None], dtype=mindspore.int32)] * 4)
    for rows, tokens in ((2, 9), (3, 14)):
        batch = random_batch(config, rows, tokens, padded=True)
        inputs = [Tensor(batch[name]) for name in NETWORK_INPUTS]
        for actual, expected in zip(dynamic(*inputs), fixed(*inputs), strict=True):
            assert_close(actual.asnumpy(), expected.asnumpy(), "packing")


def test_dropout_follows_the_key_and_every_site_has_its_own_stream():
    config = CONFIGS["bert"]
    network = SpanNetwork(config, seed=9)
    sites = [cell for _, cell in network.cells_and_names() if isinstance(cell, Dropout)]
    assert len(sites) == 1 + 3 * config.num_hidden_layers
    assert len({cell.stream for cell in sites}) == len(sites)
    batch = random_batch(config, 2, 11, padded=True)
    inputs = [Tensor(batch[name]) for name in LOSS_INPUTS]
    cell = SpanTrainingNetwork(network)
    losses = [float(cell(*inputs, Tensor(key, mindspore.int32))) for key in ([1, 1], [1, 2], [2, 1], [1, 1])]
    assert losses[0] == losses[3] and len(set(losses)) == 3
    assert float(cell(*inputs)) not in losses


def test_initial_weights_depend_on_the_seed_and_the_name_alone():
    config = CONFIGS["bert"]
    first, again, other = (SpanNetwork(config, seed=seed).parameters_dict() for seed in (7, 7, 8))
    bare = EncoderNetwork(config, seed=7).parameters_dict()
    assert {name: value.shape for name, value in first.items()} == canonical_shapes(config, ["heads.span"])
    assert {name: value.shape for name, value in bare.items()} == canonical_shapes(config, ["pooler"])
    for name, parameter in first.items():
        values = parameter.asnumpy()
        np.testing.assert_array_equal(values, again[name].asnumpy())
        if name in bare:
            np.testing.assert_array_equal(values, bare[name].asnumpy())
        if values.ndim == 1:
            assert (values == name.endswith("norm.weight")).all()
        else:
            assert (values != other[name].asnumpy()).any()
            assert np.abs(values).max() <= 2 * config.initializer_range
    # Standard deviation of a normal cut off at two deviations: 0.8796 of the uncut one.
    word = first["embeddings.word.weight"].asnumpy()
    assert np.std(word) == pytest.approx(0.8796 * config.initializer_range, rel=0.03)
