// What both ways to normalise groups (Wu and He, arXiv 1803.08494) have in common.
#pragma once

#include "rows.cuh"
#include "special_functions.cuh"
#include "vectors.cuh"

constexpr unsigned ALL_LANES = 0xFFFFFFFFu;

__device__ inline float sum_of_warp(float value) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_xor_sync(ALL_LANES, value, distance);
  return value;
}

// What is added to a row before anything else, [channels]; there may be nothing.
template <typename T>
__device__ const T* bias_of_row(const RepeatedRows<const T>& row_bias) {
  return row_bias.rows.base == nullptr ? nullptr : row_bias.row_of_block(blockIdx.y);
}

template <typename T>
__device__ float first_value(const T* x, const T* row_bias, int channel) {
  return to_float(x[channel]) + (row_bias == nullptr ? 0.0f : to_float(row_bias[channel]));
}

// Of one channel: out = ((x + bias) - reference) scale + shift, where the shift holds what the mean is off the reference.
// In this order, as the mean times the scale may be far larger than out.
struct Normalisation {
  float bias;
  float reference;
  float scale;
  float shift;

  __device__ float operator()(float x) const { return (x + bias - reference) * scale + shift; }
};

__device__ inline float silu(float x) { return x * reciprocal(1.0f + power_of_two(x * -1.4426950408889634f)); }
