#include "packing.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <numeric>
#include <type_traits>
#include <utility>

namespace infer {
namespace {

// Samples held at once where rows are packed. On SQuAD this many pack as well as all of dev at once (97 % full).
constexpr std::size_t kWindow = 2048;

std::size_t LengthOf(const Row &row) {
  return std::accumulate(row.begin(), row.end(), std::size_t{0},
                         [](std::size_t sum, const Sample &sample) { return sum + sample.length; });
}

void FillInput(const GraphInput &input, const Sample &sample, std::int32_t sequence_id, std::int32_t *begin) {
  const auto length = static_cast<std::ptrdiff_t>(sample.length);
  switch (input.source) {
    case Source::kSample:
      std::copy(sample.values[input.sample_input].begin(), sample.values[input.sample_input].end(), begin);
      break;
    case Source::kSequenceIds:
      std::fill(begin, begin + length, sequence_id);
      break;
    case Source::kPositionIds:
      std::iota(begin, begin + length, 0);
      break;
    case Source::kAttentionMask:
      std::fill(begin, begin + length, 1);
      break;
  }
}

// `size` values from `begin` on, and zeros up to `whole` of them.
Values Cut(const Values &output, std::size_t begin, std::size_t size, std::size_t whole) {
  return std::visit(
    [=](const auto &all) -> Values {
      const auto first = all.begin() + static_cast<std::ptrdiff_t>(begin);
      std::decay_t<decltype(all)> values(first, first + static_cast<std::ptrdiff_t>(size));
      values.resize(whole);
      return values;
    },
    output);
}

}  // namespace

std::vector<std::vector<std::size_t>> BestFit(const std::vector<std::size_t> &lengths, std::size_t row_length,
                                              std::size_t max_samples) {
  std::vector<std::size_t> order(lengths.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return lengths[a] > lengths[b]; });
  std::vector<std::vector<std::size_t>> rows;
  std::multimap<std::size_t, std::size_t> open;  // room left -> row
  for (const std::size_t sample : order) {
    const auto fit = open.lower_bound(lengths[sample]);
    std::size_t row = rows.size();
    std::size_t room = row_length;
    if (fit == open.end()) {
      rows.emplace_back();
    } else {
      room = fit->first;
      row = fit->second;
      open.erase(fit);
    }
    rows[row].push_back(sample);
    if (rows[row].size() < max_samples && room > lengths[sample]) {
      open.emplace(room - lengths[sample], row);
    }
  }
  return rows;
}

Batcher::Batcher(const Manifest &manifest, std::function<std::vector<Sample>()> read)
    : manifest_(manifest), read_(std::move(read)) {}

void Batcher::Fill(std::size_t wanted) {
  while (!exhausted_ && window_.size() < wanted) {
    std::vector<Sample> samples = read_();
    exhausted_ = samples.empty();
    std::move(samples.begin(), samples.end(), std::back_inserter(window_));
  }
}

std::vector<Row> Batcher::Next() {
  const auto batch = static_cast<std::size_t>(manifest_.rows());
  if (manifest_.packing) {
    if (ready_.size() < batch) {
      PackWindow();
    }
  } else {
    Fill(batch);
    const std::size_t taken = std::min(batch, window_.size());
    for (std::size_t i = 0; i < taken; ++i) {
      ready_.emplace_back().push_back(std::move(window_[i]));
    }
    window_.erase(window_.begin(), window_.begin() + static_cast<std::ptrdiff_t>(taken));
  }
  std::vector<Row> rows;
  for (; rows.size() < batch && !ready_.empty(); ready_.pop_front()) {
    rows.push_back(std::move(ready_.front()));
  }
  return rows;
}

// Whole batches of the fullest rows become ready; the samples of the other rows go back and wait for better company,
// until nothing more comes.
void Batcher::PackWindow() {
  const auto batch = static_cast<std::size_t>(manifest_.rows());
  const auto max_samples = static_cast<std::size_t>(manifest_.packing->max_samples_per_row);
  Fill(std::max(kWindow, batch * max_samples));  // enough for one whole batch, however short the samples are
  std::vector<std::size_t> lengths;
  std::transform(window_.begin(), window_.end(), std::back_inserter(lengths),
                 [](const Sample &sample) { return sample.length; });
  std::vector<Row> rows;
  for (const auto &indices : BestFit(lengths, static_cast<std::size_t>(manifest_.row_length()), max_samples)) {
    Row &row = rows.emplace_back();
    for (const std::size_t index : indices) {
      row.push_back(std::move(window_[index]));
    }
  }
  window_.clear();
  std::stable_sort(rows.begin(), rows.end(),
                   [](const Row &a, const Row &b) { return LengthOf(a) > LengthOf(b); });
  const std::size_t complete = exhausted_ ? rows.size() : rows.size() / batch * batch;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (i < complete) {
      ready_.push_back(std::move(rows[i]));
    } else {
      std::move(rows[i].begin(), rows[i].end(), std::back_inserter(window_));
    }
  }
}

std::vector<std::vector<std::int32_t>> FillInputs(const Manifest &manifest, const std::vector<Row> &rows) {
  std::vector<std::vector<std::int32_t>> inputs;
  for (const GraphInput &input : manifest.inputs) {
    const std::size_t width = ElementCount(input.shape, 2);
    std::vector<std::int32_t> &values = inputs.emplace_back(ElementCount(input.shape), 0);
    for (std::size_t row = 0; row < rows.size(); ++row) {
      std::size_t token = row * static_cast<std::size_t>(manifest.row_length());
      std::int32_t sequence_id = 0;
      for (const Sample &sample : rows[row]) {
        FillInput(input, sample, ++sequence_id, values.data() + token * width);
        token += sample.length;
      }
    }
  }
  return inputs;
}

void SplitOutputs(const Manifest &manifest, const std::vector<Row> &rows,
                  const std::vector<Values> &outputs,
                  const std::function<void(const Sample &, std::size_t, Values)> &take) {
  for (std::size_t k = 0; k < manifest.outputs.size(); ++k) {
    const GraphOutput &output = manifest.outputs[k];
    const std::size_t leading = output.per_token || manifest.packing ? 2 : 1;
    const std::size_t width = ElementCount(output.shape, leading);
    const std::size_t stride = ElementCount(output.shape, 1);
    for (std::size_t row = 0; row < rows.size(); ++row) {
      std::size_t at = row * stride;
      for (const Sample &sample : rows[row]) {
        const std::size_t size = output.per_token ? sample.length * width : width;
        const std::size_t whole = output.per_token ? static_cast<std::size_t>(manifest.sample_length()) * width : width;
        take(sample, k, Cut(outputs[k], at, size, whole));
        at += size;
      }
    }
  }
}

}  // namespace infer
