/*
 * Bulk between two processes over libfabric's tcp provider: one message of all bytes against a short message and a one-sided read by the
 * receiver, and against one reliable datagram of tcp;ofi_rxm (docs/performance.md, "Bulk between nodes").  Build and run by hand:
 *
 *     cc -O2 -Wall -o target/programs/rma tools/programs/rma.c -lfabric && target/programs/rma
 */
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_rma.h>
#include <rdma/fi_tagged.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 4 << 20, ROUNDS = 300, MESSAGE, ONE_SIDED, DATAGRAM };

/* What the sender tells of its memory. */
struct note {
    uint64_t bytes, address, key;
};

struct side {
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_eq *eq;
    struct fid_cq *cq;
    struct fid_ep *ep;
    struct fid_mr *mr;
    char *memory;
    uint64_t base;
    /* Of datagrams: the own tag, and where the other side is. */
    struct fid_av *av;
    uint64_t tag;
    fi_addr_t peer;
    char name[FI_NAME_MAX];
};

static void check(long code, const char *what)
{
    if (code < 0) {
        fprintf(stderr, "rma: %s: %s\n", what, fi_strerror((int)-code));
        exit(1);
    }
}

static double now_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

static struct fi_info *info_of(struct sockaddr_in *address, int passive)
{
    struct fi_info *hints = fi_allocinfo(), *info;
    hints->ep_attr->type = FI_EP_MSG;
    hints->caps = FI_MSG | FI_RMA;
    hints->fabric_attr->prov_name = strdup("tcp");
    hints->domain_attr->mr_mode = FI_MR_LOCAL | FI_MR_ALLOCATED | FI_MR_VIRT_ADDR | FI_MR_PROV_KEY;
    hints->addr_format = FI_SOCKADDR_IN;
    if (passive) {
        hints->src_addr = memcpy(malloc(sizeof *address), address, sizeof *address);
        hints->src_addrlen = sizeof *address;
    } else {
        hints->dest_addr = memcpy(malloc(sizeof *address), address, sizeof *address);
        hints->dest_addrlen = sizeof *address;
    }
    check(fi_getinfo(FI_VERSION(1, 11), NULL, NULL, 0, hints, &info), "fi_getinfo");
    fi_freeinfo(hints);
    return info;
}

static void open_side(struct side *side, struct fi_info *info)
{
    struct fi_cq_attr attr = {.format = FI_CQ_FORMAT_MSG, .wait_obj = FI_WAIT_NONE};
    check(fi_domain(side->fabric, info, &side->domain, NULL), "fi_domain");
    check(fi_cq_open(side->domain, &attr, &side->cq, NULL), "fi_cq_open");
    check(fi_endpoint(side->domain, info, &side->ep, NULL), "fi_endpoint");
    check(fi_ep_bind(side->ep, &side->eq->fid, 0), "bind eq");
    check(fi_ep_bind(side->ep, &side->cq->fid, FI_SEND | FI_RECV), "bind cq");
    check(fi_enable(side->ep), "fi_enable");
    side->memory = aligned_alloc(4096, MOST);
    memset(side->memory, 1, MOST);
    check(fi_mr_reg(side->domain, side->memory, MOST, FI_SEND | FI_RECV | FI_READ | FI_REMOTE_READ, 0, 7, 0, &side->mr, NULL),
          "fi_mr_reg");
    side->base = info->domain_attr->mr_mode & FI_MR_VIRT_ADDR ? (uint64_t)side->memory : 0;
}

static void await_event(struct fid_eq *eq, uint32_t wanted, struct fi_eq_cm_entry *entry)
{
    uint32_t event = 0;
    check(fi_eq_sread(eq, &event, entry, sizeof *entry, 10000, 0), "fi_eq_sread");
    if (event != wanted)
        exit(1);
}

/* Waits for so many completions. */
static void await(struct side *side, int count)
{
    struct fi_cq_msg_entry entry;
    while (count > 0) {
        ssize_t found = fi_cq_read(side->cq, &entry, 1);
        if (found == 1)
            count--;
        else if (found != -FI_EAGAIN)
            check(found, "fi_cq_read");
    }
}

#define TRY(call) while ((call) == -FI_EAGAIN) fi_cq_read(side->cq, NULL, 0)

/* An endpoint of datagrams, whose large messages go as the small ones do. */
static void open_datagrams(struct side *side, uint64_t tag)
{
    struct fi_info *hints = fi_allocinfo(), *info;
    struct fi_av_attr av = {.type = FI_AV_UNSPEC};
    struct fi_cq_attr cq = {.format = FI_CQ_FORMAT_MSG, .wait_obj = FI_WAIT_NONE};
    size_t length = sizeof side->name;
    setenv("FI_OFI_RXM_EAGER_LIMIT", "4194304", 1);
    hints->ep_attr->type = FI_EP_RDM;
    hints->caps = FI_TAGGED;
    hints->fabric_attr->prov_name = strdup("tcp;ofi_rxm");
    hints->tx_attr->msg_order = hints->rx_attr->msg_order = FI_ORDER_SAS;
    check(fi_getinfo(FI_VERSION(1, 11), "127.0.0.1", NULL, FI_SOURCE, hints, &info), "fi_getinfo of datagrams");
    check(fi_fabric(info->fabric_attr, &side->fabric, NULL), "fi_fabric");
    check(fi_domain(side->fabric, info, &side->domain, NULL), "fi_domain");
    check(fi_av_open(side->domain, &av, &side->av, NULL), "fi_av_open");
    check(fi_cq_open(side->domain, &cq, &side->cq, NULL), "fi_cq_open");
    check(fi_endpoint(side->domain, info, &side->ep, NULL), "fi_endpoint");
    check(fi_ep_bind(side->ep, &side->av->fid, 0), "bind av");
    check(fi_ep_bind(side->ep, &side->cq->fid, FI_SEND | FI_RECV), "bind cq");
    check(fi_enable(side->ep), "fi_enable");
    check(fi_getname(&side->ep->fid, side->name, &length), "fi_getname");
    side->memory = aligned_alloc(4096, MOST);
    memset(side->memory, 1, MOST);
    side->tag = tag;
}

static void post(struct side *side, int way, void *memory, uint64_t bytes)
{
    if (way == DATAGRAM)
        TRY(fi_trecv(side->ep, memory, bytes, NULL, FI_ADDR_UNSPEC, side->tag, 0, NULL));
    else
        TRY(fi_recv(side->ep, memory, bytes, side->mr ? fi_mr_desc(side->mr) : NULL, 0, NULL));
}

static void give(struct side *side, int way, const void *memory, uint64_t bytes)
{
    if (way == DATAGRAM)
        TRY(fi_tsend(side->ep, memory, bytes, NULL, side->peer, side->tag ^ 1, NULL));
    else
        TRY(fi_send(side->ep, memory, bytes, fi_mr_desc(side->mr), 0, NULL));
}

/* Takes the bytes of each round and answers. */
static void receiver(struct side *side, int way, uint64_t bytes)
{
    static struct note note;
    for (int i = 0; i < ROUNDS; i++) {
        if (way == ONE_SIDED) {
            post(side, way, &note, sizeof note);
            await(side, 1);
            TRY(fi_read(side->ep, side->memory, note.bytes, fi_mr_desc(side->mr), 0, note.address, note.key, NULL));
        } else {
            post(side, way, side->memory, bytes);
        }
        await(side, 1);
        give(side, way, &note, 8);
        await(side, 1);
    }
}

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The median time of a round, in microseconds. */
static double sender(struct side *side, int way, uint64_t bytes)
{
    static char answer[8];
    static double took[ROUNDS];
    struct note note = {bytes, side->base, side->mr ? fi_mr_key(side->mr) : 0};
    for (int i = 0; i < ROUNDS; i++) {
        double began = now_us();
        post(side, way, answer, sizeof answer);
        if (way == ONE_SIDED)
            give(side, way, &note, sizeof note);
        else
            give(side, way, side->memory, bytes);
        await(side, 2);
        took[i] = now_us() - began;
    }
    qsort(took, ROUNDS, sizeof *took, compare);
    return took[ROUNDS / 2];
}

/* Tells the other side where we are, and learns where it is. */
static void meet(struct side *side, int out, int in)
{
    char name[FI_NAME_MAX];
    if (write(out, side->name, sizeof side->name) != sizeof side->name || read(in, name, sizeof name) != sizeof name)
        exit(1);
    check(fi_av_insert(side->av, name, 1, &side->peer, 0, NULL), "fi_av_insert");
}

int main(void)
{
    static const uint64_t sizes[] = {4 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct side side = {0}, datagrams = {0};
    struct fi_eq_attr eq_attr = {.wait_obj = FI_WAIT_UNSPEC};
    struct fi_eq_cm_entry entry;
    struct fid_pep *pep;
    struct fi_info *info = info_of(&address, 1);
    size_t length = sizeof address;
    int ports[2], back[2];
    if (pipe(ports) != 0 || pipe(back) != 0)
        return 1;
    pid_t child = fork();
    if (child == 0) {
        if (read(ports[0], &address, sizeof address) != sizeof address)
            return 1;
        info = info_of(&address, 0);
        check(fi_fabric(info->fabric_attr, &side.fabric, NULL), "fi_fabric");
        check(fi_eq_open(side.fabric, &eq_attr, &side.eq, NULL), "fi_eq_open");
        open_side(&side, info);
        check(fi_connect(side.ep, info->dest_addr, NULL, 0), "fi_connect");
        await_event(side.eq, FI_CONNECTED, &entry);
        open_datagrams(&datagrams, 2);
        meet(&datagrams, back[1], ports[0]);
        printf("%10s %14s %14s %14s   us a round: all bytes, and an answer\n", "bytes", "a message", "one-sided", "a datagram");
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            double message = sender(&side, MESSAGE, sizes[i]), one_sided = sender(&side, ONE_SIDED, sizes[i]);
            double datagram = sender(&datagrams, DATAGRAM, sizes[i]);
            printf("%10lu %14.1f %14.1f %14.1f\n", (unsigned long)sizes[i], message, one_sided, datagram);
        }
        fflush(stdout);
        _exit(0);
    }
    check(fi_fabric(info->fabric_attr, &side.fabric, NULL), "fi_fabric");
    check(fi_eq_open(side.fabric, &eq_attr, &side.eq, NULL), "fi_eq_open");
    check(fi_passive_ep(side.fabric, info, &pep, NULL), "fi_passive_ep");
    check(fi_pep_bind(pep, &side.eq->fid, 0), "fi_pep_bind");
    check(fi_listen(pep), "fi_listen");
    check(fi_getname(&pep->fid, &address, &length), "fi_getname");
    if (write(ports[1], &address, sizeof address) != sizeof address)
        return 1;
    await_event(side.eq, FI_CONNREQ, &entry);
    open_side(&side, entry.info);
    check(fi_accept(side.ep, NULL, 0), "fi_accept");
    await_event(side.eq, FI_CONNECTED, &entry);
    open_datagrams(&datagrams, 3);
    meet(&datagrams, ports[1], back[0]);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        receiver(&side, MESSAGE, sizes[i]);
        receiver(&side, ONE_SIDED, sizes[i]);
        receiver(&datagrams, DATAGRAM, sizes[i]);
    }
    return waitpid(child, NULL, 0) == child ? 0 : 1;
}
