"""The taggers that transformers does not have, in torch: BERT, perhaps a BiLSTM, a dense layer, perhaps a CRF.

Written the plain way, a loop over the tokens and one sample after the other, so that it is an independent reference of
ours. Shapes: B samples, T tokens, H hidden, L tags.
"""

import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from transformers import BertModel


class Crf(nn.Module):
    """Linear-chain conditional random field (Lafferty et al. 2001) with start and end scores."""

    def __init__(self, tags: int, deviation: float) -> None:
        super().__init__()
        self.transitions = nn.Parameter(torch.randn(tags, tags) * deviation)  # [from, to]
        self.start, self.end = nn.Parameter(torch.zeros(tags)), nn.Parameter(torch.zeros(tags))

    def negative_log_likelihood(self, emissions: torch.Tensor, tags: torch.Tensor) -> torch.Tensor:
        """[T, L], int64 [T] -> scalar, for one sample."""
        score = self.start[tags[0]] + emissions[0, tags[0]] + self.end[tags[-1]]
        score = score + self.transitions[tags[:-1], tags[1:]].sum()
        score = score + emissions[torch.arange(1, len(tags)), tags[1:]].sum()
        alpha = self.start + emissions[0]
        for emission in emissions[1:]:
            alpha = torch.logsumexp(alpha[:, None] + self.transitions, dim=0) + emission
        return torch.logsumexp(alpha + self.end, dim=0) - score

    def best_path(self, emissions: torch.Tensor) -> list[int]:
        """[T, L] -> T tags, of one sample (Viterbi 1967)."""
        score, back = self.start + emissions[0], []
        for emission in emissions[1:]:
            values, origins = (score[:, None] + self.transitions).max(dim=0)
            score = values + emission
            back.append(origins)
        path = [int((score + self.end).argmax())]
        for origins in reversed(back):
            path.append(int(origins[path[-1]]))
        return path[::-1]


class BertTagger(nn.Module):
    """`forward(batch with labels)` -> mean loss; `tag(batch)` -> tags of each sample's tokens."""

    def __init__(self, folder: str, tags: int, use_crf: bool, with_lstm: bool) -> None:
        super().__init__()
        self.bert = BertModel.from_pretrained(folder, add_pooling_layer=False, dtype=torch.float32)
        config = self.bert.config
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        width = config.hidden_size
        self.lstm = nn.LSTM(width, width // 2, batch_first=True, bidirectional=True) if with_lstm else None
        self.classifier = nn.Linear(width, tags)
        nn.init.trunc_normal_(self.classifier.weight, std=config.initializer_range)
        nn.init.zeros_(self.classifier.bias)
        self.crf = Crf(tags, config.initializer_range) if use_crf else None

    def emissions(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        """Inputs [B, T] -> [B, T, L]."""
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
        hidden = self.dropout(self.bert(**inputs).last_hidden_state)
        if self.lstm is not None:
            lengths = batch["attention_mask"].sum(dim=1)
            packed = pack_padded_sequence(hidden, lengths, batch_first=True, enforce_sorted=False)
            hidden = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=hidden.shape[1])[0]
        return self.classifier(hidden)

    def forward(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
        """Loss summed over what it is a mean of, and how many that are: tokens, or with a CRF samples."""
        emissions, labels, lengths = self.emissions(batch), batch["labels"], batch["attention_mask"].sum(dim=1)
        if self.crf is None:
            loss = nn.functional.cross_entropy(emissions.flatten(0, 1), labels.flatten(), reduction="sum")
            return loss, int(lengths.sum())
        losses = [
            self.crf.negative_log_likelihood(emission[:length], tags[:length])
            for emission, tags, length in zip(emissions, labels, lengths.tolist(), strict=True)
        ]
        return torch.stack(losses).sum(), len(losses)

    def tag(self, batch: dict[str, torch.Tensor]) -> list[list[int]]:
        """The tags of each sample's real tokens."""
        emissions, lengths = self.emissions(batch), batch["attention_mask"].sum(dim=1).tolist()
        if self.crf is None:
            return [row[:length].argmax(dim=-1).tolist() for row, length in zip(emissions, lengths, strict=True)]
        return [self.crf.best_path(row[:length]) for row, length in zip(emissions, lengths, strict=True)]
