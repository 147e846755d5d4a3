// Pictures on their way in and out: crop, resize and scale; back to bytes.
#include "half.cuh"
#include "tick_parameters.cuh"

__device__ inline int floor_divided(int value, int by) { return value >= 0 ? value / by : -((-value + by - 1) / by); }

// Which source pixels an output pixel reads under an antialiased triangle filter, and how much of each. In units of
// 1 / (2 * to) source pixels everything is an integer: the centre lies at (2 * output + 1) * from - to, and the
// triangle reaches 2 * max(from, to) to both sides.
struct Triangle {
  int first;
  int last;
  int centre;
  int reach;
  int unit;
  float total;

  __device__ Triangle(int output, int from, int to)
      : centre((2 * output + 1) * from - to), reach(2 * max(from, to)), unit(2 * to) {
    first = max(0, floor_divided(centre - reach, unit) + 1);
    last = min(from - 1, floor_divided(centre + reach - 1, unit));
    total = 0.0f;
    for (int source = first; source <= last; ++source) total += weight(source);
  }

  __device__ float weight(int source) const { return float(reach - abs(source * unit - centre)); }
};

template <typename T>
__device__ void preprocess(const TickParameters* parameters, T* image, int width, int height) {
  const int x = blockIdx.x * blockDim.x + threadIdx.x;
  const int y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x >= width || y >= height) return;
  const Triangle across(x, parameters->crop_width, width);
  const Triangle down(y, parameters->crop_height, height);
  const unsigned char* kept = reinterpret_cast<const unsigned char*>(parameters->source) +
                              parameters->crop_top * parameters->source_row_bytes + 3ll * parameters->crop_left;
  float sums[3] = {0.0f, 0.0f, 0.0f};
  for (int line = down.first; line <= down.last; ++line) {
    const unsigned char* pixels = kept + line * parameters->source_row_bytes;
    float line_sums[3] = {0.0f, 0.0f, 0.0f};
    for (int column = across.first; column <= across.last; ++column) {
      const float weight = across.weight(column);
      for (int channel = 0; channel < 3; ++channel) line_sums[channel] += weight * float(pixels[3 * column + channel]);
    }
    for (int channel = 0; channel < 3; ++channel) {
      sums[channel] += down.weight(line) * (line_sums[channel] / across.total);
    }
  }
  for (int channel = 0; channel < 3; ++channel) {
    const float value = sums[channel] / down.total / 127.5f - 1.0f;
    image[((long long)channel * height + y) * width + x] = from_float<T>(value);
  }
}

template <typename T>
__device__ void postprocess(const T* image, unsigned char* pixels, int width, int height) {
  const int pixel = blockIdx.x * blockDim.x + threadIdx.x;
  const int count = width * height;
  if (pixel >= count) return;
  for (int channel = 0; channel < 3; ++channel) {
    // fmaxf takes the other operand where one is not a number: it becomes black.
    const float value = fminf(fmaxf(to_float(image[(long long)channel * count + pixel]), -1.0f), 1.0f);
    pixels[3ll * pixel + channel] = (unsigned char)rintf((value / 2.0f + 0.5f) * 255.0f);
  }
}

#define PICTURES(name, T)                                                                            \
  extern "C" __global__ void preprocess_##name(                                                      \
      const TickParameters* parameters, T* image, int width, int height) {                           \
    preprocess<T>(parameters, image, width, height);                                                 \
  }                                                                                                  \
  extern "C" __global__ void postprocess_##name(const T* image, unsigned char* pixels, int width, int height) { \
    postprocess<T>(image, pixels, width, height);                                                    \
  }

FOR_EACH_ELEMENT_TYPE(PICTURES)
