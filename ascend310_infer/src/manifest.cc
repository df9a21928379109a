#include "manifest.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <set>

#include "failure.h"
#include "fields.h"
#include "json.h"

namespace infer {
namespace {

constexpr std::int64_t kVersion = 1;
constexpr std::int64_t kMaxInteger = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kMinInteger = std::numeric_limits<std::int32_t>::min();

// --- blocks that only have to be well-formed ---------------------------------------------------------------------

void ReadModel(const Fields &top, Manifest *manifest) {
  const json::Value *block = top.Of("model", json::Type::kObject);
  if (block != nullptr) {
    const Fields model(*block, "model", {"name", "config"}, top.problems());
    manifest->model = model.String("name");
    model.Of("config", json::Type::kObject);
  }
}

// The keys of a task belong to its decoder; here they only have to be scalars.
void ReadTask(const Fields &top, Manifest *manifest) {
  const json::Value *block = top.Of("task", json::Type::kObject);
  if (block == nullptr) {
    return;
  }
  bool named = false;
  bool sized = false;
  for (const auto &[key, value] : block->members) {
    if (value.Is(json::Type::kObject) || value.Is(json::Type::kArray)) {
      top.problems()->Add("task." + key, "must be a scalar");
    }
    if (key == "name" && value.Is(json::Type::kString)) {
      named = true;
      manifest->task = value.text;
    }
    sized = sized || (key == "max_seq_length" && value.Is(json::Type::kInteger) && value.integer > 0);
  }
  if (!named) {
    top.problems()->Add("task.name", "must be a string");
  }
  if (!sized) {
    top.problems()->Add("task.max_seq_length", "must be a positive integer");
  }
}

void ReadArtefact(const Fields &top, Manifest *manifest) {
  const json::Value *block = top.Of("artefact", json::Type::kObject);
  if (block == nullptr) {
    return;
  }
  const Fields artefact(*block, "artefact", {"file", "format", "ir_version", "sha256", "producer"}, top.problems());
  manifest->artefact_file = artefact.FileName("file");
  manifest->artefact_format = artefact.Choice("format", {"mindir", "mindir_lite", "air", "onnx"});
  manifest->artefact_sha256 = artefact.Hash("sha256");
  manifest->ir_version = artefact.Integer("ir_version", 1, kMaxInteger);
  artefact.String("producer");
  if (manifest->artefact_format == "onnx" || manifest->artefact_format == "air") {
    top.problems()->Add("artefact.format",
                        manifest->artefact_format + " is not for this program: export with --file_format mindir_lite");
  }
}

void CheckTexts(const Fields &fields, std::string_view key, const json::Value *list) {
  const auto is_text = [](const json::Value &item) { return item.Is(json::Type::kString); };
  if (list != nullptr && !std::all_of(list->items.begin(), list->items.end(), is_text)) {
    fields.problems()->Add(fields.Path(key), "every item must be a string");
  }
}

void ReadLabels(const Fields &top, Manifest *manifest) {
  const json::Value *list = top.OrNull("labels", json::Type::kArray);
  CheckTexts(top, "labels", list);
  if (list != nullptr) {
    for (const json::Value &item : list->items) {
      manifest->labels.push_back(item.text);
    }
  }
}

void ReadOrigins(const Fields &top) {
  if (const json::Value *block = top.OrNull("tokenizer", json::Type::kObject)) {
    const Fields tokenizer(*block, "tokenizer", {"file", "sha256", "lower_case"}, top.problems());
    tokenizer.FileName("file");
    tokenizer.Hash("sha256");
    tokenizer.Bool("lower_case");
  }
  if (const json::Value *block = top.Of("source_weights", json::Type::kObject)) {
    const Fields weights(*block, "source_weights", {"file", "sha256"}, top.problems());
    weights.FileName("file");
    weights.Hash("sha256");
  }
}

void ReadParity(const Fields &top, const Manifest &manifest) {
  const json::Value *block = top.OrNull("parity", json::Type::kObject);
  if (block == nullptr) {
    return;
  }
  const Fields parity(*block, "parity", {"reference", "tolerance", "max_abs_difference", "batches"}, top.problems());
  parity.String("reference");
  CheckTexts(parity, "batches", parity.Of("batches", json::Type::kArray));
  const double tolerance = parity.Number("tolerance");
  const json::Value *measured = parity.Of("max_abs_difference", json::Type::kObject);
  if (measured == nullptr) {
    return;
  }
  for (const auto &[name, value] : measured->members) {
    if (!value.IsNumber() || !(value.real <= tolerance)) {
      top.problems()->Add("parity.max_abs_difference." + name, "is not within the tolerance");
    }
    const auto is_it = [&name = name](const GraphOutput &output) { return output.name == name; };
    if (std::none_of(manifest.outputs.begin(), manifest.outputs.end(), is_it)) {
      top.problems()->Add("parity.max_abs_difference." + name, "is no output");
    }
  }
  for (const GraphOutput &output : manifest.outputs) {
    if (measured->Find(output.name) == nullptr) {
      top.problems()->Add("parity.max_abs_difference." + output.name, "is missing");
    }
  }
}

// --- what the program feeds and reads ----------------------------------------------------------------------------

void ReadPacking(const Fields &top, Manifest *manifest) {
  if (const json::Value *block = top.OrNull("packing", json::Type::kObject)) {
    const Fields fields(*block, "packing", {"row_length", "max_samples_per_row"}, top.problems());
    Packing packing;
    packing.row_length = fields.Integer("row_length", 1, 1 << 20);
    packing.max_samples_per_row = fields.Integer("max_samples_per_row", 1, 1 << 12);
    manifest->packing = packing;
  }
}

void ReadRange(const Fields &fields, SampleInput *input) {
  const json::Value *range = fields.OrNull("range", json::Type::kArray);
  if (range == nullptr) {
    return;
  }
  const auto usable = [](const json::Value &bound) {
    return bound.Is(json::Type::kInteger) && bound.integer >= kMinInteger && bound.integer <= kMaxInteger;
  };
  if (range->items.size() != 2 || !usable(range->items[0]) || !usable(range->items[1]) ||
      range->items[0].integer > range->items[1].integer) {
    fields.problems()->Add(fields.Path("range"), "expected [lowest, highest] of 32-bit integers");
    return;
  }
  input->range = {range->items[0].integer, range->items[1].integer};
}

bool IsDataFolder(const std::string &name) {
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  return name.size() == 7 && digit(name[0]) && digit(name[1]) && name.compare(2, 5, "_data") == 0;
}

void ReadSampleInputs(const Fields &top, Manifest *manifest) {
  std::set<std::string> names;
  std::set<std::string> folders;
  top.Each("sample_inputs", [&](const json::Value &value, const std::string &path) {
    const Fields fields(value, path, {"name", "folder", "dtype", "shape", "range"}, top.problems());
    SampleInput input;
    input.name = fields.String("name");
    input.folder = fields.String("folder");
    input.shape = fields.Shape("shape");
    fields.Choice("dtype", {"int32"});
    ReadRange(fields, &input);
    if (!names.insert(input.name).second || !folders.insert(input.folder).second) {
      top.problems()->Add(path, "name or folder is used twice");
    }
    if (!IsDataFolder(input.folder)) {
      top.problems()->Add(path + ".folder", json::Quote(input.folder) + " is not of the form 00_data");
    }
    if (input.name == kMaskName) {
      manifest->mask = manifest->sample_inputs.size();
      if (input.shape.size() > 1) {
        top.problems()->Add(path + ".shape", "the attention mask must have one value per token");
      }
    }
    manifest->sample_inputs.push_back(input);
  });
}

void ReadSource(const Fields &fields, Manifest *manifest, GraphInput *input) {
  const std::string source = fields.String("source");
  const auto &samples = manifest->sample_inputs;
  const auto found = std::find_if(samples.begin(), samples.end(),
                                  [&source](const SampleInput &sample) { return sample.name == source; });
  if (found != samples.end()) {
    input->sample_input = static_cast<std::size_t>(found - samples.begin());
  } else if (source == kSequenceIds) {
    input->source = Source::kSequenceIds;
  } else if (source == kPositionIds) {
    input->source = Source::kPositionIds;
  } else if (source == kMaskName) {
    input->source = Source::kAttentionMask;
  } else if (!source.empty()) {
    fields.problems()->Add(fields.Path("source"), json::Quote(source) + " is no sample input and cannot be computed");
  }
}

void ReadInputs(const Fields &top, Manifest *manifest) {
  std::set<std::string> names;
  top.Each("inputs", [&](const json::Value &value, const std::string &path) {
    const Fields fields(value, path, {"name", "dtype", "shape", "source"}, top.problems());
    GraphInput input;
    input.name = fields.String("name");
    input.shape = fields.Shape("shape");
    fields.Choice("dtype", {"int32"});
    ReadSource(fields, manifest, &input);
    if (!names.insert(input.name).second) {
      top.problems()->Add(path, "name " + json::Quote(input.name) + " is used twice");
    }
    manifest->inputs.push_back(input);
  });
}

void ReadOutputs(const Fields &top, Manifest *manifest) {
  std::set<std::string> names;
  top.Each("outputs", [&](const json::Value &value, const std::string &path) {
    const Fields fields(value, path, {"name", "dtype", "shape", "per"}, top.problems());
    GraphOutput output;
    output.name = fields.String("name");
    output.shape = fields.Shape("shape");
    output.per_token = fields.Choice("per", {"token", "sample"}) == "token";
    output.dtype = fields.Choice("dtype", {"float32", "int32"}) == "int32" ? DType::kInt32 : DType::kFloat32;
    if (!names.insert(output.name).second) {
      top.problems()->Add(path, "name " + json::Quote(output.name) + " is used twice");
    }
    manifest->outputs.push_back(output);
  });
}

// --- what must hold between the keys; all types are right by now ---------------------------------------------------

bool BeginsWith(const std::vector<std::int64_t> &shape, const std::vector<std::int64_t> &head) {
  return shape.size() >= head.size() && std::equal(head.begin(), head.end(), shape.begin());
}

void CheckSamples(const Manifest &manifest, Problems *problems) {
  for (const SampleInput &sample : manifest.sample_inputs) {
    if (sample.shape.empty() || sample.shape[0] != manifest.sample_inputs[0].shape[0]) {
      problems->Add("sample_inputs." + sample.name + ".shape", "all samples must have the same number of tokens");
      return;
    }
  }
  if (manifest.packing && !manifest.mask) {
    problems->Add("sample_inputs", "packing takes the length of a sample from attention_mask, which is missing");
  }
  if (manifest.packing && manifest.sample_length() > manifest.packing->row_length) {
    problems->Add("packing.row_length", "is shorter than a sample");
  }
}

void CheckGraph(const Manifest &manifest, Problems *problems) {
  if (manifest.inputs[0].shape.size() < 2) {
    problems->Add("inputs." + manifest.inputs[0].name + ".shape", "expected [rows, tokens, ...]");
    return;
  }
  const std::vector<std::int64_t> head = {manifest.rows(), manifest.row_length()};
  bool separated = false;
  for (const GraphInput &input : manifest.inputs) {
    const std::string where = "inputs." + input.name + ".shape";
    std::vector<std::int64_t> wanted = head;
    if (input.source == Source::kSample) {
      const auto &sample = manifest.sample_inputs[input.sample_input].shape;
      wanted.insert(wanted.end(), sample.begin() + 1, sample.end());
    }
    if (input.shape != wanted) {
      problems->Add(where, ShapeText(input.shape) + " should be " + ShapeText(wanted));
    }
    separated = separated || input.source == Source::kSequenceIds;
  }
  const std::int64_t tokens = manifest.packing ? manifest.packing->row_length : manifest.sample_length();
  if (manifest.row_length() != tokens) {
    problems->Add("inputs", "rows of " + std::to_string(manifest.row_length()) + " tokens, expected " +
                              std::to_string(tokens));
  }
  if (manifest.packing && !separated) {
    problems->Add("inputs", "packing needs an input whose source is sequence_ids");
  }
  for (const GraphOutput &output : manifest.outputs) {
    std::vector<std::int64_t> wanted = {manifest.rows()};
    if (output.per_token) {
      wanted = head;
    } else if (manifest.packing) {
      wanted.push_back(manifest.packing->max_samples_per_row);
    }
    if (!BeginsWith(output.shape, wanted)) {
      problems->Add("outputs." + output.name + ".shape", ShapeText(output.shape) + " must begin with " +
                                                           ShapeText(wanted));
    }
  }
}

// Another version has other keys: complaining about each of them would hide the reason.
void CheckVersion(const json::Value &document, const std::string &origin) {
  const json::Value *version = document.Find("manifest_version");
  if (version != nullptr && !(version->Is(json::Type::kInteger) && version->integer == kVersion)) {
    throw Failure(ExitCode::kManifest, origin + ": manifest_version is not 1, the only one this program reads");
  }
}

}  // namespace

std::size_t SampleInput::values_per_token() const { return ElementCount(shape, 1); }

std::size_t ElementCount(const std::vector<std::int64_t> &shape, std::size_t first) {
  std::size_t count = 1;
  for (std::size_t i = first; i < shape.size(); ++i) {
    count *= static_cast<std::size_t>(shape[i]);
  }
  return count;
}

std::string ShapeText(const std::vector<std::int64_t> &shape) {
  std::string text = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    text += (i == 0 ? "" : ", ") + std::to_string(shape[i]);
  }
  return text + "]";
}

Manifest ParseManifest(std::string_view text, const std::string &origin) {
  json::Value document;
  try {
    document = json::Parse(text);
  } catch (const json::ParseError &error) {
    throw Failure(ExitCode::kManifest, origin + ", " + error.what());
  }
  CheckVersion(document, origin);
  Problems problems;
  Manifest manifest;
  const Fields top(document, "",
                   {"manifest_version", "model", "task", "artefact", "precision", "packing", "sample_inputs", "inputs",
                    "outputs", "labels", "tokenizer", "source_weights", "parity", "quantization"},
                   &problems);
  top.Any("manifest_version");
  top.String("precision");
  if (top.OrNull("quantization", json::Type::kObject) != nullptr) {
    top.problems()->Add("quantization", "is of ONNX graphs alone");
  }
  ReadModel(top, &manifest);
  ReadTask(top, &manifest);
  ReadArtefact(top, &manifest);
  ReadLabels(top, &manifest);
  ReadOrigins(top);
  ReadPacking(top, &manifest);
  ReadSampleInputs(top, &manifest);
  ReadInputs(top, &manifest);
  ReadOutputs(top, &manifest);
  ReadParity(top, manifest);
  if (problems.empty()) {
    CheckSamples(manifest, &problems);
  }
  if (problems.empty()) {
    CheckGraph(manifest, &problems);
  }
  if (!problems.empty()) {
    throw Failure(ExitCode::kManifest, origin + ": " + problems.Joined());
  }
  return manifest;
}

}  // namespace infer
