"""Tag schemes against seqeval (strict and default mode), over all short sequences, and on the real MSRA files."""

import random
from itertools import pairwise, product
from pathlib import Path

import pytest
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, IOBES, Tokens

from models.common.tagging import (
    SCHEMES,
    Entity,
    check_tags,
    convert_tags,
    decode_tags,
    encode_entities,
    repair_tags,
    tag_names,
)

TYPES = ("a", "b")
# Lengths that hold every pair of neighbours at the start, in the middle and at the end.
LONGEST = {"BIO": 5, "BIOES": 4, "BMES": 4}


def as_bioes(tags: list[str], scheme: str) -> list[str]:
    """What seqeval, which does not know BMES, is given."""
    return ["I" + tag[1:] if scheme == "BMES" and tag[0] == "M" else tag for tag in tags]


def seqeval_strict(tags: list[str], scheme: str) -> list[Entity]:
    found = Tokens(as_bioes(tags, scheme), IOB2 if scheme == "BIO" else IOBES).entities
    return [Entity(entity.start, entity.end, entity.tag) for entity in found]


def seqeval_default(tags: list[str], scheme: str) -> list[Entity]:
    return [Entity(start, last + 1, kind) for kind, start, last in get_entities(as_bioes(tags, scheme))]


def all_sequences(scheme: str) -> list[list[str]]:
    names = tag_names(TYPES, scheme)
    sequences = [list(tags) for length in range(LONGEST[scheme] + 1) for tags in product(names, repeat=length)]
    generator = random.Random(7)
    return sequences + [generator.choices(names, k=generator.randint(5, 40)) for _ in range(200)]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_decoding_equals_seqeval_strict(scheme: str) -> None:
    for tags in all_sequences(scheme):
        assert decode_tags(tags, scheme) == seqeval_strict(tags, scheme), tags


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_sequence_passes_the_check_exactly_if_seqeval_strict_loses_no_tag_of_it(scheme: str) -> None:
    for tags in all_sequences(scheme):
        told_again = encode_entities(seqeval_strict(tags, scheme), len(tags), scheme)
        assert (check_tags(tags, scheme) is None) == (told_again == tags), tags


@pytest.mark.parametrize("scheme", SCHEMES)
def test_repaired_tags_keep_every_unit_and_are_read_as_conlleval_reads_the_broken_ones(scheme: str) -> None:
    for tags in all_sequences(scheme):
        repaired = repair_tags(tags, scheme)
        assert check_tags(repaired, scheme) is None, tags
        assert [tag[2:] for tag in repaired] == [tag[2:] for tag in tags]
        assert decode_tags(repaired, scheme) == seqeval_default(tags, scheme), tags
        if check_tags(tags, scheme) is None:
            assert repaired == tags


def test_repair_reads_iob1() -> None:
    tags = ["I-a", "I-a", "B-a", "O", "I-b", "I-a", "B-b"]
    assert decode_tags(repair_tags(tags, "BIO"), "BIO") == [
        (0, 2, "a"),
        (2, 3, "a"),
        (4, 5, "b"),
        (5, 6, "a"),
        (6, 7, "b"),
    ]


def test_ids_are_in_the_stated_order() -> None:
    assert tag_names(["address", "x-y"], "BIO") == ["O", "B-address", "I-address", "B-x-y", "I-x-y"]
    assert tag_names(["a"], "BIOES") == ["O", "B-a", "I-a", "E-a", "S-a"]
    assert tag_names(["a"], "BMES") == ["O", "B-a", "M-a", "E-a", "S-a"]
    for types in (["a", "a"], ["a", ""]):
        with pytest.raises(ValueError, match="each once"):
            tag_names(types, "BIO")


# The same four entities in every scheme, written by hand.
SPELLED = {
    "BIO": "B-a O B-a I-a B-b I-b I-b O B-b",
    "BIOES": "S-a O B-a E-a B-b I-b E-b O S-b",
    "BMES": "S-a O B-a E-a B-b M-b E-b O S-b",
}


@pytest.mark.parametrize("source", SCHEMES)
@pytest.mark.parametrize("target", SCHEMES)
def test_schemes_are_converted_into_each_other(source: str, target: str) -> None:
    assert convert_tags(SPELLED[source].split(), source, target) == SPELLED[target].split()
    underscored = SPELLED[source].replace("-", "_").split()
    assert convert_tags(underscored, source, target) == SPELLED[target].split()
    assert convert_tags([], source, target) == []


def test_conversion_refuses_what_it_would_lose() -> None:
    with pytest.raises(ValueError, match="position 1: 'I-a' after 'O'; expected O or B-<type>"):
        convert_tags(["O", "I-a"], "BIO", "BMES")


def test_both_separators_are_read_and_may_be_part_of_a_type() -> None:
    assert decode_tags(["B_LOC", "I-LOC", "O", "S_x-y_z"][:3], "BIO") == [(0, 2, "LOC")]
    assert decode_tags(["S_x-y_z", "S-x_y-z", "S--x"], "BMES") == [(0, 1, "x-y_z"), (1, 2, "x_y-z"), (2, 3, "-x")]
    assert repair_tags(["I_LOC", "O"], "BIO") == ["B-LOC", "O"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_entities_survive_encoding(scheme: str) -> None:
    generator = random.Random(3)
    for _ in range(200):
        length = generator.randint(0, 30)
        cuts = sorted(generator.sample(range(length + 1), generator.randint(0, length + 1)))
        spans = [pair for pair in pairwise(cuts) if generator.random() < 0.6]
        entities = [Entity(start, end, generator.choice(TYPES)) for start, end in spans]
        tags = encode_entities(generator.sample(entities, len(entities)), length, scheme)
        assert len(tags) == length
        assert seqeval_strict(tags, scheme) == entities


@pytest.mark.parametrize(
    ("entities", "message"),
    [
        ([Entity(0, 2, "a"), Entity(1, 3, "b")], "overlaps"),
        ([Entity(0, 3, "a"), Entity(1, 2, "b")], "overlaps"),
        ([Entity(1, 2, "a"), Entity(1, 2, "a")], "overlaps"),
        ([Entity(2, 2, "a")], "is empty or not inside"),
        ([Entity(3, 5, "a")], "not inside a sentence of 4 units"),
        ([Entity(-1, 1, "a")], "not inside"),
    ],
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_what_tags_cannot_say_is_an_error(entities: list[Entity], message: str, scheme: str) -> None:
    with pytest.raises(ValueError, match=message):
        encode_entities(entities, 4, scheme)


@pytest.mark.parametrize(
    ("tags", "scheme", "message"),
    [
        ("I-a", "BIO", "position 0: 'I-a' at the start; expected O or B-<type>"),
        ("B-a I-b", "BIO", "position 1: 'I-b' after 'B-a'; expected O or B-<type> or I-a"),
        ("O S-a", "BIO", "position 1: 'S-a' is no BIO tag; expected O or B-<type> or I-<type>"),
        ("O B-a O", "BIOES", "position 2: 'O' after 'B-a'; expected I-a or E-a"),
        ("B-a E-a E-a", "BIOES", "position 2: 'E-a' after 'E-a'; expected O or B-<type> or S-<type>"),
        ("B-a M-a", "BMES", "position 2: the sentence ends after 'M-a'; expected M-a or E-a"),
        ("B-a M-b", "BMES", "position 1: 'M-b' after 'B-a'; expected M-a or E-a"),
        (
            "M-a",
            "BIOES",
            "position 0: 'M-a' is no BIOES tag; expected O or B-<type> or I-<type> or E-<type> or S-<type>",
        ),
    ],
)
def test_the_check_says_where_and_what_was_expected(tags: str, scheme: str, message: str) -> None:
    assert check_tags(tags.split(), scheme) == message


@pytest.mark.parametrize("tag", ["", "B", "B-", "-a", "Ba", "o", "X-a", "E-a", "b-a", " B-a"])
def test_what_is_no_tag_is_an_error(tag: str) -> None:
    for read in (decode_tags, repair_tags):
        with pytest.raises(ValueError, match="is no BIO tag"):
            read(["O", tag], "BIO")
    assert check_tags(["O", tag], "BIO").startswith(f"position 1: {tag!r} is no BIO tag")


def test_an_unknown_scheme_is_named() -> None:
    for use in (tag_names, decode_tags, check_tags, repair_tags):
        with pytest.raises(ValueError, match="unknown tag scheme 'IOB'; expected one of BIO, BIOES, BMES"):
            use([], "IOB")


def msra_tags(path: Path) -> dict[int, list[str]]:
    """Line number -> tags."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return {number: line.split("\t")[1].split("\x02") for number, line in enumerate(lines, 1) if number > 1 and line}


def test_real_msra_files_lose_no_entity(shared_data: Path) -> None:
    """Five lines of the training file start inside a name of a list of names that was cut: they begin with I-PER."""
    for name, broken in (("train", {2153, 2997, 3853, 10826, 11351}), ("dev", set())):
        sentences = msra_tags(shared_data / "msra_ner" / f"{name}.tsv")
        assert {line for line, tags in sentences.items() if check_tags(tags, "BIO")} == broken
        begins = sum(tag[0] == "B" for tags in sentences.values() for tag in tags)
        repaired = [repair_tags(tags, "BIO") for tags in sentences.values()]
        assert sum(len(decode_tags(tags, "BIO")) for tags in sentences.values()) == begins
        assert sum(len(decode_tags(tags, "BIO")) for tags in repaired) == begins + len(broken)
