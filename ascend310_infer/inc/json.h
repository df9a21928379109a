// A strict reader for small JSON documents (RFC 8259), and the quoting that a writer needs.
//
// Own code and not a library: the program must build offline on a device host that has a compiler and CMake and
// nothing else, and the manifest needs more than the usual libraries check (duplicate keys, 64-bit integers apart
// from floats, depth and size limits). It is fed with mutated documents under AddressSanitizer in every CI run.
#ifndef ASCEND310_INFER_INC_JSON_H_
#define ASCEND310_INFER_INC_JSON_H_

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace infer::json {

constexpr std::size_t kMaxDepth = 32;
constexpr std::size_t kMaxBytes = 1u << 20;
constexpr std::size_t kMaxMembers = 4096;  // of one object: keys are compared pair by pair

enum class Type { kNull, kBool, kInteger, kReal, kString, kArray, kObject };

struct Value {
  Type type = Type::kNull;
  bool boolean = false;
  std::int64_t integer = 0;
  double real = 0.0;  // also set for integers
  std::string text;
  std::vector<Value> items;
  std::vector<std::pair<std::string, Value>> members;  // in the document's order, keys are unique

  bool Is(Type wanted) const { return type == wanted; }
  bool IsNumber() const { return type == Type::kInteger || type == Type::kReal; }
  // The member of that name, or nullptr.
  const Value *Find(std::string_view key) const;
};

// The message says line, column and reason.
class ParseError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// One whole document in UTF-8 (a byte order mark is dropped); throws ParseError.
Value Parse(std::string_view text);

// `text` between quotation marks, escaped.
std::string Quote(std::string_view text);

// What a message calls a type: "object", "string", ...
const char *NameOf(Type type);

}  // namespace infer::json

#endif  // ASCEND310_INFER_INC_JSON_H_
