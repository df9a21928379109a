// Cross-entropy over many classes, such as the words of a vocabulary. Comments give inputs -> outputs; float32 but for
// the labels.

#include "kernel.h"
#include "parallel.h"
#include "vector_math.h"

namespace {

constexpr int64_t kPiece = 1 << 15;  // elements that a thread takes at once

int64_t rows_of_a_piece(int64_t classes) { return 1 + kPiece / classes; }

// log of the sum of e^x. Summed in short stretches: one float sum over a vocabulary would lose two digits.
float log_sum_exp(const float* x, int64_t count) {
  constexpr int64_t kStretch = 512;
  float largest = x[0];
#pragma omp simd reduction(max : largest)
  for (int64_t i = 0; i < count; ++i) largest = x[i] > largest ? x[i] : largest;
  double total = 0.0;
  for (int64_t begin = 0; begin < count; begin += kStretch) {
    const int64_t end = std::min(count, begin + kStretch);
    float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
    for (int64_t i = begin; i < end; ++i) sum += zoo::fast_exp(x[i] - largest);
    total += sum;
  }
  return largest + static_cast<float>(std::log(total));
}

}  // namespace

// logits [M, C], labels int32 [M] -> losses [M], logarithms of the softmax denominators [M]
ZOO_KERNEL(cross_entropy) {
  const float* logits = args.in(0);
  const int32_t* labels = args.in_int(1);
  float *losses = args.out(2), *log_sums = args.out(3);
  const int64_t classes = args.width(0);
  zoo::parallel_pieces(args.rows(0), rows_of_a_piece(classes), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float* own = logits + row * classes;
      log_sums[row] = log_sum_exp(own, classes);
      losses[row] = log_sums[row] - own[labels[row]];
    }
  });
  return 0;
}

// logits [M, C], labels int32 [M], log_sums [M], d_losses [M] -> d_logits [M, C]
ZOO_KERNEL(cross_entropy_gradient) {
  const float *logits = args.in(0), *log_sums = args.in(2), *d_losses = args.in(3);
  const int32_t* labels = args.in_int(1);
  float* d_logits = args.out(4);
  const int64_t classes = args.width(0);
  zoo::parallel_pieces(args.rows(0), rows_of_a_piece(classes), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const float *own = logits + row * classes, log_sum = log_sums[row], d_loss = d_losses[row];
      float* d_own = d_logits + row * classes;
#pragma omp simd
      for (int64_t i = 0; i < classes; ++i) d_own[i] = d_loss * zoo::fast_exp(own[i] - log_sum);
      d_own[labels[row]] -= d_loss;
    }
  });
  return 0;
}
