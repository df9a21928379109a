// What several tests and the fuzz driver need: manifests, .npy bytes, a temporary folder.
#ifndef ASCEND310_INFER_TESTS_FIXTURES_H_
#define ASCEND310_INFER_TESTS_FIXTURES_H_

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace fixtures {

// Samples of 6 tokens in rows of 8, 2 rows, at most 3 samples a row; one output per token and one per sample.
std::string PackedManifest();

// The same samples, one a row, 2 rows; the mask goes into the graph.
std::string PlainManifest();

// PackedManifest() with the first `from` replaced by `to` (which must be there).
std::string Edited(const std::string &from, const std::string &to);

// Little-endian bytes.
template <typename Integer>
std::string Bytes(const std::vector<Integer> &values) {
  std::string bytes;
  for (const Integer value : values) {
    for (std::size_t i = 0; i < sizeof(Integer); ++i) {
      bytes.push_back(static_cast<char>(static_cast<std::uint64_t>(value) >> (8 * i) & 0xFF));
    }
  }
  return bytes;
}

// A version 1.0 .npy file with this header dict and this data.
std::string Npy(const std::string &header, const std::string &data);

// An empty folder below the system's temporary folder, gone when the object is.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder &) = delete;
  TemporaryFolder &operator=(const TemporaryFolder &) = delete;
  const std::filesystem::path &path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace fixtures

#endif  // ASCEND310_INFER_TESTS_FIXTURES_H_
