/* --- iptables. Reads and replaces the whole filter table, by socket options of IPv4. */

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

static long check_iptables(struct text *text)
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
    /* A rule that accepts TCP in INPUT, then the policy of each chain, and the end. */
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
