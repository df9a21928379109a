#include "json.h"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "utf8.h"

namespace infer::json {
namespace {

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Value Document() {
    Value value = Element(0);
    SkipSpace();
    if (at_ != text_.size()) {
      Fail("unexpected text after the document");
    }
    return value;
  }

 private:
  [[noreturn]] void Fail(const std::string &reason) const {
    std::size_t line = 1;
    std::size_t column = 1;
    for (std::size_t i = 0; i < at_ && i < text_.size(); ++i) {
      column = text_[i] == '\n' ? 1 : column + 1;
      line += text_[i] == '\n' ? 1 : 0;
    }
    throw ParseError("line " + std::to_string(line) + ", column " + std::to_string(column) + ": " + reason);
  }

  bool End() const { return at_ == text_.size(); }
  char Peek() const { return End() ? '\0' : text_[at_]; }

  void SkipSpace() {
    while (!End() && (Peek() == ' ' || Peek() == '\t' || Peek() == '\n' || Peek() == '\r')) {
      ++at_;
    }
  }

  void Expect(char wanted) {
    if (End() || Peek() != wanted) {
      Fail(std::string("expected '") + wanted + "'" + (End() ? ", the text ends here" : ""));
    }
    ++at_;
  }

  bool Accept(char wanted) {
    SkipSpace();
    if (End() || Peek() != wanted) {
      return false;
    }
    ++at_;
    return true;
  }

  Value Element(std::size_t depth) {
    if (depth >= kMaxDepth) {
      Fail("nested deeper than " + std::to_string(kMaxDepth) + " levels");
    }
    SkipSpace();
    switch (Peek()) {
      case '{':
        return Object(depth);
      case '[':
        return Array(depth);
      case '"': {
        Value value;
        value.type = Type::kString;
        value.text = String();
        return value;
      }
      case 't':
      case 'f':
      case 'n':
        return Word();
      default:
        return Number();
    }
  }

  Value Object(std::size_t depth) {
    Value value;
    value.type = Type::kObject;
    Expect('{');
    if (Accept('}')) {
      return value;
    }
    do {
      SkipSpace();
      if (Peek() != '"') {
        Fail("expected a key between quotation marks");
      }
      std::string key = String();
      if (value.Find(key) != nullptr) {
        Fail("key " + Quote(key) + " appears twice");
      }
      SkipSpace();
      Expect(':');
      if (value.members.size() == kMaxMembers) {
        Fail("more than " + std::to_string(kMaxMembers) + " keys in one object");
      }
      value.members.emplace_back(std::move(key), Element(depth + 1));
    } while (Accept(','));
    SkipSpace();
    Expect('}');
    return value;
  }

  Value Array(std::size_t depth) {
    Value value;
    value.type = Type::kArray;
    Expect('[');
    if (Accept(']')) {
      return value;
    }
    do {
      value.items.push_back(Element(depth + 1));
    } while (Accept(','));
    SkipSpace();
    Expect(']');
    return value;
  }

  Value Word() {
    Value value;
    const std::string_view rest = text_.substr(at_);
    const auto starts = [&rest](std::string_view word) { return rest.substr(0, word.size()) == word; };
    if (starts("true") || starts("false")) {
      value.type = Type::kBool;
      value.boolean = rest[0] == 't';
      at_ += value.boolean ? 4 : 5;
    } else if (starts("null")) {
      at_ += 4;
    } else {
      Fail("expected a value");
    }
    return value;
  }

  void Digits() {
    if (Peek() < '0' || Peek() > '9') {
      Fail(End() ? "expected a value, the text ends here" : "expected a value");
    }
    while (Peek() >= '0' && Peek() <= '9') {
      ++at_;
    }
  }

  Value Number() {
    const std::size_t begin = at_;
    bool integral = true;
    if (Peek() == '-') {
      ++at_;
    }
    const std::size_t first = at_;
    Digits();
    if (text_[first] == '0' && at_ - first > 1) {
      Fail("a number must not begin with 0");
    }
    if (Peek() == '.') {
      integral = false;
      ++at_;
      Digits();
    }
    if (Peek() == 'e' || Peek() == 'E') {
      integral = false;
      ++at_;
      if (Peek() == '+' || Peek() == '-') {
        ++at_;
      }
      Digits();
    }
    return Convert(std::string(text_.substr(begin, at_ - begin)), integral);
  }

  Value Convert(const std::string &digits, bool integral) {
    Value value;
    value.real = std::strtod(digits.c_str(), nullptr);
    if (!std::isfinite(value.real)) {
      Fail("the number is too large");
    }
    value.type = Type::kReal;
    if (integral) {
      errno = 0;
      value.integer = std::strtoll(digits.c_str(), nullptr, 10);
      if (errno != 0) {
        Fail("the integer does not fit into 64 bits");
      }
      value.type = Type::kInteger;
    }
    return value;
  }

  unsigned HexUnit() {
    unsigned unit = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      const char c = Peek();
      unit <<= 4;
      if (c >= '0' && c <= '9') {
        unit |= static_cast<unsigned>(c - '0');
      } else if (c >= 'a' && c <= 'f') {
        unit |= static_cast<unsigned>(c - 'a') + 10;
      } else if (c >= 'A' && c <= 'F') {
        unit |= static_cast<unsigned>(c - 'A') + 10;
      } else {
        Fail("expected four hexadecimal digits after \\u");
      }
    }
    return unit;
  }

  void UnicodeEscape(std::string *out) {
    unsigned code = HexUnit();
    if (code >= 0xD800 && code < 0xDC00) {
      if (text_.substr(at_, 2) != "\\u") {
        Fail("half of a surrogate pair");
      }
      at_ += 2;
      const unsigned low = HexUnit();
      if (low < 0xDC00 || low > 0xDFFF) {
        Fail("half of a surrogate pair");
      }
      code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
    } else if (code >= 0xDC00 && code <= 0xDFFF) {
      Fail("half of a surrogate pair");
    }
    utf8::Append(code, out);
  }

  void Escape(std::string *out) {
    static constexpr std::string_view kNames = "\"\\/bfnrt";
    static constexpr std::string_view kMeanings = "\"\\/\b\f\n\r\t";
    const char name = Peek();
    const std::size_t which = End() ? std::string_view::npos : kNames.find(name);
    if (which != std::string_view::npos) {
      out->push_back(kMeanings[which]);
      ++at_;
    } else if (name == 'u') {
      ++at_;
      UnicodeEscape(out);
    } else {
      Fail("unknown escape in a string");
    }
  }

  std::string String() {
    std::string out;
    Expect('"');
    while (true) {
      if (End()) {
        Fail("the text ends inside a string");
      }
      const char c = Peek();
      if (c == '"') {
        ++at_;
        return out;
      }
      if (static_cast<unsigned char>(c) < 0x20) {
        Fail("a control character inside a string");
      }
      if (c == '\\') {
        ++at_;
        Escape(&out);
      } else {
        out.push_back(c);
        ++at_;
      }
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

const Value *Value::Find(std::string_view key) const {
  for (const auto &member : members) {
    if (member.first == key) {
      return &member.second;
    }
  }
  return nullptr;
}

Value Parse(std::string_view text) {
  if (text.size() > kMaxBytes) {
    throw ParseError("larger than " + std::to_string(kMaxBytes >> 20) + " MiB");
  }
  if (text.substr(0, 3) == "\xEF\xBB\xBF") {
    text.remove_prefix(3);
  }
  const std::size_t bad = utf8::FirstInvalid(text);
  if (bad != std::string_view::npos) {
    throw ParseError("byte " + std::to_string(bad) + ": not UTF-8 text");
  }
  return Parser(text).Document();
}

std::string Quote(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(c);
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      char escaped[8];
      std::snprintf(escaped, sizeof(escaped), "\\u%04x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      out += escaped;
    } else {
      out.push_back(c);
    }
  }
  out.push_back('"');
  return out;
}

const char *NameOf(Type type) {
  switch (type) {
    case Type::kNull:
      return "null";
    case Type::kBool:
      return "boolean";
    case Type::kInteger:
      return "integer";
    case Type::kReal:
      return "number";
    case Type::kString:
      return "string";
    case Type::kArray:
      return "array";
    default:
      return "object";
  }
}

}  // namespace infer::json
