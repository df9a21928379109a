// manifest.json (version 1): what an exported model eats, what it gives, and which file it is.
#ifndef ASCEND310_INFER_INC_MANIFEST_H_
#define ASCEND310_INFER_INC_MANIFEST_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "values.h"

namespace infer {

constexpr std::string_view kMaskName = "attention_mask";
constexpr std::string_view kSequenceIds = "sequence_ids";
constexpr std::string_view kPositionIds = "position_ids";

// One int32 array per sample in the input folder: shape [T, ...], axis 0 = tokens.
struct SampleInput {
  std::string name;
  std::string folder;
  std::vector<std::int64_t> shape;
  std::optional<std::pair<std::int64_t, std::int64_t>> range;  // lowest and highest value allowed

  std::size_t values_per_token() const;
};

// Where the values of a graph input come from.
enum class Source { kSample, kSequenceIds, kPositionIds, kAttentionMask };

// One int32 input [R, T, ...] of the graph.
struct GraphInput {
  std::string name;
  std::vector<std::int64_t> shape;
  Source source = Source::kSample;
  std::size_t sample_input = 0;  // index into Manifest::sample_inputs when source is kSample
};

// One output of the graph: [R, T, ...] per token; per sample [R, S, ...], or [R, ...] where nothing is packed.
struct GraphOutput {
  std::string name;
  std::vector<std::int64_t> shape;
  bool per_token = true;
  DType dtype = DType::kFloat32;
};

struct Packing {
  std::int64_t row_length = 0;
  std::int64_t max_samples_per_row = 0;
};

struct Manifest {
  std::string model;
  std::string task;
  std::string artefact_file;
  std::string artefact_format;
  std::string artefact_sha256;
  std::int64_t ir_version = 0;
  std::optional<Packing> packing;
  std::vector<SampleInput> sample_inputs;
  std::vector<GraphInput> inputs;
  std::vector<GraphOutput> outputs;
  std::vector<std::string> labels;  // names of the classes in the order of their ids; empty where there are none
  std::optional<std::size_t> mask;  // index of the sample input attention_mask

  std::int64_t rows() const { return inputs.front().shape[0]; }
  std::int64_t row_length() const { return inputs.front().shape[1]; }
  std::int64_t sample_length() const { return sample_inputs.front().shape[0]; }
};

// Product of the dimensions from `first` on.
std::size_t ElementCount(const std::vector<std::int64_t> &shape, std::size_t first = 0);

// "[8, 384]"
std::string ShapeText(const std::vector<std::int64_t> &shape);

// Parse and check, as models/common/export/manifest.py does; throws Failure(kManifest) whose message begins with `origin` and lists every problem found.
Manifest ParseManifest(std::string_view text, const std::string &origin);

}  // namespace infer

#endif  // ASCEND310_INFER_INC_MANIFEST_H_
