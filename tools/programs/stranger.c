/*
 * What somebody who does not know a system's secret gets from its sockets: nothing.
 *
 *   stranger unix PATH              an end without a word, or no connection at all
 *   stranger tcp HOST PORT          the same
 *   stranger libfabric HOST PORT    libfabric's bare refusal, by a raw client of its tcp provider
 *
 * Prints what it got. Exit status: 0 refused, 1 something was told or accepted, 2 wrong usage, 3 it could not even ask.
 */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <rdma/fabric.h>
#include <rdma/fi_cm.h>
#include <rdma/fi_domain.h>
#include <rdma/fi_endpoint.h>
#include <rdma/fi_eq.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define PATIENCE_MS 20000
#define HELLO_BYTES 104

/* As much of a hello as a stranger can make: the right magic and version, and no proof. */
static void hello(unsigned char *bytes)
{
    memset(bytes, 0, HELLO_BYTES);
    memcpy(bytes, "TALEAFAB", 8);
    bytes[8] = 1;
}

/* Says hello and counts what comes back until the other side closes. */
static int listen_to(int fd, const char *what)
{
    unsigned char bytes[4096];
    struct pollfd ready = {.fd = fd, .events = POLLIN};
    long got = 0;
    hello(bytes);
    (void)!send(fd, bytes, HELLO_BYTES, MSG_NOSIGNAL);
    for (;;) {
        if (poll(&ready, 1, PATIENCE_MS) <= 0) {
            printf("%s: neither a word nor an end\n", what);
            return 1;
        }
        ssize_t n = recv(fd, bytes, sizeof bytes, 0);
        if (n <= 0)
            break;
        got += n;
    }
    printf("%s: closed after %ld bytes\n", what, got);
    return got != 0;
}

static int by_unix(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || strlen(path) >= sizeof address.sun_path)
        return 3;
    strcpy(address.sun_path, path);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) {
        printf("%s: %s\n", path, strerror(errno));
        return errno == EACCES ? 0 : 3;
    }
    return listen_to(fd, path);
}

static int by_tcp(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(host, port, &hints, &found) != 0)
        return 3;
    int fd = socket(found->ai_family, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) != 0) {
        printf("%s:%s: %s\n", host, port, strerror(errno));
        return 3;
    }
    return listen_to(fd, port);
}

#define MUST(call)                                                     \
    do {                                                               \
        int code_ = (int)(call);                                       \
        if (code_ != 0) {                                              \
            printf("%s: %s\n", #call, fi_strerror(-code_));            \
            return 3;                                                  \
        }                                                              \
    } while (0)

static int by_libfabric(const char *host, const char *port)
{
    struct fi_info *hints = fi_allocinfo(), *info;
    struct fid_fabric *fabric;
    struct fid_domain *domain;
    struct fid_eq *eq;
    struct fid_cq *cq;
    struct fid_ep *ep;
    struct fi_eq_attr eq_attr = {.wait_obj = FI_WAIT_UNSPEC};
    struct fi_cq_attr cq_attr = {.format = FI_CQ_FORMAT_MSG};
    struct fi_eq_err_entry error = {0};
    unsigned char param[HELLO_BYTES], event[1024];
    uint32_t kind;
    hints->caps = FI_MSG;
    hints->ep_attr->type = FI_EP_MSG;
    hints->fabric_attr->prov_name = strdup("tcp");
    MUST(fi_getinfo(FI_VERSION(1, 17), host, port, 0, hints, &info));
    MUST(fi_fabric(info->fabric_attr, &fabric, NULL));
    MUST(fi_eq_open(fabric, &eq_attr, &eq, NULL));
    MUST(fi_domain(fabric, info, &domain, NULL));
    MUST(fi_cq_open(domain, &cq_attr, &cq, NULL));
    MUST(fi_endpoint(domain, info, &ep, NULL));
    MUST(fi_ep_bind(ep, &eq->fid, 0));
    MUST(fi_ep_bind(ep, &cq->fid, FI_TRANSMIT | FI_RECV));
    MUST(fi_enable(ep));
    hello(param);
    MUST(fi_connect(ep, info->dest_addr, param, sizeof param));
    ssize_t got = fi_eq_sread(eq, &kind, event, sizeof event, PATIENCE_MS, 0);
    if (got >= 0) {
        printf("%s: event %u instead of a refusal\n", port, kind);
        return 1;
    }
    if (got != -FI_EAVAIL || fi_eq_readerr(eq, &error, 0) < 0) {
        printf("%s: no answer: %s\n", port, fi_strerror((int)-got));
        return 1;
    }
    const unsigned char *told = error.err_data;
    for (size_t i = 0; i < error.err_data_size; i++)
        if (told[i] != 0) {
            printf("%s: the refusal tells something\n", port);
            return 1;
        }
    printf("%s: %s\n", port, fi_strerror(error.err));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "unix") == 0)
        return by_unix(argv[2]);
    if (argc == 4 && strcmp(argv[1], "tcp") == 0)
        return by_tcp(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "libfabric") == 0)
        return by_libfabric(argv[2], argv[3]);
    fprintf(stderr, "usage: stranger unix PATH | tcp HOST PORT | libfabric HOST PORT\n");
    return 2;
}
