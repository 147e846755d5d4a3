// Philox4x32-10 (Salmon et al., SC 2011) and Box-Muller, as bundle/noise.py draws them.
#pragma once

enum Purpose { ENTER = 0, RENOISE = 1, WARM_UP = 2 };

struct Normals {
  float values[4];
};

// One block of four standard normals: elements 4 * block to 4 * block + 3 of a draw.
__device__ inline Normals standard_normals(
    unsigned block, unsigned long long seed, int frame, int step, Purpose purpose) {
  unsigned counter[4] = {block, unsigned(frame), unsigned(step), unsigned(purpose)};
  unsigned key[2] = {unsigned(seed), unsigned(seed >> 32)};
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const unsigned long long first = counter[0] * 0xD2511F53ull;
    const unsigned long long second = counter[2] * 0xCD9E8D57ull;
    counter[0] = unsigned(second >> 32) ^ counter[1] ^ key[0];
    counter[1] = unsigned(second);
    counter[2] = unsigned(first >> 32) ^ counter[3] ^ key[1];
    counter[3] = unsigned(first);
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  Normals normals;
#pragma unroll
  for (int pair = 0; pair < 4; pair += 2) {
    // Exact in float32, and never 0 or 1.
    const float uniform = (float(counter[pair] >> 9) + 0.5f) * 0x1p-23f;
    const float turn = (float(counter[pair + 1] >> 9) + 0.5f) * 0x1p-23f;
    const float radius = sqrtf(-2.0f * logf(uniform));
    float sine, cosine;
    sincospif(2.0f * turn, &sine, &cosine);
    normals.values[pair] = radius * cosine;
    normals.values[pair + 1] = radius * sine;
  }
  return normals;
}
