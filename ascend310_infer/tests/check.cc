#include "check.h"

#include <iostream>

namespace check {
namespace {

int failures = 0;

}  // namespace

std::vector<Test> &Tests() {
  static std::vector<Test> tests;
  return tests;
}

void Fail(const char *file, int line, const std::string &what) {
  ++failures;
  std::cerr << file << ":" << line << ": " << what << std::endl;
}

void Fails(infer::ExitCode code, const std::string &part, const std::function<void()> &action, const char *file,
           int line) {
  try {
    action();
    Fail(file, line, "nothing failed, expected '" + part + "'");
  } catch (const infer::Failure &failure) {
    Equal(failure.code(), code, "exit code", file, line);
    if (std::string(failure.what()).find(part) == std::string::npos) {
      Fail(file, line, "the message '" + std::string(failure.what()) + "' lacks '" + part + "'");
    }
  }
}

}  // namespace check

// unit_tests SUITE: the tests of one suite; a suite without tests is a mistake of the caller.
int main(int argc, char **argv) {
  const std::string suite = argc == 2 ? argv[1] : "";
  int count = 0;
  for (const check::Test &test : check::Tests()) {
    if (test.suite != suite) {
      continue;
    }
    ++count;
    try {
      test.body();
    } catch (const std::exception &error) {
      check::Fail(test.suite.c_str(), 0, test.name + " ended in: " + error.what());
    }
  }
  std::cout << suite << ": " << count << " tests, " << check::failures << " failed checks" << std::endl;
  return count > 0 && check::failures == 0 ? 0 : 1;
}
