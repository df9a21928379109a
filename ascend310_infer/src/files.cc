#include "files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <vector>

#include "sha256.h"

namespace infer {
namespace {

class Descriptor {
 public:
  Descriptor(const std::filesystem::path &path, int flags, mode_t mode = 0)
      : value_(::open(path.c_str(), flags | O_CLOEXEC, mode)) {}
  ~Descriptor() {
    if (value_ >= 0) {
      ::close(value_);
    }
  }
  Descriptor(const Descriptor &) = delete;
  Descriptor &operator=(const Descriptor &) = delete;

  int get() const { return value_; }
  int Close() {
    const int result = ::close(value_);
    value_ = -1;
    return result;
  }

 private:
  int value_;
};

[[noreturn]] void Fail(ExitCode code, const std::filesystem::path &path, const std::string &what) {
  throw Failure(code, path.string() + ": " + what);
}

[[noreturn]] void FailErrno(ExitCode code, const std::filesystem::path &path, const std::string &action) {
  const int error = errno;
  Fail(code, path, action + " (" + std::strerror(error) + ")");
}

std::uint64_t RegularSize(int descriptor, const std::filesystem::path &path, ExitCode code) {
  struct stat status = {};
  if (::fstat(descriptor, &status) != 0) {
    FailErrno(code, path, "cannot be examined");
  }
  if (!S_ISREG(status.st_mode)) {
    Fail(code, path, "is not a regular file");
  }
  return static_cast<std::uint64_t>(status.st_size);
}

std::size_t ReadSome(int descriptor, char *buffer, std::size_t size, const std::filesystem::path &path, ExitCode code) {
  ssize_t got = 0;
  do {
    got = ::read(descriptor, buffer, size);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    FailErrno(code, path, "cannot be read");
  }
  return static_cast<std::size_t>(got);
}

}  // namespace

std::uint64_t FileSize(const std::filesystem::path &path, ExitCode code) {
  struct stat status = {};
  if (::stat(path.c_str(), &status) != 0) {
    FailErrno(code, path, "cannot be opened");
  }
  if (!S_ISREG(status.st_mode)) {
    Fail(code, path, "is not a regular file");
  }
  return static_cast<std::uint64_t>(status.st_size);
}

std::string ReadFile(const std::filesystem::path &path, std::size_t limit, ExitCode code) {
  // O_NONBLOCK: opening a named pipe must end in "is not a regular file", not in waiting for a writer.
  const Descriptor file(path, O_RDONLY | O_NONBLOCK);
  if (file.get() < 0) {
    FailErrno(code, path, "cannot be opened");
  }
  const std::uint64_t size = RegularSize(file.get(), path, code);
  if (size > limit) {
    Fail(code, path, "has " + std::to_string(size) + " bytes, at most " + std::to_string(limit) + " are allowed");
  }
  std::string bytes(static_cast<std::size_t>(size), '\0');
  std::size_t filled = 0;
  while (filled < bytes.size()) {
    const std::size_t got = ReadSome(file.get(), bytes.data() + filled, bytes.size() - filled, path, code);
    if (got == 0) {
      Fail(code, path, "became shorter while it was read");
    }
    filled += got;
  }
  return bytes;
}

std::string HashFile(const std::filesystem::path &path, ExitCode code) {
  const Descriptor file(path, O_RDONLY | O_NONBLOCK);
  if (file.get() < 0) {
    FailErrno(code, path, "cannot be opened");
  }
  RegularSize(file.get(), path, code);
  Sha256 hash;
  std::vector<char> buffer(1u << 20);
  while (const std::size_t got = ReadSome(file.get(), buffer.data(), buffer.size(), path, code)) {
    hash.Update(buffer.data(), got);
  }
  return hash.Finish();
}

void WriteFile(const std::filesystem::path &path, std::string_view bytes) {
  Descriptor file(path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (file.get() < 0) {
    FailErrno(ExitCode::kOutput, path, "cannot be created");
  }
  while (!bytes.empty()) {
    const ssize_t put = ::write(file.get(), bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) {
      continue;
    }
    if (put < 0) {
      FailErrno(ExitCode::kOutput, path, "cannot be written");
    }
    bytes.remove_prefix(static_cast<std::size_t>(put));
  }
  if (file.Close() != 0) {
    FailErrno(ExitCode::kOutput, path, "cannot be written");
  }
}

void Sync(const std::filesystem::path &path) {
  const Descriptor file(path, O_RDONLY);
  // Some file systems cannot flush a folder (EINVAL); the rename still is atomic there.
  if (file.get() < 0 || (::fsync(file.get()) != 0 && errno != EINVAL)) {
    FailErrno(ExitCode::kOutput, path, "cannot be flushed to the disk");
  }
}

}  // namespace infer
