// The only door to MindSpore Lite: nothing else includes its headers.
#ifndef ASCEND310_INFER_INC_SESSION_H_
#define ASCEND310_INFER_INC_SESSION_H_

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "manifest.h"
#include "values.h"

namespace infer {

struct SessionOptions {
  std::string device_type = "CPU";  // or "Ascend"
  int device_id = 0;
  int threads = 1;
};

// A loaded model whose inputs and outputs are those of the manifest.
class Session {
 public:
  // Throws Failure(kModel) or Failure(kDevice).
  Session(const std::filesystem::path &model, const Manifest &manifest, const SessionOptions &options);
  ~Session();

  // `inputs` in the manifest's order, each of its shape; returns the outputs in the manifest's order. Throws
  // Failure(kPredict).
  std::vector<Values> Run(const std::vector<std::vector<std::int32_t>> &inputs);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace infer

#endif  // ASCEND310_INFER_INC_SESSION_H_
