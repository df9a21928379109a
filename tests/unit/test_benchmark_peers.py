"""The peers are what they are said to be: transformers' fine-tuning is a plain loop, Google's windows are Google's."""

import json
import random
from pathlib import Path
from unicodedata import is_normalized

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from transformers import BertForQuestionAnswering
from transformers.models.bert.tokenization_bert_legacy import BasicTokenizer, WordpieceTokenizer, load_vocab

from benchmarks import google_pretrain, google_squad, peer_squad_finetune, table
from data_tools.convert import SquadConversion, convert_squad
from data_tools.feature_store import FeatureSet, load_features
from data_tools.features.pretrain import PretrainOptions
from data_tools.features.span import SpanOptions
from models.common.metrics import squad
from tests.pretrain_corpus import WORDS, make_corpus
from tests.tolerances import TOLERANCES
from tests.unit.test_benchmarks import LENGTH, MACHINE, SEED, random_model


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, minilm_dir) -> dict[str, Path]:
    return random_model(tmp_path_factory.mktemp("peers"), minilm_dir)


def peer(inputs: dict[str, Path], output: Path, *flags: object) -> dict:
    argv = [
        "--train_file", inputs["data"], "--dev_file", inputs["data"], "--weights", inputs["weights"], "--output_dir",
        output, "--batch_size", 4, "--max_seq_length", LENGTH, "--doc_stride", 16, "--seed", SEED, *flags,
    ]  # fmt: skip
    peer_squad_finetune.main([str(value) for value in argv])
    return json.loads((output / "result.json").read_text())


@pytest.mark.parametrize("part", [1, 3, 4])
def test_the_peer_has_the_losses_of_a_plain_loop(part, inputs, tmp_path):
    features = load_features(converted(inputs["data"], inputs["weights"] / "vocab.txt", tmp_path / "features"))
    result = peer(inputs, tmp_path / "peer", "--micro_batch_size", part)
    assert result["train_windows"] == result["dev_windows"] == len(features) > 8
    assert result["steps"] == len(result["losses"]) == 2 * -(-len(features) // 4)
    expected = plain_losses(inputs["weights"], features, part, result["steps"])
    tolerance = TOLERANCES["peer losses"]
    np.testing.assert_allclose(result["losses"], expected, rtol=tolerance.rtol, atol=tolerance.atol)
    assert np.ptp(expected) > 0.1  # the weights did change
    assert set(result["environment"]) == MACHINE and result["finished"] is True


def converted(data: Path, vocab: Path, folder: Path) -> Path:
    options = SpanOptions(LENGTH, 16, "overlap", max_query_length=1000)
    convert_squad(SquadConversion(data, vocab, folder, True, span=options, dataset_format="numpy"))
    return folder


def plain_losses(weights: Path, features: FeatureSet, part: int, steps: int) -> list[float]:
    """Two epochs, every batch padded to the full length and computed at once; schedule, clipping, groups by hand.

    transformers lets the padding of a part take part in the softmax, so the softmax reaches as far as the part does.
    """
    torch.manual_seed(SEED)
    model = BertForQuestionAnswering.from_pretrained(weights).train()
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in model.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer, warmup, losses = torch.optim.AdamW(groups, eps=1e-8), int(0.1 * steps), []
    for _ in range(2):
        order = torch.randperm(len(features)).numpy()
        for first in range(0, len(order), 4):
            step, indices = len(losses), order[first : first + 4]
            indices = indices[np.argsort(features.lengths[indices], kind="stable")]
            batch = {name: torch.from_numpy(values).long() for name, values in features.padded(indices, LENGTH).items()}
            output = model(batch["input_ids"], batch["attention_mask"], batch["token_type_ids"])
            widths = [max(features.lengths[indices[at // part * part :][:part]]) for at in range(len(indices))]
            loss = torch.stack([
                torch.logsumexp(logits[row, :width], 0) - logits[row, batch[f"{end}_position"][row]]
                for end, logits in (("start", output.start_logits), ("end", output.end_logits))
                for row, width in enumerate(widths)
            ]).mean()  # fmt: skip
            optimizer.zero_grad()
            loss.backward()
            norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
            for parameter in model.parameters():
                parameter.grad *= min(1.0, 1.0 / (norm.item() + 1e-6))
            for group in optimizer.param_groups:
                group["lr"] = 1e-4 * (step / warmup if step < warmup else (steps - step) / (steps - warmup))
            optimizer.step()
            losses.append(loss.item())
    return losses


def test_the_peer_scores_the_questions_it_was_asked(inputs, tmp_path, capsys):
    result = peer(inputs, tmp_path, "--limit", 3, "--epochs", 1)
    predictions = json.loads((tmp_path / "predictions.json").read_text())
    assert list(predictions) == ["q0", "q1", "q2"]
    dataset = squad.load_dataset(inputs["data"])
    dataset["data"][0]["paragraphs"] = dataset["data"][0]["paragraphs"][:1]
    del dataset["data"][0]["paragraphs"][0]["qas"][3:]
    scores = squad.evaluate(dataset, predictions)
    assert {name: result[name] for name in scores} == scores == {k: result["epochs"][0][k] for k in scores}
    assert "Unanswered" not in capsys.readouterr().err
    table.main([str(tmp_path / "result.json")])
    row = capsys.readouterr().out.splitlines()[2]
    scored = f"| {SEED} | 1 | 3 / 3 | {scores['exact_match']:.2f} | {scores['f1']:.2f} |"
    assert row.startswith(f"| transformers + torch {scored}")


def test_the_peer_generates_its_data_when_none_is_given(inputs, tmp_path):
    peer_squad_finetune.main([
        "--weights", str(inputs["weights"]), "--output_dir", str(tmp_path), "--limit", "4", "--epochs", "1",
        "--max_seq_length", str(LENGTH), "--doc_stride", "16",
    ])  # fmt: skip
    assert list(json.loads((tmp_path / "predictions.json").read_text())) == [f"dev-0000{n}" for n in range(4)]


@pytest.mark.parametrize("lower_case", [True, False])
def test_googles_tokenizer_is_the_one_that_transformers_keeps(lower_case, minilm_dir):
    ours = google_squad.GoogleTokenizer(minilm_dir / "vocab.txt", lower_case)
    basic = BasicTokenizer(do_lower_case=lower_case)
    pieces = WordpieceTokenizer(load_vocab(minilm_dir / "vocab.txt"), "[UNK]", google_squad.MAX_WORD_CHARACTERS)
    assert ours.vocab == load_vocab(minilm_dir / "vocab.txt")
    rng = random.Random(3)
    # transformers also composes characters first, which Google's code does not; it makes no difference to these.
    codes = [*range(0x20, 0x250), *range(0x370, 0x378), *range(0x400, 0x530), *range(0x4E00, 0x4E80), 0x2014, 0x202F]
    codes += [0x200B, 0xFFFD, 0x3000, 0xAC00, 0x20001, 0x1F600, 0, 7, 9, 10]
    alphabet = "".join(character for character in map(chr, codes) if is_normalized("NFC", character))
    accents = "".join(map(chr, range(0x300, 0x330))) if lower_case else ""
    texts = ["", " \t", "x" * 201, "x" * 200, "unaffable", "The Möbius-strip's (1858) $5 `x`", "ภาษา"]
    texts += ["".join(rng.choices(alphabet + accents + " " * 60, k=rng.randrange(60))) for _ in range(1500)]
    for text in texts:
        words = basic.tokenize(text)
        assert ours.basic_tokens(text) == words, repr(text)
        assert ours.tokenize(text) == [piece for word in words for piece in pieces.tokenize(word)], repr(text)


def test_googles_answer_span_and_best_window(minilm_dir):
    google = google_squad.GoogleTokenizer(minilm_dir / "vocab.txt", lower_case=True)
    tokens = google.tokenize("(1895-1943)")
    assert tokens == ["(", "1895", "-", "1943", ")"]
    assert google_squad.improve_answer_span(tokens, 0, 4, google, "1895") == (1, 1)
    assert google_squad.improve_answer_span(tokens, 0, 4, google, "1900") == (0, 4)
    spans = [(0, 6), (3, 6), (6, 3)]
    assert [google_squad._best_span(spans, position) for position in range(9)] == [0, 0, 0, 0, 0, 1, 1, 1, 1]


def test_googles_instances_and_ours_are_alike(tmp_path):
    """Drawn with other random numbers: lengths of both texts, random nexts and targets, as distributions."""
    corpus = make_corpus(tmp_path, documents=300, most_sentences=30, most_words=9, most_pieces=3)
    options = PretrainOptions(max_seq_length=LENGTH, dupe_factor=10)
    tokenizer = google_squad.GoogleTokenizer(corpus.vocab, lower_case=True)
    instances = google_pretrain.create_instances([corpus.text], tokenizer, options, whole_words=True)
    theirs = google_pretrain.convert(instances, tokenizer, options)
    ours = corpus.convert(tmp_path / "out", max_seq_length=LENGTH, dupe_factor=10, levels=WORDS)
    assert len(ours) == pytest.approx(len(theirs), rel=0.02) and len(ours) > 10000
    figures = [
        (
            made.lengths,
            np.add.reduceat(made.tokens["token_type_ids"], made.starts[:-1]),
            np.add.reduceat(made.tokens["mlm_label"] >= 0, made.starts[:-1]),
            made.scalars["next_sentence_label"],
        )
        for made in (ours, theirs)
    ]
    for mine, other in zip(*figures, strict=True):
        assert ks_2samp(mine, other).statistic < 1.95 * np.sqrt(2 / len(ours))  # one of a thousand is larger
