"""Real text for trying a model out where no data set is at hand: exports are verified on it."""

from data_tools.feature_store import FeatureSet
from data_tools.features.span import SPECIAL_TOKENS, SpanFeaturizer, SpanOptions
from data_tools.readers.squad import Paragraph, Question
from data_tools.rejections import Rejections
from data_tools.tokenization import WordPieceTokenizer

# Abraham Lincoln, address at Gettysburg, 1863 (public domain).
TEXT = (
    "Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in Liberty, "
    "and dedicated to the proposition that all men are created equal. Now we are engaged in a great civil war, "
    "testing whether that nation, or any nation so conceived and so dedicated, can long endure. We are met on a great "
    "battle-field of that war. We have come to dedicate a portion of that field, as a final resting place for those "
    "who here gave their lives that that nation might live. It is altogether fitting and proper that we should do "
    "this. But, in a larger sense, we can not dedicate, we can not consecrate, we can not hallow this ground. The "
    "brave men, living and dead, who struggled here, have consecrated it, far above our poor power to add or detract. "
    "The world will little note, nor long remember what we say here, but it can never forget what they did here."
)
QUESTIONS = ("Who consecrated the ground?", "What were all men created?", "When did our fathers bring forth a nation?")


def sample_windows(tokenizer: WordPieceTokenizer, max_seq_length: int) -> tuple[FeatureSet, FeatureSet]:
    """Question-and-context windows: (of many lengths below `max_seq_length`, of just that length)."""
    words = TEXT.split() * (1 + 2 * max_seq_length // len(TEXT.split()))
    # A word has at least one token: the longest context fills one window and begins another.
    sizes = [max(1, max_seq_length * part // 12) for part in range(1, 9)] + [2 * max_seq_length]
    paragraphs = []
    for index, size in enumerate(sizes):
        question = Question(f"sample-{index}", QUESTIONS[index % len(QUESTIONS)], (), False, where=f"sample {index}")
        paragraphs.append(Paragraph(" ".join(words[:size]), (question,), question.where))
    longest_question = min(64, max(1, (max_seq_length - SPECIAL_TOKENS) // 2))
    options = SpanOptions(max_seq_length, doc_stride=0, max_query_length=longest_question)
    windows = SpanFeaturizer(tokenizer, options, False, Rejections("sample text")).features(paragraphs)
    full = windows.lengths == max_seq_length
    return windows.select((~full).nonzero()[0]), windows.select(full.nonzero()[0])
