// Results that appear all at once: an earlier run's stay untouched until a whole new set replaces them.
#ifndef ASCEND310_INFER_INC_OUTPUT_FOLDER_H_
#define ASCEND310_INFER_INC_OUTPUT_FOLDER_H_

#include <cstddef>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "values.h"

namespace infer {

// Everything is written below <root>/.partial_result and moved to <root>/result_Files and <root>/time_Result by
// Publish(). A lock on the root keeps a second run out; what a killed run left is removed by the next.
class OutputFolder {
 public:
  explicit OutputFolder(const std::filesystem::path &root);
  ~OutputFolder();
  OutputFolder(const OutputFolder &) = delete;
  OutputFolder &operator=(const OutputFolder &) = delete;

  void WriteResult(const std::string &name, std::string_view bytes) const;
  void WriteTiming(const std::string &name, std::string_view text) const;
  void Publish();

 private:
  std::filesystem::path root_;
  std::filesystem::path staging_;
  int lock_ = -1;
};

// Collects the values of the samples of one input file, which may be computed in several batches, and writes
// <input name>_<output>.bin (little-endian, of the output's type) as soon as it is complete.
class ResultWriter {
 public:
  ResultWriter(const OutputFolder &folder, std::size_t samples_per_file) : folder_(folder), count_(samples_per_file) {}
  void Add(const std::string &base_name, std::size_t position, std::size_t output, const Values &values);

 private:
  struct Pending {
    std::string bytes;
    std::size_t missing = 0;
  };
  const OutputFolder &folder_;
  std::size_t count_;
  std::map<std::string, Pending> pending_;
};

}  // namespace infer

#endif  // ASCEND310_INFER_INC_OUTPUT_FOLDER_H_
