"""CLUE's fine-grained entity benchmark (CLUENER): raw sentences in, ner_predict.json and CLUE's own score out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_tools.converters.tagging import TaggingConversion, convert_tagging
from data_tools.readers.lines import LineReader
from data_tools.readers.tagging import TaggingLayout
from models.common.errors import UserError
from models.common.files import decode_json, write_text
from models.common.metrics import cluener
from models.common.tagging import Entity
from models.common.tasks.tagging import TaggedSentence
from models.common.weights.reading import Checkpoint

if TYPE_CHECKING:
    from models.common.finetune.tagging import TaggingConfig

CLUE_PREDICTIONS = "ner_predict.json"
FEATURES, LABELS = "eval_features", "eval_labels.txt"


class ClueBenchmark:
    """One file of CLUENER's JSON lines, with or without labels (the benchmark's test file has none)."""

    def __init__(self, path: str) -> None:
        """Raises `UserError` with file and line for a line that is not of the format."""
        self.path = Path(path)
        lines = [_object(line, f"{path}, line {number}") for number, line in LineReader(self.path) if line.strip()]
        self.texts = [line["text"] for line in lines]
        labelled = any("label" in line for line in lines)  # then all must be, which `read_sentences` sees to
        self.gold = cluener.read_sentences(self.path) if labelled else None

    def convert(self, config: "TaggingConfig", checkpoint: Checkpoint, tags: Sequence[str] | None) -> str:
        """Make the features in the run folder, with the run's tags; returns their folder."""
        vocab = config.vocab_file_path or checkpoint.vocab
        if vocab is None:
            raise UserError("no vocab.txt lies beside the weights; give --vocab_file_path")
        if tags is None:
            raise UserError("nothing names the tags; --assessment_method clue_benchmark needs weights or training "
                            "features that do")  # fmt: skip
        folder = Path(config.save_finetune_checkpoint_path)
        write_text(folder / LABELS, "".join(f"{tag}\n" for tag in tags))
        convert_tagging(TaggingConversion(
            self.path, Path(vocab), folder / FEATURES, TaggingLayout("cluener", config.unit), labelled=False,
            label_file_path=folder / LABELS, max_seq_length=config.max_seq_length, do_lower_case=config.do_lower_case,
            dataset_format="numpy", overwrite=True, skip=frozenset(["empty", "long_units"]),
        ))  # fmt: skip
        return str(folder / FEATURES)

    def scores(self, found: Sequence[TaggedSentence]) -> dict[str, float]:
        """CLUE's own score and that of exact spans, over all lines of the file; {} where it has no labels."""
        if self.gold is None:
            return {}
        scored = cluener.score(self.gold, [cluener.sentence_of(*pair) for pair in self._lines(found)])
        return {name: scored[name] for name in ("precision", "recall", "f1", "macro_f1", "entity_text_f1")}

    def write(self, path: Path, found: Sequence[TaggedSentence]) -> None:
        """Write a line for each line of the file, in its order."""
        texts, entities = zip(*self._lines(found), strict=True)
        cluener.write_cluener(path, texts, entities)

    def _lines(self, found: Sequence[TaggedSentence]) -> list[tuple[str, list[Entity]]]:
        """Each text with its entities over characters; none where the sentence was left out of the features."""
        entities: dict[int, list[Entity]] = {
            sentence.number: [
                Entity(begin, end, entity.type)
                for entity, (begin, end) in zip(sentence.entities, sentence.characters, strict=True)
            ]
            for sentence in found
        }
        return [(text, entities.get(number, [])) for number, text in enumerate(self.texts)]


def _object(line: str, where: str) -> dict[str, Any]:
    value = decode_json(line, where)
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise UserError(f'{where}: expected an object with "text"')
    return value
