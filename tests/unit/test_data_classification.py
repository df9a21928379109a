"""Classification data: real files read to the letter, samples equal to transformers' and Google's, errors by name."""

import csv
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from transformers import BertTokenizer

from data_tools.convert import ClassificationConversion, convert_classification, main
from data_tools.converters.classification import known_or_named_layout
from data_tools.feature_store import FORMATS, load_features
from data_tools.features.classification import ClassificationFeaturizer, ClassificationOptions
from data_tools.features.segments import truncate
from data_tools.labels import Labels
from data_tools.readers.classification import KNOWN_LAYOUTS, ClassificationReader, LabelledText, TextLayout
from data_tools.readers.hold_out import HoldOut
from data_tools.rejections import Rejections
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError
from tests.record_files import assert_same

REPOSITORY = Path(__file__).resolve().parents[2]
CHINESE, ENGLISH = "vocab/bert_chinese_vocab.txt", "vocab/bert_uncased_vocab.txt"
PAIR = TextLayout("tsv", "text_a", "text_b", "label")
COMMA = "\uff0c"


def write(tmp_path, content: str | bytes, name="data.tsv"):
    """A file with this content."""
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("file", "layout", "count", "first"),
    [
        ("tnews/train_few_all.json", "tnews", 1185, (f"孩子跟谁睡{COMMA}就是谁的孩子", None, "100", 1, 0)),
        ("tnews/dev_few_all.json", "tnews", 1098, None),
        (
            "cola/in_domain_train.tsv", "cola", 8551,
            ("Our friends won't buy this analysis, let alone the next one we propose.", None, "1", 1, 0),
        ),
        ("cola/in_domain_dev.tsv", "cola", 527, ("The sailors rode the breeze clear of the rocks.", None, "1", 1, 0)),
        ("chnsenticorp/train.tsv", "chnsenticorp", 9600, None),
        ("chnsenticorp/dev.tsv", "chnsenticorp", 1200, None),
        ("stsb/stsb-en-train.csv", "stsb", 5749, ("A plane is taking off.", "An air plane is taking off.", 5.0, 1, 0)),
        ("stsb/stsb-en-dev.csv", "stsb", 1500,
         ("A man with a hard hat is dancing.", "A man wearing a hard hat is dancing.", 5.0, 1, 0)),
        ("xnli/dev.tsv", PAIR, 2490, None),
    ],
)  # fmt: skip
def test_real_files(shared_data, file, layout, count, first):
    layout = KNOWN_LAYOUTS[layout] if isinstance(layout, str) else layout
    reader = ClassificationReader(shared_data / file, layout)
    records = list(reader)
    assert len(records) == count
    assert first is None or records[0] == LabelledText(*first)
    assert [record.number for record in records] == list(range(count))
    assert reader.bytes_read == reader.bytes_total == (shared_data / file).stat().st_size
    # The same by other means.
    if file.endswith(".json"):
        rows = [json.loads(line) for line in (shared_data / file).open(encoding="utf-8")]
        expected = [(row["sentence"], None, str(row["label"])) for row in rows]
    elif file.endswith(".csv"):
        with (shared_data / file).open(encoding="utf-8", newline="") as opened:
            expected = [(first, second, float(score)) for first, second, score in csv.reader(opened)]
    else:
        rows = [line.split("\t") for line in (shared_data / file).read_bytes().decode().split("\n")[:-1]]
        places = {"cola": (3, None, 1), "chns": (1, None, 0), "xnli": (0, 1, 2)}[file[:4]]
        header = 0 if file.startswith("cola") else 1
        expected = [tuple(None if at is None else row[at] for at in places) for row in rows[header:]]
    assert [(record.text_a, record.text_b, record.label) for record in records] == expected


@pytest.mark.parametrize(
    ("file", "layout", "vocab", "length"),
    [
        ("chnsenticorp/dev.tsv", KNOWN_LAYOUTS["chnsenticorp"], CHINESE, 128),
        ("cola/in_domain_dev.tsv", KNOWN_LAYOUTS["cola"], ENGLISH, 16),
        ("stsb/stsb-en-dev.csv", KNOWN_LAYOUTS["stsb"], ENGLISH, 25),
        ("xnli/dev.tsv", PAIR, CHINESE, 31),
    ],
)
def test_samples_are_those_of_transformers(shared_data, file, layout, vocab, length):
    """With an even number of tokens to share, transformers cuts pairs as Google does."""
    records = list(ClassificationReader(shared_data / file, layout))[:1000]
    theirs = BertTokenizer(vocab=str(shared_data / vocab), do_lower_case=True)(
        [record.text_a for record in records],
        None if layout.text_b is None else [record.text_b for record in records],
        truncation="longest_first", max_length=length, padding="max_length",
    )  # fmt: skip
    ours, counts = featurize(shared_data / vocab, records, length, regression=layout.regression)
    padded = ours.padded(np.arange(len(ours)), length)
    for name in ("input_ids", "attention_mask", "token_type_ids"):
        np.testing.assert_array_equal(padded[name], theirs[name])
    assert ours.scalars["unique_id"].tolist() == list(range(len(records)))
    longer = BertTokenizer(vocab=str(shared_data / vocab), do_lower_case=True)(
        [record.text_a for record in records],
        None if layout.text_b is None else [record.text_b for record in records],
    )
    truncated = sum(len(ids) > length for ids in longer["input_ids"])
    assert counts == {"examples": len(records), "features": len(records), "truncated": truncated}
    assert truncated > 0
    assert (padded["input_ids"][padded["attention_mask"].astype(bool)] == 102).sum() == len(records) * (
        1 if layout.text_b is None else 2
    )
    labels = ours.scalars["label"]
    if layout.regression:
        np.testing.assert_array_equal(labels, np.array([record.label for record in records], np.float32))
    else:
        names = sorted({record.label for record in records})
        assert labels.dtype == np.int32 and [names[label] for label in labels] == [record.label for record in records]


def test_truncation_is_googles_loop():
    rng = random.Random(0)
    lengths = [(rng.randrange(1, 40), rng.randrange(1, 40)) for _ in range(3000)]
    for room in range(2, 50):
        first, second = truncate([np.array(column) for column in zip(*lengths, strict=True)], room)
        expected = []
        for pair in lengths:
            a, b = list(range(pair[0])), list(range(pair[1]))
            while len(a) + len(b) > room:
                (a if len(a) > len(b) else b).pop()
            expected.append((len(a), len(b)))
        assert list(zip(first.tolist(), second.tolist(), strict=True)) == expected
    assert truncate([np.array([1, 5, 9])], 5)[0].tolist() == [1, 5, 5]


def test_chunks_do_not_change_the_samples(shared_data):
    records = list(ClassificationReader(shared_data / "xnli/dev.tsv", PAIR))[:100]
    whole, counts = featurize(shared_data / CHINESE, records, 20)
    featurizer = featurizer_of(shared_data / CHINESE, records, 20, False)
    joined = whole.join([featurizer.features(records[start : start + 7]) for start in range(0, 100, 7)])
    assert_same(whole, joined)
    assert featurizer.counts == counts


@pytest.mark.parametrize("dataset", ["stsb", "cola"])
def test_formats_and_shards_hold_the_same_samples(shared_data, tmp_path, dataset):
    source = {"stsb": "stsb/stsb-en-dev.csv", "cola": "cola/in_domain_dev.tsv"}[dataset]
    content = (shared_data / source).read_text(encoding="utf-8").splitlines()[:70]
    path = write(tmp_path, "\n".join(content), source.rpartition("/")[2])
    found = []
    for dataset_format in FORMATS:
        for shards in (1, 3):
            folder = tmp_path / f"{dataset_format}{shards}"
            info = convert_classification(
                ClassificationConversion(
                    path, shared_data / ENGLISH, folder, KNOWN_LAYOUTS[dataset], max_seq_length=24,
                    dataset_format=dataset_format, shards=shards, chunk_records=9,
                )
            )  # fmt: skip
            found.append(load_features(folder))
            assert_same(found[0], found[-1])
            assert info == found[-1].info and info["content_sha256"] == found[0].info["content_sha256"]
    records = list(ClassificationReader(path, KNOWN_LAYOUTS[dataset]))
    info, label = found[0].info, found[0].scalars["label"]
    assert len(found[0]) == info["counts"]["features"] == 70 and info["labelled"]
    if dataset == "stsb":
        assert (info["task"], info["labels"], label.dtype) == ("regression", None, np.float32)
        assert label.tolist() == [np.float32(record.label) for record in records]
    else:
        assert (info["task"], info["labels"], label.dtype) == ("classification", ["0", "1"], np.int32)
        assert label.tolist() == [int(record.label) for record in records]


def test_tolerance_of_byte_order_mark_blank_lines_and_crlf(tmp_path):
    lines = ["text_a\ttext_b\tlabel", 'a "lone quote\tb\tx', "c\u2028d\x85e\td\ty"]
    plain = list(ClassificationReader(write(tmp_path, "\n".join(lines)), PAIR))
    assert [(record.text_a, record.text_b, record.label) for record in plain] == [
        ('a "lone quote', "b", "x"), ("c\u2028d\x85e", "d", "y"),
    ]  # fmt: skip
    untidy = "\ufeff\r\n  \r\n" + "\r\n\r\n".join(lines) + "\r\n\n"
    tolerated = list(ClassificationReader(write(tmp_path, untidy), PAIR))
    assert [(r.text_a, r.text_b, r.label, r.number) for r in tolerated] == [
        (r.text_a, r.text_b, r.label, r.number) for r in plain
    ]
    assert [record.line for record in tolerated] == [5, 7]
    objects = ['{"sentence": "a", "label": 100}', '{"label": "101", "sentence": "b"}']
    path = write(tmp_path, "\ufeff" + "\r\n\r\n".join(objects) + "\r\n", "data.json")
    assert [(record.label, record.line) for record in ClassificationReader(path, KNOWN_LAYOUTS["tnews"])] == [
        ("100", 1), ("101", 3),
    ]  # fmt: skip


def test_quoted_fields_of_csv(tmp_path):
    content = '"two\r\nlines, ""quoted""",b,1.5\r\n\r\nplain "inner" quote,d,2\r\n'
    records = list(ClassificationReader(write(tmp_path, content, "x.csv"), KNOWN_LAYOUTS["stsb"]))
    assert records == [
        LabelledText('two\r\nlines, "quoted"', "b", 1.5, 1, 0), LabelledText('plain "inner" quote', "d", 2.0, 4, 1),
    ]  # fmt: skip


def test_numbered_columns_and_reading_without_labels(tmp_path):
    path = write(tmp_path, "0\tx\tfirst\n1\ty\tsecond\n", "numbered.txt")
    layout = known_or_named_layout(path, text_a="3", text_b="2", label="1", header=False)
    assert [(r.text_a, r.text_b, r.label) for r in ClassificationReader(path, layout)] == [
        ("first", "x", "0"), ("second", "y", "1"),
    ]  # fmt: skip
    path = write(tmp_path, '{"sentence": "to predict"}\n', "test.json")
    [record] = ClassificationReader(path, KNOWN_LAYOUTS["tnews"], labelled=False)
    assert (record.text_a, record.label) == ("to predict", None)
    path = write(tmp_path, "text_a\nto predict\n", "test.tsv")
    [record] = ClassificationReader(path, KNOWN_LAYOUTS["chnsenticorp"], labelled=False)
    assert (record.text_a, record.label) == ("to predict", None)


@pytest.mark.parametrize(
    ("layout", "content", "message"),
    [
        ("chnsenticorp", "", None),
        ("chnsenticorp", "label\ttext\n1\ta\n", "line 1: no column 'text_a' in the header.*'label', 'text'"),
        ("chnsenticorp", "text_a\na\n", "line 1: no column 'label'.*--labelled false"),
        ("chnsenticorp", "label\ttext_a\tlabel\n", "line 1: two columns have one name"),
        ("chnsenticorp", "label\ttext_a\n1\ta\n1\n", r"line 3: 1 columns where 2 are expected \('label', 'text_a'\)"),
        ("chnsenticorp", "label\ttext\r1\ta\r0\tb\r", r"there are only 'label', 'text\\r1', 'a\\r0', 'b'"),
        ("chnsenticorp", "label\ttext_a\n\ta\n", "line 2: the label is empty"),
        ("chnsenticorp", b"label\ttext_a\n1\t\xff\n", "line 2: byte 2 is not UTF-8"),
        ("cola", "a\t1\tb\n", "line 1: 3 columns where 4 are expected"),
        ("stsb", "a,b,5.1\n", r"line 1: expected a number in 0..5 as the label, got '5.1'"),
        ("stsb", "a,b,1\na,b,nan\n", "line 2: expected a number in 0..5"),
        ("stsb", "a,b,1_0\n", "line 1: expected a number"),
        ("stsb", 'a,b,1\n"a" b,c,1\n', "line 2: not valid CSV"),
        ("stsb", 'a,b,1\n\n"a,b,1\n', "line 3: not valid CSV"),
        ("stsb", 'a,b,1\n"' + "x" * 200_000 + '",b,1\n', r"line 2: not valid CSV \(a record of more than 131072"),
        ("tnews", '{"label": 1}\n', 'line 1: the key "sentence" is missing; name the keys'),
        ("tnews", '\n{"sentence": "a"}\n', 'line 2: the key "label" is missing'),
        ("tnews", '{"sentence": 5, "label": 1}\n', "line 1.sentence: expected a string, got 5"),
        ("tnews", '{"sentence": "a", "label": true}\n', "line 1.label: expected a string or an integer, got True"),
        ("tnews", '{"sentence": "a", "label": 1.5}\n', "line 1.label: expected a string or an integer, got 1.5"),
        ("tnews", '{"sentence": "\\ud800", "label": 1}\n', "line 1.sentence: character 0 is half of a surrogate"),
        ("tnews", '{"sentence": "a", "label": 1}}\n', "line 1, column 30: not valid JSON"),
        ("tnews", '[1]\n', "line 1: expected an object, got"),
        ("tnews", '{"sentence": "a", "label": ' + "1" * 5000 + "}\n", "line 1: an integer of thousands of digits"),
        ("tnews", '{"sentence": "a", "label": 1, "label": 2}\n', "line 1: the key 'label' is twice in one object"),
        ("tnews", "[" * 100_000, "line 1: nested too deeply"),
        (TextLayout("jsonl", "a", label="b", regression=True), '{"a": "x", "b": 1e999}', "line 1: expected a number"),
        (TextLayout("jsonl", "a", label="b", regression=True), '{"a": "x", "b": 1' + "0" * 400 + "}", "got 1000"),
        (TextLayout("tsv", "1", label="5", header=False), "a\tb\n", "line 1: there is no column 5, only 2"),
        (TextLayout("tsv", "1", label="2", header=False), "a\tb\nc\td\te\n", "line 2: 3 columns where 2 are expected"),
    ],
)  # fmt: skip
def test_mistakes_name_file_line_and_expectation(tmp_path, layout, content, message):
    layout = KNOWN_LAYOUTS[layout] if isinstance(layout, str) else layout
    path = write(tmp_path, content, "wrong.file")
    if message is None:
        assert list(ClassificationReader(path, layout)) == []
        return
    with pytest.raises(UserError, match=message) as caught:
        list(ClassificationReader(path, layout))
    assert str(caught.value).startswith(f"{path}, line ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "give --dataset"),
        ({"text_a": "a", "file_format": "xml"}, "file_format must be"),
        ({"text_a": "a", "text_b": "a"}, "must be different columns"),
        ({"text_a": "a", "header": False}, "named by its number from 1, got 'a'"),
        ({"text_a": "0", "header": False}, "named by its number from 1, got '0'"),
        ({"text_a": "a", "header": True, "file_format": "jsonl"}, "JSON lines have no header"),
        ({"dataset": "cola", "text_a": "a"}, "--dataset cola knows its columns; leave --text_a out"),
        (
            {"text_a": "a", "label": "b", "labelled": False},
            "--label names a column that --labelled false does not read",
        ),
        ({"dataset": "mnli"}, "dataset must be one of tnews"),
    ],
)
def test_impossible_layouts_are_refused(tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
        known_or_named_layout(tmp_path / "x.tsv", **settings)
    with pytest.raises(UserError, match=r"suffix '.dat' names no format"):
        known_or_named_layout(tmp_path / "x.dat", text_a="a")
    with pytest.raises(UserError, match="the column of the labels is not named"):
        ClassificationReader(write(tmp_path, "a"), TextLayout("tsv", "text_a"))


@pytest.mark.parametrize("share", ["0.1", "0.25", ".333", "0.999"])
def test_hold_out_parts_are_disjoint_even_and_whole(share):
    parts = {part: [HoldOut(share, part).selects(number) for number in range(1000)] for part in ("train", "dev")}
    assert all(train != dev for train, dev in zip(parts["train"], parts["dev"], strict=True))
    exact = float(share)
    for count in range(1, 1000):
        assert abs(sum(parts["dev"][:count]) - exact * count) < 1
    if share == "0.1":
        assert [number for number in range(40) if parts["dev"][number]] == [9, 19, 29, 39]


@pytest.mark.parametrize(
    "share", ["0", "1", "-0.1", "a", "nan", "1/0", "0.0", "1e-30000000", "1_0e-2", "0.1_0", "\u0660.\u0661", "1/3"]
)
def test_impossible_hold_outs_are_refused(share):
    with pytest.raises(UserError, match="hold_out must be a share"):
        HoldOut(share, "dev")


def test_the_command(shared_data, tmp_path, capsys):
    """Train and held-out part of one file, the labels of the first for the second; labels that are not there."""
    flags = ["classification", "--vocab_file", str(shared_data / CHINESE), "--dataset_format", "numpy"]
    xnli = [*flags, "--input_file", str(shared_data / "xnli/dev.tsv"), "--hold_out", "0.1", "--max_seq_length", "64"]
    xnli += ["--text_a", "text_a", "--text_b", "text_b", "--label", "label"]
    main([*xnli, "--hold_out_part", "train", "--output_dir", str(tmp_path / "train")])
    dev = [
        "--hold_out_part",
        "dev",
        "--output_dir",
        str(tmp_path / "dev"),
        "--label_file_path",
        str(tmp_path / "train"),
    ]
    main([*xnli, *dev])
    assert "dev: 249 records, 249 features" in capsys.readouterr().out
    train, held_out = load_features(tmp_path / "train"), load_features(tmp_path / "dev")
    assert train.info["labels"] == held_out.info["labels"] == ["contradiction", "entailment", "neutral"]
    numbers = sorted([*train.scalars["unique_id"].tolist(), *held_out.scalars["unique_id"].tolist()])
    assert numbers == list(range(2490)) and held_out.scalars["unique_id"].tolist() == list(range(9, 2490, 10))
    assert held_out.info["hold_out"]["share"] == "0.1" and held_out.info["paired"] is True
    with pytest.raises(UserError, match="holds converted features already"):
        main([*xnli, *dev])
    path = write(tmp_path, "label\ttext_a\n1\tx\n2\ty\n")
    other = [*flags, "--input_file", str(path), "--dataset", "chnsenticorp", "--output_dir", str(tmp_path / "other")]
    with pytest.raises(UserError, match=r"data.tsv, line 3: the label '2' is none of the 2 .* \('0', '1'\)"):
        main(other)
    four = write(tmp_path, "label\ttext_a\n" + "1\tx\n" * 4, "four.tsv")
    part = ["--input_file", str(four), "--hold_out", "0.1", "--hold_out_part", "dev"]
    with pytest.raises(UserError, match=r"four.tsv: holds no usable record in the dev part of --hold_out 0.1; .*share"):
        main([*other, *part])
    with pytest.raises(UserError, match="--hold_out and --hold_out_part belong together"):
        main([*other, "--hold_out", "0.1"])
    path = write(tmp_path, "label\ttext_a\n1\tx\n1\t \u3000\n")
    with pytest.raises(UserError, match=r"data.tsv, line 3: holds no token; .*--skip_empty"):
        main(other)
    assert not (tmp_path / "other").exists() and not list(tmp_path.glob(".*partial"))
    main([*other, "--skip_empty", "true"])
    assert load_features(tmp_path / "other").info["skipped"] == {"empty": [3]}
    main([*other, "--overwrite", "true", "--labelled", "false", "--skip_empty", "true"])
    assert "label" not in load_features(tmp_path / "other").scalars


def test_memory_does_not_grow_with_the_data(shared_data, tmp_path):
    """Ten times the input must not cost more than what bookkeeping (lengths) needs."""
    content = (shared_data / "cola/in_domain_train.tsv").read_bytes()
    peaks = []
    for copies in (1, 10):
        path = write(tmp_path, content * copies, f"{copies}.tsv")
        code = "import resource, sys; from data_tools.convert import main; main(sys.argv[1:]); "
        code += "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
        flags = ["classification", "--input_file", path, "--output_dir", tmp_path / f"out{copies}", "--text_a", "4"]
        flags += [
            "--label",
            "2",
            "--header",
            "false",
            "--dataset_format",
            "numpy",
            "--vocab_file",
            shared_data / ENGLISH,
        ]
        done = subprocess.run(
            [sys.executable, "-c", code, *flags], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        peaks.append(int(done.stdout.splitlines()[-1]))
    features = load_features(tmp_path / "out10")
    assert len(features) == 85510 and features.info["labels"] == ["0", "1"]
    assert sum(array.nbytes for array in features.tokens.values()) > 7 << 20
    assert peaks[1] - peaks[0] < 6, peaks


def featurizer_of(vocab, records, length, regression):
    labels = None if regression else Labels(tuple(sorted({record.label for record in records})), "these")
    tokenizer = WordPieceTokenizer(vocab, lower_case=True)
    return ClassificationFeaturizer(tokenizer, ClassificationOptions(length), labels, Rejections("x"))


def featurize(vocab, records, length, regression=False):
    """Samples of all records at once, and the counts."""
    featurizer = featurizer_of(vocab, records, length, regression)
    return featurizer.features(records), featurizer.counts
