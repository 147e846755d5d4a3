// 4, 8 and 16 bytes that move in one instruction.
#pragma once

#include "half.cuh"

template <int BYTES>
struct alignas(BYTES) Vector {
  unsigned words[BYTES / 4];
};

// Reads what this launch reads once and nobody writes meanwhile; leaves zeros if it is not wanted. Volatile, so that
// loads are issued in the order they are written in, before anything waits for the first of them.
__device__ inline Vector<16> load_once(const Vector<16>* address, bool wanted) {
  Vector<16> vector{};
  asm volatile(
      "{\n\t.reg .pred wanted;\n\tsetp.ne.s32 wanted, %5, 0;\n\t"
      "@wanted ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];\n\t}"
      : "+r"(vector.words[0]), "+r"(vector.words[1]), "+r"(vector.words[2]), "+r"(vector.words[3])
      : "l"(address), "r"(int(wanted)));
  return vector;
}

__device__ inline Vector<8> load_once(const Vector<8>* address, bool wanted) {
  Vector<8> vector{};
  asm volatile(
      "{\n\t.reg .pred wanted;\n\tsetp.ne.s32 wanted, %3, 0;\n\t"
      "@wanted ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];\n\t}"
      : "+r"(vector.words[0]), "+r"(vector.words[1])
      : "l"(address), "r"(int(wanted)));
  return vector;
}

// Reads what this thread may write later in the launch, and nobody else; else as load_once.
__device__ inline Vector<16> load_to_change(const Vector<16>* address, bool wanted) {
  Vector<16> vector{};
  asm volatile(
      "{\n\t.reg .pred wanted;\n\tsetp.ne.s32 wanted, %5, 0;\n\t"
      "@wanted ld.global.v4.u32 {%0, %1, %2, %3}, [%4];\n\t}"
      : "+r"(vector.words[0]), "+r"(vector.words[1]), "+r"(vector.words[2]), "+r"(vector.words[3])
      : "l"(address), "r"(int(wanted)));
  return vector;
}

__device__ inline Vector<8> load_to_change(const Vector<8>* address, bool wanted) {
  Vector<8> vector{};
  asm volatile(
      "{\n\t.reg .pred wanted;\n\tsetp.ne.s32 wanted, %3, 0;\n\t"
      "@wanted ld.global.v2.u32 {%0, %1}, [%2];\n\t}"
      : "+r"(vector.words[0]), "+r"(vector.words[1])
      : "l"(address), "r"(int(wanted)));
  return vector;
}

__device__ inline Vector<4> load_to_change(const Vector<4>* address, bool wanted) {
  Vector<4> vector{};
  asm volatile(
      "{\n\t.reg .pred wanted;\n\tsetp.ne.s32 wanted, %2, 0;\n\t@wanted ld.global.u32 %0, [%1];\n\t}"
      : "+r"(vector.words[0])
      : "l"(address), "r"(int(wanted)));
  return vector;
}

// Reads what many threads read: it stays in the first-level cache.
__device__ inline Vector<16> load_shared_table(const Vector<16>* address) {
  Vector<16> vector;
  asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(vector.words[0]), "=r"(vector.words[1]), "=r"(vector.words[2]), "=r"(vector.words[3])
      : "l"(address));
  return vector;
}

__device__ inline Vector<8> load_shared_table(const Vector<8>* address) {
  Vector<8> vector;
  asm("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(vector.words[0]), "=r"(vector.words[1]) : "l"(address));
  return vector;
}

__device__ inline Vector<4> load_shared_table(const Vector<4>* address) {
  Vector<4> vector;
  asm("ld.global.nc.u32 %0, [%1];" : "=r"(vector.words[0]) : "l"(address));
  return vector;
}

template <typename T>
struct Packing;

template <>
struct Packing<float> {
  static __device__ float unpack(const unsigned* words, int element) { return __uint_as_float(words[element]); }

  static __device__ void pack(const float* values, unsigned* words, int count) {
#pragma unroll
    for (int word = 0; word < count; ++word) words[word] = __float_as_uint(values[word]);
  }
};

template <>
struct Packing<Half> {
  static __device__ float unpack(const unsigned* words, int element) {
    float value;
    if (element % 2 == 0) {
      asm("{\n\t.reg .b16 low, high;\n\tmov.b32 {low, high}, %1;\n\tcvt.f32.f16 %0, low;\n\t}"
          : "=f"(value)
          : "r"(words[element / 2]));
    } else {
      asm("{\n\t.reg .b16 low, high;\n\tmov.b32 {low, high}, %1;\n\tcvt.f32.f16 %0, high;\n\t}"
          : "=f"(value)
          : "r"(words[element / 2]));
    }
    return value;
  }

  static __device__ void pack(const float* values, unsigned* words, int count) {
#pragma unroll
    for (int word = 0; word < count; ++word) {
      const unsigned low = from_float<Half>(values[2 * word]).bits;
      const unsigned high = from_float<Half>(values[2 * word + 1]).bits;
      words[word] = low | high << 16;
    }
  }
};
