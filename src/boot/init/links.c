/* --- Network links, which are a veth pair and a bridge. */

enum { RTM_NEWLINK = 16, IFLA_IFNAME = 3, IFLA_MASTER = 10, IFLA_LINKINFO = 18 };
enum { IFLA_INFO_KIND = 1, IFLA_INFO_DATA = 2, VETH_INFO_PEER = 1, IFF_UP = 1 };

/* struct ifinfomsg has the index at 4, flags at 8, and the mask of changes at 12. */
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

/* Sets an interface up, or adds it to a bridge. */
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

static long check_veth(struct text *text)
{
    long result = step(text, "new link", make_link("veth", "kcveth0", "kcveth1"));

    return result ? result : step(text, "up", change_link("kcveth0", IFF_UP, 0));
}

/* Runs after veth. One end of the pair becomes a port of the bridge, like that of a pod. */
static long check_bridge(struct text *text)
{
    long result = step(text, "new link", make_link("bridge", "kcbridge0", 0));

    if (!result && index_of("kcveth0") > 0)
        result = step(text, "a veth as its port", change_link("kcveth0", 0, "kcbridge0"));
    return result ? result : step(text, "up", change_link("kcbridge0", IFF_UP, 0));
}
