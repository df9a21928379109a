"""Pretraining samples: what they are made of, and that they are drawn as often as they should be."""

from itertools import chain

import numpy as np
import pytest
from transformers import BertTokenizer

from data_tools.feature_store import FeatureSet, starts_of
from data_tools.features.masking import Masking, choose_targets, units_of
from data_tools.features.pretrain import DocumentSource, PretrainGenerator, PretrainOptions, UnitMasker
from data_tools.features.units import UnitOptions, UnitTokenizer
from data_tools.readers.corpus import CorpusReader
from data_tools.tokenization import WordPieceTokenizer
from models.common.errors import UserError
from tests.pretrain_corpus import (
    MASK,
    WORDS,
    MadeCorpus,
    assert_share,
    convert,
    make_corpus,
    make_plain_corpus,
    original_ids,
    texts_of,
)

LENGTH = 64
LONGEST = LENGTH - 3
PREDICTIONS = 8


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), documents=300, most_sentences=30, most_words=9, most_pieces=3)


@pytest.fixture(scope="module")
def samples(corpus, tmp_path_factory) -> FeatureSet:
    folder = tmp_path_factory.mktemp("samples") / "out"
    return corpus.convert(
        folder, max_seq_length=LENGTH, max_predictions_per_seq=PREDICTIONS, dupe_factor=10, short_seq_prob=0.0
    )


@pytest.fixture(scope="module")
def words(corpus, tmp_path_factory) -> FeatureSet:
    folder = tmp_path_factory.mktemp("words") / "out"
    return corpus.convert(folder, max_seq_length=LENGTH, dupe_factor=3, levels=WORDS)


def place_of(features: FeatureSet) -> np.ndarray:
    """Of each token, in its sample."""
    return np.arange(features.starts[-1]) - np.repeat(features.starts[:-1], features.lengths)


@pytest.fixture(scope="module")
def balanced(corpus, tmp_path_factory) -> FeatureSet:
    folder = tmp_path_factory.mktemp("balanced") / "out"
    return corpus.convert(folder, max_seq_length=LENGTH, dupe_factor=10, generate_neg_sample=True)


@pytest.mark.parametrize("kind", ["samples", "words", "balanced"])
def test_unmasked_samples_are_stretches_of_the_corpus(request, corpus, kind):
    """No token occurs twice in the corpus, so each says where it is from."""
    features = request.getfixturevalue(kind)
    seen = set()
    for first, second, random_next in texts_of(features):
        for text in (first, second):
            assert (np.diff(text) == 1).all()
            assert len(set(corpus.document[text])) == 1
        if random_next:
            assert corpus.document[second[0]] != corpus.document[first[0]]
        else:
            # Cut at the ends only: between them is nothing, or what was cut off, and a sentence begins in between.
            assert second[0] > first[-1] and corpus.document[second[0]] == corpus.document[first[0]]
            assert corpus.sentence[second[0]] > corpus.sentence[first[-1]]
            assert second[0] == first[-1] + 1 or len(first) + len(second) == LONGEST
        assert len(first) + len(second) <= LONGEST
        seen |= {*first, *second}
    # Google's truncation alone leaves text out; over several passes little of it is never seen.
    assert len(seen) > 0.98 * (corpus.document >= 0).sum()


def test_stretches_hold_the_wanted_tokens_and_half_of_the_seconds_are_random(corpus, samples):
    """Without short ones every stretch is known from its first sentence: all of the sentences that fill a row."""
    sentence_lengths = np.bincount(corpus.sentence[corpus.sentence >= 0])
    first_token = np.searchsorted(corpus.sentence, np.arange(len(sentence_lengths)))
    document_of = corpus.document[first_token]
    random, alone, several = 0, 0, 0
    for first, second, random_next in texts_of(samples):
        begin = end = corpus.sentence[first[0]]
        tokens = 0
        while tokens < LONGEST and end < len(document_of) and document_of[end] == document_of[begin]:
            tokens += sentence_lengths[end]
            end += 1
        last = corpus.sentence[first[-1]]
        if end - begin == 1:
            alone += 1
            assert random_next
        else:
            several += 1
            random += random_next
            assert last < end - 1
            if not random_next:
                assert corpus.sentence[second[-1]] == end - 1 or len(first) + len(second) == LONGEST
    assert several > 5000 and alone > 300
    assert_share(random, several, 0.5)


def test_the_first_text_of_a_stretch_is_any_number_of_its_sentences(tmp_path):
    """Documents of ten sentences of one token: their first stretch is cut behind 1 to 9 sentences, all alike often."""
    corpus = make_plain_corpus(tmp_path, documents=100, sentences=10)
    features = corpus.convert(tmp_path / "out", max_seq_length=LENGTH, short_seq_prob=0.0, dupe_factor=40)
    starts = np.searchsorted(corpus.document, np.arange(100))
    sizes = [len(first) for first, _, _ in texts_of(features) if first[0] in starts]
    assert len(sizes) == 4000
    for count in np.bincount(sizes, minlength=10)[1:]:
        assert_share(count, len(sizes), 1 / 9)


def test_balanced_pairs_are_half_random_in_every_document(corpus, balanced):
    """The document of the first text; one of a single sentence has none."""
    firsts = [(random_next, corpus.document[first[0]]) for first, _, random_next in texts_of(balanced)]
    counts = [np.bincount([at for kind, at in firsts if kind == wanted], minlength=300) for wanted in (False, True)]
    np.testing.assert_array_equal(*counts)
    assert counts[0].sum() > 5000
    pairs = np.unique(np.stack([corpus.document, corpus.sentence])[:, corpus.document >= 0], axis=1)
    sentences = np.bincount(pairs[0], minlength=300)
    assert (sentences == 1).any() and not counts[0][sentences == 1].any()


def test_text_without_two_sentences_together_gives_no_balanced_pairs(tmp_path):
    corpus = make_plain_corpus(tmp_path, documents=3, sentences=1)
    with pytest.raises(UserError, match=r"corpus\.txt: .*no usable document"):
        corpus.convert(tmp_path / "out", generate_neg_sample=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", ["samples", "balanced"])
def test_random_seconds_come_from_all_other_documents_alike(request, corpus, kind):
    features = request.getfixturevalue(kind)
    documents = np.array([corpus.document[second[0]] for _, second, random_next in texts_of(features) if random_next])
    counts = np.bincount(documents, minlength=300)
    chi_square = ((counts - counts.mean()) ** 2).sum() / counts.mean()
    assert abs(chi_square - 299) < 5 * np.sqrt(2 * 299)


def test_a_share_of_documents_is_cut_into_shorter_samples(tmp_path):
    """With sentences of one token, all samples of a document have the wanted length but those at a document's end."""
    corpus = make_plain_corpus(tmp_path, documents=200, sentences=150)
    tokenizer = WordPieceTokenizer(corpus.vocab, True)
    options = PretrainOptions(max_seq_length=LENGTH, dupe_factor=15, short_seq_prob=0.2)
    source = DocumentSource(UnitTokenizer(tokenizer, UnitOptions()), options)
    generator = PretrainGenerator(tokenizer, source, UnitMasker(tokenizer, options.masking), options)
    passes, _ = generator((0, list(CorpusReader([corpus.text]))))
    wanted = np.zeros((15, 200), np.int64)
    for row, features in zip(wanted, passes, strict=True):
        for first, second, _ in texts_of(features):
            document = corpus.document[first[0]]
            row[document] = max(row[document], len(first) + len(second))
    short = wanted[wanted < LONGEST]
    assert_share(len(short), wanted.size, 0.2 * (LONGEST - 2) / (LONGEST - 1))  # drawn from 2 up to the whole row
    assert short.min() < 5 and short.max() > LONGEST - 3
    deviation = np.sqrt(((LONGEST - 2) ** 2 - 1) / 12 / len(short))
    assert abs(short.mean() - (LONGEST + 1) / 2) < 5 * deviation


def test_every_sample_has_its_share_of_targets(samples):
    targets = np.add.reduceat(samples.tokens["mlm_label"] >= 0, samples.starts[:-1])
    expected = [min(PREDICTIONS, max(1, round(0.15 * int(length)))) for length in samples.lengths]
    assert targets.tolist() == expected
    assert min(expected) < PREDICTIONS == max(expected)


def test_of_the_targets_80_10_10_are_masked_kept_and_replaced(corpus, samples):
    labels, ids = samples.tokens["mlm_label"], samples.tokens["input_ids"]
    targets = labels >= 0
    total, size = int(targets.sum()), len(corpus.document)
    assert total > 50000
    masked, kept = (ids == MASK) & targets, (ids == labels) & targets
    assert_share(masked.sum(), total, 0.8 + 0.1 / size)
    assert_share(kept.sum(), total, 0.1 + 0.1 / size)
    replaced = ids[targets & ~masked & ~kept]
    assert_share(len(replaced), total, 0.1)
    counts, _ = np.histogram(replaced, bins=20, range=(0, size))  # any token of the vocabulary
    for count in counts:
        assert_share(count, len(replaced), 1 / 20)
    # The three are drawn for each target by itself: neighbours tell nothing about each other.
    fates = np.where(masked, 0, np.where(kept, 1, 2))[targets]
    assert_share(((fates[:-1] == 0) & (fates[1:] == 0)).sum(), total - 1, 0.64)
    assert (ids[~targets] == original_ids(samples)[~targets]).all()


def test_targets_are_spread_over_the_whole_row(samples):
    full = samples.lengths == LENGTH
    assert full.sum() > 3000
    targets = samples.tokens["mlm_label"] >= 0
    of_full = np.repeat(full, samples.lengths)
    counts = np.bincount(place_of(samples)[targets & of_full], minlength=LENGTH)
    # One place in each row is the [SEP] of the first text, which is never a target.
    possible = np.bincount(place_of(samples)[of_full & (original_ids(samples) > MASK)], minlength=LENGTH)
    assert counts[0] == counts[-1] == possible[0] == possible[-1] == 0
    share = counts.sum() / possible.sum()
    for place in range(1, LENGTH - 1):
        assert_share(counts[place], possible[place], share)


def test_whole_words_are_taken_whole_or_not_at_all(corpus, words):
    """Words of one to three pieces; the pieces of one that truncation cut are taken together, too."""
    targets, ids = words.tokens["mlm_label"] >= 0, original_ids(words)
    sample = np.repeat(np.arange(len(words)), words.lengths)
    usable = ids > MASK
    word = sample * (corpus.word.max() + 1) + corpus.word[ids]
    _, inverse, sizes = np.unique(word[usable], return_inverse=True, return_counts=True)
    chosen = np.bincount(inverse, targets[usable])
    assert ((chosen == 0) | (chosen == sizes)).all() and not targets[~usable].any()
    assert {1, 2, 3} == set(sizes[chosen > 0])
    budgets = np.clip(np.rint(0.15 * words.lengths), 1, 20)
    counts = np.add.reduceat(targets, words.starts[:-1])
    assert (counts <= budgets).all() and (counts == budgets).mean() > 0.9
    # Long words are not left out, though a short one is more often what still fits.
    for size in (1, 2, 3):
        share = sizes[sizes == size].sum() / sizes.sum()
        assert chosen[sizes == size].sum() / chosen.sum() == pytest.approx(share, abs=0.1)


def test_units_may_be_any_groups_of_tokens():
    """What knowledge masking needs: a unit need not be neighbours, and a budget is never exceeded."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(4, 40, 500)
    starts = starts_of(lengths)
    place = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    usable = (place > 0) & (place < np.repeat(lengths, lengths) - 1)
    group = np.where(usable, rng.integers(0, 6, len(place)), -1)
    first: dict[tuple[int, int], int] = {}
    sample = np.repeat(np.arange(len(lengths)), lengths)
    members = enumerate(zip(sample, group, strict=True))
    units = np.array([-1 if number < 0 else first.setdefault((row, number), at) for at, (row, number) in members])
    masking = Masking(0.3, 7)
    targets = choose_targets(units, starts, masking, rng)
    for row in range(len(lengths)):
        part = slice(starts[row], starts[row + 1])
        taken = set(group[part][targets[part]])
        assert targets[part].sum() == np.isin(group[part], list(taken)).sum()
        room = masking.budgets(lengths)[row] - targets[part].sum()
        left = [count for number in range(6) if number not in taken and (count := (group[part] == number).sum())]
        assert room >= 0 and all(size > room for size in left)  # greedy: nothing more would have fitted


def test_units_end_at_special_tokens():
    begins = np.array([1, 0, 0, 1, 0, 0, 1, 0], bool)
    usable = np.array([0, 1, 1, 1, 0, 1, 1, 0], bool)
    assert units_of(begins, usable).tolist() == [-1, 1, 1, 3, -1, 5, 6, -1]


@pytest.mark.parametrize(("language", "vocab"), [("en", "bert_uncased_vocab.txt"), ("zh", "bert_chinese_vocab.txt")])
def test_real_text_unmasked_is_the_text(shared_data, tmp_path, language, vocab):
    """Of the corpus as transformers tokenizes it, sentence by sentence."""
    lines = (shared_data / f"corpus/{language}.txt").read_text(encoding="utf-8").split("\n")[:3000]
    text = tmp_path / "text.txt"
    text.write_text("\n".join(lines), encoding="utf-8")
    tokenizer = BertTokenizer(vocab=str(shared_data / "vocab" / vocab), do_lower_case=True)
    documents = [document.split("\n") for document in "\n".join(lines).strip().split("\n\n")]
    streams = [chain(*tokenizer(sentences, add_special_tokens=False)["input_ids"]) for sentences in documents]
    whole = " | ".join(["", *(" ".join(map(str, stream)) for stream in streams), ""])
    features = convert(text, shared_data / "vocab" / vocab, tmp_path / "out", dupe_factor=1)
    assert len(features) > 300
    for index in range(len(features)):
        sample = features.sample(index)
        ids = np.where(sample["mlm_label"] >= 0, sample["mlm_label"], sample["input_ids"])
        for segment in (0, 1):
            found = ids[sample["token_type_ids"] == segment][1 - segment : -1]
            assert f" {' '.join(map(str, found))} " in whole
