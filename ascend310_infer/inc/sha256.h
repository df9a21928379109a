// SHA-256 (FIPS 180-4).
#ifndef ASCEND310_INFER_INC_SHA256_H_
#define ASCEND310_INFER_INC_SHA256_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

namespace infer {

class Sha256 {
 public:
  void Update(const void *data, std::size_t size);
  // Lower-case hexadecimal digest of all bytes given so far; ends the object's use.
  std::string Finish();

 private:
  void Block(const unsigned char *bytes);

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<unsigned char, 64> tail_ = {};
  std::uint64_t total_ = 0;
};

}  // namespace infer

#endif  // ASCEND310_INFER_INC_SHA256_H_
