// What the timing file says about a run.
#ifndef ASCEND310_INFER_INC_STATISTICS_H_
#define ASCEND310_INFER_INC_STATISTICS_H_

#include <cstddef>
#include <string>
#include <vector>

namespace infer {

// Linear interpolation between the closest ranks, as numpy.percentile does; `percent` in [0, 100], `values` not empty.
double Percentile(std::vector<double> values, double percent);

struct RunTimes {
  std::vector<double> batch_ms;  // one Predict each, warm-up not among them
  double build_seconds = 0.0;    // loading the model
  double total_seconds = 0.0;    // from the first sample read to the last result written, without warm-up
  std::size_t samples = 0;
  std::size_t tokens = 0;     // real ones
  std::size_t positions = 0;  // computed ones: tokens and padding
  int warmup = 0;
  int threads = 0;
  std::string device;
  std::string model;
};

// timing.json
std::string TimingJson(const RunTimes &times);

// The line that the originals write to test_perform_static.txt.
std::string PerformLine(const RunTimes &times);

}  // namespace infer

#endif  // ASCEND310_INFER_INC_STATISTICS_H_
