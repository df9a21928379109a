"""The peer of `models.bert.run_squad`: the same fine-tuning on SQuAD with transformers and torch alone.

Same weights, windows, optimizer, schedule and order policy (a fresh shuffle each epoch, seeded); the loss is
transformers' own. To save work and memory, not to change anything, a batch is computed in parts of similar length whose
gradients add up to the batch's, each padded to its longest sample: the attention mask hides padding from every real
token. (transformers lets padding take part in the softmax of the loss; less padding is in the peer's favour.)
"""

import argparse
import json
import sys
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertForQuestionAnswering, BertTokenizerFast, get_linear_schedule_with_warmup

from benchmarks import sidebyside
from benchmarks.environment import record
from benchmarks.samples import check_weights, data_file
from data_tools.features.span import SpanOptions
from data_tools.synthetic_squad import DEFAULT_DEV_QUESTIONS, DEFAULT_TRAIN_QUESTIONS
from models.common.cli import run_main
from models.common.errors import UserError
from models.common.files import write_json
from models.common.metrics import squad
from models.common.progress import Progress
from models.common.weights.embedded import minilm_folder

MODULE = "benchmarks.peer_squad_finetune"
# Names, or their ends, of what weight decay leaves alone, beside LayerNorm; torch's LSTM puts its layer behind "bias".
PLAIN = ("bias", "bias_ih_l0", "bias_hh_l0", "bias_ih_l0_reverse", "bias_hh_l0_reverse", "crf.start", "crf.end")


@dataclass(frozen=True)
class Question:
    """One question with its paragraph; `start`, `end` are the character span of the first answer, end exclusive."""

    qas_id: str
    question: str
    context: str
    start: int
    end: int


@dataclass(frozen=True)
class Window:
    """A window of a question: ids and types [T], offsets [T, 2] (-1 outside the context), answer tokens or (0, 0)."""

    question: int
    input_ids: np.ndarray
    token_type_ids: np.ndarray
    offsets: np.ndarray
    start: int
    end: int


def read_questions(path: Path, limit: int) -> list[Question]:
    """Questions of a SQuAD v1.1 file in file order, the first `limit` of them (0: all)."""
    questions = []
    try:
        for article in squad.load_dataset(path)["data"]:
            for paragraph in article["paragraphs"]:
                for item in paragraph["qas"]:
                    answer = item["answers"][0]
                    start, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
                    questions.append(Question(item["id"], item["question"].strip(), paragraph["context"], start, end))
    except (KeyError, IndexError, TypeError) as error:
        raise UserError(f"{path}: not in SQuAD v1.1 format, question {len(questions) + 1}: {error!r}") from None
    if not questions:
        raise UserError(f"{path}: has no questions")
    return questions[:limit] if limit else questions


def make_windows(questions: list[Question], tokenizer: BertTokenizerFast, length: int, overlap: int) -> list[Window]:
    """All windows of all questions; neighbours share `overlap` tokens of context (transformers' meaning of stride)."""
    windows = []
    for index, question in enumerate(questions):
        encoded = tokenizer(
            question.question, question.context, truncation="only_second", max_length=length, stride=overlap,
            return_overflowing_tokens=True, return_offsets_mapping=True, padding=False,
        )  # fmt: skip
        for piece, ids in enumerate(encoded["input_ids"]):
            in_context = np.array([source == 1 for source in encoded.sequence_ids(piece)])
            offsets = np.where(in_context[:, None], np.array(encoded["offset_mapping"][piece]), -1)
            types = np.array(encoded["token_type_ids"][piece])
            windows.append(Window(index, np.array(ids), types, offsets, *_token_span(question, offsets)))
    return windows


def _token_span(question: Question, offsets: np.ndarray) -> tuple[int, int]:
    """First and last token of the answer, or (0, 0) when it does not lie in this window as a whole."""
    inside = np.flatnonzero((offsets[:, 0] >= 0) & (offsets[:, 1] > question.start) & (offsets[:, 0] < question.end))
    if not len(inside) or offsets[inside[0], 0] > question.start or offsets[inside[-1], 1] < question.end:
        return 0, 0
    return int(inside[0]), int(inside[-1])


def collate(windows: list[Window], length: int | None = None, labels: bool = True) -> dict[str, torch.Tensor]:
    """A batch for transformers, int64 [B, T]; T is `length` or the longest window of the batch."""
    width = length or max(len(window.input_ids) for window in windows)
    names = ("input_ids", "token_type_ids", "attention_mask")
    batch = {name: torch.zeros(len(windows), width, dtype=torch.long) for name in names}
    for row, window in enumerate(windows):
        size = len(window.input_ids)
        batch["input_ids"][row, :size] = torch.from_numpy(window.input_ids)
        batch["token_type_ids"][row, :size] = torch.from_numpy(window.token_type_ids)
        batch["attention_mask"][row, :size] = 1
    if labels:
        batch["start_positions"] = torch.tensor([window.start for window in windows])
        batch["end_positions"] = torch.tensor([window.end for window in windows])
    return batch


def make_optimizer(
    model: torch.nn.Module, learning_rate: float, weight_decay: float, head_learning_rate: float | None = None
) -> torch.optim.AdamW:
    """AdamW (betas 0.9, 0.999, epsilon 1e-8); biases and LayerNorm do not decay, what is not BERT may learn faster."""
    head_learning_rate = learning_rate if head_learning_rate is None else head_learning_rate
    parameters: dict[tuple[bool, bool], list[torch.nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        parameters["bert." in name, name.endswith(PLAIN) or "LayerNorm" in name].append(parameter)
    groups = [
        {"params": group, "lr": learning_rate if in_bert else head_learning_rate,
         "weight_decay": 0.0 if plain else weight_decay}
        for (in_bert, plain), group in parameters.items()
    ]  # fmt: skip
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8)


def evaluate(model: torch.nn.Module, windows: list[Window], batch_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Start and end logits of each window, sorted by length for the computation, returned in the given order."""
    order = sorted(range(len(windows)), key=lambda index: len(windows[index].input_ids))
    logits: list[Any] = [None] * len(windows)
    model.eval()
    with torch.inference_mode(), Progress("evaluate", len(windows), "windows") as progress:
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            output = model(**collate([windows[index] for index in rows], labels=False))
            for row, index in enumerate(rows):
                size = len(windows[index].input_ids)
                logits[index] = (output.start_logits[row, :size].numpy(), output.end_logits[row, :size].numpy())
            progress.update(len(rows))
    return logits


def decode(
    questions: list[Question], windows: list[Window], logits: list, n_best: int, max_answer_length: int
) -> dict[str, str]:
    """Best answer text of each question over its windows; only context tokens can be chosen."""
    best: dict[int, tuple[float, str]] = defaultdict(lambda: (-np.inf, ""))
    for window, (start_logits, end_logits) in zip(windows, logits, strict=True):
        outside = window.offsets[:, 0] < 0
        start_logits, end_logits = (np.where(outside, -np.inf, values) for values in (start_logits, end_logits))
        starts = np.argsort(-start_logits, kind="stable")[:n_best]
        ends = np.argsort(-end_logits, kind="stable")[:n_best]
        scores = start_logits[starts][:, None] + end_logits[ends][None, :]
        spans = ends[None, :] - starts[:, None]
        scores = np.where((spans >= 0) & (spans < max_answer_length), scores, -np.inf)
        row, column = np.unravel_index(np.argmax(scores), scores.shape)
        if scores[row, column] > best[window.question][0]:
            first, last = window.offsets[starts[row], 0], window.offsets[ends[column], 1]
            best[window.question] = (float(scores[row, column]), questions[window.question].context[first:last])
    return {question.qas_id: best[index][1] for index, question in enumerate(questions)}


def train_epoch(model, optimizer, schedule, windows, order, args, progress) -> list[float]:
    """One pass over `windows` in `order`; the loss of every step."""
    losses = []
    model.train()
    for first in range(0, len(order), args.batch_size):
        rows = sorted(order[first : first + args.batch_size], key=lambda index: len(windows[index].input_ids))
        loss = 0.0
        for part in range(0, len(rows), args.micro_batch_size):
            micro = [windows[index] for index in rows[part : part + args.micro_batch_size]]
            mean = model(**collate(micro)).loss * (len(micro) / len(rows))
            mean.backward()
            loss += mean.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(loss)
        progress.update(1, loss=float(np.mean(losses[-50:])))
    return losses


def score(dev_file: Path, predictions: dict[str, str]) -> dict[str, float]:
    """Exact match and F1 of the questions that were asked (with --limit the first ones)."""
    dataset = squad.load_dataset(dev_file)
    for article in dataset["data"]:
        for paragraph in article["paragraphs"]:
            paragraph["qas"] = [item for item in paragraph["qas"] if item["id"] in predictions]
    return squad.evaluate(dataset, predictions, str(dev_file))


def run(args: argparse.Namespace, environment: dict[str, Any]) -> dict[str, Any]:
    """Train and score; each epoch ends with predictions.json, result.json and the model in the output folder."""
    torch.manual_seed(args.seed)
    folder, output = args.weights or minilm_folder(), args.output_dir
    output.mkdir(parents=True, exist_ok=True)
    train_file = data_file(args.train_file, output, DEFAULT_TRAIN_QUESTIONS, training=True)
    dev_file = data_file(args.dev_file, output, DEFAULT_DEV_QUESTIONS, training=False)
    tokenizer = BertTokenizerFast.from_pretrained(folder)
    model = BertForQuestionAnswering.from_pretrained(folder)
    train, dev = (read_questions(path, args.limit) for path in (train_file, dev_file))
    train_windows, dev_windows = (
        make_windows(questions, tokenizer, args.max_seq_length, args.doc_stride) for questions in (train, dev)
    )
    steps = args.epochs * -(-len(train_windows) // args.batch_size)
    optimizer = make_optimizer(model, args.learning_rate, args.weight_decay)
    schedule = get_linear_schedule_with_warmup(optimizer, int(args.warmup_ratio * steps), steps)
    result = {
        "benchmark": MODULE, "settings": sidebyside.settings_of(args), "train_windows": len(train_windows),
        "dev_windows": len(dev_windows), "steps": steps, "epochs": [], "losses": [], "environment": environment,
    }  # fmt: skip
    with Progress("train", steps, "steps") as progress:
        for epoch in range(1, args.epochs + 1):
            begin = time.monotonic()
            order = torch.randperm(len(train_windows)).tolist()
            result["losses"] += train_epoch(model, optimizer, schedule, train_windows, order, args, progress)
            trained = time.monotonic()
            logits = evaluate(model, dev_windows, args.eval_batch_size)
            predictions = decode(dev, dev_windows, logits, args.n_best_size, args.max_answer_length)
            write_json(output / "predictions.json", predictions)
            model.save_pretrained(output / "model")
            tokenizer.save_pretrained(output / "model")
            scores = score(dev_file, predictions)
            seconds = {"train_seconds": trained - begin, "evaluate_seconds": time.monotonic() - trained}
            result["epochs"].append({"epoch": epoch, **scores, **seconds})
            write_json(output / "result.json", {**result, **scores, "finished": epoch == args.epochs})
            print(f"epoch {epoch}: {json.dumps(result['epochs'][-1])}", file=sys.stderr, flush=True)
    return {**scores, "output_dir": str(output)}


HINTS = {"doc_stride": "tokens that neighbouring windows share", "micro_batch_size": "samples computed at once"}


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; the defaults are the settings of the published comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--train_file", type=Path, help="SQuAD v1.1 JSON to train on; generated when not given")
    parser.add_argument("--dev_file", type=Path, help="SQuAD v1.1 JSON to score on; generated when not given")
    parser.add_argument("--weights", type=Path, help="Hugging Face folder; the embedded MiniLM when not given")
    parser.add_argument("--output_dir", type=Path, required=True, help="where result.json and the model are written")
    parser.add_argument("--limit", type=int, default=0, help="only the first N questions of both files; 0 takes all")
    parser.add_argument("--threads", type=int, default=min(2, len(sidebyside.usable_cores())), help="of torch")
    for name, value in (
        ("seed", 42), ("epochs", 2), ("batch_size", 16), ("micro_batch_size", 4), ("eval_batch_size", 32),
        ("learning_rate", 1e-4), ("max_seq_length", 384), ("doc_stride", 128), ("warmup_ratio", 0.1),
        ("weight_decay", 0.01), ("clip", 1.0),
        ("n_best_size", 20), ("max_answer_length", 30),
    ):  # fmt: skip
        hint = HINTS.get(name, " ")
        parser.add_argument(f"--{name}", type=type(value), default=value, help=hint)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Command line of the peer run."""
    args = parse(argv)
    positive = ("epochs", "batch_size", "micro_batch_size", "eval_batch_size", "n_best_size", "max_answer_length")
    sidebyside.check(args, positive, ("train_file", "dev_file"))
    check_weights(args.weights)
    SpanOptions(args.max_seq_length, args.doc_stride)  # refuses windows that do not advance
    if bool(args.train_file) != bool(args.dev_file):
        raise UserError("--train_file and --dev_file go together")
    torch.set_num_threads(args.threads)
    print(json.dumps(run(args, record(MODULE, argv, args.threads))))


if __name__ == "__main__":
    run_main(main)
