"""The peer of our pretraining data: what Google's create_pretraining_data.py does, in plain Python, token by token.

Written after the published description and behaviour of google-research/bert: the whole corpus and all instances are
held in memory as lists of tokens; every pass goes through every document again; sentence pairs are cut one token at a
time; the places to mask are shuffled for each instance. What it makes is then put into our container for a writer.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.google_squad import GoogleTokenizer
from data_tools.feature_store import FeatureSet, starts_of
from data_tools.features.pretrain import PretrainOptions


@dataclass
class Instance:
    """One sample as tokens; masked_positions ascend."""

    tokens: list[str]
    segment_ids: list[int]
    is_random_next: bool
    masked_positions: list[int]
    masked_labels: list[str]


@dataclass
class Row:
    """One sample as numbers, padded."""

    input_ids: list[int]
    input_mask: list[int]
    segment_ids: list[int]
    masked_positions: list[int]
    masked_ids: list[int]
    next_sentence_label: int


def create_instances(
    files: list[Path], tokenizer: GoogleTokenizer, options: PretrainOptions, whole_words: bool
) -> list[Instance]:
    """All instances of a corpus, in random order."""
    rng = random.Random(options.random_seed)
    documents: list[list[list[str]]] = [[]]
    for file in files:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                line = line.strip()
                if not line:
                    documents.append([])
                tokens = tokenizer.tokenize(line)
                if tokens:
                    documents[-1].append(tokens)
    documents = [document for document in documents if document]
    rng.shuffle(documents)
    words = list(tokenizer.vocab)
    instances = []
    for _ in range(options.dupe_factor):
        for index in range(len(documents)):
            instances.extend(_of_document(documents, index, words, options, whole_words, rng))
    rng.shuffle(instances)
    return instances


def _of_document(
    documents: list[list[list[str]]],
    index: int,
    words: list[str],
    options: PretrainOptions,
    whole_words: bool,
    rng: random.Random,
) -> list[Instance]:
    document = documents[index]
    room = options.max_seq_length - 3
    wanted = room
    if rng.random() < options.short_seq_prob:
        wanted = rng.randint(2, room)
    instances = []
    stretch: list[list[str]] = []
    length = 0
    at = 0
    while at < len(document):
        stretch.append(document[at])
        length += len(document[at])
        if at == len(document) - 1 or length >= wanted:
            split = 1
            if len(stretch) >= 2:
                split = rng.randint(1, len(stretch) - 1)
            first = []
            for sentence in stretch[:split]:
                first.extend(sentence)
            second = []
            is_random_next = len(stretch) == 1 or rng.random() < 0.5
            if is_random_next:
                second = _random_text(documents, index, wanted - len(first), rng)
                at -= len(stretch) - split
            else:
                for sentence in stretch[split:]:
                    second.extend(sentence)
            _truncate(first, second, room, rng)
            tokens = ["[CLS]", *first, "[SEP]", *second, "[SEP]"]
            segment_ids = [0] * (len(first) + 2) + [1] * (len(second) + 1)
            tokens, positions, labels = _masked(tokens, words, options, whole_words, rng)
            instances.append(Instance(tokens, segment_ids, is_random_next, positions, labels))
            stretch = []
            length = 0
        at += 1
    return instances


def _random_text(documents: list[list[list[str]]], index: int, wanted: int, rng: random.Random) -> list[str]:
    for _ in range(10):
        other = rng.randint(0, len(documents) - 1)
        if other != index:
            break
    document = documents[other]
    text: list[str] = []
    for sentence in document[rng.randint(0, len(document) - 1) :]:
        text.extend(sentence)
        if len(text) >= wanted:
            break
    return text


def _truncate(first: list[str], second: list[str], room: int, rng: random.Random) -> None:
    while len(first) + len(second) > room:
        longer = first if len(first) > len(second) else second
        if rng.random() < 0.5:
            del longer[0]
        else:
            longer.pop()


def _masked(
    tokens: list[str], words: list[str], options: PretrainOptions, whole_words: bool, rng: random.Random
) -> tuple[list[str], list[int], list[str]]:
    candidates: list[list[int]] = []
    for position, token in enumerate(tokens):
        if token in ("[CLS]", "[SEP]"):
            continue
        if whole_words and candidates and token.startswith("##"):
            candidates[-1].append(position)
        else:
            candidates.append([position])
    rng.shuffle(candidates)
    output = list(tokens)
    masking = options.masking
    wanted = min(masking.max_predictions_per_seq, max(1, round(len(tokens) * masking.masked_lm_prob)))
    masked: list[tuple[int, str]] = []
    for positions in candidates:
        if len(masked) >= wanted:
            break
        if len(masked) + len(positions) > wanted:
            continue
        for position in positions:
            if rng.random() < 0.8:
                output[position] = "[MASK]"
            elif rng.random() >= 0.5:
                output[position] = words[rng.randint(0, len(words) - 1)]
            masked.append((position, tokens[position]))
    masked.sort(key=lambda pair: pair[0])
    return output, [position for position, _ in masked], [label for _, label in masked]


def convert(instances: list[Instance], tokenizer: GoogleTokenizer, options: PretrainOptions) -> FeatureSet:
    """Every instance padded to a row, as for a record; then in our container for a writer."""
    rows = [_row(instance, tokenizer, options) for instance in instances]
    lengths = np.array([sum(row.input_mask) for row in rows])
    pairs = list(zip(rows, lengths.tolist(), strict=True))
    labels = np.full((len(rows), options.max_seq_length), -1, np.int32)
    for label, row in zip(labels, rows, strict=True):
        found = [slot for slot, position in enumerate(row.masked_positions) if position]
        label[[row.masked_positions[slot] for slot in found]] = [row.masked_ids[slot] for slot in found]
    tokens = {
        "input_ids": np.concatenate([np.array(row.input_ids[:length], np.int32) for row, length in pairs]),
        "token_type_ids": np.concatenate([np.array(row.segment_ids[:length], np.int32) for row, length in pairs]),
        "mlm_label": labels[np.arange(options.max_seq_length) < lengths[:, None]],
    }
    scalars = {
        "next_sentence_label": np.array([row.next_sentence_label for row in rows], np.int32),
        "unique_id": np.arange(len(rows), dtype=np.int64),
    }
    return FeatureSet(tokens, starts_of(lengths), scalars)


def _row(instance: Instance, tokenizer: GoogleTokenizer, options: PretrainOptions) -> Row:
    input_ids = tokenizer.ids(instance.tokens)
    input_mask = [1] * len(input_ids)
    segment_ids = list(instance.segment_ids)
    while len(input_ids) < options.max_seq_length:
        input_ids.append(0)
        input_mask.append(0)
        segment_ids.append(0)
    positions = list(instance.masked_positions)
    ids = tokenizer.ids(instance.masked_labels)
    while len(positions) < options.masking.max_predictions_per_seq:
        positions.append(0)
        ids.append(0)
    return Row(input_ids, input_mask, segment_ids, positions, ids, int(instance.is_random_next))
