// Copies by kernels instead of the driver's. Inside a captured tick: a graph that holds a copy of the driver's costs the
// host milliseconds at each launch, one that holds kernels alone does not. And to and from the host's page-locked memory,
// which has the same address here as there: launching one kernel costs the host less than the driver's copies do.
#include "tick_parameters.cuh"
#include "vectors.cuh"

__device__ inline long long thread_of_grid() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }

__device__ inline void copy(const Vector<16>* source, Vector<16>* target, long long count) {
  const long long stride = (long long)gridDim.x * blockDim.x;
  for (long long index = thread_of_grid(); index < count; index += stride) target[index] = source[index];
}

// As copy, of any number of bytes: what is left behind the last vector goes byte by byte. A grid has 16 threads or more.
__device__ inline void copy_bytes(const Vector<16>* source, Vector<16>* target, long long bytes) {
  const long long count = bytes / sizeof(Vector<16>);
  copy(source, target, count);
  const long long rest = count * sizeof(Vector<16>) + thread_of_grid();
  if (rest < bytes) {
    reinterpret_cast<unsigned char*>(target)[rest] = reinterpret_cast<const unsigned char*>(source)[rest];
  }
}

// Grid of all: blocks of vectors.
extern "C" __global__ void copy_vectors(const Vector<16>* source, Vector<16>* target, long long count) {
  copy(source, target, count);
}

static_assert(sizeof(TickParameters) % sizeof(Vector<16>) == 0, "the tick's parameters are copied as vectors");

// What comes in with a tick: its parameters, and the picture, if there is one.
extern "C" __global__ void fetch(
    const Vector<16>* record, Vector<16>* parameters, const Vector<16>* pixels, Vector<16>* picture, long long bytes) {
  copy(record, parameters, sizeof(TickParameters) / sizeof(Vector<16>));
  copy_bytes(pixels, picture, bytes);
}

// The picture that leaves.
extern "C" __global__ void deliver(const Vector<16>* picture, Vector<16>* pixels, long long bytes) {
  copy_bytes(picture, pixels, bytes);
}
