/*
 * Bulk between two processes over libfabric's tcp provider: one message of all bytes against a short message and a one-sided read by the
 * receiver (docs/performance.md, "Bulk between nodes").  Build and run by hand:
 *
 *     cc -O2 -Wall -o target/programs/rma tools/programs/rma.c -lfabric && target/programs/rma
 */
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <rdma/fi_rma.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST = 4 << 20, ROUNDS = 300 };

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

/* Takes the bytes of each round and answers. */
static void receiver(struct side *side, int one_sided, uint64_t bytes)
{
    static struct note note;
    for (int i = 0; i < ROUNDS; i++) {
        if (one_sided) {
            TRY(fi_recv(side->ep, &note, sizeof note, NULL, 0, NULL));
            await(side, 1);
            TRY(fi_read(side->ep, side->memory, note.bytes, fi_mr_desc(side->mr), 0, note.address, note.key, NULL));
            await(side, 1);
        } else {
            TRY(fi_recv(side->ep, side->memory, bytes, fi_mr_desc(side->mr), 0, NULL));
            await(side, 1);
        }
        TRY(fi_send(side->ep, &note, 8, NULL, 0, NULL));
        await(side, 1);
    }
}

/* The mean time of a round, in microseconds. */
static double sender(struct side *side, int one_sided, uint64_t bytes)
{
    static char answer[8];
    struct note note = {bytes, side->base, fi_mr_key(side->mr)};
    double began = now_us();
    for (int i = 0; i < ROUNDS; i++) {
        TRY(fi_recv(side->ep, answer, sizeof answer, NULL, 0, NULL));
        if (one_sided)
            TRY(fi_send(side->ep, &note, sizeof note, NULL, 0, NULL));
        else
            TRY(fi_send(side->ep, side->memory, bytes, fi_mr_desc(side->mr), 0, NULL));
        await(side, 2);
    }
    return (now_us() - began) / ROUNDS;
}

int main(void)
{
    static const uint64_t sizes[] = {4 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20};
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct side side = {0};
    struct fi_eq_attr eq_attr = {.wait_obj = FI_WAIT_UNSPEC};
    struct fi_eq_cm_entry entry;
    struct fid_pep *pep;
    struct fi_info *info = info_of(&address, 1);
    size_t length = sizeof address;
    int ports[2];
    if (pipe(ports) != 0)
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
        printf("%10s %14s %14s   us a round: all bytes, and an answer\n", "bytes", "a message", "one-sided");
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            double message = sender(&side, 0, sizes[i]);
            printf("%10lu %14.1f %14.1f\n", (unsigned long)sizes[i], message, sender(&side, 1, sizes[i]));
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
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int one_sided = 0; one_sided < 2; one_sided++)
            receiver(&side, one_sided, sizes[i]);
    return waitpid(child, NULL, 0) == child ? 0 : 1;
}
