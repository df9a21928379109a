"""Files with entities: layouts, tolerance, schemes found from the tags, how text is put together, every error named."""

import json

import pytest

from data_tools.readers.hold_out import HoldOut
from data_tools.readers.tagging import TaggingLayout, TaggingReader
from data_tools.rejections import Rejections
from models.common.errors import UserError
from models.common.tagging import Entity

CLUENER, MSRA, CONLL = TaggingLayout("cluener"), TaggingLayout("msra"), TaggingLayout("conll")
STAFF = (Entity(0, 3, "PER"), Entity(4, 5, "LOC"))


def write(tmp_path, content: str | bytes):
    """A file with this content."""
    path = tmp_path / "data.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(tmp_path, content, layout, **settings):
    """The sentences of a file with this content."""
    return list(TaggingReader(write(tmp_path, content), layout, **settings))


@pytest.mark.parametrize(
    "tags",
    [
        "B-PER I-PER I-PER O B-LOC",
        "B-PER I-PER E-PER O S-LOC",
        "B-PER M-PER E-PER O S-LOC",
        "B_PER M_PER E_PER O S_LOC",
    ],
)
@pytest.mark.parametrize("untidy", [False, True])
def test_conll_schemes_are_found_from_the_tags(tmp_path, tags, untidy):
    rows = [f"{token} {tag}" for token, tag in zip("uvwxy", tags.split(), strict=True)]
    content = "\n".join([*rows, "", *rows])
    if untidy:
        content = "\ufeff\r\n-DOCSTART- -X- O O\r\n\r\n" + "\r\n".join([*rows, "", " ", *rows, "", ""]).replace(
            " ", " \t "
        )
    sentences = read(tmp_path, content, CONLL)
    assert [(sentence.text, sentence.entities, sentence.number) for sentence in sentences] == [
        ("u v w x y", STAFF, 0), ("u v w x y", STAFF, 1),
    ]  # fmt: skip
    assert [sentence.line for sentence in sentences] == ([4, 11] if untidy else [1, 7])


def test_conll_columns(tmp_path):
    rows = "Ada NNP B-PER x\nLovelace NNP I-PER y\n"
    [sentence] = read(tmp_path, rows, TaggingLayout("conll", tag_column=3))
    assert (sentence.text, sentence.entities) == ("Ada Lovelace", (Entity(0, 2, "PER"),))
    [sentence] = read(tmp_path, rows, CONLL, labelled=False)
    assert (sentence.text, sentence.entities, sentence.units) == ("Ada Lovelace", None, [(0, 3), (4, 12)])
    [sentence] = read(tmp_path, "Ada\nLovelace", CONLL, labelled=False)
    assert sentence.text == "Ada Lovelace"


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        ("The U.S. , 3 men", "The U.S. , 3 men"),
        ("北 京 2 0 1 4 年 A B 座", "北京2014年AB座"),
        ("我 爱 New York 和 北京", "我爱New York和北京"),
        ("I a m", "I a m"),
    ],
)
def test_text_of_conll_tokens(tmp_path, tokens, text):
    content = "".join(f"{token}\tO\n" for token in tokens.split())
    [sentence] = read(tmp_path, content, CONLL)
    assert sentence.text == text
    assert [text[start:end] for start, end in sentence.units] == tokens.split()


def test_msra_and_what_is_tolerated(tmp_path):
    content = "\ufefftext_a\tlabel\r\n\r\na\x02bc\x02 \tB-PER\x02I-PER\x02O\r\n \r\nd\tO"
    first, second = read(tmp_path, content, MSRA)
    assert (first.text, first.units, first.entities) == ("abc ", [(0, 1), (1, 3), (3, 4)], (Entity(0, 2, "PER"),))
    assert (first.line, second.line, second.number, second.entities) == (3, 5, 1, ())
    for header in ("text_a", "text_a\tlabel"):
        rest = "\tO\x02O" if "label" in header else ""
        [sentence] = read(tmp_path, f"{header}\na\x02b{rest}\n", MSRA, labelled=False)
        assert (sentence.text, sentence.entities) == ("ab", None)


def test_cluener_by_words_and_what_is_tolerated(tmp_path):
    row = {"id": 3, "text": "Ada's  北京 visit", "label": {"name": {"Ada": [[0, 2]]}, "address": {"北京": [[7, 8]]}}}
    content = "\ufeff\r\n" + json.dumps(row) + "\r\n\r\n" + json.dumps(row, ensure_ascii=False)
    expected = {
        "character": (Entity(0, 3, "name"), Entity(5, 7, "address")),
        "word": (Entity(0, 1, "name"), Entity(3, 5, "address")),
    }
    for unit, entities in expected.items():
        first, second = read(tmp_path, content, TaggingLayout("cluener", unit))
        assert first.entities == second.entities == entities
        assert (first.line, second.line) == (2, 4)
        words = [first.text[start:end] for start, end in first.units]
        assert words == (["Ada", "'", "s", "北", "京", "visit"] if unit == "word" else list("Ada's北京visit"))


def test_iob1_is_read_as_conlleval_reads_it(tmp_path):
    content = "\n".join(f"t {tag}" for tag in ("I-PER", "I-PER", "O", "I-LOC", "B-LOC", "I-ORG"))
    with pytest.raises(UserError, match=r"line 1: 'I-PER' at the start.*--skip_invalid_tags true"):
        read(tmp_path, content, CONLL)
    rejections = Rejections("x")
    [sentence] = read(tmp_path, content, CONLL, repair=True, rejections=rejections)
    expected = (Entity(0, 2, "PER"), Entity(3, 4, "LOC"), Entity(4, 5, "LOC"), Entity(5, 6, "ORG"))
    assert sentence.entities == expected and rejections.repaired == [1]


@pytest.mark.parametrize("repair", [False, True])
def test_repairing_is_advised_where_it_helps(tmp_path, repair):
    """A tag that is none is not mended; the others of its sentence wait for it."""
    with pytest.raises(UserError, match=r"line 3: 'Q' is no BIO tag") as caught:
        read(tmp_path, "a O\nb I-X\nc Q\n", CONLL, repair=repair)
    assert "--repair_tags" not in str(caught.value) and "--skip_invalid_tags true" in str(caught.value)
    with pytest.raises(UserError, match=r"line 2: position 0: 'B-X ' has white space"):
        read(tmp_path, "text_a\tlabel\na\x02b\tB-X \x02I-X\n", MSRA, repair=repair)


@pytest.mark.parametrize("blank", ["\u3000", "\u00a0"])
def test_a_blank_token_ends_no_sentence(tmp_path, blank):
    tokens = ["a", blank, "b"]
    [tagged] = read(tmp_path, "".join(f"{token} O\n" for token in tokens), CONLL)
    [bare] = read(tmp_path, "".join(f"{token}\n" for token in tokens), CONLL, labelled=False)
    assert tagged.text == bare.text and tagged.units == bare.units and len(bare.units) == 3


def test_hold_out_counts_what_is_skipped(tmp_path):
    good, bad = '{"text": "ab", "label": {}}', '{"text": "ab", "label": {"x": {"c": [[0, 0]]}}}'
    content = "\n".join([good, bad, bad, good, good, good])
    numbers = {}
    for part in ("train", "dev"):
        rejections = Rejections("x", frozenset(["misaligned"]))
        sentences = read(tmp_path, content, CLUENER, rejections=rejections, hold_out=HoldOut(".34", part))
        numbers[part] = [sentence.number for sentence in sentences], rejections.skipped
    assert numbers == {"train": ([0, 3, 4], {"misaligned": [2]}), "dev": ([5], {"misaligned": [3]})}


GOLD = '{"text": "abcd", "label": {"x": %s}}\n'


@pytest.mark.parametrize(
    ("layout", "content", "reason", "message"),
    [
        (CLUENER, GOLD % '{"bd": [[1, 2]]}', "misaligned", "the x 'bd' is not at characters 1..2, there is 'bc'"),
        (CLUENER, GOLD % '{"b": [[2, 1]]}', "misaligned", "line 1: .* 2..1, there is no such place"),
        (CLUENER, GOLD % '{"d": [[3, 4]]}', "misaligned", "line 1: .* 3..4, there is no such place"),
        (CLUENER, GOLD % '{"d": [[-1, -1]]}', "misaligned", "line 1: .* -1..-1, there is no such place"),
        (CLUENER, GOLD % '{"ab": [[0, 1]], "bc": [[1, 2]]}', "overlapping", "the x 'ab' and the x 'bc' overlap"),
        (CLUENER, GOLD % '{"ab": [[0, 1], [0, 1]]}', "overlapping", "line 1: .*overlap"),
        (CLUENER, '\n{"text": " \\u3000", "label": {}}', "empty", "line 2: the text holds no unit"),
        (CLUENER, '{"text": "", "label": {}}', "empty", "line 1: the text holds no unit"),
        (CLUENER, '{"text": "a b", "label": {"x": {" ": [[1, 1]]}}}', "misaligned", "not made of whole characters"),
        (
            TaggingLayout("cluener", "word"),
            '{"text": "a b\u200b", "label": {"x": {"b\u200b": [[2, 3]]}}}',
            "misaligned",
            "not made of whole words",
        ),
        (CLUENER, '{"text": "a b", "label": {"x": {"a ": [[0, 1]]}}}', "misaligned", "not made of whole characters"),
        (TaggingLayout("cluener", "word"), GOLD % '{"ab": [[0, 1]]}', "misaligned", "not made of whole words"),
        (MSRA, "text_a\tlabel\na\tI-X\n", "invalid_tags", "line 2: position 0: 'I-X' at the start; expected O or B"),
        (MSRA, "text_a\tlabel\n\na\tX-\n", "invalid_tags", "line 3: position 0: 'X-' is no BIO tag"),
        (CONLL, "a B-X\nb E-Y\n", "invalid_tags", "line 2: 'E-Y' after 'B-X'; expected I-X or E-X"),
        (CONLL, "\na O\nb I-X\nc E-X\n\nb O\n", "invalid_tags", "line 3: 'I-X' after 'O'; expected O or B"),
        (MSRA, "text_a\tlabel\na\x02b\tB-X \x02I-X\n", "invalid_tags", "line 2: position 0: 'B-X ' has white space"),
        (MSRA, "text_a\tlabel\na\x02b\tB-X\x02I-\u3000X\n", "invalid_tags", "line 2: position 1: .* has white space"),
        (CONLL, "a B-X\u3000\n", "invalid_tags", "line 1: .* has white space beside its type"),
        (CONLL, "\na O\nb O\nb B-X\n\nb E-X\n", "invalid_tags", "line 4: the sentence ends after 'B-X'"),
        (CONLL, "a B-X\nb M-X\nc I-X\n", "invalid_tags", "line 3: 'I-X' is no BMES tag"),
    ],
)  # fmt: skip
def test_gold_that_contradicts_itself(tmp_path, layout, content, reason, message):
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=message) as caught:
        list(TaggingReader(path, layout))
    assert str(caught.value).startswith(f"{path}, line ") and f"--skip_{reason} true" in str(caught.value)
    rejections = Rejections("x", frozenset([reason]))
    for sentence in TaggingReader(path, layout, rejections=rejections):
        assert sentence.entities == ()
    assert len(rejections.skipped[reason]) >= 1


@pytest.mark.parametrize(
    ("layout", "content", "message"),
    [
        (CLUENER, "{}", r'line 1: the key "text" is missing; expected \{"text"'),
        (CLUENER, '{"text": "a"}', 'line 1: the key "label" is missing'),
        (CLUENER, '{"text": "a", "label": []}', "line 1.label: expected an object, got"),
        (CLUENER, '{"text": "a", "label": {"x": []}}', "line 1, label.x: expected an object, got"),
        (CLUENER, '{"text": "a", "label": {"x": {"a": 0}}}', "line 1, label.x.a: expected an array, got 0"),
        (CLUENER, '{"text": "a", "label": {"x": {"a": [0, 0]}}}', "line 1, label.x.a: expected an array, got 0"),
        (CLUENER, '{"text": "a", "label": {"x": {"a": [[0]]}}}', r"line 1, label.x.a: expected \[start, end\], got"),
        (CLUENER, '{"text": "a", "label": {"x": {"a": [[0, true]]}}}', "line 1, label.x.a: expected an integer, got T"),
        (CLUENER, '{"text": "a", "label": {"x": {"a": []}}}', "line 1, label.x.a: stands nowhere; expected"),
        (
            CLUENER,
            '{"text": "a", "label": {"x": {"a": [[0, 0]], "a": []}}}',
            "line 1: the key 'a' is twice in one object",
        ),
        (
            CLUENER,
            GOLD % f'{{"{"x" * 9999}": [[0, {"9" * 4000}]]}}',
            "line 1: the x 'xxx.* is not at characters 0..999",
        ),
        (CLUENER, '{"text": "a", "label": {"": {"a": [[0, 0]]}}}', "line 1, label: an entity type is empty"),
        (CLUENER, '{"text": "a", "label": {"\\ud800": {}}}', "line 1, label: character 0 is half of a surrogate"),
        (MSRA, "a\tO\n", "line 1: expected the header text_a<TAB>label, got"),
        (MSRA, "text_a\n", "line 1: expected the header text_a<TAB>label, got"),
        (MSRA, "text_a\tlabel\na\n", "line 2: 1 columns where 2 are expected"),
        (MSRA, "text_a\tlabel\na\x02b\tO\n", "line 2: 1 tags for 2 tokens"),
        (MSRA, "text_a\tlabel\na\x02\tO\x02O\n", r"line 2: token 1 \(from 0\) is empty"),
        (CONLL, "a\n", "line 1: expected a tag in column 2, there are 1 columns; .*--labelled false"),
        (CONLL, "a x O\nb O\n", "line 2: 2 columns where line 1 has 3"),
        (CONLL, "a O\n" + "b O\n" * 100_000, "line 1: no blank line ends this sentence"),
        (TaggingLayout("conll", tag_column=4), "a x O\n", "line 1: expected a tag in column 4, there are 3 columns"),
    ],
)
def test_mistakes_name_file_line_and_expectation(tmp_path, layout, content, message):
    path = write(tmp_path, content)
    with pytest.raises(UserError, match=message) as caught:
        list(TaggingReader(path, layout))
    assert str(caught.value).startswith(f"{path}, line ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dataset": "weibo"}, "dataset must be one of cluener, msra, conll"),
        ({"dataset": "msra", "unit": "word"}, "msra files bring their own units"),
        ({"dataset": "cluener", "unit": "token"}, "unit must be one of character, word"),
        ({"dataset": "msra", "scheme": "BIO"}, "--source_scheme is for conll files"),
        ({"dataset": "conll", "scheme": "IO"}, "source_scheme must be one of BIO, BIOES, BMES"),
        ({"dataset": "cluener", "tag_column": 2}, "--tag_column is for conll files"),
        ({"dataset": "conll", "tag_column": 1}, "tag_column must be 2 or more"),
    ],
)
def test_impossible_layouts_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        TaggingLayout(**settings)
