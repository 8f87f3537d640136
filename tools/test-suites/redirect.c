/*
 * A preload for the test suites of others: sends the files that they open through MPI to /talea/, and notes that it did.
 *
 * The suites open plain names in their working directory, or names of mkstemp().  Each becomes $TALEA_REDIRECT plus the name's
 * last part; a name below /talea/ stays as it is.  A suite's file is in one place at a time: what it has made with POSIX calls moves
 * to /talea/ when MPI opens it, and what lies there is copied out when it reads it with POSIX calls or stdio, moves back when it opens
 * it for writing with them, and is deleted when it unlinks it.  With TALEA_REDIRECT_BACK set it moves back when MPI closes it, for
 * programs whose other half is a process without MPI.
 * The preload stands in front of the driver, as Darshan would: with a driver that it could bypass, no suite would find
 * its files.  One line for each open, also a failing one, goes to $TALEA_REDIRECT_LOG.
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

/* Moves the local file `name` to `to`, in place of what is there; copies it if it is to be kept. */
static void imported(const char *name, const char *to, int keep)
{
    char block[1 << 16];
    MPI_File file;
    ssize_t got;
    int fd = NEXT(open)(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    if (NEXT(MPI_File_open)(MPI_COMM_SELF, to, MPI_MODE_CREATE | MPI_MODE_WRONLY, MPI_INFO_NULL, &file) == MPI_SUCCESS) {
        MPI_File_set_size(file, 0);
        while ((got = read(fd, block, sizeof block)) > 0)
            MPI_File_write(file, block, got, MPI_BYTE, MPI_STATUS_IGNORE);
        if (MPI_File_close(&file) == MPI_SUCCESS && !keep)
            NEXT(unlink)(name);
    }
    close(fd);
}

/* Files that move back when they are closed. */
static struct moved {
    MPI_File file;
    MPI_Comm comm;
    char name[PATH_MAX];
} moved[16];
static int moved_count;

static void remember(MPI_File file, MPI_Comm comm, const char *name)
{
    if (moved_count == sizeof moved / sizeof *moved)
        return;
    struct moved *one = &moved[moved_count++];
    one->file = file;
    MPI_Comm_dup(comm, &one->comm);
    snprintf(one->name, sizeof one->name, "%s", name);
}

static int copied_descriptor(const char *path);

/* Moves what /talea/ has of a file back to its local name. */
static void exported(const char *name)
{
    char space[PATH_MAX], block[1 << 16];
    ssize_t got;
    const char *from = place(name, space);
    int in = copied_descriptor(from), out = in < 0 ? -1 : NEXT(open)(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    while (out >= 0 && (got = read(in, block, sizeof block)) > 0)
        if (write(out, block, got) != got)
            perror("redirect");
    if (out >= 0) {
        close(out);
        NEXT(MPI_File_delete)(from, MPI_INFO_NULL);
    }
    if (in >= 0)
        close(in);
}

int MPI_File_close(MPI_File *file)
{
    MPI_File closed = file ? *file : MPI_FILE_NULL;
    int result = NEXT(MPI_File_close)(file), rank;
    for (int i = 0; i < moved_count; i++)
        if (moved[i].file == closed) {
            struct moved one = moved[i];
            moved[i] = moved[--moved_count];
            MPI_Comm_rank(one.comm, &rank);
            if (rank == 0)
                exported(one.name);
            MPI_Barrier(one.comm);
            MPI_Comm_free(&one.comm);
            break;
        }
    return result;
}

int PMPI_File_close(MPI_File *file)
{
    return MPI_File_close(file);
}

int MPI_File_open(MPI_Comm comm, const char *name, int amode, MPI_Info info, MPI_File *file)
{
    char space[PATH_MAX];
    const char *to = place(name, space);
    struct stat status;
    int rank = 0, inter = 0;
    /* All ranks of a suite run on one node and see the same files.  An empty one is what mkstemp() has made. */
    if (to != name && MPI_Comm_test_inter(comm, &inter) == MPI_SUCCESS && !inter) {
        MPI_Comm_rank(comm, &rank);
        if (rank == 0 && NEXT(stat)(name, &status) == 0 && S_ISREG(status.st_mode) && status.st_size > 0)
            imported(name, to, status.st_mode & S_IXUSR);   /* a program that reads itself is still needed */
        MPI_Barrier(comm);
    }
    note(to);
    int result = NEXT(MPI_File_open)(comm, to, amode, info, file);
    if (result == MPI_SUCCESS && to != name && getenv("TALEA_REDIRECT_BACK"))
        remember(*file, comm, name);
    return result;
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

/* Only plain relative names, and those below /talea/, are a suite's files for these: programs touch many others. */
int unlink(const char *name)
{
    int below = strncmp(name, "/talea/", 7) == 0;
    char space[PATH_MAX];
    int initialized = 0, finalized = 1;
    if (NEXT(unlink)(name) == 0)
        return 0;
    MPI_Initialized(&initialized);
    MPI_Finalized(&finalized);
    if (!initialized || finalized || !(below || (name[0] != '/' && redirected(name))))
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
    char space[PATH_MAX];
    int below = strncmp(name, "/talea/", 7) == 0;
    if (!below && (NEXT(access)(name, mode) == 0 || errno != ENOENT || name[0] == '/' || !redirected(name)))
        return NEXT(access)(name, mode);
    int fd = copied_descriptor(below ? name : place(name, space));
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
    /* What a suite writes to a copy is lost: those that open a file by this name only read it. */
    if (!(flags & O_CREAT) && strncmp(name, "/talea/", 7) == 0)
        return copied_descriptor(name);
    int fd = NEXT(open)(name, flags, mode);
    /* Only plain relative names are a suite's files here: programs look for many others. */
    if (fd < 0 && errno == ENOENT && !(flags & O_CREAT) && name[0] != '/' && redirected(name)) {
        char space[PATH_MAX];
        if ((flags & O_ACCMODE) == O_RDONLY)
            return copied_descriptor(place(name, space));
        exported(name);
        fd = NEXT(open)(name, flags, mode);
    }
    return fd;
}

/* What stat() and lstat() say of a suite's file that is below /talea/ alone. */
static int status_of_copy(const char *name, struct stat *status)
{
    char space[PATH_MAX];
    int fd = errno == ENOENT && name[0] != '/' && redirected(name) ? copied_descriptor(place(name, space)) : -1;
    if (fd < 0)
        return -1;
    int result = fstat(fd, status);
    close(fd);
    return result;
}

int stat(const char *restrict name, struct stat *restrict status)
{
    return NEXT(stat)(name, status) == 0 ? 0 : status_of_copy(name, status);
}

int lstat(const char *restrict name, struct stat *restrict status)
{
    return NEXT(lstat)(name, status) == 0 ? 0 : status_of_copy(name, status);
}

int open64(const char *name, int flags, ...) __attribute__((alias("open")));

FILE *fopen(const char *name, const char *mode)
{
    if (mode && mode[0] == 'r' && !strchr(mode, '+') && name && name[0] != '/' && NEXT(access)(name, F_OK) != 0) {
        FILE *copy = copied(name);
        if (copy)
            return copy;
    }
    return NEXT(fopen)(name, mode);
}
