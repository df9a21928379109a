"""A corpus in which no token occurs twice, so that every token of a sample says where it is from."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_tools.convert import PretrainConversion, convert_pretrain
from data_tools.feature_store import FeatureSet, load_features
from data_tools.features.masking import Masking
from data_tools.features.pretrain import PretrainOptions
from data_tools.features.units import PHRASE, UnitOptions

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PAD, UNKNOWN, CLS, SEP, MASK = range(5)
WORDS = {PHRASE: 1.0}  # the level of whole words


@dataclass(frozen=True)
class MadeCorpus:
    """text, vocab: files; the others say of every token id its document, sentence and word, -1 of special tokens."""

    text: Path
    vocab: Path
    document: np.ndarray
    sentence: np.ndarray
    word: np.ndarray

    def convert(self, folder: Path, **settings) -> FeatureSet:
        """The samples in a folder of the numpy format."""
        return convert(self.text, self.vocab, folder, **settings)


def convert(text: Path, vocab: Path, folder: Path, **settings) -> FeatureSet:
    """Convert and load; settings are those of masking, of the options, of units, and of the conversion."""
    masking = Masking(**{name: settings.pop(name) for name in ("masked_lm_prob", "max_predictions_per_seq")
                         if name in settings})  # fmt: skip
    options = PretrainOptions(masking=masking, **_taken(settings, PretrainOptions))
    units = UnitOptions(**_taken(settings, UnitOptions))
    settings = {"dataset_format": "numpy"} | settings
    texts = text if isinstance(text, tuple) else (text,)
    convert_pretrain(PretrainConversion(texts, vocab, folder, options=options, units=units, **settings))
    return load_features(folder)


def _taken(settings: dict, of: type) -> dict:
    """The settings that are fields of a class, which leave `settings`."""
    return {name: settings.pop(name) for name in list(settings) if name in of.__dataclass_fields__}


def make_corpus(folder: Path, documents: int, most_sentences: int, most_words: int, most_pieces: int) -> MadeCorpus:
    """Documents of 1 to `most_sentences` sentences of 1 to `most_words` words of 1 to `most_pieces` pieces."""
    rng = np.random.default_rng(3)
    vocab, lines = list(SPECIAL), []
    places = [(-1, -1, -1)] * len(SPECIAL)
    sentence = word = 0
    for document in range(documents):
        for _ in range(rng.integers(1, most_sentences, endpoint=True)):
            words = []
            for _ in range(rng.integers(1, most_words, endpoint=True)):
                pieces = [f"x{len(vocab) + piece:07}" for piece in range(rng.integers(1, most_pieces, endpoint=True))]
                vocab += [pieces[0], *(f"##{piece}" for piece in pieces[1:])]
                places += [(document, sentence, word)] * len(pieces)
                words.append("".join(pieces))
                word += 1
            lines.append(" ".join(words))
            sentence += 1
        lines.append("")
    (folder / "corpus.txt").write_text("\n".join(lines))
    (folder / "vocab.txt").write_text("\n".join(vocab))
    return MadeCorpus(folder / "corpus.txt", folder / "vocab.txt", *np.array(places).T)


def make_plain_corpus(folder: Path, documents: int, sentences: int) -> MadeCorpus:
    """Documents of so many sentences of one token each."""
    tokens = [f"x{number:07}" for number in range(documents * sentences)]
    parts = ["\n".join(tokens[begin : begin + sentences]) for begin in range(0, len(tokens), sentences)]
    (folder / "corpus.txt").write_text("\n\n".join(parts))
    (folder / "vocab.txt").write_text("\n".join(SPECIAL + tokens))
    number = np.arange(-len(SPECIAL), len(tokens))
    document = np.where(number < 0, -1, number // sentences)
    return MadeCorpus(
        folder / "corpus.txt", folder / "vocab.txt", document, np.maximum(number, -1), np.maximum(number, -1)
    )


def original_ids(features: FeatureSet) -> np.ndarray:
    """The tokens before masking."""
    labels = features.tokens["mlm_label"]
    return np.where(labels >= 0, labels, features.tokens["input_ids"])


def texts_of(features: FeatureSet) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """(first text, second text, next_sentence_label) of each sample, unmasked and without special tokens; checks the
    latter and the token types."""
    ids, samples = original_ids(features), []
    for index in range(len(features)):
        part = slice(features.starts[index], features.starts[index + 1])
        sample, types = ids[part], features.tokens["token_type_ids"][part]
        middle = int(np.flatnonzero(types == 0)[-1])
        assert sample[0] == CLS and sample[middle] == sample[-1] == SEP and (types[middle + 1 :] == 1).all()
        first, second = sample[1:middle], sample[middle + 1 : -1]
        assert len(first) and len(second) and (first > MASK).all() and (second > MASK).all()
        samples.append((first, second, int(features.scalars["next_sentence_label"][index])))
    return samples


def assert_share(count: int, total: int, share: float) -> None:
    """A count of independent events, each with this chance, within five standard deviations."""
    assert abs(count - total * share) <= 5 * np.sqrt(total * share * (1 - share)), (count, total, share)
