// A test harness of one page: the tests must build on a host that has nothing but a compiler.
#ifndef ASCEND310_INFER_TESTS_CHECK_H_
#define ASCEND310_INFER_TESTS_CHECK_H_

#include <functional>
#include <sstream>
#include <string>
#include <type_traits>
#include <vector>

#include "failure.h"

namespace check {

struct Test {
  std::string suite;
  std::string name;
  std::function<void()> body;
};

std::vector<Test> &Tests();

struct Register {
  Register(const char *suite, const char *name, std::function<void()> body) {
    Tests().push_back({suite, name, std::move(body)});
  }
};

// Counts and prints a failed check; the test goes on.
void Fail(const char *file, int line, const std::string &what);

template <typename T>
std::string Show(const T &value) {
  std::ostringstream out;
  if constexpr (std::is_enum_v<T>) {
    out << static_cast<long>(value);
  } else {
    out << value;
  }
  return out.str();
}

template <typename T>
std::string Show(const std::vector<T> &values) {
  std::string text = "{";
  for (const auto &value : values) {
    text += (text.size() > 1 ? ", " : "") + Show(value);
  }
  return text + "}";
}

template <typename A, typename B>
void Equal(const A &found, const B &wanted, const char *expression, const char *file, int line) {
  if (!(found == wanted)) {
    Fail(file, line, std::string(expression) + " is " + Show(found) + ", expected " + Show(wanted));
  }
}

// `action` must throw Failure with this code and a message that contains `part`.
void Fails(infer::ExitCode code, const std::string &part, const std::function<void()> &action, const char *file,
           int line);

}  // namespace check

#define TEST(suite, name)                                                                  \
  static void suite##_##name();                                                            \
  static const check::Register register_##suite##_##name(#suite, #name, suite##_##name);   \
  static void suite##_##name()

#define CHECK(condition)                            \
  do {                                              \
    if (!(condition)) {                             \
      check::Fail(__FILE__, __LINE__, #condition);  \
    }                                               \
  } while (false)

#define CHECK_EQUAL(found, ...) check::Equal(found, __VA_ARGS__, #found, __FILE__, __LINE__)

#define CHECK_FAILS(code, part, ...) \
  check::Fails(infer::ExitCode::code, part, [&]() { __VA_ARGS__; }, __FILE__, __LINE__)

#endif  // ASCEND310_INFER_TESTS_CHECK_H_
