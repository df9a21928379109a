// Reading and writing of whole files, with the caller's exit code for what goes wrong.
#ifndef ASCEND310_INFER_INC_FILES_H_
#define ASCEND310_INFER_INC_FILES_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "failure.h"

namespace infer {

// Size in bytes of a regular file.
std::uint64_t FileSize(const std::filesystem::path &path, ExitCode code);

// The bytes of a regular file of at most `limit` bytes.
std::string ReadFile(const std::filesystem::path &path, std::size_t limit, ExitCode code);

// Hexadecimal SHA-256 of a file of any size.
std::string HashFile(const std::filesystem::path &path, ExitCode code);

// Create or replace a file, no temporary name: for files inside a folder that is renamed as a whole.
void WriteFile(const std::filesystem::path &path, std::string_view bytes);

// Flush a file's or a folder's content to the disk.
void Sync(const std::filesystem::path &path);

}  // namespace infer

#endif  // ASCEND310_INFER_INC_FILES_H_
