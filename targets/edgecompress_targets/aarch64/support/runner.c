/* Runs the model on every record of a file: NAME_run INPUTS OUTPUTS. A record is the inputs' bytes one after the
 * other, as NAME.h describes them; likewise the outputs. Tells the time of one inference, which means something on
 * a device only. model.h (generated) defines MODEL_* . */
#include <stdint.h>
#include <stdio.h>
#include <time.h>

#include "model.h"

static int8_t arena[MODEL_ARENA_BYTES] __attribute__((aligned(16)));
static int8_t input[MODEL_INPUT_BYTES] __attribute__((aligned(16)));
static int8_t output[MODEL_OUTPUT_BYTES] __attribute__((aligned(16)));

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int failed(const char *name) {
    perror(name);
    return 74;
}

int main(int count, char **argument) {
    if (count != 3) {
        fprintf(stderr, "usage: %s INPUTS OUTPUTS\n  INPUTS: records of %d bytes, OUTPUTS: records of %d bytes\n",
                argument[0], MODEL_INPUT_BYTES, MODEL_OUTPUT_BYTES);
        return 64;
    }
    FILE *inputs = fopen(argument[1], "rb");
    if (!inputs) return failed(argument[1]);
    FILE *outputs = fopen(argument[2], "wb");
    if (!outputs) return failed(argument[2]);
    size_t records = 0, read;
    double fastest = 0;
    while ((read = fread(input, 1, MODEL_INPUT_BYTES, inputs)) == MODEL_INPUT_BYTES) {
        double start = now();
        MODEL_INVOKE(arena, input, output);
        double taken = now() - start;
        if (!records++ || taken < fastest) fastest = taken;
        if (fwrite(output, 1, MODEL_OUTPUT_BYTES, outputs) != MODEL_OUTPUT_BYTES) return failed(argument[2]);
    }
    if (ferror(inputs)) return failed(argument[1]);
    if (fclose(outputs)) return failed(argument[2]);
    if (read) {
        fprintf(stderr, "%s: its last record has %zu bytes of %d\n", argument[1], read, MODEL_INPUT_BYTES);
        return 65;
    }
    printf("%zu records, fastest inference %.1f us\n", records, fastest);
    return 0;
}
