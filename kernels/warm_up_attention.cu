// The warm-up frames attend to each other in both directions; their keys and values fill a row's sink.
#include "attention.cuh"
#include "tick_parameters.cuh"

// The i-th other is the one that comes i + 1 frames after the one that looks, around the circle.
template <typename T>
struct Circle {
  Rows<const T> k;
  Rows<const T> v;
  int own;

  __device__ const T* key(int index) const { return k.row((own + 1 + index) % SINK); }
  __device__ const T* value(int index) const { return v.row((own + 1 + index) % SINK); }
};

template <typename T, int HEAD_CHANNELS>
__device__ void attend_warm_up(
    Rows<const T> q, Rows<const T> k, Rows<const T> v, Rows<T> out, Tables<T> tables,
    const unsigned long long* past_k_rows, const unsigned long long* past_v_rows, int row, int positions, int heads) {
  const int frame = blockIdx.y;
  const Circle<T> others{k, v, frame};
  const long long written = frame * q.row_elements;
  const OwnFrame<T> own{q.row(frame),
                        k.row(frame),
                        v.row(frame),
                        reinterpret_cast<T*>(past_k_rows[row]) + written,
                        reinterpret_cast<T*>(past_v_rows[row]) + written,
                        frame,
                        true};
  const int other = threadIdx.x % 32;
  const int others_position = (frame + 1 + other) % SINK;
  attend<T, HEAD_CHANNELS>(own, others, other < SINK - 1, others_position, tables, out, positions, heads);
}

#define WARM_UP_ATTENTION(name, T, HEAD_CHANNELS)                                                             \
  extern "C" __global__ void __launch_bounds__(ATTENTION_THREADS) warm_up_attention_##name##_##HEAD_CHANNELS( \
      ROWS(const T, q), ROWS(const T, k), ROWS(const T, v), ROWS(T, out), int chunk_rows, const T* pe_q,      \
      const T* pe_k, const T* pe_v, const unsigned long long* past_k_rows,                                    \
      const unsigned long long* past_v_rows, int row, int positions, int heads) {                             \
    const long long elements = (long long)positions * heads * HEAD_CHANNELS;                                  \
    attend_warm_up<T, HEAD_CHANNELS>(                                                                         \
        AS_ROWS(const T, q, elements), AS_ROWS(const T, k, elements), AS_ROWS(const T, v, elements),          \
        AS_ROWS(T, out, elements), Tables<T>{pe_q, pe_k, pe_v}, past_k_rows, past_v_rows, row, positions,     \
        heads);                                                                                               \
  }

#define FOR_ELEMENT_TYPE(name, T) FOR_EACH_HEAD(WARM_UP_ATTENTION, name, T)
FOR_EACH_ELEMENT_TYPE(FOR_ELEMENT_TYPE)
