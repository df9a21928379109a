// The values of an output of the graph, in the type that the manifest gives it.
#ifndef ASCEND310_INFER_INC_VALUES_H_
#define ASCEND310_INFER_INC_VALUES_H_

#include <cstdint>
#include <variant>
#include <vector>

namespace infer {

enum class DType { kFloat32, kInt32 };

using Values = std::variant<std::vector<float>, std::vector<std::int32_t>>;

}  // namespace infer

#endif  // ASCEND310_INFER_INC_VALUES_H_
