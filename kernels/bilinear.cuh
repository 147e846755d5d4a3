// Bilinear interpolation, align_corners false, without antialias.
#pragma once

struct BilinearTaps {
  int low;
  int high;
  float fraction;  // of `high`

  // In units of 1 / (2 * to) source pixels the source lies at (2 * output + 1) * from - to.
  __device__ BilinearTaps(int output, int from, int to) {
    const int source = max(0, (2 * output + 1) * from - to);
    low = min(source / (2 * to), from - 1);
    high = min(low + 1, from - 1);
    fraction = float(source - low * 2 * to) / float(2 * to);
  }

  __device__ float mix(float at_low, float at_high) const { return at_low * (1.0f - fraction) + at_high * fraction; }
};
