"""Samples as Baidu's pretraining data: gzip files of lines, see `data_tools.readers.baidu_lines`, and their list."""

import gzip
import hashlib
from functools import partial
from pathlib import Path

import numpy as np

from data_tools.feature_store import FeatureSet
from data_tools.features.pretrain import SampleTokens
from data_tools.parallel import Crew
from data_tools.readers.baidu_lines import open_lines
from data_tools.shards import dealt
from models.common.errors import UserError
from models.common.files import write_text

FILE_LIST = "filelist"
UNIT = "seg_label"


class UnitLabeller:
    """Makes the columns of samples whose tokens are masked by whoever reads them: `input_ids`, and `seg_label`, 0 where
    a unit of all levels begins; a text that was cut inside a unit begins with one."""

    def __call__(self, samples: SampleTokens, _: np.random.Generator) -> dict[str, np.ndarray]:
        """int32 [tokens] each."""
        begins = samples.begins.all(axis=0) | np.concatenate([[True], ~samples.usable[:-1]])
        labels = np.where(samples.usable, np.where(begins, 0, 1), -1)
        return {"input_ids": samples.ids, UNIT: labels.astype(np.int32)}


class BaiduShard:
    """One file, while it is written."""

    def __init__(self, path: Path) -> None:
        self._path, self._digest = path, hashlib.sha256()
        self._raw = path.open("wb")
        # Neither name nor time: the same samples are the same bytes.
        self._file = gzip.GzipFile("", "wb", compresslevel=6, fileobj=self._raw, mtime=0)

    def add(self, features: FeatureSet) -> None:
        """Append samples."""
        text = "".join(map(line_of, map(features.sample, range(len(features))))).encode()
        self._digest.update(text)
        self._file.write(text)

    def close(self) -> str:
        """Complete the file and read it back; its name. Raises `UserError`."""
        self._file.close()
        self._raw.close()
        found = hashlib.sha256()
        for _, text in open_lines(self._path).with_ends():
            found.update(text.encode())
        if found.digest() != self._digest.digest():
            raise UserError(f"{self._path.name}: what was read back is not what was written; the disk may be full or "
                            "failing; run the command again")  # fmt: skip
        return self._path.name


def line_of(sample: dict[str, np.ndarray]) -> str:
    """The line of a sample: token_ids;sent_ids;pos_ids;seg_labels;label."""
    fields = (sample["input_ids"], sample["token_type_ids"], np.arange(len(sample["input_ids"])), sample[UNIT])
    follows = int(sample["next_sentence_label"] == 0)
    return ";".join([*(" ".join(map(str, field.tolist())) for field in fields), f"{follows}\n"])


class BaiduWriter:
    """Deals samples to so many files like cards, which as many `workers` write at most."""

    def __init__(self, folder: Path, shards: int, workers: int) -> None:
        names = [f"pretrain-{index:05d}-of-{shards:05d}.gz" for index in range(shards)]
        self._folder = folder
        self._shards = Crew([partial(BaiduShard, folder / name) for name in names], workers)
        self.count = 0

    def __enter__(self) -> "BaiduWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._shards.dismiss()

    def add(self, features: FeatureSet) -> None:
        """Append samples."""
        for shard, mine in dealt(features, len(self._shards), self.count):
            self._shards.tell(shard, "add", mine)
        self.count += len(features)

    def close(self, target: Path, word_share: float) -> None:
        """Complete the files and write their list: their places in the folder `target`, and `word_share` as the
        probability that a reader masks whole units."""
        if self.count < len(self._shards):
            raise UserError(f"{self.count} samples cannot fill {len(self._shards)} shards; lower --shards")
        names = self._shards.ask_all("close")
        write_text(self._folder / FILE_LIST, "".join(f"{target / name}\t{word_share}\n" for name in names))
