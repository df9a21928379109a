#include "labels.h"

#include <algorithm>
#include <cstdint>
#include <numeric>

#include "failure.h"

namespace infer {
namespace {

// Values of one token, or of one sample, of an output.
std::size_t Width(const Manifest &manifest, const GraphOutput &output) {
  return ElementCount(output.shape, output.per_token || manifest.packing ? 2 : 1);
}

}  // namespace

std::optional<std::size_t> LabelOutput(const Manifest &manifest) {
  for (std::size_t k = 0; k < manifest.outputs.size() && !manifest.labels.empty(); ++k) {
    const std::size_t wanted = manifest.outputs[k].dtype == DType::kInt32 ? 1 : manifest.labels.size();
    if (Width(manifest, manifest.outputs[k]) == wanted) {
      return k;
    }
  }
  return std::nullopt;
}

LabelBook::LabelBook(const Manifest &manifest, std::size_t output, std::size_t samples)
    : manifest_(manifest), output_(manifest.outputs[output]), lines_(samples), counts_(manifest.labels.size()) {}

void LabelBook::Add(std::size_t index, std::size_t length, const Values &values) {
  const std::size_t width = Width(manifest_, output_);
  std::string line;
  for (std::size_t at = 0; at < (output_.per_token ? length : 1); ++at) {
    std::int64_t label = 0;
    if (const auto *scores = std::get_if<std::vector<float>>(&values)) {
      const auto begin = scores->begin() + static_cast<std::ptrdiff_t>(at * width);
      label = std::max_element(begin, begin + static_cast<std::ptrdiff_t>(width)) - begin;
    } else {
      label = std::get<std::vector<std::int32_t>>(values)[at];
    }
    if (label < 0 || label >= static_cast<std::int64_t>(counts_.size())) {
      throw Failure(ExitCode::kPredict, output_.name + " gave the label id " + std::to_string(label) +
                                          ", the manifest has " + std::to_string(counts_.size()) + " labels");
    }
    ++counts_[static_cast<std::size_t>(label)];
    line += (at > 0 ? " " : "") + manifest_.labels[static_cast<std::size_t>(label)];
  }
  lines_[index] = line;
}

std::string LabelBook::Text() const {
  return std::accumulate(lines_.begin(), lines_.end(), std::string(),
                         [](std::string text, const std::string &line) { return std::move(text) + line + "\n"; });
}

std::string LabelBook::Summary() const {
  std::string text;
  for (std::size_t label = 0; label < counts_.size(); ++label) {
    if (counts_[label] > 0) {
      text += (text.empty() ? "" : ", ") + manifest_.labels[label] + " " + std::to_string(counts_[label]);
    }
  }
  return text;
}

}  // namespace infer
