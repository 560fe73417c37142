/* --- Netlink. Messages are built in a block, and attributes nest. */

enum { AF_INET = 2, AF_NETLINK = 16, AF_VSOCK = 40, SOCK_STREAM = 1, SOCK_RAW = 3 };
enum { NETLINK_ROUTE = 0, NETLINK_NETFILTER = 12 };
enum { NLM_F_REQUEST = 1, NLM_F_ACK = 4, NLM_F_EXCL = 0x200, NLM_F_CREATE = 0x400, NLM_F_APPEND = 0x800 };

struct block {
    u8 bytes[1024] __attribute__((aligned(8)));
    unsigned length, messages;
};

/* The index of the message that was refused last. */
static u32 refused;

static void put(struct block *block, const void *bytes, unsigned count)
{
    memcpy(block->bytes + block->length, bytes, count);
    block->length += count;
    while (block->length % 4)
        block->bytes[block->length++] = 0;
}

/* struct nlmsghdr. The length is set later. The sequence number is the index in the block. */
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

/* Sends the block and waits for an acknowledgement of each message. Returns the first error. */
static long exchange(int protocol, const struct block *block, unsigned acknowledgements)
{
    /* struct sockaddr_nl with the address of the kernel. */
    u32 kernel[3] = { AF_NETLINK, 0, 0 };
    long patience[2] = { 5, 0 };
    u8 answer[2048] __attribute__((aligned(8)));
    long file = CALL(socket, AF_NETLINK, SOCK_RAW, protocol, 0, 0, 0), got, result;

    if (file < 0)
        return file;
    /* SOL_SOCKET, SO_RCVTIMEO, in case the kernel does not answer. */
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
