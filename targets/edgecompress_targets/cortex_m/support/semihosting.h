/* Arm semihosting (Arm IHI/DUI 0471): files and messages through a debugger or QEMU. */
#include <stdint.h>

static inline int32_t semihost(int operation, const void *arguments) {
    register int32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;
    __asm__ volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

enum { SYS_OPEN = 1, SYS_CLOSE = 2, SYS_WRITE0 = 4, SYS_WRITE = 5, SYS_READ = 6, SYS_FLEN = 12, SYS_EXIT_EXTENDED = 32 };
enum { OPEN_READ = 1, OPEN_WRITE = 5 };

static inline int32_t file_open(const char *name, int mode) {
    const char *end = name;
    while (*end) end++;
    const uintptr_t block[] = {(uintptr_t)name, (uintptr_t)mode, (uintptr_t)(end - name)};
    return semihost(SYS_OPEN, block);
}
/* Both return the number of bytes that were NOT transferred. */
static inline int32_t file_read(int32_t file, void *to, uint32_t bytes) {
    const uintptr_t block[] = {(uintptr_t)file, (uintptr_t)to, bytes};
    return semihost(SYS_READ, block);
}
static inline int32_t file_write(int32_t file, const void *from, uint32_t bytes) {
    const uintptr_t block[] = {(uintptr_t)file, (uintptr_t)from, bytes};
    return semihost(SYS_WRITE, block);
}
static inline int32_t file_length(int32_t file) {
    const uintptr_t block[] = {(uintptr_t)file};
    return semihost(SYS_FLEN, block);
}
static inline void file_close(int32_t file) {
    const uintptr_t block[] = {(uintptr_t)file};
    semihost(SYS_CLOSE, block);
}
static inline void say(const char *text) { semihost(SYS_WRITE0, text); }
static inline void say_number(const char *name, uint32_t value) {
    char text[12];
    int at = 11;
    text[at] = 0;
    text[--at] = '\n';
    do text[--at] = (char)('0' + value % 10); while (value /= 10);
    say(name);
    say(" ");
    say(text + at);
}
