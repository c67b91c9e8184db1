/* Runs the model on every record of a file: NAME_run INPUTS OUTPUTS [TIMES]. A record is the inputs' bytes one after
 * the other, as NAME.h describes them; likewise the outputs. TIMES gets the nanoseconds of each inference, int64,
 * which mean something on a device only. model.h (generated) defines MODEL_* . */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "model.h"

#ifndef MODEL_RESET /* of a model without states */
#define MODEL_RESET(a) (void)(a)
#endif

static int8_t arena[MODEL_ARENA_BYTES] __attribute__((aligned(MODEL_ARENA_ALIGNMENT)));
static int8_t input[MODEL_INPUT_BYTES] __attribute__((aligned(16)));
static int8_t output[MODEL_OUTPUT_BYTES] __attribute__((aligned(16)));

static int64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int failed(const char *name) {
    perror(name);
    return 74;
}

int main(int count, char **argument) {
    if (count != 3 && count != 4) {
        fprintf(stderr, "usage: %s INPUTS OUTPUTS [TIMES]\n  INPUTS: records of %d bytes, OUTPUTS: records of %d bytes\n",
                argument[0], MODEL_INPUT_BYTES, MODEL_OUTPUT_BYTES);
        return 64;
    }
    FILE *inputs = fopen(argument[1], "rb");
    if (!inputs) return failed(argument[1]);
    FILE *outputs = fopen(argument[2], "wb");
    if (!outputs) return failed(argument[2]);
    FILE *times = count == 4 ? fopen(argument[3], "wb") : NULL;
    if (count == 4 && !times) return failed(argument[3]);
    size_t records = 0, read;
    MODEL_RESET(arena);
    int64_t fastest = 0;
    while ((read = fread(input, 1, MODEL_INPUT_BYTES, inputs)) == MODEL_INPUT_BYTES) {
        int64_t start = now();
        MODEL_INVOKE(arena, input, output);
        int64_t taken = now() - start;
        if (!records++ || taken < fastest) fastest = taken;
        if (fwrite(output, 1, MODEL_OUTPUT_BYTES, outputs) != MODEL_OUTPUT_BYTES) return failed(argument[2]);
        if (times && fwrite(&taken, 1, sizeof taken, times) != sizeof taken) return failed(argument[3]);
    }
    if (ferror(inputs)) return failed(argument[1]);
    if (fclose(outputs)) return failed(argument[2]);
    if (times && fclose(times)) return failed(argument[3]);
    if (read) {
        fprintf(stderr, "%s: its last record has %zu bytes of %d\n", argument[1], read, MODEL_INPUT_BYTES);
        return 65;
    }
    printf("%zu records, fastest inference %.1f us\n", records, (double)fastest / 1e3);
    return 0;
}
