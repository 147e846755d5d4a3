// Group normalisation (Wu and He, arXiv 1803.08494) of groups that a block can keep: one launch, which reads and writes
// every element once.
#include "group_norm.cuh"

constexpr int MAXIMUM_THREADS = 1024;  // of a block; group_norm.py has these, too
constexpr int KEPT_BYTES = 128;        // per thread

// The sum over a block, the same in all its threads to the last bit. `sums`: float32 [32], for this sum only.
__device__ inline float sum_of_block(float value, float* sums) {
  value = sum_of_warp(value);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = value;
  __syncthreads();
  return sum_of_warp(threadIdx.x % 32 < blockDim.x / 32 ? sums[threadIdx.x % 32] : 0.0f);
}

// Grid: groups, rows. `out` may be `x`.
//
// A thread has one vector of channels, of BYTES, at every `lanes`-th position, all of them in registers: so the mean is
// there before the first difference from it is squared. Differences are from the group's first value, which keeps digits
// where the mean is far larger than the deviation, and leaves 0 of what does not vary.
template <typename T, int BYTES>
__device__ void group_norm_once(
    const Rows<const T>& x, const RepeatedRows<const T>& row_bias, const Rows<T>& out, const T* scale, const T* shift,
    int positions, int channels, int groups, int lanes, float epsilon, int with_silu) {
  constexpr int elements = 4 / int(sizeof(T));  // of a word
  constexpr int words = BYTES / 4;
  constexpr int kept_vectors = KEPT_BYTES / BYTES;
  using Words = Vector<BYTES>;
  __shared__ float sums[32];
  __shared__ float squares[32];
  const int group_channels = channels / groups;
  const int vectors = group_channels / (elements * words);
  const int lane = threadIdx.x / vectors;
  const int first_channel = blockIdx.x * group_channels;
  const int channel = first_channel + (threadIdx.x - lane * vectors) * (elements * words);
  const int left = lane < lanes ? positions - lane : 0;  // positions from this thread's first on

  const T* frame = x.row_of_block(blockIdx.y);
  const int step = lanes * channels;
  const int begin = lane * channels + channel;
  Words kept[kept_vectors];
#pragma unroll
  for (int index = 0; index < kept_vectors; ++index) {
    if (index * lanes >= positions) break;
    kept[index] =
        load_to_change(reinterpret_cast<const Words*>(frame + begin + index * step), index * lanes < left);
  }
  const T* bias = bias_of_row(row_bias);
  const float reference = first_value(frame, bias, first_channel);
  const Words scales = load_shared_table(reinterpret_cast<const Words*>(scale + channel));
  const Words shifts = load_shared_table(reinterpret_cast<const Words*>(shift + channel));
  Words biases{};
  if (bias != nullptr) biases = load_shared_table(reinterpret_cast<const Words*>(bias + channel));

  float sum = 0.0f;
#pragma unroll
  for (int index = 0; index < kept_vectors; ++index) {
    if (index * lanes >= positions) break;
    if (index * lanes < left) {
#pragma unroll
      for (int element = 0; element < elements * words; ++element) {
        sum += Packing<T>::unpack(kept[index].words, element) + Packing<T>::unpack(biases.words, element) - reference;
      }
    }
  }
  const float count = float(positions) * float(group_channels);
  const float mean = sum_of_block(sum, sums) / count;  // less the reference

  float square = 0.0f;
#pragma unroll
  for (int index = 0; index < kept_vectors; ++index) {
    if (index * lanes >= positions) break;
    if (index * lanes < left) {
#pragma unroll
      for (int element = 0; element < elements * words; ++element) {
        const float value = Packing<T>::unpack(kept[index].words, element);
        const float difference = value + Packing<T>::unpack(biases.words, element) - reference - mean;
        square += difference * difference;
      }
    }
  }
  const float factor = rsqrtf(sum_of_block(square, squares) / count + epsilon);

  // Word by word, so that the constants of a few channels are in registers at a time.
#pragma unroll
  for (int word = 0; word < words; ++word) {
    Normalisation normalisations[elements];
#pragma unroll
    for (int element = 0; element < elements; ++element) {
      const float scaled = Packing<T>::unpack(scales.words + word, element) * factor;
      normalisations[element] = {
          Packing<T>::unpack(biases.words + word, element), reference, scaled,
          Packing<T>::unpack(shifts.words + word, element) - mean * scaled};
    }
#pragma unroll
    for (int index = 0; index < kept_vectors; ++index) {
      if (index * lanes >= positions) break;
      float values[elements];
#pragma unroll
      for (int element = 0; element < elements; ++element) {
        const float value = normalisations[element](Packing<T>::unpack(kept[index].words + word, element));
        values[element] = with_silu != 0 ? silu(value) : value;
      }
      Packing<T>::pack(values, kept[index].words + word, 1);
    }
  }
  T* target = out.row_of_block(blockIdx.y);
#pragma unroll
  for (int index = 0; index < kept_vectors; ++index) {
    if (index * lanes < left) *reinterpret_cast<Words*>(target + begin + index * step) = kept[index];
  }
}

#define GROUP_NORM_ONCE(name, T, BYTES)                                                                             \
  extern "C" __global__ void __launch_bounds__(MAXIMUM_THREADS) group_norm_once_##name##_##BYTES(                   \
      ROWS(const T, x), ROWS(const T, row_bias), ROWS(T, out), int chunk_rows, int row_bias_rows, const T* scale,   \
      const T* shift, int positions, int channels, int groups, int lanes, float epsilon, int with_silu) {           \
    const long long elements = (long long)positions * channels;                                                     \
    group_norm_once<T, BYTES>(                                                                                      \
        AS_ROWS(const T, x, elements), AS_REPEATED_ROWS(const T, row_bias, channels, row_bias_rows),                \
        AS_ROWS(T, out, elements), scale, shift, positions, channels, groups, lanes, epsilon, with_silu);           \
  }

#define FOR_EACH_VECTOR_SIZE(name, T) \
  GROUP_NORM_ONCE(name, T, 4)         \
  GROUP_NORM_ONCE(name, T, 8)         \
  GROUP_NORM_ONCE(name, T, 16)

FOR_EACH_ELEMENT_TYPE(FOR_EACH_VECTOR_SIZE)
