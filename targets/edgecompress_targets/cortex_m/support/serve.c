/* Serves one model over a byte stream: connection/PROTOCOL.md specifies it. No heap; two frames of memory beside the
 * model's own. model.h (generated) defines MODEL_* . */
#include <stdint.h>

#include "board.h"
#include "counter.h"
#include "model.h"

#ifndef MODEL_RESET /* of a model without states */
#define MODEL_RESET(a) (void)(a)
#endif

enum { VERSION = 1, PAYLOAD = 256, HEADER = 6, CHECKSUM = 4, LIMIT = HEADER + PAYLOAD + CHECKSUM };
enum { HELLO = 1, WRITE, INVOKE, READ, STATISTICS, STEPS, MEMORY };
enum { DONE = 0, DAMAGED, REFUSED, NO_SESSION, OTHER_INPUT, FAULT };

static int8_t arena[MODEL_ARENA_BYTES] __attribute__((aligned(16)));
static int8_t input[MODEL_INPUT_BYTES] __attribute__((aligned(16)));
static int8_t output[MODEL_OUTPUT_BYTES] __attribute__((aligned(16)));
static const uint8_t digest[32] = MODEL_DIGEST;
static uint8_t request[LIMIT + 3], answer[LIMIT];
static uint32_t session, invoked, taken, output_crc; /* invoked: sequence number of the last INVOKE, 0 for none */
extern uint32_t stack_limit[], stack_top[];

#ifdef MODEL_STEPS
static uint32_t started[MODEL_STEPS + 1];
void edgecompress_layer(int32_t step) { started[step] = ticks(); }
#else
#define MODEL_STEPS 0
#endif

static uint32_t get16(const uint8_t *at) { return at[0] | (uint32_t)at[1] << 8; }
static uint32_t get32(const uint8_t *at) { return get16(at) | get16(at + 2) << 16; }
static void put32(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> 8 * i);
}

/* CRC-32 of IEEE 802.3, as zlib's, four bits at a time. */
static uint32_t crc32(const void *data, uint32_t length) {
    static const uint32_t table[16] = {
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
        0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C};
    uint32_t crc = 0xFFFFFFFF;
    for (const uint8_t *at = data; length--; at++) {
        crc ^= *at;
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

/* One frame: COBS between two zeros. The first zero ends whatever noise came before. */
static void send(uint32_t length) {
    put32(answer + length, crc32(answer, length));
    length += CHECKSUM;
    uart_write(0);
    for (uint32_t at = 0, run;; at += run + 1) {
        for (run = 0; at + run < length && answer[at + run] && run < 254; run++) {}
        uart_write((uint8_t)(run + 1));
        for (uint32_t i = 0; i < run; i++) uart_write(answer[at + i]);
        if (at + run == length) break;
        if (run == 254) at--; /* a full block stands for no zero */
    }
    uart_write(0);
}

/* Undoes COBS in place: the number of bytes, 0 when they are no frame. */
static uint32_t decoded(uint8_t *data, uint32_t length) {
    uint32_t to = 0;
    for (uint32_t from = 0; from < length;) {
        uint32_t code = data[from++];
        if (from + code - 1 > length) return 0;
        for (uint32_t i = 1; i < code; i++) data[to++] = data[from++];
        if (code < 255 && from < length) data[to++] = 0;
    }
    int whole = to >= HEADER + CHECKSUM && get32(data + to - CHECKSUM) == crc32(data, to - CHECKSUM);
    return whole ? to - CHECKSUM : 0;
}

enum { PAINT = 0xA5A5A5A5 };

static uint32_t stack_used(void) {
    const volatile uint32_t *deepest = stack_limit;
    while (*deepest == PAINT) deepest++;
    return (uint32_t)((uintptr_t)stack_top - (uintptr_t)deepest);
}

static uint32_t invoke(uint32_t number) {
    if (number != invoked) { /* else the same request again: its answer was lost */
        ticks_restart();
        uint32_t before = ticks();
        MODEL_INVOKE(arena, input, output);
        taken = ticks() - before;
        ticks_stop();
        invoked = number, output_crc = crc32(output, MODEL_OUTPUT_BYTES);
    }
    put32(answer + HEADER, taken), put32(answer + HEADER + 4, output_crc);
    return 8;
}

static uint32_t hello(void) {
    uint8_t *to = answer + HEADER;
    session = get16(request), invoked = 0;
    MODEL_RESET(arena);
    *to++ = VERSION, *to++ = (uint8_t)counter, *to++ = PAYLOAD & 0xFF, *to++ = PAYLOAD >> 8;
    const uint32_t sizes[] = {MODEL_INPUT_BYTES, MODEL_OUTPUT_BYTES, MODEL_ARENA_BYTES, MODEL_STEPS};
    for (int i = 0; i < 4; i++, to += 4) put32(to, sizes[i]);
    for (int i = 0; i < 32; i++) *to++ = digest[i];
    return (uint32_t)(to - answer) - HEADER;
}

/* The answer's payload for a whole request: its length, or minus the reason of a refusal. */
static int32_t handled(uint32_t length) {
    const uint8_t *payload = request + HEADER;
    uint32_t kind = request[4], size = length - HEADER, at = size >= 4 ? get32(payload) : 0;
    if (kind == HELLO) return (int32_t)hello();
    if (!session || get16(request) != session) return -NO_SESSION;
    if (kind == WRITE && size >= 4 && at <= MODEL_INPUT_BYTES && size - 4 <= MODEL_INPUT_BYTES - at) {
        for (uint32_t i = 4; i < size; i++) input[at + i - 4] = (int8_t)payload[i];
        return 0;
    }
    if (kind == INVOKE && size == 4) {
        if (get16(request + 2) != invoked && at != crc32(input, MODEL_INPUT_BYTES)) return -OTHER_INPUT;
        return (int32_t)invoke(get16(request + 2));
    }
    uint32_t wanted = size == 6 ? get16(payload + 4) : 0;
    if (kind == READ && size == 6 && wanted <= PAYLOAD && at <= MODEL_OUTPUT_BYTES && wanted <= MODEL_OUTPUT_BYTES - at) {
        for (uint32_t i = 0; i < wanted; i++) answer[HEADER + i] = (uint8_t)output[at + i];
        return (int32_t)wanted;
    }
    if (kind == STATISTICS) return put32(answer + HEADER, stack_used()), 4;
    if (kind == MEMORY && size == 8) {
        put32(answer + HEADER, crc32((const void *)(uintptr_t)at, get32(payload + 4)));
        return 4;
    }
#if MODEL_STEPS
    if (kind == STEPS && size == 6 && wanted <= PAYLOAD / 4 && at <= MODEL_STEPS && wanted <= MODEL_STEPS - at) {
        for (uint32_t i = 0; i < wanted; i++) put32(answer + HEADER + 4 * i, started[at + i + 1] - started[at + i]);
        return (int32_t)(4 * wanted);
    }
#endif
    return -REFUSED;
}

static void reply(uint32_t length) {
    for (int i = 0; i < HEADER; i++) answer[i] = length ? request[i] : 0;
    int32_t size = length ? handled(length) : -DAMAGED;
    answer[4] |= 0x80, answer[5] = (uint8_t)(size < 0 ? -size : DONE);
    send(HEADER + (size < 0 ? 0 : (uint32_t)size));
}

/* A CPU fault ends here, on a fresh stack: every frame that comes is answered by FAULT, until a reset. */
_Noreturn void faulted(void) {
    for (;;) {
        for (int i = 0; i < HEADER; i++) answer[i] = 0;
        answer[5] = FAULT;
        send(HEADER);
        while (uart_read()) {}
    }
}

_Noreturn int main(void) {
    uint32_t here, length = 0;
    for (volatile uint32_t *word = stack_limit; word < &here - 16; word++) *word = PAINT;
    uart_start();
    counter_start();
    for (;;) {
        int byte = uart_read();
        if (byte > 0) {
            if (length < sizeof request) request[length] = (uint8_t)byte;
            length += length <= sizeof request; /* one more than fits: too long, and stays so */
        } else if (byte == 0) {
            if (length) reply(length <= sizeof request ? decoded(request, length) : 0);
            length = 0;
        }
    }
}
