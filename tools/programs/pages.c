/*
 * What the first touch of memory costs, and what does not make it cheaper: docs/performance.md, "Pages".  Build and run by hand:
 *
 *     cc -O2 -o target/programs/pages tools/programs/pages.c && target/programs/pages
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22
#define MADV_POPULATE_WRITE 23
#endif

enum { PAGE = 4096, KIB64 = 64 << 10, KIB256 = 256 << 10, MIB = 1 << 20 };
static const size_t bytes = 256 * (size_t)MIB;
static char source[MIB];

static double cpu_ns(void)
{
    struct timespec time;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
    return time.tv_sec * 1e9 + time.tv_nsec;
}

static char *fresh(int *file)
{
    *file = memfd_create("pages", 0);
    if (*file < 0 || ftruncate(*file, bytes) != 0)
        exit(1);
    char *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, *file, 0);
    if (at == MAP_FAILED)
        exit(1);
    return at;
}

static void copy(char *to, size_t count)
{
    for (size_t at = 0; at < count; at += PAGE)
        memcpy(to + at, source, PAGE);
}

static void take(int file)
{
    for (size_t at = 0; at < bytes; at += MIB)
        if (fallocate(file, 0, at, MIB) != 0)
            exit(1);
}

static double said(const char *what, double began)
{
    printf("%-70s %6.0f ns a page\n", what, (cpu_ns() - began) / (bytes / PAGE));
    return cpu_ns();
}

static void over(char *at, int file)
{
    munmap(at, bytes);
    close(file);
}

int main(void)
{
    int file;
    volatile char seen = 0;
    memset(source, 1, sizeof source);
    char *at = fresh(&file);
    double began = cpu_ns();
    copy(at, bytes);
    began = said("copy into fresh pages", began);
    copy(at, bytes);
    said("copy into pages used before", began);
    over(at, file);

    at = fresh(&file);
    began = cpu_ns();
    for (size_t part = 0; part < bytes; part += KIB256) {
        if (madvise(at + part, KIB256, MADV_POPULATE_WRITE) != 0)
            return puts("no MADV_POPULATE_WRITE here"), 0;
        copy(at + part, KIB256);
    }
    said("MADV_POPULATE_WRITE of 256 KiB and copy", began);
    over(at, file);

    at = fresh(&file);
    began = cpu_ns();
    take(file);
    began = said("fallocate", began);
    copy(at, bytes);
    said("copy after fallocate", began);
    over(at, file);

    at = fresh(&file);
    take(file);
    began = cpu_ns();
    for (size_t part = 0; part < bytes; part += KIB64) {
        seen += at[part];
        copy(at + part, KIB64);
    }
    said("copy after fallocate and a look at each 64 KiB", began);
    over(at, file);

    at = fresh(&file);
    began = cpu_ns();
    for (size_t part = 0; part < bytes; part += MIB)
        if (pwrite(file, source, MIB, part) != MIB)
            return 1;
    began = said("pwrite of 1 MiB", began);
    for (size_t part = 0; part < bytes; part += KIB64)
        seen += at[part];
    began = said("a look at each 64 KiB after pwrite", began);
    copy(at, bytes);
    began = said("copy after that", began);
    for (size_t part = 0; part < bytes; part += MIB)
        if (pwrite(file, source, MIB, part) != MIB)
            return 1;
    said("pwrite into used pages", began);
    over(at, file);

    at = fresh(&file);
    began = cpu_ns();
    for (size_t part = 0; part < bytes; part += PAGE)
        if (pwrite(file, source, PAGE, part) != PAGE)
            return 1;
    said("pwrite of 4 KiB", began);
    over(at, file);
    return seen == 77;
}
