// Tensors whose first axis lies in chunks: dense inside a chunk, and each chunk a stride from the last one. All such
// tensors of a launch have the same number of rows in a chunk.
#pragma once

template <typename T>
struct Rows {
  T* base;
  long long chunk_stride;  // in elements
  long long row_elements;
  int chunk_rows;

  __device__ T* row(int index) const {
    return base + (index / chunk_rows) * chunk_stride + (index % chunk_rows) * row_elements;
  }

  // The same of a row that is the whole block's. By subtraction, of which there are a few: a division would take what all
  // threads have in common out of the registers for that.
  __device__ T* row_of_block(int index) const {
    T* chunk = base;
    for (; index >= chunk_rows; index -= chunk_rows) chunk += chunk_stride;
    return chunk + index * row_elements;
  }
};

// Rows of an operand that may have fewer of them than the launch: it repeats them.
template <typename T>
struct RepeatedRows {
  Rows<T> rows;
  int count;

  __device__ T* row_of_block(int index) const {
    while (index >= count) index -= count;
    return rows.row_of_block(index);
  }
};

// How an entry point takes such a tensor, and how its body sees it. The entry point also takes `int chunk_rows`.
#define ROWS(T, name) T *name##_base, long long name##_chunk_stride
#define AS_ROWS(T, name, row_elements) \
  Rows<T> { name##_base, name##_chunk_stride, row_elements, chunk_rows }
#define AS_REPEATED_ROWS(T, name, row_elements, count) \
  RepeatedRows<T> { AS_ROWS(T, name, row_elements), count }
