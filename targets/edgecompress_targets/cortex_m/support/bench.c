/* Runs the model on every record of inputs.bin, writes outputs.bin, and tells SysTick's count and the stack used.
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

static uint32_t ticks(void) { return 0xFFFFFF - SYSTICK[2]; }

#ifdef MODEL_STEPS
static uint32_t started[MODEL_STEPS + 1];
void edgecompress_layer(int32_t step) { started[step] = ticks(); }
#endif

static uint32_t invoke(void) {
    SYSTICK[0] = 0, SYSTICK[1] = 0xFFFFFF, SYSTICK[2] = 0, SYSTICK[0] = 5;
    uint32_t before = ticks();
    MODEL_INVOKE(arena, input, output);
    return (ticks() - before) & 0xFFFFFF;
}

enum { PAINT = 0xA5A5A5A5 };

int main(void) {
    int32_t inputs = file_open("inputs.bin", OPEN_READ), outputs = file_open("outputs.bin", OPEN_WRITE);
    if (inputs < 0 || outputs < 0) return 66;
    uint32_t here, total = 0, last = 0;
    for (volatile uint32_t *word = stack_limit; word < &here - 16; word++) *word = PAINT;
    for (int32_t left = file_length(inputs); left >= MODEL_INPUT_BYTES; left -= MODEL_INPUT_BYTES, total++) {
        if (file_read(inputs, input, MODEL_INPUT_BYTES)) return 74;
        last = invoke();
        if (file_write(outputs, output, MODEL_OUTPUT_BYTES)) return 74;
    }
    file_close(outputs);
    const volatile uint32_t *deepest = stack_limit;
    while (*deepest == PAINT) deepest++;
    say_number("records", total);
    say_number("ticks", last);
    say_number("stack", (uint32_t)((uintptr_t)stack_top - (uintptr_t)deepest));
#ifdef MODEL_STEPS
    for (int i = 0; i < MODEL_STEPS; i++) say_number("step", (started[i + 1] - started[i]) & 0xFFFFFF);
#endif
    return 0;
}
