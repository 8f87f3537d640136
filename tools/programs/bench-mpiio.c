/*
 * One access pattern of MPI-IO, timed: bench-mpiio FILE.  The same program runs on a local file (ROMIO) and under /talea/ (the driver).
 *
 * Prints a line for each pattern: its name, MiB/s written and read (overlap: the share of the nonblocking write's time that computing
 * hid, in percent).  Every read is checked.  The slowest rank's time counts, from a barrier to a barrier; a write includes the sync.
 */
#include <mpi.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB (1 << 20)

static int rank, size;

static double slowest(double began)
{
    double mine = MPI_Wtime() - began, all;
    MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_MAX, MPI_COMM_WORLD);
    return all;
}

static void check(int code, const char *what)
{
    if (code != MPI_SUCCESS) {
        char text[MPI_MAX_ERROR_STRING];
        int length;
        MPI_Error_string(code, text, &length);
        fprintf(stderr, "bench-mpiio: %s: %s\n", what, text);
        MPI_Abort(MPI_COMM_WORLD, 1);
    }
}

static void fill(uint64_t *data, size_t bytes)
{
    for (size_t i = 0; i < bytes / 8; i++)
        data[i] = ((uint64_t)rank << 48) + i;
}

static void verify(const uint64_t *data, size_t bytes, const char *name)
{
    for (size_t i = 0; i < bytes / 8; i++)
        if (data[i] != ((uint64_t)rank << 48) + i) {
            fprintf(stderr, "bench-mpiio: %s: rank %d read wrong bytes\n", name, rank);
            MPI_Abort(MPI_COMM_WORLD, 1);
        }
}

static MPI_File opened(MPI_Comm comm, const char *path, int amode)
{
    MPI_File file;
    check(MPI_File_open(comm, path, amode, MPI_INFO_NULL, &file), path);
    return file;
}

static void say(const char *name, double mib, double write_s, double read_s)
{
    if (rank == 0)
        printf("%s %.1f %.1f\n", name, mib / write_s, mib / read_s);
    MPI_Barrier(MPI_COMM_WORLD);
}

/* A file for each rank (`own`) or one for all; calls of `bytes`, each rank's `stride` bytes apart. */
static void pattern(const char *name, const char *path, int own, size_t bytes, int calls)
{
    char at[4096];
    snprintf(at, sizeof at, own ? "%s.%d" : "%s", path, rank);
    MPI_Comm comm = own ? MPI_COMM_SELF : MPI_COMM_WORLD;
    uint64_t *data = malloc(bytes);
    fill(data, bytes);
    MPI_File file = opened(comm, at, MPI_MODE_CREATE | MPI_MODE_RDWR);
    MPI_Barrier(MPI_COMM_WORLD);
    double began = MPI_Wtime();
    for (int i = 0; i < calls; i++) {
        MPI_Offset offset = own ? (MPI_Offset)i * bytes : ((MPI_Offset)i * size + rank) * bytes;
        check(MPI_File_write_at(file, offset, data, bytes, MPI_BYTE, MPI_STATUS_IGNORE), "write");
    }
    check(MPI_File_sync(file), "sync");
    double write_s = slowest(began);
    began = MPI_Wtime();
    for (int i = 0; i < calls; i++) {
        MPI_Offset offset = own ? (MPI_Offset)i * bytes : ((MPI_Offset)i * size + rank) * bytes;
        memset(data, 0, bytes);
        check(MPI_File_read_at(file, offset, data, bytes, MPI_BYTE, MPI_STATUS_IGNORE), "read");
        verify(data, bytes, name);
    }
    double read_s = slowest(began);
    MPI_File_close(&file);
    MPI_Barrier(MPI_COMM_WORLD);
    if (own || rank == 0)
        MPI_File_delete(at, MPI_INFO_NULL);
    free(data);
    say(name, (double)bytes * calls * size / MIB, write_s, read_s);
}

/* A cube of doubles, cyclic in its last dimension: every run in the file is 8 bytes. Collective. */
static void blocks(const char *path, int side, int rounds)
{
    int sizes[3] = {side, side, side}, distribution[3] = {MPI_DISTRIBUTE_BLOCK, MPI_DISTRIBUTE_BLOCK, MPI_DISTRIBUTE_CYCLIC};
    int arguments[3] = {MPI_DISTRIBUTE_DFLT_DARG, MPI_DISTRIBUTE_DFLT_DARG, 1}, processes[3] = {1, size > 2 ? size / 2 : 1, size > 1 ? 2 : 1};
    MPI_Datatype type;
    int bytes;
    MPI_Type_create_darray(size, rank, 3, sizes, distribution, arguments, processes, MPI_ORDER_C, MPI_DOUBLE, &type);
    MPI_Type_commit(&type);
    MPI_Type_size(type, &bytes);
    uint64_t *data = malloc(bytes);
    fill(data, bytes);
    MPI_File file = opened(MPI_COMM_WORLD, path, MPI_MODE_CREATE | MPI_MODE_RDWR);
    check(MPI_File_set_view(file, 0, MPI_DOUBLE, type, "native", MPI_INFO_NULL), "set_view");
    MPI_Barrier(MPI_COMM_WORLD);
    double began = MPI_Wtime();
    for (int i = 0; i < rounds; i++)
        check(MPI_File_write_at_all(file, 0, data, bytes / 8, MPI_DOUBLE, MPI_STATUS_IGNORE), "write_at_all");
    check(MPI_File_sync(file), "sync");
    double write_s = slowest(began);
    began = MPI_Wtime();
    for (int i = 0; i < rounds; i++) {
        memset(data, 0, bytes);
        check(MPI_File_read_at_all(file, 0, data, bytes / 8, MPI_DOUBLE, MPI_STATUS_IGNORE), "read_at_all");
        verify(data, bytes, "blocks");
    }
    double read_s = slowest(began);
    MPI_File_close(&file);
    MPI_Type_free(&type);
    MPI_Barrier(MPI_COMM_WORLD);
    if (rank == 0)
        MPI_File_delete(path, MPI_INFO_NULL);
    free(data);
    say("blocks-of-8-bytes", (double)bytes * rounds * size / MIB, write_s, read_s);
}

static volatile double sink;

static void compute(long turns)
{
    double x = 1;
    for (long i = 0; i < turns; i++)
        x = x * 0.999999 + 1e-9;
    sink = x;
}

/* How much of a nonblocking write's time computing hides: 100 % if writing costs nothing beside it. */
static void overlap(const char *path, size_t bytes)
{
    uint64_t *data = malloc(bytes);
    MPI_Request request;
    fill(data, bytes);
    MPI_File file = opened(MPI_COMM_WORLD, path, MPI_MODE_CREATE | MPI_MODE_RDWR);
    check(MPI_File_write_at_all(file, (MPI_Offset)rank * bytes, data, bytes, MPI_BYTE, MPI_STATUS_IGNORE), "write_at_all");
    MPI_Barrier(MPI_COMM_WORLD);
    double began = MPI_Wtime();
    check(MPI_File_write_at(file, (MPI_Offset)rank * bytes, data, bytes, MPI_BYTE, MPI_STATUS_IGNORE), "write_at");
    double io_s = slowest(began);
    long turns = 1 << 20;
    began = MPI_Wtime();
    compute(turns);
    turns *= io_s / (slowest(began) + 1e-9) + 1;
    began = MPI_Wtime();
    compute(turns);
    double compute_s = slowest(began);
    MPI_Barrier(MPI_COMM_WORLD);
    began = MPI_Wtime();
    check(MPI_File_iwrite_at(file, (MPI_Offset)rank * bytes, data, bytes, MPI_BYTE, &request), "iwrite_at");
    compute(turns);
    check(MPI_Wait(&request, MPI_STATUS_IGNORE), "wait");
    double both_s = slowest(began);
    MPI_File_close(&file);
    if (rank == 0) {
        MPI_File_delete(path, MPI_INFO_NULL);
        double hidden = (io_s + compute_s - both_s) / io_s * 100;
        printf("overlap %.1f 0\n", hidden < 0 ? 0 : hidden > 100 ? 100 : hidden);
    }
    free(data);
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    if (argc != 2)
        MPI_Abort(MPI_COMM_WORLD, 2);
    pattern("contiguous-1-MiB", argv[1], 1, MIB, 64);
    pattern("interleaved-47008", argv[1], 0, 47008, 400);
    blocks(argv[1], 96, 2);
    overlap(argv[1], 32 * MIB);
    MPI_Finalize();
    return 0;
}
