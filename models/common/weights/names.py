"""Canonical parameter names and one invertible table per other naming family; no framework, no file access.

Paddle's families are in `paddle_names`.

Legend: V vocabulary, H hidden, P positions, S token types (segments), F feed-forward, D width of an attention head,
K relative distances, C classes or tags, E hidden of the LSTM in one direction. `{i}` is the layer number.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from models.common.encoder_config import EncoderConfig

_LAYER = re.compile(r"(?<=[._])(0|[1-9][0-9]{0,2})(?=[._])")

Row = tuple[str, str]


def dense(canonical: str, other: str) -> list[Row]:
    """A weight and a bias that the other family calls so too: dense layers, and the norms of most."""
    return [(f"{canonical}.weight", f"{other}.weight"), (f"{canonical}.bias", f"{other}.bias")]


def _norm(canonical: str, other: str) -> list[Row]:
    """MindSpore's own LayerNorm names its scale gamma and its shift beta."""
    return [(f"{canonical}.weight", f"{other}.gamma"), (f"{canonical}.bias", f"{other}.beta")]


# Dense weights are [out, in], as in Hugging Face and in the old ModelZoo.
CANONICAL_SHAPES: dict[str, tuple[str | int, ...]] = {
    "embeddings.word.weight": ("V", "H"),
    "embeddings.position.weight": ("P", "H"),
    "embeddings.token_type.weight": ("S", "H"),
    "embeddings.norm.weight": ("H",),
    "embeddings.norm.bias": ("H",),
    "encoder.layers.{i}.attention.query.weight": ("H", "H"),
    "encoder.layers.{i}.attention.query.bias": ("H",),
    "encoder.layers.{i}.attention.key.weight": ("H", "H"),
    "encoder.layers.{i}.attention.key.bias": ("H",),
    "encoder.layers.{i}.attention.value.weight": ("H", "H"),
    "encoder.layers.{i}.attention.value.bias": ("H",),
    "encoder.layers.{i}.attention.output.weight": ("H", "H"),
    "encoder.layers.{i}.attention.output.bias": ("H",),
    "encoder.layers.{i}.attention.norm.weight": ("H",),
    "encoder.layers.{i}.attention.norm.bias": ("H",),
    "encoder.layers.{i}.attention.relative.weight": ("K", "D"),
    "encoder.layers.{i}.feed_forward.up.weight": ("F", "H"),
    "encoder.layers.{i}.feed_forward.up.bias": ("F",),
    "encoder.layers.{i}.feed_forward.down.weight": ("H", "F"),
    "encoder.layers.{i}.feed_forward.down.bias": ("H",),
    "encoder.layers.{i}.feed_forward.norm.weight": ("H",),
    "encoder.layers.{i}.feed_forward.norm.bias": ("H",),
    "pooler.weight": ("H", "H"),
    "pooler.bias": ("H",),
    "heads.span.weight": (2, "H"),
    "heads.span.bias": (2,),
    "heads.mlm.transform.weight": ("H", "H"),
    "heads.mlm.transform.bias": ("H",),
    "heads.mlm.norm.weight": ("H",),
    "heads.mlm.norm.bias": ("H",),
    "heads.mlm.bias": ("V",),
    "heads.nsp.weight": (2, "H"),
    "heads.nsp.bias": (2,),
    "heads.classifier.weight": ("C", "H"),
    "heads.classifier.bias": ("C",),
    "heads.tagger.weight": ("C", "H"),
    "heads.tagger.bias": ("C",),
    "heads.crf.transitions": ("C", "C"),
    "heads.crf.start": ("C",),
    "heads.crf.end": ("C",),
    "heads.lstm.forward.weight_input": ("4E", "H"),
    "heads.lstm.forward.weight_hidden": ("4E", "E"),
    "heads.lstm.forward.bias": ("4E",),
    "heads.lstm.backward.weight_input": ("4E", "H"),
    "heads.lstm.backward.weight_hidden": ("4E", "E"),
    "heads.lstm.backward.bias": ("4E",),
}

# Of its two classes ours, as those of Google's BERT, have 0 where the second text follows the first. Baidu's have 1
# there (its demo_train_set.gz; sample_negative in ERNIE's pretrain_dygraph.py), as have those of research/nlp/ernie.
NEXT_SENTENCE = ("heads.nsp.weight", "heads.nsp.bias")

# There as a whole or not at all.
OPTIONAL_GROUPS = (
    "pooler", "heads.span", "heads.mlm", "heads.nsp", "heads.classifier", "heads.tagger", "heads.crf", "heads.lstm",
)  # fmt: skip
# Every encoder has the first, unless it has relative positions: the old ModelZoo's then has both, and does not use it.
POSITIONS = "embeddings.position"
RELATIVE = "encoder.layers.{i}.attention.relative"
CLASSIFIER, TAGGER, SPAN = "heads.classifier", "heads.tagger", "heads.span"


def label_count(tensors: Mapping[str, Any]) -> int:
    """How many classes or tags the heads of canonical tensors have; 2 without such a head."""
    found = (tensors[f"{head}.weight"].shape[0] for head in (CLASSIFIER, TAGGER) if f"{head}.weight" in tensors)
    return next(found, 2)


def shapes_of(config: EncoderConfig, tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what `tensors` must be: the encoder of `config` and, whole, each group that they begin."""
    begun = {group_of(name) for name in tensors} - {None}
    return canonical_shapes(config, begun, label_count(tensors))


def canonical_shapes(config: EncoderConfig, groups: Iterable[str] = (), labels: int = 2) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of an encoder of this config, with the optional groups named.

    `labels`: classes or tags of the heads that have any.
    """
    half = config.hidden_size // 2
    sizes = {
        "V": config.vocab_size,
        "H": config.hidden_size,
        "P": config.max_position_embeddings,
        "S": config.type_vocab_size,
        "F": config.intermediate_size,
        "D": config.head_size,
        "K": 2 * config.max_relative_position + 1,
        "C": labels,
        "E": half,
        "4E": 4 * half,
    }
    wanted_groups, shapes = {*groups, *_always(config)}, {}
    for pattern, symbols in CANONICAL_SHAPES.items():
        group = group_of(pattern)
        if group is not None and group not in wanted_groups:
            continue
        shape = tuple(symbol if isinstance(symbol, int) else sizes[symbol] for symbol in symbols)
        layers = range(config.num_hidden_layers) if "{i}" in pattern else [0]
        shapes.update({pattern.replace("{i}", str(layer)): shape for layer in layers})
    return shapes


def _always(config: EncoderConfig) -> set[str]:
    """The groups that belong to an encoder of this config."""
    kinds = {"none": {POSITIONS}, "learned": {RELATIVE}}
    return kinds.get(config.relative_kind, set())


def idle_tensors(config: EncoderConfig) -> tuple[str, ...]:
    """Patterns of encoder tensors that a network of this config does without: the old ModelZoo's NEZHA has a position
    table beside its relative positions, and never adds it."""
    return () if config.relative_kind == "none" else (f"{POSITIONS}.*",)


def group_of(name: str) -> str | None:
    """The optional group, or the kind of positions, a canonical name belongs to; None for what every encoder has."""
    name = _LAYER.sub("{i}", name)
    return next((group for group in (*OPTIONAL_GROUPS, POSITIONS, RELATIVE) if name.startswith(f"{group}.")), None)


def groups_in(names: Iterable[str]) -> list[str]:
    """The optional groups of which at least one tensor is there, in the order of `OPTIONAL_GROUPS`."""
    found = {group_of(name) for name in names}
    return [group for group in OPTIONAL_GROUPS if group in found]


@dataclass(frozen=True)
class NameTable:
    """One family of names; both directions come from `rows` of (canonical, family's name).

    optional_prefixes: what some writers leave out in front of the family's names.
    old_spellings: (old ending, ending used in `rows`), read only.
    copies: family's name -> canonical name of the tensor it repeats; read, compared and dropped.
    counting: names of tensors that hold 0, 1, 2, ... and no weights; read, compared and dropped.
    training_state: patterns of what a training run saves beside the weights -> what it is; never needed here.
    transposed: canonical names of the matrices that lie in the family's files as [in, out], and ours as [out, in].
    reversed_classes: canonical names of the tensors of a head whose classes the family counts the other way round.
    named_by_task: names that some writers put the name of a task and a `_` in front of; read only.
    unbuilt: patterns of tensors of a network that this suite does not have -> what they do; always an error.
    """

    rows: tuple[Row, ...]
    optional_prefixes: tuple[str, ...] = ()
    old_spellings: tuple[Row, ...] = ()
    copies: dict[str, str] = field(default_factory=dict)
    counting: tuple[str, ...] = ()
    training_state: dict[str, str] = field(default_factory=dict)
    transposed: tuple[str, ...] = ()
    reversed_classes: tuple[str, ...] = ()
    named_by_task: tuple[str, ...] = ()
    unbuilt: dict[str, str] = field(default_factory=dict)

    def to_canonical(self, name: str) -> str | None:
        """Canonical name of a tensor of this family; None for a name that is not in the table."""
        return _look_up(self._canonical_of, self.normal(name))

    def from_canonical(self, name: str) -> str | None:
        """The family's name of a canonical tensor; None where the family has none."""
        return _look_up(self._name_of, name)

    def is_transposed(self, canonical: str) -> bool:
        """Whether the family's files hold this canonical tensor as [in, out]."""
        return _LAYER.sub("{i}", canonical) in self.transposed

    def normal(self, name: str) -> str:
        """The family's present spelling of a name: old endings replaced, a left-out prefix put back."""
        for old, new in self.old_spellings:
            if name.endswith(old):
                name = name.removesuffix(old) + new
        name = next((known for known in self.named_by_task if name.endswith(f"_{known}")), name)
        for prefix in ("", *self.optional_prefixes):
            full = prefix + name
            if _look_up(self._canonical_of, full) or full in self.copies or full in self.counting:
                return full
        return name

    def for_head(self, head: str) -> "NameTable":
        """The table of a tagger or of answers (`head`: TAGGER or SPAN), where a family calls the last layer of both as
        that of a classifier."""
        rows = [(name.replace(f"{CLASSIFIER}.", f"{head}."), other) for name, other in self.rows]
        return replace(self, rows=tuple(rows))

    def has(self, group: str) -> bool:
        """Whether the family has names for an optional group, of its own."""
        return any(name.startswith(f"{group}.") for name, _ in self.rows)

    def respelled(self, old: str, new: str) -> "NameTable":
        """The table of a family whose names have `new` where those of this one have `old`."""

        def spell(name: str) -> str:
            return name.replace(old, new)

        return replace(
            self,
            rows=tuple((name, spell(other)) for name, other in self.rows),
            optional_prefixes=tuple(map(spell, self.optional_prefixes)),
            old_spellings=tuple((spell(name), spell(other)) for name, other in self.old_spellings),
            counting=tuple(map(spell, self.counting)),
        )

    @cached_property
    def _canonical_of(self) -> dict[str, str]:
        return {other: canonical for canonical, other in self.rows}

    @cached_property
    def _name_of(self) -> dict[str, str]:
        return dict(self.rows)


def _look_up(table: dict[str, str], name: str) -> str | None:
    if name in table:
        return None if "{i}" in name else table[name]
    layer = _LAYER.search(name)
    if layer is None:
        return None
    row = table.get(f"{name[: layer.start()]}{{i}}{name[layer.end() :]}")
    return row and row.replace("{i}", layer.group())


# What MindSpore's optimizers and training cells add to a checkpoint of a whole training network. Source: the
# `clone(prefix=...)` and `Parameter(name=...)` calls of mindspore/nn/optim and mindspore/nn/wrap, and
# official/nlp/Bert/src/bert_for_pre_training.py.
MINDSPORE_TRAINING_STATE = {
    **{f"{prefix}.*": "optimizer state" for prefix in ("adam_m", "adam_v", "lamb_m", "lamb_v", "moments", "moment1",
                                                       "moment2", "vhat", "accum", "accu_grads")},
    **dict.fromkeys(("momentum", "beta1_power", "beta2_power", "matrix_*", "cov_step"), "optimizer state"),
    **dict.fromkeys(("learning_rate", "learning_rate.*"), "learning rate"),
    **dict.fromkeys(("global_step", "epoch_num", "step_num", "local_step", "accu_loss"), "counter"),
    **dict.fromkeys(("loss_scale", "scale_sense", "current_iterator_step", "last_overflow_iterator_step",
                     "accu_overflow"), "loss scale state"),
}  # fmt: skip

CANONICAL = NameTable(rows=tuple((name, name) for name in CANONICAL_SHAPES), training_state=MINDSPORE_TRAINING_STATE)

# transformers BertModel, BertForQuestionAnswering, BertForPreTraining.
_HF_LAYER = "bert.encoder.layer.{i}"
HUGGING_FACE_BERT = NameTable(
    rows=(
        ("embeddings.word.weight", "bert.embeddings.word_embeddings.weight"),
        ("embeddings.position.weight", "bert.embeddings.position_embeddings.weight"),
        ("embeddings.token_type.weight", "bert.embeddings.token_type_embeddings.weight"),
        *dense("embeddings.norm", "bert.embeddings.LayerNorm"),
        *dense("encoder.layers.{i}.attention.query", f"{_HF_LAYER}.attention.self.query"),
        *dense("encoder.layers.{i}.attention.key", f"{_HF_LAYER}.attention.self.key"),
        *dense("encoder.layers.{i}.attention.value", f"{_HF_LAYER}.attention.self.value"),
        *dense("encoder.layers.{i}.attention.output", f"{_HF_LAYER}.attention.output.dense"),
        *dense("encoder.layers.{i}.attention.norm", f"{_HF_LAYER}.attention.output.LayerNorm"),
        *dense("encoder.layers.{i}.feed_forward.up", f"{_HF_LAYER}.intermediate.dense"),
        *dense("encoder.layers.{i}.feed_forward.down", f"{_HF_LAYER}.output.dense"),
        *dense("encoder.layers.{i}.feed_forward.norm", f"{_HF_LAYER}.output.LayerNorm"),
        *dense("pooler", "bert.pooler.dense"),
        *dense("heads.span", "qa_outputs"),
        *dense("heads.mlm.transform", "cls.predictions.transform.dense"),
        *dense("heads.mlm.norm", "cls.predictions.transform.LayerNorm"),
        ("heads.mlm.bias", "cls.predictions.bias"),
        *dense("heads.nsp", "cls.seq_relationship"),
        *dense(CLASSIFIER, "classifier"),
    ),
    optional_prefixes=("bert.",),  # BertModel saved bare
    old_spellings=((".LayerNorm.gamma", ".LayerNorm.weight"), (".LayerNorm.beta", ".LayerNorm.bias")),
    copies={
        "cls.predictions.decoder.weight": "embeddings.word.weight",
        "cls.predictions.decoder.bias": "heads.mlm.bias",
    },
    counting=("bert.embeddings.position_ids",),
    training_state={"*_quantizer._amax": "clip ranges of training with quantization, which `quantize` takes"},
)

# transformers Nezha*Model; Huawei's own PyTorch files have BERT's names, without the position table.
HUGGING_FACE_NEZHA = NameTable(
    rows=tuple(
        (name, other.replace("bert.", "nezha.", 1) if other.startswith("bert.") else other)
        for name, other in HUGGING_FACE_BERT.rows
        if not name.startswith(f"{POSITIONS}.")
    ),
    optional_prefixes=("nezha.",),
    copies=HUGGING_FACE_BERT.copies,
    training_state={"*.relative_positions_encoding.positions_encoding": "the fixed table of relative positions"},
)

# transformers ErnieModel and its heads: `Ernie` where BERT's classes have `Bert`, in the names of the tensors too. Its
# next-sentence class 0 is the true next, as its ErnieForPreTraining says; Baidu's head is in no file that the
# converter of nghuyong/ERNIE-Pytorch made, which leaves it behind.
TASK_TYPES = "ERNIE 2.0 adds an embedding of the task (use_task_id), which no network here has"
HUGGING_FACE_ERNIE = replace(
    HUGGING_FACE_BERT.respelled("bert.", "ernie."), unbuilt={"*task_type_embeddings.weight": TASK_TYPES}
)

# mindspore-ai/models official/nlp/Bert: BertNetworkWithLoss (pretraining) and BertSquad (fine-tuning).
_ZOO_EMBEDDINGS = "bert.bert.bert_embedding_postprocessor"
_ZOO_LAYER = "bert.bert.bert_encoder.layers.{i}"
MODELZOO_BERT = NameTable(
    rows=(
        ("embeddings.word.weight", "bert.bert.bert_embedding_lookup.embedding_table"),
        ("embeddings.position.weight", f"{_ZOO_EMBEDDINGS}.full_position_embedding.embedding_table"),
        ("embeddings.token_type.weight", f"{_ZOO_EMBEDDINGS}.token_type_embedding.embedding_table"),
        *_norm("embeddings.norm", f"{_ZOO_EMBEDDINGS}.layernorm"),
        *dense("encoder.layers.{i}.attention.query", f"{_ZOO_LAYER}.attention.attention.query_layer"),
        *dense("encoder.layers.{i}.attention.key", f"{_ZOO_LAYER}.attention.attention.key_layer"),
        *dense("encoder.layers.{i}.attention.value", f"{_ZOO_LAYER}.attention.attention.value_layer"),
        *dense("encoder.layers.{i}.attention.output", f"{_ZOO_LAYER}.attention.output.dense"),
        *_norm("encoder.layers.{i}.attention.norm", f"{_ZOO_LAYER}.attention.output.layernorm"),
        *dense("encoder.layers.{i}.feed_forward.up", f"{_ZOO_LAYER}.intermediate"),
        *dense("encoder.layers.{i}.feed_forward.down", f"{_ZOO_LAYER}.output.dense"),
        *_norm("encoder.layers.{i}.feed_forward.norm", f"{_ZOO_LAYER}.output.layernorm"),
        *dense("pooler", "bert.bert.dense"),
        *dense("heads.span", "bert.dense1"),
        *dense("heads.mlm.transform", "bert.cls1.dense"),
        *_norm("heads.mlm.norm", "bert.cls1.layernorm"),
        ("heads.mlm.bias", "bert.cls1.output_bias"),
        *dense("heads.nsp", "bert.cls2.dense"),
        *dense(CLASSIFIER, "bert.dense_1"),
        (f"{RELATIVE}.weight",
         f"{_ZOO_LAYER}.attention.attention._generate_relative_positions_embeddings.embeddings_table"),
        *((name, name) for name in CANONICAL_SHAPES if name.startswith(("heads.crf.", "heads.lstm."))),  # zoo_heads.py
    ),
    optional_prefixes=("bert.", "bert.bert."),  # the encoder or the model saved without its wrappers
    old_spellings=(  # releases before 1.2 (their ms2tf table)
        ("bert_embedding_postprocessor.embedding_table",
         "bert_embedding_postprocessor.token_type_embedding.embedding_table"),
        ("bert_embedding_postprocessor.full_position_embeddings",
         "bert_embedding_postprocessor.full_position_embedding.embedding_table"),
    ),
    training_state=MINDSPORE_TRAINING_STATE,
)  # fmt: skip

# mindspore-ai/models research/nlp/ernie: the same networks with `ernie` for `bert`, without relative positions and CRF.
MODELZOO_ERNIE = replace(
    MODELZOO_BERT,
    rows=tuple(row for row in MODELZOO_BERT.rows if not row[0].startswith((RELATIVE, "heads.crf.", "heads.lstm."))),
    reversed_classes=NEXT_SENTENCE,
).respelled("bert", "ernie")
