#include "statistics.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <sstream>

#include "json.h"

namespace infer {
namespace {

double Sum(const std::vector<double> &values) { return std::accumulate(values.begin(), values.end(), 0.0); }

double Rate(std::size_t count, double seconds) { return seconds > 0.0 ? static_cast<double>(count) / seconds : 0.0; }

}  // namespace

double Percentile(std::vector<double> values, double percent) {
  std::sort(values.begin(), values.end());
  const double rank = percent / 100.0 * static_cast<double>(values.size() - 1);
  const auto below = static_cast<std::size_t>(std::floor(rank));
  const std::size_t above = std::min(below + 1, values.size() - 1);
  return values[below] + (rank - static_cast<double>(below)) * (values[above] - values[below]);
}

std::string TimingJson(const RunTimes &times) {
  const double predict_seconds = Sum(times.batch_ms) / 1000.0;
  const auto &ms = times.batch_ms;
  std::ostringstream out;
  out.precision(9);
  out << "{\n"
      << "  \"model\": " << json::Quote(times.model) << ",\n"
      << "  \"device\": " << json::Quote(times.device) << ",\n"
      << "  \"threads\": " << times.threads << ",\n"
      << "  \"warmup_batches\": " << times.warmup << ",\n"
      << "  \"batches\": " << ms.size() << ",\n"
      << "  \"samples\": " << times.samples << ",\n"
      << "  \"tokens\": " << times.tokens << ",\n"
      << "  \"fill_rate\": " << Rate(times.tokens, static_cast<double>(times.positions)) << ",\n"
      << "  \"batch_ms\": {\"mean\": " << Sum(ms) / static_cast<double>(ms.size())
      << ", \"p50\": " << Percentile(ms, 50) << ", \"p90\": " << Percentile(ms, 90)
      << ", \"p99\": " << Percentile(ms, 99) << ", \"min\": " << Percentile(ms, 0)
      << ", \"max\": " << Percentile(ms, 100) << "},\n"
      << "  \"build_seconds\": " << times.build_seconds << ",\n"
      << "  \"predict_seconds\": " << predict_seconds << ",\n"
      << "  \"total_seconds\": " << times.total_seconds << ",\n"
      << "  \"predict_samples_per_second\": " << Rate(times.samples, predict_seconds) << ",\n"
      << "  \"predict_tokens_per_second\": " << Rate(times.tokens, predict_seconds) << ",\n"
      << "  \"samples_per_second\": " << Rate(times.samples, times.total_seconds) << ",\n"
      << "  \"tokens_per_second\": " << Rate(times.tokens, times.total_seconds) << "\n"
      << "}\n";
  return out.str();
}

std::string PerformLine(const RunTimes &times) {
  std::ostringstream out;
  out << "NN inference cost average time: " << Sum(times.batch_ms) / static_cast<double>(times.batch_ms.size())
      << " ms of infer_count " << times.batch_ms.size() << "\n";
  return out.str();
}

}  // namespace infer
