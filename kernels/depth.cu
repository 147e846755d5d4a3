// What goes into the depth network, and its answer on the way to the autoencoder.
#include "bilinear.cuh"
#include "half.cuh"
#include "vectors.cuh"

constexpr int RANGE_THREADS = 1024;

// Planes, [planes, from_height, from_width] to [planes, height, width].
template <typename T>
__device__ void resize_bilinear(const T* image, T* resized, int from_width, int from_height, int width, int height) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x;
  const int y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= width || y >= height) return;
  const BilinearTaps across(x, from_width, width);
  const BilinearTaps down(y, from_height, height);
  const T* top = image + ((long long)blockIdx.z * from_height + down.low) * from_width;
  const T* bottom = image + ((long long)blockIdx.z * from_height + down.high) * from_width;
  const float left = down.mix(to_float(top[across.low]), to_float(bottom[across.low]));
  const float right = down.mix(to_float(top[across.high]), to_float(bottom[across.high]));
  resized[((long long)blockIdx.z * height + y) * width + x] = from_float<T>(across.mix(left, right));
}

// Smallest and largest of all elements; one block, so that nothing has to be prepared or gathered.
template <typename T>
__device__ void depth_range(const T* depth_maps, long long count, float* range) {
  __shared__ float lows[32], highs[32];
  float low = __int_as_float(0x7F800000), high = -low;
  constexpr int VECTOR = 16 / int(sizeof(T));
  const long long vectors = count / VECTOR;
#pragma unroll 4
  for (long long index = threadIdx.x; index < vectors; index += RANGE_THREADS) {
    const Vector<16> depths = reinterpret_cast<const Vector<16>*>(depth_maps)[index];
#pragma unroll
    for (int element = 0; element < VECTOR; ++element) {
      const float depth = Packing<T>::unpack(depths.words, element);
      low = fminf(low, depth);
      high = fmaxf(high, depth);
    }
  }
  for (long long index = vectors * VECTOR + threadIdx.x; index < count; index += RANGE_THREADS) {
    const float depth = to_float(depth_maps[index]);
    low = fminf(low, depth);
    high = fmaxf(high, depth);
  }
  for (int apart = 16; apart > 0; apart /= 2) {
    low = fminf(low, __shfl_xor_sync(0xFFFFFFFFu, low, apart));
    high = fmaxf(high, __shfl_xor_sync(0xFFFFFFFFu, high, apart));
  }
  if (threadIdx.x % 32 == 0) {
    lows[threadIdx.x / 32] = low;
    highs[threadIdx.x / 32] = high;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int warp = 1; warp < RANGE_THREADS / 32; ++warp) {
    low = fminf(low, lows[warp]);
    high = fmaxf(high, highs[warp]);
  }
  range[0] = low;
  range[1] = high;
}

// One corner of the interpolation, scaled before it is mixed: what the depths have in common is subtracted exactly.
struct DepthScale {
  float low;
  float width;
  bool flat;

  __device__ float operator()(float depth) const { return flat ? 0.0f : (depth - low) / width * 2.0f - 1.0f; }
};

// [frames, side, side] to [frames, 3, height, width], in [-1, 1]; all three channels alike.
template <typename T>
__device__ void depth_to_image(const T* depth_maps, const float* range, T* images, int side, int width, int height) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x;
  const int y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= width || y >= height) return;
  const DepthScale scaled{range[0], range[1] - range[0], !(range[1] > range[0])};
  const BilinearTaps across(x, side, width);
  const BilinearTaps down(y, side, height);
  const T* top = depth_maps + ((long long)blockIdx.z * side + down.low) * side;
  const T* bottom = depth_maps + ((long long)blockIdx.z * side + down.high) * side;
  const float left = down.mix(scaled(to_float(top[across.low])), scaled(to_float(bottom[across.low])));
  const float right = down.mix(scaled(to_float(top[across.high])), scaled(to_float(bottom[across.high])));
  const T value = from_float<T>(across.mix(left, right));
  for (int channel = 0; channel < 3; ++channel) {
    images[(((long long)blockIdx.z * 3 + channel) * height + y) * width + x] = value;
  }
}

#define DEPTH(name, T)                                                                                            \
  extern "C" __global__ void resize_bilinear_##name(                                                              \
      const T* image, T* resized, int from_width, int from_height, int width, int height) {                       \
    resize_bilinear<T>(image, resized, from_width, from_height, width, height);                                   \
  }                                                                                                               \
  extern "C" __global__ void __launch_bounds__(RANGE_THREADS)                                                     \
      depth_range_##name(const T* depth_maps, long long count, float* range) {                                    \
    depth_range<T>(depth_maps, count, range);                                                                     \
  }                                                                                                               \
  extern "C" __global__ void depth_to_image_##name(                                                               \
      const T* depth_maps, const float* range, T* images, int side, int width, int height) {                      \
    depth_to_image<T>(depth_maps, range, images, side, width, height);                                            \
  }

FOR_EACH_ELEMENT_TYPE(DEPTH)
