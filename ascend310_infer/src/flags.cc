#include "flags.h"

#include <algorithm>
#include <string_view>

#include "failure.h"

namespace infer {
namespace {

[[noreturn]] void Fail(const std::string &what) {
  throw Failure(ExitCode::kUsage, what + " (main --help lists the flags)");
}

int Number(const std::string &name, const std::string &text, int low, int high) {
  const bool digits = std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
  const int value = digits && !text.empty() && text.size() <= 6 ? std::stoi(text) : -1;
  if (value < low || value > high) {
    Fail("--" + name + ": '" + text + "' is not a number from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return value;
}

void Assign(const std::string &name, const std::string &value, Flags *flags) {
  if (value.empty()) {
    Fail("--" + name + ": the value is empty");
  }
  if (name == "mindir_path") {
    flags->model = value;
  } else if (name == "manifest") {
    flags->manifest = value;
  } else if (name == "input_dir") {
    flags->input_dir = value;
  } else if (name == "output_dir") {
    flags->output_dir = value;
  } else if (name == "device_type") {
    if (value != "CPU" && value != "Ascend") {
      Fail("--device_type: '" + value + "' is neither CPU nor Ascend");
    }
    flags->device_type = value;
  } else if (name == "device_id") {
    flags->device_id = Number(name, value, 0, 4095);
  } else if (name == "threads") {
    flags->threads = Number(name, value, 1, 1024);
  } else if (name == "warmup") {
    flags->warmup = Number(name, value, 0, 1000);
  } else {
    Fail("unknown flag --" + name);
  }
}

// A folder stands for the files an export writes into it; a model alone has its manifest beside it.
void ResolvePaths(Flags *flags) {
  if (flags->input_dir.empty()) {
    Fail("--input_dir is missing");
  }
  if (flags->manifest.empty() && flags->model.empty()) {
    Fail("--mindir_path or --manifest is missing");
  }
  if (flags->manifest.empty()) {
    const bool folder = std::filesystem::is_directory(flags->model);
    flags->manifest = (folder ? flags->model : flags->model.parent_path()) / "manifest.json";
  } else if (std::filesystem::is_directory(flags->manifest)) {
    flags->manifest /= "manifest.json";
  }
  if (std::filesystem::is_directory(flags->model)) {
    flags->model.clear();
  }
}

}  // namespace

Flags ParseFlags(const std::vector<std::string> &arguments) {
  Flags flags;
  std::vector<std::string> given;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string &argument = arguments[i];
    if (argument == "--help" || argument == "-h") {
      flags.help = true;
      return flags;
    }
    if (argument.size() < 3 || argument.compare(0, 2, "--") != 0) {
      Fail("'" + argument + "' is not a flag");
    }
    const std::size_t equals = argument.find('=');
    const std::string name = argument.substr(2, equals == std::string::npos ? equals : equals - 2);
    if (std::find(given.begin(), given.end(), name) != given.end()) {
      Fail("--" + name + " is given twice");
    }
    given.push_back(name);
    if (equals != std::string::npos) {
      Assign(name, argument.substr(equals + 1), &flags);
    } else if (i + 1 < arguments.size()) {
      Assign(name, arguments[++i], &flags);
    } else {
      Assign(name, "", &flags);
    }
  }
  ResolvePaths(&flags);
  return flags;
}

std::string HelpText() {
  return R"(usage: main --mindir_path MODEL --input_dir FOLDER [flags]

Runs an exported model over a folder of samples with MindSpore Lite. What the model eats and gives is read from the
manifest.json that the export wrote beside it; anything that does not match it is refused.

  --mindir_path PATH   the .mindir, or the folder of the export; its manifest.json lies beside it
  --manifest PATH      a manifest (or its folder) elsewhere; without --mindir_path the model is the file it names
  --input_dir PATH     holds 00_data/<task>_bs<bs>_<index>.bin (or .npy), 01_data/..., as preprocess writes them
  --output_dir PATH    gets result_Files/<input name>_<output>.bin and time_Result/timing.json; default: .
  --device_type NAME   CPU (default) or Ascend
  --device_id N        which Ascend device; default 0
  --threads N          CPU threads; default: the cores this process may use
  --warmup N           runs of the first batch before the clock starts; default 2
  --help               this text

exit codes: 0 done; 1 defect of this program; 2 command line; 3 manifest; 4 model file; 5 input files; 6 device;
            7 output folder; 8 the model failed on a batch
GLOG_v=1 shows MindSpore Lite's own log (0 debug ... 4 silent, the default here).
)";
}

}  // namespace infer
