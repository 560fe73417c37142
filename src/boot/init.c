/*
 * The first process of a kernel on trial: says that it runs, loads every module of the order it is
 * given, tries what a Kubernetes node needs of a kernel, and ends the machine.
 *
 * It stands alone: no C library, no headers, so that any gcc or clang of the host can compile it for
 * x86-64 and arm64. Numbers of the kernel's interface stand here under its own names, from
 * include/uapi/ of the kernel.
 *
 * What it has to say goes to /dev/kmsg, a record a line: written to the console itself, it would be
 * torn apart by what the kernel prints there at the same time. Every line begins with "kcompile: ":
 *
 *   init                        it runs; the kernel's own clock stands before the line
 *   release 6.1.7               as uname(2) has it
 *   load 3 PATH                 module 3 of the order is being loaded
 *   loaded 3 ERRNO              what came of it
 *   check NAME ERRNO TEXT       a trial; the step that failed, or what was found
 *   end                         all is done
 */

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

__asm__(".globl _start\n_start: xor %ebp, %ebp\n and $-16, %rsp\n call trial\n");
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

__asm__(".globl _start\n_start: mov x29, #0\n bl trial\n");
#else
#error "neither x86-64 nor arm64"
#endif

#define CALL(name, a, b, c, d, e, f) \
    call(SYS_##name, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))

enum { ENOENT = 2, ENODEV = 19, EPROTO = 71 };
enum { O_RDONLY = 0, O_WRONLY = 1, O_RDWR = 2, O_CREAT = 0100, AT_FDCWD = -100 };

/* The compiler calls these by itself. */
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

/* Text that grows at its end, and stops growing when it is full. */
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

/* /dev/kmsg, or the console where that is not to be had. */
static long kmsg = -1;

static void say(const struct text *line)
{
    struct text record = { .length = 0 };

    /* The level of a notice, which `loglevel=7` lets through. */
    if (kmsg >= 0)
        add(&record, "<5>");
    add(&record, "kcompile: ");
    add(&record, line->bytes);
    add(&record, "\n");
    CALL(write, kmsg >= 0 ? kmsg : 1, record.bytes, record.length, 0, 0, 0);
}

static void say_text(const char *text)
{
    struct text line = { .length = 0 };

    add(&line, text);
    say(&line);
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

/* --- Modules: the order is a file with a path a line; what a module needs stands before it. */

static void load_module(unsigned number, const char *path)
{
    struct text line = { .length = 0 };
    long file, result;

    add(&line, "load ");
    add_number(&line, number);
    add(&line, " ");
    add(&line, path);
    say(&line);
    file = open_at(path, O_RDONLY);
    result = file < 0 ? file : CALL(finit_module, file, "", 0, 0, 0, 0);
    if (file >= 0)
        CALL(close, file, 0, 0, 0, 0, 0);
    line.length = 0;
    add(&line, "loaded ");
    add_number(&line, number);
    add(&line, " ");
    add_number(&line, (unsigned long)(result < 0 ? -result : 0));
    say(&line);
}

static void load_modules(void)
{
    long order = open_at("/order", O_RDONLY), got;
    unsigned number = 0, count = 0;
    char block[4096], path[512];

    if (order < 0)
        return;
    while ((got = CALL(read, order, block, sizeof block, 0, 0, 0)) > 0) {
        for (long at = 0; at < got; at++) {
            if (block[at] != '\n') {
                if (count < sizeof path - 1)
                    path[count++] = block[at];
                continue;
            }
            path[count] = 0;
            count = 0;
            load_module(number++, path);
        }
    }
    CALL(close, order, 0, 0, 0, 0, 0);
}

/* --- Trials: each returns 0 or a negative errno, and says in `text` at which step or what it found. */

static long step(struct text *text, const char *what, long result)
{
    if (result < 0) {
        text->length = 0;
        add(text, what);
    }
    return result < 0 ? result : 0;
}

static long try_cgroup2(struct text *text)
{
    char controllers[256];
    long result;

    make_dir("/tmp/cgroup");
    result = step(text, "mount", mount_at("cgroup2", "/tmp/cgroup", 0));
    if (!result)
        result = step(text, "cgroup.controllers",
                      read_file("/tmp/cgroup/cgroup.controllers", controllers, sizeof controllers));
    if (!result) {
        for (char *at = controllers; *at; at++)
            if (*at == '\n')
                *at = 0;
        add(text, controllers);
    }
    return result;
}

static long try_overlay(struct text *text)
{
    long result, file;

    make_dir("/tmp/lower");
    make_dir("/tmp/upper");
    make_dir("/tmp/work");
    make_dir("/tmp/merged");
    file = open_at("/tmp/lower/file", O_WRONLY | O_CREAT);
    CALL(close, file, 0, 0, 0, 0, 0);
    result = step(text, "mount",
                  mount_at("overlay", "/tmp/merged",
                           "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"));
    if (result)
        return result;
    /* A file of the lower layer that is written to must come up to the upper one. */
    file = open_at("/tmp/merged/file", O_RDWR);
    result = step(text, "write", file < 0 ? file : CALL(write, file, "x", 1, 0, 0, 0));
    if (!result)
        result = step(text, "copy up", open_at("/tmp/upper/file", O_RDONLY));
    return result;
}

static long try_namespaces(struct text *text)
{
    static const struct { const char *name; unsigned long flag; } all[] = {
        { "mount", 0x00020000 }, { "cgroup", 0x02000000 }, { "uts", 0x04000000 },
        { "ipc", 0x08000000 },   { "pid", 0x20000000 },    { "net", 0x40000000 },
    };
    long result = 0;

    for (unsigned i = 0; i < sizeof all / sizeof *all && !result; i++)
        result = step(text, all[i].name, CALL(unshare, all[i].flag, 0, 0, 0, 0, 0));
    return result;
}

static long try_config(struct text *text)
{
    char start[3];
    long result = step(text, "/proc/config.gz", read_file("/proc/config.gz", start, sizeof start));

    return !result && ((u8)start[0] != 0x1f || (u8)start[1] != 0x8b) ? -EPROTO : result;
}

/* --- Netlink: messages are built in a block; attributes nest. */

enum { AF_INET = 2, AF_NETLINK = 16, AF_VSOCK = 40, SOCK_STREAM = 1, SOCK_RAW = 3 };
enum { NETLINK_ROUTE = 0, NETLINK_NETFILTER = 12 };
enum { NLM_F_REQUEST = 1, NLM_F_ACK = 4, NLM_F_EXCL = 0x200, NLM_F_CREATE = 0x400, NLM_F_APPEND = 0x800 };

struct block {
    u8 bytes[1024] __attribute__((aligned(8)));
    unsigned length, messages;
};

/* The place of the message that was refused last. */
static u32 refused;

static void put(struct block *block, const void *bytes, unsigned count)
{
    memcpy(block->bytes + block->length, bytes, count);
    block->length += count;
    while (block->length % 4)
        block->bytes[block->length++] = 0;
}

/* struct nlmsghdr; the length is set at its end. Its sequence number is its place in the block. */
static unsigned begin_message(struct block *block, u16 type, u16 flags)
{
    unsigned start = block->length;
    u32 header[4] = { 0, (u32)type | (u32)(flags | NLM_F_REQUEST) << 16, block->messages++, 0 };

    put(block, header, sizeof header);
    return start;
}

static void end_message(struct block *block, unsigned start)
{
    *(u32 *)(block->bytes + start) = block->length - start;
}

/* struct nlattr, whose length does not count the padding. */
static void attribute(struct block *block, u16 type, const void *bytes, unsigned count)
{
    u16 header[2] = { (u16)(4 + count), type };

    put(block, header, sizeof header);
    put(block, bytes, count);
}

static void text_attribute(struct block *block, u16 type, const char *text)
{
    attribute(block, type, text, length(text) + 1);
}

static unsigned begin_nest(struct block *block, u16 type)
{
    unsigned start = block->length;

    attribute(block, type | 0x8000 /* NLA_F_NESTED */, 0, 0);
    return start;
}

static void end_nest(struct block *block, unsigned start)
{
    *(u16 *)(block->bytes + start) = (u16)(block->length - start);
}

/* Sends it, and waits for as many acknowledgements; the first that is none is the result. */
static long exchange(int protocol, const struct block *block, unsigned acknowledgements)
{
    /* struct sockaddr_nl of the kernel. */
    u32 kernel[3] = { AF_NETLINK, 0, 0 };
    long patience[2] = { 5, 0 };
    u8 answer[2048] __attribute__((aligned(8)));
    long file = CALL(socket, AF_NETLINK, SOCK_RAW, protocol, 0, 0, 0), got, result;

    if (file < 0)
        return file;
    /* SOL_SOCKET, SO_RCVTIMEO: a kernel that does not answer must not keep us. */
    CALL(setsockopt, file, 1, 20, patience, sizeof patience, 0);
    result = CALL(sendto, file, block->bytes, block->length, 0, kernel, sizeof kernel);
    while (result >= 0 && acknowledgements) {
        got = CALL(recvfrom, file, answer, sizeof answer, 0, 0, 0);
        if (got < 20)
            result = got < 0 ? got : -EPROTO;
        for (long at = 0; result >= 0 && at + 20 <= got; at += (*(u32 *)(answer + at) + 3) & ~3u) {
            if (*(u32 *)(answer + at) < 20)
                break;
            /* NLMSG_ERROR, with 0 for success. */
            if (*(u16 *)(answer + at + 4) == 2) {
                result = *(int *)(answer + at + 16);
                refused = *(u32 *)(answer + at + 8);
                acknowledgements -= acknowledgements > 0;
            }
        }
    }
    CALL(close, file, 0, 0, 0, 0, 0);
    return result < 0 ? result : 0;
}

enum { RTM_NEWLINK = 16, IFLA_IFNAME = 3, IFLA_MASTER = 10, IFLA_LINKINFO = 18 };
enum { IFLA_INFO_KIND = 1, IFLA_INFO_DATA = 2, VETH_INFO_PEER = 1, IFF_UP = 1 };

/* struct ifinfomsg: index at 4, flags at 8, which of them change at 12. */
static void put_link(struct block *block, u32 index, u32 flags)
{
    u32 link[4] = { 0, index, flags, flags };

    put(block, link, sizeof link);
}

static long make_link(const char *kind, const char *name, const char *peer)
{
    struct block block = { .length = 0 };
    unsigned message = begin_message(&block, RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL);
    unsigned info, data, of_peer;

    put_link(&block, 0, 0);
    text_attribute(&block, IFLA_IFNAME, name);
    info = begin_nest(&block, IFLA_LINKINFO);
    text_attribute(&block, IFLA_INFO_KIND, kind);
    if (peer) {
        data = begin_nest(&block, IFLA_INFO_DATA);
        of_peer = begin_nest(&block, VETH_INFO_PEER);
        put_link(&block, 0, 0);
        text_attribute(&block, IFLA_IFNAME, peer);
        end_nest(&block, of_peer);
        end_nest(&block, data);
    }
    end_nest(&block, info);
    end_message(&block, message);
    return exchange(NETLINK_ROUTE, &block, 1);
}

static long index_of(const char *name)
{
    struct text path = { .length = 0 };
    char digits[16];
    long index = 0, result;

    add(&path, "/sys/class/net/");
    add(&path, name);
    add(&path, "/ifindex");
    result = read_file(path.bytes, digits, sizeof digits);
    for (char *at = digits; result > 0 && *at >= '0' && *at <= '9'; at++)
        index = index * 10 + (*at - '0');
    return result < 0 ? result : index;
}

/* Puts an interface up, or into a bridge. */
static long change_link(const char *name, u32 flags, const char *master)
{
    struct block block = { .length = 0 };
    unsigned message = begin_message(&block, RTM_NEWLINK, NLM_F_ACK);
    long index = index_of(name), above = master ? index_of(master) : 0;
    u32 of_master = (u32)above;

    if (index < 0 || above < 0)
        return index < 0 ? index : above;
    put_link(&block, (u32)index, flags);
    if (master)
        attribute(&block, IFLA_MASTER, &of_master, sizeof of_master);
    end_message(&block, message);
    return exchange(NETLINK_ROUTE, &block, 1);
}

static long try_veth(struct text *text)
{
    long result = step(text, "new link", make_link("veth", "kcveth0", "kcveth1"));

    return result ? result : step(text, "up", change_link("kcveth0", IFF_UP, 0));
}

/* After veth: one end of the pair becomes a port of the bridge, as a pod's is. */
static long try_bridge(struct text *text)
{
    long result = step(text, "new link", make_link("bridge", "kcbridge0", 0));

    if (!result && index_of("kcveth0") > 0)
        result = step(text, "a veth as its port", change_link("kcveth0", 0, "kcbridge0"));
    return result ? result : step(text, "up", change_link("kcbridge0", IFF_UP, 0));
}

enum { NFPROTO_IPV4 = 2, NFNL_SUBSYS_NFTABLES = 10, NFT_MSG_NEWTABLE = 0, NFT_MSG_NEWCHAIN = 3, NFT_MSG_NEWRULE = 6 };

/* A message of nf_tables; its struct nfgenmsg holds the family and, big-endian, a subsystem. */
static unsigned begin_nft(struct block *block, u16 type, u16 flags)
{
    unsigned start = begin_message(block, (u16)(NFNL_SUBSYS_NFTABLES << 8 | type), (u16)(flags | NLM_F_ACK | NLM_F_CREATE));
    u8 family[4] = { NFPROTO_IPV4, 0, 0, 0 };

    put(block, family, sizeof family);
    return start;
}

static void batch_end(struct block *block, u16 type)
{
    unsigned start = begin_message(block, type, 0);
    u8 subsystem[4] = { 0, 0, 0, NFNL_SUBSYS_NFTABLES };

    put(block, subsystem, sizeof subsystem);
    end_message(block, start);
}

/* table ip kcompile { chain input { type filter hook input priority 0; counter; } } */
static long try_nftables(struct text *text)
{
    static const char *const steps[] = { "nf_tables", "a table", "a chain", "a rule with a counter" };
    static const u8 local_in[4] = { 0, 0, 0, 1 }, priority[4] = { 0, 0, 0, 0 };
    struct block block = { .length = 0 };
    unsigned message, hook, list, element;
    long result;

    batch_end(&block, 0x10 /* NFNL_MSG_BATCH_BEGIN */);
    message = begin_nft(&block, NFT_MSG_NEWTABLE, 0);
    text_attribute(&block, 1 /* NFTA_TABLE_NAME */, "kcompile");
    end_message(&block, message);

    message = begin_nft(&block, NFT_MSG_NEWCHAIN, 0);
    text_attribute(&block, 1 /* NFTA_CHAIN_TABLE */, "kcompile");
    text_attribute(&block, 3 /* NFTA_CHAIN_NAME */, "input");
    hook = begin_nest(&block, 4 /* NFTA_CHAIN_HOOK */);
    attribute(&block, 1 /* NFTA_HOOK_HOOKNUM */, local_in, sizeof local_in);
    attribute(&block, 2 /* NFTA_HOOK_PRIORITY */, priority, sizeof priority);
    end_nest(&block, hook);
    text_attribute(&block, 7 /* NFTA_CHAIN_TYPE */, "filter");
    end_message(&block, message);

    message = begin_nft(&block, NFT_MSG_NEWRULE, NLM_F_APPEND);
    text_attribute(&block, 1 /* NFTA_RULE_TABLE */, "kcompile");
    text_attribute(&block, 2 /* NFTA_RULE_CHAIN */, "input");
    list = begin_nest(&block, 4 /* NFTA_RULE_EXPRESSIONS */);
    element = begin_nest(&block, 1 /* NFTA_LIST_ELEM */);
    text_attribute(&block, 1 /* NFTA_EXPR_NAME */, "counter");
    end_nest(&block, element);
    end_nest(&block, list);
    end_message(&block, message);
    batch_end(&block, 0x11 /* NFNL_MSG_BATCH_END */);
    refused = 0;
    result = exchange(NETLINK_NETFILTER, &block, 3);
    return step(text, steps[refused < 4 ? refused : 0], result);
}

/* --- iptables: the filter table is read and replaced as a whole, by socket options of IPv4. */

enum { SOL_IP = 0, IPT_SO_GET_INFO = 64, IPT_SO_SET_REPLACE = 64 };
enum { INPUT = 1, FORWARD = 2, OUTPUT = 3 };

/* struct ipt_getinfo */
struct table_info {
    char name[32];
    u32 valid_hooks, hook_entry[5], underflow[5], num_entries, size;
};

/* struct ipt_entry and struct xt_standard_target */
struct rule {
    u32 source, destination, source_mask, destination_mask;
    char in_interface[16], out_interface[16], in_mask[16], out_mask[16];
    u16 protocol;
    u8 flags, inverted;
    u32 nfcache;
    u16 target_offset, next_offset;
    u32 comefrom;
    u64 counters[2];
    u16 target_size;
    char target[29];
    u8 revision;
    union {
        int verdict;
        char error_name[32];
    } end;
};

enum { ENTRY = 112, STANDARD = ENTRY + 40, ERROR = ENTRY + 64, RULES = 4, BLOB = RULES * STANDARD + ERROR };

/* struct ipt_replace */
struct table {
    char name[32];
    u32 valid_hooks, num_entries, size, hook_entry[5], underflow[5], num_counters;
    void *counters;
    u8 entries[BLOB];
};

static long try_iptables(struct text *text)
{
    static u64 old_counters[2 * 64];
    struct table_info info = { .name = "filter" };
    struct table table = { .name = "filter", .valid_hooks = 1 << INPUT | 1 << FORWARD | 1 << OUTPUT };
    u32 size = sizeof info;
    long file = CALL(socket, AF_INET, SOCK_RAW, 255 /* IPPROTO_RAW */, 0, 0, 0);
    long result = step(text, "socket", file);

    if (!result)
        result = step(text, "the table filter", CALL(getsockopt, file, SOL_IP, IPT_SO_GET_INFO, &info, &size, 0));
    if (!result && info.num_entries > 64)
        result = -EPROTO;
    if (result)
        return result;
    /* A rule for TCP to INPUT, which accepts; then the policy of each chain, and the end. */
    for (unsigned i = 0; i <= RULES; i++) {
        struct rule rule = { .target_offset = ENTRY, .next_offset = i < RULES ? STANDARD : ERROR };

        rule.protocol = i == 0 ? 6 : 0;
        rule.target_size = (u16)(rule.next_offset - ENTRY);
        if (i < RULES) {
            rule.end.verdict = -2; /* -NF_ACCEPT - 1 */
        } else {
            memcpy(rule.target, "ERROR", 5);
            memcpy(rule.end.error_name, "ERROR", 5);
        }
        memcpy(table.entries + i * STANDARD, &rule, rule.next_offset);
    }
    table.num_entries = RULES + 1;
    table.size = BLOB;
    table.hook_entry[INPUT] = 0;
    table.underflow[INPUT] = STANDARD;
    table.hook_entry[FORWARD] = table.underflow[FORWARD] = 2 * STANDARD;
    table.hook_entry[OUTPUT] = table.underflow[OUTPUT] = 3 * STANDARD;
    table.num_counters = info.num_entries;
    table.counters = old_counters;
    result = step(text, "a rule",
                  CALL(setsockopt, file, SOL_IP, IPT_SO_SET_REPLACE, &table,
                       (u8 *)table.entries - (u8 *)&table + BLOB, 0));
    if (!result)
        result = step(text, "the table again", CALL(getsockopt, file, SOL_IP, IPT_SO_GET_INFO, &info, &size, 0));
    return result || info.num_entries == RULES + 1 ? result : -EPROTO;
}

/* --- Devices: a virtio device that its driver has taken. */

static long find_device(const char *driver, struct text *path)
{
    add(path, "/sys/bus/virtio/drivers/");
    add(path, driver);
    add(path, "/");
    /* The directory of a driver that this kernel does not have is not there. */
    return find_name(path->bytes, "virtio", path) < 0 ? -ENODEV : 0;
}

static long try_block(struct text *text)
{
    struct text path = { .length = 0 };
    char sector[513];
    long result = step(text, "no device has the driver virtio_blk", find_device("virtio_blk", &path));

    return result ? result : step(text, "read /dev/vda", read_file("/dev/vda", sector, sizeof sector));
}

static long try_network(struct text *text)
{
    struct text path = { .length = 0 }, name = { .length = 0 };
    long result = step(text, "no device has the driver virtio_net", find_device("virtio_net", &path));

    if (result)
        return result;
    add(&path, "/net/");
    result = step(text, "its interface", find_name(path.bytes, "", &name));
    if (!result)
        result = step(text, "up", change_link(name.bytes, IFF_UP, 0));
    if (!result)
        add(text, name.bytes);
    return result;
}

static long try_vsock(struct text *text)
{
    struct text path = { .length = 0 };
    long result = step(text, "socket", CALL(socket, AF_VSOCK, SOCK_STREAM, 0, 0, 0, 0));

    if (!result)
        result = step(text, "/dev/vsock", open_at("/dev/vsock", O_RDONLY));
    if (result)
        return result;
    /* The machine may have no such device; the driver has a directory all the same. */
    add(text, find_device("vmw_vsock_virtio_transport", &path) ? "no device" : "device");
    return step(text, "no driver vmw_vsock_virtio_transport",
                open_at("/sys/bus/virtio/drivers/vmw_vsock_virtio_transport", O_RDONLY));
}

static const struct {
    const char *name;
    long (*of)(struct text *text);
} trials[] = {
    { "block", try_block },       { "network", try_network }, { "vsock", try_vsock },
    { "config", try_config },     { "cgroup2", try_cgroup2 }, { "overlay", try_overlay },
    { "veth", try_veth },         { "bridge", try_bridge },   { "nftables", try_nftables },
    { "iptables", try_iptables },
    /* The last, since nothing after it is where it was. */
    { "namespaces", try_namespaces },
};

static void run_trials(void)
{
    for (unsigned i = 0; i < sizeof trials / sizeof *trials; i++) {
        struct text line = { .length = 0 }, found = { .length = 0 };
        long result = trials[i].of(&found);

        add(&line, "check ");
        add(&line, trials[i].name);
        add(&line, " ");
        add_number(&line, (unsigned long)(result < 0 ? -result : 0));
        add(&line, " ");
        add(&line, found.bytes);
        say(&line);
    }
}

static void say_release(void)
{
    /* struct utsname: six texts of 65 bytes; the release is the third. */
    char names[6][65];
    struct text line = { .length = 0 };

    CALL(uname, names, 0, 0, 0, 0, 0);
    add(&line, "release ");
    add(&line, names[2]);
    say(&line);
}

__attribute__((noreturn, used)) void trial(void)
{
    long second[2] = { 1, 0 };

    mount_at("proc", "/proc", 0);
    mount_at("sysfs", "/sys", 0);
    mount_at("tmpfs", "/tmp", 0);
    if (mount_at("devtmpfs", "/dev", 0) < 0)
        CALL(mknodat, AT_FDCWD, "/dev/kmsg", 020644, 1 << 8 | 11, 0, 0);
    kmsg = open_at("/dev/kmsg", O_WRONLY);

    say_text("init");
    say_release();
    load_modules();
    run_trials();
    say_text("end");
    /* LINUX_REBOOT_CMD_RESTART: on every machine it ends the emulator, which is told not to reboot. */
    CALL(reboot, 0xfee1dead, 672274793, 0x01234567, 0, 0, 0);
    for (;;)
        CALL(nanosleep, second, 0, 0, 0, 0, 0);
}
