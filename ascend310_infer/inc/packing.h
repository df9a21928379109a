// Several samples in one row of the graph, so that padding is not computed, and the way back.
//
// The rules are those of models/common/packing.py: sequence_ids 1, 2, ... say which sample of the row a token belongs
// to, 0 is padding; position_ids restart at 0 with each sample. Where the manifest has no packing, a row is one sample.
#ifndef ASCEND310_INFER_INC_PACKING_H_
#define ASCEND310_INFER_INC_PACKING_H_

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <vector>

#include "input_folder.h"
#include "manifest.h"
#include "values.h"

namespace infer {

using Row = std::vector<Sample>;

// Longest first, each into the fullest row that still has room: rows of indices into `lengths`. No length may exceed
// `row_length`.
std::vector<std::vector<std::size_t>> BestFit(const std::vector<std::size_t> &lengths, std::size_t row_length,
                                              std::size_t max_samples);

// Turns a stream of samples into batches of rows while holding a bounded number of samples.
class Batcher {
 public:
  // `read` gives the next samples, none at the end.
  Batcher(const Manifest &manifest, std::function<std::vector<Sample>()> read);
  // At most Manifest::rows() rows; fewer only in the last batch, none after it.
  std::vector<Row> Next();

 private:
  void Fill(std::size_t wanted);
  void PackWindow();

  const Manifest &manifest_;
  std::function<std::vector<Sample>()> read_;
  std::vector<Sample> window_;
  std::deque<Row> ready_;
  bool exhausted_ = false;
};

// The graph's inputs, in the manifest's order, each of the manifest's shape; missing rows stay empty (all zero).
std::vector<std::vector<std::int32_t>> FillInputs(const Manifest &manifest, const std::vector<Row> &rows);

// Cut the samples' parts out of the graph's outputs: `take` is given each sample, the index of the output, and its
// values: per token those of the sample's real tokens and then zeros ([T, ...]), per sample what belongs to it.
void SplitOutputs(const Manifest &manifest, const std::vector<Row> &rows,
                  const std::vector<Values> &outputs,
                  const std::function<void(const Sample &, std::size_t, Values)> &take);

}  // namespace infer

#endif  // ASCEND310_INFER_INC_PACKING_H_
