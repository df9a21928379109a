// The bytes of one input file into int32 values: raw little-endian .bin, or .npy of int32 or int64.
#ifndef ASCEND310_INFER_INC_SAMPLE_FILE_H_
#define ASCEND310_INFER_INC_SAMPLE_FILE_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace infer {

// What a file must hold: `batch` samples of `shape` (a .npy of one sample may leave the batch axis out).
struct SampleFileShape {
  std::int64_t batch = 1;
  std::vector<std::int64_t> shape;
};

// Both throw Failure(kInput); `origin` names the file in the message. The values come in C order.
std::vector<std::int32_t> DecodeBin(std::string_view bytes, const SampleFileShape &wanted, const std::string &origin);
std::vector<std::int32_t> DecodeNpy(std::string_view bytes, const SampleFileShape &wanted, const std::string &origin);

// The largest number of bytes that a file of this shape may have in either format.
std::size_t MaxFileBytes(const SampleFileShape &wanted);

}  // namespace infer

#endif  // ASCEND310_INFER_INC_SAMPLE_FILE_H_
