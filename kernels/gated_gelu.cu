// The gated activation of a transformer's feed-forward network (GEGLU, Shazeer, arXiv 2002.05202).
#include "rows.cuh"
#include "special_functions.cuh"
#include "vectors.cuh"

constexpr int GATED_GELU_THREADS = 256;
constexpr int VECTORS_PER_THREAD = 2;  // of each half; all are in flight together

// x times the normal distribution function of x. Below zero that function is exp(-x^2 / 2) t P(t) of t = 1 / (1 + |x| / 4),
// with a P of degree 6 that is off by 2.5e-7 of it where |x| < 6. Nothing cancels, so all that is added is the rounding of
// x^2 in the exponent: the result is right to 2e-6 of itself where |x| < 5, and to 1e-7 (1 + |x|) everywhere; 1 + erff
// would lose digits at -4.
__device__ inline float gelu(float x) {
  const float t = reciprocal(1.0f + 0.25f * fabsf(x));
  float tail = -0.09186857f;
  tail = tail * t + 0.34424347f;
  tail = tail * t - 0.27441394f;
  tail = tail * t + 0.2907122f;
  tail = tail * t + 0.018520607f;
  tail = tail * t + 0.11425114f;
  tail = tail * t + 0.09855523f;
  tail *= t * power_of_two(x * x * -0.72134752f);
  return x * (x < 0.0f ? tail : 1.0f - tail);
}

// Grid: blocks of vectors, rows. `x` has two halves at each position, [positions, 2, width]: what is gated, and gates.
template <typename T>
__device__ void gated_gelu(const Rows<const T>& x, const Rows<T>& out, int positions, int width) {
  constexpr int elements = 16 / int(sizeof(T));
  const int vectors = width / elements;
  const int count = positions * vectors;
  const int first = blockIdx.x * (GATED_GELU_THREADS * VECTORS_PER_THREAD) + threadIdx.x;
  const Vector<16>* from = reinterpret_cast<const Vector<16>*>(x.row(blockIdx.y));
  Vector<16>* to = reinterpret_cast<Vector<16>*>(out.row(blockIdx.y));

  Vector<16> gated[VECTORS_PER_THREAD];
  Vector<16> gates[VECTORS_PER_THREAD];
#pragma unroll
  for (int index = 0; index < VECTORS_PER_THREAD; ++index) {
    const int vector = first + index * GATED_GELU_THREADS;
    const int at = vector + vector / vectors * vectors;
    gated[index] = load_once(from + at, vector < count);
    gates[index] = load_once(from + at + vectors, vector < count);
  }
#pragma unroll
  for (int index = 0; index < VECTORS_PER_THREAD; ++index) {
    const int vector = first + index * GATED_GELU_THREADS;
    float products[elements];
#pragma unroll
    for (int element = 0; element < elements; ++element) {
      const float gate = gelu(Packing<T>::unpack(gates[index].words, element));
      products[element] = Packing<T>::unpack(gated[index].words, element) * gate;
    }
    Vector<16> result;
    Packing<T>::pack(products, result.words, 4);
    if (vector < count) to[vector] = result;
  }
}

#define GATED_GELU(name, T)                                                                            \
  extern "C" __global__ void __launch_bounds__(GATED_GELU_THREADS) gated_gelu_##name(                  \
      ROWS(const T, x), ROWS(T, out), int chunk_rows, int positions, int width) {                      \
    const long long elements = (long long)positions * width;                                           \
    gated_gelu<T>(AS_ROWS(const T, x, 2 * elements), AS_ROWS(T, out, elements), positions, width);     \
  }

FOR_EACH_ELEMENT_TYPE(GATED_GELU)
