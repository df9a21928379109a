// The counter-based dropout masks; the definition is in models/common/nn/dropout.py, and both must give the same bits.
#pragma once

#include <cstdint>

namespace zoo {

inline uint32_t mix(uint32_t x, uint32_t key = 0) {
  x = (x ^ (x >> 16)) * 0x7feb352du + key;
  x = (x ^ (x >> 15)) * 0x846ca68bu;
  return x ^ (x >> 16);
}

// One dropout site at one step: which elements stay, and the factor that keeps the expected value.
class DropoutMask {
 public:
  // key: int32 [2] = seed, step. site: int32 = stream, threshold (rate * 2^31).
  DropoutMask(const int32_t* key, const int32_t* site)
      : k0_(chain(key[0], key[1], site[0])), k1_(chain(key[0] + 0x9e3779b9u, key[1], site[0])), threshold_(site[1]),
        scale_(static_cast<float>(1.0 / (1.0 - site[1] / 2147483648.0))) {}

  bool active() const { return threshold_ != 0; }

  // 0 or the scale, for the element of this row-major index.
  float factor(uint32_t index) const {
    return (mix(index ^ k0_, k1_) & 0x7fffffffu) >= threshold_ ? scale_ : 0.0f;
  }

 private:
  static uint32_t chain(uint32_t seed, uint32_t step, uint32_t stream) { return mix(mix(mix(seed) + step) + stream); }

  uint32_t k0_, k1_, threshold_;
  float scale_;
};

}  // namespace zoo
