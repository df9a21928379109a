// The command line.
#ifndef ASCEND310_INFER_INC_FLAGS_H_
#define ASCEND310_INFER_INC_FLAGS_H_

#include <filesystem>
#include <string>
#include <vector>

namespace infer {

struct Flags {
  std::filesystem::path manifest;  // the file
  std::filesystem::path model;     // empty: the manifest's artefact beside it
  std::filesystem::path input_dir;
  std::filesystem::path output_dir = ".";
  std::string device_type = "CPU";
  int device_id = 0;
  int threads = 0;  // 0: the cores this process may use
  int warmup = 2;
  bool help = false;
};

// --name=value and --name value; throws Failure(kUsage) for anything else.
Flags ParseFlags(const std::vector<std::string> &arguments);

std::string HelpText();

}  // namespace infer

#endif  // ASCEND310_INFER_INC_FLAGS_H_
