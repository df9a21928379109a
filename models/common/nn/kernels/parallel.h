// Splitting work over threads. The split depends on the sizes alone, never on the number of threads or on timing, so
// every kernel gives the same bits however many cores it gets.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <thread>
#include <vector>

namespace zoo {

inline int thread_count() {
  static const int count = [] {
    const char* wanted = std::getenv("OMP_NUM_THREADS");
    const int number = wanted ? std::atoi(wanted) : 0;
    return number > 0 ? number : std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
  }();
  return count;
}

// Calls work(i, scratch) once for every i < tasks, from several threads, in no particular order; every thread has
// its own `scratch` of that many floats, contents undefined.
// Threads are started anew each time: that takes some 20 us, and a pool whose threads wait by spinning would take the
// cores from MindSpore's own threads, which run the operators before and after.
template <typename Work>
void parallel_for(int64_t tasks, int64_t scratch_floats, const Work& work) {
  std::atomic<int64_t> next{0};
  const auto run = [&] {
    const std::unique_ptr<float[]> scratch(new float[scratch_floats]);
    for (int64_t i = next++; i < tasks; i = next++) work(i, scratch.get());
  };
  std::vector<std::thread> helpers;
  for (int64_t i = 1; i < std::min<int64_t>(thread_count(), tasks); ++i) helpers.emplace_back(run);
  run();
  for (auto& helper : helpers) helper.join();
}

// Calls work(begin, end) for consecutive pieces of [0, count).
template <typename Work>
void parallel_pieces(int64_t count, int64_t piece, const Work& work) {
  parallel_for((count + piece - 1) / piece, 0,
               [&](int64_t i, float*) { work(i * piece, std::min(count, (i + 1) * piece)); });
}

// Sums over rows. Calls work(begin, end, sums) for pieces of [0, rows), `sums` being `width` zeros to add to, then adds
// up the pieces' sums in order. The number of pieces is fixed, so that the rounding does not depend on the machine.
template <typename Work>
void parallel_row_sums(int64_t rows, int64_t width, float* total, const Work& work) {
  constexpr int64_t kPieces = 16;
  std::vector<float> sums(kPieces * width, 0.0f);
  parallel_for(kPieces, 0, [&](int64_t i, float*) {
    work(i * rows / kPieces, (i + 1) * rows / kPieces, sums.data() + i * width);
  });
  std::copy_n(sums.data(), width, total);
  for (int64_t i = 1; i < kPieces; ++i) {
    for (int64_t column = 0; column < width; ++column) total[column] += sums[i * width + column];
  }
}

}  // namespace zoo
