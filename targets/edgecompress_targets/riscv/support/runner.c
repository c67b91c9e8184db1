/* Runs the model on every record of a file: NAME_run INPUTS OUTPUTS [TIMES]. A record is the inputs' bytes one after
 * the other, as NAME.h describes them; likewise the outputs. TIMES gets the nanoseconds of each inference, int64,
 * which mean something on a device only. model.h (generated) defines MODEL_* . Needs no C library: it calls Linux
 * itself, so that one compiler does for all RISC-V CPUs. Ends with 64, 65 or 74 as sysexits.h has it. */
#include <stddef.h>
#include <stdint.h>

#include "model.h"

#ifndef MODEL_RESET /* of a model without states */
#define MODEL_RESET(a) (void)(a)
#endif

enum { OPENAT = 56, READ = 63, WRITE = 64, EXIT = 93, CLOCK_GETTIME = __riscv_xlen == 32 ? 403 : 113 };
enum { HERE = -100, CREATE = 01101 /* O_WRONLY, O_CREAT, O_TRUNC */, MONOTONIC = 1 };

static int8_t arena[MODEL_ARENA_BYTES] __attribute__((aligned(16)));
static int8_t input[MODEL_INPUT_BYTES] __attribute__((aligned(16)));
static int8_t output[MODEL_OUTPUT_BYTES] __attribute__((aligned(16)));

static long call(long number, long a, long b, long c, long d) {
    register long a0 __asm__("a0") = a, a1 __asm__("a1") = b, a2 __asm__("a2") = c, a3 __asm__("a3") = d;
    register long a7 __asm__("a7") = number;
    __asm__ volatile("ecall" : "+r"(a0) : "r"(a1), "r"(a2), "r"(a3), "r"(a7) : "memory");
    return a0;
}

static void say(const char *text) {
    size_t length = 0;
    while (text[length]) length++;
    call(WRITE, 2, (long)text, (long)length, 0);
}

static void leave(int code, const char *name, const char *what) {
    say(name);
    say(what);
    call(EXIT, code, 0, 0, 0);
    __builtin_unreachable();
}

static long opened(const char *name, long flags) {
    long file = call(OPENAT, HERE, (long)name, flags, 0644);
    if (file < 0) leave(74, name, ": can't be opened\n");
    return file;
}

static void put(long file, const char *name, const void *data, long size) {
    for (long done = 0, n; done < size; done += n)
        if ((n = call(WRITE, file, (long)data + done, size - done, 0)) <= 0) leave(74, name, ": can't be written\n");
}

/* Fewer than `size` at the end of the file. */
static long take(long file, const char *name, void *data, long size) {
    long done = 0, n;
    while (done < size && (n = call(READ, file, (long)data + done, size - done, 0)) > 0) done += n;
    if (done < size && n < 0) leave(74, name, ": can't be read\n");
    return done;
}

static int64_t now(void) {
    int64_t t[2];
    call(CLOCK_GETTIME, MONOTONIC, (long)t, 0, 0);
    return t[0] * 1000000000 + t[1];
}

__attribute__((used)) static void run(long *stack) {
    long count = stack[0], read;
    const char **argument = (const char **)(stack + 1);
    if (count != 3 && count != 4) leave(64, argument[0], ": expected INPUTS OUTPUTS [TIMES]\n");
    long inputs = opened(argument[1], 0), outputs = opened(argument[2], CREATE);
    long times = count == 4 ? opened(argument[3], CREATE) : -1;
    MODEL_RESET(arena);
    while ((read = take(inputs, argument[1], input, MODEL_INPUT_BYTES)) == MODEL_INPUT_BYTES) {
        int64_t start = now();
        MODEL_INVOKE(arena, input, output);
        int64_t taken = now() - start;
        put(outputs, argument[2], output, MODEL_OUTPUT_BYTES);
        if (times >= 0) put(times, argument[3], &taken, sizeof taken);
    }
    if (read) leave(65, argument[1], ": its last record is not whole\n");
    leave(0, "", "");
}

__attribute__((naked, noreturn)) void _start(void) {
    __asm__("mv a0, sp\n\tandi sp, sp, -16\n\tj run");
}
