// Attention of one frame to a handful of frames at the same position: few keys, and no two heads or positions share
// any, so it is as fast as memory is. A group of lanes handles one head at one position; the groups of a warp lie side
// by side in memory, and so do the vectors of a group.
#pragma once

#include "rows.cuh"
#include "vectors.cuh"

constexpr unsigned ALL_LANES = 0xFFFFFFFFu;
constexpr int ATTENTION_THREADS = 128;

template <typename T, int HEAD_CHANNELS>
struct HeadLayout {
  static constexpr int head_bytes = HEAD_CHANNELS * int(sizeof(T));
  static constexpr int vector_bytes = head_bytes < 16 ? head_bytes : 16;
  static constexpr int vector_elements = vector_bytes / int(sizeof(T));
  static constexpr int vectors = head_bytes / vector_bytes;
  static constexpr int lanes = vectors % 10 == 0 ? 10 : vectors % 5 == 0 ? 5 : 1;
  static constexpr int lane_vectors = vectors / lanes;
  static constexpr int lane_elements = lane_vectors * vector_elements;
  static constexpr int groups_per_warp = 32 / lanes;
  static constexpr int groups_per_block = ATTENTION_THREADS / 32 * groups_per_warp;
  // Keys whose loads are in flight together: memory is kept busy by many of them, registers bound their number.
  static constexpr int keys_in_flight = lane_vectors == 1 || vector_elements == 8 ? 4 : 2;
  static constexpr int blocks_per_multiprocessor = lane_vectors == 1 ? 6 : lane_vectors == 2 ? 3 : 2;
};

// One lane's part of one head of one frame.
template <typename T, int HEAD_CHANNELS>
struct HeadShare {
  using Layout = HeadLayout<T, HEAD_CHANNELS>;
  using Part = Vector<Layout::vector_bytes>;
  Part parts[Layout::lane_vectors];

  __device__ float operator[](int element) const {
    return Packing<T>::unpack(parts[element / Layout::vector_elements].words, element % Layout::vector_elements);
  }

  // `address` is of the lane's first part; the others follow a group's width apart.
  __device__ void load(const T* address, bool wanted) {
#pragma unroll
    for (int part = 0; part < Layout::lane_vectors; ++part) {
      parts[part] = load_once(reinterpret_cast<const Part*>(address) + part * Layout::lanes, wanted);
    }
  }

  __device__ void load_table(const T* address) {
#pragma unroll
    for (int part = 0; part < Layout::lane_vectors; ++part) {
      parts[part] = load_shared_table(reinterpret_cast<const Part*>(address) + part * Layout::lanes);
    }
  }

  __device__ void pack(const float* values) {
#pragma unroll
    for (int part = 0; part < Layout::lane_vectors; ++part) {
      Packing<T>::pack(values + part * Layout::vector_elements, parts[part].words, Layout::vector_bytes / 4);
    }
  }

  __device__ void store(T* address) const {
#pragma unroll
    for (int part = 0; part < Layout::lane_vectors; ++part) {
      reinterpret_cast<Part*>(address)[part * Layout::lanes] = parts[part];
    }
  }
};

// Where a lane works. Lanes without work shadow the warp's first group, so that all take part in shuffles and none
// reads another line of memory; they store nothing.
template <typename T, int HEAD_CHANNELS>
struct Lane {
  using Layout = HeadLayout<T, HEAD_CHANNELS>;
  int first;   // lane of the warp where the group begins
  int within;  // lane of the group
  bool works;
  int frame_offset;  // of the lane's first element in a frame, [positions, channels]
  int table_offset;  // the same in an entry of a table, [channels]

  __device__ Lane(int positions, int heads) {
    const int lane = threadIdx.x % 32;
    const int group = lane / Layout::lanes;
    const int warp_start =
        (blockIdx.x * (ATTENTION_THREADS / 32) + threadIdx.x / 32) * Layout::groups_per_warp;
    const int groups = positions * heads;
    works = group < Layout::groups_per_warp && warp_start + group < groups;
    first = lane - lane % Layout::lanes;
    within = lane % Layout::lanes;
    const int index = works ? warp_start + group : min(warp_start, groups - 1);
    const int inside_head = within * Layout::vector_elements;
    frame_offset = index * HEAD_CHANNELS + inside_head;
    table_offset = index % heads * HEAD_CHANNELS + inside_head;
  }

  __device__ float rotated(float value, int by) const {
    const int turned = within + by < Layout::lanes ? within + by : within + by - Layout::lanes;
    return __shfl_sync(ALL_LANES, value, (first + turned) & 31);
  }

  // The sum of the group's lanes, in each of them.
  __device__ float sum(float value) const {
    if (Layout::lanes == 1) return value;
    const float of_two = value + rotated(value, 1);
    const float of_four = of_two + rotated(of_two, 2);
    if (Layout::lanes == 5) return of_four + rotated(value, 4);
    return of_four + rotated(of_four, 4) + rotated(of_two, 8);
  }
};

// W·pe of queries, keys and values: what a frame's position in the window adds, [window, channels] each.
template <typename T>
struct Tables {
  const T* q;
  const T* k;
  const T* v;
};

// A few keys and values on their way to the registers.
template <typename T, int HEAD_CHANNELS>
struct Batch {
  static constexpr int KEYS = HeadLayout<T, HEAD_CHANNELS>::keys_in_flight;
  HeadShare<T, HEAD_CHANNELS> keys[KEYS];
  HeadShare<T, HEAD_CHANNELS> values[KEYS];
  int entries[KEYS];  // where each one's entry in a table begins
  int taken;          // how many there are

  // Starts to load others from BEGIN on: of each bit set in `wanted`, the lowest first, and clears it. Lane i of the
  // warp holds the i-th other's position.
  template <int BEGIN, class Others>
  __device__ void load(
      const Lane<T, HEAD_CHANNELS>& lane, const Others& others, unsigned& wanted, int others_position, int channels) {
    int indices[KEYS];
    bool there[KEYS];
    taken = BEGIN;
#pragma unroll
    for (int key = BEGIN; key < KEYS; ++key) {
      there[key] = wanted != 0;
      indices[key] = there[key] ? __ffs(wanted) - 1 : 0;
      wanted &= wanted - 1;
      taken += there[key];
      keys[key].load(others.key(indices[key]) + lane.frame_offset, there[key]);
    }
#pragma unroll
    for (int key = BEGIN; key < KEYS; ++key) {
      values[key].load(others.value(indices[key]) + lane.frame_offset, there[key]);
      entries[key] = __shfl_sync(ALL_LANES, others_position, indices[key]) * channels + lane.table_offset;
    }
  }
};

// Softmax in base 2 over batch after batch (Milakov and Gimelshein, arXiv 1805.02867).
template <typename T, int HEAD_CHANNELS>
struct Softmax {
  static constexpr int ELEMENTS = HeadLayout<T, HEAD_CHANNELS>::lane_elements;
  static constexpr int KEYS = HeadLayout<T, HEAD_CHANNELS>::keys_in_flight;
  float query[ELEMENTS];
  float sum[ELEMENTS];
  float largest;
  float total;

  __device__ Softmax(const HeadShare<T, HEAD_CHANNELS>& q, const T* position_of_q)
      : largest(__int_as_float(0xFF800000)), total(0.0f) {
    const float scale = 1.4426950408889634f * rsqrtf(float(HEAD_CHANNELS));
    HeadShare<T, HEAD_CHANNELS> table;
    table.load_table(position_of_q);
#pragma unroll
    for (int element = 0; element < ELEMENTS; ++element) {
      query[element] = (q[element] + table[element]) * scale;
      sum[element] = 0.0f;
    }
  }

  __device__ float partial_score(const HeadShare<T, HEAD_CHANNELS>& key, const T* position_of_key) const {
    HeadShare<T, HEAD_CHANNELS> table;
    table.load_table(position_of_key);
    float score = 0.0f;
#pragma unroll
    for (int element = 0; element < ELEMENTS; ++element) score += query[element] * (key[element] + table[element]);
    return score;
  }

  __device__ void absorb(
      const Lane<T, HEAD_CHANNELS>& lane, const Batch<T, HEAD_CHANNELS>& batch, const Tables<T>& tables) {
    float weights[KEYS];
#pragma unroll
    for (int key = 0; key < KEYS; ++key) {
      weights[key] = partial_score(batch.keys[key], tables.k + batch.entries[key]);
    }
    const float before = largest;
#pragma unroll
    for (int key = 0; key < KEYS; ++key) {
      weights[key] = lane.sum(weights[key]);
      if (key >= batch.taken) weights[key] = __int_as_float(0xFF800000);
      largest = fmaxf(largest, weights[key]);
    }
    fade(exp2f(before - largest));
#pragma unroll
    for (int key = 0; key < KEYS; ++key) {
      add(exp2f(weights[key] - largest), batch.values[key], tables.v + batch.entries[key]);
    }
  }

  __device__ void fade(float by) {
    total *= by;
#pragma unroll
    for (int element = 0; element < ELEMENTS; ++element) sum[element] *= by;
  }

  __device__ void add(float weight, const HeadShare<T, HEAD_CHANNELS>& value, const T* position_of_value) {
    HeadShare<T, HEAD_CHANNELS> table;
    table.load_table(position_of_value);
    total += weight;
#pragma unroll
    for (int element = 0; element < ELEMENTS; ++element) sum[element] += weight * (value[element] + table[element]);
  }
};

// The frame that attends, [positions, channels] each, and where its keys and values are copied to if `remember`: to a
// slot that this launch does not read.
template <typename T>
struct OwnFrame {
  const T* q;
  const T* k;
  const T* v;
  T* slot_k;
  T* slot_v;
  int position;
  bool remember;
};

// Let a frame attend to itself and to others.
//
// others.key(i), others.value(i): where the i-th of them lies. Lane i of each warp holds whether it is seen, and its
// position: both are on their way to the registers while what belongs to the own frame is already asked for.
template <typename T, int HEAD_CHANNELS, class Others>
__device__ void attend(
    const OwnFrame<T>& own, const Others& others, bool other_is_seen, int others_position, const Tables<T>& tables,
    const Rows<T>& out, int positions, int heads) {
  const int channels = heads * HEAD_CHANNELS;
  const Lane<T, HEAD_CHANNELS> lane(positions, heads);
  const int own_entry = own.position * channels + lane.table_offset;

  HeadShare<T, HEAD_CHANNELS> q;
  Batch<T, HEAD_CHANNELS> batch;
  q.load(own.q + lane.frame_offset, true);
  batch.keys[0].load(own.k + lane.frame_offset, true);
  batch.values[0].load(own.v + lane.frame_offset, true);
  batch.entries[0] = own_entry;
  unsigned wanted = __ballot_sync(ALL_LANES, other_is_seen);
  batch.template load<1>(lane, others, wanted, others_position, channels);

  Softmax<T, HEAD_CHANNELS> softmax(q, tables.q + own_entry);
  if (own.remember && lane.works) {
    batch.keys[0].store(own.slot_k + lane.frame_offset);
    batch.values[0].store(own.slot_v + lane.frame_offset);
  }
  softmax.absorb(lane, batch, tables);
#pragma unroll 1
  while (wanted != 0) {
    batch.template load<0>(lane, others, wanted, others_position, channels);
    softmax.absorb(lane, batch, tables);
  }

  if (!lane.works) return;
  softmax.fade(1.0f / softmax.total);
  HeadShare<T, HEAD_CHANNELS> result;
  result.pack(softmax.sum);
  result.store(out.row(blockIdx.y) + lane.frame_offset);
}

#define FOR_EACH_HEAD(DEFINE, name, T) \
  DEFINE(name, T, 4)                   \
  DEFINE(name, T, 8)                   \
  DEFINE(name, T, 40)                  \
  DEFINE(name, T, 80)                  \
  DEFINE(name, T, 160)
