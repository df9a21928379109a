// json, utf8, sha256, statistics: against published examples.
#include <algorithm>
#include <cstdint>

#include "check.h"
#include "json.h"
#include "sha256.h"
#include "statistics.h"
#include "utf8.h"

namespace {

using infer::json::Parse;
using infer::json::Type;

std::string ErrorOf(const std::string &text) {
  try {
    Parse(text);
    return "";
  } catch (const infer::json::ParseError &error) {
    return error.what();
  }
}

TEST(json, values_keep_their_types) {
  const auto value = Parse("\xEF\xBB\xBF{\"a\": [1, -2.5e1, true, null, \"x\"], \"b\": {}}");
  const auto *a = value.Find("a");
  CHECK(a != nullptr && a->items.size() == 5);
  CHECK(a->items[0].Is(Type::kInteger) && a->items[0].integer == 1 && a->items[0].real == 1.0);
  CHECK(a->items[1].Is(Type::kReal) && a->items[1].real == -25.0);
  CHECK(a->items[2].Is(Type::kBool) && a->items[2].boolean);
  CHECK(a->items[3].Is(Type::kNull));
  CHECK_EQUAL(a->items[4].text, "x");
  CHECK(value.Find("b")->Is(Type::kObject) && value.Find("c") == nullptr);
  CHECK(Parse("9223372036854775807").integer == INT64_MAX);
}

TEST(json, strings_are_unescaped) {
  CHECK_EQUAL(Parse(R"("\"\\\/\b\f\n\r\t\u00e9\u20ac\ud83d\ude00")").text,
              "\"\\/\b\f\n\r\t\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80");
  CHECK_EQUAL(infer::json::Quote("a\"\\\n\xC3\xA9"), "\"a\\\"\\\\\\u000a\xC3\xA9\"");
}

TEST(json, what_rfc_8259_forbids_is_refused) {
  for (const char *text :
       {"", " ", "{", "[", "[1", "[1,", "[1,]", "{\"a\"}", "{\"a\":}", "{\"a\":1,}", "{a:1}", "{'a':1}", "01", "-", "+1",
        "1.", ".5", "1e", "1e+", "0x10", "nul", "True", "NaN", "Infinity", "-Infinity", "1e999", "9223372036854775808",
        "\"", "\"\\x\"", "\"\\u12\"", "\"\\ud800\"", "\"\\ud800x\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\t\"",
        "1 2", "[1] x", "/**/1", "\"\xFF\"", "\"\xC0\x80\"", "\"\xED\xA0\x80\"", "\"\xF4\x90\x80\x80\"", "\"\xC3\"",
        "{\"a\":1,\"a\":2}", "{\"a\":1,\"\\u0061\":2}"}) {
    if (ErrorOf(text).empty()) {
      check::Fail(__FILE__, __LINE__, std::string("accepted: ") + text);
    }
  }
}

TEST(json, messages_say_where) {
  CHECK_EQUAL(ErrorOf("{\n  \"a\": [1, x]\n}"), "line 2, column 12: expected a value");
  CHECK(ErrorOf("{\"a\":1,\"a\":2}").find("key \"a\" appears twice") != std::string::npos);
  CHECK_EQUAL(ErrorOf("\"ab\xFF\""), "byte 3: not UTF-8 text");
}

TEST(json, sizes_are_limited) {
  CHECK(ErrorOf(std::string(31, '[') + std::string(31, ']')).empty());
  CHECK(ErrorOf(std::string(100000, '[')).find("nested deeper") != std::string::npos);
  CHECK(ErrorOf(std::string(infer::json::kMaxBytes + 1, ' ')).find("larger than") != std::string::npos);
  std::string wide = "{";
  for (int i = 0; i < 5000; ++i) {
    wide += "\"" + std::to_string(i) + "\":0,";
  }
  CHECK(ErrorOf(wide).find("more than 4096 keys") != std::string::npos);
}

TEST(sha256, examples_of_fips_180) {
  const auto hash = [](const std::string &text) {
    infer::Sha256 sha;
    sha.Update(text.data(), text.size());
    return sha.Finish();
  };
  CHECK_EQUAL(hash(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK_EQUAL(hash("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK_EQUAL(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK_EQUAL(hash(std::string(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(sha256, pieces_equal_the_whole) {
  const std::string text(1000, 'q');
  infer::Sha256 whole;
  whole.Update(text.data(), text.size());
  infer::Sha256 pieces;
  for (std::size_t at = 0, size = 0; at < text.size(); at += size) {
    size = std::min<std::size_t>(1 + at * 7 % 131, text.size() - at);
    pieces.Update(text.data() + at, size);
  }
  CHECK_EQUAL(pieces.Finish(), whole.Finish());
}

TEST(statistics, percentiles_interpolate_as_numpy_does) {
  const std::vector<double> values = {15.0, 20.0, 35.0, 40.0, 50.0};  // numpy.percentile(values, [0, 40, 50, 90, 100])
  CHECK_EQUAL(infer::Percentile(values, 0), 15.0);
  CHECK_EQUAL(infer::Percentile(values, 40), 29.0);
  CHECK_EQUAL(infer::Percentile({50.0, 15.0, 40.0, 20.0, 35.0}, 50), 35.0);
  CHECK_EQUAL(infer::Percentile(values, 90), 46.0);
  CHECK_EQUAL(infer::Percentile(values, 100), 50.0);
  CHECK_EQUAL(infer::Percentile({7.0}, 99), 7.0);
}

TEST(statistics, timing_is_json_with_rates) {
  infer::RunTimes times;
  times.batch_ms = {100.0, 300.0};
  times.samples = 8;
  times.tokens = 40;
  times.positions = 80;
  times.total_seconds = 0.5;
  times.model = "a\"b";
  const auto timing = Parse(infer::TimingJson(times));
  CHECK_EQUAL(timing.Find("model")->text, "a\"b");
  CHECK_EQUAL(timing.Find("batch_ms")->Find("mean")->real, 200.0);
  CHECK_EQUAL(timing.Find("batch_ms")->Find("p50")->real, 200.0);
  CHECK_EQUAL(timing.Find("batch_ms")->Find("max")->real, 300.0);
  CHECK_EQUAL(timing.Find("predict_samples_per_second")->real, 20.0);
  CHECK_EQUAL(timing.Find("samples_per_second")->real, 16.0);
  CHECK_EQUAL(timing.Find("tokens_per_second")->real, 80.0);
  CHECK_EQUAL(timing.Find("fill_rate")->real, 0.5);
  CHECK_EQUAL(infer::PerformLine(times), "NN inference cost average time: 200 ms of infer_count 2\n");
}

}  // namespace
