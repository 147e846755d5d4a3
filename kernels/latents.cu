// The rows' latents: noised where a frame enters, and the step of the latent consistency model. A thread handles the
// four elements of one block of noise, in every row.
#include "half.cuh"
#include "philox.cuh"
#include "rows.cuh"
#include "tick_parameters.cuh"

constexpr int BLOCK_ELEMENTS = 4;

__device__ inline int block_of_thread() { return blockIdx.x * blockDim.x + threadIdx.x; }

// A latent at the noise level of a step (DDPM, arXiv 2006.11239, eq. 4).
__device__ inline float noised(const StepTable* steps, int step, float clean, float noise) {
  return steps->sqrt_alpha[step] * clean + steps->sqrt_one_minus_alpha[step] * noise;
}

// The clean latent that a row's model output predicts (LCM, arXiv 2310.04378, eq. 9).
__device__ inline float predicted(const StepTable* steps, int step, float sample, float model_output) {
  const float clean = (sample - steps->sqrt_one_minus_alpha[step] * model_output) / steps->sqrt_alpha[step];
  return steps->c_out[step] * clean + steps->c_skip[step] * sample;
}

template <typename T>
__device__ void enter(
    const T* latent, T* sample, const TickParameters* parameters, const StepTable* steps, int elements) {
  if (parameters->rows[0].active == 0) return;
  const Normals noise = standard_normals(block_of_thread(), parameters->seed, parameters->rows[0].frame, 0, ENTER);
#pragma unroll
  for (int inside = 0; inside < BLOCK_ELEMENTS; ++inside) {
    const int element = block_of_thread() * BLOCK_ELEMENTS + inside;
    if (element < elements) {
      sample[element] = from_float<T>(noised(steps, 0, to_float(latent[element]), noise.values[inside]));
    }
  }
}

template <typename Clean, typename T>
__device__ void enter_warm_up(
    Rows<const Clean> clean, Rows<T> sample, const TickParameters* parameters, const StepTable* steps, int row,
    int elements) {
  const int frame = blockIdx.y;
  const Clean* from = clean.row(frame);
  T* to = sample.row(frame);
  const Normals noise = standard_normals(block_of_thread(), parameters->seed, frame, row, WARM_UP);
#pragma unroll
  for (int inside = 0; inside < BLOCK_ELEMENTS; ++inside) {
    const int element = block_of_thread() * BLOCK_ELEMENTS + inside;
    if (element < elements) {
      to[element] = from_float<T>(noised(steps, row, to_float(from[element]), noise.values[inside]));
    }
  }
}

// The noise that a frame is denoised with: led away from what is believed of the negative noise (classifier-free guidance,
// arXiv 2207.12598, and residual classifier-free guidance, StreamDiffusion, arXiv 2312.12491). The formulas are in
// runtime/guided_noise.py.
__device__ inline float guided(const TickParameters* parameters, float positive, float negative) {
  const float believed = parameters->guidance_delta * negative;
  return believed + parameters->guidance_scale * (positive - believed);
}

// No guidance: the noise is the model's, and nothing more is read.
struct Unguided {
  __device__ float noise(int, int, const StepTable*, int, float, float model_output) const { return model_output; }
};

// Kind self: the negative noise is the one that would lead each row back to its origin.
template <typename T>
struct GuidedFromOrigin {
  Rows<const T> origins;
  const TickParameters* parameters;

  __device__ float noise(
      int row, int element, const StepTable* steps, int step, float sample, float model_output) const {
    const float origin = to_float(origins.row(row)[element]);
    const float negative = (sample - steps->sqrt_alpha[step] * origin) / steps->sqrt_one_minus_alpha[step];
    return guided(parameters, model_output, negative);
  }
};

// Kind full: the model's under the negative prompt, of which row 0's is row `first`.
template <typename T>
struct GuidedFromModel {
  Rows<const T> negative_output;
  int first;
  const TickParameters* parameters;

  __device__ float noise(int row, int element, const StepTable*, int, float, float model_output) const {
    return guided(parameters, model_output, to_float(negative_output.row(first + row)[element]));
  }
};

// Kind initialize: the model's, for the first `asked` rows, whose origins become the latents that it implies. The other
// rows have such an origin already.
template <typename T>
struct GuidedFromFirstStep {
  Rows<T> origins;
  Rows<const T> negative_output;
  int first;
  int asked;
  const TickParameters* parameters;

  __device__ float noise(
      int row, int element, const StepTable* steps, int step, float sample, float model_output) const {
    T* origin = origins.row(row) + element;
    const float sqrt_alpha = steps->sqrt_alpha[step];
    const float sqrt_one_minus_alpha = steps->sqrt_one_minus_alpha[step];
    float negative;
    if (row < asked) {
      negative = to_float(negative_output.row(first + row)[element]);
      *origin = from_float<T>((sample - sqrt_one_minus_alpha * negative) / sqrt_alpha);
    } else {
      negative = (sample - sqrt_alpha * to_float(*origin)) / sqrt_one_minus_alpha;
    }
    return guided(parameters, model_output, negative);
  }
};

// From the last row to the first: a row is overwritten by the one before it, after it was read.
template <typename T, typename Guidance>
__device__ void lcm_step(
    Guidance guidance, Rows<T> sample, Rows<const T> model_output, Rows<float> x0, T* finished,
    const TickParameters* parameters, const StepTable* steps, int rows, int elements) {
  for (int row = rows - 1; row >= 0; --row) {
    const RowParameters& here = parameters->rows[row];
    const bool last = row == rows - 1;
    const bool moves_on = !last && here.active != 0;
    Normals noise{};
    if (moves_on) noise = standard_normals(block_of_thread(), parameters->seed, here.frame, row + 1, RENOISE);
    const T* from = sample.row(row);
    const T* output = model_output.row(row);
    T* to = last ? finished : sample.row(row + 1);
    float* clean = x0.row(row);
#pragma unroll
    for (int inside = 0; inside < BLOCK_ELEMENTS; ++inside) {
      const int element = block_of_thread() * BLOCK_ELEMENTS + inside;
      if (element >= elements) continue;
      const float before = to_float(from[element]);
      const float noise_found = guidance.noise(row, element, steps, row, before, to_float(output[element]));
      const float value = predicted(steps, row, before, noise_found);
      clean[element] = value;
      if (last) to[element] = from_float<T>(value);
      if (moves_on) to[element] = from_float<T>(noised(steps, row + 1, value, noise.values[inside]));
    }
  }
}

template <typename T, typename Guidance>
__device__ void lcm_step_warm_up(
    Guidance guidance, Rows<const T> sample, Rows<const T> model_output, Rows<float> x0, Rows<T> finished,
    const StepTable* steps, int row, int elements) {
  const int frame = blockIdx.y;
  const int element = block_of_thread();
  if (element >= elements) return;
  const float before = to_float(sample.row(frame)[element]);
  const float noise = guidance.noise(frame, element, steps, row, before, to_float(model_output.row(frame)[element]));
  const float value = predicted(steps, row, before, noise);
  x0.row(frame)[element] = value;
  finished.row(frame)[element] = from_float<T>(value);
}

// What the steps of all kinds of guidance have in common.
#define LCM_STEP_ARGUMENTS(T)                                                                                \
  AS_ROWS(T, sample, elements), AS_ROWS(const T, model_output, elements), AS_ROWS(float, x0, elements), finished, \
      parameters, steps, rows, elements
#define LCM_STEP_WARM_UP_ARGUMENTS(T)                                                                        \
  AS_ROWS(const T, sample, elements), AS_ROWS(const T, model_output, elements), AS_ROWS(float, x0, elements), \
      AS_ROWS(T, finished, elements), steps, row, elements

#define LATENTS(name, T)                                                                                          \
  extern "C" __global__ void enter_##name(                                                                        \
      const T* latent, T* sample, const TickParameters* parameters, const StepTable* steps, int elements) {       \
    enter<T>(latent, sample, parameters, steps, elements);                                                        \
  }                                                                                                               \
  extern "C" __global__ void enter_warm_up_##name(                                                                \
      ROWS(const T, clean), ROWS(T, sample), int chunk_rows, const TickParameters* parameters,                    \
      const StepTable* steps, int row, int elements) {                                                            \
    enter_warm_up<T, T>(                                                                                          \
        AS_ROWS(const T, clean, elements), AS_ROWS(T, sample, elements), parameters, steps, row, elements);       \
  }                                                                                                               \
  extern "C" __global__ void enter_warm_up_from_x0_##name(                                                        \
      ROWS(const float, clean), ROWS(T, sample), int chunk_rows, const TickParameters* parameters,                \
      const StepTable* steps, int row, int elements) {                                                            \
    enter_warm_up<float, T>(                                                                                      \
        AS_ROWS(const float, clean, elements), AS_ROWS(T, sample, elements), parameters, steps, row, elements);   \
  }                                                                                                               \
  extern "C" __global__ void lcm_step_##name(                                                                     \
      ROWS(T, sample), ROWS(const T, model_output), ROWS(float, x0), int chunk_rows, T* finished,                 \
      const TickParameters* parameters, const StepTable* steps, int rows, int elements) {                         \
    lcm_step<T>(Unguided{}, LCM_STEP_ARGUMENTS(T));                                                               \
  }                                                                                                               \
  extern "C" __global__ void lcm_step_self_##name(                                                                \
      ROWS(T, sample), ROWS(const T, model_output), ROWS(float, x0), ROWS(const T, origins), int chunk_rows,      \
      T* finished, const TickParameters* parameters, const StepTable* steps, int rows, int elements) {            \
    lcm_step<T>(                                                                                                  \
        GuidedFromOrigin<T>{AS_ROWS(const T, origins, elements), parameters}, LCM_STEP_ARGUMENTS(T));             \
  }                                                                                                               \
  extern "C" __global__ void lcm_step_full_##name(                                                                \
      ROWS(T, sample), ROWS(const T, model_output), ROWS(float, x0), int chunk_rows, T* finished,                 \
      const TickParameters* parameters, const StepTable* steps, int rows, int elements) {                         \
    lcm_step<T>(                                                                                                  \
        GuidedFromModel<T>{AS_ROWS(const T, model_output, elements), rows, parameters}, LCM_STEP_ARGUMENTS(T));   \
  }                                                                                                               \
  extern "C" __global__ void lcm_step_initialize_##name(                                                          \
      ROWS(T, sample), ROWS(const T, model_output), ROWS(float, x0), ROWS(T, origins), int chunk_rows,            \
      T* finished, const TickParameters* parameters, const StepTable* steps, int rows, int elements) {            \
    lcm_step<T>(                                                                                                  \
        GuidedFromFirstStep<T>{                                                                                   \
            AS_ROWS(T, origins, elements), AS_ROWS(const T, model_output, elements), rows, 1, parameters},        \
        LCM_STEP_ARGUMENTS(T));                                                                                   \
  }                                                                                                               \
  extern "C" __global__ void lcm_step_warm_up_##name(                                                             \
      ROWS(const T, sample), ROWS(const T, model_output), ROWS(float, x0), ROWS(T, finished), int chunk_rows,     \
      const StepTable* steps, int row, int elements) {                                                            \
    lcm_step_warm_up<T>(Unguided{}, LCM_STEP_WARM_UP_ARGUMENTS(T));                                               \
  }                                                                                                               \
  extern "C" __global__ void lcm_step_warm_up_self_##name(                                                        \
      ROWS(const T, sample), ROWS(const T, model_output), ROWS(float, x0), ROWS(T, finished),                     \
      ROWS(const T, origins), int chunk_rows, const TickParameters* parameters, const StepTable* steps, int row,  \
      int elements) {                                                                                             \
    lcm_step_warm_up<T>(                                                                                          \
        GuidedFromOrigin<T>{AS_ROWS(const T, origins, elements), parameters}, LCM_STEP_WARM_UP_ARGUMENTS(T));     \
  }                                                                                                               \
  extern "C" __global__ void lcm_step_warm_up_full_##name(                                                        \
      ROWS(const T, sample), ROWS(const T, model_output), ROWS(float, x0), ROWS(T, finished),                     \
      ROWS(const T, negative_output), int chunk_rows, const TickParameters* parameters, const StepTable* steps,   \
      int row, int elements) {                                                                                    \
    lcm_step_warm_up<T>(                                                                                          \
        GuidedFromModel<T>{AS_ROWS(const T, negative_output, elements), 0, parameters},                           \
        LCM_STEP_WARM_UP_ARGUMENTS(T));                                                                           \
  }                                                                                                               \
  extern "C" __global__ void lcm_step_warm_up_initialize_##name(                                                  \
      ROWS(const T, sample), ROWS(const T, model_output), ROWS(float, x0), ROWS(T, finished),                     \
      ROWS(const T, negative_output), ROWS(T, origins), int chunk_rows, const TickParameters* parameters,         \
      const StepTable* steps, int row, int elements) {                                                            \
    lcm_step_warm_up<T>(                                                                                          \
        GuidedFromFirstStep<T>{                                                                                   \
            AS_ROWS(T, origins, elements), AS_ROWS(const T, negative_output, elements), 0, SINK, parameters},     \
        LCM_STEP_WARM_UP_ARGUMENTS(T));                                                                           \
  }

FOR_EACH_ELEMENT_TYPE(LATENTS)
