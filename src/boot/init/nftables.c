/* --- nftables. Adds a table, a chain and a rule in one batch. */

enum { NFPROTO_IPV4 = 2, NFNL_SUBSYS_NFTABLES = 10, NFT_MSG_NEWTABLE = 0, NFT_MSG_NEWCHAIN = 3, NFT_MSG_NEWRULE = 6 };

/* A message of nf_tables. Its struct nfgenmsg has the family and, big-endian, a subsystem. */
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
static long check_nftables(struct text *text)
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
