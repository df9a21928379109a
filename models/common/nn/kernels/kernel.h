// What a kernel gets from MindSpore's custom operators of type "aot": inputs first, then outputs.
#pragma once

#include <cstdint>
#include <cstring>

namespace zoo {

class Arguments {
 public:
  Arguments(void** pointers, const int* ndims, int64_t** shapes) : pointers_(pointers), ndims_(ndims), shapes_(shapes) {}

  const float* in(int i) const { return static_cast<const float*>(pointers_[i]); }
  const int32_t* in_int(int i) const { return static_cast<const int32_t*>(pointers_[i]); }
  float* out(int i) const { return static_cast<float*>(pointers_[i]); }

  int64_t size(int i, int axis) const { return shapes_[i][axis]; }
  // Size of the last axis, product of the axes before it, product of all.
  int64_t width(int i) const { return shapes_[i][ndims_[i] - 1]; }
  int64_t rows(int i) const { return elements(i) / width(i); }
  int64_t elements(int i) const {
    int64_t product = 1;
    for (int axis = 0; axis < ndims_[i]; ++axis) product *= shapes_[i][axis];
    return product;
  }

 private:
  void** pointers_;
  const int* ndims_;
  int64_t** shapes_;
};

}  // namespace zoo

// Defines the C function `name`, whose body reads its inputs and outputs from `args` and returns 0 for success.
#define ZOO_KERNEL(name)                                                                                   \
  static int name##_body(const zoo::Arguments& args);                                                      \
  extern "C" int name(int, void** pointers, int* ndims, int64_t** shapes, const char**, void*, void*) {   \
    return name##_body(zoo::Arguments(pointers, ndims, shapes));                                           \
  }                                                                                                        \
  static int name##_body(const zoo::Arguments& args)
