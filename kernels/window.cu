// The whole form: one plan reads the window, and hands out new keys and values that are then put into their slots.
#include "half.cuh"
#include "rows.cuh"
#include "tick_parameters.cuh"
#include "vectors.cuh"

// The plan's inputs, from the tick's parameters: one block, a thread per row and slot.
template <typename T>
__device__ void window_inputs(
    Rows<int> position, Rows<int> past_position, Rows<T> past_bias, const TickParameters* parameters) {
  const int row = threadIdx.x / WINDOW;
  const int slot = threadIdx.x % WINDOW;
  const RowParameters& here = parameters->rows[row];
  if (slot == 0) *position.row(row) = here.position;
  past_position.row(row)[slot] = here.past_position[slot];
  past_bias.row(row)[slot] = from_float<T>(here.visible[slot] != 0 ? 0.0f : __int_as_float(0xFF800000));
}

#define WINDOW_INPUTS(name, T)                                                                          \
  extern "C" __global__ void window_inputs_##name(                                                      \
      ROWS(int, position), ROWS(int, past_position), ROWS(T, past_bias), int chunk_rows,                \
      const TickParameters* parameters) {                                                               \
    window_inputs<T>(                                                                                   \
        AS_ROWS(int, position, 1), AS_ROWS(int, past_position, WINDOW), AS_ROWS(T, past_bias, WINDOW), parameters); \
  }

FOR_EACH_ELEMENT_TYPE(WINDOW_INPUTS)

// Where new keys or values of one attention come from and go to. The same structure as SLOT_COPY in window.py.
struct SlotCopy {
  unsigned long long source;     // device address of [rows, positions, channels]
  unsigned long long ring_rows;  // of the table of addresses of the ring's rows
  long long row_bytes;           // of one row of the source, and of one slot
  long long chunk_bytes;
  int chunk_rows;
  int vector_bytes;  // 16 or 8: what all addresses and sizes are multiples of
};

static_assert(sizeof(SlotCopy) == 40, "window.py has another layout");

template <int BYTES>
__device__ void copy_slot(const unsigned char* from, unsigned char* to, long long bytes) {
  const Vector<BYTES>* source = reinterpret_cast<const Vector<BYTES>*>(from);
  Vector<BYTES>* target = reinterpret_cast<Vector<BYTES>*>(to);
  const long long count = bytes / BYTES;
  const long long stride = (long long)gridDim.x * blockDim.x;
  for (long long index = blockIdx.x * blockDim.x + threadIdx.x; index < count; index += stride) {
    target[index] = source[index];
  }
}

__device__ inline void copy_row(const SlotCopy& copy, int source_row, int ring_row, int slot) {
  const unsigned char* from = reinterpret_cast<const unsigned char*>(copy.source) +
                              source_row / copy.chunk_rows * copy.chunk_bytes +
                              source_row % copy.chunk_rows * copy.row_bytes;
  const unsigned long long ring = reinterpret_cast<const unsigned long long*>(copy.ring_rows)[ring_row];
  unsigned char* to = reinterpret_cast<unsigned char*>(ring) + slot * copy.row_bytes;
  if (copy.vector_bytes == 16) {
    copy_slot<16>(from, to, copy.row_bytes);
  } else {
    copy_slot<8>(from, to, copy.row_bytes);
  }
}

// Grid: blocks of one copy, rows, copies.
extern "C" __global__ void scatter_slots(const SlotCopy* copies, const TickParameters* parameters) {
  const int row = blockIdx.y;
  if (parameters->rows[row].active == 0) return;
  copy_row(copies[blockIdx.z], row, row, parameters->rows[row].write_slot);
}

// Grid: blocks of one copy, warm-up frames, copies.
extern "C" __global__ void scatter_sink(const SlotCopy* copies, int row) {
  copy_row(copies[blockIdx.z], blockIdx.y, row, blockIdx.y);
}
