// Runs any model of the suite over a folder of samples: manifest in, result files and timing out.
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <optional>

#include "failure.h"
#include "files.h"
#include "flags.h"
#include "input_folder.h"
#include "json.h"
#include "labels.h"
#include "manifest.h"
#include "output_folder.h"
#include "packing.h"
#include "session.h"
#include "statistics.h"

namespace infer {
namespace {

constexpr double kReportSeconds = 10.0;

class Stopwatch {
 public:
  double Seconds() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// What a container or taskset allows, not what the machine has.
int UsableCores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  return ::sched_getaffinity(0, sizeof(set), &set) == 0 ? std::max(1, CPU_COUNT(&set)) : 1;
}

std::filesystem::path CheckedModel(const Flags &flags, const Manifest &manifest) {
  const auto model = flags.model.empty() ? flags.manifest.parent_path() / manifest.artefact_file : flags.model;
  if (HashFile(model, ExitCode::kModel) != manifest.artefact_sha256) {
    throw Failure(ExitCode::kModel, model.string() + ": is not the file that was exported with " +
                                      flags.manifest.string() + " (its SHA-256 differs)");
  }
  return model;
}

void Report(const RunTimes &times, std::size_t total, double seconds) {
  std::cerr << times.samples << "/" << total << " samples, " << static_cast<double>(times.samples) / seconds
            << " samples/s" << std::endl;
}

// Reads, computes and writes batch by batch.
class Runner {
 public:
  Runner(const Manifest &manifest, const InputFolder &inputs, const OutputFolder &outputs, Session *session)
      : manifest_(manifest), inputs_(inputs), writer_(outputs, inputs.samples_per_file()), session_(session),
        label_output_(LabelOutput(manifest)) {
    if (label_output_) {
      labels_.emplace(manifest, *label_output_, inputs.file_count() * inputs.samples_per_file());
    }
  }

  // The labels of all samples after a run; none where the model has no labels.
  const std::optional<LabelBook> &labels() const { return labels_; }

  // The clock starts when the first batch has warmed the model up.
  RunTimes Run(int warmup) {
    std::size_t file = 0;
    Batcher batcher(manifest_, [&]() {
      return file < inputs_.file_count() ? inputs_.Read(file++) : std::vector<Sample>();
    });
    Stopwatch reading;
    std::vector<Row> rows = batcher.Next();
    const double first_read = reading.Seconds();
    const auto first_inputs = FillInputs(manifest_, rows);
    for (int i = 0; i < warmup; ++i) {
      session_->Run(first_inputs);
    }
    const Stopwatch watch;
    double next_report = kReportSeconds;
    for (; !rows.empty(); rows = batcher.Next()) {
      RunBatch(rows);
      if (watch.Seconds() > next_report) {
        Report(times_, inputs_.file_count() * inputs_.samples_per_file(), watch.Seconds());
        next_report = watch.Seconds() + kReportSeconds;
      }
    }
    times_.warmup = warmup;
    times_.total_seconds = first_read + watch.Seconds();
    return times_;
  }

 private:
  void RunBatch(const std::vector<Row> &rows) {
    const auto inputs = FillInputs(manifest_, rows);
    const Stopwatch watch;
    const auto outputs = session_->Run(inputs);
    times_.batch_ms.push_back(watch.Seconds() * 1000.0);
    for (const Row &row : rows) {
      times_.samples += row.size();
      for (const Sample &sample : row) {
        times_.tokens += sample.length;
      }
    }
    times_.positions += static_cast<std::size_t>(manifest_.rows() * manifest_.row_length());
    SplitOutputs(manifest_, rows, outputs, [this](const Sample &sample, std::size_t k, Values values) {
      const std::string name = inputs_.BaseName(sample.file);
      const auto *reals = std::get_if<std::vector<float>>(&values);
      if (reals != nullptr && !std::all_of(reals->begin(), reals->end(), [](float real) { return std::isfinite(real); })) {
        throw Failure(ExitCode::kPredict, manifest_.outputs[k].name + " of " + name + " is not a finite number");
      }
      if (k == label_output_) {
        labels_->Add(sample.file * inputs_.samples_per_file() + sample.position, sample.length, values);
      }
      writer_.Add(name, sample.position, k, values);
    });
  }

  const Manifest &manifest_;
  const InputFolder &inputs_;
  ResultWriter writer_;
  Session *session_;
  RunTimes times_;
  std::optional<std::size_t> label_output_;
  std::optional<LabelBook> labels_;
};

void Infer(const Flags &flags) {
  const std::string text = ReadFile(flags.manifest, json::kMaxBytes, ExitCode::kManifest);
  const Manifest manifest = ParseManifest(text, flags.manifest.string());
  const auto model = CheckedModel(flags, manifest);
  const InputFolder inputs(flags.input_dir, manifest);
  OutputFolder outputs(flags.output_dir);
  SessionOptions options;
  options.device_type = flags.device_type;
  options.device_id = flags.device_id;
  options.threads = flags.threads > 0 ? flags.threads : UsableCores();
  const Stopwatch building;
  Session session(model, manifest, options);
  const double build_seconds = building.Seconds();
  Runner runner(manifest, inputs, outputs, &session);
  RunTimes times = runner.Run(flags.warmup);
  times.build_seconds = build_seconds;
  times.threads = options.threads;
  times.device = flags.device_type;
  times.model = manifest.model + "/" + manifest.task;
  const std::string line = PerformLine(times);
  outputs.WriteTiming("timing.json", TimingJson(times));
  outputs.WriteTiming("test_perform_static.txt", line);
  if (runner.labels()) {
    outputs.WriteResult("labels.txt", runner.labels()->Text());
  }
  outputs.Publish();
  if (runner.labels()) {
    std::cout << "labels: " << runner.labels()->Summary() << std::endl;
  }
  std::cout << line << times.samples << " samples in " << times.total_seconds << " s" << std::endl;
}

// MindSpore logs warnings and errors of its own beside our message; whoever wants them sets GLOG_v. The level is read
// when its libraries are loaded, before main, so the program has to start once more.
void SilenceRuntimeLog(char **argv) {
  if (::getenv("GLOG_v") == nullptr && ::setenv("GLOG_v", "4", 1) == 0) {
    ::execv("/proc/self/exe", argv);
  }
}

int Main(const std::vector<std::string> &arguments, char **argv) {
  try {
    const Flags flags = ParseFlags(arguments);
    if (flags.help) {
      std::cout << HelpText();
    } else {
      SilenceRuntimeLog(argv);
      Infer(flags);
    }
    return static_cast<int>(ExitCode::kSuccess);
  } catch (const Failure &failure) {
    std::cerr << "error: " << failure.what() << std::endl;
    return static_cast<int>(failure.code());
  } catch (const std::exception &error) {
    std::cerr << "error: defect of this program: " << error.what() << std::endl;
    return static_cast<int>(ExitCode::kInternal);
  }
}

}  // namespace
}  // namespace infer

int main(int argc, char **argv) { return infer::Main(std::vector<std::string>(argv + 1, argv + argc), argv); }
