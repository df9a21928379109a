// What the outputs of a model with labels mean: the label of each sample, or of each of its tokens, by name.
#ifndef ASCEND310_INFER_INC_LABELS_H_
#define ASCEND310_INFER_INC_LABELS_H_

#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "manifest.h"
#include "values.h"

namespace infer {

// The first output that speaks of labels: int32 ids, one for a sample or token, or float32 scores, one for each label,
// of which the highest wins (the first of equal ones). None where the manifest names no labels.
std::optional<std::size_t> LabelOutput(const Manifest &manifest);

// Collects the labels of all samples.
class LabelBook {
 public:
  // `output` is that of LabelOutput; `samples` how many there are.
  LabelBook(const Manifest &manifest, std::size_t output, std::size_t samples);

  // `index` of the sample, its real tokens, its values of the output. Throws Failure(kPredict) for an id that is no
  // label.
  void Add(std::size_t index, std::size_t length, const Values &values);
  // A line for each sample in order, its labels parted by blanks.
  std::string Text() const;
  // "sport 12, food 9": how often each label was given, in the order of the labels.
  std::string Summary() const;

 private:
  const Manifest &manifest_;
  const GraphOutput &output_;
  std::vector<std::string> lines_;
  std::vector<std::size_t> counts_;
};

}  // namespace infer

#endif  // ASCEND310_INFER_INC_LABELS_H_
