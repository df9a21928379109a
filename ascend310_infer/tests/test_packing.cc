#include <algorithm>
#include <numeric>
#include <random>
#include <set>

#include "check.h"
#include "fixtures.h"
#include "labels.h"
#include "packing.h"

namespace {

using infer::Manifest;
using infer::Row;
using infer::Sample;

std::vector<std::size_t> RandomLengths(std::size_t count, std::size_t longest, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<std::size_t> lengths(count);
  std::generate(lengths.begin(), lengths.end(), [&]() { return 1 + random() % longest; });
  return lengths;
}

Sample MakeSample(std::size_t file, std::size_t length) {
  Sample sample;
  sample.file = file;
  sample.length = length;
  std::vector<std::int32_t> ids(length);
  std::iota(ids.begin(), ids.end(), static_cast<std::int32_t>(10 * file));
  std::vector<std::int32_t> concepts(2 * length);
  std::iota(concepts.begin(), concepts.end(), static_cast<std::int32_t>(1000 * file));
  sample.values = {ids, std::vector<std::int32_t>(length, 1), concepts};
  return sample;
}

TEST(packing, best_fit_takes_the_tightest_row) {
  const auto rows = infer::BestFit({3, 5, 2, 7, 1}, 8, 3);
  CHECK_EQUAL(rows, std::vector<std::vector<std::size_t>>{{3, 4}, {1, 0}, {2}});
  CHECK_EQUAL(infer::BestFit({1, 1, 1, 1}, 8, 3).size(), 2u);
  CHECK(infer::BestFit({}, 8, 3).empty());
}

TEST(packing, every_sample_lands_in_one_row_that_holds_it) {
  const auto lengths = RandomLengths(3000, 384, 1);
  const auto rows = infer::BestFit(lengths, 384, 8);
  std::vector<int> seen(lengths.size(), 0);
  for (const auto &row : rows) {
    std::size_t used = 0;
    for (const std::size_t sample : row) {
      ++seen[sample];
      used += lengths[sample];
    }
    CHECK(used <= 384 && row.size() <= 8 && !row.empty());
  }
  CHECK(std::all_of(seen.begin(), seen.end(), [](int count) { return count == 1; }));
  const auto tokens = std::accumulate(lengths.begin(), lengths.end(), std::size_t{0});
  CHECK(rows.size() * 384 < tokens * 1.03);
}

// Feeds `lengths` through a Batcher, `per_read` samples at a time.
std::vector<std::vector<Row>> Batches(const Manifest &manifest, const std::vector<std::size_t> &lengths,
                                      std::size_t per_read) {
  std::size_t next = 0;
  infer::Batcher batcher(manifest, [&]() {
    std::vector<Sample> samples;
    for (; next < lengths.size() && samples.size() < per_read; ++next) {
      samples.push_back(MakeSample(next, lengths[next]));
    }
    return samples;
  });
  std::vector<std::vector<Row>> batches;
  for (auto rows = batcher.Next(); !rows.empty(); rows = batcher.Next()) {
    batches.push_back(rows);
  }
  CHECK(batcher.Next().empty());
  return batches;
}

void CheckComplete(const std::vector<std::vector<Row>> &batches, std::size_t count, std::size_t rows_per_batch) {
  std::multiset<std::size_t> files;
  for (std::size_t i = 0; i < batches.size(); ++i) {
    CHECK(batches[i].size() == rows_per_batch || i + 1 == batches.size());
    for (const Row &row : batches[i]) {
      for (const Sample &sample : row) {
        files.insert(sample.file);
      }
    }
  }
  CHECK_EQUAL(files.size(), count);
  CHECK_EQUAL(std::set<std::size_t>(files.begin(), files.end()).size(), count);
}

TEST(packing, batches_are_full_and_lose_nothing) {
  const auto packed = infer::ParseManifest(fixtures::PackedManifest(), "m");
  const auto plain = infer::ParseManifest(fixtures::PlainManifest(), "m");
  for (const std::size_t count : {0u, 1u, 2u, 5u, 2047u, 2048u, 2049u, 7001u}) {
    for (const std::size_t per_read : {1u, 4u}) {
      const auto lengths = RandomLengths(count, 6, static_cast<unsigned>(count));
      CheckComplete(Batches(packed, lengths, per_read), count, 2);
      CheckComplete(Batches(plain, lengths, per_read), count, 2);
    }
  }
}

TEST(packing, a_batch_larger_than_the_window_is_filled) {
  Manifest manifest = infer::ParseManifest(fixtures::PackedManifest(), "m");
  for (auto &input : manifest.inputs) {
    input.shape[0] = 3000;
  }
  const auto batches = Batches(manifest, std::vector<std::size_t>(20000, 1), 1);
  CheckComplete(batches, 20000, 3000);
  CHECK_EQUAL(batches.size(), 3u);
}

TEST(packing, a_window_packs_as_well_as_the_whole) {
  Manifest manifest = infer::ParseManifest(fixtures::PackedManifest(), "m");
  manifest.packing->max_samples_per_row = 8;
  for (auto &input : manifest.inputs) {
    input.shape = {8, 384};
  }
  const auto lengths = RandomLengths(10000, 384, 3);
  const std::size_t whole = infer::BestFit(lengths, 384, 8).size();
  CHECK(Batches(manifest, lengths, 1).size() * 8 < whole * 1.01 + 8);
}

TEST(packing, rows_are_laid_out_for_the_graph) {
  const auto manifest = infer::ParseManifest(fixtures::PackedManifest(), "m");
  const std::vector<Row> rows = {{MakeSample(1, 3), MakeSample(2, 2)}};
  const auto inputs = infer::FillInputs(manifest, rows);
  CHECK_EQUAL(inputs[0], std::vector<std::int32_t>{10, 11, 12, 20, 21, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  CHECK_EQUAL(inputs[1], std::vector<std::int32_t>{1, 1, 1, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
  CHECK_EQUAL(std::vector<std::int32_t>(inputs[2].begin(), inputs[2].begin() + 12),
              std::vector<std::int32_t>{1000, 1001, 1002, 1003, 1004, 1005, 2000, 2001, 2002, 2003, 0, 0});
  CHECK_EQUAL(inputs[2].size(), 32u);
  CHECK_EQUAL(inputs[3], std::vector<std::int32_t>{0, 1, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
}

TEST(packing, a_plain_row_is_one_sample) {
  const auto manifest = infer::ParseManifest(fixtures::PlainManifest(), "m");
  const auto inputs = infer::FillInputs(manifest, {{MakeSample(1, 3)}, {MakeSample(2, 6)}});
  CHECK_EQUAL(inputs[0], std::vector<std::int32_t>{10, 11, 12, 0, 0, 0, 20, 21, 22, 23, 24, 25});
  CHECK_EQUAL(inputs[1], std::vector<std::int32_t>{1, 1, 1, 0, 0, 0, 1, 1, 1, 1, 1, 1});
}

TEST(packing, outputs_find_their_sample) {
  const auto manifest = infer::ParseManifest(fixtures::PackedManifest(), "m");
  const std::vector<Row> rows = {{MakeSample(1, 3), MakeSample(2, 2)}, {MakeSample(3, 6)}};
  std::vector<float> tokens(16);
  std::iota(tokens.begin(), tokens.end(), 0.0f);
  std::vector<float> classes(12);
  std::iota(classes.begin(), classes.end(), 100.0f);
  std::vector<std::vector<float>> found(8);
  infer::SplitOutputs(manifest, rows, {tokens, classes}, [&](const Sample &sample, std::size_t k, infer::Values v) {
    found[2 * sample.file + k] = std::get<std::vector<float>>(v);
  });
  CHECK_EQUAL(found[2], std::vector<float>{0, 1, 2, 0, 0, 0});
  CHECK_EQUAL(found[3], std::vector<float>{100, 101});
  CHECK_EQUAL(found[4], std::vector<float>{3, 4, 0, 0, 0, 0});
  CHECK_EQUAL(found[5], std::vector<float>{102, 103});
  CHECK_EQUAL(found[6], std::vector<float>{8, 9, 10, 11, 12, 13});
  CHECK_EQUAL(found[7], std::vector<float>{106, 107});
}

TEST(packing, integers_stay_integers) {
  const std::string wanted = "\"start_logits\", \"dtype\": \"int32\"";
  const auto manifest = infer::ParseManifest(fixtures::Edited("\"start_logits\", \"dtype\": \"float32\"", wanted), "m");
  std::vector<std::int32_t> tokens(16);
  std::iota(tokens.begin(), tokens.end(), 1 << 30);
  std::vector<infer::Values> found;
  infer::SplitOutputs(manifest, {{MakeSample(1, 2)}}, {tokens, std::vector<float>(12)},
                      [&](const Sample &, std::size_t, infer::Values v) { found.push_back(v); });
  CHECK_EQUAL(std::get<std::vector<std::int32_t>>(found[0]),
              std::vector<std::int32_t>{1 << 30, (1 << 30) + 1, 0, 0, 0, 0});
}

TEST(packing, scores_and_ids_are_read_as_labels) {
  const auto classes = infer::ParseManifest(fixtures::PackedManifest(), "m");
  CHECK_EQUAL(infer::LabelOutput(classes).value(), 1u);
  infer::LabelBook book(classes, 1, 3);
  book.Add(2, 4, std::vector<float>{1, 2});
  book.Add(0, 4, std::vector<float>{2, 2});
  book.Add(1, 4, std::vector<float>{-1, -2});
  CHECK_EQUAL(book.Text(), std::string("no\nno\nyes\n"));
  CHECK_EQUAL(book.Summary(), std::string("no 2, yes 1"));
  const auto tags = infer::ParseManifest(
    fixtures::Edited("\"start_logits\", \"dtype\": \"float32\"", "\"start_logits\", \"dtype\": \"int32\""), "m");
  CHECK_EQUAL(infer::LabelOutput(tags).value(), 0u);
  infer::LabelBook tagged(tags, 0, 1);
  tagged.Add(0, 3, std::vector<std::int32_t>{0, 1, 1, 0, 0, 0});
  CHECK_EQUAL(tagged.Text(), std::string("no yes yes\n"));
  CHECK_FAILS(kPredict, "gave the label id 2", tagged.Add(0, 1, std::vector<std::int32_t>{2}));
  CHECK(!infer::LabelOutput(infer::ParseManifest(fixtures::Edited("[\"no\", \"yes\"]", "null"), "m")));
}

}  // namespace
