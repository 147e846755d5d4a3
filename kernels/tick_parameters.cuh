// What changes from tick to tick. The same structure as TICK_PARAMETERS in tick_parameters.py; a test compares them.
#pragma once

constexpr int MAXIMUM_STEPS = 8;
constexpr int MAXIMUM_ROWS = 2 * MAXIMUM_STEPS;  // each step under the prompt, and under a negative one
constexpr int WINDOW = 16;
constexpr int SINK = 8;

struct RowParameters {
  int active;      // 1 where the row holds a real frame: only then is a slot written
  int frame;       // its index in the stream, for its noise
  int position;    // of the row's own frame
  int write_slot;  // where its keys and values belong; hidden in this tick
  int past_position[WINDOW];
  int visible[WINDOW];
};

struct TickParameters {
  unsigned long long seed;
  unsigned long long source;  // device address of the picture that came in, uint8 [source_height, source_width, 3]
  long long source_row_bytes;
  int source_width;
  int source_height;
  int crop_left;
  int crop_top;
  int crop_width;
  int crop_height;
  RowParameters rows[MAXIMUM_ROWS];
  float guidance_scale;  // read by the guided kernels alone
  float guidance_delta;
  int unused[2];  // all of it is copied as vectors of 16 bytes
};

static_assert(sizeof(RowParameters) == 144, "tick_parameters.py has another layout");
static_assert(sizeof(TickParameters) == 2368, "tick_parameters.py has another layout");

// The constants of the denoising steps, float32 [4, MAXIMUM_STEPS] in this order.
struct StepTable {
  float sqrt_alpha[MAXIMUM_STEPS];
  float sqrt_one_minus_alpha[MAXIMUM_STEPS];
  float c_skip[MAXIMUM_STEPS];
  float c_out[MAXIMUM_STEPS];
};
