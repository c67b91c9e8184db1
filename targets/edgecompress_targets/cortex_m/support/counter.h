/* Counts cycles of one inference: DWT CYCCNT (Armv7-M ARM, C1.8) where it runs, else SysTick (B3.3). */
#include <stdint.h>

#define SYSTICK ((volatile uint32_t *)0xE000E010) /* control, reload, current */
#define DWT ((volatile uint32_t *)0xE0001000)     /* control, CYCCNT */
#define DWT_UNLOCK (*(volatile uint32_t *)0xE0001FB0)
#define DEMCR (*(volatile uint32_t *)0xE000EDFC)

enum { COUNTER_SYSTICK = 0, COUNTER_CYCCNT = 1 };
static int counter = COUNTER_SYSTICK;

/* A CPU may lack CYCCNT, and an emulator may read it as 0: what counts is that it advances. Armv6-M has none. */
static void counter_start(void) {
#if __ARM_ARCH >= 7
    DEMCR |= 1u << 24, DWT_UNLOCK = 0xC5ACCE55, DWT[1] = 0, DWT[0] |= 1;
    uint32_t before = DWT[1];
    for (volatile int i = 0; i < 8; i++) {}
    if (DWT[1] != before) counter = COUNTER_CYCCNT;
#endif
}

static volatile uint32_t wraps;
void systick_handler(void) { wraps++; }

/* SysTick counts 24 bits down from its reload value, and interrupts when it reaches 0. */
static uint32_t ticks(void) {
    if (counter == COUNTER_CYCCNT) return DWT[1];
    uint32_t before, low;
    do before = wraps, low = -SYSTICK[2] & 0xFFFFFF; while (before != wraps);
    return (before << 24) + low;
}

static void ticks_restart(void) { SYSTICK[0] = 0, SYSTICK[1] = 0xFFFFFF, SYSTICK[2] = 0, wraps = 0, SYSTICK[0] = 7; }
static void ticks_stop(void) { SYSTICK[0] = 0; }
