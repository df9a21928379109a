"""Tag schemes: one tag for each unit of a sentence (a character or a word), and the entities that the tags spell.

    BIO     B-x I-x I-x O     also called IOB2: every entity begins with B
    BIOES   B-x I-x E-x S-x   the end is marked too, an entity of one unit is S
    BMES    B-x M-x E-x S-x   BIOES with M (middle) for I

An entity type is joined to its prefix by "-" (MSRA, CoNLL) or "_" (the original's CLUENER tags: "S_address"); both are
read, "-" is written. Everything behind the first separator is the type, which may hold either sign itself.

There are two readings of a sequence that breaks its scheme. `decode_tags` is for predictions and drops what is broken,
as seqeval does in strict mode. Gold data must not lose entities without a word: a reader asks `check_tags` what is
wrong, and either refuses the data or reports it and goes on with `repair_tags`, which keeps every tagged unit.
"""

import functools
from collections.abc import Iterable, Sequence
from typing import NamedTuple

OUTSIDE = "O"
_SEPARATORS = "-_"
# Begin, inside, end, single: how each scheme spells them, in the order of the tag ids.
_PREFIXES = {"BIO": "BI", "BIOES": "BIES", "BMES": "BMES"}
SCHEMES = tuple(_PREFIXES)


class Entity(NamedTuple):
    """An entity of type `type` over the units [start, end): the end is exclusive."""

    start: int
    end: int
    type: str


def tag_names(types: Sequence[str], scheme: str) -> list[str]:
    """All tags in the order of their ids: "O" is 0, then the prefixes of the first type, of the second, and so on.

    Raises ValueError when a type is empty or named twice, or the scheme is unknown.
    """
    prefixes = _prefixes(scheme)
    if not all(types) or len(set(types)) < len(types):
        raise ValueError(f"entity types must be named, each once: {list(types)}")
    return [OUTSIDE, *(f"{prefix}-{kind}" for kind in types for prefix in prefixes)]


def decode_tags(tags: Sequence[str], scheme: str) -> list[Entity]:
    """The well-formed entities of one sentence, in order; what breaks the scheme is dropped as seqeval strict does.

    In BIO that is an I that continues nothing; in BIOES and BMES also an entity that is begun and not ended.
    Raises ValueError when a tag is none of the scheme.
    """
    has_end_mark = scheme != "BIO"
    entities: list[Entity] = []
    start, kind = -1, ""  # of the entity that is open; -1: none is
    for position, role, found in [*_parsed(tags, scheme), (len(tags), OUTSIDE, "")]:
        if start >= 0 and role in "IE" and found == kind:
            if role == "E":
                entities.append(Entity(start, position + 1, kind))
                start = -1
            continue
        if start >= 0 and not has_end_mark:
            entities.append(Entity(start, position, kind))
        start, kind = (position, found) if role == "B" else (-1, "")
        if role == "S":
            entities.append(Entity(position, position + 1, found))
    return entities


def encode_entities(entities: Iterable[Entity], length: int, scheme: str) -> list[str]:
    """The tags of a sentence of `length` units.

    Raises ValueError when an entity is empty, lies outside the sentence or overlaps another: one tag a unit cannot say
    that.
    """
    prefixes = _prefixes(scheme)
    tags = [OUTSIDE] * length
    previous = Entity(0, 0, "")
    for entity in sorted(entities):
        if not 0 <= entity.start < entity.end <= length:
            raise ValueError(f"{entity} is empty or not inside a sentence of {length} units")
        if entity.start < previous.end:
            raise ValueError(f"{entity} overlaps {previous}")
        tags[entity.start : entity.end] = _entity_tags(entity, prefixes)
        previous = entity
    return tags


def check_tags(tags: Sequence[str], scheme: str) -> str | None:
    """What is wrong with the tags of one sentence first, and what was expected there; None when nothing is.

    `decode_tags` loses nothing of a sequence that passes. Positions count from 0.
    """
    has_end_mark = "E" in _prefixes(scheme)
    open_type = None  # of the entity that the last tag belongs to and that may go on
    for position in _telling(tags):
        tag = tags[position]
        try:
            role, kind = _parse(tag, scheme)
        except ValueError as error:
            return f"position {position}: {error}"
        continues = role in "IE"
        if (continues and kind != open_type) or (has_end_mark and open_type is not None and not continues):
            before = f"after {tags[position - 1]!r}" if position else "at the start"
            return f"position {position}: {tag!r} {before}; expected {_expected(open_type, scheme)}"
        open_type = kind if role in "BI" else None
    if has_end_mark and open_type is not None:
        return f"position {len(tags)}: the sentence ends after {tags[-1]!r}; expected {_expected(open_type, scheme)}"
    return None


def repair_tags(tags: Sequence[str], scheme: str) -> list[str]:
    """Tags that pass `check_tags` and leave every tagged unit in an entity of its type; right ones stay as they are.

    The rules are those of the CoNLL-2000 scorer `conlleval`, seqeval's default mode: an entity goes on as long as the
    type stays the same and neither a B or S begins nor an E or S has ended one. So an I that continues nothing begins
    an entity, which also reads IOB1 data (B only between two neighbours of the same type) as BIO.
    Raises ValueError when a tag is none of the scheme.
    """
    entities: list[Entity] = []
    previous_role = OUTSIDE
    for position, role, kind in _parsed(tags, scheme):
        goes_on = role in "IE" and previous_role in "BI" and kind == entities[-1].type
        if goes_on:
            entities[-1] = entities[-1]._replace(end=position + 1)
        elif role != OUTSIDE:
            entities.append(Entity(position, position + 1, kind))
        previous_role = role
    return encode_entities(entities, len(tags), scheme)


def convert_tags(tags: Sequence[str], from_scheme: str, to_scheme: str) -> list[str]:
    """The same entities in another scheme. Raises ValueError with the words of `check_tags` if the tags are broken."""
    problem = check_tags(tags, from_scheme)
    if problem:
        raise ValueError(problem)
    return encode_entities(decode_tags(tags, from_scheme), len(tags), to_scheme)


def _prefixes(scheme: str) -> str:
    if scheme not in _PREFIXES:
        raise ValueError(f"unknown tag scheme {scheme!r}; expected one of {', '.join(SCHEMES)}")
    return _PREFIXES[scheme]


@functools.lru_cache(maxsize=4096)
def _parse(tag: str, scheme: str) -> tuple[str, str]:
    """(role, type): the role is one of O B I E S, however the scheme spells it; the type of O is empty."""
    prefixes = _prefixes(scheme)
    if tag == OUTSIDE:
        return OUTSIDE, ""
    if len(tag) < 3 or tag[0] not in prefixes or tag[1] not in _SEPARATORS:
        raise ValueError(f"{tag!r} is no {scheme} tag; expected O or {_listed(prefixes, '<type>')}")
    return ("I" if tag[0] == "M" else tag[0]), tag[2:]


def _parsed(tags: Sequence[str], scheme: str) -> list[tuple[int, str, str]]:
    """(position, role, type) of the tags that tell something."""
    _prefixes(scheme)  # an unknown scheme is an error for an empty sentence too
    return [(position, *_parse(tags[position], scheme)) for position in _telling(tags)]


def _telling(tags: Sequence[str]) -> list[int]:
    """The positions of all tags but the O behind an O: there nothing ends or begins, and they are most of a text."""
    if tags.count(OUTSIDE) == len(tags):
        return []
    tagged = [position for position, tag in enumerate(tags) if tag != OUTSIDE]
    return sorted({*tagged, *(position + 1 for position in tagged if position + 1 < len(tags))})


def _entity_tags(entity: Entity, prefixes: str) -> list[str]:
    begin, inside = prefixes[:2]
    size = entity.end - entity.start
    spelled = begin + inside * (size - 1)
    if "E" in prefixes:
        spelled = "S" if size == 1 else begin + inside * (size - 2) + "E"
    return [f"{prefix}-{entity.type}" for prefix in spelled]


def _expected(open_type: str | None, scheme: str) -> str:
    """What may follow, in words, when an entity of `open_type` is open, or none is."""
    if scheme == "BIO":
        return "O or B-<type>" + ("" if open_type is None else f" or I-{open_type}")
    if open_type is None:
        return "O or " + _listed("BS", "<type>")
    return _listed(_PREFIXES[scheme][1:3], open_type)


def _listed(prefixes: str, kind: str) -> str:
    return " or ".join(f"{prefix}-{kind}" for prefix in prefixes)
