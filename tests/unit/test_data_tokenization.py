"""The tokenizer against Google's published Python tokenizer, on real and on random text."""

import random
import unicodedata

import pytest
from transformers import BertTokenizer

from benchmarks.google_squad import GoogleTokenizer
from data_tools import character_tokens
from data_tools.readers.classification import KNOWN_LAYOUTS, ClassificationReader
from data_tools.readers.squad import SquadReader
from data_tools.tokenization import WordPieceTokenizer, read_vocab
from models.common.errors import UserError

VOCABULARIES = {"bert_uncased_vocab.txt": True, "bert_cased_vocab.txt": False, "bert_chinese_vocab.txt": True}
DATA = {
    "bert_uncased_vocab.txt": "squad/dev-half-v1.1.json",
    "bert_cased_vocab.txt": "squad/dev-half-v1.1.json",
    "bert_chinese_vocab.txt": "cmrc2018/trial.json",
}
# Assigned long ago, so that Python's and Rust's Unicode tables agree. Not the capital sigma: Python's lower() looks at
# its neighbours (final sigma), Rust's works character by character.
RANGES = [(0x20, 0x7E), (0xA0, 0x17F), (0x391, 0x3A1), (0x3B1, 0x3C9), (0x400, 0x45F), (0x5D0, 0x5EA), (0x620, 0x64A),
          (0x300, 0x33F), (0x2010, 0x2027), (0x3001, 0x3011), (0x4E00, 0x4FFF), (0xAC00, 0xACFF), (0xFF01, 0xFF5E),
          (0x1F600, 0x1F64F), (0x20000, 0x200FF), (0x0, 0x1F), (0x200B, 0x200F)]  # fmt: skip


@pytest.fixture(scope="module", params=sorted(VOCABULARIES))
def pair(request, shared_data):
    """Our tokenizer and Google's, for each vocabulary."""
    path, lower_case = shared_data / "vocab" / request.param, VOCABULARIES[request.param]
    return WordPieceTokenizer(path, lower_case), GoogleTokenizer(path, lower_case), shared_data / DATA[request.param]


def test_real_text_gives_googles_tokens(pair):
    ours, google, data = pair
    texts = []
    for paragraph in list(SquadReader(data))[:120]:
        texts += [paragraph.context, *(question.text for question in paragraph.questions)]
    for text, encoding, ids in zip(texts, ours.encode(texts), ours.encode_ids(texts), strict=True):
        assert encoding.ids == google.ids(google.tokenize(text)) == ids


def test_random_unicode_gives_googles_tokens_and_sound_offsets(pair):
    ours, google, _ = pair
    rng = random.Random(7)
    texts = ["".join(_character(rng) for _ in range(rng.randrange(40))) for _ in range(1500)]
    for text, encoding in zip(texts, ours.encode(texts), strict=True):
        assert encoding.ids == google.ids(google.tokenize(text)), repr(text)
        starts, ends = [start for start, _ in encoding.offsets], [end for _, end in encoding.offsets]
        assert all(0 <= start < end <= len(text) for start, end in encoding.offsets), repr(text)
        assert starts == sorted(starts) and ends == sorted(ends), repr(text)


def test_offsets_give_back_the_token(shared_data):
    tokenizer = WordPieceTokenizer(shared_data / "vocab/bert_uncased_vocab.txt", lower_case=True)
    text = "  Ünïcode\u00a0naïve — “quotes”, 中文\x00end\u2028\tİstanbul"
    [encoding] = tokenizer.encode([text])
    for token, (start, end) in zip(encoding.tokens, encoding.offsets, strict=True):
        if token != "[UNK]":
            piece = unicodedata.normalize("NFD", text[start:end].lower())
            assert "".join(c for c in piece if unicodedata.category(c) != "Mn") == token.removeprefix("##")


def test_offsets_equal_those_of_transformers(shared_data):
    vocab = shared_data / "vocab/bert_uncased_vocab.txt"
    theirs = BertTokenizer(vocab=str(vocab), do_lower_case=True)
    texts = [paragraph.context for paragraph in list(SquadReader(shared_data / "squad/dev-half-v1.1.json"))[:100]]
    reference = theirs(texts, add_special_tokens=False, return_offsets_mapping=True)
    for encoding, ids, offsets in zip(
        WordPieceTokenizer(vocab, lower_case=True).encode(texts),
        reference["input_ids"],
        reference["offset_mapping"],
        strict=True,
    ):
        assert encoding.ids == ids
        assert encoding.offsets == [tuple(pair) for pair in offsets]


def test_special_tokens_in_a_text_stay_text(shared_data):
    tokenizer = WordPieceTokenizer(shared_data / "vocab/bert_uncased_vocab.txt", lower_case=True)
    [encoding] = tokenizer.encode(["a [SEP] b [CLS][PAD]"])
    assert not {tokenizer.sep_id, tokenizer.cls_id, tokenizer.vocab["[PAD]"]} & set(encoding.ids)


def test_vocabulary_problems_are_named(tmp_path):
    path = tmp_path / "vocab.txt"
    with pytest.raises(UserError, match="not found"):
        read_vocab(path)
    path.write_text("[PAD]\n[UNK]\nword\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"lacks \[CLS\], \[SEP\]"):
        read_vocab(path)
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nword\nword\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 6: token 'word' was already on line 5"):
        read_vocab(path)
    path.write_bytes(b"[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\n\xe2\x80\xa8\r\nlast")
    assert list(read_vocab(path)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2028", "last"]


def assert_tokens_are_encodings(tokenizer, texts, batch=37):
    """`tokens` and `character_tokens` against `encode`, which is the library's own way."""
    for first in range(0, len(texts), batch):
        part = texts[first : first + batch]
        characters = "".join(part)
        for found, given in (
            (tokenizer.tokens(part), part), (tokenizer.character_tokens(characters), list(characters)),
        ):  # fmt: skip
            wanted = tokenizer.encode(given)
            assert found.lengths.tolist() == [len(encoding.ids) for encoding in wanted], given
            assert found.ids.tolist() == [token for encoding in wanted for token in encoding.ids], given
            offsets = [place for encoding in wanted for place in encoding.offsets]
            assert list(zip(found.starts.tolist(), found.ends.tolist(), strict=True)) == offsets, given


@pytest.mark.parametrize("remembered", [1 << 16, 5])
@pytest.mark.parametrize("vocabulary", ["ernie1.0_vocab.txt", "bert_cased_vocab.txt"])
def test_the_table_of_characters_gives_what_the_tokenizer_gives(shared_data, vocabulary, remembered, monkeypatch):
    monkeypatch.setattr(character_tokens, "REMEMBERED_STRETCHES", remembered)
    tokenizer = WordPieceTokenizer(shared_data / "vocab" / vocabulary, vocabulary.startswith("ernie"))
    rng = random.Random(3)
    texts = [
        "",
        "\n",
        " \t",
        "a\n\u4e2d",
        "\u4e2d\u0301\u56fd",
        "e\u0301\u4e2d",
        "\u4e2d" * 300,
        "x" * 300,
        "\x00\u4e2d\x00",
    ]
    texts += ["".join(_character(rng) for _ in range(rng.randrange(40))) for _ in range(1500)]
    # All of Unicode, most of it between two Chinese characters and two letters.
    anywhere = [chr(code) for code in range(1, 0x30000, 7) if not 0xD800 <= code < 0xE000]
    texts += [f"\u4e2d{character}\u56fd{character}b{rng.choice(anywhere)}" for character in anywhere[::3]]
    texts += ["".join(rng.choice(anywhere) for _ in range(rng.randrange(12))) for _ in range(1500)]
    reviews = ClassificationReader(shared_data / "chnsenticorp/dev.tsv", KNOWN_LAYOUTS["chnsenticorp"])
    texts += [record.text_a for record in reviews][:300]
    assert_tokens_are_encodings(tokenizer, texts)
    for nothing in (tokenizer.tokens([]), tokenizer.character_tokens("")):
        assert len(nothing.ids) == len(nothing.lengths) == 0


def test_a_table_for_words_that_have_no_letter_a(tmp_path):
    """What stands alone is tried out between two letters, which this vocabulary does not know."""
    path = tmp_path / "vocab.txt"
    path.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nb\n##b\n\u4e2d\n.\n", encoding="utf-8")
    texts = ["b\u4e2db", "bb.b", "b b", "ab", "b\u0301b.", "\u56fd.", "ba\u4e2d"]
    assert_tokens_are_encodings(WordPieceTokenizer(path, True), texts)


def test_ernies_vocabulary_gives_the_tokens_of_transformers(shared_data, tmp_path):
    """Its file says the ids, which transformers does not read: it gets the same tokens without them."""
    path = shared_data / "vocab/ernie1.0_vocab.txt"
    pairs = [line.split("\t") for line in path.read_bytes().decode().removesuffix("\n").split("\n")]
    assert read_vocab(path) == {token: int(number) for token, number in pairs} and len(pairs) == 17964
    plain = tmp_path / "vocab.txt"
    plain.write_text("".join(f"{token}\n" for token, _ in pairs), encoding="utf-8")
    ours, theirs = WordPieceTokenizer(path, lower_case=True), BertTokenizer(vocab=str(plain), do_lower_case=True)
    assert (ours.vocab["[PAD]"], ours.cls_id, ours.sep_id, ours.mask_id, ours.unknown_id) == (0, 1, 2, 3, 17963)
    reviews = ClassificationReader(shared_data / "chnsenticorp/dev.tsv", KNOWN_LAYOUTS["chnsenticorp"])
    texts = [record.text_a for record in reviews]
    for file in ("cmrc2018/trial.json", "drcd/DRCD_dev.json"):
        for paragraph in list(SquadReader(shared_data / file))[:100]:
            texts += [paragraph.context, *(question.text for question in paragraph.questions)]
    reference = theirs(texts, add_special_tokens=False, return_offsets_mapping=True)
    for encoding, ids, offsets in zip(
        ours.encode(texts), reference["input_ids"], reference["offset_mapping"], strict=True
    ):
        assert encoding.ids == ids and encoding.offsets == [tuple(pair) for pair in offsets]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[PAD]\t0\n[UNK]\t1\n[CLS]\t3\n", r"line 3: expected a token, a tab and the id 2, got .*CLS"),
        ("[PAD]\n[UNK]\t1\n", r"line 1: expected a token, a tab and the id 0, got '.PAD.'; where one line says its id"),
        ("[PAD]\t1\n[UNK]\t2\n", r"line 1: expected a token, a tab and the id 0"),
        ("[PAD]\t0\n[UNK]\n", r"line 2: expected a token, a tab and the id 1, got '.UNK.'"),
        ("[PAD]\t0\n[UNK]\t01\n", r"line 2: expected a token, a tab and the id 1"),
        ("[PAD]\t0\n\t1\n", r"line 2: expected a token, a tab and the id 1"),
        ("[PAD]\t0\n[PAD]\t1\n", r"line 2: token '.PAD.' was already on line 1"),
        ("[PAD]\t0\n[UNK]\t1\n", r"lacks .CLS., .SEP."),
    ],
)
def test_ids_that_are_not_the_numbers_of_the_lines_are_refused(tmp_path, content, message):
    path = tmp_path / "vocab.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        read_vocab(path)


def _character(rng: random.Random) -> str:
    if rng.random() < 0.25:
        return " "
    low, high = rng.choice(RANGES)
    return chr(rng.randint(low, high))
