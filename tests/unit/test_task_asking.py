"""What predict and CLUE's benchmark do with texts that cannot be asked about, without any network."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from data_tools.feature_store import FeatureSet, load_features
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError
from models.common.finetune.asking import ask, read_input
from models.common.finetune.clue_benchmark import ClueBenchmark
from models.common.finetune.loaded import LoadedModel
from models.common.tagging import tag_names
from models.common.tasks import tagging

NAMES = tuple(tag_names(("name", "scene"), "BIO"))
WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "##a", "b", "##b", "c", "?")
LONG = "a" * 20


@pytest.fixture
def vocab(tmp_path: Path) -> Path:
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(WORDS) + "\n")
    return path


def tag_words(features: FeatureSet) -> list[np.ndarray]:
    """Every word that begins with an a is a name."""
    starts_a = np.isin(features.tokens["input_ids"], [WORDS.index("a")])
    return np.split(np.where(starts_a, NAMES.index("B-name"), 0), features.starts[1:-1])


def model_of(task: str, vocab: Path) -> LoadedModel:
    settings = {"name": task, "max_seq_length": 12, "unit": "word", "scheme": "BIO", "doc_stride": 2,
                "stride_is": "overlap", "max_query_length": 8, "n_best_size": 2, "max_answer_length": 4}  # fmt: skip

    def predict(features: FeatureSet) -> dict[str, list[np.ndarray]]:
        if task == "tagging":
            return {tagging.TAG_IDS: tag_words(features)}
        return {"logits": [np.zeros(2, np.float32)] * len(features)}

    return LoadedModel(settings, ("no", "yes"), WordPieceTokenizer(vocab, True), predict) if task != "tagging" else (
        LoadedModel(settings, NAMES, WordPieceTokenizer(vocab, True), predict)
    )  # fmt: skip


@pytest.mark.parametrize(
    ("task", "texts", "message"),
    [
        ("tagging", ["a b", "", f"b {LONG}"], r"^text 3: unit 1 \(from 0\) has 20 tokens, more than the 10 of a row$"),
        ("classification", ["a", "\u200b"], r"^text 2: holds no token$"),
        ("classification", ["a\tb", "b\t\u200b"], r"^text 2: the second text holds no token$"),
        ("span", ["a?\tb", "a?\t\u3000"], r"^text 2: the context is empty$"),
        ("span", ["a?\tb", f"{LONG}?\tb"], r"^text 2: its 8 tokens leave room for 1 context tokens"),
        ("tagging", ['{"text": "\\ud800"}'], r"^text 1: text holds half of a surrogate pair"),
        ("tagging", ["a\udcff"], r"^text 1: text holds half of a surrogate pair"),
        ("tagging", ['{"text": "a", "text": "b"}'], r"^text 1: the key 'text' is twice in one object"),
        ("tagging", ["[" * 9 + "{", "{" + "[" * 100_000], r"^text 2, column 2: not valid JSON"),
        ("tagging", ['{"text": ' + "[" * 100_000], r"^text 1: nested too deeply"),
    ],
)
def test_a_text_that_cannot_be_asked_about_is_named(vocab, task, texts, message):
    """By its own number, and without a flag that predict does not have."""
    with pytest.raises(UserError, match=message) as caught:
        ask(model_of(task, vocab), [read_input(task, text, f"text {at}") for at, text in enumerate(texts, 1)])
    assert "--skip" not in str(caught.value)


def test_entities_of_texts(vocab):
    texts = ["b a\u0301 b", "", "aab"]
    answers = ask(model_of("tagging", vocab), [read_input("tagging", text, "") for text in texts])
    assert [answer["text"] for answer in answers] == texts
    assert [answer["entities"] for answer in answers] == [
        [{"type": "name", "start": 2, "end": 4, "text": "a\u0301"}], [],
        [{"type": "name", "start": 0, "end": 3, "text": "aab"}],
    ]  # fmt: skip


@dataclass
class Config:
    """What the benchmark asks of a run's settings."""

    save_finetune_checkpoint_path: str
    vocab_file_path: str
    unit: str = "word"
    max_seq_length: int = 12
    do_lower_case: bool = True


@pytest.mark.parametrize("labelled", [True, False])
def test_the_benchmark_writes_a_line_for_every_line(vocab, tmp_path, labelled):
    """Of a text without a word and one with a word that no row holds, too; their entities count as not found."""
    gold = [{"name": {"a": [[2, 2]]}}, {}, {"scene": {"b": [[0, 0]]}}, {"name": {"aa": [[0, 1]]}}]
    texts = ["b a", " \u3000", f"b {LONG}", "aa c"]
    rows = [{"text": text} | ({"label": label} if labelled else {}) for text, label in zip(texts, gold, strict=True)]
    path = tmp_path / "cluener.json"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    benchmark = ClueBenchmark(str(path))
    folder = benchmark.convert(Config(str(tmp_path / "run"), str(vocab)), None, NAMES)
    features = load_features(folder)
    assert features.info["skipped"] == {"empty": [2], "long_units": [3]}
    found = tagging.decode(features, tag_words(features), NAMES, "BIO")
    benchmark.write(tmp_path / "out.json", found)
    written = [json.loads(line) for line in (tmp_path / "out.json").read_text().splitlines()]
    assert [row["text"] for row in written] == texts
    assert [row["label"] for row in written] == [gold[0], {}, {}, gold[3]]
    scores = benchmark.scores(found)
    assert (scores["precision"], scores["recall"]) == (1.0, 2 / 3) if labelled else scores == {}
