"""The names that Paddle's BERT and ERNIE have in its three generations, and which of their matrices lie transposed.

Sources: PaddlePaddle/ERNIE r2.0 (model/ernie.py, finetune/*.py) and Research/NLP/ACL2019-KTNET, whose static names are
the same; ERNIE develop (ernie/modeling_ernie.py); PaddleNLP (transformers/ernie/modeling.py) and its own table between
the first and the last, static_to_dygraph_params/match_static_to_dygraph.py.
"""

from models.common.weights.names import CLASSIFIER, NEXT_SENTENCE, SPAN, TAGGER, TASK_TYPES, NameTable, Row, dense

# Paddle's fc and Linear multiply by [in, out]. The word table, [V, H], is no such matrix, also where a decoder of the
# masked words repeats it. A weight of equal sides that is not turned raises no error anywhere: hence a list, no guess.
PADDLE_TRANSPOSED = (
    "encoder.layers.{i}.attention.query.weight", "encoder.layers.{i}.attention.key.weight",
    "encoder.layers.{i}.attention.value.weight", "encoder.layers.{i}.attention.output.weight",
    "encoder.layers.{i}.feed_forward.up.weight", "encoder.layers.{i}.feed_forward.down.weight",
    "pooler.weight", "heads.mlm.transform.weight", "heads.nsp.weight",
    f"{CLASSIFIER}.weight", f"{TAGGER}.weight", f"{SPAN}.weight",
)  # fmt: skip


def _fc(canonical: str, other: str) -> list[Row]:
    return [(f"{canonical}.weight", f"{other}.w_0"), (f"{canonical}.bias", f"{other}.b_0")]


def _scaled(canonical: str, other: str) -> list[Row]:
    return [(f"{canonical}.weight", f"{other}_scale"), (f"{canonical}.bias", f"{other}_bias")]


def _out(canonical: str, other: str) -> list[Row]:
    return [(f"{canonical}.weight", f"{other}_w"), (f"{canonical}.bias", f"{other}_b")]


_LAYER = "encoder_layer_{i}"
FLUID = NameTable(
    rows=(
        ("embeddings.word.weight", "word_embedding"),
        ("embeddings.position.weight", "pos_embedding"),
        ("embeddings.token_type.weight", "sent_embedding"),
        *_scaled("embeddings.norm", "pre_encoder_layer_norm"),
        *_fc("encoder.layers.{i}.attention.query", f"{_LAYER}_multi_head_att_query_fc"),
        *_fc("encoder.layers.{i}.attention.key", f"{_LAYER}_multi_head_att_key_fc"),
        *_fc("encoder.layers.{i}.attention.value", f"{_LAYER}_multi_head_att_value_fc"),
        *_fc("encoder.layers.{i}.attention.output", f"{_LAYER}_multi_head_att_output_fc"),
        *_scaled("encoder.layers.{i}.attention.norm", f"{_LAYER}_post_att_layer_norm"),
        *_fc("encoder.layers.{i}.feed_forward.up", f"{_LAYER}_ffn_fc_0"),
        *_fc("encoder.layers.{i}.feed_forward.down", f"{_LAYER}_ffn_fc_1"),
        *_scaled("encoder.layers.{i}.feed_forward.norm", f"{_LAYER}_post_ffn_layer_norm"),
        *_fc("pooler", "pooled_fc"),
        *_fc("heads.mlm.transform", "mask_lm_trans_fc"),
        *_scaled("heads.mlm.norm", "mask_lm_trans_layer_norm"),
        ("heads.mlm.bias", "mask_lm_out_fc.b_0"),
        *_fc("heads.nsp", "next_sent_fc"),
        *_out(CLASSIFIER, "cls_out"),
        *_out(TAGGER, "cls_seq_label_out"),
        *_out(SPAN, "cls_mrc_out"),
    ),
    named_by_task=("cls_out_w", "cls_out_b"),  # ERNIE r2.0: {task}_cls_out_w, and the task may be ""
    # fluid's optimizers name their variables after the parameter (fluid/optimizer.py _add_accumulator).
    training_state={
        **dict.fromkeys(("*_moment1_[0-9]*", "*_moment2_[0-9]*", "*_beta[12]_pow_acc_[0-9]*"), "optimizer state"),
        **dict.fromkeys(("learning_rate_[0-9]*", "scheduled_learning_rate"), "learning rate"),
        "@LR_DECAY_COUNTER@": "counter",
        **dict.fromkeys(("loss_scaling_[0-9]*", "num_good_steps_[0-9]*", "num_bad_steps_[0-9]*"), "loss scale state"),
    },
    transposed=PADDLE_TRANSPOSED,
    reversed_classes=NEXT_SENTENCE,
    unbuilt={"task_embedding": TASK_TYPES},
)

# PaddleNLP ErnieModel, ErnieForPretraining, ErnieForSequenceClassification, and so on. Its next-sentence head is taken
# for Baidu's, as that of ernie-1.0-base-zh is; its own pretraining (model_zoo/ernie-1.0) has 0 for the true next, and
# nothing in a file tells the two apart.
_NLP_LAYER = "ernie.encoder.layers.{i}"
PADDLENLP_ERNIE = NameTable(
    rows=(
        ("embeddings.word.weight", "ernie.embeddings.word_embeddings.weight"),
        ("embeddings.position.weight", "ernie.embeddings.position_embeddings.weight"),
        ("embeddings.token_type.weight", "ernie.embeddings.token_type_embeddings.weight"),
        *dense("embeddings.norm", "ernie.embeddings.layer_norm"),
        *dense("encoder.layers.{i}.attention.query", f"{_NLP_LAYER}.self_attn.q_proj"),
        *dense("encoder.layers.{i}.attention.key", f"{_NLP_LAYER}.self_attn.k_proj"),
        *dense("encoder.layers.{i}.attention.value", f"{_NLP_LAYER}.self_attn.v_proj"),
        *dense("encoder.layers.{i}.attention.output", f"{_NLP_LAYER}.self_attn.out_proj"),
        *dense("encoder.layers.{i}.attention.norm", f"{_NLP_LAYER}.norm1"),
        *dense("encoder.layers.{i}.feed_forward.up", f"{_NLP_LAYER}.linear1"),
        *dense("encoder.layers.{i}.feed_forward.down", f"{_NLP_LAYER}.linear2"),
        *dense("encoder.layers.{i}.feed_forward.norm", f"{_NLP_LAYER}.norm2"),
        *dense("pooler", "ernie.pooler.dense"),
        *dense("heads.mlm.transform", "cls.predictions.transform"),
        *dense("heads.mlm.norm", "cls.predictions.layer_norm"),
        ("heads.mlm.bias", "cls.predictions.decoder_bias"),
        *dense("heads.nsp", "cls.seq_relationship"),
        *dense(CLASSIFIER, "classifier"),
    ),
    optional_prefixes=("ernie.",),  # ErnieModel saved bare
    copies={
        "cls.predictions.decoder.weight": "embeddings.word.weight",
        "cls.predictions.decoder_weight": "embeddings.word.weight",
        "cls.predictions.decoder.bias": "heads.mlm.bias",
    },
    transposed=PADDLE_TRANSPOSED,
    reversed_classes=NEXT_SENTENCE,
    unbuilt={"*task_type_embeddings.weight": TASK_TYPES},
)

# ERNIE's own dygraph classes, all of them ErnieModel with further layers and so without a prefix.
_OWN_LAYER = "encoder_stack.block.{i}"
ERNIE_DYGRAPH = NameTable(
    rows=(
        ("embeddings.word.weight", "word_emb.weight"),
        ("embeddings.position.weight", "pos_emb.weight"),
        ("embeddings.token_type.weight", "sent_emb.weight"),
        *dense("embeddings.norm", "ln"),
        *dense("encoder.layers.{i}.attention.query", f"{_OWN_LAYER}.attn.q"),
        *dense("encoder.layers.{i}.attention.key", f"{_OWN_LAYER}.attn.k"),
        *dense("encoder.layers.{i}.attention.value", f"{_OWN_LAYER}.attn.v"),
        *dense("encoder.layers.{i}.attention.output", f"{_OWN_LAYER}.attn.o"),
        *dense("encoder.layers.{i}.attention.norm", f"{_OWN_LAYER}.ln1"),
        *dense("encoder.layers.{i}.feed_forward.up", f"{_OWN_LAYER}.ffn.i"),
        *dense("encoder.layers.{i}.feed_forward.down", f"{_OWN_LAYER}.ffn.o"),
        *dense("encoder.layers.{i}.feed_forward.norm", f"{_OWN_LAYER}.ln2"),
        *dense("pooler", "pooler"),
        *dense("heads.mlm.transform", "mlm"),
        *dense("heads.mlm.norm", "mlm_ln"),
        ("heads.mlm.bias", "mlm_bias"),
        *dense("heads.nsp", "pooler_heads.0.nsp"),
        *dense(CLASSIFIER, "classifier"),
    ),
    transposed=PADDLE_TRANSPOSED,
    reversed_classes=NEXT_SENTENCE,
)
