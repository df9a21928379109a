"""Reads labelled texts and pairs of texts from TSV, CSV and JSON-lines files: TNEWS, CoLA, ChnSentiCorp, XNLI, any.

A TSV file has no quoting: a lone quote is text. A CSV file has: a quoted field may hold commas, quotes and line ends.
A byte order mark, blank lines and CRLF are tolerated; all else is exact, and a mistake names its file and line. Spaces
stay: the original suite's ERNIE removes them, which makes one word of "we are the" (in 3 to 5 % of the Chinese texts of
ChnSentiCorp and XNLI) and is no change between Chinese characters.
"""

import csv
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_tools.readers.hold_out import HoldOut
from data_tools.readers.json_fields import JsonFields
from data_tools.readers.lines import LineReader
from models.common.errors import UserError, listed, shorten

FILE_FORMATS = ("tsv", "csv", "jsonl")
SUFFIXES = {".tsv": "tsv", ".txt": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl"}
# Decimal notation only: float() would also take "nan", "1_0" and the digits of other scripts.
COLUMN_NUMBER = re.compile("[1-9][0-9]{0,5}")
NUMBER = re.compile(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?")
MAX_CSV_RECORD = 1 << 17  # characters
LARGEST_SCORE = 3.4e38  # float32
QUESTION_NUMBER = re.compile("-?[0-9]{1,18}")  # int64


@dataclass(frozen=True)
class LabelledText:
    """One record: a text or a pair; its class name, its score (regression), or None where labels are not read.

    line: where it begins in the file, from 1; number: of the record in the file, from 0; qid: number of the question
    whose candidate answers are to be ranked, None where there is nothing to rank.
    """

    text_a: str
    text_b: str | None
    label: str | float | None
    line: int
    number: int
    qid: int | None = None


@dataclass(frozen=True)
class TextLayout:
    """Where a file keeps its texts and labels: columns by name, or by number from 1 where no header names them."""

    file_format: str
    text_a: str
    text_b: str | None = None
    label: str | None = None
    header: bool = True  # the first line of a TSV or CSV file names the columns
    regression: bool = False
    columns: int | None = None  # without a header; None: as many as the first record has
    score_range: tuple[float, float] | None = None
    labels: tuple[str, ...] = ()  # in the order of their ids, where the data set fixes it
    spellings: Mapping[str, str] = field(default_factory=dict)  # what else the data set calls a label -> its name
    qid: str | None = None

    def __post_init__(self) -> None:
        if self.file_format not in FILE_FORMATS:
            raise UserError(f"file_format must be one of {', '.join(FILE_FORMATS)}, got {self.file_format!r}")
        named = [name for name in (self.text_a, self.text_b, self.label, self.qid) if name is not None]
        if len(set(named)) < len(named):
            raise UserError(f"text_a, text_b, label and qid must be different columns, got {', '.join(named)}")
        if self.regression and self.qid is not None:
            raise UserError("scores of a regression are not ranked by question; leave --qid or --regression out")
        if self.file_format != "jsonl" and not self.header:
            for name in named:
                if not COLUMN_NUMBER.fullmatch(name):
                    raise UserError(f"without a header a column is named by its number from 1, got {name!r}")


# The layouts of the data sets as published: TNEWS by CLUE, STS-B as plain CSV, ChnSentiCorp, XNLI and NLPCC-DBQA in
# Baidu's task data. XNLI's train file says "contradictory", its dev and test files "contradiction"; id 0 as there.
KNOWN_LAYOUTS = {
    "tnews": TextLayout(
        "jsonl", "sentence", label="label", labels=tuple(str(c) for c in range(100, 117) if c not in (105, 111))
    ),
    "cola": TextLayout("tsv", "4", label="2", header=False, columns=4, labels=("0", "1")),
    "chnsenticorp": TextLayout("tsv", "text_a", label="label", labels=("0", "1")),
    "xnli": TextLayout(
        "tsv", "text_a", "text_b", "label", labels=("contradictory", "entailment", "neutral"),
        spellings={"contradiction": "contradictory"},
    ),
    "dbqa": TextLayout("tsv", "text_a", "text_b", "label", labels=("0", "1"), qid="qid"),
    "stsb": TextLayout("csv", "1", "2", "3", header=False, regression=True, columns=3, score_range=(0.0, 5.0)),
}  # fmt: skip


def format_of(path: Path) -> str:
    """The format that a file's suffix stands for."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{path}: the suffix {path.suffix!r} names no format; give --file_format {' or '.join(FILE_FORMATS)}"
        )
    return SUFFIXES[path.suffix.lower()]


class ClassificationReader:
    """Iterates over the records of a file; `bytes_read`, `bytes_total` serve a progress bar, `sha256()` the sidecar.

    labelled: False reads no labels, which a file for prediction need not have. hold_out: records of the other part are
    passed over. Memory holds about one record; every iteration reads the file anew. Raises `UserError`.
    """

    def __init__(
        self, path: Path | str, layout: TextLayout, labelled: bool = True, hold_out: HoldOut | None = None
    ) -> None:
        if labelled and layout.label is None:
            raise UserError("the column of the labels is not named; give --label, or --labelled false without labels")
        self.path, self.layout, self.labelled = Path(path), layout, labelled
        self._hold_out = hold_out
        self._lines = LineReader(path)
        self._fields = JsonFields(self.path, "name the keys of this file with --text_a, --text_b and --label")

    @property
    def bytes_total(self) -> int:
        """Size of the file."""
        return self._lines.bytes_total

    @property
    def bytes_read(self) -> int:
        """How much has been read so far."""
        return self._lines.bytes_read

    def sha256(self) -> str:
        """Checksum of the file, known once an iteration is over."""
        return self._lines.sha256()

    def __iter__(self) -> Iterator[LabelledText]:
        records = self._json_records() if self.layout.file_format == "jsonl" else self._table_records()
        for number, (line, text_a, text_b, label, qid) in enumerate(records):
            if self._hold_out is None or self._hold_out.selects(number):
                yield LabelledText(
                    text_a, text_b, self._label(label, line) if self.labelled else None, line, number,
                    None if qid is None else self._qid(qid, line),
                )  # fmt: skip

    def _json_records(self) -> Iterator[tuple[int, str, str | None, Any, Any]]:
        layout, fields = self.layout, self._fields
        for line, text in self._lines:
            if not text.strip():
                continue
            where = f"line {line}"
            value = fields.decode_line(text, where)
            text_a = fields.text(value, layout.text_a, where)
            text_b = fields.text(value, layout.text_b, where) if layout.text_b is not None else None
            qid = fields.get(value, layout.qid, (int, str), where) if layout.qid is not None else None
            yield line, text_a, text_b, self._json_label(value, where) if self.labelled else None, qid

    def _json_label(self, value: dict[str, Any], where: str) -> Any:
        key, kinds = self.layout.label, (str, int, float) if self.layout.regression else (str, int)
        label = self._fields.get(value, key, kinds, where)
        if type(label) is str:
            self._fields.require_utf8(label, f"{where}.{key}")
        return label

    def _table_records(self) -> Iterator[tuple[int, str, str | None, Any, Any]]:
        layout = self.layout
        rows = self._csv_rows() if self.layout.file_format == "csv" else self._tsv_rows()
        wanted: list[int] | None = None
        width, names = layout.columns if self.labelled else None, ""
        for line, row in rows:
            if wanted is None and layout.header:
                wanted, width, names = self._named_columns(line, row), len(row), f" ({listed(row)})"
                continue
            if width is None:
                width = len(row)
            if len(row) != width:
                raise UserError(f"{self.path}, line {line}: {len(row)} columns where {width} are expected{names}")
            if wanted is None:
                wanted = self._numbered_columns(line, width)
            cells = dict(zip(self._columns(), (row[at] for at in wanted), strict=True))
            yield line, *(cells.get(name) for name in (layout.text_a, layout.text_b, layout.label, layout.qid))

    def _named_columns(self, line: int, header: list[str]) -> list[int]:
        if len(set(header)) < len(header):
            raise UserError(f"{self.path}, line {line}: two columns have one name: {listed(header)}")
        for name in self._columns():
            if name not in header:
                hint = "; a file without labels is read with --labelled false" if name == self.layout.label else ""
                raise UserError(
                    f"{self.path}, line {line}: no column {name!r} in the header, there are only {listed(header)}{hint}"
                )
        return [header.index(name) for name in self._columns()]

    def _numbered_columns(self, line: int, width: int) -> list[int]:
        for name in self._columns():
            if int(name) > width:
                raise UserError(f"{self.path}, line {line}: there is no column {name}, only {width}")
        return [int(name) - 1 for name in self._columns()]

    def _columns(self) -> list[str]:
        """The columns that are read: text_a, text_b and qid if there are any, label if labels are read."""
        layout = self.layout
        named = (layout.text_a, layout.text_b, layout.label if self.labelled else None, layout.qid)
        return [name for name in named if name is not None]

    def _tsv_rows(self) -> Iterator[tuple[int, list[str]]]:
        for line, text in self._lines:
            if text.strip(" "):
                yield line, text.split("\t")

    def _csv_rows(self) -> Iterator[tuple[int, list[str]]]:
        size, begin = 0, 1

        def lines() -> Iterator[str]:
            nonlocal size
            for _, text in self._lines.with_ends():
                size += len(text)
                # The csv module has such a limit too, which anybody in the process may have changed.
                if size > MAX_CSV_RECORD:
                    raise UserError(
                        f"{self.path}, line {begin}: not valid CSV (a record of more than {MAX_CSV_RECORD} characters; "
                        "does a quote end?); repair the file"
                    )
                yield text

        rows = csv.reader(lines(), strict=True)
        while True:
            size, begin = 0, rows.line_num + 1
            try:
                row = next(rows)
            except StopIteration:
                return
            except csv.Error as error:
                raise UserError(f"{self.path}, line {begin}: not valid CSV ({error}); repair the file") from None
            if len(row) > 1 or any(cell.strip(" ") for cell in row):
                yield begin, row

    def _label(self, label: Any, line: int) -> str | float:
        if self.layout.regression:
            return self._score(label, line)
        if label == "":
            raise UserError(f"{self.path}, line {line}: the label is empty")
        return str(label)

    def _qid(self, qid: Any, line: int) -> int:
        if not QUESTION_NUMBER.fullmatch(str(qid)):
            raise UserError(f"{self.path}, line {line}: expected a whole number as the qid, got {shorten(qid)}")
        return int(qid)

    def _score(self, label: Any, line: int) -> float:
        if type(label) is not str or NUMBER.fullmatch(label):
            try:
                score = float(label)
            except OverflowError:
                score = math.inf
            low, high = self.layout.score_range or (-LARGEST_SCORE, LARGEST_SCORE)
            if low <= score <= high:
                return score
        limits = "" if self.layout.score_range is None else " in {:g}..{:g}".format(*self.layout.score_range)
        raise UserError(f"{self.path}, line {line}: expected a number{limits} as the label, got {shorten(label)}")
