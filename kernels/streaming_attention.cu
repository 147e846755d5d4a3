// Each row's frame attends to its cached past and to itself; its keys and values then go to the slot it was given.
#include "attention.cuh"
#include "tick_parameters.cuh"

template <typename T>
struct Past {
  const T* k;  // [window, positions, channels]
  const T* v;
  long long frame_elements;

  __device__ const T* key(int slot) const { return k + slot * frame_elements; }
  __device__ const T* value(int slot) const { return v + slot * frame_elements; }
};

template <typename T, int HEAD_CHANNELS>
__device__ void attend_streaming(
    Rows<const T> q, Rows<const T> k, Rows<const T> v, Rows<T> out, Tables<T> tables,
    const unsigned long long* past_k_rows, const unsigned long long* past_v_rows, const TickParameters* parameters,
    int positions, int heads) {
  const int row = blockIdx.y;
  const RowParameters& here = parameters->rows[row];
  const int slot = threadIdx.x % 32;
  const bool visible = slot < WINDOW && here.visible[slot] != 0;

  T* past_k = reinterpret_cast<T*>(past_k_rows[row]);
  T* past_v = reinterpret_cast<T*>(past_v_rows[row]);
  const Past<T> past{past_k, past_v, q.row_elements};
  const long long written = here.write_slot * q.row_elements;
  const OwnFrame<T> own{q.row(row),         k.row(row),    v.row(row),      past_k + written,
                        past_v + written, here.position, here.active != 0};
  attend<T, HEAD_CHANNELS>(own, past, visible, here.past_position[slot % WINDOW], tables, out, positions, heads);
}

#define STREAMING_ATTENTION(name, T, HEAD_CHANNELS)                                                          \
  extern "C" __global__ void __launch_bounds__(                                                              \
      ATTENTION_THREADS, HeadLayout<T, HEAD_CHANNELS>::blocks_per_multiprocessor)                            \
      streaming_attention_##name##_##HEAD_CHANNELS(                                                          \
          ROWS(const T, q), ROWS(const T, k), ROWS(const T, v), ROWS(T, out), int chunk_rows, const T* pe_q, \
          const T* pe_k, const T* pe_v, const unsigned long long* past_k_rows,                               \
          const unsigned long long* past_v_rows, const TickParameters* parameters, int positions, int heads) { \
    const long long elements = (long long)positions * heads * HEAD_CHANNELS;                                 \
    attend_streaming<T, HEAD_CHANNELS>(                                                                      \
        AS_ROWS(const T, q, elements), AS_ROWS(const T, k, elements), AS_ROWS(const T, v, elements),         \
        AS_ROWS(T, out, elements), Tables<T>{pe_q, pe_k, pe_v}, past_k_rows, past_v_rows, parameters,        \
        positions, heads);                                                                                   \
  }

#define FOR_ELEMENT_TYPE(name, T) FOR_EACH_HEAD(STREAMING_ATTENTION, name, T)
FOR_EACH_ELEMENT_TYPE(FOR_ELEMENT_TYPE)
