// How an error reaches the user: one message that names the file and the reason, and one exit code per kind.
#ifndef ASCEND310_INFER_INC_FAILURE_H_
#define ASCEND310_INFER_INC_FAILURE_H_

#include <stdexcept>
#include <string>

namespace infer {

// The table in README.md and in --help is this one. 1 is also what a crash of the program's own logic ends in.
enum class ExitCode : int {
  kSuccess = 0,
  kInternal = 1,
  kUsage = 2,
  kManifest = 3,
  kModel = 4,
  kInput = 5,
  kDevice = 6,
  kOutput = 7,
  kPredict = 8,
};

// Thrown for everything a user can put right; caught once, in main.
class Failure : public std::runtime_error {
 public:
  Failure(ExitCode code, const std::string &message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

}  // namespace infer

#endif  // ASCEND310_INFER_INC_FAILURE_H_
