"""Paddle's names of ERNIE, copied by hand from its sources and not from our tables, and an ERNIE of Paddle's layers.

Shapes as they lie in Paddle's files: V 37, H 24, P 19, S 2 (token types, and the classes of the heads that have two), F
40, C 3 classes.
"""

import json
from pathlib import Path
from types import ModuleType

import numpy as np

SIZES = {"V": 37, "H": 24, "P": 19, "S": 2, "F": 40, "C": 3}
LAYERS, HEADS_OF_ATTENTION = 3, 4
# As in Baidu's archives: neither a width of the feed-forward layers nor an epsilon.
ERNIE_CONFIG = {
    "attention_probs_dropout_prob": 0.1, "hidden_act": "relu", "hidden_dropout_prob": 0.1, "hidden_size": 24,
    "initializer_range": 0.02, "max_position_embeddings": 19, "num_attention_heads": 4, "num_hidden_layers": 3,
    "type_vocab_size": 2, "vocab_size": 37,
}  # fmt: skip

NLP_CONFIG = {**ERNIE_CONFIG, "intermediate_size": 40, "model_type": "ernie", "pool_act": "tanh", "use_task_id": False}

# static name, PaddleNLP's, that of ERNIE's dygraph classes, canonical name, shape, and how ours lies: T transposed, R
# with its classes the other way round (Baidu's next sentence is 1 where it follows, ours 0)
_ENCODER = """
word_embedding ernie.embeddings.word_embeddings.weight word_emb.weight embeddings.word.weight VH .
pos_embedding ernie.embeddings.position_embeddings.weight pos_emb.weight embeddings.position.weight PH .
sent_embedding ernie.embeddings.token_type_embeddings.weight sent_emb.weight embeddings.token_type.weight SH .
pre_encoder_layer_norm_scale ernie.embeddings.layer_norm.weight ln.weight embeddings.norm.weight H .
pre_encoder_layer_norm_bias ernie.embeddings.layer_norm.bias ln.bias embeddings.norm.bias H .
pooled_fc.w_0 ernie.pooler.dense.weight pooler.weight pooler.weight HH T
pooled_fc.b_0 ernie.pooler.dense.bias pooler.bias pooler.bias H .
"""
_LAYER = """
multi_head_att_query_fc.w_0  self_attn.q_proj.weight    attn.q.weight  attention.query.weight     HH T
multi_head_att_query_fc.b_0  self_attn.q_proj.bias      attn.q.bias    attention.query.bias       H  .
multi_head_att_key_fc.w_0    self_attn.k_proj.weight    attn.k.weight  attention.key.weight       HH T
multi_head_att_key_fc.b_0    self_attn.k_proj.bias      attn.k.bias    attention.key.bias         H  .
multi_head_att_value_fc.w_0  self_attn.v_proj.weight    attn.v.weight  attention.value.weight     HH T
multi_head_att_value_fc.b_0  self_attn.v_proj.bias      attn.v.bias    attention.value.bias       H  .
multi_head_att_output_fc.w_0 self_attn.out_proj.weight  attn.o.weight  attention.output.weight    HH T
multi_head_att_output_fc.b_0 self_attn.out_proj.bias    attn.o.bias    attention.output.bias      H  .
post_att_layer_norm_scale    norm1.weight               ln1.weight     attention.norm.weight      H  .
post_att_layer_norm_bias     norm1.bias                 ln1.bias       attention.norm.bias        H  .
ffn_fc_0.w_0                 linear1.weight             ffn.i.weight   feed_forward.up.weight     HF T
ffn_fc_0.b_0                 linear1.bias               ffn.i.bias     feed_forward.up.bias       F  .
ffn_fc_1.w_0                 linear2.weight             ffn.o.weight   feed_forward.down.weight   FH T
ffn_fc_1.b_0                 linear2.bias               ffn.o.bias     feed_forward.down.bias     H  .
post_ffn_layer_norm_scale    norm2.weight               ln2.weight     feed_forward.norm.weight   H  .
post_ffn_layer_norm_bias     norm2.bias                 ln2.bias       feed_forward.norm.bias     H  .
"""
_HEADS = {
    "pretraining": """
mask_lm_trans_fc.w_0 cls.predictions.transform.weight mlm.weight heads.mlm.transform.weight HH T
mask_lm_trans_fc.b_0 cls.predictions.transform.bias mlm.bias heads.mlm.transform.bias H .
mask_lm_trans_layer_norm_scale cls.predictions.layer_norm.weight mlm_ln.weight heads.mlm.norm.weight H .
mask_lm_trans_layer_norm_bias cls.predictions.layer_norm.bias mlm_ln.bias heads.mlm.norm.bias H .
mask_lm_out_fc.b_0 cls.predictions.decoder_bias mlm_bias heads.mlm.bias V .
next_sent_fc.w_0 cls.seq_relationship.weight pooler_heads.0.nsp.weight heads.nsp.weight HS TR
next_sent_fc.b_0 cls.seq_relationship.bias pooler_heads.0.nsp.bias heads.nsp.bias S R
""",
    "classifier": """
cls_out_w  classifier.weight  classifier.weight  heads.classifier.weight  HC T
cls_out_b  classifier.bias    classifier.bias    heads.classifier.bias    C  .
""",
    "tagger": """
cls_seq_label_out_w  classifier.weight  classifier.weight  heads.tagger.weight  HC T
cls_seq_label_out_b  classifier.bias    classifier.bias    heads.tagger.bias    C  .
""",
    "span": """
cls_mrc_out_w  classifier.weight  classifier.weight  heads.span.weight  HS T
cls_mrc_out_b  classifier.bias    classifier.bias    heads.span.bias    S  .
""",
}  # fmt: skip
SPELLINGS = ("fluid", "paddlenlp", "ernie-dygraph")


def weights(spelling: str, head: str | None = "pretraining") -> tuple[dict, dict]:
    """Random tensors as Paddle holds them under the names of `spelling`, and what they must be in ours."""
    rows = [line.split() for line in (_ENCODER + (_HEADS[head] if head else "")).splitlines() if line]
    for layer in range(LAYERS):
        for static, nlp, own, canonical, *rest in (line.split() for line in _LAYER.strip().splitlines()):
            names = f"encoder_layer_{layer}_{static}", f"ernie.encoder.layers.{layer}.{nlp}"
            rows.append([*names, f"encoder_stack.block.{layer}.{own}", f"encoder.layers.{layer}.{canonical}", *rest])
    generator = np.random.default_rng(3)
    theirs, ours = {}, {}
    for *names, canonical, shape, lies in sorted(rows):
        values = generator.standard_normal([SIZES[size] for size in shape]).astype(np.float32)
        theirs[names[SPELLINGS.index(spelling)]] = values
        own = values.T if "T" in lies else values
        ours[canonical] = np.ascontiguousarray(own[::-1] if "R" in lies else own)
    return theirs, ours


def write_archive(folder: Path, paddle: ModuleType, head: str | None = "pretraining") -> tuple[dict, dict]:
    """A folder as Baidu's archives have it, its variables written by Paddle; returns what `weights` does."""
    theirs, ours = weights("fluid", head)
    (folder / "params").mkdir(parents=True)
    for name, values in theirs.items():
        paddle.save(paddle.to_tensor(values), str(folder / "params" / name), use_binary_format=True)
    (folder / "ernie_config.json").write_text(json.dumps(ERNIE_CONFIG))
    (folder / "vocab.txt").write_text("[PAD]\t0\n[CLS]\t1\n\u3002\t2\n", encoding="utf-8")
    return theirs, ours


def small_ernie(paddle: ModuleType, head: str | None = None):
    """ERNIE of Paddle's own layers, its attributes called as in PaddleNLP, all parameters random.

    Called with ids, token types and a mask [B, T], all int64, it returns hidden states, pooled output and, with
    `head` "pretraining", logits of masked words and of the next sentence; with another, the head's logits.
    """
    nn = paddle.nn
    hidden = SIZES["H"]

    class Ernie(nn.Layer):
        def __init__(self):
            super().__init__()
            self.embeddings = nn.Layer()
            self.embeddings.word_embeddings = nn.Embedding(SIZES["V"], hidden)
            self.embeddings.position_embeddings = nn.Embedding(SIZES["P"], hidden)
            self.embeddings.token_type_embeddings = nn.Embedding(SIZES["S"], hidden)
            self.embeddings.layer_norm = nn.LayerNorm(hidden)  # Paddle's own epsilon
            layer = nn.TransformerEncoderLayer(hidden, HEADS_OF_ATTENTION, SIZES["F"], 0.0, "relu")
            self.encoder = nn.TransformerEncoder(layer, LAYERS)
            self.pooler = nn.Layer()
            self.pooler.dense = nn.Linear(hidden, hidden)

        def forward(self, ids, types, mask):
            parts, places = self.embeddings, paddle.arange(ids.shape[1])
            summed = parts.word_embeddings(ids) + parts.position_embeddings(places) + parts.token_type_embeddings(types)
            bias = ((mask - 1) * 10000).astype("float32").unsqueeze([1, 2])  # [B, 1, 1, T]
            states = self.encoder(parts.layer_norm(summed), bias)
            return states, paddle.tanh(self.pooler.dense(states[:, 0]))

    class WithHead(nn.Layer):
        def __init__(self):
            super().__init__()
            self.ernie = Ernie()
            if head == "pretraining":
                self.cls = nn.Layer()
                self.cls.predictions = nn.Layer()
                self.cls.predictions.transform = nn.Linear(hidden, hidden)
                self.cls.predictions.layer_norm = nn.LayerNorm(hidden)
                self.cls.predictions.decoder_bias = self.create_parameter([SIZES["V"]], is_bias=True)
                self.cls.seq_relationship = nn.Linear(hidden, 2)
            else:
                self.classifier = nn.Linear(hidden, 2 if head == "span" else SIZES["C"])

        def forward(self, ids, types, mask):
            states, pooled = self.ernie(ids, types, mask)
            if head == "pretraining":
                parts = self.cls.predictions
                turned = parts.layer_norm(nn.functional.relu(parts.transform(states)))
                table = self.ernie.embeddings.word_embeddings.weight
                words = paddle.matmul(turned, table, transpose_y=True) + parts.decoder_bias
                return states, pooled, words, self.cls.seq_relationship(pooled)
            return states, pooled, self.classifier(pooled if head == "classifier" else states)

    model = Ernie() if head is None else WithHead()
    generator = np.random.default_rng(4)
    for parameter in model.parameters():
        parameter.set_value(generator.normal(0, 0.3, parameter.shape).astype(np.float32))
    model.eval()
    return model
