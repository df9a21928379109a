#include "input_folder.h"

#include <algorithm>
#include <optional>
#include <system_error>

#include "failure.h"
#include "files.h"
#include "sample_file.h"

namespace infer {
namespace {

constexpr std::int64_t kMaxBatch = 4096;

[[noreturn]] void Fail(const std::string &message) { throw Failure(ExitCode::kInput, message); }

// A decimal number as printed (no sign, no leading zero, at most nine digits).
std::optional<std::int64_t> Decimal(const std::string &text) {
  const bool digits = std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  if (text.empty() || text.size() > 9 || !digits || (text[0] == '0' && text.size() > 1)) {
    return std::nullopt;
  }
  return std::stoll(text);
}

struct ParsedName {
  FileNames common;
  std::size_t index = 0;
};

std::optional<ParsedName> ParseName(const std::string &name) {
  const std::size_t dot = name.rfind('.');
  const std::size_t mark = name.rfind('_', dot);
  const std::size_t batch = mark == std::string::npos || mark == 0 ? std::string::npos : name.rfind("_bs", mark - 1);
  if (dot == std::string::npos || batch == std::string::npos || batch == 0) {
    return std::nullopt;
  }
  const auto index = Decimal(name.substr(mark + 1, dot - mark - 1));
  const auto size = Decimal(name.substr(batch + 3, mark - batch - 3));
  ParsedName parsed;
  parsed.common.stem = name.substr(0, mark + 1);
  parsed.common.extension = name.substr(dot);
  if (!index || !size || *size < 1 || *size > kMaxBatch ||
      (parsed.common.extension != ".bin" && parsed.common.extension != ".npy")) {
    return std::nullopt;
  }
  parsed.common.batch = *size;
  parsed.index = static_cast<std::size_t>(*index);
  return parsed;
}

std::vector<std::string> ListNames(const std::filesystem::path &folder) {
  std::error_code error;
  std::filesystem::directory_iterator entry(folder, error);
  std::vector<std::string> names;
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (name[0] != '.') {  // what file managers and editors leave behind
      names.push_back(name);
    }
  }
  if (error) {
    Fail(folder.string() + ": cannot be listed (" + error.message() + ")");
  }
  return names;
}

void CheckRange(const SampleInput &input, const std::vector<std::int32_t> &values, const std::string &origin) {
  if (!input.range) {
    return;
  }
  const auto outside = std::find_if(values.begin(), values.end(), [&input](std::int32_t value) {
    return value < input.range->first || value > input.range->second;
  });
  if (outside != values.end()) {
    Fail(origin + ": value " + std::to_string(*outside) + " at position " + std::to_string(outside - values.begin()) +
         ", the manifest allows " + std::to_string(input.range->first) + " to " + std::to_string(input.range->second));
  }
}

// Number of ones at the head of the mask; what follows must be zeros.
std::size_t RealTokens(const std::int32_t *mask, std::size_t size, const std::string &origin) {
  const std::int32_t *end = mask + size;
  const std::int32_t *first_padding = std::find_if(mask, end, [](std::int32_t value) { return value != 1; });
  const std::int32_t *wrong = std::find_if(first_padding, end, [](std::int32_t value) { return value != 0; });
  if (wrong != end) {
    Fail(origin + ": the mask must be ones and then zeros, position " + std::to_string(wrong - mask) + " is " +
         std::to_string(*wrong));
  }
  if (first_padding == mask) {
    Fail(origin + ": the mask has no real token");
  }
  return static_cast<std::size_t>(first_padding - mask);
}

}  // namespace

FileNames CheckNames(const std::vector<std::string> &names, const std::string &origin) {
  FileNames common;
  std::vector<bool> seen(names.size(), false);
  for (const std::string &name : names) {
    const auto parsed = ParseName(name);
    if (!parsed) {
      Fail(origin + ": " + name + " is not of the form <task>_bs<bs>_<index>.bin or .npy");
    }
    if (common.count == 0) {
      common = parsed->common;
    } else if (common.stem != parsed->common.stem || common.extension != parsed->common.extension) {
      Fail(origin + ": files of two kinds, " + common.stem + "*" + common.extension + " and " + name);
    }
    if (parsed->index < seen.size()) {  // a larger one means that a smaller one is missing
      seen[parsed->index] = true;
    }
    ++common.count;
  }
  if (names.empty()) {
    Fail(origin + ": holds no sample");
  }
  const auto gap = std::find(seen.begin(), seen.end(), false);
  if (gap != seen.end()) {
    Fail(origin + ": " + common.stem + std::to_string(gap - seen.begin()) + common.extension +
         " is missing, there are " + std::to_string(common.count) + " files");
  }
  return common;
}

std::vector<Sample> SplitSamples(const Manifest &manifest, std::size_t file, std::int64_t batch,
                                 const std::vector<std::vector<std::int32_t>> &values,
                                 const std::vector<std::string> &origins) {
  const auto tokens = static_cast<std::size_t>(manifest.sample_length());
  for (std::size_t i = 0; i < values.size(); ++i) {
    CheckRange(manifest.sample_inputs[i], values[i], origins[i]);
  }
  std::vector<Sample> samples(static_cast<std::size_t>(batch));
  for (std::size_t position = 0; position < samples.size(); ++position) {
    Sample &sample = samples[position];
    sample.file = file;
    sample.position = position;
    sample.length = tokens;
    if (manifest.mask) {
      sample.length = RealTokens(&values[*manifest.mask][position * tokens], tokens, origins[*manifest.mask]);
    }
    for (std::size_t i = 0; i < values.size(); ++i) {
      const std::size_t width = manifest.sample_inputs[i].values_per_token();
      const auto begin = values[i].begin() + static_cast<std::ptrdiff_t>(position * tokens * width);
      sample.values.emplace_back(begin, begin + static_cast<std::ptrdiff_t>(sample.length * width));
    }
  }
  return samples;
}

InputFolder::InputFolder(const std::filesystem::path &root, const Manifest &manifest) : manifest_(manifest) {
  if (!std::filesystem::is_directory(root)) {
    Fail(root.string() + ": the input folder does not exist");
  }
  for (const SampleInput &input : manifest.sample_inputs) {
    Folder folder;
    folder.path = root / input.folder;
    if (!std::filesystem::is_directory(folder.path)) {
      Fail(folder.path.string() + ": the folder for " + input.name + " does not exist");
    }
    folder.names = CheckNames(ListNames(folder.path), folder.path.string());
    folders_.push_back(folder);
    const FileNames &first = folders_.front().names;
    if (folder.names.stem != first.stem || folder.names.count != first.count) {
      Fail(folder.path.string() + ": " + std::to_string(folder.names.count) + " files " + folder.names.stem +
           "*, but " + folders_.front().path.string() + " has " + std::to_string(first.count) + " files " +
           first.stem + "*");
    }
    if (folder.names.extension == ".bin") {
      const std::size_t wanted = static_cast<std::size_t>(folder.names.batch) * ElementCount(input.shape) * 4;
      for (std::size_t file = 0; file < folder.names.count; ++file) {
        const auto path = PathOf(folder, file);
        const std::uint64_t found = FileSize(path, ExitCode::kInput);
        if (found != wanted) {
          Fail(path.string() + ": has " + std::to_string(found) + " bytes, " + input.name + " needs " +
               std::to_string(wanted));
        }
      }
    }
  }
}

std::filesystem::path InputFolder::PathOf(const Folder &folder, std::size_t file) const {
  return folder.path / (folder.names.stem + std::to_string(file) + folder.names.extension);
}

std::vector<Sample> InputFolder::Read(std::size_t file) const {
  std::vector<std::vector<std::int32_t>> values;
  std::vector<std::string> origins;
  for (std::size_t i = 0; i < folders_.size(); ++i) {
    const Folder &folder = folders_[i];
    const SampleFileShape wanted = {folder.names.batch, manifest_.sample_inputs[i].shape};
    const auto path = PathOf(folder, file);
    const std::string bytes = ReadFile(path, MaxFileBytes(wanted), ExitCode::kInput);
    origins.push_back(path.string());
    values.push_back(folder.names.extension == ".npy" ? DecodeNpy(bytes, wanted, path.string())
                                                      : DecodeBin(bytes, wanted, path.string()));
  }
  return SplitSamples(manifest_, file, folders_.front().names.batch, values, origins);
}

}  // namespace infer
