// Element types of the stream. No header of CUDA is included anywhere here, so that NVRTC alone can compile it all.
#pragma once

struct Half {
  unsigned short bits;
};

__device__ inline float to_float(float value) { return value; }

__device__ inline float to_float(Half value) {
  float result;
  asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(value.bits));
  return result;
}

template <typename T>
__device__ T from_float(float value);

template <>
__device__ inline float from_float<float>(float value) {
  return value;
}

// Rounds to nearest, ties to even.
template <>
__device__ inline Half from_float<Half>(float value) {
  Half result;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(value));
  return result;
}

// The name of each element type, as numpy has it, ends the name of its entry points.
#define FOR_EACH_ELEMENT_TYPE(DEFINE) \
  DEFINE(float16, Half)               \
  DEFINE(float32, float)
