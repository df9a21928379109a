// Typed access to a parsed JSON document that collects problems instead of stopping at the first.
#ifndef ASCEND310_INFER_INC_FIELDS_H_
#define ASCEND310_INFER_INC_FIELDS_H_

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "json.h"

namespace infer {

// All problems of one document, each with the path of the key ("inputs[0].shape: ...").
class Problems {
 public:
  void Add(const std::string &path, const std::string &what) { lines_.push_back(path + ": " + what); }
  bool empty() const { return lines_.empty(); }
  // At most ten lines and the count of the others.
  std::string Joined() const;

 private:
  std::vector<std::string> lines_;
};

// One JSON object: `keys` are exactly the allowed ones. After a problem the getters give a default value.
class Fields {
 public:
  Fields(const json::Value &value, std::string path, std::initializer_list<std::string_view> keys, Problems *problems);

  std::string Path(std::string_view key) const;
  // The member whatever its type; nullptr and a problem when it is missing.
  const json::Value *Any(std::string_view key) const;
  // The member if it is of that type; nullptr and a problem otherwise.
  const json::Value *Of(std::string_view key, json::Type type) const;
  // The member if it is of that type, nullptr if it is null; a problem otherwise.
  const json::Value *OrNull(std::string_view key, json::Type type) const;
  // A string that is not empty.
  std::string String(std::string_view key) const;
  // One of the given strings.
  std::string Choice(std::string_view key, std::initializer_list<std::string_view> allowed) const;
  // An integer in [low, high].
  std::int64_t Integer(std::string_view key, std::int64_t low, std::int64_t high) const;
  double Number(std::string_view key) const;
  bool Bool(std::string_view key) const;
  // 64 lower-case hexadecimal digits.
  std::string Hash(std::string_view key) const;
  // A plain file name: nothing that leads into another folder.
  std::string FileName(std::string_view key) const;
  // A list of positive dimensions.
  std::vector<std::int64_t> Shape(std::string_view key) const;
  // Every element of a list that is not empty, with its path.
  void Each(std::string_view key, const std::function<void(const json::Value &, const std::string &)> &visit) const;

  Problems *problems() const { return problems_; }

 private:
  const json::Value &value_;
  std::string path_;
  Problems *problems_;
};

}  // namespace infer

#endif  // ASCEND310_INFER_INC_FIELDS_H_
