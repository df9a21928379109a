// Scaled dot-product attention of packed rows, with dropout of the probabilities, and its gradient.
//
// B rows of T tokens, N heads of D = H / N. Tokens attend within their own sample, a run of equal sequence ids, so each
// sample and head is computed by itself on its L tokens: nothing is spent on padding or on pairs of different samples.
// The [L, L] probabilities live only in the cache; the gradient computes them again from the saved logarithms of the
// softmax's denominators (as in FlashAttention, Dao et al. 2022). Heads are read where they lie in [B * T, H].

#include "kernel.h"
#include "parallel.h"
#include "random_bits.h"
#include "vector_math.h"

#include <cmath>
#include <limits>
#include <vector>

// oneDNN's row-major matrix product, from the library that MindSpore loads; called outside of MindSpore's thread pool
// it computes on the calling thread.
extern "C" int dnnl_sgemm(char transpose_a, char transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
                          const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc);

namespace {

constexpr int64_t kQueriesAtOnce = 128;  // so that a block of scores, [128, L], fits the second-level cache

struct Sizes {
  int64_t rows, tokens, width, heads, head;
  float scale;

  // Parameter 0 is [B * T, H], 3 is [B, T], `logarithms` is [B, N, T].
  Sizes(const zoo::Arguments& args, int logarithms)
      : rows(args.size(3, 0)), tokens(args.size(3, 1)), width(args.size(0, 1)), heads(args.size(logarithms, 1)),
        head(width / heads), scale(1.0f / std::sqrt(static_cast<float>(head))) {}
};

struct Sample {
  int64_t row, begin, end;  // tokens [begin, end) of a row
  bool padding;

  int64_t length() const { return end - begin; }
};

std::vector<Sample> find_samples(const int32_t* ids, const Sizes& sizes) {
  std::vector<Sample> samples;
  for (int64_t row = 0; row < sizes.rows; ++row) {
    const int32_t* row_ids = ids + row * sizes.tokens;
    for (int64_t begin = 0, end; begin < sizes.tokens; begin = end) {
      for (end = begin + 1; end < sizes.tokens && row_ids[end] == row_ids[begin];) ++end;
      samples.push_back({row, begin, end, row_ids[begin] == 0});
    }
  }
  return samples;
}

// Calls work(sample, head, scratch) for every sample and head; padding is passed on too, to be zeroed.
template <typename Work>
void for_each_head(const int32_t* ids, const Sizes& sizes, int64_t matrices, const Work& work) {
  const auto samples = find_samples(ids, sizes);
  zoo::parallel_for(static_cast<int64_t>(samples.size()) * sizes.heads, matrices * kQueriesAtOnce * sizes.tokens,
                    [&](int64_t i, float* scratch) { work(samples[i / sizes.heads], i % sizes.heads, scratch); });
}

// The part of a [B * T, H] matrix that belongs to a sample and head, [L, D] with a row stride of H.
template <typename T>
T* slice(T* matrix, const Sizes& sizes, const Sample& sample, int64_t head) {
  return matrix + (sample.row * sizes.tokens + sample.begin) * sizes.width + head * sizes.head;
}

void zero(float* part, int64_t length, const Sizes& sizes) {
  for (int64_t i = 0; i < length; ++i) std::fill_n(part + i * sizes.width, sizes.head, 0.0f);
}

// Index of the first of `length` consecutive elements of a query's row in the [B, N, T, T] probabilities.
uint32_t first_element(const Sizes& sizes, const Sample& sample, int64_t head, int64_t query) {
  const int64_t row = (sample.row * sizes.heads + head) * sizes.tokens + sample.begin + query;
  return static_cast<uint32_t>(row * sizes.tokens + sample.begin);
}

// Scores -> softmax, then dropout, in place; returns the logarithm of the sum of exp(score).
float drop_softmax(float* scores, int64_t length, zoo::DropoutMask mask, uint32_t first) {
  float largest = -std::numeric_limits<float>::infinity(), sum = 0.0f;
#pragma omp simd reduction(max : largest)
  for (int64_t j = 0; j < length; ++j) largest = scores[j] > largest ? scores[j] : largest;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < length; ++j) {
    scores[j] = zoo::fast_exp(scores[j] - largest);
    sum += scores[j];
  }
  const float inverse = 1.0f / sum;
  if (mask.active()) {
#pragma omp simd
    for (int64_t j = 0; j < length; ++j) scores[j] *= inverse * mask.factor(first + static_cast<uint32_t>(j));
  } else {
#pragma omp simd
    for (int64_t j = 0; j < length; ++j) scores[j] *= inverse;
  }
  return largest + std::log(sum);
}

// In: scores and the gradient of the dropped probabilities. Out: the dropped probabilities, and the gradient of the
// unscaled scores. `dot` is the query's context times its gradient, which equals sum_j p_j dp_j.
void softmax_gradient(float* scores, float* gradient, int64_t length, float log_sum, float dot, float scale,
                      zoo::DropoutMask mask, uint32_t first) {
  if (mask.active()) {
#pragma omp simd
    for (int64_t j = 0; j < length; ++j) {
      const float p = zoo::fast_exp(scores[j] - log_sum), factor = mask.factor(first + static_cast<uint32_t>(j));
      scores[j] = p * factor;
      gradient[j] = scale * p * (gradient[j] * factor - dot);
    }
    return;
  }
#pragma omp simd
  for (int64_t j = 0; j < length; ++j) {
    scores[j] = zoo::fast_exp(scores[j] - log_sum);
    gradient[j] = scale * scores[j] * (gradient[j] - dot);
  }
}

}  // namespace

// query, key, value [B * T, H]; sequence_ids int32 [B, T]; dropout key int32 [2]; site int32 [2]
// -> context [B * T, H]; logarithms of the denominators [B, N, T], for the gradient
ZOO_KERNEL(attention) {
  const float *query = args.in(0), *key = args.in(1), *value = args.in(2);
  const Sizes sizes(args, 7);
  const zoo::DropoutMask mask(args.in_int(4), args.in_int(5));
  float *context = args.out(6), *log_sums = args.out(7);
  for_each_head(args.in_int(3), sizes, 1, [&](const Sample& sample, int64_t head, float* scores) {
    const int64_t length = sample.length(), width = sizes.width, depth = sizes.head;
    const float *q = slice(query, sizes, sample, head), *k = slice(key, sizes, sample, head),
                *v = slice(value, sizes, sample, head);
    float *out = slice(context, sizes, sample, head),
          *logs = log_sums + (sample.row * sizes.heads + head) * sizes.tokens + sample.begin;
    if (sample.padding) {
      std::fill_n(logs, length, 0.0f);
      return zero(out, length, sizes);
    }
    for (int64_t begin = 0; begin < length; begin += kQueriesAtOnce) {
      const int64_t count = std::min(kQueriesAtOnce, length - begin);
      dnnl_sgemm('N', 'T', count, length, depth, sizes.scale, q + begin * width, width, k, width, 0.0f, scores, length);
      for (int64_t i = 0; i < count; ++i) {
        logs[begin + i] =
            drop_softmax(scores + i * length, length, mask, first_element(sizes, sample, head, begin + i));
      }
      dnnl_sgemm('N', 'N', count, depth, length, 1.0f, scores, length, v, width, 0.0f, out + begin * width, width);
    }
  });
  return 0;
}

// inputs 0-5 as above; context [B * T, H], logarithms [B, N, T], gradient of the context [B * T, H]
// -> gradients of query, key, value
ZOO_KERNEL(attention_gradient) {
  const float *query = args.in(0), *key = args.in(1), *value = args.in(2), *context = args.in(6),
              *log_sums = args.in(7), *d_context = args.in(8);
  const Sizes sizes(args, 7);
  const zoo::DropoutMask mask(args.in_int(4), args.in_int(5));
  float *d_query = args.out(9), *d_key = args.out(10), *d_value = args.out(11);
  for_each_head(args.in_int(3), sizes, 2, [&](const Sample& sample, int64_t head, float* scores) {
    const int64_t length = sample.length(), width = sizes.width, depth = sizes.head;
    const float *q = slice(query, sizes, sample, head), *k = slice(key, sizes, sample, head),
                *v = slice(value, sizes, sample, head), *out = slice(context, sizes, sample, head),
                *d_out = slice(d_context, sizes, sample, head),
                *logs = log_sums + (sample.row * sizes.heads + head) * sizes.tokens + sample.begin;
    float *dq = slice(d_query, sizes, sample, head), *dk = slice(d_key, sizes, sample, head),
          *dv = slice(d_value, sizes, sample, head), *gradient = scores + kQueriesAtOnce * sizes.tokens;
    if (sample.padding) {
      for (float* part : {dq, dk, dv}) zero(part, length, sizes);
      return;
    }
    for (int64_t begin = 0; begin < length; begin += kQueriesAtOnce) {
      const int64_t count = std::min(kQueriesAtOnce, length - begin), offset = begin * width;
      const float add = begin == 0 ? 0.0f : 1.0f;
      dnnl_sgemm('N', 'T', count, length, depth, sizes.scale, q + offset, width, k, width, 0.0f, scores, length);
      dnnl_sgemm('N', 'T', count, length, depth, 1.0f, d_out + offset, width, v, width, 0.0f, gradient, length);
      for (int64_t i = 0; i < count; ++i) {
        const float *o = out + offset + i * width, *g = d_out + offset + i * width;
        float dot = 0.0f;
#pragma omp simd reduction(+ : dot)
        for (int64_t d = 0; d < depth; ++d) dot += o[d] * g[d];
        softmax_gradient(scores + i * length, gradient + i * length, length, logs[begin + i], dot, sizes.scale, mask,
                         first_element(sizes, sample, head, begin + i));
      }
      dnnl_sgemm('T', 'N', length, depth, count, 1.0f, scores, length, d_out + offset, width, add, dv, width);
      dnnl_sgemm('N', 'N', count, depth, length, 1.0f, gradient, length, k, width, 0.0f, dq + offset, width);
      dnnl_sgemm('T', 'N', length, depth, count, 1.0f, gradient, length, q + offset, width, add, dk, width);
    }
  });
  return 0;
}
