/*
 * The first process of a kernel under test. Loads every module in the given order, checks what a
 * Kubernetes node needs, and ends the virtual machine.
 *
 * It needs no C library and no headers, so that any gcc or clang of the host can compile it for x86-64
 * and arm64. Constants of the kernel's interface have their names from include/uapi/ of the kernel.
 *
 * The output goes to /dev/kmsg, one record for each line. On the console itself it would be mixed with
 * what the kernel prints at the same time. Every line begins with "kcompile: ":
 *
 *   init                        init runs; the kernel's clock is before the line
 *   release 6.1.7               the release from uname(2)
 *   load 3 PATH                 init loads module 3 of the order
 *   loaded 3 ERRNO              the result
 *   check NAME ERRNO TEXT       a check, with the step that failed, or with what was found
 *   end                         init has ended
 */

/* --- The kernel's interface, and text. */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#if defined(__x86_64__)
enum {
    SYS_read = 0, SYS_write = 1, SYS_close = 3, SYS_nanosleep = 35, SYS_socket = 41, SYS_sendto = 44,
    SYS_recvfrom = 45, SYS_setsockopt = 54, SYS_getsockopt = 55, SYS_uname = 63, SYS_mount = 165,
    SYS_reboot = 169, SYS_getdents64 = 217, SYS_openat = 257, SYS_mkdirat = 258, SYS_mknodat = 259,
    SYS_unshare = 272, SYS_finit_module = 313,
};

static long call(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

__asm__(".globl _start\n_start: xor %ebp, %ebp\n and $-16, %rsp\n call init\n");
#elif defined(__aarch64__)
enum {
    SYS_mknodat = 33, SYS_mkdirat = 34, SYS_mount = 40, SYS_openat = 56, SYS_close = 57,
    SYS_getdents64 = 61, SYS_read = 63, SYS_write = 64, SYS_unshare = 97, SYS_nanosleep = 101,
    SYS_reboot = 142, SYS_uname = 160, SYS_socket = 198, SYS_sendto = 206, SYS_recvfrom = 207,
    SYS_setsockopt = 208, SYS_getsockopt = 209, SYS_finit_module = 273,
};

static long call(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;

    __asm__ volatile("svc #0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}

__asm__(".globl _start\n_start: mov x29, #0\n bl init\n");
#else
#error "neither x86-64 nor arm64"
#endif

#define CALL(name, a, b, c, d, e, f) \
    call(SYS_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

enum { ENOENT = 2, ENODEV = 19, EPROTO = 71 };
enum { O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_CREAT = 0100, AT_FDCWD = -100 };

/* The compiler emits calls of these. */
void *memset(void *to, int value, unsigned long count)
{
    for (u8 *at = to; count--; at++)
        *at = (u8)value;
    return to;
}

void *memcpy(void *to, const void *from, unsigned long count)
{
    for (u8 *at = to; count--; at++, from = (const u8 *)from + 1)
        *at = *(const u8 *)from;
    return to;
}

static unsigned length(const char *text)
{
    unsigned count = 0;

    while (text[count])
        count++;
    return count;
}

static int begins(const char *text, const char *start)
{
    while (*start && *text == *start)
        text++, start++;
    return !*start;
}

/* Text that can be appended to until it is full. */
struct text {
    char bytes[512];
    unsigned length;
};

static void add(struct text *text, const char *more)
{
    while (*more && text->length < sizeof text->bytes - 1)
        text->bytes[text->length++] = *more++;
    text->bytes[text->length] = 0;
}

static void add_number(struct text *text, unsigned long number)
{
    char digits[24];
    unsigned at = sizeof digits;

    digits[--at] = 0;
    do
        digits[--at] = (char)('0' + number % 10);
    while (number /= 10);
    add(text, digits + at);
}

/* /dev/kmsg, or else the console. */
static long kmsg = -1;

static void print(const struct text *line)
{
    struct text record = { .length = 0 };

    /* The level of a notice, which `loglevel=7` prints. */
    if (kmsg >= 0)
        add(&record, "<5>");
    add(&record, "kcompile: ");
    add(&record, line->bytes);
    add(&record, "\n");
    CALL(write, kmsg >= 0 ? kmsg : 1, record.bytes, record.length, 0, 0, 0);
}

static void print_text(const char *text)
{
    struct text line = { .length = 0 };

    add(&line, text);
    print(&line);
}

static long open_at(const char *path, int flags)
{
    return CALL(openat, AT_FDCWD, path, flags, 0600, 0, 0);
}

static void make_dir(const char *path)
{
    CALL(mkdirat, AT_FDCWD, path, 0755, 0, 0, 0);
}

static long mount_at(const char *type, const char *place, const char *options)
{
    return CALL(mount, "kcompile", place, type, 0, options, 0);
}

static long read_file(const char *path, char *into, unsigned size)
{
    long file = open_at(path, O_RDONLY);
    long got;

    if (file < 0)
        return file;
    got = CALL(read, file, into, size - 1, 0, 0, 0);
    CALL(close, file, 0, 0, 0, 0, 0);
    into[got > 0 ? got : 0] = 0;
    return got;
}

/* The first name in a directory that begins with `start`: 0, or -ENOENT. */
static long find_name(const char *dir, const char *start, struct text *name)
{
    /* struct linux_dirent64: a name at 19, the length of the record at 16. */
    char entries[2048] __attribute__((aligned(8)));
    long file = open_at(dir, O_RDONLY), got, result = -ENOENT;

    if (file < 0)
        return file;
    while (result < 0 && (got = CALL(getdents64, file, entries, sizeof entries, 0, 0, 0)) > 0) {
        for (long at = 0; at < got && result < 0; at += *(u16 *)(entries + at + 16)) {
            const char *found = entries + at + 19;

            if (*found != '.' && begins(found, start)) {
                add(name, found);
                result = 0;
            }
        }
    }
    CALL(close, file, 0, 0, 0, 0, 0);
    return result;
}
