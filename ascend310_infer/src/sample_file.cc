#include "sample_file.h"

#include <algorithm>
#include <cstddef>
#include <limits>

#include "failure.h"
#include "manifest.h"

namespace infer {
namespace {

constexpr std::size_t kMaxNpyHeader = 4096;

std::size_t ValueCount(const SampleFileShape &wanted) {
  return static_cast<std::size_t>(wanted.batch) * ElementCount(wanted.shape);
}

// Little-endian whatever the host is.
template <typename Integer>
Integer Load(const char *bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < sizeof(Integer); ++i) {
    value |= std::uint64_t{static_cast<unsigned char>(bytes[i])} << (8 * i);
  }
  return static_cast<Integer>(value);
}

// The header of a .npy file is a Python dict literal of exactly three keys (numpy.lib.format):
// {'descr': '<i4', 'fortran_order': False, 'shape': (1, 384), }
class NpyHeader {
 public:
  NpyHeader(std::string_view text, const std::string &origin) : text_(text), origin_(origin) {
    bool seen[3] = {};
    Expect('{');
    while (!Accept('}')) {
      const std::string key = Text();
      Expect(':');
      const std::size_t which = key == "descr" ? 0 : key == "fortran_order" ? 1 : key == "shape" ? 2 : 3;
      if (which == 3 || seen[which]) {
        Fail("the key '" + key + "' is unknown or appears twice");
      }
      seen[which] = true;
      Assign(which);
      if (!Accept(',')) {
        Expect('}');
        break;
      }
    }
    if (!seen[0] || !seen[1] || !seen[2] || (SkipSpace(), at_ != text_.size())) {
      Fail("descr, fortran_order and shape are expected, and nothing else");
    }
  }

  const std::string &descr() const { return descr_; }
  bool fortran_order() const { return fortran_order_; }
  const std::vector<std::int64_t> &shape() const { return shape_; }

 private:
  [[noreturn]] void Fail(const std::string &what) const {
    throw Failure(ExitCode::kInput, origin_ + ": damaged .npy header: " + what);
  }

  void Assign(std::size_t which) {
    if (which == 0) {
      descr_ = Text();
    } else if (which == 1) {
      fortran_order_ = Truth();
    } else {
      shape_ = Tuple();
    }
  }

  void SkipSpace() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\t')) {
      ++at_;
    }
  }

  bool Accept(char wanted) {
    SkipSpace();
    if (at_ < text_.size() && text_[at_] == wanted) {
      ++at_;
      return true;
    }
    return false;
  }

  void Expect(char wanted) {
    if (!Accept(wanted)) {
      Fail(std::string("expected '") + wanted + "'");
    }
  }

  std::string Text() {
    SkipSpace();
    const char quote = at_ < text_.size() ? text_[at_] : '\0';
    const std::size_t end = quote == '\'' || quote == '"' ? text_.find(quote, at_ + 1) : std::string_view::npos;
    if (end == std::string_view::npos || end - at_ > 32) {
      Fail("expected a short text between quotation marks");
    }
    const std::string text(text_.substr(at_ + 1, end - at_ - 1));
    if (!std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c <= '~'; })) {
      Fail("a text with characters that are not printable");
    }
    at_ = end + 1;
    return text;
  }

  bool Truth() {
    SkipSpace();
    for (const std::string_view word : {"True", "False"}) {
      if (text_.substr(at_, word.size()) == word) {
        at_ += word.size();
        return word == "True";
      }
    }
    Fail("fortran_order must be True or False");
  }

  std::vector<std::int64_t> Tuple() {
    std::vector<std::int64_t> values;
    Expect('(');
    while (!Accept(')')) {
      values.push_back(Size());
      if (values.size() > 8) {
        Fail("more than 8 dimensions");
      }
      if (!Accept(',')) {
        Expect(')');
        break;
      }
    }
    return values;
  }

  std::int64_t Size() {
    SkipSpace();
    std::int64_t value = 0;
    const std::size_t begin = at_;
    for (; at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9' && at_ - begin < 12; ++at_) {
      value = 10 * value + (text_[at_] - '0');
    }
    if (at_ == begin) {
      Fail("expected a size");
    }
    return value;
  }

  std::string_view text_;
  const std::string &origin_;
  std::size_t at_ = 0;
  std::string descr_;
  bool fortran_order_ = false;
  std::vector<std::int64_t> shape_;
};

// The header's text, and the data behind it.
std::pair<std::string_view, std::string_view> SplitNpy(std::string_view bytes, const std::string &origin) {
  const auto fail = [&origin](const std::string &what) { throw Failure(ExitCode::kInput, origin + ": " + what); };
  if (bytes.size() < 12 || bytes.substr(0, 6) != "\x93NUMPY") {
    fail("is not a .npy file");
  }
  const int version = bytes[6];
  if ((version != 1 && version != 2) || bytes[7] != 0) {
    fail("is a .npy file of a version other than 1.0 and 2.0");
  }
  const std::size_t begin = version == 1 ? 10 : 12;
  const std::size_t size = version == 1 ? Load<std::uint16_t>(&bytes[8]) : Load<std::uint32_t>(&bytes[8]);
  if (size > kMaxNpyHeader || begin + size > bytes.size()) {
    fail("damaged .npy header: it does not end inside the file");
  }
  return {bytes.substr(begin, size), bytes.substr(begin + size)};
}

void CheckShape(const std::vector<std::int64_t> &found, const SampleFileShape &wanted, const std::string &origin) {
  std::vector<std::int64_t> whole = {wanted.batch};
  whole.insert(whole.end(), wanted.shape.begin(), wanted.shape.end());
  if (found != whole && !(wanted.batch == 1 && found == wanted.shape)) {
    throw Failure(ExitCode::kInput, origin + ": has the shape " + ShapeText(found) + ", expected " + ShapeText(whole));
  }
}

void CheckDataSize(std::size_t found, std::size_t wanted, const std::string &origin) {
  if (found != wanted) {
    throw Failure(ExitCode::kInput, origin + ": has " + std::to_string(found) + " bytes of values, expected " +
                                      std::to_string(wanted));
  }
}

}  // namespace

std::size_t MaxFileBytes(const SampleFileShape &wanted) {
  return ValueCount(wanted) * sizeof(std::int64_t) + kMaxNpyHeader + 12;
}

std::vector<std::int32_t> DecodeBin(std::string_view bytes, const SampleFileShape &wanted, const std::string &origin) {
  std::vector<std::int32_t> values(ValueCount(wanted));
  CheckDataSize(bytes.size(), values.size() * sizeof(std::int32_t), origin);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = Load<std::int32_t>(bytes.data() + i * sizeof(std::int32_t));
  }
  return values;
}

std::vector<std::int32_t> DecodeNpy(std::string_view bytes, const SampleFileShape &wanted, const std::string &origin) {
  const auto [text, data] = SplitNpy(bytes, origin);
  const NpyHeader header(text, origin);
  if (header.fortran_order()) {
    throw Failure(ExitCode::kInput, origin + ": is in Fortran order; save it with numpy.ascontiguousarray");
  }
  CheckShape(header.shape(), wanted, origin);
  if (header.descr() == "<i4") {
    return DecodeBin(data, wanted, origin);
  }
  if (header.descr() != "<i8") {
    throw Failure(ExitCode::kInput, origin + ": has the dtype '" + header.descr() + "', expected <i4 or <i8");
  }
  std::vector<std::int32_t> values(ValueCount(wanted));
  CheckDataSize(data.size(), values.size() * sizeof(std::int64_t), origin);
  for (std::size_t i = 0; i < values.size(); ++i) {
    const auto value = Load<std::int64_t>(data.data() + i * sizeof(std::int64_t));
    if (value < std::numeric_limits<std::int32_t>::min() || value > std::numeric_limits<std::int32_t>::max()) {
      throw Failure(ExitCode::kInput, origin + ": value " + std::to_string(value) + " at position " +
                                        std::to_string(i) + " does not fit into int32");
    }
    values[i] = static_cast<std::int32_t>(value);
  }
  return values;
}

}  // namespace infer
