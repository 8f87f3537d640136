/*
 * A preload for the test suites of others: sends the files that they open through MPI to /talea/, and notes that it did.
 *
 * The suites open plain names in their working directory, or names of mkstemp().  Each becomes $TALEA_REDIRECT plus the name's
 * last part; a name below /talea/ stays as it is.  A file that a suite has made with POSIX calls is copied to /talea/ when MPI
 * finds none of its name there; one that it reads with stdio, or unlinks, is copied out or deleted.  The preload stands in front of the driver, as Darshan would: with a driver that it could
 * bypass, no suite would find its files.  One line for each open, also a failing one, goes to $TALEA_REDIRECT_LOG.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mpi.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The next definition of a function, of the type of the one that asks. */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int redirected(const char *name)
{
    const char *to = getenv("TALEA_REDIRECT");
    return to && *to && name && *name && strncmp(name, "/talea/", 7) != 0 && strncmp(name, "talea:", 6) != 0;
}

/* The name to use in place of `name`; `space` holds it where it is another one. */
static const char *place(const char *name, char space[PATH_MAX])
{
    if (!redirected(name))
        return name;
    const char *last = strrchr(name, '/');
    snprintf(space, PATH_MAX, "%s%s", getenv("TALEA_REDIRECT"), last ? last + 1 : name);
    return space;
}

static void note(const char *name)
{
    const char *log = getenv("TALEA_REDIRECT_LOG");
    if (!log || strncmp(name, "/talea/", 7) != 0)
        return;
    int fd = open(log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    char line[PATH_MAX + 1];
    int bytes = snprintf(line, sizeof line, "%s\n", name);
    if (write(fd, line, bytes) != bytes)
        perror("redirect");
    close(fd);
}

/* Copies the local file `name` to `to`. */
static void imported(const char *name, const char *to)
{
    char block[1 << 16];
    MPI_File file;
    ssize_t got;
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (NEXT(MPI_File_open)(MPI_COMM_SELF, to, MPI_MODE_CREATE | MPI_MODE_WRONLY, MPI_INFO_NULL, &file) == MPI_SUCCESS) {
        while ((got = read(fd, block, sizeof block)) > 0)
            MPI_File_write(file, block, got, MPI_BYTE, MPI_STATUS_IGNORE);
        MPI_File_close(&file);
    }
    close(fd);
}

int MPI_File_open(MPI_Comm comm, const char *name, int amode, MPI_Info info, MPI_File *file)
{
    char space[PATH_MAX];
    const char *to = place(name, space);
    struct stat status;
    /* All ranks of a suite run on one node and see the same files. */
    if (to != name && !(amode & MPI_MODE_CREATE) && stat(name, &status) == 0 && status.st_size > 0) {
        int rank = 0;
        MPI_Comm_rank(comm, &rank);
        if (rank == 0)
            imported(name, to);
        MPI_Barrier(comm);
    }
    note(to);
    return NEXT(MPI_File_open)(comm, to, amode, info, file);
}

int PMPI_File_open(MPI_Comm comm, const char *name, int amode, MPI_Info info, MPI_File *file)
{
    return MPI_File_open(comm, name, amode, info, file);
}

int MPI_File_delete(const char *name, MPI_Info info)
{
    char space[PATH_MAX];
    if (redirected(name))
        NEXT(unlink)(name);     /* what mkstemp() has made */
    return NEXT(MPI_File_delete)(place(name, space), info);
}

int PMPI_File_delete(const char *name, MPI_Info info)
{
    return MPI_File_delete(name, info);
}

/* Only plain relative names are a suite's files for these: programs touch many others. */
int unlink(const char *name)
{
    char space[PATH_MAX];
    int initialized = 0, finalized = 1;
    if (NEXT(unlink)(name) == 0)
        return 0;
    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    if (!initialized || finalized || name[0] == '/' || !redirected(name))
        return -1;
    return NEXT(MPI_File_delete)(place(name, space), MPI_INFO_NULL) == MPI_SUCCESS ? 0 : -1;
}

int remove(const char *name)
{
    int (*real)(const char *) = NEXT(remove);
    return real(name) == 0 ? 0 : unlink(name);
}

/* A stream with what /talea/ holds under the name of a file that a suite reads with stdio; 0 where there is none. */
static FILE *copied(const char *name)
{
    char space[PATH_MAX], block[1 << 16];
    MPI_File file;
    MPI_Status status;
    int initialized = 0, finalized = 1, got = 0;
    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    if (!initialized || finalized || !redirected(name))
        return 0;
    if (MPI_File_open(MPI_COMM_SELF, place(name, space), MPI_MODE_RDONLY, MPI_INFO_NULL, &file) != MPI_SUCCESS)
        return 0;
    FILE *copy = tmpfile();
    while (copy && MPI_File_read(file, block, sizeof block, MPI_BYTE, &status) == MPI_SUCCESS &&
           MPI_Get_count(&status, MPI_BYTE, &got) == MPI_SUCCESS && got > 0)
        fwrite(block, 1, got, copy);
    MPI_File_close(&file);
    if (copy)
        rewind(copy);
    return copy;
}

/* PnetCDF looks with POSIX calls at the first bytes of a file that it opens: it gets a copy in memory. */
static int copied_descriptor(const char *path)
{
    char block[1 << 16];
    MPI_File file;
    MPI_Status status;
    int initialized = 0, finalized = 1, got = 0;
    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    if (!initialized || finalized ||
        NEXT(MPI_File_open)(MPI_COMM_SELF, path, MPI_MODE_RDONLY, MPI_INFO_NULL, &file) != MPI_SUCCESS) {
        errno = ENOENT;
        return -1;
    }
    int fd = memfd_create("copy", MFD_CLOEXEC);
    while (fd >= 0 && MPI_File_read(file, block, sizeof block, MPI_BYTE, &status) == MPI_SUCCESS &&
           MPI_Get_count(&status, MPI_BYTE, &got) == MPI_SUCCESS && got > 0)
        if (write(fd, block, got) != got)
            break;
    MPI_File_close(&file);
    if (fd >= 0)
        lseek(fd, 0, SEEK_SET);
    return fd;
}

int access(const char *name, int mode)
{
    if (strncmp(name, "/talea/", 7) != 0)
        return NEXT(access)(name, mode);
    int fd = copied_descriptor(name);
    if (fd >= 0)
        close(fd);
    return fd < 0 ? -1 : 0;
}

int open(const char *name, int flags, ...)
{
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    /* What a suite writes to its copy is lost: those that open a file so only read it. */
    if (!(flags & O_CREAT) && strncmp(name, "/talea/", 7) == 0)
        return copied_descriptor(name);
    return NEXT(open)(name, flags, mode);
}

int open64(const char *name, int flags, ...) __attribute__((alias("open")));

FILE *fopen(const char *name, const char *mode)
{
    if (mode && mode[0] == 'r' && !strchr(mode, '+') && name && name[0] != '/' && access(name, F_OK) != 0) {
        FILE *copy = copied(name);
        if (copy)
            return copy;
    }
    return NEXT(fopen)(name, mode);
}
