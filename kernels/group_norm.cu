// Group normalisation (Wu and He, arXiv 1803.08494) over [positions, channels], in two launches: the statistics of
// chunks of positions, then their union and what becomes of each element. Nothing depends on which block comes first.
#include "group_norm.cuh"

constexpr int MAXIMUM_THREADS = 640;  // of a block; group_norm.py has these, too
constexpr int MAXIMUM_CHUNKS = 64;
constexpr int MAXIMUM_GROUPS = 128;
constexpr int VECTORS_IN_FLIGHT = 4;  // per thread

// How a tensor is cut. A thread has one vector of channels at every `lanes`-th position of its block's chunk.
template <typename T>
struct Share {
  static constexpr int elements = 16 / int(sizeof(T));
  int channels;
  int vectors;  // of a position
  int lanes;    // positions that a block reads at a time
  int vector;   // this thread's
  int lane;
  bool works;
  int begin;  // of the chunk, in positions
  int end;

  __device__ Share(int positions, int all_channels, int chunk_positions) {
    channels = all_channels;
    vectors = channels / elements;
    lanes = blockDim.x / vectors;
    vector = threadIdx.x % vectors;
    lane = threadIdx.x / vectors;
    works = lane < lanes;
    begin = blockIdx.x * chunk_positions;
    end = min(begin + chunk_positions, positions);
  }

  // Where this thread's vector is at a position.
  __device__ long long at(int position) const { return (long long)position * vectors + vector; }
};

// What the two launches hand over for one row, float32 [2 MAXIMUM_CHUNKS + 1, groups]: of each chunk and group the mean
// less the group's reference; of each the sum of squared differences from its mean; and the references.
struct Statistics {
  float* row;
  int groups;

  __device__ float& mean(int chunk, int group) const { return row[chunk * groups + group]; }
  __device__ float& squares(int chunk, int group) const { return row[(MAXIMUM_CHUNKS + chunk) * groups + group]; }
  __device__ float& reference(int group) const { return row[2 * MAXIMUM_CHUNKS * groups + group]; }
};

__device__ inline Statistics statistics_of_row(float* statistics, int groups) {
  return {statistics + (long long)blockIdx.y * (2 * MAXIMUM_CHUNKS + 1) * groups, groups};
}

// Grid: chunks, rows.
//
// A thread sums differences from the first position, and their squares, so that digits are kept where the mean is far
// larger than the deviation, and what does not vary has no variance. Unions are Chan's (Chan, Golub and LeVeque 1979):
// squares around the common mean, of parts of equal size.
template <typename T>
__device__ void group_statistics(
    const Rows<const T>& x, const RepeatedRows<const T>& row_bias, float* statistics, int positions, int channels,
    int groups, int chunk_positions) {
  constexpr int elements = Share<T>::elements;
  __shared__ float sums[MAXIMUM_THREADS * elements];  // [lanes, channels]; in the end of a channel its mean
  __shared__ float squares[MAXIMUM_THREADS * elements];
  const Share<T> share(positions, channels, chunk_positions);
  const T* frame = x.row(blockIdx.y);
  const Vector<16>* vectors = reinterpret_cast<const Vector<16>*>(frame);

  if (share.works) {
    float sum[elements] = {};
    float square[elements] = {};
    const Vector<16> first = load_shared_table(vectors + share.vector);
#pragma unroll 1
    for (int position = share.begin + share.lane; position < share.end; position += VECTORS_IN_FLIGHT * share.lanes) {
      Vector<16> loaded[VECTORS_IN_FLIGHT];
#pragma unroll
      for (int index = 0; index < VECTORS_IN_FLIGHT; ++index) {
        const int here = position + index * share.lanes;
        loaded[index] = load_once(vectors + share.at(here), here < share.end);
      }
#pragma unroll
      for (int index = 0; index < VECTORS_IN_FLIGHT; ++index) {
        if (position + index * share.lanes < share.end) {
#pragma unroll
          for (int element = 0; element < elements; ++element) {
            const float difference =
                Packing<T>::unpack(loaded[index].words, element) - Packing<T>::unpack(first.words, element);
            sum[element] += difference;
            square[element] += difference * difference;
          }
        }
      }
    }
    const int at = share.lane * channels + share.vector * elements;
#pragma unroll
    for (int element = 0; element < elements; ++element) {
      sums[at + element] = sum[element];
      squares[at + element] = square[element];
    }
  }
  __syncthreads();

  const T* bias = bias_of_row(row_bias);
  const int group_channels = channels / groups;
  const float count = float(share.end - share.begin);
  for (int channel = threadIdx.x; channel < channels; channel += blockDim.x) {
    float sum = 0.0f;
    float square = 0.0f;
    for (int lane = 0; lane < share.lanes; ++lane) {
      sum += sums[lane * channels + channel];
      square += squares[lane * channels + channel];
    }
    const float reference = first_value(frame, bias, channel / group_channels * group_channels);
    sums[channel] = first_value(frame, bias, channel) - reference + sum / count;
    squares[channel] = fmaxf(square - sum * (sum / count), 0.0f);
  }
  __syncthreads();

  const Statistics row = statistics_of_row(statistics, groups);
  for (int group = threadIdx.x / 32; group < groups; group += blockDim.x / 32) {
    const int first_channel = group * group_channels;
    float mean = 0.0f;
    for (int index = threadIdx.x % 32; index < group_channels; index += 32) mean += sums[first_channel + index];
    mean = sum_of_warp(mean) / float(group_channels);
    float square = 0.0f;
    for (int index = threadIdx.x % 32; index < group_channels; index += 32) {
      const float difference = sums[first_channel + index] - mean;
      square += squares[first_channel + index] + count * difference * difference;
    }
    square = sum_of_warp(square);
    if (threadIdx.x % 32 == 0) {
      row.mean(blockIdx.x, group) = mean;
      row.squares(blockIdx.x, group) = square;
      if (blockIdx.x == 0) row.reference(group) = first_value(frame, bias, first_channel);
    }
  }
}

// Grid: chunks, rows; both as in group_statistics. `out` may be `x`.
template <typename T>
__device__ void group_normalise(
    const Rows<const T>& x, const RepeatedRows<const T>& row_bias, const Rows<T>& out, float* statistics,
    const T* scale, const T* shift, int positions, int channels, int groups, int chunk_positions, float epsilon,
    int with_silu) {
  constexpr int elements = Share<T>::elements;
  __shared__ float references[MAXIMUM_GROUPS];
  __shared__ float means[MAXIMUM_GROUPS];  // less the reference
  __shared__ float factors[MAXIMUM_GROUPS];
  const Share<T> share(positions, channels, chunk_positions);
  const int group_channels = channels / groups;
  const Statistics row = statistics_of_row(statistics, groups);

  // A warp unites the chunks of a group, of which a lane has two.
  const int chunks = gridDim.x;
  for (int group = threadIdx.x / 32; group < groups; group += blockDim.x / 32) {
    float counts[MAXIMUM_CHUNKS / 32] = {};
    float chunk_means[MAXIMUM_CHUNKS / 32] = {};
    float square = 0.0f;
    float mean = 0.0f;
#pragma unroll
    for (int part = 0; part < MAXIMUM_CHUNKS / 32; ++part) {
      const int chunk = threadIdx.x % 32 + part * 32;
      if (chunk < chunks) {
        counts[part] = float(min(chunk_positions, positions - chunk * chunk_positions));
        chunk_means[part] = row.mean(chunk, group);
        square += row.squares(chunk, group);
        mean += counts[part] * chunk_means[part];
      }
    }
    mean = sum_of_warp(mean) / float(positions);
#pragma unroll
    for (int part = 0; part < MAXIMUM_CHUNKS / 32; ++part) {
      const float difference = chunk_means[part] - mean;
      square += float(group_channels) * counts[part] * difference * difference;
    }
    square = sum_of_warp(square);
    if (threadIdx.x % 32 == 0) {
      references[group] = row.reference(group);
      means[group] = mean;
      factors[group] = rsqrtf(square / (float(positions) * float(group_channels)) + epsilon);
    }
  }
  __syncthreads();
  if (!share.works) return;

  const T* bias = bias_of_row(row_bias);
  Normalisation normalisations[elements];
#pragma unroll
  for (int element = 0; element < elements; ++element) {
    const int channel = share.vector * elements + element;
    const int group = channel / group_channels;
    const float factor = to_float(scale[channel]) * factors[group];
    normalisations[element] = {
        bias == nullptr ? 0.0f : to_float(bias[channel]), references[group], factor,
        to_float(shift[channel]) - means[group] * factor};
  }

  const Vector<16>* from = reinterpret_cast<const Vector<16>*>(x.row(blockIdx.y));
  Vector<16>* to = reinterpret_cast<Vector<16>*>(out.row(blockIdx.y));
#pragma unroll 1
  for (int position = share.begin + share.lane; position < share.end; position += VECTORS_IN_FLIGHT * share.lanes) {
    Vector<16> loaded[VECTORS_IN_FLIGHT];
#pragma unroll
    for (int index = 0; index < VECTORS_IN_FLIGHT; ++index) {
      const int here = position + index * share.lanes;
      if (here < share.end) loaded[index] = from[share.at(here)];
    }
#pragma unroll
    for (int index = 0; index < VECTORS_IN_FLIGHT; ++index) {
      const int here = position + index * share.lanes;
      if (here >= share.end) continue;
      float values[elements];
#pragma unroll
      for (int element = 0; element < elements; ++element) {
        const float value = normalisations[element](Packing<T>::unpack(loaded[index].words, element));
        values[element] = with_silu != 0 ? silu(value) : value;
      }
      Vector<16> result;
      Packing<T>::pack(values, result.words, 4);
      to[share.at(here)] = result;
    }
  }
}

#define GROUP_NORM(name, T)                                                                                       \
  extern "C" __global__ void __launch_bounds__(MAXIMUM_THREADS) group_statistics_##name(                          \
      ROWS(const T, x), ROWS(const T, row_bias), int chunk_rows, int row_bias_rows, float* statistics,            \
      int positions, int channels, int groups, int chunk_positions) {                                             \
    const long long elements = (long long)positions * channels;                                                   \
    group_statistics<T>(                                                                                          \
        AS_ROWS(const T, x, elements), AS_REPEATED_ROWS(const T, row_bias, channels, row_bias_rows), statistics,  \
        positions, channels, groups, chunk_positions);                                                            \
  }                                                                                                               \
  extern "C" __global__ void __launch_bounds__(MAXIMUM_THREADS) group_normalise_##name(                           \
      ROWS(const T, x), ROWS(const T, row_bias), ROWS(T, out), int chunk_rows, int row_bias_rows,                 \
      float* statistics, const T* scale, const T* shift, int positions, int channels, int groups,                 \
      int chunk_positions, float epsilon, int with_silu) {                                                        \
    const long long elements = (long long)positions * channels;                                                   \
    group_normalise<T>(                                                                                           \
        AS_ROWS(const T, x, elements), AS_REPEATED_ROWS(const T, row_bias, channels, row_bias_rows),              \
        AS_ROWS(T, out, elements), statistics, scale, shift, positions, channels, groups, chunk_positions,        \
        epsilon, with_silu);                                                                                      \
  }

FOR_EACH_ELEMENT_TYPE(GROUP_NORM)
