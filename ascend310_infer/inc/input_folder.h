// The folder preprocess writes: 00_data/<task>_bs<bs>_<idx>.bin (or .npy), 01_data/..., one file per sample input.
#ifndef ASCEND310_INFER_INC_INPUT_FOLDER_H_
#define ASCEND310_INFER_INC_INPUT_FOLDER_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "manifest.h"

namespace infer {

// One sample; `values` in the order of Manifest::sample_inputs, each cut to `length` tokens (the mask's ones).
struct Sample {
  std::size_t file = 0;      // index of the input file it came from
  std::size_t position = 0;  // its place inside that file
  std::size_t length = 0;    // real tokens
  std::vector<std::vector<std::int32_t>> values;
};

// What the names of one NN_data folder have in common.
struct FileNames {
  std::string stem;       // "squad_bs1_"
  std::string extension;  // ".bin" or ".npy"
  std::int64_t batch = 1;
  std::size_t count = 0;
};

// All names of a folder must be <task>_bs<bs>_<idx>.bin or .npy, idx 0, 1, 2, ... without a gap. Throws
// Failure(kInput); `origin` names the folder.
FileNames CheckNames(const std::vector<std::string> &names, const std::string &origin);

// Split the values of one file (one vector per sample input) into samples; checks ranges and the mask.
std::vector<Sample> SplitSamples(const Manifest &manifest, std::size_t file, std::int64_t batch,
                                 const std::vector<std::vector<std::int32_t>> &values,
                                 const std::vector<std::string> &origins);

class InputFolder {
 public:
  // Examines names, counts and byte sizes of all files; reads none.
  InputFolder(const std::filesystem::path &root, const Manifest &manifest);

  std::size_t file_count() const { return folders_.front().names.count; }
  std::size_t samples_per_file() const { return static_cast<std::size_t>(folders_.front().names.batch); }
  // "squad_bs1_7" for file 7
  std::string BaseName(std::size_t file) const { return folders_.front().names.stem + std::to_string(file); }
  std::vector<Sample> Read(std::size_t file) const;

 private:
  struct Folder {
    std::filesystem::path path;
    FileNames names;
  };
  std::filesystem::path PathOf(const Folder &folder, std::size_t file) const;

  const Manifest &manifest_;
  std::vector<Folder> folders_;
};

}  // namespace infer

#endif  // ASCEND310_INFER_INC_INPUT_FOLDER_H_
