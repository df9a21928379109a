#include "fields.h"

#include <algorithm>

namespace infer {
namespace {

constexpr std::int64_t kMaxDimension = 1 << 20;
constexpr std::size_t kMaxElements = 1u << 28;
constexpr std::size_t kMaxRank = 8;
constexpr std::size_t kShownProblems = 10;

}  // namespace

std::string Problems::Joined() const {
  std::string text;
  for (std::size_t i = 0; i < std::min(lines_.size(), kShownProblems); ++i) {
    text += (i == 0 ? "" : "; ") + lines_[i];
  }
  if (lines_.size() > kShownProblems) {
    text += "; and " + std::to_string(lines_.size() - kShownProblems) + " more";
  }
  return text;
}

Fields::Fields(const json::Value &value, std::string path, std::initializer_list<std::string_view> keys,
               Problems *problems)
    : value_(value), path_(std::move(path)), problems_(problems) {
  if (!value.Is(json::Type::kObject)) {
    problems_->Add(path_.empty() ? "document" : path_, std::string("expected an object, got ") + NameOf(value.type));
    return;
  }
  for (const auto &member : value.members) {
    if (std::find(keys.begin(), keys.end(), member.first) == keys.end()) {
      problems_->Add(path_.empty() ? "document" : path_, "unknown key " + json::Quote(member.first));
    }
  }
}

std::string Fields::Path(std::string_view key) const {
  return path_.empty() ? std::string(key) : path_ + "." + std::string(key);
}

const json::Value *Fields::Any(std::string_view key) const {
  const json::Value *member = value_.Find(key);
  // Of a value that is no object the constructor has told already.
  if (member == nullptr && value_.Is(json::Type::kObject)) {
    problems_->Add(Path(key), "is missing");
  }
  return member;
}

const json::Value *Fields::Of(std::string_view key, json::Type type) const {
  const json::Value *member = Any(key);
  if (member != nullptr && !member->Is(type)) {
    problems_->Add(Path(key), std::string("expected ") + NameOf(type) + ", got " + NameOf(member->type));
    return nullptr;
  }
  return member;
}

const json::Value *Fields::OrNull(std::string_view key, json::Type type) const {
  const json::Value *member = value_.Find(key);
  return member != nullptr && member->Is(json::Type::kNull) ? nullptr : Of(key, type);
}

std::string Fields::String(std::string_view key) const {
  const json::Value *member = Of(key, json::Type::kString);
  if (member == nullptr) {
    return {};
  }
  if (member->text.empty()) {
    problems_->Add(Path(key), "must not be empty");
  }
  return member->text;
}

std::string Fields::Choice(std::string_view key, std::initializer_list<std::string_view> allowed) const {
  const json::Value *member = Of(key, json::Type::kString);
  if (member == nullptr) {
    return {};
  }
  if (std::find(allowed.begin(), allowed.end(), member->text) == allowed.end()) {
    std::string names;
    for (const std::string_view name : allowed) {
      names += (names.empty() ? "" : ", ") + std::string(name);
    }
    problems_->Add(Path(key), json::Quote(member->text) + " is not one of " + names);
  }
  return member->text;
}

std::int64_t Fields::Integer(std::string_view key, std::int64_t low, std::int64_t high) const {
  const json::Value *member = Of(key, json::Type::kInteger);
  if (member == nullptr) {
    return low;
  }
  if (member->integer < low || member->integer > high) {
    problems_->Add(Path(key), std::to_string(member->integer) + " is not in [" + std::to_string(low) + ", " +
                                std::to_string(high) + "]");
    return low;
  }
  return member->integer;
}

double Fields::Number(std::string_view key) const {
  const json::Value *member = Any(key);
  if (member != nullptr && !member->IsNumber()) {
    problems_->Add(Path(key), std::string("expected a number, got ") + NameOf(member->type));
    return 0.0;
  }
  return member == nullptr ? 0.0 : member->real;
}

bool Fields::Bool(std::string_view key) const {
  const json::Value *member = Of(key, json::Type::kBool);
  return member != nullptr && member->boolean;
}

std::string Fields::Hash(std::string_view key) const {
  const json::Value *member = Of(key, json::Type::kString);
  if (member == nullptr) {
    return {};
  }
  const bool digits = std::all_of(member->text.begin(), member->text.end(),
                                  [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
  if (member->text.size() != 64 || !digits) {
    problems_->Add(Path(key), "expected 64 lower-case hexadecimal digits");
  }
  return member->text;
}

std::string Fields::FileName(std::string_view key) const {
  const std::string name = String(key);
  if (name == "." || name == ".." || name.find_first_of(std::string("/\\\0", 3)) != std::string::npos) {
    problems_->Add(Path(key), json::Quote(name) + " is not a plain file name");
  }
  return name;
}

std::vector<std::int64_t> Fields::Shape(std::string_view key) const {
  std::vector<std::int64_t> shape;
  const json::Value *member = Of(key, json::Type::kArray);
  if (member == nullptr) {
    return shape;
  }
  std::size_t elements = 1;
  for (const json::Value &item : member->items) {
    if (!item.Is(json::Type::kInteger) || item.integer < 1 || item.integer > kMaxDimension) {
      problems_->Add(Path(key), "every dimension must be a fixed integer from 1 to " + std::to_string(kMaxDimension) +
                                  " (MindSpore Lite 2.0 crashes on graphs with dynamic shapes: export a static one)");
      return {};
    }
    shape.push_back(item.integer);
    elements *= static_cast<std::size_t>(item.integer);
    if (elements > kMaxElements || shape.size() > kMaxRank) {
      problems_->Add(Path(key), "is too large");
      return {};
    }
  }
  return shape;
}

void Fields::Each(std::string_view key,
                  const std::function<void(const json::Value &, const std::string &)> &visit) const {
  const json::Value *member = Of(key, json::Type::kArray);
  if (member == nullptr) {
    return;
  }
  if (member->items.empty()) {
    problems_->Add(Path(key), "must not be empty");
  }
  for (std::size_t i = 0; i < member->items.size(); ++i) {
    visit(member->items[i], Path(key) + "[" + std::to_string(i) + "]");
  }
}

}  // namespace infer
