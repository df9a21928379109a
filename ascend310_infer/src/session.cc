#include "session.h"

#include <algorithm>
#include <cstring>

#include "failure.h"
#include "include/api/context.h"
#include "include/api/model.h"
#include "include/api/types.h"

namespace infer {
namespace {

using mindspore::DataType;
using mindspore::MSTensor;

std::shared_ptr<mindspore::Context> MakeContext(const SessionOptions &options) {
  auto context = std::make_shared<mindspore::Context>();
  context->SetThreadNum(options.threads);
  if (options.device_type == "Ascend") {
    auto ascend = std::make_shared<mindspore::AscendDeviceInfo>();
    ascend->SetDeviceID(static_cast<std::uint32_t>(options.device_id));
    context->MutableDeviceInfo().push_back(ascend);
  } else {
    context->MutableDeviceInfo().push_back(std::make_shared<mindspore::CPUDeviceInfo>());
  }
  return context;
}

std::string TensorText(const MSTensor &tensor, DataType wanted) {
  const std::string shape = ShapeText(tensor.Shape());
  return tensor.DataType() == wanted ? shape : shape + " of type number " + std::to_string(int(tensor.DataType()));
}

template <typename T>
std::vector<T> Copy(const void *data, std::int64_t count) {
  const auto *begin = static_cast<const T *>(data);
  return std::vector<T>(begin, begin + count);
}

}  // namespace

struct Session::State {
  mindspore::Model model;
  std::filesystem::path path;
  const Manifest *manifest = nullptr;
  std::vector<MSTensor> tensors;          // in the order of the graph
  std::vector<std::size_t> manifest_of;  // which input of the manifest feeds which tensor

  [[noreturn]] void Refuse(const std::string &what) const {
    throw Failure(ExitCode::kModel, path.string() + ": " + what);
  }

  void Build(const SessionOptions &options) {
    const auto status = model.Build(path.string(), mindspore::kMindIR, MakeContext(options));
    if (status.IsOk()) {
      return;
    }
    if (options.device_type == "Ascend" &&
        !mindspore::Model::CheckModelSupport(mindspore::kAscend, mindspore::kMindIR)) {
      throw Failure(ExitCode::kDevice, "Ascend device " + std::to_string(options.device_id) +
                                         ": MindSpore Lite cannot use it; driver, CANN libraries or the Lite build "
                                         "with Ascend support are missing (GLOG_v=2 shows which library)");
    }
    std::string hint = "GLOG_v=1 shows why";
    if (manifest->ir_version > 1) {
      hint = "it is MindIR version " + std::to_string(manifest->ir_version) +
             " and Lite 2.0 reads version 1: export the format mindir_lite; " + hint;
    }
    Refuse("MindSpore Lite cannot load it for " + options.device_type + " (" + hint + ")");
  }

  void BindInputs() {
    tensors = model.GetInputs();
    if (tensors.size() != manifest->inputs.size()) {
      Refuse("the graph has " + std::to_string(tensors.size()) + " inputs, the manifest " +
             std::to_string(manifest->inputs.size()));
    }
    for (const MSTensor &tensor : tensors) {
      const auto &inputs = manifest->inputs;
      const auto found = std::find_if(inputs.begin(), inputs.end(),
                                      [&tensor](const GraphInput &input) { return input.name == tensor.Name(); });
      if (found == inputs.end()) {
        Refuse("the graph's input " + tensor.Name() + " is not in the manifest");
      }
      if (tensor.DataType() != DataType::kNumberTypeInt32 || tensor.Shape() != found->shape) {
        Refuse("input " + found->name + " of the graph is " + TensorText(tensor, DataType::kNumberTypeInt32) +
               ", the manifest says int32 " + ShapeText(found->shape));
      }
      manifest_of.push_back(static_cast<std::size_t>(found - inputs.begin()));
    }
  }

  // A MindIR carries no names of outputs (Lite invents some from the last nodes), so here the order decides.
  void CheckOutputs(const std::vector<MSTensor> &outputs) const {
    if (outputs.size() != manifest->outputs.size()) {
      Refuse("the graph has " + std::to_string(outputs.size()) + " outputs, the manifest " +
             std::to_string(manifest->outputs.size()));
    }
    for (std::size_t k = 0; k < outputs.size(); ++k) {
      const GraphOutput &wanted = manifest->outputs[k];
      const bool integer = wanted.dtype == DType::kInt32;
      const DataType type = integer ? DataType::kNumberTypeInt32 : DataType::kNumberTypeFloat32;
      if (outputs[k].DataType() != type || outputs[k].Shape() != wanted.shape) {
        Refuse("output " + wanted.name + " of the graph is " + TensorText(outputs[k], type) +
               ", the manifest says " + (integer ? "int32 " : "float32 ") + ShapeText(wanted.shape));
      }
    }
  }
};

Session::Session(const std::filesystem::path &model, const Manifest &manifest, const SessionOptions &options)
    : state_(std::make_unique<State>()) {
  state_->path = model;
  state_->manifest = &manifest;
  state_->Build(options);
  state_->BindInputs();
}

Session::~Session() = default;

std::vector<Values> Session::Run(const std::vector<std::vector<std::int32_t>> &inputs) {
  for (std::size_t i = 0; i < state_->tensors.size(); ++i) {
    const auto &values = inputs[state_->manifest_of[i]];
    MSTensor &tensor = state_->tensors[i];
    void *data = tensor.MutableData();
    if (data == nullptr || tensor.DataSize() != values.size() * sizeof(std::int32_t)) {
      throw Failure(ExitCode::kPredict, state_->path.string() + ": no memory for input " + tensor.Name());
    }
    std::memcpy(data, values.data(), tensor.DataSize());
  }
  std::vector<MSTensor> outputs;
  const auto status = state_->model.Predict(state_->tensors, &outputs);
  if (!status.IsOk()) {
    throw Failure(ExitCode::kPredict,
                  state_->path.string() + ": MindSpore Lite failed on a batch (GLOG_v=1 shows why)");
  }
  state_->CheckOutputs(outputs);
  std::vector<Values> values;
  for (const MSTensor &output : outputs) {
    const auto data = output.Data();  // keeps a copy from a device alive
    if (data == nullptr) {
      throw Failure(ExitCode::kPredict, state_->path.string() + ": an output came back without data");
    }
    if (output.DataType() == DataType::kNumberTypeInt32) {
      values.emplace_back(Copy<std::int32_t>(data.get(), output.ElementNum()));
    } else {
      values.emplace_back(Copy<float>(data.get(), output.ElementNum()));
    }
  }
  return values;
}

}  // namespace infer
