// The command line and the output folder.
#include <fstream>
#include <memory>

#include "check.h"
#include "files.h"
#include "fixtures.h"
#include "flags.h"
#include "output_folder.h"

namespace {

namespace fs = std::filesystem;
using infer::ParseFlags;

TEST(flags, both_spellings) {
  const auto flags = ParseFlags({"--mindir_path=a/m.mindir", "--input_dir", "in", "--device_type=Ascend", "--device_id",
                                 "3", "--warmup=0", "--threads=4", "--output_dir=out"});
  CHECK_EQUAL(flags.model, fs::path("a/m.mindir"));
  CHECK_EQUAL(flags.manifest, fs::path("a/manifest.json"));
  CHECK_EQUAL(flags.input_dir, fs::path("in"));
  CHECK_EQUAL(flags.output_dir, fs::path("out"));
  CHECK_EQUAL(flags.device_type, "Ascend");
  CHECK_EQUAL(flags.device_id, 3);
  CHECK_EQUAL(flags.warmup, 0);
  CHECK_EQUAL(flags.threads, 4);
}

TEST(flags, a_folder_stands_for_its_export) {
  const fixtures::TemporaryFolder folder;
  const auto by_model = ParseFlags({"--mindir_path", folder.path().string(), "--input_dir=in"});
  CHECK_EQUAL(by_model.manifest, folder.path() / "manifest.json");
  CHECK(by_model.model.empty());
  CHECK_EQUAL(ParseFlags({"--manifest", folder.path().string(), "--input_dir=in"}).manifest, by_model.manifest);
}

TEST(flags, mistakes_are_named) {
  CHECK_FAILS(kUsage, "--input_dir is missing", ParseFlags({"--mindir_path=m"}));
  CHECK_FAILS(kUsage, "--mindir_path or --manifest is missing", ParseFlags({"--input_dir=i"}));
  CHECK_FAILS(kUsage, "unknown flag --batch", ParseFlags({"--batch=1"}));
  CHECK_FAILS(kUsage, "'x' is not a flag", ParseFlags({"x"}));
  CHECK_FAILS(kUsage, "'-x' is not a flag", ParseFlags({"-x"}));
  CHECK_FAILS(kUsage, "--input_dir: the value is empty", ParseFlags({"--input_dir"}));
  CHECK_FAILS(kUsage, "--input_dir: the value is empty", ParseFlags({"--input_dir="}));
  CHECK_FAILS(kUsage, "is given twice", ParseFlags({"--input_dir=a", "--input_dir=b"}));
  CHECK_FAILS(kUsage, "neither CPU nor Ascend", ParseFlags({"--device_type=GPU"}));
  for (const char *number : {"-1", "1.5", "x", "99999999999999", "1025", "0"}) {
    CHECK_FAILS(kUsage, "is not a number from 1 to 1024", ParseFlags({"--threads", number}));
  }
  CHECK(ParseFlags({"--warmup", "1", "--help"}).help);
}

std::string Content(const fs::path &path) { return infer::ReadFile(path, 1 << 20, infer::ExitCode::kOutput); }

TEST(output_folder, a_new_set_replaces_the_old_one) {
  const fixtures::TemporaryFolder root;
  for (const char *name : {"a_0.bin", "b_0.bin"}) {
    infer::OutputFolder folder(root.path() / "out");
    folder.WriteResult(name, name);
    folder.WriteTiming("timing.json", name);
    folder.Publish();
  }
  const fs::path out = root.path() / "out";
  CHECK(!fs::exists(out / "result_Files/a_0.bin"));
  CHECK_EQUAL(Content(out / "result_Files/b_0.bin"), "b_0.bin");
  CHECK_EQUAL(Content(out / "time_Result/timing.json"), "b_0.bin");
  CHECK_EQUAL(std::distance(fs::directory_iterator(out), fs::directory_iterator()), 2);
}

TEST(output_folder, a_run_that_fails_leaves_the_old_results) {
  const fixtures::TemporaryFolder root;
  {
    infer::OutputFolder folder(root.path());
    folder.WriteResult("a_0.bin", "old");
    folder.Publish();
  }
  {
    infer::OutputFolder folder(root.path());
    folder.WriteResult("a_0.bin", "new");
  }
  CHECK_EQUAL(Content(root.path() / "result_Files/a_0.bin"), "old");
  fs::create_directories(root.path() / ".partial_result/result_Files");
  infer::WriteFile(root.path() / ".partial_result/result_Files/z_0.bin", "of a killed run");
  infer::OutputFolder folder(root.path());
  folder.Publish();
  CHECK(fs::is_empty(root.path() / "result_Files"));
}

TEST(output_folder, others_are_kept_out) {
  const fixtures::TemporaryFolder root;
  auto first = std::make_unique<infer::OutputFolder>(root.path());
  CHECK_FAILS(kOutput, "another run is writing", infer::OutputFolder(root.path()));
  first.reset();
  fs::create_directory(root.path() / "result_Files");
  infer::WriteFile(root.path() / "result_Files/thesis.docx", "");
  CHECK_FAILS(kOutput, "thesis.docx: is no result of this program", infer::OutputFolder(root.path()));
  CHECK_EQUAL(Content(root.path() / "result_Files/thesis.docx"), "");
  CHECK_FAILS(kOutput, "cannot be created", infer::OutputFolder(root.path() / "result_Files/thesis.docx/out"));
}

TEST(output_folder, samples_of_one_file_are_put_together) {
  const fixtures::TemporaryFolder root;
  infer::OutputFolder folder(root.path());
  infer::ResultWriter writer(folder, 2);
  writer.Add("t_bs2_0", 1, 0, std::vector<float>{3.0f, 0.5f});
  writer.Add("t_bs2_0", 0, 1, std::vector<std::int32_t>{7});
  writer.Add("t_bs2_0", 0, 0, std::vector<float>{1.0f, -2.0f});
  folder.Publish();
  const std::string bytes("\0\0\x80\x3f\0\0\0\xc0\0\0\x40\x40\0\0\0\x3f", 16);
  CHECK_EQUAL(Content(root.path() / "result_Files/t_bs2_0_0.bin"), bytes);
  CHECK(!fs::exists(root.path() / "result_Files/t_bs2_0_1.bin"));
}

TEST(files, what_cannot_be_read_is_named) {
  const fixtures::TemporaryFolder root;
  infer::WriteFile(root.path() / "f", "0123456789");
  CHECK_EQUAL(infer::HashFile(root.path() / "f", infer::ExitCode::kModel),
              "84d89877f0d4041efb6bf91a16f0248f2fd573e6af05c19f96bedb9f882f7882");
  CHECK_FAILS(kInput, "has 10 bytes, at most 9", infer::ReadFile(root.path() / "f", 9, infer::ExitCode::kInput));
  CHECK_FAILS(kModel, "No such file", infer::HashFile(root.path() / "no", infer::ExitCode::kModel));
  CHECK_FAILS(kModel, "is not a regular file", infer::HashFile(root.path(), infer::ExitCode::kModel));
  CHECK_FAILS(kInput, "is not a regular file", infer::ReadFile("/dev/null", 9, infer::ExitCode::kInput));
}

}  // namespace
