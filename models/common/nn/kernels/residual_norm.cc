// LayerNorm(residual + dropout(x)) and its gradient. M rows of width H.

#include "kernel.h"
#include "parallel.h"
#include "random_bits.h"

#include <cmath>

namespace {

constexpr int64_t kRowsPerTask = 32;

struct Statistics {
  float mean, inverse_deviation;
};

Statistics statistics(const float* row, int64_t width, float epsilon) {
  float sum = 0.0f, squares = 0.0f;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < width; ++i) sum += row[i];
  const float mean = sum / width;
#pragma omp simd reduction(+ : squares)
  for (int64_t i = 0; i < width; ++i) squares += (row[i] - mean) * (row[i] - mean);
  return {mean, 1.0f / std::sqrt(squares / width + epsilon)};
}

// out = base + dropout(x) for the row that starts at element `first`.
void add_dropped(const float* base, const float* x, zoo::DropoutMask mask, uint32_t first, int64_t width,
                 float* out) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) out[i] = base[i] + x[i] * mask.factor(first + static_cast<uint32_t>(i));
}

void drop(const float* x, zoo::DropoutMask mask, uint32_t first, int64_t width, float* out) {
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) out[i] = x[i] * mask.factor(first + static_cast<uint32_t>(i));
}

// Gradient dy of a normalised row -> gradient of the row before; adds to the gradients of weight and bias.
void row_gradient(const float* dy, const float* row, const float* weight, Statistics s, int64_t width, float* d_row,
                  float* __restrict d_weight, float* __restrict d_bias) {
  float sum = 0.0f, sum_normal = 0.0f;
#pragma omp simd reduction(+ : sum, sum_normal)
  for (int64_t i = 0; i < width; ++i) {
    const float normal = (row[i] - s.mean) * s.inverse_deviation, weighted = dy[i] * weight[i];
    sum += weighted;
    sum_normal += weighted * normal;
    d_weight[i] += dy[i] * normal;
    d_bias[i] += dy[i];
  }
  const float mean = sum / width, mean_normal = sum_normal / width;
#pragma omp simd
  for (int64_t i = 0; i < width; ++i) {
    const float normal = (row[i] - s.mean) * s.inverse_deviation;
    d_row[i] = s.inverse_deviation * (dy[i] * weight[i] - mean - normal * mean_normal);
  }
}

}  // namespace

// residual, x [M, H]; weight, bias [H]; epsilon [1]; key int32 [2]; site int32 [2]
// -> y [M, H]; the sum before normalisation [M, H] and each row's mean and 1 / deviation [M, 2], for the gradient
ZOO_KERNEL(residual_norm) {
  const float *residual = args.in(0), *x = args.in(1), *weight = args.in(2), *bias = args.in(3);
  const float epsilon = args.in(4)[0];
  const zoo::DropoutMask mask(args.in_int(5), args.in_int(6));
  float *y = args.out(7), *sum = args.out(8), *saved = args.out(9);
  const int64_t width = args.width(0);
  zoo::parallel_pieces(args.rows(0), kRowsPerTask, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t first = row * width;
      float *out = y + first, *total = sum + first;
      add_dropped(residual + first, x + first, mask, static_cast<uint32_t>(first), width, total);
      const Statistics s = statistics(total, width, epsilon);
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) out[i] = (total[i] - s.mean) * s.inverse_deviation * weight[i] + bias[i];
      saved[2 * row] = s.mean;
      saved[2 * row + 1] = s.inverse_deviation;
    }
  });
  return 0;
}

// dy, sum [M, H]; saved [M, 2]; weight [H]; key int32 [2]; site int32 [2]
// -> gradients of residual [M, H], x [M, H], weight and bias [2, H]
ZOO_KERNEL(residual_norm_gradient) {
  const float *dy = args.in(0), *sum = args.in(1), *saved = args.in(2), *weight = args.in(3);
  const zoo::DropoutMask mask(args.in_int(4), args.in_int(5));
  float *d_residual = args.out(6), *dx = args.out(7);
  const int64_t width = args.width(0);
  zoo::parallel_row_sums(args.rows(0), 2 * width, args.out(8), [&](int64_t begin, int64_t end, float* sums) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t first = row * width;
      const Statistics s{saved[2 * row], saved[2 * row + 1]};
      row_gradient(dy + first, sum + first, weight, s, width, d_residual + first, sums, sums + width);
      drop(d_residual + first, mask, static_cast<uint32_t>(first), width, dx + first);
    }
  });
  return 0;
}
