#include "fixtures.h"

#include <stdlib.h>

#include <stdexcept>
#include <system_error>

namespace fixtures {
namespace {

const char *const kHead = R"({
  "manifest_version": 1,
  "model": {"name": "bert", "config": {"vocab_size": 100, "hidden_size": 8, "layer_norm_eps": 1e-12}},
  "task": {"name": "span", "max_seq_length": 6, "doc_stride": 2, "note": "caf\u00e9"},
  "artefact": {"file": "model.mindir", "format": "mindir_lite", "ir_version": 1,
               "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
               "producer": "mindspore 2.10.0"},
  "precision": "float32",
  "sample_inputs": [
    {"name": "input_ids", "folder": "00_data", "dtype": "int32", "shape": [6], "range": [0, 99]},
    {"name": "attention_mask", "folder": "01_data", "dtype": "int32", "shape": [6], "range": [0, 1]},
    {"name": "concept_ids", "folder": "02_data", "dtype": "int32", "shape": [6, 2], "range": null}
  ],
)";

const char *const kPackedTail = R"(
  "packing": {"row_length": 8, "max_samples_per_row": 3},
  "inputs": [
    {"name": "ids", "dtype": "int32", "shape": [2, 8], "source": "input_ids"},
    {"name": "sequence_ids", "dtype": "int32", "shape": [2, 8], "source": "sequence_ids"},
    {"name": "concepts", "dtype": "int32", "shape": [2, 8, 2], "source": "concept_ids"},
    {"name": "position_ids", "dtype": "int32", "shape": [2, 8], "source": "position_ids"}
  ],
  "outputs": [
    {"name": "start_logits", "dtype": "float32", "shape": [2, 8], "per": "token"},
    {"name": "class_logits", "dtype": "float32", "shape": [2, 3, 2], "per": "sample"}
  ],
)";

const char *const kPlainTail = R"(
  "packing": null,
  "inputs": [
    {"name": "ids", "dtype": "int32", "shape": [2, 6], "source": "input_ids"},
    {"name": "mask", "dtype": "int32", "shape": [2, 6], "source": "attention_mask"}
  ],
  "outputs": [
    {"name": "start_logits", "dtype": "float32", "shape": [2, 6], "per": "token"},
    {"name": "class_logits", "dtype": "float32", "shape": [2, 2], "per": "sample"}
  ],
)";

const char *const kEnd = R"(
  "labels": ["no", "yes"],
  "tokenizer": {"file": "vocab.txt", "lower_case": true,
                "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
  "source_weights": {"file": "model.safetensors",
                     "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
  "parity": {"reference": "mindspore 2.10.0 CPU", "tolerance": 1e-4, "batches": ["padded"],
             "max_abs_difference": {"start_logits": 3e-6, "class_logits": 0}},
  "quantization": null
})";

}  // namespace

std::string PackedManifest() { return std::string(kHead) + kPackedTail + kEnd; }

std::string PlainManifest() { return std::string(kHead) + kPlainTail + kEnd; }

std::string Edited(const std::string &from, const std::string &to) {
  std::string text = PackedManifest();
  const std::size_t at = text.find(from);
  if (at == std::string::npos) {
    throw std::logic_error("the fixture does not contain " + from);
  }
  return text.replace(at, from.size(), to);
}

std::string Npy(const std::string &header, const std::string &data) {
  const std::size_t size = header.size();
  std::string bytes = std::string("\x93NUMPY\x01", 7) + '\0';
  bytes.push_back(static_cast<char>(size & 0xFF));
  bytes.push_back(static_cast<char>(size >> 8));
  return bytes + header + data;
}

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "infer_test_XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr) {
    throw std::runtime_error("no temporary folder");
  }
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace fixtures
