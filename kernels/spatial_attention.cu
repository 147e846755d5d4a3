// Attention among the positions of a frame, or of a frame to the tokens of a prompt: many keys, shared by all queries
// of a head. float16 with heads of 40 channels and more goes through tensor cores, everything else does not.
#include "rows.cuh"
#include "special_functions.cuh"
#include "tensor_cores.cuh"

constexpr unsigned ALL_LANES = 0xFFFFFFFFu;

// What scores are multiplied with: 2 to their power is then what the softmax weighs.
template <int HEAD_CHANNELS>
__device__ float score_scale() {
  return 1.4426950408889634f * rsqrtf(float(HEAD_CHANNELS));
}

__device__ inline float minus_infinity() { return __int_as_float(0xFF800000); }

// How the work on a head is cut. All of it is in registers but for the tiles of keys and values, of which
// `stages` are in shared memory at a time. A row of a tile is padded where 8 rows would meet in a bank of shared memory:
// those of 40 channels begin in banks 0, 20, 8, 28, 16, 4, 24 and 12.
template <int HEAD_CHANNELS>
struct Tiling;

template <>
struct Tiling<40> {
  static constexpr int warps = 4;
  static constexpr int query_tiles = 2;  // of 16 queries, per warp: each fragment of a key is used that often
  static constexpr int tile_keys = 64;
  static constexpr int stages = 3;
  static constexpr int row_elements = 40;
  static constexpr int blocks_per_multiprocessor = 4;
};

template <>
struct Tiling<80> {
  static constexpr int warps = 4;
  static constexpr int query_tiles = 1;
  static constexpr int tile_keys = 64;
  static constexpr int stages = 2;
  static constexpr int row_elements = 88;
  static constexpr int blocks_per_multiprocessor = 3;
};

template <>
struct Tiling<160> {
  static constexpr int warps = 2;
  static constexpr int query_tiles = 1;
  static constexpr int tile_keys = 32;
  static constexpr int stages = 2;
  static constexpr int row_elements = 168;
  static constexpr int blocks_per_multiprocessor = 4;
};

// Keys whose scores are in registers at a time.
constexpr int SCORED_KEYS = 32;
constexpr int SCORED_OCTETS = SCORED_KEYS / 8;

// Weights are relative to the largest score of a query, or to one of that has been the largest and is at most 2 to this
// power too small: while it is, nothing need be scaled anew, and lanes need not ask each other. A weight of 2^8 is far
// from float16's 65504, and its rounding is relative.
constexpr float MARGIN = 8.0f;

// Sum the weights by a product with ones on the tensor cores (after rounding) or by additions (before).
constexpr bool SUM_BY_PRODUCT = false;

// The part of copying tiles that is one thread's: vectors `part` of every `keys_per_pass`-th key.
template <int HEAD_CHANNELS>
struct TileCopy {
  using Sizes = Tiling<HEAD_CHANNELS>;
  static constexpr int vectors = HEAD_CHANNELS / 8;
  static constexpr int keys_per_pass = Sizes::warps * 32 / vectors;
  static constexpr int passes = (Sizes::tile_keys + keys_per_pass - 1) / keys_per_pass;
  static constexpr int row_bytes = Sizes::row_elements * 2;
  static constexpr int tile_bytes = Sizes::tile_keys * row_bytes;

  const Half* k;  // the head's, of the first token
  const Half* v;
  int tokens;
  int channels;

  // A tile of keys at `to`, one of values behind it; zeros for tokens that there are not.
  __device__ void start(unsigned to, int first_token) const {
    const int first = threadIdx.x / vectors;
    const int part = threadIdx.x % vectors;
    if (first < keys_per_pass) {
#pragma unroll
      for (int pass = 0; pass < passes; ++pass) {
        const int key = first + pass * keys_per_pass;
        if (key < Sizes::tile_keys) {
          const bool there = first_token + key < tokens;
          const int from = (there ? first_token + key : 0) * channels + part * 8;
          const unsigned inside = to + key * row_bytes + part * 16;
          start_copy(inside, k + from, there);
          start_copy(inside + tile_bytes, v + from, there);
        }
      }
    }
    commit_copies();
  }
};

// 16 queries of one warp, and what they have gathered (Dao et al., arXiv 2205.14135). A lane has two of them, 4 of each
// have the same two: lane / 4 and lane / 4 + 8.
template <int HEAD_CHANNELS>
struct QueryTile {
  static constexpr int octets = HEAD_CHANNELS / 8;
  static constexpr int steps = HEAD_CHANNELS / 16;  // of 16 channels; 8 may remain
  static constexpr bool remainder = HEAD_CHANNELS % 16 != 0;

  unsigned query[steps][4];
  unsigned query_remainder[2];
  float gathered[octets][4];
  float total[4];      // [0] and [2] are the two queries'
  float reference[2];  // scaled score that weights are relative to

  // `q` and `other_q`: this lane's channels 0 and 1 of its two queries.
  __device__ void load(const Half* q, const Half* other_q) {
#pragma unroll
    for (int step = 0; step < steps; ++step) {
#pragma unroll
      for (int part = 0; part < 4; ++part) {
        query[step][part] = word(part % 2 == 0 ? q : other_q, step * 16 + part / 2 * 8);
      }
    }
    if (remainder) {
      query_remainder[0] = word(q, steps * 16);
      query_remainder[1] = word(other_q, steps * 16);
    }
#pragma unroll
    for (int octet = 0; octet < octets; ++octet) {
#pragma unroll
      for (int element = 0; element < 4; ++element) gathered[octet][element] = 0.0f;
    }
#pragma unroll
    for (int element = 0; element < 4; ++element) total[element] = 0.0f;
    reference[0] = reference[1] = minus_infinity();
  }

  static __device__ unsigned word(const Half* q, int channel) {
    return *reinterpret_cast<const unsigned*>(q + channel);
  }

  // Largest of this lane's scores of a query.
  static __device__ float largest(const float (&scores)[SCORED_OCTETS][4], int query) {
    float value = minus_infinity();
#pragma unroll
    for (int octet = 0; octet < SCORED_OCTETS; ++octet) {
      value = fmaxf(value, fmaxf(scores[octet][2 * query], scores[octet][2 * query + 1]));
    }
    return value;
  }

  __device__ bool exceeded_by(const float (&scores)[SCORED_OCTETS][4], float scale) const {
    bool exceeded = false;
#pragma unroll
    for (int query = 0; query < 2; ++query) {
      exceeded = exceeded || largest(scores, query) * scale > reference[query] + MARGIN;
    }
    return exceeded;
  }

  // Make weights relative to the largest score so far.
  __device__ void refer_to(const float (&scores)[SCORED_OCTETS][4], float scale) {
#pragma unroll
    for (int query = 0; query < 2; ++query) {
      float value = largest(scores, query) * scale;
      value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 1));
      value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, 2));
      value = fmaxf(value, reference[query]);
      const float fade = power_of_two(reference[query] - value);
      reference[query] = value;
      total[2 * query] *= fade;
      total[2 * query + 1] *= fade;
#pragma unroll
      for (int octet = 0; octet < octets; ++octet) {
        gathered[octet][2 * query] *= fade;
        gathered[octet][2 * query + 1] *= fade;
      }
    }
  }

  // Turn scores into weights, as the operand of the product with values: 16 keys each.
  __device__ void weigh(
      const float (&scores)[SCORED_OCTETS][4], float scale, unsigned (&weights)[SCORED_OCTETS / 2][4]) {
#pragma unroll
    for (int octet = 0; octet < SCORED_OCTETS; ++octet) {
#pragma unroll
      for (int query = 0; query < 2; ++query) {
        const float low = power_of_two(scores[octet][2 * query] * scale - reference[query]);
        const float high = power_of_two(scores[octet][2 * query + 1] * scale - reference[query]);
        if (!SUM_BY_PRODUCT) total[2 * query] += low + high;
        weights[octet / 2][octet % 2 * 2 + query] = pack_halves(low, high);
      }
    }
    if (SUM_BY_PRODUCT) {
      constexpr unsigned ones = 0x3C003C00u;
#pragma unroll
      for (int step = 0; step < SCORED_OCTETS / 2; ++step) multiply_add(total, weights[step], ones, ones);
    }
  }

  // What the weights of a query sum to.
  __device__ float sum_of_weights(int query) const {
    float sum = total[2 * query];
    if (!SUM_BY_PRODUCT) {
      sum += __shfl_xor_sync(ALL_LANES, sum, 1);
      sum += __shfl_xor_sync(ALL_LANES, sum, 2);
    }
    return sum;
  }
};

// Grid: blocks of queries, heads, rows.
//
// For 16 queries and 8 keys of 40 channels a warp issues 5 1/2 products of 16 x 8 x 16, or what takes as long; 4 powers
// per lane, which take 8 clocks each; and about 15 other instructions. On an H100, where such a product takes 4 clocks
// of the tensor cores at best and about 6 by mma.sync, both units are thus busy for 32 clocks: 72 us for 8 heads of 64 x
// 64 positions and 2 rows. Powers of two halves at once do not help: ptxas makes two of them, and packs.
template <int HEAD_CHANNELS>
__device__ void attend_by_tensor_cores(
    const Rows<const Half>& q, const RepeatedRows<const Half>& k, const RepeatedRows<const Half>& v,
    const Rows<Half>& out, int positions, int tokens, int heads) {
  using Sizes = Tiling<HEAD_CHANNELS>;
  using Queries = QueryTile<HEAD_CHANNELS>;
  using Copy = TileCopy<HEAD_CHANNELS>;
  constexpr int stage_bytes = 2 * Copy::tile_bytes;
  constexpr int row_bytes = Copy::row_bytes;
  __shared__ Vector<16> stages[Sizes::stages * stage_bytes / 16];

  const int channels = heads * HEAD_CHANNELS;
  const int head = blockIdx.y * HEAD_CHANNELS;
  const int row = blockIdx.z;
  const unsigned first_stage = shared_address(stages);
  const Copy copy{k.row_of_block(row) + head, v.row_of_block(row) + head, tokens, channels};
  const int tiles = (tokens + Sizes::tile_keys - 1) / Sizes::tile_keys;
#pragma unroll
  for (int tile = 0; tile < Sizes::stages - 1; ++tile) {
    if (tile < tiles) {
      copy.start(first_stage + tile * stage_bytes, tile * Sizes::tile_keys);
    } else {
      commit_copies();
    }
  }

  const int lane = threadIdx.x % 32;
  const int first_query =
      (blockIdx.x * Sizes::warps + threadIdx.x / 32) * Sizes::query_tiles * 16 + lane / 4;  // of this lane
  const int first_channel = head + lane % 4 * 2;
  Queries queries[Sizes::query_tiles];
#pragma unroll
  for (int index = 0; index < Sizes::query_tiles; ++index) {
    const int query = first_query + index * 16;
    const Half* frame = q.row_of_block(row) + first_channel;
    queries[index].load(
        frame + (long long)min(query, positions - 1) * channels,
        frame + (long long)min(query + 8, positions - 1) * channels);
  }

  // Where this lane's row is of the four matrices that are loaded together: of keys 0 to 7 channels 0 to 7 and 8 to 15,
  // then of keys 8 to 15; of values first both of channels 0 to 7. The channels that remain: of keys 0 to 31.
  const unsigned key_offset = (lane % 8 + lane / 16 * 8) * row_bytes + lane / 8 % 2 * 16;
  const unsigned value_offset = Copy::tile_bytes + lane % 16 * row_bytes + lane / 16 * 16;
  const unsigned remainder_offset = lane * row_bytes + Queries::steps * 32;
  const float scale = score_scale<HEAD_CHANNELS>();

  int stage = 0;
#pragma unroll 1
  for (int tile = 0; tile < tiles; ++tile) {
    wait_for_copies_but<Sizes::stages - 2>();
    __syncthreads();
    const int next = tile + Sizes::stages - 1;
    if (next < tiles) {
      const int next_stage = stage == 0 ? Sizes::stages - 1 : stage - 1;
      copy.start(first_stage + next_stage * stage_bytes, next * Sizes::tile_keys);
    } else {
      commit_copies();
    }

#pragma unroll 1
    for (int begin = 0; begin < Sizes::tile_keys; begin += SCORED_KEYS) {
      const int first_token = tile * Sizes::tile_keys + begin;
      if (first_token >= tokens) break;
      const unsigned keys = first_stage + stage * stage_bytes + begin * row_bytes;

      float scores[Sizes::query_tiles][SCORED_OCTETS][4] = {};
      unsigned fragments[4];
#pragma unroll
      for (int step = 0; step < Queries::steps; ++step) {
#pragma unroll
        for (int pair = 0; pair < SCORED_OCTETS / 2; ++pair) {
          load_matrices(fragments, keys + key_offset + pair * 16 * row_bytes + step * 32);
#pragma unroll
          for (int index = 0; index < Sizes::query_tiles; ++index) {
            multiply_add(scores[index][2 * pair], queries[index].query[step], fragments[0], fragments[1]);
            multiply_add(scores[index][2 * pair + 1], queries[index].query[step], fragments[2], fragments[3]);
          }
        }
      }
      if (Queries::remainder) {
        load_matrices(fragments, keys + remainder_offset);
#pragma unroll
        for (int octet = 0; octet < SCORED_OCTETS; ++octet) {
#pragma unroll
          for (int index = 0; index < Sizes::query_tiles; ++index) {
            const unsigned(&query)[2] = queries[index].query_remainder;
            multiply_add(scores[index][octet], query[0], query[1], fragments[octet]);
          }
        }
      }

      if (first_token + SCORED_KEYS > tokens) {
#pragma unroll
        for (int octet = 0; octet < SCORED_OCTETS; ++octet) {
#pragma unroll
          for (int element = 0; element < 4; ++element) {
            if (first_token + octet * 8 + lane % 4 * 2 + element % 2 >= tokens) {
#pragma unroll
              for (int index = 0; index < Sizes::query_tiles; ++index) scores[index][octet][element] = minus_infinity();
            }
          }
        }
      }

      bool exceeded = false;
#pragma unroll
      for (int index = 0; index < Sizes::query_tiles; ++index) {
        exceeded = queries[index].exceeded_by(scores[index], scale) || exceeded;
      }
      if (__any_sync(ALL_LANES, exceeded)) {
#pragma unroll
        for (int index = 0; index < Sizes::query_tiles; ++index) queries[index].refer_to(scores[index], scale);
      }
      unsigned weights[Sizes::query_tiles][SCORED_OCTETS / 2][4];
#pragma unroll
      for (int index = 0; index < Sizes::query_tiles; ++index) {
        queries[index].weigh(scores[index], scale, weights[index]);
      }

#pragma unroll
      for (int step = 0; step < SCORED_OCTETS / 2; ++step) {
#pragma unroll
        for (int pair = 0; pair < Queries::octets / 2; ++pair) {
          load_transposed_matrices(fragments, keys + value_offset + step * 16 * row_bytes + pair * 32);
#pragma unroll
          for (int index = 0; index < Sizes::query_tiles; ++index) {
            multiply_add(queries[index].gathered[2 * pair], weights[index][step], fragments[0], fragments[1]);
            multiply_add(queries[index].gathered[2 * pair + 1], weights[index][step], fragments[2], fragments[3]);
          }
        }
      }
      if (Queries::remainder) {
        load_transposed_matrices(fragments, keys + Copy::tile_bytes + remainder_offset);
#pragma unroll
        for (int step = 0; step < SCORED_OCTETS / 2; ++step) {
#pragma unroll
          for (int index = 0; index < Sizes::query_tiles; ++index) {
            multiply_add(
                queries[index].gathered[Queries::octets - 1], weights[index][step], fragments[2 * step],
                fragments[2 * step + 1]);
          }
        }
      }
    }
    stage = stage == Sizes::stages - 1 ? 0 : stage + 1;
  }

#pragma unroll
  for (int index = 0; index < Sizes::query_tiles; ++index) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float by = 1.0f / queries[index].sum_of_weights(half);
      const int query = first_query + index * 16 + half * 8;
      if (query < positions) {
        unsigned* to = reinterpret_cast<unsigned*>(out.row_of_block(row) + (long long)query * channels + first_channel);
#pragma unroll
        for (int octet = 0; octet < Queries::octets; ++octet) {
          const float(&sums)[4] = queries[index].gathered[octet];
          to[octet * 4] = pack_halves(sums[2 * half] * by, sums[2 * half + 1] * by);
        }
      }
    }
  }
}

// Without tensor cores, in float32: a few neighbouring lanes share a query, keys come through shared memory.
constexpr int PLAIN_THREADS = 128;
constexpr int PLAIN_KEYS = 32;         // in shared memory at a time
constexpr int PLAIN_SCORED_KEYS = 8;  // weighed at a time

template <typename T, int HEAD_CHANNELS>
__device__ void attend_plainly(
    const Rows<const T>& q, const RepeatedRows<const T>& k, const RepeatedRows<const T>& v, const Rows<T>& out,
    int positions, int tokens, int heads) {
  constexpr int lanes = HEAD_CHANNELS < 40 ? 1 : HEAD_CHANNELS / 10 < 8 ? 4 : 8;
  constexpr int elements = HEAD_CHANNELS / lanes;
  __shared__ float keys[PLAIN_KEYS][HEAD_CHANNELS];
  __shared__ float values[PLAIN_KEYS][HEAD_CHANNELS];

  const int channels = heads * HEAD_CHANNELS;
  const int head = blockIdx.y * HEAD_CHANNELS;
  const int row = blockIdx.z;
  const int within = threadIdx.x % lanes;  // this lane's channels are every `lanes`-th from here
  const int position = blockIdx.x * (PLAIN_THREADS / lanes) + threadIdx.x / lanes;
  const long long own = (long long)min(position, positions - 1) * channels + head + within;
  const T* from = q.row_of_block(row) + own;
  float query[elements];
  float sum[elements];
#pragma unroll
  for (int element = 0; element < elements; ++element) {
    query[element] = to_float(from[element * lanes]) * score_scale<HEAD_CHANNELS>();
    sum[element] = 0.0f;
  }
  float largest = minus_infinity();
  float total = 0.0f;

#pragma unroll 1
  for (int first = 0; first < tokens; first += PLAIN_KEYS) {
    __syncthreads();
    for (int index = threadIdx.x; index < PLAIN_KEYS * HEAD_CHANNELS; index += PLAIN_THREADS) {
      const int key = index / HEAD_CHANNELS;
      const int channel = index % HEAD_CHANNELS;
      const long long at = (long long)min(first + key, tokens - 1) * channels + head + channel;
      keys[key][channel] = to_float(k.row_of_block(row)[at]);
      values[key][channel] = to_float(v.row_of_block(row)[at]);
    }
    __syncthreads();

#pragma unroll 1
    for (int begin = 0; begin < PLAIN_KEYS && first + begin < tokens; begin += PLAIN_SCORED_KEYS) {
      float weights[PLAIN_SCORED_KEYS];
      const float before = largest;
#pragma unroll
      for (int key = 0; key < PLAIN_SCORED_KEYS; ++key) {
        float score = 0.0f;
#pragma unroll
        for (int element = 0; element < elements; ++element) {
          score += query[element] * keys[begin + key][element * lanes + within];
        }
#pragma unroll
        for (int distance = 1; distance < lanes; distance *= 2) {
          score += __shfl_xor_sync(ALL_LANES, score, distance);
        }
        weights[key] = first + begin + key < tokens ? score : minus_infinity();
        largest = fmaxf(largest, weights[key]);
      }
      const float fade = exp2f(before - largest);
      total *= fade;
#pragma unroll
      for (int element = 0; element < elements; ++element) sum[element] *= fade;
#pragma unroll
      for (int key = 0; key < PLAIN_SCORED_KEYS; ++key) {
        const float weight = exp2f(weights[key] - largest);
        total += weight;
#pragma unroll
        for (int element = 0; element < elements; ++element) {
          sum[element] += weight * values[begin + key][element * lanes + within];
        }
      }
    }
  }

  if (position >= positions) return;
  T* to = out.row_of_block(row) + own;
#pragma unroll
  for (int element = 0; element < elements; ++element) to[element * lanes] = from_float<T>(sum[element] / total);
}

#define SPATIAL_ATTENTION(name, T, HEAD_CHANNELS, THREADS, BLOCKS, BODY)                                           \
  extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) spatial_attention_##name##_##HEAD_CHANNELS(        \
      ROWS(const T, q), ROWS(const T, k), ROWS(const T, v), ROWS(T, out), int chunk_rows, int key_rows,            \
      int positions, int tokens, int heads) {                                                                      \
    const long long elements = (long long)positions * heads * HEAD_CHANNELS;                                       \
    const long long key_elements = (long long)tokens * heads * HEAD_CHANNELS;                                      \
    BODY(                                                                                                          \
        AS_ROWS(const T, q, elements), AS_REPEATED_ROWS(const T, k, key_elements, key_rows),                       \
        AS_REPEATED_ROWS(const T, v, key_elements, key_rows), AS_ROWS(T, out, elements), positions, tokens,        \
        heads);                                                                                                    \
  }

#define BY_TENSOR_CORES(HEAD_CHANNELS)                                                                      \
  SPATIAL_ATTENTION(                                                                                        \
      float16, Half, HEAD_CHANNELS, Tiling<HEAD_CHANNELS>::warps * 32,                                      \
      Tiling<HEAD_CHANNELS>::blocks_per_multiprocessor, (attend_by_tensor_cores<HEAD_CHANNELS>))
#define PLAIN(name, T, HEAD_CHANNELS) \
  SPATIAL_ATTENTION(name, T, HEAD_CHANNELS, PLAIN_THREADS, 1, (attend_plainly<T, HEAD_CHANNELS>))

BY_TENSOR_CORES(40)
BY_TENSOR_CORES(80)
BY_TENSOR_CORES(160)
PLAIN(float16, Half, 4)
PLAIN(float16, Half, 8)
PLAIN(float32, float, 4)
PLAIN(float32, float, 8)
PLAIN(float32, float, 40)
PLAIN(float32, float, 80)
PLAIN(float32, float, 160)
