"""Label files: the order of ids, tags told from types, the original runtime's order, every error named."""

import json

import pytest

from data_tools.convert import ClassificationConversion, TaggingConversion, convert_classification, convert_tagging
from data_tools.labels import Labels, collected, read_labels, tag_set, tags_of_types
from data_tools.readers.classification import KNOWN_LAYOUTS
from data_tools.readers.tagging import CLUENER_TYPES, TaggingLayout
from models.common.errors import UserError


def labels_in(tmp_path, content, name="labels.txt"):
    """What a label file with this content says."""
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return read_labels(path)


def test_lines_and_maps(tmp_path, shared_data):
    assert labels_in(tmp_path, "\ufeffb\r\na \r\n\r\n").names == ("b", "a ")
    assert labels_in(tmp_path, {"y": 1, "x": 0}, "map.json").names == ("x", "y")
    msra = read_labels(shared_data / "msra_ner/label_map.json")
    assert msra.names == ("B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC", "O")
    tags = tag_set(msra, None)
    assert (tags.names, tags.scheme, tags.types) == (msra.names, "BIO", ("PER", "ORG", "LOC"))
    assert tags.id_of("O", "") == 6


def test_the_original_runtimes_order_for_cluener(tmp_path):
    """spec: O = 0, then S_, B_, M_, E_ of each label. The record generator of the originals has another order."""
    lines = ["O", *(f"{prefix}_{kind}" for kind in CLUENER_TYPES for prefix in "SBME")]
    tags = tag_set(labels_in(tmp_path, "\n".join(lines)), None)
    assert tags.names[:6] == ("O", "S-address", "B-address", "M-address", "E-address", "S-book")
    assert (len(tags.names), tags.scheme, tags.types) == (41, "BMES", CLUENER_TYPES)
    generator = ["O", *(f"{prefix}-{kind}" for prefix in "BMES" for kind in CLUENER_TYPES)]
    tags = tag_set(labels_in(tmp_path, "\n".join(generator)), "BMES")
    assert (list(tags.names), tags.scheme) == (generator, "BMES")


def test_types_become_tags(tmp_path):
    tags = tag_set(labels_in(tmp_path, "person\nplace\n"), "BIOES")
    assert tags.names[:6] == ("O", "B-person", "I-person", "E-person", "S-person", "B-place")
    assert tag_set(labels_in(tmp_path, "person\n"), None).names == ("O", "B-person", "I-person")
    # A type may be called as it likes, "O" too, where it is known to be one.
    assert tags_of_types(Labels(("O",), "x"), None).names == ("O", "B-O", "I-O")


def test_collected_labels_are_sorted():
    assert collected(["b", "a", "b"], "x").names == ("a", "b")
    assert collected(["10", "9", "0"], "x").names == ("0", "9", "10")
    assert collected(["10", "9", "x"], "x").names == ("10", "9", "x")
    with pytest.raises(UserError, match=r"train.tsv: more than 1000 different labels"):
        collected(map(str, range(1002)), "train.tsv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.txt", "a\nb\na\n", "l.txt, line 3: the label 'a' was already on line 1"),
        ("l.txt", "\n \n", "l.txt: holds no label"),
        ("l.json", {}, "l.json: holds no label"),
        ("l.json", ["a"], "l.json: expected an object label -> id"),
        ("l.json", {"a": "0"}, "l.json: expected an object label -> id"),
        ("l.json", {"a": True}, "l.json: expected an object label -> id"),
        ("l.json", {"a": 1, "b": 2}, "with the ids 0..n-1; found '1', '2'"),
        ("l.json", '{"a": 0', "l.json, line 1, column 8: not valid JSON"),
        ("l.json", {"": 0, "PER": 1}, "l.json: a label is empty, or there twice, among '', 'PER'"),
        ("l.json", '{"a": 0, "a": 1, "b": 0}', "l.json, line 1, column 1: .*the key 'a' is twice in one object"),
        ("l.json", '{"\\ud800": 0}', "holds half of a surrogate pair"),
    ],
)
def test_unusable_label_files(tmp_path, name, content, message):
    with pytest.raises(UserError, match=message):
        labels_in(tmp_path, content, name)


def test_features_of_another_task_are_no_label_file(tmp_path):
    vocab, texts, sentences = (tmp_path / name for name in ("vocab.txt", "texts.tsv", "sentences.tsv"))
    vocab.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n")
    texts.write_text("text_a\tlabel\na\t1\n")
    sentences.write_text("text_a\tlabel\na\tB-X\n")
    classes, tags = tmp_path / "classes", tmp_path / "tags"
    text, tokens = KNOWN_LAYOUTS["chnsenticorp"], TaggingLayout("msra")
    convert_classification(ClassificationConversion(texts, vocab, classes, text, dataset_format="numpy"))
    convert_tagging(TaggingConversion(sentences, vocab, tags, tokens, dataset_format="numpy"))
    assert read_labels(tags, "tagging").names == ("O", "B-X", "I-X") and read_labels(classes).names == ("0", "1")
    with pytest.raises(UserError, match=r"classes: features of the task classification; their labels are none for tag"):
        convert_tagging(TaggingConversion(sentences, vocab, tmp_path / "x", tokens, label_file_path=classes))
    with pytest.raises(
        UserError, match=r"tags: features of the task tagging; their labels are none for classification"
    ):
        convert_classification(ClassificationConversion(texts, vocab, tmp_path / "x", text, label_file_path=tags))


@pytest.mark.parametrize(
    ("names", "scheme", "message"),
    [
        (("O", "B-x"), None, "x: the tags .prefixes B. are not all those of a scheme.*'I-x'"),
        (("O", "B-x", "I-x", "B-y"), None, "for BIO missing or too many: 'I-y'"),
        (("O", "B-x", "I-x", "[CLS]"), None, "lists tags, since one is O, but '.CLS.' is none"),
        (("O", "B-x", "I-x", "B_x"), None, "there twice"),
        (("O", "B-x", "I-x"), "BMES", "its tags are BIO, not BMES"),
        (("x",), "IO", "scheme must be one of BIO"),
    ],
)
def test_lists_that_are_no_tags(names, scheme, message):
    with pytest.raises(UserError, match=message):
        tag_set(Labels(names, "x"), scheme)


def test_a_label_that_is_not_there():
    labels = Labels(tuple("abcdefghij"), "labels.txt")
    message = r"^data.tsv, line 3: the label 'z' is none of the 10 of labels.txt .'a', .*'h', ..."
    with pytest.raises(UserError, match=message):
        labels.id_of("z", "data.tsv, line 3")
