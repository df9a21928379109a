// The two things the JSON reader needs to know about UTF-8.
#ifndef ASCEND310_INFER_INC_UTF8_H_
#define ASCEND310_INFER_INC_UTF8_H_

#include <cstddef>
#include <string>
#include <string_view>

namespace infer::utf8 {

// Position of the first byte that is no part of well-formed UTF-8 (overlong forms, surrogates and code points above
// U+10FFFF are not), or npos.
std::size_t FirstInvalid(std::string_view text);

// Append one code point (no surrogate, at most U+10FFFF).
void Append(unsigned code, std::string *out);

}  // namespace infer::utf8

#endif  // ASCEND310_INFER_INC_UTF8_H_
