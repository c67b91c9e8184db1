/* Start-up for Cortex-M: vector table, FPU and Helium, .data and .bss, then main. */
#include <stdint.h>

extern uint32_t stack_top[], data_load[], data_start[], data_end[], bss_start[], bss_end[];
_Noreturn int main(void);
_Noreturn void faulted(void);
void systick_handler(void);

_Noreturn void reset_handler(void) {
    *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: coprocessors 10 and 11 (FPU, Helium) */
#if __ARM_ARCH >= 8 && __ARM_ARCH_PROFILE == 'M' && defined(__ARM_FEATURE_MVE)
    *(volatile uint32_t *)0xE000ED14 |= 1u << 19; /* CCR.LOB: low-overhead loops */
#endif
    __asm__ volatile("dsb\n isb" ::: "memory");
    const uint32_t *from = data_load;
    for (volatile uint32_t *to = data_start; to < data_end; to++) *to = *from++;
    for (volatile uint32_t *to = bss_start; to < bss_end; to++) *to = 0;
    main();
}

/* The stack may be what is broken: start again on an empty one. */
__attribute__((naked)) void fault_handler(void) {
    __asm__ volatile("ldr r0, =stack_top\n mov sp, r0\n bl faulted\n .ltorg");
}

__attribute__((section(".vectors"), used)) void *const vectors[16] = {
    stack_top,     reset_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler,
    fault_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler, fault_handler, systick_handler};
