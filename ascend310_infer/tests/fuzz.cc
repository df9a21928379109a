// fuzz SEED RUNS: feeds mutated manifests, sample files, file names and command lines to the code that parses them.
// Every input must end in success or in the exit code of its kind. Built with sanitizers (SANITIZE=ON) it is a check
// of memory safety; the same SEED gives the same inputs. A corpus-driven fuzzer would need clang on the host.
#include <algorithm>
#include <exception>
#include <functional>
#include <iostream>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "failure.h"
#include "files.h"
#include "fixtures.h"
#include "flags.h"
#include "input_folder.h"
#include "json.h"
#include "labels.h"
#include "manifest.h"
#include "packing.h"
#include "sample_file.h"

namespace {

using infer::ExitCode;
using infer::Failure;

// Fragments that parsers stumble over.
const std::vector<std::string> kFragments = {
  "{", "}", "[", "]", ",", ":", "\"", "\\", "\\u", "\\ud800", "null", "true", "-1", "0", "1", "2", "6", "8", "1e308", "1e999",
  "-0", "0.5", "2147483647", "2147483648", "-2147483649", "9223372036854775807", "9223372036854775808", "1048576",
  "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "\xEF\xBB\xBF", "\xC0\x80", "\xED\xA0\x80", std::string(1, '\0'), "..", "/", "'",
  "(", ")", "<i4", "<i8", "<f4", "|O", "True", "False", "shape", "descr", "_bs", "_", ".npy", ".bin", "--", "=",
  "attention_mask", "sequence_ids", "input_ids", "range", "token", "sample", "\xFF\xFF\xFF\xFF", "\x01"};

class Mutator {
 public:
  explicit Mutator(std::uint32_t seed) : random_(seed) {}

  std::size_t Below(std::size_t limit) { return limit == 0 ? 0 : random_() % limit; }

  std::string Mutate(std::string text) {
    for (std::size_t rounds = 1 + Below(4); rounds > 0; --rounds) {
      Once(&text);
    }
    return text;
  }

 private:
  void Once(std::string *text) {
    const std::size_t at = Below(text->size() + 1);
    const std::size_t span = std::min(text->size() - at, 1 + Below(Below(4) == 0 ? 64 : 4));
    switch (Below(8)) {
      case 0:
        text->insert(at, kFragments[Below(kFragments.size())]);
        break;
      case 1:
        text->replace(at, span, kFragments[Below(kFragments.size())]);
        break;
      case 2:
        text->erase(at, span);
        break;
      case 3:
        text->insert(Below(text->size() + 1), text->substr(at, span));
        break;
      case 4:
        text->resize(Below(4) == 0 ? at : text->size());
        break;
      case 5:
        ReplaceNumber(text, at);
        break;
      default:
        if (at < text->size()) {
          (*text)[at] = static_cast<char>(Below(2) == 0 ? random_() : (*text)[at] ^ (1 << Below(8)));
        }
    }
  }

  // The number behind `at` by another fragment: reaches past the syntax checks far more often than a random byte.
  void ReplaceNumber(std::string *text, std::size_t at) {
    const std::size_t begin = text->find_first_of("0123456789", at);
    if (begin != std::string::npos) {
      const std::size_t end = std::min(text->find_first_not_of("0123456789", begin), text->size());
      text->replace(begin, end - begin, Below(2) == 0 ? std::to_string(Below(12)) : kFragments[Below(kFragments.size())]);
    }
  }

  std::mt19937 random_;
};

void Require(bool holds, const char *what) {
  if (!holds) {
    throw std::logic_error(what);
  }
}

// What happens to samples behind the parser, where the shapes are small enough to be allocated in every run.
void PackAndUnpack(const infer::Manifest &manifest, Mutator *mutator) {
  std::size_t elements = infer::ElementCount(manifest.sample_inputs[0].shape);
  for (const auto &input : manifest.inputs) {
    elements += infer::ElementCount(input.shape);
  }
  std::vector<infer::Values> outputs;
  for (const auto &output : manifest.outputs) {
    elements += infer::ElementCount(output.shape);
    const std::size_t size = elements < 100000 ? infer::ElementCount(output.shape) : 0;
    if (output.dtype == infer::DType::kInt32) {
      outputs.emplace_back(std::vector<std::int32_t>(size, 1));
    } else {
      outputs.emplace_back(std::vector<float>(size, 1.0f));
    }
  }
  if (elements >= 100000) {
    return;
  }
  std::size_t left = 1 + mutator->Below(20);
  infer::Batcher batcher(manifest, [&]() {
    std::vector<infer::Sample> samples;
    if (left-- > 0) {
      infer::Sample sample;
      sample.length = manifest.mask ? 1 + mutator->Below(static_cast<std::size_t>(manifest.sample_length()))
                                    : static_cast<std::size_t>(manifest.sample_length());
      for (const auto &input : manifest.sample_inputs) {
        sample.values.emplace_back(sample.length * input.values_per_token(), 1);
      }
      samples.push_back(sample);
    } else {
      left = 0;
    }
    return samples;
  });
  for (auto rows = batcher.Next(); !rows.empty(); rows = batcher.Next()) {
    for (const auto &values : infer::FillInputs(manifest, rows)) {
      Require(!values.empty(), "an input without values");
    }
    const auto labelled = infer::LabelOutput(manifest);
    infer::SplitOutputs(manifest, rows, outputs, [&](const infer::Sample &sample, std::size_t k, infer::Values values) {
      Require(std::visit([](const auto &all) { return !all.empty(); }, values), "a result without values");
      if (k == labelled && manifest.labels.size() > 1) {
        infer::LabelBook book(manifest, k, 1);
        book.Add(0, sample.length, values);
        Require(!book.Text().empty() && !book.Summary().empty(), "a sample without a label");
      }
    });
  }
}

struct Target {
  const char *name;
  ExitCode refusal;
  std::function<void(Mutator *)> run;
  long accepted = 0;
  long refused = 0;
};

void FuzzManifest(Mutator *mutator) {
  const std::string text = mutator->Below(2) == 0 ? fixtures::PackedManifest() : fixtures::PlainManifest();
  PackAndUnpack(infer::ParseManifest(mutator->Mutate(text), "m"), mutator);
}

const infer::Manifest &Plain() {
  static const infer::Manifest manifest = [] {
    infer::Manifest parsed = infer::ParseManifest(fixtures::PlainManifest(), "m");
    parsed.sample_inputs.resize(2);
    return parsed;
  }();
  return manifest;
}

const std::string kMask = fixtures::Bytes(std::vector<std::int32_t>{1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 0});

// `ids` and the mask as the values of a file of two samples.
void Split(const std::vector<std::int32_t> &ids, const std::vector<std::int32_t> &mask) {
  for (const auto &sample : infer::SplitSamples(Plain(), 0, 2, {ids, mask}, {"ids", "mask"})) {
    Require(sample.length >= 1 && sample.length <= 6 && sample.values[0].size() == sample.length, "a wrong length");
  }
}

void FuzzNpy(Mutator *mutator) {
  const bool wide = mutator->Below(2) == 0;
  const std::string header = std::string("{'descr': '") + (wide ? "<i8" : "<i4") +
                             "', 'fortran_order': False, 'shape': (2, 6), }   \n";
  const std::string data = wide ? fixtures::Bytes(std::vector<std::int64_t>(12, 42)) : std::string(48, '\x02');
  Split(infer::DecodeNpy(mutator->Mutate(fixtures::Npy(header, data)), {2, {6}}, "f"),
        infer::DecodeBin(kMask, {2, {6}}, "mask"));
}

void FuzzBin(Mutator *mutator) {
  const std::string ids = fixtures::Bytes(std::vector<std::int32_t>(12, 7));
  const bool which = mutator->Below(2) == 0;
  Split(infer::DecodeBin(which ? mutator->Mutate(ids) : ids, {2, {6}}, "ids"),
        infer::DecodeBin(which ? kMask : mutator->Mutate(kMask), {2, {6}}, "mask"));
}

void FuzzNames(Mutator *mutator) {
  std::vector<std::string> names = {"squad_bs1_0.bin", "squad_bs1_1.bin", "squad_bs1_2.bin"};
  std::string &name = names[mutator->Below(3)];
  name = mutator->Mutate(name);
  const auto common = infer::CheckNames(names, "d");
  Require(common.count == 3 && common.batch >= 1, "a wrong count");
}

void FuzzFlags(Mutator *mutator) {
  std::vector<std::string> arguments = {"--mindir_path=m.mindir", "--input_dir", "in", "--threads=2", "--warmup", "0"};
  std::string &argument = arguments[mutator->Below(arguments.size())];
  argument = mutator->Mutate(argument);
  infer::ParseFlags(arguments);
}

// The same on real files, through the folder.
void FuzzFolder(Mutator *mutator, const std::filesystem::path &root) {
  const std::string ids = fixtures::Bytes(std::vector<std::int32_t>(12, 7));
  const bool which = mutator->Below(2) == 0;
  for (const char *folder : {"00_data", "01_data"}) {
    std::filesystem::remove_all(root / folder);
    std::filesystem::create_directories(root / folder);
  }
  infer::WriteFile(root / "00_data/t_bs2_0.bin", which ? mutator->Mutate(ids) : ids);
  infer::WriteFile(root / "01_data/t_bs2_0.bin", which ? kMask : mutator->Mutate(kMask));
  const infer::InputFolder folder(root, Plain());
  Require(folder.Read(0).size() == 2, "a wrong number of samples");
}

void RunOnce(Target *target, Mutator *mutator) {
  try {
    target->run(mutator);
    ++target->accepted;
  } catch (const Failure &failure) {
    Require(failure.code() == target->refusal, "another exit code than that of its kind");
    Require(failure.what()[0] != '\0', "a refusal without a reason");
    ++target->refused;
  }
}

}  // namespace

int main(int argc, char **argv) {
  const std::uint32_t seed = argc == 3 ? static_cast<std::uint32_t>(std::stoul(argv[1])) : 1;
  const long runs = argc == 3 ? std::stol(argv[2]) : 1000;
  const fixtures::TemporaryFolder root;
  const auto folder = [&root](Mutator *mutator) { FuzzFolder(mutator, root.path()); };
  std::vector<Target> targets = {
    {"manifest", ExitCode::kManifest, FuzzManifest}, {"npy", ExitCode::kInput, FuzzNpy},
    {"bin", ExitCode::kInput, FuzzBin},              {"names", ExitCode::kInput, FuzzNames},
    {"flags", ExitCode::kUsage, FuzzFlags},          {"folder", ExitCode::kInput, folder}};
  for (long run = 0; run < runs; ++run) {
    // Half of all inputs are manifests, the richest format; its own seed makes each input repeatable alone.
    Target &target = targets[run % 2 == 0 ? 0 : 1 + static_cast<std::size_t>(run / 2) % (targets.size() - 1)];
    Mutator mutator(seed * 1000003u + static_cast<std::uint32_t>(run));
    try {
      RunOnce(&target, &mutator);
    } catch (const std::exception &error) {
      std::cerr << target.name << ", seed " << seed << ", run " << run << ": " << error.what() << std::endl;
      return 1;
    }
  }
  for (const Target &target : targets) {
    std::cout << target.name << ": " << target.accepted << " accepted, " << target.refused << " refused" << std::endl;
    if (runs >= 500 && (target.accepted == 0 || target.refused == 0)) {
      std::cerr << target.name << ": the mutations reach only one outcome" << std::endl;
      return 1;
    }
  }
  std::cout << runs << " inputs" << std::endl;
  return 0;
}
