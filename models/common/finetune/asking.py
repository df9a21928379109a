"""Texts -> samples -> what a model says of them, for each task. Nothing here knows a runtime.

An input is what one line of the user's says: a text, or two parted by a tab (a pair of texts; a question and its
context), or a JSON object with the same parts under their names.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_tools.feature_store import FeatureSet
from data_tools.features.classification import ClassificationFeaturizer, ClassificationOptions
from data_tools.features.span import SpanFeaturizer, SpanOptions
from data_tools.features.tagging import TaggingFeaturizer, TaggingOptions
from data_tools.readers.classification import LabelledText
from data_tools.readers.squad import Paragraph, Question
from data_tools.readers.tagging import TaggedText, split_characters
from data_tools.rejections import Rejections
from data_tools.tokenization import WordSplitter
from models.common.errors import UserError
from models.common.files import decode_json
from models.common.finetune.loaded import LoadedModel
from models.common.tasks import classification, span, tagging

# task -> names of the parts of an input; the second may be left out where it says so.
PARTS = {"span": ("question", "context"), "classification": ("text_a", "text_b"), "tagging": ("text",)}
OPTIONAL_PARTS = {"text_b"}


class Input(NamedTuple):
    """The parts of one input by their names, and where it came from."""

    parts: dict[str, str]
    where: str


def read_input(task: str, text: str, where: str) -> Input:
    """One line of the user's. Raises `UserError` that begins with `where`."""
    names = PARTS[task]
    if text.lstrip().startswith("{"):
        parts = _from_json(names, text, where)
    else:
        values = text.split("\t") if len(names) > 1 else [text]
        if len(values) > len(names):
            raise UserError(f"{where}: {len(values)} parts between tabs, expected {' and '.join(names)}")
        parts = dict(zip(names, values, strict=False))
    missing = [name for name in names if name not in parts and name not in OPTIONAL_PARTS]
    if missing:
        raise UserError(f"{where}: no {missing[0]}; expected {' <tab> '.join(names)}, or a JSON object with these keys")
    for name, part in parts.items():
        # Of an escape in JSON, or of bytes on the command line that are no UTF-8.
        if any("\ud800" <= character <= "\udfff" for character in part):
            raise UserError(f"{where}: {name} holds half of a surrogate pair, which no text can; give UTF-8")
    return Input(parts, where)


def ask(model: LoadedModel, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    """What the model says of each input, JSON-ready: its parts, and

    classification: "label", "probability", "probabilities"; or "value". tagging: "entities", each with "type", "start",
    "end" (characters, end exclusive) and "text". span: "answer" ("" for none) and "probability".
    """
    answers = _ASK[model.task["name"]](model, inputs)
    return [item.parts | answer for item, answer in zip(inputs, answers, strict=True)]


def _from_json(names: tuple[str, ...], text: str, where: str) -> dict[str, str]:
    try:
        value = decode_json(text, where)
    except UserError as error:
        raise UserError(f'{error}; a text that begins with {{ is asked about as {{"{names[0]}": ...}}') from None
    wrong = [name for name, part in value.items() if name in names and not isinstance(part, str)]
    if wrong:
        raise UserError(f"{where}: {wrong[0]} must be a string")
    return {name: value[name] for name in names if name in value}


def _rejections(inputs: Sequence[Input]) -> Rejections:
    """What a text that cannot be asked about is answered with: no flag skips it, and its number is its name."""
    return Rejections("input", what="texts", advice="", places=[item.where for item in inputs])


def _classify(model: LoadedModel, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    answers: list[dict[str, Any]] = [{}] * len(inputs)
    for paired in (False, True):  # a set of features holds pairs or single texts, not both
        places = [at for at, item in enumerate(inputs) if (item.parts.get("text_b") is not None) is paired]
        if places:
            some = _classify_alike(model, [inputs[at] for at in places])
            for at, answer in zip(places, some, strict=True):
                answers[at] = answer
    return answers


def _classify_alike(model: LoadedModel, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    records = [
        LabelledText(item.parts["text_a"], item.parts.get("text_b"), None, line, line)
        for line, item in enumerate(inputs)
    ]
    options = ClassificationOptions(model.task["max_seq_length"])
    features = ClassificationFeaturizer(model.tokenizer, options, None, _rejections(inputs)).features(records)
    return classification.decode(np.stack(model.predict(features)["logits"]), model.labels)


def _tag(model: LoadedModel, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    split = WordSplitter().split if model.task["unit"] == "word" else split_characters
    sentences = []
    for number, item in enumerate(inputs):
        units = split(item.parts["text"])
        if units:
            sentences.append(TaggedText(item.parts["text"], units, None, number, number))
    found: dict[int, list[dict[str, Any]]] = {}
    if sentences:
        options = TaggingOptions(model.task["max_seq_length"])
        features = TaggingFeaturizer(model.tokenizer, options, None, _rejections(inputs)).features(sentences)
        ids = tagging.tag_ids_of(model.predict(features))
        for sentence in tagging.decode(features, ids, model.labels, model.task["scheme"]):
            found[sentence.number] = tagging.as_entries(sentence)
    return [
        {
            "entities": [
                entry | {"text": item.parts["text"][entry["start"] : entry["end"]]} for entry in found.get(at, [])
            ]
        }
        for at, item in enumerate(inputs)
    ]


def _answer(model: LoadedModel, inputs: Sequence[Input]) -> list[dict[str, Any]]:
    paragraphs = [
        Paragraph(
            item.parts["context"], (Question(str(at), item.parts["question"], (), False, item.where),), item.where
        )
        for at, item in enumerate(inputs)
    ]
    task = model.task
    options = SpanOptions(task["max_seq_length"], task["doc_stride"], task["stride_is"], task["max_query_length"])
    features: FeatureSet = SpanFeaturizer(model.tokenizer, options, False, _rejections(inputs)).features(paragraphs)
    contexts = {str(at): item.parts["context"] for at, item in enumerate(inputs)}
    _, nbest = span.decode(features, model.predict(features), contexts, task["n_best_size"], task["max_answer_length"])
    return [
        {"answer": entries[0]["text"], "probability": entries[0]["probability"]}
        for entries in (nbest[str(at)] for at in range(len(inputs)))
    ]


_ASK: Mapping[str, Any] = {"span": _answer, "classification": _classify, "tagging": _tag}
