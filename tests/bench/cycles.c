/* A plugin for qemu-system-arm that adds up cycles as the manuals of Cortex-M0, M3 and M4 give them, with memory that
 * never waits:
 *
 *   M0      Cortex-M0 TRM (DDI 0432C), table 3-1, with the fast multiplier
 *   M3, M4  Cortex-M3 TRM (DDI 0337I), Cortex-M4 TRM (DDI 0439B), tables 3-1, and their "load/store timings"
 *
 * What depends on data or alignment has one figure: a division takes 6 cycles, to refill the pipeline takes 2. Not
 * modelled are the stall of an address that the instruction before computed, contention of literal loads with fetches,
 * and what a floating-point result costs that is used at once; so real boards take somewhat longer.
 *
 *   -plugin file=cycles.so,cpu=m4,mark=0x1234,out=FILE
 *
 * writes "instructions cycles", counted from the start, whenever the instruction at `mark` is executed. The functions
 * of QEMU are declared here, as its qemu-plugin.h has them at version 1 (QEMU 4.2 and later). */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info_t;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, void (*)(qemu_plugin_id_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(
    struct qemu_plugin_tb *, void (*)(unsigned, void *), enum qemu_plugin_cb_flags, void *);
void qemu_plugin_register_vcpu_insn_exec_cb(
    struct qemu_plugin_insn *, void (*)(unsigned, void *), enum qemu_plugin_cb_flags, void *);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
__attribute__((visibility("default"))) int qemu_plugin_version = 1;

enum { REFILL = 2, DIVISION = 6, NOWHERE = -1 };
static enum { M0, M3, M4 } cpu;

/* What an instruction takes. load: the register that a single load writes, else NOWHERE. base, index: the registers of
 * a single load's or store's address, else NOWHERE. */
struct cost {
    int cycles, load, base, index;
};

/* A straight piece of code as QEMU translates it. */
struct block {
    uint64_t start, end, instructions, cycles;
};

static uint64_t instructions, cycles, expected, mark;
static FILE *out;

static int bits(unsigned mask) { return __builtin_popcount(mask); }
static struct cost plain(int taken) { return (struct cost){taken, NOWHERE, NOWHERE, NOWHERE}; }

static struct cost access(bool loads, int target, int base, int index) {
    int alone = cpu == M0 ? 2 : loads ? 2 : 1; /* the write buffer takes what M3 and M4 store */
    return (struct cost){alone, loads ? target : NOWHERE, base, index};
}

static struct cost narrow(unsigned a) {
    unsigned op = a >> 9 & 7, low = a & 7, mid = a >> 3 & 7, high = a >> 6 & 7, wide = a >> 8 & 7;
    if (a >> 11 == 0x09) return access(true, wide, 15, NOWHERE);                        /* LDR from behind the code */
    if (a >> 12 == 0x5) return access(op >= 3, low, mid, high);                         /* register offset */
    if (a >> 13 == 0x3 || a >> 12 == 0x8) return access(a >> 11 & 1, low, mid, NOWHERE); /* immediate offset */
    if (a >> 12 == 0x9) return access(a >> 11 & 1, wide, 13, NOWHERE);                  /* stack */
    if (a >> 9 == 0x5a || a >> 9 == 0x5e) {                                             /* PUSH, POP */
        bool to_pc = a >> 9 == 0x5e && a >> 8 & 1;
        return plain(1 + bits(a & 0x1ff) + (cpu == M0 && to_pc ? 1 : 0)); /* M0: 4 + N, the refill among them */
    }
    if (a >> 12 == 0xc) return plain(1 + bits(a & 0xff)); /* STM, LDM */
    return plain(1);
}

static struct cost floating(unsigned a, unsigned b) {
    if ((a & 0xef00) == 0xed00) return plain(2);                                  /* VLDR, VSTR */
    if ((a & 0xffe0) == 0xec40) return plain(2);                                  /* VMOV of two registers */
    if ((a & 0xee00) == 0xec00) return plain(1 + (b & 0xff));                     /* VLDM, VSTM */
    if ((a & 0xffb0) == 0xee80) return plain(14);                                 /* VDIV */
    if ((a & 0xffbf) == 0xeeb1 && (b & 0xc0) == 0xc0) return plain(14);           /* VSQRT */
    if ((a & 0xffa0) == 0xee00 && (b & 0x10) == 0) return plain(3);               /* VMLA, VNMLA and the like */
    if ((a & 0xffb0) == 0xeea0 || (a & 0xffb0) == 0xee90) return plain(3);        /* VFMA, VFNMA and the like */
    return plain(1);
}

static struct cost multiplied(unsigned a, unsigned b) {
    bool adds = (b & 0xf000) != 0xf000;
    if ((a & 0xffd0) == 0xfb90) return plain(DIVISION);                        /* SDIV, UDIV */
    if (cpu == M4) return plain(1);
    return plain((a & 0xff80) == 0xfb80 ? (a & 0x40 ? 5 : 4) : adds ? 2 : 1); /* M3: SMULL 3 to 5, SMLAL 4 to 7, MLA 2 */
}

static struct cost wide(unsigned a, unsigned b) {
    if ((a & 0xfe40) == 0xe800) return plain(1 + bits(b));                              /* LDM, STM */
    if ((a & 0xfff0) == 0xe8d0 && (b & 0xffe0) == 0xf000) return plain(4);              /* TBB, TBH; then the refill */
    if ((a & 0xfe40) == 0xe840) return plain(3);                                        /* LDRD, STRD */
    if ((a & 0xfe00) == 0xf800) {                                                       /* LDR, STR and the like */
        bool by_register = (a & 0x80) == 0 && (b & 0xfc0) == 0 && (a & 15) != 15;
        return access(a >> 4 & 1, b >> 12, a & 15, by_register ? (int)(b & 15) : NOWHERE);
    }
    if ((a & 0xff00) == 0xfb00) return multiplied(a, b);
    if ((a & 0xec00) == 0xec00) return floating(a, b);
    if (cpu == M0) return plain((b & 0xd000) == 0xd000 ? 2 : 4); /* BL, whose refill follows; MSR, MRS, barriers */
    return plain(1);
}

static void entered(unsigned vcpu, void *data) {
    const struct block *block = data;
    (void)vcpu;
    if (block->start != expected) cycles += REFILL;
    expected = block->end;
    cycles += block->cycles;
    instructions += block->instructions;
}

static void marked(unsigned vcpu, void *data) {
    (void)vcpu, (void)data;
    fprintf(out, "%llu %llu\n", (unsigned long long)instructions, (unsigned long long)cycles);
    fflush(out); /* QEMU is killed in the end */
}

static void translated(qemu_plugin_id_t id, struct qemu_plugin_tb *tb) {
    struct block *block = calloc(1, sizeof *block);
    struct cost before = plain(1);
    (void)id;
    block->instructions = qemu_plugin_tb_n_insns(tb);
    for (size_t i = 0; i < block->instructions; i++) {
        struct qemu_plugin_insn *instruction = qemu_plugin_tb_get_insn(tb, i);
        const uint16_t *data = qemu_plugin_insn_data(instruction);
        size_t size = qemu_plugin_insn_size(instruction);
        uint64_t address = qemu_plugin_insn_vaddr(instruction);
        struct cost cost = size == 2 ? narrow(data[0]) : wide(data[0], data[1]);
        /* a load behind a load takes one cycle less, unless its address needs what was loaded */
        bool needs = before.load == cost.base || before.load == cost.index;
        bool pipelined = cpu != M0 && before.load != NOWHERE && cost.load != NOWHERE && !needs;
        block->cycles += (uint64_t)(cost.cycles - pipelined);
        before = cost;
        if (i == 0) block->start = address;
        block->end = address + size;
        if (address == mark) qemu_plugin_register_vcpu_insn_exec_cb(instruction, marked, QEMU_PLUGIN_CB_NO_REGS, NULL);
    }
    qemu_plugin_register_vcpu_tb_exec_cb(tb, entered, QEMU_PLUGIN_CB_NO_REGS, block);
}

__attribute__((visibility("default"))) int qemu_plugin_install(
    qemu_plugin_id_t id, const struct qemu_info_t *info, int count, char **arguments) {
    (void)info;
    for (int i = 0; i < count; i++) {
        const char *value = strchr(arguments[i], '=') + 1;
        if (!strncmp(arguments[i], "cpu=", 4)) cpu = value[1] == '0' ? M0 : value[1] == '3' ? M3 : M4;
        if (!strncmp(arguments[i], "mark=", 5)) mark = strtoull(value, NULL, 0) & ~1ull;
        if (!strncmp(arguments[i], "out=", 4)) out = fopen(value, "w");
    }
    if (out == NULL || mark == 0) return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
