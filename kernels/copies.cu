// Copies that are part of a captured tick. A graph that holds a copy of the driver's costs the host milliseconds at each
// launch; one that holds kernels alone does not.
#include "vectors.cuh"

// Grid: blocks of vectors.
extern "C" __global__ void copy_vectors(const Vector<16>* source, Vector<16>* target, long long count) {
  const long long stride = (long long)gridDim.x * blockDim.x;
  for (long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x; index < count; index += stride) {
    target[index] = source[index];
  }
}
