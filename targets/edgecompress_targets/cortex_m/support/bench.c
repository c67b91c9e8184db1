/* Runs the model on every record of inputs.bin, writes outputs.bin, tells SysTick's count of each and the stack used.
 * model.h (generated) defines MODEL_* . */
#include <stdint.h>

#include "model.h"
#include "semihosting.h"

#define SYSTICK ((volatile uint32_t *)0xE000E010) /* control, reload, current */

static int8_t arena[MODEL_ARENA_BYTES] __attribute__((aligned(16)));
static int8_t input[MODEL_INPUT_BYTES] __attribute__((aligned(16)));
static int8_t output[MODEL_OUTPUT_BYTES] __attribute__((aligned(16)));
extern uint32_t stack_limit[], stack_top[];

_Noreturn void stop(int code) {
    const uintptr_t block[] = {0x20026, (uintptr_t)code}; /* ADP_Stopped_ApplicationExit */
    semihost(SYS_EXIT_EXTENDED, block);
    for (;;) {}
}

static volatile uint32_t wraps;
void systick_handler(void) { wraps++; }

/* SysTick counts 24 bits down from its reload value, and interrupts when it reaches 0. */
static uint32_t ticks(void) {
    uint32_t before, low;
    do before = wraps, low = -SYSTICK[2] & 0xFFFFFF; while (before != wraps);
    return (before << 24) + low;
}

#ifdef MODEL_STEPS
static uint32_t started[MODEL_STEPS + 1];
void edgecompress_layer(int32_t step) { started[step] = ticks(); }
#endif

static uint32_t invoke(void) {
    SYSTICK[0] = 0, SYSTICK[1] = 0xFFFFFF, SYSTICK[2] = 0, wraps = 0, SYSTICK[0] = 7;
    uint32_t before = ticks();
    MODEL_INVOKE(arena, input, output);
    uint32_t taken = ticks() - before;
    SYSTICK[0] = 0;
    return taken;
}

enum { PAINT = 0xA5A5A5A5 };

int main(void) {
    int32_t inputs = file_open("inputs.bin", OPEN_READ), outputs = file_open("outputs.bin", OPEN_WRITE);
    if (inputs < 0 || outputs < 0) return 66;
    uint32_t here;
    for (volatile uint32_t *word = stack_limit; word < &here - 16; word++) *word = PAINT;
    for (int32_t left = file_length(inputs); left >= MODEL_INPUT_BYTES; left -= MODEL_INPUT_BYTES) {
        if (file_read(inputs, input, MODEL_INPUT_BYTES)) return 74;
        say_number("ticks", invoke());
        if (file_write(outputs, output, MODEL_OUTPUT_BYTES)) return 74;
    }
    file_close(outputs);
    const volatile uint32_t *deepest = stack_limit;
    while (*deepest == PAINT) deepest++;
    say_number("stack", (uint32_t)((uintptr_t)stack_top - (uintptr_t)deepest));
#ifdef MODEL_STEPS
    for (int i = 0; i < MODEL_STEPS; i++) say_number("step", started[i + 1] - started[i]);
#endif
    return 0;
}
