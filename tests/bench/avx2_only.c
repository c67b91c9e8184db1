/* CPUID without AVX-512 and VNNI, for code whose CPUID instructions (0f a2) were replaced by UD2 (0f 0b). */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <ucontext.h>

enum { FEATURES = 7 };
static const uint32_t hidden[2][4] = {
    /* EAX, EBX, ECX, EDX of leaf 7, subleaves 0 and 1 (Intel SDM, volume 2A, CPUID) */
    {0, 0xdc230000, 0x00005942, 0x0080010c}, /* AVX512*, VPOPCNTDQ, GFNI, VP2INTERSECT, FP16 */
    {0x00800030, 0, 0, 0x00080430},          /* AVX-VNNI, AVX512_BF16, AVX-IFMA, VNNI-INT8, -INT16, AVX10 */
};
static struct sigaction before;
static int answered;

int answers(void) { return answered; }

static void answer(int number, siginfo_t *info, void *context) {
    greg_t *r = ((ucontext_t *)context)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)r[REG_RIP];
    uint32_t leaf = r[REG_RAX], subleaf = r[REG_RCX], values[4];
    if (code[0] != 0x0f || code[1] != 0x0b) {
        sigaction(SIGILL, &before, 0);
        return;
    }
    __cpuid_count(leaf, subleaf, values[0], values[1], values[2], values[3]);
    for (int i = 0; leaf == FEATURES && subleaf < 2 && i < 4; ++i)
        values[i] &= ~hidden[subleaf][i];
    r[REG_RAX] = values[0];
    r[REG_RBX] = values[1];
    r[REG_RCX] = values[2];
    r[REG_RDX] = values[3];
    r[REG_RIP] += 2;
    ++answered;
}

void install(void) {
    struct sigaction action = {.sa_sigaction = answer, .sa_flags = SA_SIGINFO};
    sigaction(SIGILL, &action, &before);
}
