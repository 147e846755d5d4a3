// Tensor cores of float16 with sums in float32, and what brings their operands there: copies into shared memory that
// nobody waits for, and loads of fragments. In a fragment lane 4 g + t holds elements 2 t and 2 t + 1 of row g (of a
// and c, whose other half is row g + 8) or of column g (of b): PTX ISA, "Matrix fragments for mma.m16n8k16".
#pragma once

#include "vectors.cuh"

__device__ inline unsigned shared_address(const void* address) {
  unsigned result;
  asm("{\n\t.reg .u64 wide;\n\tcvta.to.shared.u64 wide, %1;\n\tcvt.u32.u64 %0, wide;\n\t}" : "=r"(result) : "l"(address));
  return result;
}

// Copies 16 bytes into shared memory, or zeros if they are not wanted; `from` may then be anything.
__device__ inline void start_copy(unsigned to, const void* from, bool wanted) {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(wanted ? 16 : 0) : "memory");
#else
  const Vector<16> vector = load_once(reinterpret_cast<const Vector<16>*>(from), wanted);
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(vector.words[0]), "r"(vector.words[1]),
               "r"(vector.words[2]), "r"(vector.words[3])
               : "memory");
#endif
}

// Ends a batch of copies, which may be empty.
__device__ inline void commit_copies() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until this thread's copies are done but for the latest batches.
template <int BATCHES>
__device__ void wait_for_copies_but() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" ::"n"(BATCHES) : "memory");
#endif
}

// Four matrices of 8 x 8; lane i gives the address of row i % 8 of the matrix i / 8.
__device__ inline void load_matrices(unsigned (&fragments)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
               : "r"(address)
               : "memory");
}

__device__ inline void load_transposed_matrices(unsigned (&fragments)[4], unsigned address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(fragments[0]), "=r"(fragments[1]), "=r"(fragments[2]), "=r"(fragments[3])
               : "r"(address)
               : "memory");
}

// c += a b of 16 x 8 and 8 x 8.
__device__ inline void multiply_add(float (&c)[4], unsigned a0, unsigned a1, unsigned b) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a0), "r"(a1), "r"(b));
}

// c += a b of 16 x 16 and 16 x 8. Rows of a: its first half g, g + 8, then its second half g, g + 8.
__device__ inline void multiply_add(float (&c)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
#if __CUDA_ARCH__ >= 800
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
  multiply_add(c, a[0], a[1], b0);
  multiply_add(c, a[2], a[3], b1);
#endif
}

__device__ inline unsigned pack_halves(float low, float high) {
  unsigned packed;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
#else
  const float values[2] = {low, high};
  Packing<Half>::pack(values, &packed, 1);
#endif
  return packed;
}
