"""Mutated corpora, lines of Baidu's and lists, for all that makes pretraining data of them; see `tests.fuzzing`."""

import gzip
from collections.abc import Callable
from pathlib import Path

from data_tools.convert import PretrainConversion, convert_pretrain
from data_tools.features.lexicon import Lexicon
from data_tools.features.masking import Masking
from data_tools.features.pretrain import PretrainOptions
from data_tools.features.units import PHRASE, UnitOptions
from data_tools.readers.baidu_lines import read_list
from tests.fuzzing import WORDS, Target, complete_or_nothing, fuzz_all

CORPUS = "the red fox.\na b, c\n\nabb 12 \u4e2d\u56fd\n1, 2.\n\nthe fox\n"
WIKI = '<doc id="1" title="a">\nthe red fox\n\na b.\n</doc>\n<doc id="2">\n\u4e2d\u56fd 12\n</doc>\n'
BAIDU = (
    "2 4 5 6 3 7 8 3;0 0 0 0 0 1 1 1;0 1 2 3 4 5 6 7;-1 0 0 1 -1 0 0 -1;1\n"
    "2 9 3 15 16 3;0 0 0 1 1 1;0 1 2 3 4 5;-1 0 -1 0 1 -1;1\n"
)
BY_WORDS = UnitOptions({PHRASE: 1.0})


def converting(folder: Path) -> list[Target]:
    """Whole conversions, from the file to the folder."""
    vocab, output = folder / "vocab.txt", folder / "output"
    vocab.write_text("\n".join(WORDS) + "\n", encoding="utf-8")

    def made(units: UnitOptions = BY_WORDS, **settings) -> Callable[[Path], object]:
        options = PretrainOptions(12, dupe_factor=2, masking=Masking(0.3, 3))
        settings = {"options": options, "dataset_format": "numpy", "units": units} | settings

        def convert(path: Path) -> None:
            conversion = PretrainConversion((path,), vocab, output, **settings)
            complete_or_nothing(folder, output, lambda: convert_pretrain(conversion))

        return convert

    return [
        Target("corpus", CORPUS, made(), 150),
        Target("corpus by jieba's words", CORPUS, made(UnitOptions({PHRASE: 1.0}, "jieba")), 80),
        Target("wikiextractor", WIKI, made(), 150),
        Target("wikiextractor, simplified", WIKI, made(opencc="t2s"), 60),
        Target("wikiextractor, the port's way", WIKI, made(UnitOptions(), legacy=True), 80),
        Target("Baidu's lines", BAIDU, made(input_format="baidu", generate_neg_sample=True), 300),
        Target("Baidu's lines, gzip", gzip.compress(BAIDU.encode(), mtime=0), made(input_format="baidu"), 150),
    ]


def reading(folder: Path) -> list[Target]:
    """Lists of files, and of entities that are looked for in a text."""
    (folder / "x.gz").write_bytes(b"")

    def as_list_of_files(path: Path) -> None:
        for file, share in read_list(path):
            assert file.is_file() and 0 <= share <= 1

    def as_entities(path: Path) -> None:
        for start, end in Lexicon(path).find("the fox", [0] * 7):
            assert 0 <= start < end <= 7

    return [
        Target("list of files", f"{folder}/x.gz\t1.1\nelsewhere/x.gz\t0.5\n", as_list_of_files, 400),
        Target("entities", "the fox\n\u4e2d\u56fd\na b c\n", as_entities, 200),
    ]


def test_mutated_inputs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda _: None)  # hundreds of folders; a power cut is not what is tried
    report = fuzz_all(tmp_path, {"converting": converting, "reading": reading})
    capsys.readouterr()
    print({name: dict(outcomes) for name, outcomes in report.items()})
    for name, outcomes in report.items():
        # A target that refuses or reads everything tries nothing.
        assert outcomes["refused"] > 5 and outcomes["read"] > 4, (name, outcomes)
