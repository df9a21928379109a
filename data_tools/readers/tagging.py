"""Reads sentences with entities: CLUENER (JSON lines), MSRA (the \\x02 format) and CoNLL columns.

A unit is what carries one tag: a character or a word. A byte order mark, blank lines and CRLF are tolerated; all else
is exact. Gold that contradicts itself is an error, or left out, counted and listed where a flag allows it.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from data_tools.readers.hold_out import HoldOut
from data_tools.readers.json_fields import JsonFields
from data_tools.readers.lines import LineReader
from data_tools.readers.token_lines import TokenSentence, conll_sentences, join_tokens, msra_sentences
from data_tools.rejections import Rejections
from data_tools.tokenization import WordSplitter
from models.common.errors import UserError, clip, shorten
from models.common.tagging import OUTSIDE, SCHEMES, Entity, check_tags, decode_tags, repair_tags

TAGGING_DATASETS = ("cluener", "msra", "conll")
UNITS = ("character", "word")
GIVEN = "given"  # the unit of files that bring their own
SKIP_REASONS = ("misaligned", "overlapping", "invalid_tags", "empty")
# In alphabetical order, as CLUENER's paper and the original's label file list them.
CLUENER_TYPES = (
    "address", "book", "company", "game", "government", "movie", "name", "organization", "position", "scene",
)  # fmt: skip


class TaggedText(NamedTuple):
    """One sentence. units: start and end of each, in characters of the text; entities: over units, in order, None
    where no labels are read; line: where it begins in the file, from 1; number: of the sentence in the file, from 0."""

    text: str
    units: list[tuple[int, int]]
    entities: tuple[Entity, ...] | None
    line: int
    number: int


@dataclass(frozen=True)
class TaggingLayout:
    """How a file is laid out. unit: of CLUENER only, the others bring theirs; scheme: of CoNLL tags, None: found from
    the tags (MSRA is BIO); tag_column: of CoNLL, from 1, None: the last."""

    dataset: str
    unit: str = "character"
    scheme: str | None = None
    tag_column: int | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.dataset not in TAGGING_DATASETS:
            problems.append(f"dataset must be one of {', '.join(TAGGING_DATASETS)}, got {self.dataset!r}")
        if self.unit not in UNITS:
            problems.append(f"unit must be one of {', '.join(UNITS)}, got {self.unit!r}")
        elif self.unit != "character" and self.dataset != "cluener":
            problems.append(f"{self.dataset} files bring their own units; leave --unit out")
        if self.scheme is not None and self.dataset != "conll":
            problems.append("--source_scheme is for conll files; MSRA is BIO, CLUENER has no tags")
        elif self.scheme not in (None, *SCHEMES):
            problems.append(f"source_scheme must be one of {', '.join(SCHEMES)}, got {self.scheme!r}")
        if self.tag_column is not None and self.dataset != "conll":
            problems.append("--tag_column is for conll files")
        elif self.tag_column is not None and self.tag_column < 2:
            problems.append(f"tag_column must be 2 or more, the token is column 1; got {self.tag_column}")
        if problems:
            raise UserError("; ".join(problems))


class TaggingReader:
    """Iterates over the sentences of a file; `bytes_read`, `bytes_total` serve a progress bar, `sha256()` the sidecar.

    labelled: False reads no labels, which a file for prediction need not have. hold_out: sentences of the other part
    are passed over. repair: tags that break their scheme are read as conlleval does, and listed in
    the rejections. Memory holds about one sentence; every iteration reads the file anew. Raises `UserError`.
    """

    def __init__(
        self,
        path: Path | str,
        layout: TaggingLayout,
        labelled: bool = True,
        rejections: Rejections | None = None,
        hold_out: HoldOut | None = None,
        repair: bool = False,
    ) -> None:
        self.path, self.layout, self.labelled = Path(path), layout, labelled
        self.rejections = rejections or Rejections(str(path), what="sentences")
        self._hold_out, self._repair = hold_out, repair
        self._lines = LineReader(path)
        self._fields = JsonFields(self.path, 'expected {"text": ..., "label": {type: {entity: [[start, end]]}}}')
        self._scheme = "BIO" if layout.dataset == "msra" else layout.scheme
        self._split: Callable[[str], list[tuple[int, int]]] = split_characters
        if layout.unit == "word":
            self._split = WordSplitter().split

    @property
    def bytes_total(self) -> int:
        """Size of the file."""
        return self._lines.bytes_total

    @property
    def bytes_read(self) -> int:
        """How much has been read so far."""
        return self._lines.bytes_read

    @property
    def unit(self) -> str:
        """What the units are: character, word, or given by the file."""
        return self.layout.unit if self.layout.dataset == "cluener" else GIVEN

    def sha256(self) -> str:
        """Checksum of the file, known once an iteration is over."""
        return self._lines.sha256()

    def __iter__(self) -> Iterator[TaggedText]:
        sentences = self._cluener() if self.layout.dataset == "cluener" else self._from_tokens()
        return (sentence for sentence in sentences if sentence is not None)

    def _selects(self, number: int) -> bool:
        return self._hold_out is None or self._hold_out.selects(number)

    # -- CLUENER -------------------------------------------------------------------------------------------------

    def _cluener(self) -> Iterator[TaggedText | None]:
        number = 0
        for line, content in self._lines:
            if not content.strip():
                continue
            if self._selects(number):
                where = f"line {line}"
                yield self._cluener_sentence(self._fields.decode_line(content, where), where, line, number)
            number += 1

    def _cluener_sentence(self, value: dict[str, Any], where: str, line: int, number: int) -> TaggedText | None:
        text = self._fields.text(value, "text", where)
        units = self._split(text)
        if not units:
            return self._reject("empty", where, line, "the text holds no unit")
        if not self.labelled:
            return TaggedText(text, units, None, line, number)
        spans = UnitSpans(units)
        entities = []
        for kind, spelled, first, last in self._cluener_gold(value, where):
            inside = 0 <= first <= last < len(text)
            if not inside or text[first : last + 1] != spelled:
                found = shorten(text[first : last + 1]) if inside else "no such place"
                at = f"{shorten(first)}..{shorten(last)}"
                problem = f"the {clip(kind)} {shorten(spelled)} is not at characters {at}, there is {found}"
                return self._reject("misaligned", where, line, problem)
            covered = spans.within(first, last + 1)
            # Blanks and signs without width are of no unit: at a border of the entity they would be lost.
            if covered is None or spans.cut(text, Entity(*covered, kind)) != spelled:
                problem = f"the {clip(kind)} {shorten(spelled)} at {first}..{last} is not made of whole {self.unit}s"
                return self._reject("misaligned", where, line, problem)
            entities.append(Entity(*covered, kind))
        entities.sort()
        for left, right in pairwise(entities):
            if right.start < left.end:
                places = [f"{clip(entity.type)} {shorten(spans.cut(text, entity))}" for entity in (left, right)]
                return self._reject("overlapping", where, line, f"the {places[0]} and the {places[1]} overlap")
        return TaggedText(text, units, tuple(entities), line, number)

    def _cluener_gold(self, value: dict[str, Any], where: str) -> Iterator[tuple[str, str, int, int]]:
        """(type, entity, first character, last character) as the file says."""
        fields, where = self._fields, f"{where}, label"
        for kind, spellings in fields.get(value, "label", dict, where.removesuffix(", label")).items():
            fields.require_utf8(kind, where)
            if not kind:
                raise UserError(f"{self.path}, {where}: an entity type is empty")
            for spelled, places in fields.typed(spellings, dict, clip(f"{where}.{kind}")).items():
                at = clip(f"{where}.{kind}.{spelled}")
                if not fields.typed(places, list, at):
                    raise UserError(f"{self.path}, {at}: stands nowhere; expected [[start, end], ...], got []")
                for place in places:
                    if len(fields.typed(place, list, at)) != 2:
                        raise UserError(f"{self.path}, {at}: expected [start, end], got {shorten(place)}")
                    yield kind, spelled, fields.typed(place[0], int, at), fields.typed(place[1], int, at)

    # -- MSRA and CoNLL ------------------------------------------------------------------------------------------

    def _from_tokens(self) -> Iterator[TaggedText | None]:
        if self.labelled and self._scheme is None:
            self._scheme = self._find_scheme()
        for number, sentence in enumerate(self._token_sentences()):
            if self._selects(number):
                yield self._token_sentence(sentence, number)

    def _token_sentences(self) -> Iterator[TokenSentence]:
        if self.layout.dataset == "msra":
            return msra_sentences(self._lines, self.labelled)
        return conll_sentences(self._lines, self.labelled, self.layout.tag_column)

    def _token_sentence(self, sentence: TokenSentence, number: int) -> TaggedText | None:
        text, units = join_tokens(sentence.tokens, spaced=self.layout.dataset == "conll")
        line, tags = sentence.line(), sentence.tags
        if tags is None:
            return TaggedText(text, units, None, line, number)
        for tag in dict.fromkeys(tags):
            problem = tag_problem(tag, self._scheme)
            if problem is not None:
                return self._reject_tag(sentence, f"position {tags.index(tag)}: {problem}")
        entities = decode_tags(tags, self._scheme)
        if sum(entity.end - entity.start for entity in entities) < len(tags) - tags.count(OUTSIDE):  # some are lost
            problem = check_tags(tags, self._scheme)
            if not self._repair:
                hint = " (tags that break their order are mended by --repair_tags true)"
                return self._reject_tag(sentence, problem, hint)
            self.rejections.repaired.append(line)
            entities = decode_tags(repair_tags(tags, self._scheme), self._scheme)
        return TaggedText(text, units, tuple(entities), line, number)

    def _reject_tag(self, sentence: TokenSentence, problem: str, hint: str = "") -> None:
        """problem: "position N: ...", as `check_tags` says it; where every token has a line, that tells more."""
        place, _, what = problem.partition(": ")
        where = f"line {sentence.line(int(place.removeprefix('position ')))}"
        if self.layout.dataset == "conll":
            problem = what
        return self._reject("invalid_tags", where, sentence.line(), clip(problem) + hint)

    def _find_scheme(self) -> str:
        """The scheme whose prefixes the tags use. Where several fit, they say the same of these tags."""
        used = {tag[:1] for sentence in self._token_sentences() for tag in sentence.tags if tag != OUTSIDE}
        if "M" in used:
            return "BMES"
        return "BIOES" if used & set("ES") else "BIO"

    def _reject(self, reason: str, where: str, line: int, problem: str) -> None:
        self.rejections.reject(reason, where, line, problem)


@lru_cache(maxsize=4096)
def tag_problem(tag: str, scheme: str) -> str | None:
    """Why a tag is none of the scheme; None where it is one."""
    if tag[2:] != tag[2:].strip():
        return f"{shorten(tag)} has white space beside its type; take it out"
    try:
        decode_tags([tag], scheme)
    except ValueError as error:
        return str(error)
    return None


class UnitSpans:
    """Finds units by their characters."""

    def __init__(self, units: list[tuple[int, int]]) -> None:
        self._starts, self._ends = [start for start, _ in units], [end for _, end in units]

    def within(self, start: int, end: int) -> tuple[int, int] | None:
        """The units [first, last) in the characters [start, end); None if there are none, or one is cut by a border."""
        first, last = bisect_left(self._starts, start), bisect_right(self._ends, end)
        cut_left = first > 0 and self._ends[first - 1] > start
        cut_right = last < len(self._starts) and self._starts[last] < end
        return None if cut_left or cut_right or first >= last else (first, last)

    def cut(self, text: str, entity: Entity) -> str:
        """The characters of an entity over units."""
        return text[self._starts[entity.start] : self._ends[entity.end - 1]]


def split_characters(text: str) -> list[tuple[int, int]]:
    """Every character that is not white space is a unit."""
    return [(at, at + 1) for at, character in enumerate(text) if not character.isspace()]
