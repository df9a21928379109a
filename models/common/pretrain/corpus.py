"""Pretraining features that do not fit into memory: the shards of each stream, a window of them at a time."""

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from data_tools.feature_store import FeatureSet, FeatureShards
from models.common.encoder_config import EncoderConfig
from models.common.errors import UserError
from models.common.files import sha256_of
from models.common.tasks.pretrain import target_counts
from models.common.train.streams import StreamData

TASK = "pretrain"
IDS = ("input_ids", "mlm_label")
WINDOWS_HELD = 2  # of each stream: the one that is read and the next


def check_info(path: Path, info: Mapping[str, Any], encoder: EncoderConfig, vocab: Path | None) -> None:
    """Refuse features of another task, of rows that `encoder` has no positions for, or of another vocabulary than the
    file that goes along with the weights."""
    if info.get("task") != TASK:
        raise UserError(f"{path}: holds {info.get('task', 'unlabelled')} features; pretraining needs those of "
                        "`python -m data_tools.convert pretrain`")  # fmt: skip
    if info["max_seq_length"] > encoder.max_position_embeddings:
        raise UserError(f"{path}: rows of {info['max_seq_length']} tokens; the network has positions for "
                        f"{encoder.max_position_embeddings}")  # fmt: skip
    made = info.get("tokenizer")
    if made and vocab and made["sha256"] != sha256_of(vocab):
        raise UserError(f"{path}: made with another vocabulary than {vocab}; convert the text with that one, or name "
                        "the right one (--vocab_file_path)")  # fmt: skip


def check_ids(path: Path, features: FeatureSet, encoder: EncoderConfig) -> None:
    """Refuse features with words that `encoder` does not have."""
    largest = max((int(array.max()) for array in map(features.tokens.get, IDS) if array.size), default=0)
    if largest >= encoder.vocab_size:
        raise UserError(f"{path}: holds token id {largest}; the network's vocabulary has {encoder.vocab_size} "
                        "(--vocab_size, --network)")  # fmt: skip


class Corpus:
    """The shards of a training set, dealt to `streams`; this worker reads those of `own`.

    window_samples: how many samples of a stream are held at once, as nearly as whole shards allow. vocab: the file of
    the vocabulary that goes along with the weights. Raises `UserError` for features of another task or vocabulary, or
    that `encoder` cannot take, and for fewer shards than streams.
    """

    def __init__(
        self, path: Path, schema: Path | None, own: Sequence[int], streams: int, window_samples: int,
        encoder: EncoderConfig, vocab: Path | None = None,
    ) -> None:  # fmt: skip
        self.path, self.own, self.streams, self.encoder = path, own, streams, encoder
        self.shards = FeatureShards(path, schema)
        if len(self.shards) < streams:
            raise UserError(
                f"{path}: has {len(self.shards)} files, {streams} are needed: one for each stream (--data_streams: "
                f"workers times --accumulation_steps); convert the data with --shards {streams} or a multiple of it"
            )
        first = self.shards[0] if self.shards.sidecar is None else None
        self.info = self.shards.sidecar or first.info
        check_info(path, self.info, encoder, vocab)
        counts = [len(first)] if first else [shard["features"] for shard in self.info["shards"]]
        self.shards_per_window = max(1, window_samples // max(counts))
        self.windows = math.ceil(math.ceil(len(self.shards) / streams) / self.shards_per_window)
        self._held: dict[tuple[int, int], Future[FeatureSet]] = {}
        self._reader = ThreadPoolExecutor(1, "corpus")

    @property
    def row_length(self) -> int:
        """Tokens of the longest row that the features were made for."""
        return self.info["max_seq_length"]

    @property
    def identity(self) -> list[Any]:
        """What tells these data from others: a checksum of what convert wrote, names and sizes of foreign files."""
        if self.shards.sidecar is not None:
            return [self.info["content_sha256"], self.info["max_seq_length"], len(self.shards)]
        return [[file.name, file.stat().st_size] for file in self.shards.files]

    @property
    def data(self) -> StreamData:
        """What a plan needs to know."""
        return StreamData(self.own, self.streams, self.windows, self.sizes)

    def sizes(self, stream: int, window: int) -> tuple[np.ndarray, np.ndarray]:
        """Tokens and targets of each sample of a window, int64 [N] twice."""
        features = self.window(stream, window)
        return features.lengths, target_counts(features)

    def window(self, stream: int, window: int) -> FeatureSet:
        """The samples of a window, which may be none."""
        self.prefetch(stream, window)
        return self._held[stream, window].result()

    def prefetch(self, stream: int, window: int) -> None:
        """Begin to read a window in the background; the one that was asked for longest ago is let go."""
        key = (stream, window)
        found = self._held.pop(key, None) or self._reader.submit(self._read, *key)
        self._held[key] = found
        while len(self._held) > WINDOWS_HELD * len(self.own):
            del self._held[next(iter(self._held))]

    def _read(self, stream: int, window: int) -> FeatureSet:
        own = range(stream, len(self.shards), self.streams)
        chosen = own[window * self.shards_per_window : (window + 1) * self.shards_per_window]
        parts = [self.shards[shard] for shard in chosen]
        features = FeatureSet.join(parts) if parts else self.shards[stream].select([])
        check_ids(self.path, features, self.encoder)
        return features
