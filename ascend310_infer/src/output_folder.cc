#include "output_folder.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <system_error>

#include "failure.h"
#include "files.h"

namespace infer {
namespace {

namespace fs = std::filesystem;

constexpr const char *kResults = "result_Files";
constexpr const char *kTimes = "time_Result";
constexpr const char *kStaging = ".partial_result";

[[noreturn]] void Fail(const fs::path &path, const std::string &what) {
  throw Failure(ExitCode::kOutput, path.string() + ": " + what);
}

// Only what this program writes may be replaced: a folder of the user's that has the same name is not touched.
void RefuseForeignFiles(const fs::path &folder) {
  if (!fs::exists(fs::symlink_status(folder))) {
    return;
  }
  if (!fs::is_directory(fs::symlink_status(folder))) {
    Fail(folder, "is in the way of the results; move it");
  }
  for (const auto &entry : fs::directory_iterator(folder)) {
    const auto extension = entry.path().extension();
    const bool ours = extension == ".bin" || extension == ".json" || extension == ".txt";
    if (!ours || !entry.is_regular_file()) {
      Fail(entry.path(), "is no result of this program; results would replace its folder, move it");
    }
  }
}

int LockFolder(const fs::path &root) {
  const int descriptor = ::open(root.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) {
    Fail(root, std::string("cannot be opened (") + std::strerror(errno) + ")");
  }
  // Some network file systems know no locks (ENOLCK, ENOTSUP): nothing to be done about two runs there.
  if (::flock(descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    ::close(descriptor);
    Fail(root, "another run is writing its results here");
  }
  return descriptor;
}

template <typename T>
std::string LittleEndian(const std::vector<T> &values) {
  std::string bytes;
  bytes.reserve(values.size() * sizeof(T));
  for (const T value : values) {
    std::uint32_t bits = 0;
    static_assert(sizeof(value) == sizeof(bits));
    std::memcpy(&bits, &value, sizeof(bits));
    for (int shift = 0; shift < 32; shift += 8) {
      bytes.push_back(static_cast<char>(bits >> shift & 0xFF));
    }
  }
  return bytes;
}

}  // namespace

OutputFolder::OutputFolder(const fs::path &root) : root_(root), staging_(root / kStaging) {
  std::error_code error;
  fs::create_directories(root_, error);
  if (error) {
    Fail(root_, "cannot be created (" + error.message() + ")");
  }
  lock_ = LockFolder(root_);
  try {
    RefuseForeignFiles(root_ / kResults);
    RefuseForeignFiles(root_ / kTimes);
    fs::remove_all(staging_);
    fs::create_directories(staging_ / kResults);
    fs::create_directories(staging_ / kTimes);
  } catch (const fs::filesystem_error &failed) {
    ::close(lock_);
    Fail(root_, "cannot be prepared for results (" + failed.code().message() + ")");
  } catch (...) {
    ::close(lock_);
    throw;
  }
}

OutputFolder::~OutputFolder() {
  std::error_code ignored;
  fs::remove_all(staging_, ignored);
  ::close(lock_);
}

void OutputFolder::WriteResult(const std::string &name, std::string_view bytes) const {
  WriteFile(staging_ / kResults / name, bytes);
}

void OutputFolder::WriteTiming(const std::string &name, std::string_view text) const {
  WriteFile(staging_ / kTimes / name, text);
}

// The old folder moves into the staging folder and goes away with it. A kill between the two renames leaves no
// result_Files at all: postprocess then says so instead of scoring old results.
void OutputFolder::Publish() {
  try {
    for (const char *name : {kResults, kTimes}) {
      Sync(staging_ / name);
      if (fs::exists(root_ / name)) {
        fs::rename(root_ / name, staging_ / (std::string("old_") + name));
      }
      fs::rename(staging_ / name, root_ / name);
    }
    Sync(root_);
  } catch (const fs::filesystem_error &failed) {
    Fail(root_, "cannot receive the results (" + failed.code().message() + ")");
  }
}

void ResultWriter::Add(const std::string &base_name, std::size_t position, std::size_t output,
                       const Values &values) {
  const std::string name = base_name + "_" + std::to_string(output) + ".bin";
  const std::string bytes = std::visit([](const auto &all) { return LittleEndian(all); }, values);
  const std::size_t size = bytes.size();
  Pending &pending = pending_[name];
  if (pending.bytes.empty()) {
    pending.bytes.resize(size * count_);
    pending.missing = count_;
  }
  pending.bytes.replace(position * size, size, bytes);
  if (--pending.missing == 0) {
    folder_.WriteResult(name, pending.bytes);
    pending_.erase(name);
  }
}

}  // namespace infer
