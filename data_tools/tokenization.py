"""The tokenizer of BERT and ERNIE (basic splitting + WordPiece) from a vocab.txt, with character offsets; the only one.

The rules are Google's `tokenization.py`, run by the `tokenizers` library: clean text, space around CJK characters,
lower-case and strip accents (uncased vocabularies only), split at white space and punctuation, longest match first.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Encoding, Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from data_tools.character_tokens import CharacterTokens, Tokens
from models.common.errors import UserError, shorten
from models.common.files import read_text, sha256_of

PAD, UNKNOWN, CLS, SEP, MASK = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
# Longer words become [UNK]. 100 as in transformers; Google's code says 200.
MAX_CHARACTERS_PER_WORD = 100


class WordPieceTokenizer:
    """Text to token ids and character offsets.

    Special tokens are never recognised inside a text: a paragraph that quotes "[SEP]" is three ordinary tokens, as in
    Google's code, so data cannot forge the structure of a sample. (transformers turns it into the special token.)
    """

    def __init__(self, vocab_file: Path | str, lower_case: bool) -> None:
        self.vocab_file, self.lower_case = Path(vocab_file), lower_case
        self.vocab = read_vocab(vocab_file)
        self.sha256 = sha256_of(vocab_file)
        self._tokenizer = _bert_tokenizer(self.vocab, lower_case)
        self._character_tokens = CharacterTokens(self._tokenizer)

    @property
    def unknown_id(self) -> int:
        """Id of [UNK]."""
        return self.vocab[UNKNOWN]

    @property
    def cls_id(self) -> int:
        """Id of [CLS]."""
        return self.vocab[CLS]

    @property
    def sep_id(self) -> int:
        """Id of [SEP]."""
        return self.vocab[SEP]

    @property
    def mask_id(self) -> int:
        """Id of [MASK], which only pretraining needs."""
        if MASK not in self.vocab:
            raise UserError(f"{self.vocab_file}: the vocabulary lacks {MASK}, which stands for what is to be predicted")
        return self.vocab[MASK]

    def encode(self, texts: Sequence[str]) -> list[Encoding]:
        """One `Encoding` per text, without special tokens: `.ids`, `.tokens`, and `.offsets` (start, end) counted in
        characters of the text as given. Runs on all cores; the result does not depend on how texts are batched."""
        return self._tokenizer.encode_batch(list(texts), add_special_tokens=False)

    def encode_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids only, without special tokens; cheaper than `encode`."""
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def tokens(self, texts: Sequence[str]) -> Tokens:
        """What `encode` gives, of all texts in one array each; far cheaper where texts are Chinese, or alike."""
        return self._character_tokens.of(texts)

    def character_tokens(self, text: str) -> Tokens:
        """What `tokens` gives of the characters of a text, each of them a text of its own."""
        return self._character_tokens.of_characters(text)

    def describe(self) -> dict[str, object]:
        """What identifies this tokenizer in a sidecar or manifest."""
        return {
            "file": self.vocab_file.name,
            "sha256": self.sha256,
            "lower_case": self.lower_case,
            "vocab_size": len(self.vocab),
        }


def limit_threads(count: int) -> None:
    """Let the tokenizers of this process use `count` threads, not all cores; call it before the first text."""
    os.environ["RAYON_NUM_THREADS"] = str(count)


class WordSplitter:
    """BERT's basic splitting alone: at white space, around punctuation and around CJK characters."""

    def __init__(self) -> None:
        # With nothing else in the vocabulary every word is one [UNK], which has the place of its word.
        self._tokenizer = _bert_tokenizer({UNKNOWN: 0}, lower_case=False)

    def split(self, text: str) -> list[tuple[int, int]]:
        """Start and end of each word, in characters of the text as given."""
        return self._tokenizer.encode(text, add_special_tokens=False).offsets


def read_vocab(path: Path | str) -> dict[str, int]:
    """Read a vocab.txt: one token a line, whose id is the line number from 0; the special tokens must be there.

    ERNIE's says that number too, behind a tab: token<TAB>id. Raises `UserError` with file and line.
    """
    # Not splitlines(): the Chinese vocabulary holds U+2028, which is a line end to Python but a token to BERT.
    lines = read_text(path).split("\n")
    if lines[-1] == "":
        lines.pop()
    if any("\t" in line for line in lines):
        lines = [_numbered_token(line, number, path) for number, line in enumerate(lines)]
    vocab: dict[str, int] = {}
    for number, token in enumerate(lines):
        if token in vocab:
            raise UserError(
                f"{path}, line {number + 1}: token {token!r} was already on line {vocab[token] + 1}; "
                "each line must hold a different token, since the line number is its id"
            )
        vocab[token] = number
    missing = [token for token in (PAD, UNKNOWN, CLS, SEP) if token not in vocab]
    if missing:
        raise UserError(f"{path}: the vocabulary lacks {', '.join(missing)}; is this the vocab.txt of a BERT model?")
    return vocab


def _numbered_token(line: str, number: int, path: Path | str) -> str:
    """The token of token<TAB>id, where the id is the line's number from 0."""
    token, _, written = line.rpartition("\t")
    if token and written == str(number):
        return token
    raise UserError(
        f"{path}, line {number + 1}: expected a token, a tab and the id {number}, got {shorten(line)}; where one line "
        "says its id all do, and ids count the lines from 0"
    )


def _bert_tokenizer(vocab: dict[str, int], lower_case: bool) -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(vocab, unk_token=UNKNOWN, max_input_chars_per_word=MAX_CHARACTERS_PER_WORD))
    # strip_accents=None follows lowercase, as Google's code does.
    tokenizer.normalizer = BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=None, lowercase=lower_case
    )
    tokenizer.pre_tokenizer = BertPreTokenizer()
    return tokenizer
