// Sample files, their names, their folder.
#include <fstream>

#include "check.h"
#include "files.h"
#include "fixtures.h"
#include "input_folder.h"
#include "sample_file.h"

namespace {

namespace fs = std::filesystem;
using fixtures::Bytes;
using fixtures::Npy;
using infer::DecodeBin;
using infer::DecodeNpy;

const std::vector<std::int32_t> kValues = {1, -2, 3, 70000, 5, 6};
const char *const kHeader = "{'descr': '<i4', 'fortran_order': False, 'shape': (1, 6), }\n";

TEST(sample_file, bin) {
  CHECK_EQUAL(DecodeBin(Bytes(kValues), {1, {6}}, "f"), kValues);
  CHECK_FAILS(kInput, "f: has 20 bytes of values, expected 24", DecodeBin(Bytes(kValues).substr(4), {1, {6}}, "f"));
  CHECK_FAILS(kInput, "expected 48", DecodeBin(Bytes(kValues), {2, {6}}, "f"));
  CHECK_FAILS(kInput, "has 0 bytes", DecodeBin("", {1, {6}}, "f"));
}

TEST(sample_file, npy_of_all_accepted_kinds) {
  CHECK_EQUAL(DecodeNpy(Npy(kHeader, Bytes(kValues)), {1, {6}}, "f"), kValues);
  CHECK_EQUAL(DecodeNpy(Npy("{\"shape\":(6,),\"descr\":\"<i4\",\"fortran_order\":False}", Bytes(kValues)), {1, {6}}, "f"),
              kValues);
  CHECK_EQUAL(DecodeNpy(Npy("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3)}", Bytes(kValues)), {2, {3}}, "f"),
              kValues);
  const std::vector<std::int64_t> wide(kValues.begin(), kValues.end());
  const std::string header = "{'descr': '<i8', 'fortran_order': False, 'shape': (6,), }";
  CHECK_EQUAL(DecodeNpy(Npy(header, Bytes(wide)), {1, {6}}, "f"), kValues);
  std::string second = Npy(kHeader, Bytes(kValues));
  second[6] = 2;
  second.insert(10, 2, '\0');
  CHECK_EQUAL(DecodeNpy(second, {1, {6}}, "f"), kValues);
}

TEST(sample_file, npy_that_does_not_match) {
  const std::string data = Bytes(kValues);
  const auto with = [&data](const std::string &header) { return DecodeNpy(Npy(header, data), {1, {6}}, "f"); };
  CHECK_FAILS(kInput, "has the shape [2, 3], expected [1, 6]", with("{'descr': '<i4', 'fortran_order': False, 'shape': (2, 3)}"));
  CHECK_FAILS(kInput, "has the shape []", with("{'descr': '<i4', 'fortran_order': False, 'shape': ()}"));
  CHECK_FAILS(kInput, "dtype '<f4'", with("{'descr': '<f4', 'fortran_order': False, 'shape': (6,)}"));
  CHECK_FAILS(kInput, "dtype '>i4'", with("{'descr': '>i4', 'fortran_order': False, 'shape': (6,)}"));
  CHECK_FAILS(kInput, "Fortran order", with("{'descr': '<i4', 'fortran_order': True, 'shape': (6,)}"));
  CHECK_FAILS(kInput, "bytes of values", DecodeNpy(Npy(kHeader, data + "x"), {1, {6}}, "f"));
  const std::string header = "{'descr': '<i8', 'fortran_order': False, 'shape': (1,)}";
  CHECK_FAILS(kInput, "value 2147483648 at position 0 does not fit into int32",
              DecodeNpy(Npy(header, Bytes(std::vector<std::int64_t>{2147483648})), {1, {1}}, "f"));
}

TEST(sample_file, damaged_npy) {
  const std::string good = Npy(kHeader, Bytes(kValues));
  for (std::size_t size = 0; size < good.size(); ++size) {
    CHECK_FAILS(kInput, "f: ", DecodeNpy(good.substr(0, size), {1, {6}}, "f"));
  }
  for (const char *header :
       {"", "{", "{}", "{'descr': '<i4'}", "{'descr': '<i4', 'descr': '<i4', 'fortran_order': False, 'shape': (6,)}",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (6,), 'x': 1}", "{'descr': '<i4', 'fortran_order': No, 'shape': (6,)}",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (-6,)}", "{'descr': '<i4', 'fortran_order': False, 'shape': 6}",
        "{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (6,)}",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (6,)} x",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1,6)}",
        "{'descr': '<i4', 'fortran_order': False, 'shape': (99999999999999999999,)}"}) {
    CHECK_FAILS(kInput, "f: ", DecodeNpy(Npy(header, Bytes(kValues)), {1, {6}}, "f"));
  }
}

TEST(input_folder, names) {
  const auto names = infer::CheckNames({"squad_bs1_1.bin", "squad_bs1_0.bin", "squad_bs1_2.bin"}, "d");
  CHECK_EQUAL(names.stem, "squad_bs1_");
  CHECK_EQUAL(names.extension, ".bin");
  CHECK_EQUAL(names.batch, 1);
  CHECK_EQUAL(names.count, 3u);
  CHECK_EQUAL(infer::CheckNames({"my_task_bs16_0.npy"}, "d").batch, 16);
  CHECK_FAILS(kInput, "d: holds no sample", infer::CheckNames({}, "d"));
  CHECK_FAILS(kInput, "squad_bs1_1.bin is missing", infer::CheckNames({"squad_bs1_0.bin", "squad_bs1_2.bin"}, "d"));
  CHECK_FAILS(kInput, "squad_bs1_0.bin is missing", infer::CheckNames({"squad_bs1_1.bin"}, "d"));
  CHECK_FAILS(kInput, "two kinds", infer::CheckNames({"squad_bs1_0.bin", "squad_bs1_1.npy"}, "d"));
  CHECK_FAILS(kInput, "two kinds", infer::CheckNames({"squad_bs1_0.bin", "ner_bs1_1.bin"}, "d"));
  for (const char *name :
       {"x", "squad.bin", "squad_bs1.bin", "squad_bs1_.bin", "squad_bs_0.bin", "squad_bs0_0.bin", "squad_bs1_00.bin",
        "squad_bs1_0.txt", "squad_bs1_0", "_bs1_0.bin", "squad_bs1_-1.bin", "squad_bs9999_0.bin", "squad_bs1_9999999999.bin",
        ".bin", "_.bin", "_0.bin"}) {
    CHECK_FAILS(kInput, "is not of the form", infer::CheckNames({name}, "d"));
  }
}

// Two files of two samples each: lengths 3, 6, 1, 2.
void WriteSamples(const fs::path &root) {
  const std::vector<std::vector<std::int32_t>> masks = {{1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1},
                                                        {1, 0, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0}};
  for (const char *folder : {"00_data", "01_data", "02_data"}) {
    fs::create_directories(root / folder);
  }
  for (int file = 0; file < 2; ++file) {
    std::vector<std::int32_t> ids;
    std::vector<std::int64_t> concepts;
    for (int i = 0; i < 12; ++i) {
      ids.push_back(file * 20 + i);
      concepts.push_back(100 * i);
      concepts.push_back(100 * i + 1);
    }
    const std::string name = "t_bs2_" + std::to_string(file);
    infer::WriteFile(root / "00_data" / (name + ".bin"), Bytes(ids));
    infer::WriteFile(root / "01_data" / (name + ".bin"), Bytes(masks[static_cast<std::size_t>(file)]));
    infer::WriteFile(root / "02_data" / (name + ".npy"),
                     Npy("{'descr': '<i8', 'fortran_order': False, 'shape': (2, 6, 2)}", Bytes(concepts)));
  }
}

TEST(input_folder, samples_are_cut_to_their_real_tokens) {
  const fixtures::TemporaryFolder root;
  WriteSamples(root.path());
  const auto manifest = infer::ParseManifest(fixtures::PackedManifest(), "m");
  const infer::InputFolder folder(root.path(), manifest);
  CHECK_EQUAL(folder.file_count(), 2u);
  CHECK_EQUAL(folder.samples_per_file(), 2u);
  CHECK_EQUAL(folder.BaseName(1), "t_bs2_1");
  const auto samples = folder.Read(1);
  CHECK_EQUAL(samples.size(), 2u);
  CHECK_EQUAL(samples[1].file, 1u);
  CHECK_EQUAL(samples[1].position, 1u);
  CHECK_EQUAL(samples[1].length, 2u);
  CHECK_EQUAL(samples[0].values[0], std::vector<std::int32_t>{20});
  CHECK_EQUAL(samples[1].values[0], std::vector<std::int32_t>{26, 27});
  CHECK_EQUAL(samples[1].values[2], std::vector<std::int32_t>{600, 601, 700, 701});
}

TEST(input_folder, bad_folders_are_refused) {
  const auto manifest = infer::ParseManifest(fixtures::PackedManifest(), "m");
  const auto refused = [&manifest](const char *message, const std::function<void(const fs::path &)> &damage) {
    const fixtures::TemporaryFolder root;
    WriteSamples(root.path());
    damage(root.path());
    CHECK_FAILS(kInput, message, {
      const infer::InputFolder folder(root.path(), manifest);
      folder.Read(0);
      folder.Read(1);
    });
  };
  refused("the folder for attention_mask does not exist", [](const fs::path &p) { fs::remove_all(p / "01_data"); });
  refused("t_bs2_0.bin: has 4 bytes, input_ids needs 48",
          [](const fs::path &p) { infer::WriteFile(p / "00_data/t_bs2_0.bin", "1234"); });
  refused("1 files t_bs2_*, but", [](const fs::path &p) { fs::remove(p / "01_data/t_bs2_1.bin"); });
  refused("is not a regular file", [](const fs::path &p) {
    fs::remove(p / "00_data/t_bs2_1.bin");
    fs::create_directory(p / "00_data/t_bs2_1.bin");
  });
  refused("value 100 at position 2, the manifest allows 0 to 99", [](const fs::path &p) {
    infer::WriteFile(p / "00_data/t_bs2_0.bin", Bytes(std::vector<std::int32_t>{1, 2, 100, 0, 0, 0, 0, 0, 0, 0, 0, 0}));
  });
  refused("the mask must be ones and then zeros, position 2 is 1", [](const fs::path &p) {
    infer::WriteFile(p / "01_data/t_bs2_1.bin", Bytes(std::vector<std::int32_t>{1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0}));
  });
  refused("the mask has no real token", [](const fs::path &p) {
    infer::WriteFile(p / "01_data/t_bs2_1.bin", Bytes(std::vector<std::int32_t>(12, 0)));
  });
  refused("is not of the form", [](const fs::path &p) { infer::WriteFile(p / "01_data/readme.txt", ""); });
}

TEST(input_folder, hidden_files_and_other_folders_do_not_matter) {
  const fixtures::TemporaryFolder root;
  WriteSamples(root.path());
  infer::WriteFile(root.path() / "00_data" / ".DS_Store", "x");
  fs::create_directory(root.path() / "03_data");
  const auto manifest = infer::ParseManifest(fixtures::PackedManifest(), "m");
  CHECK_EQUAL(infer::InputFolder(root.path(), manifest).file_count(), 2u);
  CHECK_FAILS(kInput, "the input folder does not exist", infer::InputFolder(root.path() / "no", manifest));
}

}  // namespace
