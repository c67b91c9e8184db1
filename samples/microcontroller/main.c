/* Classifies the images of images.h and says how many it got right. */
#include "digits_int8.h"
#include "images.h"

void print(const char *text);
_Noreturn void stop(int code);

static int8_t arena[DIGITS_INT8_ARENA_BYTES] __attribute__((aligned(DIGITS_INT8_ARENA_ALIGNMENT)));
static int8_t input[DIGITS_INT8_INPUT_0_BYTES] __attribute__((aligned(4)));
static int8_t scores[DIGITS_INT8_OUTPUT_0_BYTES] __attribute__((aligned(4)));

/* stored = real / SCALE + ZERO_POINT, within int8 */
static int8_t stored(float real) {
    float value = real / DIGITS_INT8_INPUT_0_SCALE + DIGITS_INT8_INPUT_0_ZERO_POINT;
    int rounded = (int)(value < 0 ? value - 0.5f : value + 0.5f);
    return (int8_t)(rounded < -128 ? -128 : rounded > 127 ? 127 : rounded);
}

static int classify(const float *image) {
    int best = 0;
    for (int i = 0; i < DIGITS_INT8_INPUT_0_BYTES; i++) input[i] = stored(image[i]);
    digits_int8_invoke(arena, input, scores);
    for (int i = 1; i < DIGITS_INT8_OUTPUT_0_BYTES; i++)
        if (scores[i] > scores[best]) best = i;
    return best;
}

int main(void) {
    int right = 0;
    for (int i = 0; i < IMAGES; i++) {
        char line[] = "image of a 0: 0\n";
        int found = classify(images[i]);
        line[12 - 1] = (char)('0' + labels[i]);
        line[14] = (char)('0' + found);
        print(line);
        right += found == labels[i];
    }
    print(right == IMAGES ? "all right\n" : "not all right\n");
    stop(right == IMAGES ? 0 : 1);
}
