#include "check.h"
#include "fixtures.h"
#include "manifest.h"

namespace {

using fixtures::Edited;
using infer::ParseManifest;

TEST(manifest, packed_is_read) {
  const auto manifest = ParseManifest(fixtures::PackedManifest(), "m");
  CHECK_EQUAL(manifest.model, "bert");
  CHECK_EQUAL(manifest.task, "span");
  CHECK_EQUAL(manifest.artefact_file, "model.mindir");
  CHECK_EQUAL(manifest.rows(), 2);
  CHECK_EQUAL(manifest.row_length(), 8);
  CHECK_EQUAL(manifest.sample_length(), 6);
  CHECK(manifest.packing && manifest.packing->max_samples_per_row == 3);
  CHECK(manifest.mask && *manifest.mask == 1);
  CHECK(manifest.sample_inputs[0].range && manifest.sample_inputs[0].range->second == 99);
  CHECK(!manifest.sample_inputs[2].range);
  CHECK_EQUAL(manifest.sample_inputs[2].values_per_token(), 2u);
  CHECK(manifest.inputs[0].source == infer::Source::kSample && manifest.inputs[0].sample_input == 0);
  CHECK(manifest.inputs[1].source == infer::Source::kSequenceIds);
  CHECK_EQUAL(manifest.inputs[2].sample_input, 2u);
  CHECK(manifest.inputs[3].source == infer::Source::kPositionIds);
  CHECK(manifest.outputs[0].per_token && !manifest.outputs[1].per_token);
}

TEST(manifest, plain_is_read) {
  const auto manifest = ParseManifest(fixtures::PlainManifest(), "m");
  CHECK(!manifest.packing);
  CHECK(manifest.inputs[1].source == infer::Source::kSample && manifest.inputs[1].sample_input == 1);
}

struct Edit {
  const char *from;
  const char *to;
  const char *message;
};

void CheckRefused(const std::vector<Edit> &edits) {
  for (const Edit &edit : edits) {
    CHECK_FAILS(kManifest, edit.message, ParseManifest(Edited(edit.from, edit.to), "m"));
  }
}

TEST(manifest, damaged_files_are_refused) {
  CheckRefused({
    {"\"manifest_version\": 1", "\"manifest_version\": 2", "m: manifest_version is not 1"},
    {"\"manifest_version\": 1", "\"manifest_version\": \"1\"", "manifest_version is not 1"},
    {"\"manifest_version\": 1,", "", "manifest_version: is missing"},
    {"\"packing\"", "\"pakking\"", "unknown key \"pakking\""},
    {"\"packing\"", "\"pakking\"", "packing: is missing"},
    {"\"name\": \"bert\"", "\"name\": 5", "model.name: expected string, got integer"},
    {"\"config\": {", "\"config\": 1, \"other\": {", "model: unknown key \"other\""},
    {"\"max_seq_length\": 6", "\"max_seq_length\": 0", "task.max_seq_length: must be a positive integer"},
    {"\"doc_stride\": 2", "\"doc_stride\": [2]", "task.doc_stride: must be a scalar"},
    {"\"file\": \"model.mindir\"", "\"file\": \"../model.mindir\"", "is not a plain file name"},
    {"\"file\": \"model.mindir\"", "\"file\": \"..\"", "is not a plain file name"},
    {"\"mindir_lite\"", "\"onnx\"", "onnx is not for this program"},
    {"\"mindir_lite\"", "\"air\"", "air is not for this program"},
    {"\"mindir_lite\"", "\"tflite\"", "is not one of mindir, mindir_lite, air, onnx"},
    {"\"ba7816", "\"BA7816", "64 lower-case hexadecimal digits"},
    {"\"lower_case\": true", "\"lower_case\": \"yes\"", "tokenizer.lower_case: expected boolean"},
    {"[\"no\", \"yes\"]", "[\"no\", 1]", "labels: every item must be a string"},
    {"\"start_logits\": 3e-6", "\"start_logits\": 3e-3", "is not within the tolerance"},
    {"\"start_logits\": 3e-6", "\"other\": 0", "max_abs_difference.start_logits: is missing"},
    {"{", "", "m, line 2, column 21: unexpected text"},
  });
}

TEST(manifest, contradictions_are_refused) {
  CheckRefused({
    {"\"shape\": [2, 8], \"source\": \"input_ids\"", "\"shape\": [-1, 8], \"source\": \"input_ids\"", "dynamic shapes"},
    {"\"shape\": [2, 8], \"source\": \"input_ids\"", "\"shape\": [null, 8], \"source\": \"input_ids\"", "dynamic shapes"},
    {"\"shape\": [2, 8], \"source\": \"input_ids\"", "\"shape\": [3, 8], \"source\": \"input_ids\"", "should be [3, 8]"},
    {"\"shape\": [2, 8], \"source\": \"input_ids\"", "\"shape\": [2], \"source\": \"input_ids\"", "[rows, tokens, ...]"},
    {"\"shape\": [2, 8, 2]", "\"shape\": [2, 8, 3]", "[2, 8, 3] should be [2, 8, 2]"},
    {"\"shape\": [2, 8, 2]", "\"shape\": [1048576, 1048576, 2]", "is too large"},
    {"\"row_length\": 8", "\"row_length\": 9", "rows of 8 tokens, expected 9"},
    {"\"row_length\": 8", "\"row_length\": 5", "packing.row_length: is shorter than a sample"},
    {"\"max_samples_per_row\": 3", "\"max_samples_per_row\": 4", "class_logits.shape: [2, 3, 2] must begin with [2, 4]"},
    {"\"source\": \"sequence_ids\"", "\"source\": \"position_ids\"", "packing needs an input whose source is sequence_ids"},
    {"\"source\": \"sequence_ids\"", "\"source\": \"labels\"", "is no sample input and cannot be computed"},
    {"\"name\": \"attention_mask\"", "\"name\": \"masque\"", "attention_mask, which is missing"},
    {"\"folder\": \"01_data\"", "\"folder\": \"00_data\"", "name or folder is used twice"},
    {"\"folder\": \"01_data\"", "\"folder\": \"../data\"", "is not of the form 00_data"},
    {"\"name\": \"sequence_ids\"", "\"name\": \"ids\"", "name \"ids\" is used twice"},
    {"\"dtype\": \"int32\"", "\"dtype\": \"float32\"", "is not one of int32"},
    {"\"dtype\": \"float32\"", "\"dtype\": \"float16\"", "is not one of float32"},
    {"\"shape\": [6], \"range\": [0, 99]", "\"shape\": [7], \"range\": [0, 99]", "the same number of tokens"},
    {"\"shape\": [6], \"range\": [0, 99]", "\"shape\": [], \"range\": [0, 99]", "the same number of tokens"},
    {"\"range\": [0, 99]", "\"range\": [99, 0]", "expected [lowest, highest]"},
    {"\"range\": [0, 99]", "\"range\": [0, 4294967296]", "expected [lowest, highest]"},
    {"\"per\": \"token\"", "\"per\": \"row\"", "is not one of token, sample"},
  });
}

TEST(manifest, all_problems_come_at_once) {
  std::string text = Edited("\"name\": \"bert\"", "\"name\": 5");
  text.replace(text.find("\"precision\": \"float32\","), 23, "");
  text.replace(text.find("[0, 99]"), 7, "[0]");
  for (const char *part : {"model.name", "precision: is missing", "sample_inputs[0].range"}) {
    CHECK_FAILS(kManifest, part, ParseManifest(text, "m"));
  }
}

TEST(manifest, lists_must_not_be_empty) {
  std::string text = fixtures::PackedManifest();
  const std::size_t begin = text.find("\"outputs\": [") + 12;
  text.erase(begin, text.find("\n  ],", begin) - begin);
  CHECK_FAILS(kManifest, "outputs: must not be empty", ParseManifest(text, "m"));
}

}  // namespace
