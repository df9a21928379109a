// Gelu, dropout and the addition of a bias. Comments give inputs -> outputs; all float32 but where said otherwise.

#include "kernel.h"
#include "parallel.h"
#include "random_bits.h"
#include "vector_math.h"

namespace {

constexpr int64_t kPiece = 1 << 15;  // elements; large enough to hide the cost of handing it out

// out[i] = function(i) for every element.
template <typename Function>
int map_elements(float* out, int64_t count, const Function& function) {
  zoo::parallel_pieces(count, kPiece, [&](int64_t begin, int64_t end) {
    const Function own = function;  // a copy that nothing else can change: without it the loop is not vectorised
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) out[i] = own(i);
  });
  return 0;
}

// Gelu's tanh form: 0.5 x (1 + tanh(z)) = x sigmoid(2 z), z = sqrt(2 / pi) (x + 0.044715 x^3).
constexpr float kTwoZ = 1.5957691216f, kCubic = 0.044715f;

inline float sigmoid_of_two_z(float x) {
  return 1.0f / (1.0f + zoo::fast_exp(-kTwoZ * (x + kCubic * x * x * x)));
}

}  // namespace

// x -> gelu(x) = x Phi(x)
ZOO_KERNEL(gelu) {
  const float* x = args.in(0);
  return map_elements(args.out(1), args.elements(0),
                      [=](int64_t i) { return x[i] * zoo::normal_distribution(x[i]).cumulative; });
}

// x, dy -> dx = dy (Phi(x) + x phi(x))
ZOO_KERNEL(gelu_gradient) {
  const float *x = args.in(0), *dy = args.in(1);
  return map_elements(args.out(2), args.elements(0), [=](int64_t i) {
    const auto normal = zoo::normal_distribution(x[i]);
    return dy[i] * (normal.cumulative + x[i] * normal.density);
  });
}

// x -> x sigmoid(2 z(x))
ZOO_KERNEL(gelu_tanh) {
  const float* x = args.in(0);
  return map_elements(args.out(1), args.elements(0), [=](int64_t i) { return x[i] * sigmoid_of_two_z(x[i]); });
}

// x, dy -> dx = dy s (1 + x (1 - s) 2 z'(x)), s = sigmoid(2 z(x))
ZOO_KERNEL(gelu_tanh_gradient) {
  const float *x = args.in(0), *dy = args.in(1);
  return map_elements(args.out(2), args.elements(0), [=](int64_t i) {
    const float s = sigmoid_of_two_z(x[i]);
    const float slope = kTwoZ * (1.0f + 3.0f * kCubic * x[i] * x[i]);
    return dy[i] * s * (1.0f + x[i] * (1.0f - s) * slope);
  });
}

// x, key int32 [2], site int32 [2] -> x masked and scaled; its own gradient, dy taking the place of x.
ZOO_KERNEL(dropout) {
  const float* x = args.in(0);
  const zoo::DropoutMask mask(args.in_int(1), args.in_int(2));
  return map_elements(args.out(3), args.elements(0),
                      [=](int64_t i) { return x[i] * mask.factor(static_cast<uint32_t>(i)); });
}

// x [M, H], bias [H] -> x + bias
ZOO_KERNEL(bias_add) {
  const float *x = args.in(0), *bias = args.in(1);
  float* out = args.out(2);
  const int64_t width = args.width(0);
  zoo::parallel_pieces(args.rows(0), 1 + kPiece / width, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) out[row * width + i] = x[row * width + i] + bias[i];
    }
  });
  return 0;
}

// dy [M, H] -> its columns summed, [H]: the gradient of the bias
ZOO_KERNEL(column_sums) {
  const float* dy = args.in(0);
  const int64_t width = args.width(0);
  zoo::parallel_row_sums(args.rows(0), width, args.out(1), [&](int64_t begin, int64_t end, float* sums) {
    for (int64_t row = begin; row < end; ++row) {
#pragma omp simd
      for (int64_t i = 0; i < width; ++i) sums[i] += dy[row * width + i];
    }
  });
  return 0;
}
